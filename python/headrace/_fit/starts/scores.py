"""Functions that make a column normal, by its kernel density on a grid.

Passes over all rows run on the device of the rows, by NumPy or CuPy: sorting, quantiles, moments, counts in cells. The
remaining work, on a few thousand values, runs on the host. For rows on several ranks, bisection finds the quantiles,
and sums of integers give the masses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.sums import PlainSums, Sums
from headrace._base.types import Floats

CELLS = 1024  # cells of a kernel density's grid
TAIL = 10.0  # rows beyond the last knot on either side

# Masses are sums of integers, so that the order of summation on a device does not change them.
_PLACE_BITS = 20  # a row's position in its cell is rounded to 2^-20 of the cell
_TOTAL_BITS = 42  # bits of the total weight, whose product with a position stays below 2^63

_SCORES = np.linspace(-9.0, 9.0, 3601)
_SHARES = np.array([NormalDist().cdf(s) for s in _SCORES])


class Score:
    """An increasing function, given by values and slopes on a grid, and straight beyond the grid."""

    def __init__(self, x: Floats, y: Floats, slope: Floats) -> None:
        """`x` and `y` ascend."""
        self.x, self.y, self.slope = x, y, slope

    def shrunk(self, rate: float) -> Score:
        """The weighted mean of this function, with weight `rate`, and the identity, with weight 1 - `rate`."""
        return Score(self.x, (1.0 - rate) * self.x + rate * self.y, (1.0 - rate) + rate * self.slope)

    def knots(self, count: int) -> Score:
        """The function on a grid of `count` points at equal steps in y."""
        y = np.linspace(self.y[0], self.y[-1], count)
        x = np.interp(y, self.y, self.x)
        return Score(x, y, np.interp(x, self.x, self.slope))


@dataclass(frozen=True)
class Shares:
    """Integer weights of rows."""

    of_rows: Any  # integers, shape (rows,), on the device of the rows; None for weights 1
    total: int
    rows: float  # the effective number of rows (Kish)

    @classmethod
    def of(cls, weights: Floats | None, rows: int) -> Shares:
        """Integer weights from `weights`, shape (rows,), of which at least one is above 0; None for weights 1."""
        shares, (counts,) = cls.over([weights], rows, PlainSums())
        return replace(shares, of_rows=counts)

    @classmethod
    def over(cls, weights: Sequence[Any], rows: int, sums: Sums) -> tuple[Shares, list[Any]]:
        """The total weight of `rows` rows of all processes, and integer weights for each part in this process.

        `weights`: an array of weights for each part, or None for weights 1.
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


def normal_scores(
    columns: Sequence[Sequence[Floats]], counts: Sequence[Any], shares: Shares, bandwidth: float, source: Any = None
) -> list[Score | None]:
    """The functions that map columns to N(0, 1), by Gaussian kernel densities; None where all values are equal.

    A kernel of width h (in units of the standard deviation) makes a density wider, so that the function maps the kernel
    density to N(0, 1 + h²): a normal column stays unchanged for any h.

    Args:
        columns: The values of each column, part by part, on the host or on a device.
        counts: Integer weights of the rows of each part; None for weights 1.
        shares: The weights of all rows.
        bandwidth: The width of the kernel in units of 1.06 s rows^-0.2, where s is the standard deviation, or its
            estimate from the interquartile range if this is less.
        source: The `RowSource` of the rows, for a group whose processes have different parts; None for one process.
    """
    group = None if source is None else source.group
    ordered = [_ascending(parts, counts) for parts in columns]
    if group is None:
        summaries = [_summary(x, counts_of, shares.total, quantiles_for(shares.rows)) for x, counts_of in ordered]
    else:
        summaries = _shared_summaries(source, columns, ordered, counts, shares)

    def masses_on(x: Floats, counts_of: Any, first: float, step: float, cells: int) -> tuple[float, Floats]:
        parts_of = before(x, counts_of, first, step, cells) if x.size else np.zeros((2, cells), np.int64)
        return masses(parts_of if group is None else group.sum(parts_of), shares.total)

    pairs = zip(ordered, summaries, strict=True)
    return [_score(summary, partial(masses_on, *column), shares.rows, bandwidth) for column, summary in pairs]


def _ascending(parts: Sequence[Floats], counts: Sequence[Any]) -> tuple[Floats, Any]:
    """The sorted values of a column on this rank, and their weights; None for weights 1."""
    x = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0), *parts])
    known = [c for c in counts if c is not None]
    if not known:
        return np.sort(x), None
    order = np.argsort(x)
    return x[order], (known[0] if len(known) == 1 else np.concatenate(known))[order]


def quantiles_for(rows: float) -> list[float]:
    """The probabilities of the quantiles that `_summary` computes: those of both tails and of the quartiles."""
    tail = min(TAIL / rows, 0.1)
    return [tail, 0.25, 0.75, 1.0 - tail]


def _score(
    summary: Sequence[float], masses_on: Callable[[float, float, int], tuple[float, Floats]], rows: float, width: float
) -> Score | None:
    """See `normal_scores`. `summary`: from `_summary`. `masses_on`: returns `masses` by a grid's start, step, size."""
    low, quarter, other, high, variance = summary
    std = float(np.sqrt(variance))
    spread = min(std, (other - quarter) / 1.349) if other > quarter else std
    h = width * 1.06 * spread * rows**-0.2
    if not (high > low and h > 1e-12 * max(abs(low), abs(high))):
        return None

    # Shares of rows in cells between adjacent grid points, smoothed by the kernel.
    first, last = low - 4.0 * h, high + 4.0 * h
    cells = int(min(max(CELLS, 4.0 * (last - first) / h), 2**16))  # cells of at most a quarter of a kernel
    grid = np.linspace(first, last, cells)
    step = grid[1] - grid[0]
    below, mass = masses_on(first, step, cells)
    smooth = smoothed(mass, h / step)
    cdf = below + np.cumsum(smooth) - 0.5 * smooth

    relative = h / std
    keep = (grid >= low) & (grid <= high) & (np.diff(cdf, prepend=-1.0) > 1e-12)
    grid, cdf, density = grid[keep], cdf[keep], smooth[keep] / step
    if grid.size < 2:
        return None
    wide = np.sqrt(1.0 + relative * relative)
    score = np.interp(cdf, _SHARES, _SCORES)
    slope = wide * density * np.sqrt(2.0 * np.pi) * np.exp(0.5 * score * score)
    return Score(grid, wide * score, np.clip(slope, 1e-6, 1e6))


def smoothed(mass: Floats, width: float) -> Floats:
    """Masses in cells, smoothed by a normal kernel (by Fourier transforms); `width`: the kernel's width in cells."""
    reach = math.ceil(4.0 * width)
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / width))
    size = 1 << math.ceil(math.log2(mass.size + kernel.size))
    smooth = np.fft.irfft(np.fft.rfft(mass, size) * np.fft.rfft(kernel / kernel.sum(), size), size)
    return np.maximum(smooth[reach : reach + mass.size], 0.0)


def _summary(x: Floats, counts: Any, total: int, shares: list[float]) -> list[float]:
    """The quantiles of ascending values for the probabilities `shares`, followed by the variance.

    The quantile of a share is the mean of the first and last values up to which values have this share of the weight.
    Quantiles do not depend on the order of equal values, change sign with the values, and ignore weights of 0.
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
    return _arrays.on_host(np.concatenate([quantiles, variance.reshape(1)])).tolist()


def before(x: Floats, counts: Any, first: float, step: float, cells: int) -> NDArray[np.int64]:
    """For each point of a grid, the weight of the values below it, and the sum of their positions in cells."""
    library = _arrays.library(x)
    place = np.clip((x - first) / step, -1.0, float(cells))
    place = np.rint(place * 2.0**_PLACE_BITS).astype(np.int64)
    part = place & (2**_PLACE_BITS - 1)
    at = np.searchsorted(place, library.arange(cells) << _PLACE_BITS)  # the first row of each cell

    def up_to(sums: Any) -> Any:
        """The sums before each cell, from the cumulative sums over rows."""
        return np.where(at > 0, sums[np.maximum(at, 1) - 1], 0)

    rows = at if counts is None else up_to(np.cumsum(counts))
    parts = up_to(np.cumsum(part if counts is None else counts * part))
    return _arrays.on_host(np.stack([rows, parts]))


def masses(counts: NDArray[np.int64], total: int) -> tuple[float, Floats]:
    """The share of values below a grid, and the mass at each grid point, from the counts of `before`.

    A row between two points adds mass to both, more to the nearer one, so that the two have the row's value as mean.
    """
    rows, parts = counts
    upper = np.diff(parts) * 2.0**-_PLACE_BITS
    mass = np.zeros(rows.size)
    mass[:-1] = np.diff(rows) - upper
    mass[1:] += upper
    return float(rows[0]) / total, mass / total


def _shared_summaries(
    source: Any,
    columns: Sequence[Sequence[Floats]],
    ascending: Sequence[tuple[Floats, Any]],
    counts: Sequence[Any],
    shares: Shares,
) -> list[list[float]]:
    """The `_summary` of each column over all ranks, equal bit for bit; `columns`: the values on this rank."""
    group = source.group
    wanted = np.array([share * shares.total for share in quantiles_for(shares.rows)])
    keys = [_key(x) for x, _ in ascending]
    sums = [np.arange(1, x.size + 1) if c is None else np.cumsum(c) for x, c in ascending]
    ends = group.maximum(
        np.array([[-(k[0]) if k.size else -(2**63) + 1, k[-1] if k.size else -(2**63) + 1] for k in keys], np.int64)
    )
    # Bisection for the least key up to which the weight is at least (first half of the columns), or above (second
    # half), a wanted weight.
    low = np.repeat(-ends[:, :1], 2 * wanted.size, axis=1)
    high = np.repeat(ends[:, 1:], 2 * wanted.size, axis=1)
    while (low < high).any():
        middle = (low & high) + ((low ^ high) >> 1)  # without overflow of 64 bits
        below = np.zeros(middle.shape, np.int64)
        for k, (key, total) in enumerate(zip(keys, sums, strict=True)):
            at = np.searchsorted(key, middle[k], side="right")
            below[k] = np.where(at > 0, total[np.maximum(at, 1) - 1], 0) if key.size else 0
        below = group.sum(below).astype(np.float64)
        enough = np.concatenate([below[:, : wanted.size] >= wanted, below[:, wanted.size :] > wanted], axis=1)
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    values = _number(low)
    quantiles = 0.5 * (values[:, : wanted.size] + values[:, wanted.size :])
    known: list[Any] = [1 if c is None else c for c in counts]
    first = [[float((c * x).sum()) for x, c in zip(parts, known, strict=True)] for parts in columns]
    mean = source.sum(np.transpose(first), np.zeros(len(columns))) / shares.total
    second = [
        [float((c * np.square(x - m)).sum()) for x, c in zip(parts, known, strict=True)]
        for parts, m in zip(columns, mean, strict=True)
    ]
    variance = source.sum(np.transpose(second), np.zeros(len(columns))) / shares.total
    return np.concatenate([quantiles, variance[:, None]], axis=1).tolist()


def _key(x: Floats) -> NDArray[np.int64]:
    """Integers that have the same order as the floating-point values `x`."""
    bits = (x + 0.0).view(np.int64)  # -0 is 0
    return bits ^ ((bits >> 63) & np.int64(2**63 - 1))


def _number(key: NDArray[np.int64]) -> Floats:
    """The inverse of `_key`: floating-point values from integers."""
    return (key ^ ((key >> 63) & np.int64(2**63 - 1))).view(np.float64)
