"""The rows of a fit from any source: the rows in this process, and sums over the rows of all processes.

A fit uses rows only through `RowSource`. The sources for arrays and streams have plain sums; those for groups of
processes have exact sums over all ranks (`headrace.distributed.shards`), so that one class of fits serves all sources.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller
from headrace._arrays.row_parts import CHUNK, RowPart, held_of
from headrace._arrays.sums import PlainSums
from headrace._base import arguments as check
from headrace._base.types import Floats
from headrace._fit.given_rows import Data, Index, Moments, checksum, is_share, open_rows, settled
from headrace._fit.moments import Effective, measured
from headrace._flow.transforms.support import Support


@dataclass
class Shard:
    """A table in this process, and the part of its rows that belongs to the source."""

    number: int
    first: int  # the index of the table's first row among the rows of all tables
    begin: int  # the number of selected rows in earlier tables
    data: Data
    part: RowPart


class RowSource(abc.ABC):
    """The training rows or the held-out rows of a fit."""

    size: int
    """The number of rows in all processes."""
    rows: int
    """The number of rows of the whole table, including rows of weight 0 and of other parts."""
    names: tuple[str, ...]
    support: Support | None
    library: Any = np
    weighted: bool
    is_float32: bool
    """Whether some of the rows are float32."""
    is_first = True
    """Whether this process warns, and shows the progress."""
    is_stream = False
    """Whether rows are read from a stream in each epoch, instead of from a table in memory."""
    group: Any = None
    """The group of processes that have the rows together; None for a single process."""

    shards: list[Shard]
    """The parts of the rows in this process, in ascending order."""

    def share_of(self, shard: Shard, most: int) -> tuple[int, int]:
        """Begin and end of the range of a shard's rows in a sample of `most` rows that is spread over all shards."""
        whole = max(self.size, 1)
        return shard.begin * most // whole, (shard.begin + shard.part.size) * most // whole

    def pieces(self, most: int | None = None) -> Iterator[tuple[Data, Any]]:
        """The rows in this process, as pairs of a table and the indices of at most `CHUNK` rows.

        `most`: the size of a sample of the rows of all processes; None for all rows.
        """
        for shard in self.shards:
            size, asarray = shard.part.size, self.library.asarray
            first, end = self.share_of(shard, self.size if most is None else min(most, self.size))
            if (some := end - first) == size:  # all indices may be too many for a list
                yield from ((shard.data, asarray(index)) for index in shard.part.chunks())
                continue
            places = np.arange(some, dtype=np.int64) * size // max(some, 1)
            for begin in range(0, some, CHUNK):
                yield shard.data, asarray(shard.part.at(places[begin : begin + CHUNK]))

    def blocks(self) -> Iterator[Data]:
        """Copies of all rows in this process, shard by shard."""
        return (shard.data.rows(shard.part.all()) for shard in self.shards)

    @abc.abstractmethod
    def sum(self, parts: Iterable[Any], zero: Any) -> Any:
        """The sum over the parts of all processes; parts are arrays with the shape of `zero`."""

    @abc.abstractmethod
    def maximum(self, array: Any) -> Any:
        """The elementwise maximum of the arrays of all processes."""

    @abc.abstractmethod
    def standing(self) -> ArrayRows:
        """Rows in the memory of this process for searches: all its rows, or a sample of these."""

    @abc.abstractmethod
    def picked(self, places: Index, parts: list[Any]) -> Floats:
        """Values of the rows at the indices `places` among all rows; `parts`: values computed from each block."""

    @abc.abstractmethod
    def copied(self, on_device: bool) -> list[Data] | None:
        """Copies of all rows in this process, if these are few or on a device; else None."""

    @abc.abstractmethod
    def trial(self, standing: ArrayRows, judge: RowSource, most: int, seed: int) -> tuple[ArrayRows, RowSource]:
        """Training rows for a short fit, at most `most` rows of `standing`, and held-out rows to judge the fit by."""

    def broadcast(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array that the first process passes, broadcast to all processes."""
        return array

    def parts(self, most: int | None = None) -> Iterator[Data]:
        """Copies of the rows that each of the `pieces` selects."""
        return (data.rows(index) for data, index in self.pieces(most))

    @abc.abstractmethod
    def total(self, parts: Iterable[float]) -> float:
        """The sum of scalars over the parts of all processes."""

    def weight(self) -> float:
        """The sum of the weights of all rows."""
        if not self.weighted:
            return float(self.size)
        weights: Iterator[Any] = ((data.weights, index) for data, index in self.pieces())
        return self.total(float(of[index].sum(dtype=np.float64)) for of, index in weights)

    def effective_rows(self) -> float:
        """The effective number of rows (Kish 1965)."""
        if not self.weighted:
            return float(self.size)
        weighed = self._weighed()
        most = float(self.maximum(np.array([max((part.most for part in weighed), default=0.0)]))[0])
        if not most:
            return float(self.size)
        total, square = self.sum((part.in_units_of(most) for part in weighed), np.zeros(2))
        return float(total**2 / square)

    def _weighed(self) -> list[Effective]:
        return [Effective(_arrays.on_host(data.shares(index))) for data, index in self.pieces()]

    def moments(self, *, of_context: bool = False, say: bool = False) -> Moments:
        """Mean and deviation (1 if constant) of the columns of x, mapped to the real line, or of the context."""
        name, names = ("context", ()) if of_context else ("x", self.names)
        return settled(name, *self._measured(of_context), names, say)

    def moments_of(self, parts: list[tuple[Floats, Floats]], columns: int) -> Moments:
        """Mean and deviation of the columns of values computed from rows; `parts`: pairs of values and weights."""
        return settled("x", *measured(self, columns, lambda: iter(parts)), (), say=False)

    def _measured(self, of_context: bool) -> tuple[Floats, Floats, Floats]:
        def parts() -> Iterator[tuple[Floats, Floats]]:
            return ((data.values(i, of_context), data.shares(i)) for data, i in self._measured_over())

        return measured(self, self.columns(of_context), parts)

    def _measured_over(self) -> Iterator[tuple[Data, Any]]:
        return self.pieces()

    @abc.abstractmethod
    def columns(self, of_context: bool) -> int:
        """The number of columns of x, or of the context; 0 if all rows share the same context."""

    @abc.abstractmethod
    def fingerprint(self) -> dict[str, str]:
        """Texts by name, such as checksums, that differ between different rows."""


class ArrayRows(PlainSums, RowSource):
    """A part of a table in memory, or in a file that is mapped into memory."""

    most_held: int | None = None
    """The largest number of held-out rows if `validation` is a share; None without a limit."""

    def __init__(self, data: Data, part: RowPart | None = None) -> None:
        """`part`: the rows of the table to use; all rows by default."""
        self.data, self.part = data, RowPart(int(data.x.shape[0])) if part is None else part
        self.shards = [Shard(0, 0, 0, data, self.part)]
        self.size, self.rows, self.weighted = self.part.size, int(data.x.shape[0]), data.weights is not None
        self.names, self.support, self.library = data.names, data.support, _arrays.library(data.x)
        self.is_float32 = np.dtype(data.x.dtype) == np.float32
        self.features, self.contexts = int(data.x.shape[1]), 0 if data.context is None else int(data.context.shape[1])

    def of(self, part: RowPart) -> ArrayRows:
        """A source with another part of the same table."""
        return ArrayRows(self.data, part)

    def taking_part(self) -> tuple[int, Any]:
        """The number of rows of the table that take part in a fit, and their ascending indices; None for all rows."""
        return self.data.taking_part()

    def split(self, validation: Any, rng: np.random.Generator, caller: Caller) -> tuple[ArrayRows, ArrayRows | None]:
        """The training rows and the held-out rows; see `validation` of `Flow.fit`."""
        train, judge = held_out(self, validation, rng, caller)
        return self.of(train), self.of(judge) if isinstance(judge, RowPart) else judge

    def some(self, most: int) -> tuple[Data, Any]:
        """The table, and the indices of a sample of at most `most` rows, spread over the part."""
        size = self.part.size
        some = min(most, size)
        return self.data, self.library.asarray(self.part.at(np.arange(some, dtype=np.int64) * size // max(some, 1)))

    def _measured_over(self) -> Iterator[tuple[Data, Any]]:
        return ((self.data, self.library.asarray(index)) for index in self.part.spread())

    def standing(self) -> ArrayRows:
        """See `RowSource`."""
        return self

    def picked(self, places: Index, parts: list[Any]) -> Floats:
        """See `RowSource`."""
        (part,) = parts
        return _arrays.on_host(part[self.library.asarray(places)]).astype(np.float64)

    def copied(self, on_device: bool) -> list[Data] | None:
        """See `RowSource`."""
        return [self.data.rows(self.part.all())] if on_device or self.size <= CHUNK else None

    def trial(self, standing: ArrayRows, judge: RowSource, most: int, seed: int) -> tuple[ArrayRows, RowSource]:
        """See `RowSource`."""
        if standing.size <= (most := min(most, CHUNK)):
            return standing, judge
        data, index = standing.some(most)
        return ArrayRows(data.rows(index)), judge

    def columns(self, of_context: bool) -> int:
        """See `RowSource`."""
        table, rows = self.data.context if of_context else self.data.x, self.data.x.shape[0]
        return 0 if table is None or (of_context and table.shape[0] == 1 != rows) else int(table.shape[1])

    def fingerprint(self) -> dict[str, str]:
        """See `RowSource`."""
        parts = {"x": self.data.x, "context": self.data.context, "weights": self.data.weights}
        return {name: "none" if array is None else _text_of(array) for name, array in parts.items()}


def _text_of(array: Any) -> str:
    return f"{np.dtype(array.dtype)} {tuple(array.shape)}, checksum {checksum(array):08x}"


def held_out(
    source: ArrayRows, validation: Any, rng: np.random.Generator, caller: Caller
) -> tuple[RowPart, RowPart | ArrayRows | None]:
    """The training part of the table, and its held-out part or the caller's validation table; None without either."""
    rows, kept = source.taking_part()
    whole = RowPart(rows, kept=kept)
    if validation is None:
        return whole, None
    if is_share(validation):
        held = held_of("validation", validation, rows, source.most_held)
        if not held:
            return whole, None
        key = int(rng.integers(1 << 63))
        return RowPart(rows, held, key, kept=kept), RowPart(rows, held, key, out=True, kept=kept)
    parts = validation if isinstance(validation, tuple) else (validation,)
    if not 1 <= len(parts) <= 3 or not _arrays.is_array(parts[0]):
        kinds = ", ".join(check.kind_of(part) for part in parts)
        raise TypeError(f"validation: expected a share, x, or a tuple (x, context, weights), got {kinds}")
    x, context, weights, *_ = (*parts, None, None)
    opened = open_rows("validation ", source.features, source.contexts, caller, x, context, weights, source.support)
    return whole, ArrayRows(opened)
