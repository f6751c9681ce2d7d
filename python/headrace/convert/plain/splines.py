"""Monotone rational-quadratic splines, computed in units of a bin by sums of positive terms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

Pair = tuple[Any, Any]


class Kind(NamedTuple):
    """A kind of spline: derivatives at both ends, the map outside its interval, and whether bins have a least size."""

    ends: str
    tails: str
    has_least: bool = True


SPLINES = {
    "rq_spline": Kind("one", "identity", False),
    "rq_spline_nflows": Kind("one", "identity"),
    "rq_spline_free": Kind("free", "linear"),
    "rq_spline_flowjax": Kind("free", "identity"),
    "rq_spline_flowjax17": Kind("halved", "identity"),
    "rq_spline_circular": Kind("shared", "periodic"),
}
MORE_DERIVATIVES = {"one": -1, "free": 1, "shared": 0, "halved": 1}  # than bins


def soft_clamp(raw: Any, slope: float) -> Any:
    """a / (1 + |a| / log(1 / slope))."""
    return raw / (abs(raw) * (1.0 / math.log(1.0 / slope)) + 1.0)


def spline(o: Any, header: Mapping[str, Any], params: Mapping[str, Any], side: Any, inverse: bool) -> Pair:
    """Values mapped by a header's spline, in the direction that `inverse` chooses, and the log of the derivative.

    `params` are width, height and derivative, or "knots": the four rows of all bins, from `knots_of`.
    """
    kind, bound = SPLINES[header["map"]], header["bound"]
    low, high = bound if isinstance(bound, (list, tuple)) else (-bound, bound)
    side = o.lifted(side)
    span, value, beyond = high - low, side, None
    if kind.tails == "linear":
        beyond = value - o.within(value, low, high)
    elif kind.tails == "periodic":
        beyond = o.fixed(o.round((value - 0.5 * (low + high)) / span)) * span
        value = value - beyond
    knots = params["knots"] if "knots" in params else knots_of(o, header, params)
    share, derivatives = _shares_and_derivatives(o, header, knots)
    below, place = o.sums_below(share), (value - low) / span
    clipped = o.within(place, 0.0, 1.0)
    here = o.last_not_above(o.row(below, 1 if inverse else 0), clipped, header["bins"])
    width, height, left_width, left_height, lower, upper = o.pick(o.beside([share, below, derivatives]), here)
    steep = height / width
    d0, d1 = lower / steep, upper / steep
    if inverse:
        t, r = _solved(o, o.within((clipped - left_height) / height, 0.0, 1.0), d0, d1)
    else:
        t = o.within((clipped - left_width) / width, 0.0, 1.0)
        r = 1.0 - t
    if kind.tails == "linear":  # a linear tail has the derivative at the end of the interval
        for at_end, ends in ((value >= high, (1.0, 0.0)), (value <= low, (0.0, 1.0))):
            t, r = (o.where(at_end, end, was) for end, was in zip(ends, (t, r), strict=True))
    u, v = d0 * r + t, d1 * t + r
    risen = t * u
    d = risen + r * v
    slope = (r * u + t * v) / d / d * steep
    part = left_width + width * t if inverse else left_height + height * (risen / d)
    result, log_slope = part * span + low, slope.log()
    # Results stay inside the interval despite rounding, because a uniform base has no density outside.
    result = o.kept_within(result, low, high)
    if kind.tails == "linear":
        result = result + (beyond / slope if inverse else beyond * slope)
    elif kind.tails == "periodic":
        result = result + beyond
    else:
        is_inside = o.equal(place, clipped)
        result, log_slope = o.where(is_inside, result, side), o.zero_unless(is_inside, log_slope)
    return o.lowered(result), o.lowered(-log_slope if inverse else log_slope)


def unit_of(header: Mapping[str, Any]) -> tuple[float, ...]:
    """Factors for the four rows of `knots_of`, with which the soft clamp of each row is x / (1 + |x|)."""
    if header["map"] != "rq_spline":
        return (1.0,) * 4
    unit = 1.0 / math.log(1.0 / header["slope"])
    return 2.0 * unit, 2.0 * unit, unit, unit


def knots_of(o: Any, header: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
    """Raw widths, heights and derivatives at the lower and at the upper knot of each bin, in units of `unit_of`."""
    width, raw, ends = params["width"], params["derivative"], SPLINES[header["map"]].ends
    bins = header["bins"]
    if ends == "one":
        none = o.part(width, 0, 1) * 0.0  # any finite value, because the derivative at an end is 1
        lower, upper = o.joined([none, raw]), o.joined([raw, none])
    elif ends in ("free", "halved"):
        lower, upper = o.part(raw, 0, bins), o.part(raw, 1, bins + 1)
    else:
        lower, upper = raw, o.joined([o.part(raw, 1, bins), o.part(raw, 0, 1)])
    rows = o.stacked([width, params["height"], lower, upper])
    return rows * o.rounded([[unit] for unit in unit_of(header)], rows)


def _shares_and_derivatives(o: Any, header: Mapping[str, Any], knots: Any) -> Pair:
    """Two rows of widths and heights of bins, as shares of the interval, and two rows of derivatives at both knots."""
    kind, bins = SPLINES[header["map"]], header["bins"]
    if not kind.has_least:
        sizes, raw = o.halves(o.softsign(knots) * o.rounded([[1.0 / unit] for unit in unit_of(header)], knots))
        return o.softmax(sizes), raw.exp()
    sizes, raw = o.halves(knots)
    least = header.get("min_bin", 1e-3)
    ready = o.softplus(raw) + header["slope"]
    if kind.ends == "one":
        at_end = [[k == 0 for k in range(bins)], [k == bins - 1 for k in range(bins)]]
        ready = o.where(o.flags(at_end, ready), 1.0, ready)
    if kind.ends == "halved":
        of_bins = [0.5 * least, *[least] * (bins - 2), 0.5 * least]
        return o.softmax(sizes) * (1.0 - (bins - 1) * least) + o.rounded([of_bins] * 2, sizes), ready
    return o.softmax(sizes) * (1.0 - bins * least) + least, ready


def _solved(o: Any, eta: Any, d0: Any, d1: Any) -> Pair:
    """The position t in a bin at which the spline has risen by the share eta, and 1 - t, both without cancellation."""
    rest = 1.0 - eta
    q = d0 * rest - d1 * eta
    root = abs(q) + o.hypot(2.0 * o.highest(eta * rest, o.tiny(eta)).sqrt(), q)
    is_low = q >= 0.0
    near = 2.0 * o.where(is_low, eta, rest)
    a, b = near / (near + root), root / (near + root)
    return o.where(is_low, a, b), o.where(is_low, b, a)
