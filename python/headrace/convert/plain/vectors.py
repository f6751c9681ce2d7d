"""Planar and radial maps, which move all coordinates at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .parts import Header, Pair, positive

__all__ = ["planar", "radial"]


def planar(header: Header, params: list[Tensor], value: Tensor, inverse: bool) -> Pair:
    """x = z + û h(w·z + b), where s = 1 + w·û is positive."""
    w, u, b = params
    u, s = _ready(w, u)
    v = (value * w).sum(-1, keepdim=True) + b
    if header["nonlinearity"] == "tanh":
        v = _solved_bend(v, s - 1.0) if inverse else v
        h = v.tanh()
        slope = 1.0 - h * h
    else:
        below = header["negative_slope"]
        v = v / torch.where(v > 0.0, s, 1.0 + (s - 1.0) * below) if inverse else v
        slope = torch.where(v > 0.0, torch.ones_like(v), torch.full_like(v, below))
        h = v * slope
    log_det = (s * slope + (1.0 - slope)).log()
    return (value - u * h, -log_det) if inverse else (value + u * h, log_det)


def _ready(w: Tensor, u: Tensor) -> Pair:
    """û and s = 1 + w·û; w is divided by its largest magnitude, so that nothing overflows, and w = 0 leaves u."""
    tiny = torch.finfo(w.dtype).tiny
    largest = w.abs().amax(-1, keepdim=True)
    scaled = w / torch.where(largest > 0.0, largest, torch.ones_like(largest))
    square = (scaled * scaled).sum(-1, keepdim=True).clamp(min=tiny)
    along = (scaled * u).sum(-1, keepdim=True)
    x = along * largest
    s = positive(x)
    start = -math.expm1(-0.999)  # the slope of `positive` at 0, where positive(x) - 1 would cancel
    is_near, is_there = x.abs() < 0.5, x.abs() > tiny
    excess = torch.where(is_near, (start * torch.where(is_near, x, torch.zeros_like(x)).expm1()).log1p(), s - 1.0)
    gain = torch.where(is_there, excess / torch.where(is_there, x, torch.ones_like(x)), torch.full_like(x, start))
    across = u - scaled * (along / square)
    across = across - scaled * ((scaled * across).sum(-1, keepdim=True) / square)  # what rounding left
    return across + scaled * (gain * along / square), s


def _solved_bend(y: Tensor, excess: Tensor) -> Tensor:
    """v with v + excess tanh v = y: by bisection, then a step of Newton, which carries the derivatives."""
    with torch.no_grad():
        low, high = y - excess.abs(), y + excess.abs()
        for _ in range(64):
            v = 0.5 * (low + high)
            above = v + excess * v.tanh() > y
            low, high = torch.where(above, low, v), torch.where(above, v, high)
        slope = 1.0 + excess * (1.0 - v.tanh() ** 2)
    return v - (v + excess * v.tanh() - y) / slope


def radial(header: Header, params: list[Tensor], value: Tensor, inverse: bool) -> Pair:
    """x = z + β (z - center) / (α + |z - center|), where α and α + β are positive."""
    center, raw_alpha, raw_end = params
    alpha, end = positive(raw_alpha), positive(raw_end)
    offset = value - center
    r = torch.linalg.vector_norm(offset, dim=-1, keepdim=True)
    if inverse:  # r (end + r) / (alpha + r) is the distance of x
        b = r - end
        root = (b * b + 4.0 * alpha * r).sqrt()
        is_far = b > 0.0
        r = torch.where(is_far, 0.5 * (b + root), 2.0 * alpha * r / torch.where(is_far, root, root - b))
        amount = (alpha - end) / (end + r)
    else:
        amount = (end - alpha) / (alpha + r)
    across, outward = (end + r) / (alpha + r), (r * (2.0 * alpha + r) + alpha * end) / (alpha + r) ** 2
    log_det = (header["features"] - 1) * across.log() + outward.log()
    return value + offset * amount, -log_det if inverse else log_det
