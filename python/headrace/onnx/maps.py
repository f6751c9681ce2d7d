"""Maps of a number: values of shape (rows, coordinates) and their raw parameters by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from headrace.onnx.graph import Value, highest, where
from headrace.onnx.splines import SPLINES, spline

__all__ = ["apply_map", "positive"]

Params = Mapping[str, Value]
Pair = tuple[Value, Value]  # the value and the logarithm of the derivative, of the direction that runs


def positive(raw: Value) -> Value:
    """0.001 + log(1 + e^(a + c)), which is 1 at 0."""
    return (raw + math.log(math.expm1(0.999))).softplus() + 1e-3


def soft_clamp(raw: Value, slope: float, factor: float = 1.0) -> Value:
    """a / (1 + factor |a| / log(1 / slope))."""
    return raw / (abs(raw) * (factor / math.log(1.0 / slope)) + 1.0)


_LOG_SCALES: dict[str, Callable[[Value, float], Value]] = {
    "soft_clamp": soft_clamp,
    "exp": lambda raw, slope: raw,
    "softplus": lambda raw, slope: (raw.softplus() + slope).log(),
    "sigmoid": lambda raw, slope: ((raw + 2.0).sigmoid() + slope).log(),
}


def apply_map(header: Mapping[str, Any], params: Params, value: Value, inverse: bool) -> Pair:
    """The map that a header names."""
    name = header["map"]
    if name == "affine":
        log_scale = _LOG_SCALES[header["scale"]](params["scale"], header["slope"])
        if inverse:
            return (value - params["shift"]) * (-log_scale).exp(), -log_scale
        return log_scale.exp() * value + params["shift"], log_scale
    if name == "additive":
        return (value - params["shift"] if inverse else value + params["shift"]), value * 0.0
    if name == "dual_ascent":
        return _bent_line(header["slope"], params, value, inverse)
    if name not in SPLINES:
        raise ValueError(f"map: expected one of affine, additive, dual_ascent and {', '.join(SPLINES)}, got {name!r}")
    raw = {key: numbers for key, numbers in params.items() if key != "derivative"}
    if name == "rq_spline":
        raw = {key: soft_clamp(numbers, header["slope"], 2.0) for key, numbers in raw.items()}
        derivatives = soft_clamp(params["derivative"], header["slope"]).exp()
    else:
        derivatives = params["derivative"].softplus() + header["slope"]
    bad = sum(((numbers - numbers).sum() for numbers in params.values()), start=value * 0.0)  # NaN outside, too
    result, log_derivative = spline(SPLINES[name], header, raw["width"], raw["height"], derivatives, value, inverse)
    return result + bad, log_derivative + bad


def _hypotenuse(x: Value, y: Value) -> Value:
    """sqrt(x² + y²) for positive x, without overflow."""
    size = abs(y)
    larger = highest(x, size)
    ratio = where(size > x, x, size) / larger
    return larger * (ratio * ratio + 1.0).sqrt()


def _bent_line(slope: float, params: Params, value: Value, inverse: bool) -> Pair:
    log_a, shift, center = soft_clamp(params["stretch"], slope), params["shift"], params["center"]
    bend, epsilon = params["bend"], positive(params["width"])
    one = bend * 0.0 + 1.0
    gamma = bend / _hypotenuse(one, bend) * (1.0 - slope)
    if not inverse:
        w = value - center
        r = _hypotenuse(epsilon + w * 0.0, w)
        a = log_a.exp()
        # Halves leave a sum of two numbers near the largest one room.
        return (r * (gamma * 0.5) + value * 0.5) * (a + a) + shift, log_a + (gamma * (w / r) + 1.0).log()
    t = (value - shift) * (-log_a).exp() - center
    rest, bent, near = (1.0 - gamma) * (gamma + 1.0), abs(gamma) * epsilon, t * 0.5
    root = _hypotenuse(epsilon * rest.sqrt() + t * 0.0, t)
    cancels = gamma * t > 0.0
    below = where(cancels, gamma * 0.5 * root + near, np.float32(1.0))
    w = where(cancels, (t - bent) * ((bent * 0.5 + near) / below), (t - gamma * root) / rest)
    q = w / _hypotenuse(epsilon + w * 0.0, w)
    return w + center, -(log_a + (gamma * q + 1.0).log())
