"""Bijections of flowjax that act on each column separately: affine maps, and maps onto an interval or a half-line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.convert._parts import OTHER_FLOW, Place, class_of, numbers
from headrace.convert._simple import affine
from headrace.transforms import Inverse, OnColumns, Support, Transform

# Maps of real numbers onto a support, each with a factor of x (2 in tanh(x) = 2 / (1 + exp(-2 x)) - 1) and the bounds.
_ONTO: dict[str, tuple[float, tuple[float, float | None]]] = {
    "Sigmoid": (1.0, (0.0, 1.0)),
    "Exp": (1.0, (0.0, None)),
    "Tanh": (2.0, (-1.0, 1.0)),
}
_LINES = ("Affine", "Loc", "Scale")
ELEMENTWISE = {*_LINES, *_ONTO, "Stack", "Concatenate", "Identity"}

_BOUNDS = "train a flow of headrace with bounds=[...], whose maps onto supports are logistic and exponential"
INSTEAD = {
    "SoftPlus": f"its like here is Exp; or {_BOUNDS}",
    "LeakyTanh": _BOUNDS,
    "Vmap": "write bijections of single columns out as Stack([...])",
    "Indexed": "write it as Stack([...]) with Identity for the other columns",
}


@dataclass(frozen=True)
class _Line:
    """The map scale * x + shift of one column, from latent to data."""

    scale: float
    shift: float
    is_trained: bool = False


@dataclass(frozen=True)
class _Onto:
    """The map of all real numbers onto a support, from latent to data, or its inverse."""

    bounds: tuple[float | None, float | None]
    is_inverted: bool


Column = list["_Line | _Onto"]


def _rank(step: _Line | _Onto) -> int:
    """The sort key of a step: linear maps first, so that maps of several columns onto supports become one transform."""
    return int(step.is_trained) if isinstance(step, _Line) else 2 + int(step.is_inverted)


def paramax_unwrap(tree: Any) -> Any:
    """A bijection in which values replace parametrised parameters."""
    import paramax

    return paramax.unwrap(tree)


def is_frozen(t: Any) -> bool:
    """Whether a bijection has a location or a scale that training keeps fixed."""
    parts = [getattr(t, name) for name in ("loc", "scale") if hasattr(t, name)]
    return any(class_of(part) == ("paramax", "NonTrainable") for part in parts)


def columns_of(t: Any, place: Place, n: int) -> list[Column]:
    """The steps of each of the n columns of a bijection, from latent to data."""
    kind = class_of(t)[1]
    if kind == "Identity":
        return [[] for _ in range(n)]
    if kind in _LINES:
        return _lines(t, place, n, is_trained=not is_frozen(t))
    if kind in _ONTO:
        factor, bounds = _ONTO[kind]
        onto: Column = [_Onto(bounds, place.way == "to_latent")]
        before: Column = [] if factor == 1 else [_Line(factor, 0.0)]
        after: Column = [] if factor == 1 else [_Line(1.0 / factor, 0.0)]
        return [before + onto if place.way == "to_data" else onto + after for _ in range(n)]
    if kind == "Invert":
        return columns_of(t.bijection, place.at("bijection").turned(), n)
    if kind == "Chain":
        parts = [columns_of(inner, place.at("bijections").at(i), n) for i, inner in enumerate(t.bijections)]
        if place.way == "to_latent":
            parts.reverse()
        return [[step for part in parts for step in part[c]] for c in range(n)]
    if kind in ("Stack", "Concatenate"):
        return _side_by_side(t, place)
    known = f"one of {', '.join(sorted(ELEMENTWISE | {'Chain', 'Invert'}))} for single columns"
    raise place.unknown(t, known, INSTEAD.get(kind, OTHER_FLOW))


def _side_by_side(t: Any, place: Place) -> list[Column]:
    if t.axis != 0 or len(t.shape) != 1:
        raise place.differs("axis", "0, of one dimension", t.axis)
    columns: list[Column] = []
    for i, part in enumerate(t.bijections):
        size = int(part.shape[0]) if part.shape else 1
        columns += columns_of(part, place.at("bijections").at(i), size)
    return columns


def _lines(t: Any, place: Place, n: int, *, is_trained: bool) -> list[Column]:
    affine = paramax_unwrap(t)
    scale = np.broadcast_to(numbers(getattr(affine, "scale", 1.0)), (n,))
    shift = np.broadcast_to(numbers(getattr(affine, "loc", 0.0)), (n,))
    if not (np.isfinite(scale) & (scale != 0) & np.isfinite(shift)).all():
        raise ValueError(f"{place.path}: expected finite scales other than 0 and finite shifts, got others")
    if place.way == "to_latent":
        scale, shift = 1.0 / scale, -shift / scale
    return [[_Line(float(a), float(b), is_trained)] for a, b in zip(scale, shift, strict=True)]


def stages(columns: list[Column], place: Place) -> list[Transform]:
    """Transforms of all columns, which are linear maps of some columns and maps of some columns onto supports."""
    remaining, chain = [_folded(column) for column in columns], []
    place = Place(place.path, "to_data")
    while any(remaining):
        ranks = {c: _rank(parts[0]) for c, parts in enumerate(remaining) if parts}
        chosen = [c for c, rank in ranks.items() if rank == min(ranks.values())]
        steps = {c: remaining[c].pop(0) for c in chosen}
        lines = {c: step for c, step in steps.items() if isinstance(step, _Line)}
        ends = {c: step for c, step in steps.items() if isinstance(step, _Onto)}
        chain.append(_line_stage(lines, len(remaining), place) if lines else _support_stage(ends, len(remaining)))
    return chain


def _folded(column: Column) -> Column:
    """Merge each fixed linear map into the support before it, because a support at the data end keeps all digits."""
    steps: Column = []
    for step in column:
        last = steps[-1] if steps else None
        if not isinstance(step, _Line) or not isinstance(last, _Onto):
            steps.append(step)
            continue
        if last.is_inverted or step.is_trained or step.scale < 0:
            steps.append(step)
            continue
        low, high = (None if end is None else step.scale * end + step.shift for end in last.bounds)
        if high is None and step.scale != 1:  # s exp(x) = exp(x + log s)
            steps[-1:] = [_Line(1.0, math.log(step.scale)), _Onto((low, None), False)]
        else:
            steps[-1] = _Onto((low, high), False)
    return steps


def _line_stage(lines: dict[int, _Line], features: int, place: Place) -> Transform:
    """A transform with linear maps of some columns, of which all or none are trained."""
    is_trained = next(iter(lines.values())).is_trained
    only = [*lines] if is_trained else [*range(features)]  # a fixed transform may have columns that do not change
    each = [lines.get(c, _Line(1.0, 0.0)) for c in only]
    scale, shift = np.array([line.scale for line in each]), np.array([line.shift for line in each])
    made = affine(place, scale, shift, is_trained=is_trained)
    return made if len(only) == features else OnColumns(made, only, features)


def _support_stage(ends: dict[int, _Onto], features: int) -> Transform:
    """A transform with maps of columns onto supports, which all have the same direction."""
    support = Support([ends[c].bounds if c in ends else None for c in range(features)])
    return Inverse(support) if next(iter(ends.values())).is_inverted else support
