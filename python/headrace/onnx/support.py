"""Columns with bounds and periods, in float64 as the core has them (cpp/math/support.hpp)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from headrace.onnx.graph import Value, concatenate, where

__all__ = ["from_support", "has_ends", "inside", "is_outside", "to_support"]

Header = Mapping[str, Any]
Pair = tuple[Value, Value]


class _Ends(NamedTuple):
    """Some columns of one kind as constants of float64, by what is done to them."""

    low: Value
    high: Value
    width: Value
    numbers: Callable[[float], Value]


def to_support(header: Header, value: Value) -> tuple[Value, Value | None]:
    """Unbounded rows of float64 onto the support, and the logarithm of each derivative; None where there are none."""
    return _by_kind(header, value, _TO)


def from_support(header: Header, value: Value) -> tuple[Value, Value | None]:
    """The way back: NaN beyond a bound, an infinity on it."""
    return _by_kind(header, value, _FROM)


def has_ends(header: Header) -> bool:
    """Whether a column has bounds or a period."""
    return any(kind != "any" for kind in _kinds(header))


def is_outside(header: Header, rows: Value) -> Value:
    """Rows of float32 with a number on a bound or beyond, where a bound is what it is in float32."""
    low, high = _ends(header, ("lower", "interval", "linear"), ("upper", "interval", "linear"))
    return where((rows <= low) | (rows >= high), 1.0, 0.0).sum() > 0.0


def inside(header: Header, rows: Value) -> Value:
    """Rows of float32 that rounded to a bound or beyond, taken to the nearest number inside; a circle has its low end.

    Where no float32 lies inside, it is the one nearest to the middle.
    """
    both = ("interval", "linear", "circle")
    low, high = _ends(header, ("lower", *both), ("upper", *both))
    exact = [np.array([bound[side] for bound in _bounds(header)], np.float64) for side in (0, 1)]
    single = np.float32
    is_circle = np.array([kind == "circle" for kind in _kinds(header)])
    least = np.where(is_circle & (low >= exact[0]), low, np.nextafter(low, single(np.inf)))
    most = np.nextafter(high, single(-np.inf))
    least, most = np.where(np.isinf(low), low, least), np.where(np.isinf(high), high, most)
    middle = (exact[0] / 2.0 + exact[1] / 2.0).astype(single)
    empty = least > most
    return rows.clip(np.where(empty, middle, least), np.where(empty, middle, most))


def _ends(header: Header, with_low: Sequence[str], with_high: Sequence[str]) -> tuple[Any, Any]:
    """Both ends of each column in float32, infinite where its kind has none."""
    kinds, bounds = _kinds(header), _bounds(header)
    pairs = [
        (low if kind in with_low else -np.inf, high if kind in with_high else np.inf)
        for kind, (low, high) in zip(kinds, bounds, strict=True)
    ]
    with np.errstate(over="ignore"):
        low, high = np.array(pairs, np.float64).T.astype(np.float32)
    return low, high


def _kinds(header: Header) -> list[str]:
    periods = header.get("periodic") or [None] * header["features"]
    kinds = []
    for pair, period in zip(header["bounds"], periods, strict=True):
        low, high = pair or (None, None)
        kind = "circle" if period else _NAMES[low is not None, high is not None]
        kinds.append("linear" if kind == "interval" and header.get("linear") else kind)
    return kinds


_NAMES = {(False, False): "any", (True, False): "lower", (False, True): "upper", (True, True): "interval"}


def _bounds(header: Header) -> list[tuple[float, float]]:
    """Both ends of each column; 0 where there is none."""
    periods = header.get("periodic") or [None] * header["features"]
    pairs = [period or pair or (None, None) for pair, period in zip(header["bounds"], periods, strict=True)]
    return [(0.0 if low is None else low, 0.0 if high is None else high) for low, high in pairs]


def _by_kind(header: Header, value: Value, rules: Mapping[str, Any]) -> tuple[Value, Value | None]:
    """Columns of one kind together, then all in their order again."""
    kinds, bounds, graph = _kinds(header), np.array(_bounds(header)), value.graph
    parts, logs, order = [], [], []
    for kind in dict.fromkeys(kinds):
        columns = [c for c, own in enumerate(kinds) if own == kind]
        order += columns
        part = value.columns(columns)
        if kind != "any":
            low, high = bounds[columns].T
            start, end, width = (graph.constant(numbers, np.float64) for numbers in (low, high, high - low))
            ends = _Ends(start, end, width, lambda number: graph.constant(number, np.float64))
            part, log = rules[kind](ends, part)
            logs.append(log)
        parts.append(part)
    together = concatenate(parts).columns(np.argsort(order).tolist())
    return together, concatenate(logs) if logs else None


# ---- unbounded to bounded: each rises ------------------------------------------------------------------------------


def _to_interval(c: _Ends, y: Value) -> Pair:
    one, two = c.numbers(1.0), c.numbers(2.0)
    e = (-abs(y)).exp()
    near = c.width * (e / (one + e))  # the distance to the nearer bound
    return where(y < c.numbers(0.0), c.low + near, c.high - near), c.width.log() - abs(y) - two * (one + e).log()


def _to_linear(c: _Ends, y: Value) -> Pair:
    one, half = c.numbers(1.0), c.numbers(0.5) * c.width
    return where(y < c.numbers(0.0), c.low + half * (one + y), c.high - half * (one - y)), half.log() + (y - y)


def _to_circle(c: _Ends, y: Value) -> Pair:
    half = c.numbers(0.5)
    return c.low + c.width * _turns(c, half * (y + c.numbers(1.0))), (half * c.width).log() + (y - y)


_TO = {
    "lower": lambda c, y: (c.low + y.exp(), y),
    "upper": lambda c, y: (c.high - (-y).exp(), -y),
    "interval": _to_interval,
    "linear": _to_linear,
    "circle": _to_circle,
}

# ---- bounded to unbounded --------------------------------------------------------------------------------------------


def _from_lower(c: _Ends, x: Value) -> Pair:
    y = (x - c.low).log()
    return y, -y


def _from_upper(c: _Ends, x: Value) -> Pair:
    y = -(c.high - x).log()
    return y, y


def _from_interval(c: _Ends, x: Value) -> Pair:
    below, above = (x - c.low).log(), (c.high - x).log()
    return below - above, c.width.log() - below - above


def _from_linear(c: _Ends, x: Value) -> Pair:
    one, double, below, above = c.numbers(1.0), c.numbers(2.0) / c.width, x - c.low, c.high - x
    return where(below < above, double * below - one, one - double * above), double.log() + (x - x)


def _from_circle(c: _Ends, x: Value) -> Pair:
    two = c.numbers(2.0)
    return two * _turns(c, (x - c.low) / c.width) - c.numbers(1.0), (two / c.width).log() + (x - x)


_FROM = {
    "lower": _from_lower,
    "upper": _from_upper,
    "interval": _from_interval,
    "linear": _from_linear,
    "circle": _from_circle,
}


def _turns(c: _Ends, t: Value) -> Value:
    """Into [0, 1); a small negative number has rounded to 1, which is 0 on a circle."""
    part = t - t.apply("Floor")
    return where(part < c.numbers(1.0), part, part - part)
