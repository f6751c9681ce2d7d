"""Maps of a coordinate and the logarithms of their derivatives, from raw parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from .splines import MORE_DERIVATIVES, SPLINES, soft_clamp, spline

Header = Mapping[str, Any]
Params = Mapping[str, Any]
Pair = tuple[Any, Any]


def positive(o: Any, raw: Any) -> Any:
    """0.001 + log(1 + e^(a + c)), which is 1 at 0."""
    return o.softplus(raw + math.log(math.expm1(0.999))) + 1e-3


_LOG_SCALES: dict[str, Callable[[Any, Any, float], Any]] = {
    "soft_clamp": lambda o, raw, slope: soft_clamp(raw, slope),
    "exp": lambda o, raw, slope: raw,
    "softplus": lambda o, raw, slope: (o.softplus(raw) + slope).log(),
    "sigmoid": lambda o, raw, slope: (o.sigmoid(raw + 2.0) + slope).log(),
}


MAPS = ("affine", "additive", "dual_ascent", *SPLINES)


def is_spline(header: Header) -> bool:
    """Whether the map of a transform is a spline, whose parameters have several values for each coordinate."""
    return header["map"] in SPLINES


def sizes_of(header: Header) -> dict[str, int]:
    """The number of values of each named parameter of a map, in the order of the last layer's rows."""
    if header["map"] not in MAPS:
        raise ValueError(f"map: expected one of {', '.join(MAPS)}, got {header['map']!r}")
    bins, sizes = header["bins"], dict.fromkeys(header.get("outputs", ()), 1)
    if is_spline(header):
        more = MORE_DERIVATIVES[SPLINES[header["map"]].ends]
        sizes |= {"width": bins, "height": bins, "derivative": bins + more}
    return sizes


def apply_map(o: Any, header: Header, params: Params, value: Any, inverse: bool) -> Pair:
    """Values mapped by a header's map, in the direction that `inverse` chooses, and the log of the derivative."""
    name = header["map"]
    if name == "affine":
        log_scale = _LOG_SCALES[header["scale"]](o, params["scale"], header["slope"])
        if inverse:
            return (value - params["shift"]) * (-log_scale).exp(), -log_scale
        return log_scale.exp() * value + params["shift"], log_scale
    if name == "additive":
        return (value - params["shift"] if inverse else value + params["shift"]), value * 0.0
    if name == "dual_ascent":
        return _bent_line(o, header["slope"], params, value, inverse)
    if name not in SPLINES:
        raise ValueError(f"map: expected one of {', '.join(MAPS)}, got {name!r}")
    return spline(o, header, params, value, inverse)


def _bent_line(o: Any, slope: float, params: Params, value: Any, inverse: bool) -> Pair:
    log_a, shift, center = soft_clamp(params["stretch"], slope), params["shift"], params["center"]
    bend, epsilon = params["bend"], positive(o, params["width"])
    gamma = bend / o.hypot(bend * 0.0 + 1.0, bend) * (1.0 - slope)
    if not inverse:
        w = value - center
        r = o.hypot(epsilon + w * 0.0, w)
        a = log_a.exp()
        # Halves are added, because the sum of two values near the largest float could overflow.
        return (r * (gamma * 0.5) + value * 0.5) * (a + a) + shift, log_a + (gamma * (w / r) + 1.0).log()
    t = (value - shift) * (-log_a).exp() - center
    rest, bent, near = (1.0 - gamma) * (gamma + 1.0), abs(gamma) * epsilon, t * 0.5
    root = o.hypot(epsilon * rest.sqrt() + t * 0.0, t)
    cancels = gamma * t > 0.0  # where t - gamma root cancels, it is (t² - (gamma epsilon)²) / (t + gamma root)
    below = o.where(cancels, gamma * 0.5 * root + near, 1.0)
    w = o.where(cancels, (t - bent) * ((bent * 0.5 + near) / below), (t - gamma * root) / rest)
    q = w / o.hypot(epsilon + w * 0.0, w)
    return w + center, -(log_a + (gamma * q + 1.0).log())
