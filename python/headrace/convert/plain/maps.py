"""Maps of a number and the logarithms of their derivatives, from raw parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .parts import Header, Pair, Tensors, positive, softplus

__all__ = ["SPLINES", "apply_map", "sizes_of"]


def _soft_clamp(raw: Tensor, slope: float, factor: float = 1.0) -> Tensor:
    """a / (1 + factor |a| / log(1 / slope))."""
    return raw / (1.0 + raw.abs() * (factor / math.log(1.0 / slope)))


_LOG_SCALES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "soft_clamp": _soft_clamp,
    "exp": lambda raw, slope: raw,
    "softplus": lambda raw, slope: (softplus(raw) + slope).log(),
    "sigmoid": lambda raw, slope: (torch.sigmoid(raw + 2.0) + slope).log(),
}

# Of splines: derivatives at the ends, what is outside, and whether bins have a least size.
SPLINES = {
    "rq_spline": ("one", "identity", False),
    "rq_spline_nflows": ("one", "identity", True),
    "rq_spline_free": ("free", "linear", True),
    "rq_spline_flowjax": ("free", "identity", True),
    "rq_spline_circular": ("shared", "periodic", True),
}
_MORE_DERIVATIVES = {"one": -1, "free": 1, "shared": 0}


MAPS = ("affine", "additive", "dual_ascent", *SPLINES)


def sizes_of(header: Header) -> dict[str, int]:
    """Numbers of each name of a map's parameters, in the order of the last layer's rows."""
    if header["map"] not in MAPS:
        raise ValueError(f"map: expected one of {', '.join(MAPS)}, got {header['map']!r}")
    bins, sizes = header["bins"], dict.fromkeys(header.get("outputs", ()), 1)
    if header["map"] in SPLINES:
        more = _MORE_DERIVATIVES[SPLINES[header["map"]][0]]
        sizes |= {"width": bins, "height": bins, "derivative": bins + more}
    return sizes


def apply_map(header: Header, params: Tensors, value: Tensor, inverse: bool) -> Pair:
    """The map that a header names, and the log of its derivative, in the direction that runs."""
    name = header["map"]
    if name == "affine":
        log_scale = _LOG_SCALES[header["scale"]](params["scale"], header["slope"])
        if inverse:
            return (value - params["shift"]) * (-log_scale).exp(), (-log_scale).expand_as(value)
        return log_scale.exp() * value + params["shift"], log_scale.expand_as(value)
    if name == "additive":
        return (value - params["shift"] if inverse else value + params["shift"]), torch.zeros_like(value)
    if name == "dual_ascent":
        return _bent_line(header["slope"], params, value, inverse)
    return _spline(header, params, value, inverse)


def _bent_line(slope: float, params: Tensors, value: Tensor, inverse: bool) -> Pair:
    log_a, shift, center = _soft_clamp(params["stretch"], slope), params["shift"], params["center"]
    bend, epsilon = params["bend"], positive(params["width"])
    gamma = (1.0 - slope) * bend / torch.hypot(torch.ones_like(bend), bend)
    if not inverse:
        w = value - center
        r = torch.hypot(epsilon.expand_as(w), w)
        return log_a.exp() * (value + gamma * r) + shift, log_a + (1.0 + gamma * (w / r)).log()
    t = (value - shift) * (-log_a).exp() - center
    rest, bent = (1.0 - gamma) * (1.0 + gamma), gamma.abs() * epsilon
    root = torch.hypot((epsilon * rest.sqrt()).expand_as(t), t)
    cancels = gamma * t > 0.0  # of t - gamma root: there it is (t² - (gamma epsilon)²) / (t + gamma root) instead
    below = torch.where(cancels, t + gamma * root, torch.ones_like(t))
    w = torch.where(cancels, (t - bent) * ((t + bent) / below), (t - gamma * root) / rest)
    q = w / torch.hypot(epsilon.expand_as(w), w)
    return w + center, -(log_a + (1.0 + gamma * q).log())


def _spline(header: Header, params: Tensors, given: Tensor, inverse: bool) -> Pair:
    """A monotone rational-quadratic spline; within a bin everything is in its own units, sums of positive terms."""
    ends, tails, has_least = SPLINES[header["map"]]
    bound, bins = header["bound"], header["bins"]
    low, high = bound if isinstance(bound, Sequence) else (-bound, bound)
    span, value, beyond = high - low, given, torch.zeros_like(given)
    if tails == "linear":
        beyond = value - value.clamp(low, high)
    elif tails == "periodic":
        beyond = ((value - 0.5 * (low + high)) / span).round().detach() * span
        value = value - beyond
    shares = []
    for name in ("width", "height"):
        raw = params[name] if has_least else _soft_clamp(params[name], header["slope"], 2.0)
        share = raw.softmax(-1)
        if has_least:
            least = header.get("min_bin", 1e-3)
            share = least + (1.0 - bins * least) * share
        shares.append(share.expand(*given.shape, bins))
    below = [functional.pad(share.cumsum(-1)[..., :-1], (1, 0)) for share in shares]
    place = (value.clamp(low, high) - low) / span
    index = (place[..., None] >= below[1 if inverse else 0]).sum(-1, keepdim=True).clamp(1, bins) - 1

    def pick(table: Tensor) -> Tensor:
        return table.gather(-1, index)[..., 0]

    width, height = (pick(share) for share in shares)
    left_width, left_height = (pick(edges) for edges in below)
    steep = height / width
    d0, d1 = (pick(table) / steep for table in _at_both_knots(header, params["derivative"], ends, given))
    if inverse:
        t, r = _solved(((place - left_height) / height).clamp(0.0, 1.0), d0, d1)
    else:
        t = ((place - left_width) / width).clamp(0.0, 1.0)
        r = 1.0 - t
    if tails == "linear":  # a straight tail has the derivative at the very end
        t = torch.where(value >= high, torch.ones_like(t), torch.where(value <= low, torch.zeros_like(t), t))
        r = torch.where(value >= high, torch.zeros_like(r), torch.where(value <= low, torch.ones_like(r), r))
    d = t * t + r * r + (d0 + d1) * t * r
    slope = (d0 * r * r + 2.0 * t * r + d1 * t * t) / d / d * steep
    share = left_width + width * t if inverse else left_height + height * (t * (t + d0 * r) / d)
    result, log_slope = share * span + low, slope.log()
    # Rounding must not lead out of the interval, where a uniform base has no density.
    result = result + (result.clamp(low, high) - result).detach()
    if tails == "linear":
        result = result + (beyond / slope if inverse else beyond * slope)
    elif tails == "periodic":
        result = result + beyond
    else:
        is_outside = (value < low) | (value > high)
        result = torch.where(is_outside, given, result)
        log_slope = torch.where(is_outside, torch.zeros_like(log_slope), log_slope)
    return result, -log_slope if inverse else log_slope


def _at_both_knots(header: Header, raw: Tensor, ends: str, like: Tensor) -> tuple[Tensor, Tensor]:
    """For each bin the derivatives at its lower and its upper knot."""
    clamped = header["map"] == "rq_spline"
    ready = _soft_clamp(raw, header["slope"]).exp() if clamped else softplus(raw) + header["slope"]
    ready = ready.expand(*like.shape, raw.shape[-1])
    if ends == "one":
        ready = functional.pad(ready, (1, 1), value=1.0)
    elif ends == "shared":
        ready = torch.cat([ready, ready[..., :1]], -1)
    return ready[..., :-1], ready[..., 1:]


def _solved(eta: Tensor, d0: Tensor, d1: Tensor) -> Pair:
    """The place in the bin at which the spline has risen by eta, and what is left of the bin: without cancellation."""
    rest = 1.0 - eta
    q = d0 * rest - d1 * eta
    root = q.abs() + torch.hypot(q, 2.0 * (eta * rest).clamp(min=torch.finfo(q.dtype).tiny).sqrt())
    is_low = q >= 0.0
    near = 2.0 * torch.where(is_low, eta, rest)
    a, b = near / (near + root), root / (near + root)
    return torch.where(is_low, a, b), torch.where(is_low, b, a)
