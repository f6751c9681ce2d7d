"""Linear predictions over time as transforms of a sequence, with fixed or with adaptive coefficients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace._base import arguments as check
from headrace._base.stored import Stored, storable
from headrace._base.types import Array, Floats, Self
from headrace._core import cpu
from headrace._core.device import Device
from headrace._flow.program.module import Block
from headrace.sequences.on_device import PredictionLinkOnDevice
from headrace.sequences.program import Filter, Link
from headrace.sequences.sequential import OverTime
from headrace.sequences.settings import MOST_STEPS, MOST_UNITS, RUNNING

_MOST = 1.0 - 1e-7  # the largest absolute value of a reflection coefficient


class _Reflections:
    """The parameters of a linear prediction by name."""

    def __init__(self, features: int, order: int) -> None:
        self._shape = features, order

    @property
    def size(self) -> int:
        return self._shape[0] * self._shape[1]

    def named(self, packed: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return {"reflection": packed.reshape(self._shape).copy()}

    def pack_named(self, named: dict[str, NDArray[Any]]) -> NDArray[Any]:
        return named["reflection"].reshape(-1).copy()


@storable
class LinearPrediction(OverTime):
    """A transform of sequences: data are a linear prediction from `order` earlier steps, plus a residual.

    With coefficients a, x[t] = Σᵢ a[i] x[t − i] + z[t] / g, each feature separately. The coefficients are computed from
    reflection coefficients tanh(θ) by the step-up recursion (Markel, Gray 1976), so that the filter from z to x is
    stable for any parameters θ. With the gain g = Π cosh(θ), residuals of an autoregressive process of variance 1 have
    variance 1. Initial parameters are zero, which makes the transform the identity. If a `Standardize` that has not
    been set follows at the data end, `SequenceFlow.fit` begins with Levinson's solution for the training steps.

    Before the first step x is zero. Named parameters: "reflection", θ, shape (features, order).

    Args:
        features: The number of values in each step.
        order: The number of earlier steps that predict a step.
        dtype: "float32" or "float64".

    Raises:
        ValueError: an option is out of its range.

    >>> import numpy as np, headrace as hr
    >>> t = hr.LinearPrediction(order=2)
    >>> t.set_parameter("reflection", np.arctanh([[0.9, -0.5]]).astype("float32"))
    >>> t.coefficients.round(2).tolist()  # x[t] = 1.35 x[t - 1] - 0.5 x[t - 2] + ...
    [[1.35, -0.5]]
    """

    _dtype: np.dtype[Any]

    def __init__(self, features: int = 1, *, order: int = 32, dtype: DTypeLike = "float32") -> None:
        n = check.integer("features", features, least=1, most=MOST_UNITS)
        super().__init__(n, 0, 0, 1, check.float_dtype("dtype", dtype))
        self._order = check.integer("order", order, least=1, most=MOST_UNITS)
        self._take_parameters(np.zeros(n * self._order, self._dtype))

    @classmethod
    def of_reflections(cls, reflections: Any, dtype: DTypeLike = "float32") -> Self:
        """A prediction with given reflection coefficients, shape (features, order), between -1 and 1."""
        k = np.atleast_2d(np.asarray(reflections, np.float64))
        if not (np.abs(k) <= 1.0).all():
            raise ValueError(f"reflections: expected numbers between -1 and 1, got {k[~(np.abs(k) <= 1.0)][0]:g}")
        self = cls(k.shape[0], order=k.shape[1], dtype=dtype)
        self._take_parameters(np.arctanh(np.clip(k, -_MOST, _MOST)).astype(self._dtype).reshape(-1))
        return self

    @property
    def order(self) -> int:
        """The number of earlier steps that predict a step."""
        return self._order

    @property
    def field(self) -> int:
        """The number of earlier steps on which a step depends."""
        return self._order

    @property
    def coefficients(self) -> Floats:
        """The coefficients a, shape (features, order), the coefficient of the latest earlier step first."""
        return Filter(self._vector(), self._features, self._order).coefficients

    @property
    def is_identity(self) -> bool:
        """Whether the transform is the identity, which `SequenceFlow.fit` replaces."""
        return not self._vector().any()

    def _blocks(self) -> list[tuple[str, Block]]:
        return [("", _Reflections(self._features, self._order))]

    def _link(self, dtype: np.dtype[Any], products: str) -> Link:
        return "prediction", self._order

    def _link_on(self, device: Device, dtype: np.dtype[Any]) -> PredictionLinkOnDevice:
        return PredictionLinkOnDevice(self._features, self._order, device, dtype)

    def _header(self) -> dict[str, Any]:
        return {"features": self._features, "order": self._order}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        features, order = stored.size("features", least=1), stored.size("order", least=1)
        reflection = stored.array("reflection", (features, order))
        self = cls(features, order=order, dtype=reflection.dtype)
        self._take_parameters(reflection.reshape(-1))
        return self

    def __repr__(self) -> str:
        """The options of the transform."""
        return f"LinearPrediction({self._features}, order={self._order})"


def levinson(autocorrelation: Floats) -> Floats:
    """Reflection coefficients, shape (order,), of an autocorrelation at lags 0, ..., order (Levinson 1947)."""
    order = autocorrelation.size - 1
    k, a, error = np.zeros(order), np.zeros(0), float(autocorrelation[0])
    for m in range(order):
        if not error > 0.0:
            break
        k[m] = (autocorrelation[m + 1] - (a * autocorrelation[m:0:-1]).sum()) / error
        a = np.append(a - k[m] * a[::-1], k[m])
        error *= 1.0 - k[m] ** 2
    return np.clip(k, -1.0, 1.0)  # because rounding may exceed 1


_SIZES, _NUMBERS = ("order", "window", "every"), ("floor", "ceiling", "start", "damping")
BEYOND = 1e-3  # share of steps with a running size above the ceiling that a fit sets
_SCALE, _LONGEST = 40, 320  # steps of the scale and of the longest running size: cpp/core/sequences/adaptive.hpp


@storable
class AdaptivePrediction(OverTime):
    """A transform of sequences: data are a prediction from earlier steps, by a filter computed from earlier steps, plus
    a scaled residual.

    x[t] = Σᵢ a[i] x[t − i] + s[t] z[t], each feature separately. Every `every` steps, the coefficients a are computed
    again (Levinson 1947) from the autocorrelation of the last `window` steps, so that a follows a changing spectrum.
    The scale s[t] is the mean absolute value of the 40 residuals before t, limited to `floor` and `ceiling`. Both a and
    s are functions of the past alone, without trained parameters. A `CausalConvolution` with ``sizes=True`` at the
    latent side reads the logarithms of three running sizes, mean absolute residuals of 8, 40 and 320 steps.

    Before the first step x is zero, and the sizes of residuals are `start`. From data to latent all gradients are
    supported, also through the coefficients; from latent to data no gradient is supported.

    Args:
        features: The number of values in each step.
        order: The number of earlier steps that predict a step.
        window: The number of earlier steps that determine the coefficients.
        every: The number of steps after which the coefficients are computed again.
        floor: The least running size, in units of x. The square of `floor` is added to the variance of each step of the
            window, so that coefficients exist for silence and for rounding noise.
        ceiling: The largest running size.
        start: The size of each residual before the first step.
        damping: A factor d above 0 and up to 1: a[i] is multiplied by d^i. With ``damping=1``, resonances of samples
            become sharper at each computation of coefficients, and samples become too loud.

    Raises:
        ValueError: an option is out of its range.

    >>> import headrace as hr
    >>> network = hr.CausalConvolution(dilations=[1, 2], channels=8, sizes=True)
    >>> flow = hr.SequenceFlow([network, hr.AdaptivePrediction(order=8, window=160)])
    >>> flow.sample(2, steps=50, seed=0).shape
    (2, 50, 1)
    """

    def __init__(
        self,
        features: int = 1,
        *,
        order: int = 24,
        window: int = 480,
        every: int = 20,
        floor: float = 1e-3,
        ceiling: float = 10.0,
        start: float = 1.0,
        damping: float = 0.997,
    ) -> None:
        super().__init__(check.integer("features", features, least=1, most=MOST_UNITS), 0, 0, 1, None)
        self.order = check.integer("order", order, least=1, most=MOST_UNITS)
        self.window = check.integer("window", window, least=self.order + 1, most=MOST_STEPS)
        self.every = check.integer("every", every, least=1, most=MOST_STEPS)
        self.floor = check.number("floor", floor, above=0.0, below=np.inf)
        self.ceiling = check.number("ceiling", ceiling, least=self.floor, below=np.inf)
        self.start = check.number("start", start, above=0.0, below=np.inf)
        self.damping = check.number("damping", damping, above=0.0, below=np.nextafter(1.0, 2.0))

    @property
    def field(self) -> int:
        """The number of earlier steps on which a step depends."""
        return self.window + self.every - 1 + _LONGEST

    @property
    def is_identity(self) -> bool:
        """Whether `floor`, `ceiling` and `start` have their defaults, which `SequenceFlow.fit` replaces."""
        return (self.floor, self.ceiling, self.start) == (1e-3, 10.0, 1.0)

    def bounded(self, values: list[Array], before: list[int], step: float | None) -> Self:
        """A copy with `floor`, `ceiling` and `start` for pieces of standardised sequences, shape (steps, features). The
        first `before` steps of a piece only serve as past; `step` is the step of the grid of values, or None.

        The ceiling is the running size of 40 steps that one step in a thousand exceeds: above it, steps are too rare
        for a network to learn to bring a sampled signal back. The floor is a thousandth of the ceiling, or for values
        on a grid a sixth of the grid's step. The start is the mean of several values: the mean running size of all
        steps, and the running size of the first 40 residuals of each sequence that begins in the pieces.
        """
        settings = self._header()
        probe = type(self)(**settings | {"start": self.floor})
        core: Any = cpu.SequenceChainF64(self.features, [probe._link(np.dtype(np.float64), "exact")], None)
        weights = core.weights(np.zeros(0), [])
        logs = [core.run_link(weights, 0, True, x[None].astype(np.float64), None)[2][0, :, 1::RUNNING] for x in values]
        sizes = np.exp(np.concatenate([own[n:] for own, n in zip(logs, before, strict=True)]))
        ceiling = float(np.quantile(sizes, 1.0 - BEYOND))
        floor = 1e-3 * ceiling if step is None else min(step / 6.0, ceiling)
        fresh = [own[_SCALE] for own, n in zip(logs, before, strict=True) if not n and len(own) > _SCALE]
        first = [sizes.mean(), *(float(np.exp(one).mean()) for one in fresh)]
        start = min(max(float(np.mean(first)), floor), ceiling)
        return type(self)(**settings | {"floor": floor, "ceiling": ceiling, "start": start})

    def _vector(self) -> NDArray[Any]:
        return np.zeros(0)

    def _blocks(self) -> list[tuple[str, Block]]:
        return []

    def _link(self, dtype: np.dtype[Any], products: str) -> Link:
        return "adaptive", *(getattr(self, name) for name in (*_SIZES, *_NUMBERS))

    def _header(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("features", *_SIZES, *_NUMBERS)}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        sizes = {name: stored.size(name, least=1) for name in ("features", *_SIZES)}
        return cls(**sizes, **{name: stored.take(name) for name in _NUMBERS})

    def __repr__(self) -> str:
        """The options of the transform."""
        named = ", ".join(f"{name}={value:.7g}" for name, value in self._header().items() if name != "features")
        return f"AdaptivePrediction({self._features}, {named})"
