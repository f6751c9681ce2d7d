"""Maps that make a marginal normal: quantiles of a kernel density as knots of a spline.

Passes over all rows run on their device, by NumPy or CuPy: order, quantiles, moments and counts in cells. The
rest, some thousand values, is done on the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.sums import PlainSums, Sums
from headrace._base.types import Floats

CELLS = 1024  # of a kernel density's grid
KNOTS = 40  # of a curve, where a kinked line is fitted to it
TAIL = 10.0  # rows beyond the last knot on either side

# Masses are sums of integers, so that the order of summation on a device does not change them.
_PLACE_BITS = 20  # a row's position in its cell is rounded to 2^-20 of the cell
_TOTAL_BITS = 42  # of all rows' weights: times a position below 2^63

_SCORES = np.linspace(-9.0, 9.0, 3601)
_SHARES = np.array([NormalDist().cdf(s) for s in _SCORES])


class Curve:
    """An increasing function on a grid: values and slopes, with straight ends."""

    def __init__(self, x: Floats, y: Floats, slope: Floats) -> None:
        """`x` and `y` ascend."""
        self.x, self.y, self.slope = x, y, slope

    def shrunk(self, rate: float) -> Curve:
        """The weighted mean of this curve, with weight `rate`, and the identity."""
        return Curve(self.x, (1.0 - rate) * self.x + rate * self.y, (1.0 - rate) + rate * self.slope)

    def knots(self, count: int) -> Curve:
        """Knots at equal steps in y, ends included."""
        y = np.linspace(self.y[0], self.y[-1], count)
        x = np.interp(y, self.y, self.x)
        return Curve(x, y, np.interp(x, self.x, self.slope))


@dataclass(frozen=True)
class Shares:
    """Integer weights of rows."""

    of_rows: Any  # integers on the rows' device, shape (rows,); None for 1 each
    total: int
    rows: float  # the effective number of rows (Kish)

    @classmethod
    def of(cls, weights: Floats | None, rows: int) -> Shares:
        """Shares from weights, shape (rows,), of which one is above 0; or from None."""
        found, (counts,) = cls.over([weights], rows, PlainSums())
        return replace(found, of_rows=counts)

    @classmethod
    def over(cls, weights: Sequence[Any], rows: int, sums: Sums) -> tuple[Shares, list[Any]]:
        """The total weight of this many rows of all processes, and the weights of the rows of each part here.

        `weights`: of the parts, None for 1 each.
        """
        known = [w for w in weights if w is not None]
        if not sums.maximum(np.array([bool(known)], np.int64))[0]:
            return cls(None, rows, float(rows)), [None] * len(weights)
        tops = [float(w.max()) for w in known if len(w)]
        largest = float(sums.maximum(np.array([max(tops, default=0.0)]))[0])
        bits = _TOTAL_BITS - math.ceil(math.log2(sums.total(float((w / largest).sum()) for w in known)))
        counts = [np.rint(w / largest * 2.0**bits).astype(np.int64) for w in known]
        total = int(sums.total(float(of.sum()) for of in counts))  # below 2^53
        square = sums.total(float(np.square(of, dtype=np.float64).sum()) for of in counts)
        return cls(None, total, total * total / square), counts


def normal_score(x: Floats, shares: Shares, bandwidth: float) -> Curve | None:
    """The function that takes a marginal to N(0, 1), by a Gaussian kernel density; None where it has no spread.

    A kernel of width h (in units of the standard deviation) makes a density wider, so the function takes it to
    N(0, 1 + h²): a normal marginal stays unchanged for any h.

    Args:
        x: Shape (rows,), on the host or on a device.
        shares: The weights of the rows.
        bandwidth: Of the kernel, in units of 1.06 s rows^-0.2, with s the standard deviation or its estimate from the
            middle half, if that is less.
    """
    counts = shares.of_rows
    if counts is None:
        x = np.sort(x)
    else:
        order = np.argsort(x)
        x, counts = x[order], counts[order]
    return curve_of(
        _summary(x, counts, shares.total, quantiles_for(shares.rows)),
        lambda first, step, cells: _masses(x, counts, shares.total, first, step, cells),
        shares.rows,
        bandwidth,
    )


def quantiles_for(rows: float) -> list[float]:
    """The shares of rows below the quantiles from which a curve starts."""
    tail = min(TAIL / rows, 0.1)
    return [tail, 0.25, 0.75, 1.0 - tail]


def curve_of(
    summary: list[float], masses_on: Callable[[float, float, int], tuple[float, Floats]], rows: float, bandwidth: float
) -> Curve | None:
    """See `normal_score`.

    Args:
        summary: The quantiles at `quantiles_for` rows, and the variance.
        masses_on: The function `masses` of a grid's first point, its step and its number of points.
        rows: The effective number of rows.
        bandwidth: Of the kernel.
    """
    low, quarter, other, high, variance = summary
    std = float(np.sqrt(variance))
    spread = min(std, (other - quarter) / 1.349) if other > quarter else std
    h = bandwidth * 1.06 * spread * rows**-0.2
    if not (high > low and h > 1e-12 * max(abs(low), abs(high))):
        return None

    # Shares of rows in cells between adjacent grid points, smoothed by the kernel.
    first, last = low - 4.0 * h, high + 4.0 * h
    cells = int(min(max(CELLS, 4.0 * (last - first) / h), 2**16))  # cells of at most a quarter of a kernel
    grid = np.linspace(first, last, cells)
    step = grid[1] - grid[0]
    below, mass = masses_on(first, step, cells)
    reach = int(np.ceil(4.0 * h / step))
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) * step / h))
    size = 1 << int(np.ceil(np.log2(cells + kernel.size)))  # the smoothing is a product of Fourier transforms
    smooth = np.fft.irfft(np.fft.rfft(mass, size) * np.fft.rfft(kernel / kernel.sum(), size), size)
    smooth = np.maximum(smooth[reach : reach + cells], 0.0)
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


def _summary(x: Floats, counts: Any, total: int, shares: list[float]) -> list[float]:
    """The quantiles of ascending values at these shares, and the variance.

    A quantile is a value up to which there is that share, the mean of the first and the last such value: the same for
    any order of equal values, mirrored for mirrored ones, and never a value of weight 0.
    """
    library = _arrays.library(x)
    if counts is None:
        sums = library.arange(1, x.size + 1)
        variance = np.square(x - x.mean()).mean()
    else:
        sums = np.cumsum(counts)
        mean = (counts * x).sum() / total
        variance = (counts * np.square(x - mean)).sum() / total
    sums, at = sums.astype(np.float64), library.asarray([share * total for share in shares])
    first, last = (np.searchsorted(sums, at, side=side) for side in ("left", "right"))
    quantiles = 0.5 * (x[first] + x[last])
    found: list[float] = _arrays.on_host(np.concatenate([quantiles, variance.reshape(1)])).tolist()
    return found


def _masses(x: Floats, counts: Any, total: int, first: float, step: float, cells: int) -> tuple[float, Floats]:
    """See `masses`, from ascending values."""
    rows, parts = before(x, counts, first, step, cells)
    return masses(rows, parts, total)


def before(x: Floats, counts: Any, first: float, step: float, cells: int) -> NDArray[np.int64]:
    """Counts of ascending values before each point of a grid, and sums of their positions in their cells."""
    library = _arrays.library(x)
    place = np.clip((x - first) / step, -1.0, float(cells))
    place = np.rint(place * 2.0**_PLACE_BITS).astype(np.int64)
    part = place & (2**_PLACE_BITS - 1)
    at = np.searchsorted(place, library.arange(cells) << _PLACE_BITS)  # the first row of each cell

    def up_to(sums: Any) -> Any:
        """From the sums up to and with each row, the sums up to each cell."""
        return np.where(at > 0, sums[np.maximum(at, 1) - 1], 0)

    rows = at if counts is None else up_to(np.cumsum(counts))
    parts = up_to(np.cumsum(part if counts is None else counts * part))
    found: NDArray[np.int64] = _arrays.on_host(np.stack([rows, parts]))
    return found


def masses(rows: NDArray[np.int64], parts: NDArray[np.int64], total: int) -> tuple[float, Floats]:
    """The share of values below a grid, and the mass at each grid point, from the counts of `before`.

    A row between two points adds to both, to the nearer one more, so that their mean is the row's value.
    """
    cells = rows.size
    upper = np.diff(parts) * 2.0**-_PLACE_BITS
    mass = np.zeros(cells)
    mass[:-1] = np.diff(rows) - upper
    mass[1:] += upper
    return float(rows[0]) / total, mass / total


def kink_parameters(curve: Curve) -> tuple[float, float, float, float, float]:
    """``(a, b, γ, center, ε)`` of a kinked line through both ends of a curve, and near it between them."""
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
    gap = 1e-3 * bound * np.arange(1, bins)  # no knot coincides with another, nor lies outside
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
