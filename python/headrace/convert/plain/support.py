"""Maps of columns with bounds and periods, in float64, in which values near a bound keep the distance to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Header = Mapping[str, Any]
Pair = tuple[Any, Any]

_NAMES = {(False, False): "any", (True, False): "lower", (False, True): "upper", (True, True): "interval"}


def _columns(header: Header) -> tuple[list[str], list[tuple[float, float]]]:
    """The kind and both ends of each column; a missing end is 0."""
    kinds, bounds = [], []
    for pair, period in zip(header["bounds"], header.get("periodic") or [None] * header["features"], strict=True):
        low, high = period or pair or (None, None)
        kind = "circle" if period else _NAMES[low is not None, high is not None]
        kinds.append("linear" if kind == "interval" and header.get("linear") else kind)
        bounds.append((0.0 if low is None else low, 0.0 if high is None else high))
    return kinds, bounds


def has_ends(header: Header) -> bool:
    """Whether a column has bounds or a period."""
    return any(kind != "any" for kind in _columns(header)[0])


def to_support(o: Any, header: Header, value: Any, to_data: bool) -> Pair:
    """Map unbounded float64 rows onto the support, or back: values beyond a bound become NaN, on a bound infinite.

    Returns the values, and the logarithms of derivatives for columns with a bound or a period.
    """
    (kinds, bounds), rules = _columns(header), _TO_DATA if to_data else _TO_LATENT
    parts, logs, order = [], [], []
    for kind in dict.fromkeys(kinds):  # columns of one kind are mapped together
        columns = [c for c, kind_of in enumerate(kinds) if kind_of == kind]
        order += columns
        part = o.columns(value, columns)
        if kind != "any":
            low, high = (o.wide_constant([bounds[c][side] for c in columns], part) for side in (0, 1))
            part, log = rules[kind](o, part, low, high)
            logs.append(log)
        parts.append(part)
    return o.columns(o.joined(parts), sorted(range(len(order)), key=order.__getitem__)), o.joined(logs)


def _ends(o: Any, header: Header, with_low: Sequence[str], with_high: Sequence[str], like: Any) -> Pair:
    """Both ends of each column in the dtype of `like`; missing ends are infinite."""
    kinds, bounds = _columns(header)
    low = [ends[0] if kind in with_low else -math.inf for kind, ends in zip(kinds, bounds, strict=True)]
    high = [ends[1] if kind in with_high else math.inf for kind, ends in zip(kinds, bounds, strict=True)]
    return o.rounded(low, like), o.rounded(high, like)


def is_outside(o: Any, header: Header, rows: Any) -> Any:
    """A mask of rows with a value on a bound or beyond it, after bounds are rounded to the dtype of rows."""
    low, high = _ends(o, header, ("lower", "interval", "linear"), ("upper", "interval", "linear"), rows)
    return o.any((rows <= low) | (rows >= high))


def inside(o: Any, header: Header, rows: Any) -> Any:
    """Rows in which values on a bound or beyond it become the nearest value inside; the low end of a period is inside.

    If no float is inside the bounds, values become the float nearest to the middle.
    """
    both, xp = ("interval", "linear", "circle"), o.library
    low, high = _ends(o, header, ("lower", *both), ("upper", *both), rows)
    kinds, bounds = _columns(header)
    is_closed = o.flags([kind == "circle" for kind in kinds], rows)
    is_closed = is_closed & (low >= o.wide_constant([ends[0] for ends in bounds], rows))
    least = xp.where(is_closed, low, xp.nextafter(low, xp.full_like(low, math.inf)))
    least = xp.where(xp.isinf(low), low, least)
    most = xp.where(xp.isinf(high), high, xp.nextafter(high, xp.full_like(high, -math.inf)))
    middle = o.rounded([0.5 * low + 0.5 * high for low, high in bounds], rows)
    empty = least > most
    return o.clip(rows, xp.where(empty, middle, least), xp.where(empty, middle, most))


# ---- unbounded to bounded, by increasing functions ------------------------------------------------------------------


def _onto_interval(o: Any, y: Any, low: Any, high: Any) -> Pair:
    e, width = (-abs(y)).exp(), high - low
    near = width * (e / (1.0 + e))  # the distance of x from the nearer bound
    return o.where(y < 0.0, low + near, high - near), o.log(width) - abs(y) - 2.0 * o.log1p(e)


def _onto_linear(o: Any, y: Any, low: Any, high: Any) -> Pair:
    half = 0.5 * (high - low)
    return o.where(y < 0.0, low + half * (1.0 + y), high - half * (1.0 - y)), o.log(half) + (y - y)


def _onto_circle(o: Any, y: Any, low: Any, high: Any) -> Pair:
    return low + (high - low) * _turns(o, 0.5 * (y + 1.0)), o.log(0.5 * (high - low)) + (y - y)


_TO_DATA: dict[str, Callable[..., Pair]] = {
    "lower": lambda o, y, low, high: (low + y.exp(), y),
    "upper": lambda o, y, low, high: (high - (-y).exp(), -y),
    "interval": _onto_interval,
    "linear": _onto_linear,
    "circle": _onto_circle,
}

# ---- bounded to unbounded --------------------------------------------------------------------------------------------


def _off_interval(o: Any, x: Any, low: Any, high: Any) -> Pair:
    below, above = (x - low).log(), (high - x).log()
    return below - above, o.log(high - low) - below - above


def _off_linear(o: Any, x: Any, low: Any, high: Any) -> Pair:
    below, above, double = x - low, high - x, 2.0 / (high - low)
    return o.where(below < above, double * below - 1.0, 1.0 - double * above), o.log(double) + (x - x)


def _off_circle(o: Any, x: Any, low: Any, high: Any) -> Pair:
    width = high - low
    return 2.0 * _turns(o, (x - low) / width) - 1.0, o.log(2.0 / width) + (x - x)


_TO_LATENT: dict[str, Callable[..., Pair]] = {
    "lower": lambda o, x, low, high: ((x - low).log(), -(x - low).log()),
    "upper": lambda o, x, low, high: (-(high - x).log(), -(high - x).log()),
    "interval": _off_interval,
    "linear": _off_linear,
    "circle": _off_circle,
}


def _turns(o: Any, t: Any) -> Any:
    """t modulo 1, in [0, 1): a small negative t rounds to 1, which becomes 0."""
    part = t - o.fixed(o.floor(t))
    return o.where(part < 1.0, part, part - o.fixed(part))
