"""Linear prediction over time as a transform of a sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace._base import arguments as check
from headrace._base.stored import Stored, storable
from headrace._base.types import Floats
from headrace._core.device import Device
from headrace._flow.program.module import Block
from headrace.sequences.filter import Filter
from headrace.sequences.on_device import PredictionLinkOnDevice
from headrace.sequences.program import Link
from headrace.sequences.sequential import OverTime
from headrace.sequences.settings import MOST_UNITS

if TYPE_CHECKING:
    from typing_extensions import Self


_MOST = 1.0 - 1e-7  # of a reflection coefficient


class _Reflections:
    """The parameters by name."""

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
    """A transform of sequences: data are a linear prediction by `order` steps before, plus a residual.

    With coefficients a, x[t] = Σᵢ a[i] x[t − i] + z[t] / g, each feature separately. The coefficients are computed from
    reflection coefficients tanh(θ) by the step-up recursion (Markel, Gray 1976), so that the filter from z to x is
    stable for any parameters θ, and g = Π cosh(θ), with which the residual of an autoregressive process of variance 1
    has variance 1. Zeros, which are the parameters at first, are the identity. If a `Standardize` that has not been set
    follows at the data end, `SequenceFlow.fit` begins with Levinson's solution for the training steps.

    Before the first step x is zero. Named parameters: "reflection", θ, shape (features, order).

    Args:
        features: Number of values in each step.
        order: Steps before that take part.
        dtype: "float32" or "float64".

    Raises:
        ValueError: an option out of its range.

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
        """A prediction with these reflection coefficients, shape (features, order), between -1 and 1."""
        k = np.atleast_2d(np.asarray(reflections, np.float64))
        if not (np.abs(k) <= 1.0).all():
            raise ValueError(f"reflections: expected numbers between -1 and 1, got {k[~(np.abs(k) <= 1.0)][0]:g}")
        self = cls(k.shape[0], order=k.shape[1], dtype=dtype)
        self._take_parameters(np.arctanh(np.clip(k, -_MOST, _MOST)).astype(self._dtype).reshape(-1))
        return self

    @property
    def order(self) -> int:
        """Steps before that take part."""
        return self._order

    @property
    def field(self) -> int:
        """The number of steps before a step on which it depends."""
        return self._order

    @property
    def coefficients(self) -> Floats:
        """The coefficients a, shape (features, order), of the step before first."""
        return Filter(self._vector(), self._features, self._order).coefficients

    @property
    def is_identity(self) -> bool:
        """Whether it is the identity: in that case `SequenceFlow.fit` sets it."""
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
        """The options."""
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
    return np.clip(k, -1.0, 1.0)  # beyond by rounding
