"""Monotone rational-quadratic splines; within a bin everything is in its own units, sums of positive terms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["MORE_DERIVATIVES", "SPLINES", "soft_clamp", "spline"]

Pair = tuple[Any, Any]


class Kind(NamedTuple):
    """A kind of spline: derivatives at the ends, the map outside, and whether bins have a least size."""

    ends: str
    tails: str
    has_least: bool = True


SPLINES = {
    "rq_spline": Kind("one", "identity", False),
    "rq_spline_nflows": Kind("one", "identity"),
    "rq_spline_free": Kind("free", "linear"),
    "rq_spline_flowjax": Kind("free", "identity"),
    "rq_spline_circular": Kind("shared", "periodic"),
}
MORE_DERIVATIVES = {"one": -1, "free": 1, "shared": 0}  # than bins


def soft_clamp(raw: Any, slope: float, factor: float = 1.0) -> Any:
    """a / (1 + factor |a| / log(1 / slope))."""
    return raw / (abs(raw) * (factor / math.log(1.0 / slope)) + 1.0)


def spline(o: Any, header: Mapping[str, Any], params: Mapping[str, Any], given: Any, inverse: bool) -> Pair:
    """The spline that a header names, and the log of its derivative, in the direction that runs."""
    kind, bound, bins = SPLINES[header["map"]], header["bound"], header["bins"]
    low, high = bound if isinstance(bound, (list, tuple)) else (-bound, bound)
    span, value, beyond = high - low, given, None
    if kind.tails == "linear":
        beyond = value - o.clip(value, low, high)
    elif kind.tails == "periodic":
        beyond = o.fixed(o.round((value - 0.5 * (low + high)) / span)) * span
        value = value - beyond
    sizes = []
    for name in ("width", "height"):
        share = o.softmax(params[name] if kind.has_least else soft_clamp(params[name], header["slope"], 2.0))
        if kind.has_least:
            least = header.get("min_bin", 1e-3)
            share = share * (1.0 - bins * least) + least
        sizes.append(share)
    below = [o.sums_below(share) for share in sizes]
    place = (o.clip(value, low, high) - low) / span
    here = o.last_not_above(below[1 if inverse else 0], place, bins)
    width, height = (o.pick(share, here) for share in sizes)
    left_width, left_height = (o.pick(edges, here) for edges in below)
    steep = height / width
    d0, d1 = (o.pick(table, here) / steep for table in _at_both_knots(o, header, params["derivative"], sizes[0]))
    if inverse:
        t, r = _solved(o, o.clip((place - left_height) / height, 0.0, 1.0), d0, d1)
    else:
        t = o.clip((place - left_width) / width, 0.0, 1.0)
        r = 1.0 - t
    if kind.tails == "linear":  # a straight tail has the derivative at the very end
        for at_end, ends in ((value >= high, (1.0, 0.0)), (value <= low, (0.0, 1.0))):
            t, r = (o.where(at_end, end, was) for end, was in zip(ends, (t, r), strict=True))
    d = t * t + r * r + (d0 + d1) * t * r
    slope = (d0 * r * r + 2.0 * t * r + d1 * t * t) / d / d * steep
    share = left_width + width * t if inverse else left_height + height * (t * (t + d0 * r) / d)
    result, log_slope = share * span + low, slope.log()
    # Rounding must not lead out of the interval, where a uniform base has no density.
    result = result + o.fixed(o.clip(result, low, high) - result)
    if kind.tails == "linear":
        result = result + (beyond / slope if inverse else beyond * slope)
    elif kind.tails == "periodic":
        result = result + beyond
    else:
        is_outside = (value < low) | (value > high)
        result, log_slope = o.where(is_outside, given, result), o.where(is_outside, 0.0, log_slope)
    return result, -log_slope if inverse else log_slope


def _at_both_knots(o: Any, header: Mapping[str, Any], raw: Any, like: Any) -> Pair:
    """For each bin the derivatives at its lower and its upper knot; `like` has a value for each bin."""
    slope, ends, bins = header["slope"], SPLINES[header["map"]].ends, header["bins"]
    ready = soft_clamp(raw, slope).exp() if header["map"] == "rq_spline" else o.softplus(raw) + slope
    if ends == "one":
        one = o.part(like, 0, 1) * 0.0 + 1.0
        return o.joined([one, ready]), o.joined([ready, one])
    if ends == "free":
        return o.part(ready, 0, bins), o.part(ready, 1, bins + 1)
    return ready, o.joined([o.part(ready, 1, bins), o.part(ready, 0, 1)])


def _solved(o: Any, eta: Any, d0: Any, d1: Any) -> Pair:
    """The place in the bin at which the spline has risen by eta, and the rest of the bin: without cancellation."""
    rest = 1.0 - eta
    q = d0 * rest - d1 * eta
    root = abs(q) + o.hypot(2.0 * o.highest(eta * rest, o.tiny(eta)).sqrt(), q)
    is_low = q >= 0.0
    near = 2.0 * o.where(is_low, eta, rest)
    a, b = near / (near + root), root / (near + root)
    return o.where(is_low, a, b), o.where(is_low, b, a)
