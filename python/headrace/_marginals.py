"""Maps that make a marginal normal: a kernel density's quantiles, as knots of a spline."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "kink_parameters", "normal_score", "spline_parameters"]

Floats = NDArray[np.float64]

CELLS = 1024  # of a kernel density's grid
KNOTS = 40  # of a curve, where a bent line is fitted to it
TAIL = 10.0  # rows beyond the last knot on either side

_SCORES = np.linspace(-9.0, 9.0, 3601)
_SHARES = np.array([NormalDist().cdf(s) for s in _SCORES])


class Curve:
    """An increasing function on a grid: values and slopes, with straight ends."""

    def __init__(self, x: Floats, y: Floats, slope: Floats) -> None:
        """`x` and `y` ascend."""
        self.x, self.y, self.slope = x, y, slope

    def shrunk(self, rate: float) -> Curve:
        """The mean of this, which counts `rate`, and the identity."""
        return Curve(self.x, (1.0 - rate) * self.x + rate * self.y, (1.0 - rate) + rate * self.slope)

    def knots(self, count: int) -> Curve:
        """At places of equal steps in y, ends included."""
        y = np.linspace(self.y[0], self.y[-1], count)
        x = np.interp(y, self.y, self.x)
        return Curve(x, y, np.interp(x, self.x, self.slope))


def normal_score(x: Floats, weights: Floats | None, bandwidth: float) -> Curve | None:
    """The function that takes a marginal to N(0, 1), by a Gaussian kernel density; None where it has no spread.

    A kernel of width h (in units of the standard deviation) makes a density wider, so the function takes it to
    N(0, 1 + h²): a normal marginal stays what it is for any h.

    Args:
        x: Shape (rows,).
        weights: Shape (rows,), or None.
        bandwidth: Of the kernel, in units of 1.06 s rows^-0.2, with s the standard deviation or what the middle half
            says of it, if that is less.
    """
    order = np.argsort(x)
    x = x[order]
    share = np.full(x.size, 1.0 / x.size) if weights is None else weights[order] / weights.sum()
    rows = 1.0 / np.square(share).sum()  # that weights leave
    middle = np.cumsum(share) - 0.5 * share
    mean = float(share @ x)
    std = float(np.sqrt(share @ np.square(x - mean)))
    tail = min(TAIL / rows, 0.1)
    low, quarter, other, high = np.interp([tail, 0.25, 0.75, 1.0 - tail], middle, x)
    spread = min(std, (other - quarter) / 1.349) if other > quarter else std
    h = bandwidth * 1.06 * spread * rows**-0.2
    if not (high > low and h > 1e-12 * max(abs(low), abs(high))):
        return None

    # Shares of rows in cells, each between two of the grid's points, smoothed by the kernel.
    first, last = low - 4.0 * h, high + 4.0 * h
    cells = int(min(max(CELLS, 4.0 * (last - first) / h), 2**16))  # a quarter of a kernel or finer
    grid = np.linspace(first, last, cells)
    step = grid[1] - grid[0]
    inside = (x >= first) & (x < last)
    place = (x[inside] - first) / step
    cell = np.minimum(place.astype(np.intp), cells - 2)
    part = place - cell
    mass = np.bincount(cell, share[inside] * (1.0 - part), cells) + np.bincount(cell + 1, share[inside] * part, cells)
    reach = int(np.ceil(4.0 * h / step))
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) * step / h))
    size = 1 << int(np.ceil(np.log2(cells + kernel.size)))  # the smoothing is a product of Fourier transforms
    smooth = np.fft.irfft(np.fft.rfft(mass, size) * np.fft.rfft(kernel / kernel.sum(), size), size)
    smooth = np.maximum(smooth[reach : reach + cells], 0.0)
    below = float(share[x < first].sum())
    cdf = below + np.cumsum(smooth) - 0.5 * smooth

    relative = h / std
    keep = (grid >= low) & (grid <= high) & (np.diff(cdf, prepend=-1.0) > 1e-12)
    grid, cdf, density = grid[keep], cdf[keep], smooth[keep] / step
    if grid.size < 2:
        return None
    wide = np.sqrt(1.0 + relative * relative)
    score = np.interp(cdf, _SHARES, _SCORES)
    slope = wide * density * np.sqrt(2.0 * np.pi) * np.exp(0.5 * score * score)
    return Curve(grid, wide * score, np.clip(slope, 1e-6, 1e6))


def kink_parameters(curve: Curve) -> tuple[float, float, float, float, float]:
    """``(a, b, γ, center, ε)`` of a bent line through both ends of a curve, and near it between them."""
    points = curve.knots(KNOTS)
    x, y = points.x, points.y
    inner = (x > x[0]) & (x < x[-1])
    best = (math.inf, 1.0, 1.0, 0.0, 0.0)
    for center, height in zip(x[inner], y[inner], strict=True):
        left, right = (height - y[0]) / (center - x[0]), (y[-1] - height) / (x[-1] - center)
        off = np.abs(height + np.where(x < center, left, right) * (x - center) - y).max()
        if off < best[0] and left > 0 < right:
            best = (off, left, right, center, height)
    _, left, right, center, height = best
    a, gamma = 0.5 * (left + right), np.clip((right - left) / (right + left), -0.99, 0.99)
    epsilon = max(0.1 * min(center - x[0], x[-1] - center), 2e-3)
    return float(a), float(height - a * center), float(gamma), float(center), float(epsilon)


def spline_parameters(curve: Curve | None, bins: int, bound: float, slope: float) -> Floats:
    """The raw parameters of an `rq_spline` with knots on a curve, the identity from ±bound on: shape (3 bins - 1,).

    Where the spline's limits on widths, heights and slopes do not allow a knot, it is moved.
    """
    raw = np.zeros(3 * bins - 1)
    if curve is None:
        return raw
    inner = curve.knots(bins - 1)
    gap = 1e-3 * bound * np.arange(1, bins)  # no knot at another, nor outside
    x = np.minimum(np.maximum(inner.x, -bound + gap), bound - gap[::-1])
    y = np.minimum(np.maximum(inner.y, -bound + gap), bound - gap[::-1])
    limit = np.log(1.0 / slope)
    for i, knots in enumerate((x, y)):
        sizes = np.log(np.maximum(np.diff(knots, prepend=-bound, append=bound), 1e-6 * bound))
        sizes -= 0.5 * (sizes.max() + sizes.min())
        sizes = np.clip(sizes, -0.45 * limit, 0.45 * limit)
        raw[i * bins : (i + 1) * bins] = sizes / (1.0 - 2.0 * np.abs(sizes) / limit)
    log_slope = np.clip(np.log(inner.slope), -0.9 * limit, 0.9 * limit)
    raw[2 * bins :] = log_slope / (1.0 - np.abs(log_slope) / limit)
    return raw
