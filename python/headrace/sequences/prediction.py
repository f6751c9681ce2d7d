"""Linear prediction over time as a transform of a sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace._base import arguments as check
from headrace._base.stored import Stored, storable
from headrace._base.types import Floats
from headrace._core import cpu
from headrace._core.device import Device
from headrace._flow.program.module import Block, Program
from headrace.sequences.links import Block as Values
from headrace.sequences.links import Cotangent, LinkCall, LinkGradients
from headrace.sequences.on_device import PredictionLinkOnDevice
from headrace.sequences.program import SequenceProgram
from headrace.sequences.sequential import Sequential
from headrace.sequences.settings import MOST_UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

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
class LinearPrediction(Sequential):
    """A transform of sequences: data are what `order` steps before predict linearly, plus a residual.

    With coefficients a, x[t] = Σᵢ a[i] x[t − i] + z[t] / g, each feature by itself. The coefficients come from
    reflection coefficients tanh(θ) by the step-up recursion (Markel, Gray 1976), so that the filter from z to x is
    stable whatever the parameters θ are, and g = Π cosh(θ), with which the residual of an autoregressive process of
    variance 1 has variance 1. Zeros, which are the parameters at first, are the identity. Before a `Standardize` at the
    data end, which nothing has set, `SequenceFlow.fit` begins with Levinson's solution for the training steps.

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
        """That of reflection coefficients, shape (features, order), between -1 and 1."""
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
        return _Filter(self._vector(), self._features, self._order).coefficients

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing: as long as that is so, `SequenceFlow.fit` sets it."""
        return not self._vector().any()

    def _blocks(self) -> list[tuple[str, Block]]:
        return [("", _Reflections(self._features, self._order))]

    def _link(
        self, dtype: np.dtype[Any], products: str, device: Device | None = None
    ) -> PredictionLink | PredictionLinkOnDevice:
        if device is not None:
            return PredictionLinkOnDevice(self._features, self._order, device, dtype)
        return PredictionLink(self._features, self._order, dtype)

    def _compile(self, dtype: np.dtype[Any], parameters: NDArray[Any] | None = None) -> Program:
        program = SequenceProgram([self._link(dtype, "exact")], [[], [block for _, block in self._blocks()]], dtype)
        if parameters is not None:
            self._fill(program, parameters)
        return program

    def _header(self) -> dict[str, Any]:
        return {"features": self._features, "order": self._order}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        features, order = stored.size("features", least=1), stored.size("order", least=1)
        if stored.dtype is None:
            raise ValueError("dtype: expected 'float32' or 'float64' where there are parameters, got None")
        reflection = stored.array("reflection", (features, order))
        self = cls(features, order=order, dtype=stored.dtype)
        self._take_parameters(reflection.reshape(-1))
        return self

    def __repr__(self) -> str:
        """The options."""
        return f"LinearPrediction({self._features}, order={self._order})"


class _Filter:
    """Coefficients and gains, in float64, from the parameters, and the derivatives of the way there."""

    def __init__(self, parameters: NDArray[Any], features: int, order: int) -> None:
        self.theta = parameters.astype(np.float64).reshape(features, order)
        self.k = np.tanh(self.theta)
        self._steps = [np.zeros((features, 0))]
        for m in range(order):
            a, k = self._steps[-1], self.k[:, m : m + 1]
            self._steps.append(np.hstack([a - k * a[:, ::-1], k]))
        self.coefficients = self._steps[-1]
        with np.errstate(invalid="ignore"):  # of parameters that are NaN
            self.log_gain = (np.logaddexp(self.theta, -self.theta) - np.log(2.0)).sum(axis=1)

    def by_parameters(self, by_coefficients: Floats, by_log_gain: Floats) -> Floats:
        """The gradient by the parameters, a vector."""
        by_k, by_a = np.empty_like(self.k), by_coefficients
        for m in reversed(range(self.k.shape[1])):
            a, k = self._steps[m], self.k[:, m : m + 1]
            rest, last = by_a[:, :-1], by_a[:, -1]
            by_k[:, m] = last - (rest * a[:, ::-1]).sum(axis=1)
            by_a = rest - k * rest[:, ::-1]
        found: Floats = by_k * (1.0 - np.square(self.k)) + by_log_gain[:, None] * self.k
        return found.reshape(-1)


class PredictionState:
    """The values of the steps before, of each sequence; the interface of the core's `CausalStreams`."""

    def __init__(self, rows: int, order: int, features: int, dtype: np.dtype[Any]) -> None:
        """The state before the first step."""
        self.past = np.zeros((rows, order, features), dtype)
        self.position = 0

    @property
    def rows(self) -> int:
        """The number of sequences."""
        return len(self.past)

    @property
    def numbers(self) -> int:
        """Values of a sequence's state."""
        _, order, features = self.past.shape
        return int(order * features)

    def rows_of(self, rows: Sequence[int]) -> PredictionState:
        """The states of the chosen sequences."""
        other = PredictionState(0, self.past.shape[1], self.past.shape[2], self.past.dtype)
        other.past, other.position = self.past[list(rows)], self.position
        return other

    def to_array(self) -> NDArray[Any]:
        """Shape (rows, numbers)."""
        return self.past.reshape(self.rows, -1).copy()

    def set_array(self, numbers: NDArray[Any], position: int) -> None:
        """Go on from a result of `to_array`."""
        self.past = numbers.reshape(self.past.shape).copy()
        self.position = position

    def go_on(self, x: Values) -> None:
        """Take these steps as the past."""
        order = self.past.shape[1]
        self.past = np.ascontiguousarray(np.concatenate([self.past, x[:, -order:]], axis=1)[:, -order:])
        self.position += x.shape[1]


class PredictionLink:
    """What computes it in a chain: residuals of x with a gain, and x from residuals."""

    has_network = False
    n_pairs = 0

    def __init__(self, features: int, order: int, dtype: np.dtype[Any]) -> None:
        self._features, self.order, self._dtype = features, order, dtype
        self._core: Any = cpu.predict_f32 if dtype == np.float32 else cpu.predict_f64
        self._known: tuple[bytes, _Filter] = b"", _Filter(np.zeros(features * order), features, order)

    def round(self, parameters: NDArray[Any], to: NDArray[Any]) -> None:
        """See `Link`."""
        to[:] = parameters

    def state(self, rows: int) -> PredictionState:
        """See `Link`."""
        return PredictionState(rows, self.order, self._features, self._dtype)

    def runs_at_once(self, inverse: bool) -> bool:
        """See `Link`."""
        return inverse

    def filter_of(self, parameters: NDArray[Any]) -> _Filter:
        """The filter of these parameters; that of the last call is kept."""
        key, known = parameters.tobytes(), self._known
        if known[0] != key:
            known = self._known = key, _Filter(parameters, self._features, self.order)
        return known[1]

    def gain(self, parameters: NDArray[Any]) -> NDArray[Any]:
        """That of each feature."""
        gain: NDArray[Any] = np.exp(self.filter_of(parameters).log_gain).astype(self._dtype)
        return gain

    def _filtered(self, own: _Filter, given: Values, past: Values | None, to_signal: bool) -> Values:
        result = np.empty(given.shape, self._dtype)
        oldest_first = np.ascontiguousarray(own.coefficients[:, ::-1], self._dtype)
        self._core(oldest_first, np.ascontiguousarray(given, self._dtype), result, past, to_signal)
        return result

    def run(self, call: LinkCall, state: PredictionState | None) -> tuple[Values, Values]:
        """See `Link`."""
        given, inverse, past = call.given, call.inverse, None if state is None else state.past
        own, gain = self.filter_of(call.parameters), self.gain(call.parameters)
        log_det = np.full(given.shape[:2], own.log_gain.sum() * (1.0 if inverse else -1.0), self._dtype)
        if inverse:
            x = given.astype(self._dtype, copy=False)
            result = self._filtered(own, x, past, False) * gain
        else:
            x = result = self._filtered(own, given.astype(self._dtype, copy=False) / gain, past, True)
        if state is not None:
            state.go_on(x)
        return result, log_det

    def vjp(
        self, call: LinkCall, cotangent: Cotangent, kinds: tuple[str, ...], result: Values | None = None
    ) -> LinkGradients:
        """See `Link`.

        With u the cotangent of the residual e = x − Σ a x before its gain, that of x is the filter's transpose, applied
        from the last step on, and from z to x the solution of that, by the same recursion in reversed time.
        """
        given, inverse = call.given, call.inverse
        own, gain = self.filter_of(call.parameters), self.gain(call.parameters)
        other = self.run(call, None)[0] if result is None else result
        x, z = (given, other) if inverse else (other, given)
        by_value = np.zeros(given.shape, self._dtype) if cotangent.value is None else cotangent.value
        sign = 1.0 if inverse else -1.0
        of_log_det = 0.0 if cotangent.log_det is None else sign * float(cotangent.log_det.sum(dtype=np.float64))
        scaled = by_value * gain if inverse else by_value
        backwards = np.ascontiguousarray(scaled[:, ::-1])
        found = self._filtered(own, backwards, None, not inverse)[:, ::-1]
        by_residual = scaled if inverse else found  # its gradient from x's: of e, or of what the recursion takes
        inputs = found if inverse else found / gain
        if "parameters" not in kinds:
            return LinkGradients(np.ascontiguousarray(inputs, self._dtype))
        wide, seen = by_residual.astype(np.float64), x.astype(np.float64)
        by_coefficients = np.zeros_like(own.coefficients)
        for lag in range(1, min(self.order, x.shape[1] - 1) + 1):
            by_coefficients[:, lag - 1] = (wide[:, lag:] * seen[:, :-lag]).sum(axis=(0, 1))
        if inverse:
            by_coefficients *= -1.0
        by_gain = (by_value.astype(np.float64) * z).sum(axis=(0, 1)) if inverse else -(wide / gain * z).sum(axis=(0, 1))
        by_parameters = own.by_parameters(by_coefficients, by_gain + of_log_det)
        return LinkGradients(np.ascontiguousarray(inputs, self._dtype), by_parameters)


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
