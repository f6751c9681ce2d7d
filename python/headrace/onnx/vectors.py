"""Planar and radial transforms: maps of all coordinates at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace.onnx.graph import Value, highest, lowest, where
from headrace.onnx.maps import positive

__all__ = ["planar", "radial"]

# Of Halley's method for the planar inverse. Five were enough in float32 for s from 1e-3 to 1e4 and y up to 1e4.
ROUNDS = 8

_SMALLEST = float(np.finfo(np.float32).tiny)

Pair = tuple[Value, Value]


def planar(header: Mapping[str, Any], params: Value, value: Value, inverse: bool) -> Pair:
    """x = z + û h(w·z + b); `params` are w, u and b, of each row or of all."""
    n = header["features"]
    w, u, b = params.split([n, n, 1])
    u, s = _ready(w, u)
    v = (value * w).sum(keep=True) + b
    if header["nonlinearity"] == "tanh":
        if inverse:
            v = _solved(v, s)
        h, slope, rest = _tanh_bend(v)
    else:
        below = header["negative_slope"]
        if inverse:
            v = v / where(v > 0.0, s, (s - 1.0) * below + 1.0)
        slope = where(v > 0.0, 1.0, below)
        h, rest = v * slope, 1.0 - slope
    log_det = (s * slope + rest).log()
    return (value - u * h, -log_det) if inverse else (value + u * h, log_det)


def _ready(w: Value, u: Value) -> tuple[Value, Value]:
    """û and s = 1 + w·û; w is divided by its largest magnitude, so that nothing overflows, and w = 0 leaves u."""
    largest = abs(w).max()
    scaled = w / where(largest > 0.0, largest, 1.0)
    square = highest((scaled * scaled).sum(keep=True), _SMALLEST)
    along = (scaled * u).sum(keep=True)
    x = along * largest
    s = positive(x)
    # positive(x) - 1 is a difference that cancels near 0: there it is its series.
    near = x * (0.631752495386337 + x * (0.116320646 + x * -0.0102165))
    excess = where(abs(x) < 0.01, near, s - 1.0)
    gain = where(abs(x) > _SMALLEST, excess / where(abs(x) > _SMALLEST, x, 1.0), 0.631752495386337)
    across = u - scaled * (along / square)
    across = across - scaled * ((scaled * across).sum(keep=True) / square)  # what rounding left
    return across + scaled * (gain * along / square), s


def _tanh_bend(v: Value) -> tuple[Value, Value, Value]:
    """tanh, its slope 4 e / (1 + e)² with e = e^-2|v|, and one minus that."""
    e = (abs(v) * -2.0).exp()
    value = v.apply("Tanh")
    return value, 4.0 * e / ((e + 1.0) * (e + 1.0)), value * value


def _solved(y: Value, s: Value) -> Value:
    """v with v + (s - 1) tanh v = y, by Halley's method between bounds, as in the core (cpp/math/vector_maps/)."""
    rounding = 2.4e-7
    target, excess = abs(y), s - 1.0
    by_slope, by_limit, grows = target / s, target - excess, excess >= 0.0
    low = where(grows, highest(by_slope, by_limit), target)
    high = where(grows, target, lowest(by_slope, by_limit))
    v = where(grows, low, high)
    for _ in range(ROUNDS):
        h, h_slope, _ = _tanh_bend(v)
        part = excess * h
        residual = (v - target) + part
        is_open = abs(residual) > (v + abs(part)) * rounding
        low, high = where(residual > 0.0, low, v), where(residual > 0.0, v, high)
        slope = excess * h_slope + 1.0
        following = v - residual / (slope + residual / slope * excess * h * h_slope)
        is_inside = (following >= low) & (following <= high)
        v = where(is_open, where(is_inside, following, (low + high) * 0.5), v)
    return where(y < 0.0, -v, v)


def radial(header: Mapping[str, Any], params: Value, value: Value, inverse: bool) -> Pair:
    """x = z + β (z - center) / (α + |z - center|); `params` are center, alpha and beta, of each row or of all."""
    n = header["features"]
    center, raw_alpha, raw_end = params.split([n, 1, 1])
    alpha, end = positive(raw_alpha), positive(raw_end)
    offset = value - center
    r = lowest((offset * offset).sum(keep=True).sqrt(), 1e18)  # farther away it moves nothing that shows
    if inverse:  # r (end + r) / (alpha + r) is the distance of x
        b = r - end
        root = (b * b + alpha * r * 4.0).sqrt()
        is_far = b > 0.0
        r = where(is_far, (b + root) * 0.5, alpha * r * 2.0 / where(is_far, root, root - b))
        amount = (alpha - end) / (end + r)
    else:
        amount = (end - alpha) / (alpha + r)
    reach = 1.0 / (alpha + r)
    across, outward = (end + r) * reach, (r * (alpha * 2.0 + r) + alpha * end) * reach * reach
    log_det = across.log() * float(n - 1) + outward.log()
    return value + offset * amount, -log_det if inverse else log_det
