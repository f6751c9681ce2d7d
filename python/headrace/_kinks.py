"""One step of dual ascent with the map of eq. 25, chosen from sums over the rows.

Each coordinate is taken through y = a x + b + c r with r = sqrt(ε² + (x - x0)²): the family of eq. 25, with x0 and ε
there divided by 1 - σ. The log-likelihood L = ⟨log y' - λ y² / 2⟩ (eq. 23) is concave in (a, b, c), as y is linear in
them. With ψ = (x, 1, r), ψ' = (1, 0, q) and q = (x - x0) / r, at the identity (1, 0, 0):

- gradient G = ⟨ψ'⟩ - λ ⟨x ψ⟩,
- Hessian -A with A = ⟨ψ' ψ'ᵀ⟩ + λ ⟨ψ ψᵀ⟩, never indefinite.

**A step along u never makes L less**: the slope of y moves by s = t (u₁ + u₃ q), which is at most t B with
B = \\|u₁\\| + \\|u₃\\|, as \\|q\\| < 1. Since log(1 + s) ≥ s - s² / (2 (1 - \\|s\\|)²), L grows at least by

    t G·u - t²/2 (P / (1 - t B)² + Q),   P = ⟨(u·ψ')²⟩,   Q = λ ⟨(u·ψ)²⟩,

a concave function of t of sums that are at hand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["bent_line", "gradient_and_curvature", "step_length", "width"]

Floats = NDArray[np.float64]

LEAST_WIDTH = 2e-3  # of a kink; the map allows 1e-3
MARGIN = 0.1  # the slope of y stays above this
FULL = 0.29  # up to this B a full Newton step grows the bound, as 1 - 1 / (2 (1 - B)²) > 0


def width(center: Floats, rows: float, neighbours: float, precision: float) -> Floats:
    """The ε at which a normal density has so many of the rows within ε of the center; at most a standard deviation.

    Near a center at x0 the density N(0, 1/λ) has rows √(λ/2π) exp(-λ x0²/2) of them a unit length, and 2 ε is meant.
    """
    u = np.minimum(precision * np.square(center), 100.0)
    epsilon = neighbours / (2.0 * rows) * np.sqrt(2.0 * np.pi) * np.exp(0.5 * u)
    clipped: Floats = np.maximum(np.minimum(epsilon, 1.0) / np.sqrt(precision), LEAST_WIDTH)
    return clipped


def gradient_and_curvature(means: Floats, next: Floats, precision: float) -> tuple[Floats, Floats, Floats]:
    """``(G, ⟨ψ' ψ'ᵀ⟩, λ ⟨ψ ψᵀ⟩)``, shapes (n, 3), (n, 3, 3) and (n, 3, 3).

    Args:
        means: Shape (n, 6): the sums of `Points.step` over the sum of weights.
        next: Shape (n, 2): x0 and ε² that they were taken with.
        precision: λ.
    """
    x, xx, r, xr, q, inverse = means.T
    center, e2 = next.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    rr = e2 + xx - 2.0 * center * x + center * center
    qq = 1.0 - e2 * inverse
    gradient = np.stack([1.0 - precision * xx, -precision * x, q - precision * xr], axis=1)
    slopes = np.stack([one, zero, q, zero, zero, zero, q, zero, qq], axis=1).reshape(-1, 3, 3)
    values = precision * np.stack([xx, x, xr, x, one, r, xr, r, rr], axis=1).reshape(-1, 3, 3)
    return gradient, slopes, values


def step_length(growth: Floats, slopes: Floats, values: Floats, reach: Floats, *, newton: bool) -> Floats:
    """The t that makes the bound largest, with G·u, P, Q and B; at most what keeps the slope above MARGIN.

    A Newton step is taken whole where the bound allows.
    """
    low, high = np.zeros_like(growth), np.full_like(growth, 1e6)
    high = np.minimum(high, (1.0 - MARGIN) / np.maximum(reach, 1e-12))
    for _ in range(50):  # bisection: the bound's slope falls in t
        t = 0.5 * (low + high)
        rising = growth - t * values - t * slopes / (1.0 - t * reach) ** 3 > 0
        low, high = np.where(rising, t, low), np.where(rising, high, t)
    return np.where(reach <= FULL, 1.0, low) if newton else low


def bent_line(means: Floats, next: Floats, precision: float, rule: str) -> tuple[Floats, Floats, Floats, Floats]:
    """``(a, b, c, least)`` of each coordinate; L grows by at least `least`."""
    gradient, slopes, values = gradient_and_curvature(means, next, precision)
    u = gradient
    if rule == "newton":
        curvature = slopes + values
        ridge = 1e-12 * np.trace(curvature, axis1=1, axis2=2)[:, None, None] * np.eye(3)
        u = np.linalg.solve(curvature + ridge, gradient[:, :, None])[:, :, 0]
    growth = (gradient * u).sum(axis=1)
    p, q = (np.einsum("ki,kij,kj->k", u, part, u) for part in (slopes, values))
    reach = np.abs(u[:, 0]) + np.abs(u[:, 2])
    t = step_length(growth, p, q, reach, newton=rule == "newton")
    least = t * growth - 0.5 * t * t * (p / (1.0 - t * reach) ** 2 + q)
    t = np.where(least > 0, t, 0.0)  # at the optimum rounding may decide
    return 1.0 + t * u[:, 0], t * u[:, 1], t * u[:, 2], np.maximum(least, 0.0)
