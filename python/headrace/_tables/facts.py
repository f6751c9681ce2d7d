"""Statistics of a table's columns, from rows in memory or from a stream of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from headrace.rows._stream import Block, Stream

LOOKED_AT = 16_384  # the most rows in the search for repeated values
FAR = 2**53  # in a range this wide, float64 lacks some whole numbers
NEAR = 1e-9  # share of a column's range within which values count as equal

Pair = tuple["float | None", "float | None"]


@dataclass(frozen=True)
class Found:
    """The count of invalid values in a column, and the first of these values."""

    count: int
    first: float


@dataclass(frozen=True)
class Facts:
    """Statistics of one column."""

    rows: int
    low: float
    high: float
    gap: int = 1
    """The greatest common divisor of all differences, for whole numbers."""
    odd: Found | None = None
    """The count and the first of the values that are not whole numbers; None without any."""
    beyond: Found | None = None
    """The count and the first of the values beyond the bounds; None without any."""


class Held:
    """Rows in memory."""

    def __init__(self, x: NDArray[Any], bounds: Sequence[Pair | None]) -> None:
        """`x`: the rows, shape (rows, columns). `bounds`: the bounds of each column."""
        self._x, self.features, self._bounds = x, x.shape[1], bounds

    @property
    def some(self) -> NDArray[Any]:
        """Rows for the search for repeated values: all rows."""
        return self._x

    def facts(self, column: int, *, whole: bool) -> Facts:
        """Statistics of a column; with `whole`, also the gap of whole numbers, fractions, and values beyond
        the bounds.
        """
        values = self._x[:, column]
        values = values[~np.isnan(values)]
        low, high = float(values.min()), float(values.max())
        if not whole:
            return Facts(len(values), low, high)
        least, most = _ends(self._bounds[column])
        odd, beyond = _first(values, np.trunc(values) != values), _first(values, (values < least) | (values > most))
        steps = np.diff(np.unique(values)) if odd is None else np.empty(0)
        known = steps.size and high - low < FAR
        return Facts(len(values), low, high, int(np.gcd.reduce(steps.astype(np.int64))) if known else 1, odd, beyond)

    def smallest_gaps(self, columns: Sequence[int]) -> list[float | None]:
        """For each column, the smallest gap between values, apart from gaps due to rounding; None if all values are
        equal.
        """
        present = (self._x[~np.isnan(self._x[:, i]), i].astype(np.float64) for i in columns)
        return [_smallest_gap(np.unique(values)) for values in present]


class Passed:
    """Statistics of the rows of a stream. Rows are added block by block and are not kept, except for a sample. Rows of
    weight 0 and rows with missing values are ignored. Results do not depend on the division into blocks.
    """

    def __init__(self, stream: Stream, bounds: Sequence[Pair | None] | None = None) -> None:
        """Begin without rows, which `add` adds. `bounds`: the bounds of each column."""
        self._stream, self._bounds = stream, bounds
        self.rows, self._stride, self.features = 0, 1, 0
        self.low = self.high = self._least = self._most = np.empty(0)
        self._gap = np.empty(0, np.int64)
        self._odd: dict[int, Found] = {}
        self._beyond: dict[int, Found] = {}
        self._some: list[NDArray[Any]] = []

    def add(self, block: Block) -> None:
        """Add the next rows of the stream."""
        counts = np.isfinite(block.x).all(axis=1)
        if block.weights is not None:
            counts &= block.weights > 0
        x = block.x[counts]
        if not len(x):
            return
        values = x.astype(np.float64)
        if not self.rows:
            self._start(values)
        self.low, self.high = np.minimum(self.low, values.min(axis=0)), np.maximum(self.high, values.max(axis=0))
        self._note(self._odd, values, np.trunc(values) != values)
        self._note(self._beyond, values, (values < self._least) | (values > self._most))
        for i in np.flatnonzero(self._gap != 1):
            if i not in self._odd and self.high[i] - self.low[i] < FAR:
                steps = np.abs(values[:, i] - self._origin[i]).astype(np.int64)
                self._gap[i] = np.gcd(self._gap[i], np.gcd.reduce(steps))
        numbers = np.arange(self.rows, self.rows + len(x))
        self._some.append(x[numbers % self._stride == 0])
        self.rows += len(x)
        while sum(map(len, self._some)) > 2 * LOOKED_AT:
            self._some, self._stride = [np.concatenate(self._some)[::2].copy()], 2 * self._stride

    def _start(self, values: NDArray[np.float64]) -> None:
        self.features = values.shape[1]
        self._origin, self.low, self.high = values[0].copy(), values[0].copy(), values[0].copy()
        self._gap = np.zeros(self.features, np.int64)
        ends = [_ends(pair) for pair in self._bounds or [None] * self.features]
        self._least, self._most = np.array(ends).T

    def _note(self, notes: dict[int, Found], values: NDArray[np.float64], bad: NDArray[np.bool_]) -> None:
        for i in np.flatnonzero(bad.any(axis=0)).tolist():
            before = notes.get(i, Found(0, float(values[bad[:, i].argmax(), i])))
            notes[i] = Found(before.count + int(bad[:, i].sum()), before.first)

    @property
    def some(self) -> NDArray[Any]:
        """See `Held`; the result is a sample of rows from all over the stream."""
        return np.concatenate(self._some)

    def facts(self, column: int, *, whole: bool) -> Facts:
        """See `Held`."""
        low, high = float(self.low[column]), float(self.high[column])
        gap = 1 if high - low >= FAR else int(self._gap[column]) or 1
        return Facts(self.rows, low, high, gap, self._odd.get(column), self._beyond.get(column))

    def smallest_gaps(self, columns: Sequence[int]) -> list[float | None]:
        """See `Held`; one more pass is made, which keeps the lowest values of each column, as many as the stream's
        buffer has rows.
        """
        values = [np.empty(0) for _ in columns]
        for block in self._stream if columns else ():
            x = block.x if block.weights is None else block.x[block.weights > 0]
            for at, i in enumerate(columns):
                values[at] = np.union1d(values[at], x[:, i].astype(np.float64))[: self._stream.buffer]
        widths = (float(self.high[i] - self.low[i]) for i in columns)
        return [_smallest_gap(lowest, width) for lowest, width in zip(values, widths, strict=True)]


Seen: TypeAlias = Held | Passed


def _ends(bounds: Pair | None) -> tuple[float, float]:
    low, high = bounds or (None, None)
    return -np.inf if low is None else low, np.inf if high is None else high


def _first(values: NDArray[Any], bad: NDArray[np.bool_]) -> Found | None:
    return Found(int(bad.sum()), float(values[bad.argmax()])) if bad.any() else None


def _smallest_gap(values: NDArray[np.float64], extent: float | None = None) -> float | None:
    """The smallest gap between sorted values, apart from gaps due to rounding; `extent`: the range of the column."""
    steps = np.diff(values)
    steps = steps[steps > NEAR * ((values[-1] - values[0]) if extent is None else extent)]
    return float(steps.min()) if steps.size else None
