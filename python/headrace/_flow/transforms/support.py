"""Maps of the real line onto bounded and periodic columns, for the data end of a flow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.stored import Stored, storable
from headrace._base.types import Self
from headrace._core.steps import StepSpec
from headrace._flow.transforms.fixed import Fixed

Bounds = Sequence["tuple[float | None, float | None] | None"]
Periods = Sequence["tuple[float, float] | None"]
ColumnBounds = Bounds | Mapping[str, "tuple[float | None, float | None]"] | Mapping[int, Any]
ColumnPeriods = Periods | Mapping[str, "tuple[float, float]"] | Mapping[int, Any]
"""A period for each column, or for some columns by name or index."""


@storable
class Support(Fixed):
    """A map of unbounded values to the support of each column: forward maps to the support, and inverse maps from the
    support.

    Args:
        bounds: For each column ``(low, high)``, with None for an end without a bound, or None for no bounds.
        periodic: For each column the ends ``(low, high)`` of one period, or None; None for no periodic columns. A
            periodic column must have no bounds.
        linear: Whether columns ``(low, high)`` have a linear map from [-1, 1] in place of the logistic function.
            With transforms of [-1, 1] onto itself and a `Uniform` base, a density need not vanish at the bounds.

    An unbounded value y becomes x = low + e^y for ``(low, None)``, high - e^-y for ``(None, high)``, and low + (high -
    low) / (1 + e^-y) for ``(low, high)``. With `linear` the map to ``(low, high)`` is low + (high - low) (1 + y) / 2,
    and y beyond [-1, 1] becomes the nearest number inside the bounds.

    A periodic column is wrapped into [low, high), which is mapped to [-1, 1): inverse has the same result for x and for
    x plus any number of periods, up to rounding, and forward also wraps values outside of [-1, 1).

    All these maps increase. The map to an interval is the logistic function, because the logistic function's inverse
    and derivatives are elementary, and exact near both ends, unlike those of a normal distribution function. The
    transform has no parameters. At the data end of a flow the transform is computed in float64 for any dtype of the
    flow, from the original rows, so that float64 rows close to a bound keep their distance to the bound.

    **No result lies on a bound or beyond**, in the dtype of the rows: a value that rounds to a bound becomes
    the nearest value inside, with the log_det of the value before rounding. (If the dtype has no value between the
    bounds, the result is the value nearest to their middle.) A row on a bound or beyond has no latent value: its result
    is NaN, and if the transform is a flow's last one, `log_prob` is -inf. A row that overflows becomes NaN, as in
    all transforms.

    Raises:
        TypeError: `bounds` or `periodic` is no sequence of pairs and None, or `linear` is no bool.
        ValueError: the sequence is empty, an end is infinite or NaN (use None), low is not below high, or a column
            has bounds and a period.

    >>> import numpy as np, headrace as hr
    >>> t = hr.transforms.Support([(0.0, None), (0.0, 1.0), None])
    >>> x, log_det = t.forward(np.zeros((1, 3)))
    >>> x.tolist(), log_det.round(4).tolist()  # log(1) + log(1/4) + 0
    ([[1.0, 0.5, 0.0]], [-1.3863])
    """

    def __init__(self, bounds: Bounds | None, periodic: Periods | None = None, *, linear: bool = False) -> None:
        if bounds is None and periodic is not None:
            bounds = [None] * len(_checked("periodic", periodic))
        self.bounds = _checked("bounds", bounds)
        self.periodic = _checked_periods(periodic, self.bounds)
        if not isinstance(linear, bool):
            raise TypeError(f"linear: expected True or False, got {linear!r}")
        self.linear = linear
        kinds, low, high = [], [], []
        for pair, period in zip(self.bounds, self.periodic, strict=True):
            start, end = period or pair or (None, None)
            kind = "circle" if period else _KINDS[start is not None, end is not None]
            kinds.append("linear" if linear and kind == "interval" else kind)
            low.append(0.0 if start is None else start)
            high.append(0.0 if end is None else end)
        self._kinds, self._low, self._high = kinds, low, high
        super().__init__(len(kinds))

    @property
    def is_identity(self) -> bool:
        """Whether no column has bounds or a period."""
        return all(kind == "any" for kind in self._kinds)

    def _steps(self, inverted: bool = False) -> list[StepSpec]:
        if self.is_identity:
            return []
        return [StepSpec("SupportStep", inverted=inverted, supports=self._kinds, low=self._low, high=self._high)]

    def _part(self, kept: tuple[int, ...]) -> Support:
        return Support([self.bounds[c] for c in kept], [self.periodic[c] for c in kept], linear=self.linear)

    def _ends(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lower and the upper bounds of the columns; a missing bound is infinite."""
        ends = [pair or (None, None) for pair in self.bounds]
        low = np.array([-math.inf if low is None else low for low, _ in ends])
        high = np.array([math.inf if high is None else high for _, high in ends])
        return low, high

    def _inside(self, values: NDArray[Any]) -> NDArray[Any]:
        """The values, where a value on a bound or beyond is replaced by the nearest value inside."""
        low, high = (end.astype(values.dtype) for end in self._ends())
        return np.clip(values, np.nextafter(low, high), np.nextafter(high, low))

    def _coarse(self, dtype: np.dtype[Any]) -> NDArray[np.bool_]:
        """For each column, whether fewer than `NUMBERS` values of the dtype lie between its two ends."""
        both = np.array([kind in ("interval", "linear", "circle") for kind in self._kinds])
        low, high = np.where(both, self._low, 0.0), np.where(both, self._high, 1.0)
        with np.errstate(over="ignore"):  # steps beyond the dtype's range are NaN
            step = np.spacing(np.maximum(np.abs(low), np.abs(high)).astype(dtype)).astype(np.float64)
        return both & ~(high - low >= NUMBERS * step) & np.isfinite(step)

    def _header(self) -> dict[str, Any]:
        header = {"features": self._features, "bounds": [None if pair is None else list(pair) for pair in self.bounds]}
        if any(self.periodic):
            header["periodic"] = [None if pair is None else list(pair) for pair in self.periodic]
        if self.linear:
            header["linear"] = True
        return header

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        features, bounds = stored.size("features", least=1), stored.numbers("bounds")
        check.length("bounds", bounds, features)
        periodic = stored.numbers("periodic") if stored.has("periodic") else None
        return cls(bounds, periodic, linear=stored.take("linear") if stored.has("linear") else False)

    def __repr__(self) -> str:
        """The class name, the bounds and the periods."""
        more = f", periodic={list(self.periodic)}" if any(self.periodic) else ""
        return f"Support({list(self.bounds)}{more}{', linear=True' if self.linear else ''})"


NUMBERS = 1000  # a dtype with fewer values between two ends is too coarse

_KINDS = {(False, False): "any", (True, False): "lower", (False, True): "upper", (True, True): "interval"}

Pair = tuple["float | None", "float | None"]


def _checked(name: str, bounds: Any) -> tuple[Pair | None, ...]:
    """The pairs of bounds as floats; (None, None) becomes None."""
    if not isinstance(bounds, (Sequence, np.ndarray)) or isinstance(bounds, (str, bytes)):
        raise TypeError(f"{name}: expected a sequence of (low, high) or None, got {check.kind_of(bounds)}")
    if len(bounds) == 0:
        raise ValueError(f"{name}: expected one for each column, got none")
    pairs: list[Pair | None] = []
    for i, pair in enumerate(bounds):
        if pair is None:
            pairs.append(None)
            continue
        if not isinstance(pair, (Sequence, np.ndarray)) or isinstance(pair, (str, bytes)):
            raise TypeError(f"{name}[{i}]: expected (low, high) or None, got {check.kind_of(pair)}")
        if len(pair) != 2:
            raise ValueError(f"{name}[{i}]: expected (low, high), two numbers or None, got {pair!r}")
        low, high = (None if end is None else _end(f"{name}[{i}][{j}]", end) for j, end in enumerate(pair))
        if low is not None and high is not None and not low < high:
            raise ValueError(f"{name}[{i}]: expected low below high, got ({low}, {high})")
        if low is not None and high is not None and not math.isfinite(high - low):
            raise ValueError(f"{name}[{i}]: expected an interval whose width is a number, got ({low}, {high})")
        pairs.append(None if low is None and high is None else (low, high))
    return tuple(pairs)


def _checked_periods(periodic: Any, bounds: tuple[Pair | None, ...]) -> tuple[tuple[float, float] | None, ...]:
    """The checked periods as floats, one for each column."""
    if periodic is None:
        return (None,) * len(bounds)
    pairs = _checked("periodic", periodic)
    check.length("periodic", pairs, len(bounds))
    periods: list[tuple[float, float] | None] = []
    for i, (pair, own) in enumerate(zip(pairs, bounds, strict=True)):
        low, high = pair or (None, None)
        if pair is not None and (low is None or high is None):
            raise ValueError(f"periodic[{i}]: expected both ends of a period, got {pair}")
        if pair is not None and own is not None:
            raise ValueError(f"periodic[{i}]: expected None, because the column has bounds {own}, got {pair}")
        periods.append(None if low is None or high is None else (low, high))
    return tuple(periods)


def _end(name: str, value: Any) -> float:
    try:
        if isinstance(value, (bool, np.bool_, str, bytes)):
            raise TypeError
        end = float(value)
    except OverflowError:
        end = math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number or None, got {check.kind_of(value)} {value!r}") from None
    if not math.isfinite(end):
        raise ValueError(f"{name}: expected a finite number, or None for no bound, got {end}")
    return end


def circles_of(support: Support | None) -> list[int]:
    """The indices of a `Support`'s periodic columns."""
    return [] if support is None else [c for c, period in enumerate(support.periodic) if period is not None]


def support_or_none(
    bounds: Bounds | None, features: int, periodic: Periods | None = None, *, linear: bool = False
) -> Support | None:
    """The `Support` for a flow's bounds and periods; None without bounds and periods."""
    if bounds is None and periodic is None:
        return None
    for name, given in (("bounds", bounds), ("periodic", periodic)):
        if isinstance(given, (Sequence, np.ndarray)) and len(given) not in (0, features):
            raise ValueError(f"{name}: expected {features} of them, one for each column, got {len(given)}")
    support = Support(bounds, periodic, linear=linear)
    return None if support.is_identity else support
