"""Weighted means and standard deviations of columns, and effective numbers of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.sums import Sums
from headrace._base.types import Floats

GAP = 100.0  # least distance of far cells from the median over the largest distance of other cells
SOME = 0.1  # the largest share of far cells in a column: a larger group is a mode


def measured(sums: Sums, columns: int, parts: Callable[[], Iterator[tuple[Any, Any]]]) -> tuple[Floats, Floats, Floats]:
    """Weighted mean, standard deviation and half the range of each column, on the host, over all processes.

    Values are measured from the middle of a column, in units of half its range, so that squares do not overflow.

    Args:
        sums: Sums over the processes.
        columns: The number of columns.
        parts: Each call returns this process's values, shape (rows, columns), and weights, shape (rows,), part by
            part.
    """
    library = sums.library
    ends, weights = [], []
    for values, share in parts():
        ends.append(np.stack([-values.min(axis=0), values.max(axis=0)]))
        weights.append(float(share.sum()))
    low, high = sums.maximum(np.stack(ends).max(axis=0) if ends else np.full((2, columns), -np.inf))
    low, weight = -low, sums.total(weights)
    middle, half = low / 2 + high / 2, high / 2 - low / 2
    unit = np.where(half > 0, half, 1.0)

    def summed(values: Any, share: Any, mean: Any) -> Any:
        # Matrix products are not used, because their order of summation would depend on the threads of the BLAS. The
        # array z is reused, because a part in float64 is large.
        z = values - middle
        z /= unit
        if mean is not None:
            z -= mean
            np.square(z, out=z)
        z *= share[:, None]
        return z.sum(axis=0)

    def mean_of(mean: Any) -> Any:
        """The weighted mean of the columns if `mean` is None, else the mean square of deviations from `mean`."""
        parts_of = (summed(values, share, mean) for values, share in parts())
        return sums.sum(parts_of, library.zeros(columns)) / weight

    mean = mean_of(None)
    square = mean_of(mean)
    moments = middle + unit * mean, unit * np.sqrt(square), half
    mean, std, half = map(_arrays.on_host, moments)
    return mean, std, half


class Moments:
    """Weighted means, standard deviations and half ranges of columns, in one pass over blocks of rows.

    Blocks are merged as in Chan, Golub, LeVeque (1983), but by standard deviations, because their squares may overflow.
    """

    def __init__(self) -> None:
        """Moments of no rows."""
        self.weight = 0.0
        self.mean = self.std = self.low = self.high = np.empty(0)

    def add(self, values: Floats, share: Floats) -> None:
        """Add rows, shape (rows, columns), with weights above 0, shape (rows,); at least one row."""
        low, high, total = values.min(axis=0), values.max(axis=0), float(share.sum())
        middle, half = low / 2 + high / 2, high / 2 - low / 2
        unit = np.where(half > 0, half, 1.0)
        away = (values - middle) / unit
        offset = (away * share[:, None]).sum(axis=0) / total
        std = unit * np.sqrt((np.square(away - offset) * share[:, None]).sum(axis=0) / total)
        mean = middle + unit * offset
        if not self.weight:
            self.weight, self.mean, self.std, self.low, self.high = total, mean, std, low, high
            return
        both = self.weight + total
        old, new = self.weight / both, total / both
        apart = 2.0 * np.sqrt(old * new) * (mean / 2 - self.mean / 2)
        self.std = np.hypot(np.hypot(np.sqrt(old) * self.std, np.sqrt(new) * std), apart)
        self.mean = self.mean + 2.0 * new * (mean / 2 - self.mean / 2)
        self.weight, self.low, self.high = both, np.minimum(self.low, low), np.maximum(self.high, high)

    def found(self) -> tuple[Floats, Floats, Floats]:
        """Mean, standard deviation, and half the range of each column."""
        return self.mean, self.std, self.high / 2 - self.low / 2


def scale_of_context(context: NDArray[Any]) -> tuple[Floats, Floats]:
    """Means and standard deviations of context columns; the deviation is 1 for columns of zeros and ones.

    Indicator columns of rare classes would have large standardised values, which networks overfit.
    """
    mean, std = context.mean(axis=0, dtype=np.float64), context.std(axis=0, dtype=np.float64)
    std[np.isin(context, (0.0, 1.0)).all(axis=0) | (std == 0.0)] = 1.0
    return mean, std


@dataclass(frozen=True)
class Far:
    """The cells of a column that lie far from all other cells, like fill values for missing data."""

    column: int
    middle: float
    """The median."""
    inner: float
    """The largest distance of the other cells from the median."""
    rows: NDArray[np.int64]
    values: Floats


def far_columns(some: Any, blocks: Iterable[Any], limit: float) -> list[Far]:
    """Columns with far cells, which are beyond `limit` times the median distance from the median, and beyond a gap.

    Heavy tails have no far cells, because there is no gap before their outermost values.

    Args:
        some: Rows that represent all, shape (rows, columns).
        blocks: All rows, block by block.
        limit: The least distance of far cells from the median, in units of the median nonzero distance.
    """
    some = _arrays.on_host(some).astype(np.float64) / 2  # halves, because distances of whole values may overflow
    half, at, far = np.median(some, axis=0), 0, []
    reach = limit * np.array([np.median(away[away > 0]) if away.any() else np.inf for away in np.abs(some - half).T])
    inner, cells = np.zeros(reach.size), [np.empty((0, 3))]
    for block in blocks:
        values = _arrays.on_host(block).astype(np.float64)
        apart = np.abs(values / 2 - half)
        inner = np.maximum(inner, np.where(apart <= reach, apart, 0.0).max(axis=0, initial=0.0))
        rows, columns = np.nonzero(apart > reach)
        cells.append(np.stack([at + rows, columns, values[rows, columns]], axis=1))
        at += len(values)
    beyond = np.concatenate(cells)
    for column in np.unique(beyond[:, 1]).astype(int).tolist():
        out = beyond[beyond[:, 1] == column]
        apart = np.abs(out[:, 2] / 2 - half[column])
        ends = np.append(inner[column], np.sort(apart))
        gaps = np.flatnonzero(ends[1:] > GAP * ends[:-1])
        if gaps.size and (out := out[apart > ends[gaps[0]]]).shape[0] <= SOME * at:
            far.append(Far(column, 2.0 * half[column], 2.0 * ends[gaps[0]], out[:, 0].astype(np.int64), out[:, 2]))
    return far


class Effective:
    """Sums of weights and of their squares, added block by block, for Kish's effective number of rows."""

    def __init__(self, weights: Floats | None = None) -> None:
        """Begin with the sums of an array of weights, or with empty sums for None."""
        self.most = self.total = self.square = 0.0  # sums are in units of the largest weight and of its square
        if weights is not None:
            self.add(weights)

    def add(self, weights: Floats) -> None:
        """Add an array of weights, which must not be empty, to the sums."""
        most = max(self.most, float(weights.max()))
        if not most:
            return
        old = self.most / most
        share = weights / most
        self.total, self.square = old * self.total + share.sum(), old * old * self.square + np.square(share).sum()
        self.most = most

    def in_units_of(self, weight: float) -> Floats:
        """The sums of weights and of their squares, in units of a weight."""
        share = self.most / weight
        return np.array([self.total * share, self.square * share**2])
