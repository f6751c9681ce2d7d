"""The support of a flow: the interval of each column's data, computed from the base through all transforms."""

from __future__ import annotations

import math

import numpy as np

from headrace._core.maps import interval_of
from headrace._flow.bases import Base
from headrace._flow.flow import Flow
from headrace._flow.tails import Independent, Uniform
from headrace._flow.transforms.around import Inverse
from headrace._flow.transforms.elementwise import Elementwise
from headrace._flow.transforms.fixed import Permutation, Standardize
from headrace._flow.transforms.gaussianize import Gaussianize
from headrace._flow.transforms.masked import Coupling, MaskedAutoregressive
from headrace._flow.transforms.on_columns import OnColumns
from headrace._flow.transforms.support import Support, circles_of
from headrace._flow.transforms.transform import Transform

Ends = tuple[float, float]
Columns = list["Ends | None"]  # None for ends that depend on other columns or are unknown

LINE: Ends = (-math.inf, math.inf)


def periodic_of(flow: Flow) -> frozenset[int]:
    """The columns whose values are wrapped into a period."""
    last = flow.transforms[-1] if len(flow) else None
    return frozenset(circles_of(last if isinstance(last, Support) else None))


def ends_of(flow: Flow) -> Columns:
    """The interval of each column's data under a flow; None for a column without a known interval."""
    ends = _of_base(flow.base)
    support = flow._interior.support
    if support is None and all(pair == LINE for pair in ends):
        return ends
    for t in flow.to("cpu", "exact").astype("float64").transforms:
        ends = _through(t, ends)
    return ends


def _of_base(base: Base) -> Columns:
    names = base.densities if isinstance(base, Independent) else ["uniform"] * base.features
    if not isinstance(base, (Independent, Uniform)):
        names = ["normal"] * base.features
    return [(-1.0, 1.0) if name == "uniform" else LINE for name in names]


def _through(t: Transform, ends: Columns) -> Columns:
    """The columns' intervals after a transform; transforms except `Support` map all real rows onto all real rows."""
    if isinstance(t, Support):
        return _onto(t, ends)
    if all(pair == LINE for pair in ends):
        return ends
    if isinstance(t, Permutation):
        return [ends[i] for i in t.order]
    if isinstance(t, OnColumns):
        inner = _through(t.transform, [ends[c] for c in t.columns])
        moved = dict(zip(t.columns, inner, strict=True))
        return [moved.get(c, pair) for c, pair in enumerate(ends)]
    if isinstance(t, (Standardize, Gaussianize, Elementwise)):
        return _moved(t, ends)
    if isinstance(inside := t.transform if isinstance(t, Inverse) else t, (Coupling, MaskedAutoregressive)):
        return [_kept(inside, c, pair) for c, pair in enumerate(ends)]
    return [None] * len(ends)  # the transform mixes the columns


def _moved(t: Transform, ends: Columns) -> Columns:
    """The columns' intervals after a transform that is an increasing function of each column alone."""
    sides = np.array([LINE if pair is None else pair for pair in ends]).T
    found = t.forward(np.where(np.isfinite(sides), sides, 0.0))[0]
    low, high = np.where(np.isfinite(sides), found, sides).tolist()
    return [None if pair is None else (low[c], high[c]) for c, pair in enumerate(ends)]


def _onto(t: Support, ends: Columns) -> Columns:
    """The columns' intervals after a `Support`; the interval of a periodic column is its period."""
    moved, limits = _moved(t, ends), list(zip(*t._ends(), strict=True))
    found: Columns = []
    for before, after, period, (low, high) in zip(ends, moved, t.periodic, limits, strict=True):
        if before is None or after is None or period is not None:
            found.append(period)
        else:
            found.append((_end(before[0], after[0], float(low)), _end(before[1], after[1], float(high))))
    return found


def _end(before: float, after: float, limit: float) -> float:
    """A column's end: `limit` if `before` is infinite or `after` equals `limit` up to rounding, otherwise `after`."""
    return limit if math.isinf(before) or math.isclose(after, limit, rel_tol=1e-12, abs_tol=1e-300) else after


def _kept(t: Coupling | MaskedAutoregressive, column: int, ends: Ends | None) -> Ends | None:
    """A column's interval after a masked transform, which keeps the real line and the interval of its splines."""
    if ends == LINE or (isinstance(t, Coupling) and column in t._passive):
        return ends
    settings = t._settings
    keeps = settings.map.startswith("rq_spline") and ends == interval_of(settings.map, settings.bound)
    return ends if keeps else None
