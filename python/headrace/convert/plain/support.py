"""Columns with bounds and periods, in float64: near a bound only the distance to it counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .parts import Header, Pair, Tensors, Transform, constant

__all__ = ["Support"]


class Support(Transform):
    """Columns with bounds and periods, in float64."""

    is_wide = True

    def __init__(self, header: Header, tensors: Tensors) -> None:
        """See headrace's `Support`."""
        super().__init__(header, tensors)
        periods = header.get("periodic") or [None] * header["features"]
        self.kinds: list[str] = []
        self.low: list[float] = []
        self.high: list[float] = []
        for pair, period in zip(header["bounds"], periods, strict=True):
            low, high = period or pair or (None, None)
            name = {(False, False): "any", (True, False): "lower", (False, True): "upper", (True, True): "interval"}
            kind = "circle" if period else name[low is not None, high is not None]
            self.kinds.append("linear" if kind == "interval" and header.get("linear") else kind)
            self.low.append(0.0 if low is None else low)
            self.high.append(0.0 if high is None else high)
        self.has_ends = any(kind != "any" for kind in self.kinds)

    def forward(self, value: Tensor, context: Tensor | None, to_data: bool) -> Pair:
        """Rows and log-determinants: NaN beyond a bound, an infinity on it."""
        if not self.has_ends:
            return value, torch.zeros_like(value[..., 0])
        rules = _TO_SUPPORT if to_data else _FROM_SUPPORT
        columns, logs = [], []
        for c, kind in enumerate(self.kinds):
            column, log = rules[kind](value[..., c].double(), self.low[c], self.high[c])
            columns.append(column)
            logs.append(log)
        return torch.stack(columns, -1), torch.stack(logs, -1).sum(-1)

    def _ends(self, kinds_low: Sequence[str], kinds_high: Sequence[str], like: Tensor) -> Pair:
        """Both ends of each column in the rows' dtype, infinite where its kind has none."""
        low = [end if kind in kinds_low else -math.inf for kind, end in zip(self.kinds, self.low, strict=True)]
        high = [end if kind in kinds_high else math.inf for kind, end in zip(self.kinds, self.high, strict=True)]
        return constant(low, like).to(like.dtype), constant(high, like).to(like.dtype)

    def is_outside(self, x: Tensor) -> Tensor:
        """Rows with a number on a bound or beyond, where a bound is what it is in the rows' dtype."""
        low, high = self._ends(("lower", "interval", "linear"), ("upper", "interval", "linear"), x)
        return ((x <= low) | (x >= high)).any(-1)

    def inside(self, x: Tensor) -> Tensor:
        """What rounded to a bound or beyond becomes the nearest number inside; a circle has its low end."""
        both = ("interval", "linear", "circle")
        low, high = self._ends(("lower", *both), ("upper", *both), x)
        is_closed = constant([float(kind == "circle") for kind in self.kinds], x) > 0.0
        is_closed = is_closed & (low.double() >= constant(self.low, x))
        least = torch.where(is_closed, low, torch.nextafter(low, torch.full_like(low, math.inf)))
        least = torch.where(low.isinf(), low, least)
        most = torch.where(high.isinf(), high, torch.nextafter(high, torch.full_like(high, -math.inf)))
        middle = (0.5 * constant(self.low, x) + 0.5 * constant(self.high, x)).to(x.dtype)
        empty = least > most
        return x.clamp(torch.where(empty, middle, least), torch.where(empty, middle, most))


def _turns(t: Tensor) -> Tensor:
    """Into [0, 1); a small negative number has rounded to 1, which is 0 on a circle."""
    part = t - t.floor()
    return torch.where(part < 1.0, part, part - part.detach())


def _onto_interval(y: Tensor, low: float, high: float) -> Pair:
    e = (-y.abs()).exp()
    near = (high - low) * (e / (1.0 + e))  # the distance to the nearer bound
    return torch.where(y < 0.0, low + near, high - near), math.log(high - low) - y.abs() - 2.0 * e.log1p()


def _off_interval(x: Tensor, low: float, high: float) -> Pair:
    below, above = (x - low).log(), (high - x).log()
    return below - above, math.log(high - low) - below - above


def _onto_linear(y: Tensor, low: float, high: float) -> Pair:
    half = 0.5 * (high - low)
    return torch.where(y < 0.0, low + half * (1.0 + y), high - half * (1.0 - y)), math.log(half) + (y - y)


def _off_linear(x: Tensor, low: float, high: float) -> Pair:
    below, above, double = x - low, high - x, 2.0 / (high - low)
    return torch.where(below < above, double * below - 1.0, 1.0 - double * above), math.log(double) + (x - x)


_TO_SUPPORT: dict[str, Callable[..., Any]] = {
    "any": lambda y, low, high: (y, torch.zeros_like(y)),
    "lower": lambda y, low, high: (low + y.exp(), y),
    "upper": lambda y, low, high: (high - (-y).exp(), -y),
    "interval": _onto_interval,
    "linear": _onto_linear,
    "circle": lambda y, low, high: (
        low + (high - low) * _turns(0.5 * (y + 1.0)),
        math.log(0.5 * (high - low)) + (y - y),
    ),
}
_FROM_SUPPORT: dict[str, Callable[..., Any]] = {
    "any": lambda x, low, high: (x, torch.zeros_like(x)),
    "lower": lambda x, low, high: ((x - low).log(), -(x - low).log()),
    "upper": lambda x, low, high: (-(high - x).log(), -(high - x).log()),
    "interval": _off_interval,
    "linear": _off_linear,
    "circle": lambda x, low, high: (
        2.0 * _turns((x - low) / (high - low)) - 1.0,
        math.log(2.0 / (high - low)) + (x - x),
    ),
}
