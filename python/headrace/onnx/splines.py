"""Monotone rational-quadratic splines: the bin is found by comparisons, and picked by sums over all bins.

Within a bin everything is in its own units, as in the core (cpp/math/maps/rq_spline.hpp): sums of positive terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from headrace.onnx.graph import Value, concatenate, lowest, where

__all__ = ["SPLINES", "spline"]


class Kind(NamedTuple):
    """Derivatives at the ends, what is done outside, and whether bins have a least size."""

    ends: str
    tails: str
    is_additive: bool = True


SPLINES = {
    "rq_spline": Kind("one", "identity", False),
    "rq_spline_nflows": Kind("one", "identity"),
    "rq_spline_free": Kind("free", "linear"),
    "rq_spline_flowjax": Kind("free", "identity"),
    "rq_spline_circular": Kind("shared", "periodic"),
}


def spline(
    kind: Kind,
    header: Mapping[str, Any],
    widths: Value,
    heights: Value,
    derivatives: Value,
    given: Value,
    inverse: bool,
) -> tuple[Value, Value]:
    """Value and log derivative; raw widths and heights are (rows, coordinates, bins), derivatives are ready ones."""
    bound, bins = header["bound"], header["bins"]
    low, high = bound if isinstance(bound, (list, tuple)) else (-bound, bound)
    span, value, beyond = high - low, given, None
    if kind.tails == "linear":
        beyond = value - value.clip(low, high)
    elif kind.tails == "periodic":
        beyond = ((value - 0.5 * (low + high)) / span).apply("Round") * span
        value = value - beyond
    sizes = [raw.apply("Softmax", axis=-1) for raw in (widths, heights)]
    if kind.is_additive:
        least = header.get("min_bin", 1e-3)
        sizes = [share * (1.0 - bins * least) + least for share in sizes]
    below = [share.sums_below() for share in sizes]
    place = (value.clip(low, high) - low) / span
    is_here = _last_not_above(below[1 if inverse else 0], place.new_axis(), bins)

    def pick(table: Value) -> Value:
        return where(is_here, table, 0.0).sum()

    width, height = (pick(share) for share in sizes)
    left_width, left_height = (pick(edges) for edges in below)
    steep = height / width
    d0, d1 = (pick(table) / steep for table in _at_both_knots(kind.ends, derivatives, bins))
    if inverse:
        t, r = _solved(((place - left_height) / height).clip(0.0, 1.0), d0, d1)
    else:
        t = ((place - left_width) / width).clip(0.0, 1.0)
        r = 1.0 - t
    if kind.tails == "linear":  # a straight tail has the derivative at the very end
        for at_end, ends in ((value >= high, (1.0, 0.0)), (value <= low, (0.0, 1.0))):
            t, r = (where(at_end, end, was) for end, was in zip(ends, (t, r), strict=True))
    d = t * t + r * r + (d0 + d1) * t * r
    slope = (d0 * r * r + 2.0 * t * r + d1 * t * t) / d / d * steep
    share = left_width + width * t if inverse else left_height + height * (t * (t + d0 * r) / d)
    # Rounding must not lead out of the interval: over a uniform base there is no density.
    result, log_slope = (share * span + low).clip(low, high), slope.log()
    if kind.tails == "linear":
        assert beyond is not None
        result = result + (beyond / slope if inverse else beyond * slope)
    elif kind.tails == "periodic":
        assert beyond is not None
        result = result + beyond
    else:
        is_outside = (value < low) | (value > high)
        result, log_slope = where(is_outside, given, result), where(is_outside, 0.0, log_slope)
    return result, -log_slope if inverse else log_slope


def _last_not_above(edges: Value, target: Value, bins: int) -> Value:
    """For each bin whether it is the last one whose lower end is not above the target."""
    count = where(target >= edges, 1.0, 0.0).sum(keep=True)
    numbers = np.arange(bins)
    return (count > numbers + 0.5) & (count < numbers + 1.5)


def _at_both_knots(ends: str, derivatives: Value, bins: int) -> tuple[Value, Value]:
    """For each bin the derivatives at its lower and its upper knot."""
    graph = derivatives.graph

    def part(first: int, last: int) -> Value:
        indices = graph.constant(list(range(first, last)), np.int64)
        return graph.node("Gather", derivatives, indices, axis=2)[0]

    if ends == "one":
        one = part(0, 1) * 0.0 + 1.0
        return concatenate([one, derivatives], 2), concatenate([derivatives, one], 2)
    if ends == "free":
        return part(0, bins), part(1, bins + 1)
    return derivatives, concatenate([part(1, bins), part(0, 1)], 2)


def _solved(eta: Value, d0: Value, d1: Value) -> tuple[Value, Value]:
    """The place in the bin at which the spline has risen by eta, and what is left of the bin: without cancellation."""
    rest = 1.0 - eta
    q = d0 * rest - d1 * eta
    size = abs(q)
    short = lowest(size, 1e15)  # whose square is finite
    root = size + where(size > 1e15, size, (short * short + 4.0 * eta * rest).sqrt())
    is_low = q >= 0.0
    near = 2.0 * where(is_low, eta, rest)
    a, b = near / (near + root), root / (near + root)
    return where(is_low, a, b), where(is_low, b, a)
