"""Planar and radial maps, which move all coordinates together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .maps import positive

Header = Mapping[str, Any]
Pair = tuple[Any, Any]

# The steps of Halley's method for the planar inverse. Five steps were enough in float32 for s from 1e-3 to 1e4 and y up
# to 1e4.
ROUNDS = 8


def planar(o: Any, header: Header, params: Sequence[Any], value: Any, inverse: bool) -> Pair:
    """x = z + û h(w·z + b), where s = 1 + w·û is positive."""
    w, u, b = params
    u, s = _ready(o, w, u)
    v = o.sum(value * w, keep=True) + b
    if header["nonlinearity"] == "tanh":
        v = _solved_bend(o, v, s) if inverse else v
        h, slope = _tanh_bend(o, v)
        rest = h * h
    else:
        below = header["negative_slope"]
        v = v / o.where(v > 0.0, s, (s - 1.0) * below + 1.0) if inverse else v
        slope = o.where(v > 0.0, 1.0, below + v * 0.0)
        h, rest = v * slope, 1.0 - slope
    log_det = (s * slope + rest).log()
    return (value - u * h, -log_det) if inverse else (value + u * h, log_det)


def _ready(o: Any, w: Any, u: Any) -> Pair:
    """û and s = 1 + w·û. Squares do not overflow, because w is divided by its largest magnitude; for w = 0 û is u."""
    tiny = o.tiny(w)
    largest = o.largest(abs(w))
    scaled = w / o.where(largest > 0.0, largest, 1.0)
    square = o.highest(o.sum(scaled * scaled, keep=True), tiny)
    along = o.sum(scaled * u, keep=True)
    x = along * largest
    s = positive(o, x)
    start = -math.expm1(-0.999)  # the derivative of `positive` at 0, near which positive(x) - 1 would cancel
    is_near, is_there = abs(x) < 0.5, abs(x) > tiny
    excess = o.where(is_near, o.log1p(start * o.expm1(o.where(is_near, x, 0.0))), s - 1.0)
    gain = o.where(is_there, excess / o.where(is_there, x, 1.0), start)
    across = u - scaled * (along / square)
    across = across - scaled * (o.sum(scaled * across, keep=True) / square)  # the remainder of rounding
    return across + scaled * (gain * along / square), s


def _tanh_bend(o: Any, v: Any) -> Pair:
    """tanh v, and its derivative 4 e / (1 + e)² with e = e^-2|v|."""
    e = (abs(v) * -2.0).exp()
    return o.tanh(v), 4.0 * e / ((e + 1.0) * (e + 1.0))


def _solved_bend(o: Any, y: Any, s: Any) -> Any:
    """The solution v of v + (s - 1) tanh v = y, by Halley's method between bounds, as in cpp/math/vector_maps/."""
    target, excess = abs(o.fixed(y)), o.fixed(s) - 1.0
    by_slope, by_limit, grows = target / (excess + 1.0), target - excess, excess >= 0.0
    low = o.where(grows, o.highest(by_slope, by_limit), target)
    high = o.where(grows, target, o.lowest(by_slope, by_limit))
    v = o.where(grows, low, high)
    for _ in range(ROUNDS):
        h, h_slope = _tanh_bend(o, v)
        part = excess * h
        residual = (v - target) + part
        is_open = abs(residual) > (v + abs(part)) * (2.0 * o.epsilon(v))
        low, high = o.where(residual > 0.0, low, v), o.where(residual > 0.0, v, high)
        slope = excess * h_slope + 1.0
        following = v - residual / (slope + residual / slope * excess * h * h_slope)
        is_inside = (following >= low) & (following <= high)
        v = o.where(is_open, o.where(is_inside, following, (low + high) * 0.5), v)
    v = o.where(y < 0.0, -v, v)
    if not o.differentiates:
        return v
    h, h_slope = _tanh_bend(o, v)  # a Newton step, whose derivatives by y and s are right
    return v - (v + (s - 1.0) * h - y) / (excess * h_slope + 1.0)


def radial(o: Any, header: Header, params: Sequence[Any], value: Any, inverse: bool) -> Pair:
    """x = z + β (z - center) / (α + |z - center|), where α and α + β are positive."""
    center, raw_alpha, raw_end = params
    alpha, end = positive(o, raw_alpha), positive(o, raw_end)
    offset = value - center
    r = o.norm(offset)
    if inverse:  # r becomes the solution of r (end + r) / (alpha + r) = distance of x from the center
        b = r - end
        root = (b * b + alpha * r * 4.0).sqrt()
        is_far = b > 0.0
        r = o.where(is_far, (b + root) * 0.5, alpha * r * 2.0 / o.where(is_far, root, root - b))
        amount = (alpha - end) / (end + r)
    else:
        amount = (end - alpha) / (alpha + r)
    reach = 1.0 / (alpha + r)
    across, outward = (end + r) * reach, (r * (alpha * 2.0 + r) + alpha * end) * reach * reach
    log_det = across.log() * float(header["features"] - 1) + outward.log()
    return value + offset * amount, -log_det if inverse else log_det
