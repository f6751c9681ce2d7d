"""Fits of a stream: a first pass of checks and moments, and the order of the rows in an epoch.

A fit has in memory the buffer, in which rows are shuffled, at most as many held-out rows, and a sample of `CHUNK`
rows, for purposes for which a sample suffices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays.caller import Caller
from headrace._arrays.row_parts import CHUNK, RowPart
from headrace._base import array_errors as errors
from headrace._base import progress as _progress
from headrace._base.types import Floats
from headrace._fit import given_rows as _rows
from headrace._fit.given_rows import Data, Index, and_more, bad_rows, beyond, checksum, not_finite, not_inside
from headrace._fit.moments import Effective, Moments, far_columns
from headrace._fit.run import ArrayRun
from headrace._fit.source import ArrayRows, held_out
from headrace._flow.transforms.support import Support
from headrace.rows._stream import Block, Stream, Without


class StreamRows(ArrayRows):
    """The training rows of a stream; the base class `ArrayRows` has a sample of these rows in memory."""

    is_stream = True

    def __init__(
        self, stream: Stream, features: int, contexts: int, support: Support | None, checksums: bool, progress: bool
    ) -> None:
        """Wrap a stream without reading it. `checksums`: whether to compute checksums of the rows."""
        super().__init__(Data(np.empty((0, features)), None, None, (), support))
        self.stream, self.contexts, self.checksums, self.progress = stream, contexts, checksums, progress
        self.buffer = self.most_held = stream.buffer
        self.kept: list[int] = []  # the number of rows of weight above 0 in each part
        self.held_rows = np.empty(0, np.int64)  # indices of the held-out rows among the rows of a weight above 0

    # ---- as `ArrayRows`

    def taking_part(self) -> tuple[int, None]:
        """See `ArrayRows`."""
        self._count()
        return sum(self.kept), None

    def split(self, validation: Any, rng: np.random.Generator, caller: Caller) -> tuple[ArrayRows, ArrayRows | None]:
        """See `ArrayRows`; all rows are read for a split."""
        judge = self._survey(*held_out(self, validation, rng, caller))
        if (far := self._far_rows()).size:
            self.stream = Without(self.stream, far)
            judge = self._survey(*held_out(self, validation, rng, caller))
        return self, judge

    def weight(self) -> float:
        """See `RowSource`."""
        return float(self._sums[0].weight)

    def standing(self) -> ArrayRows:
        """See `RowSource`."""
        return ArrayRows(self.data)

    def pieces(self, most: int | None = None) -> Iterator[tuple[Data, Any]]:
        """See `RowSource`; the pieces have only the rows of the sample."""
        return self.standing().pieces(most)

    def fingerprint(self) -> dict[str, str]:
        """See `RowSource`."""
        return {**self._fingerprint, "buffer": str(self.buffer)}

    def _weighed(self) -> list[Effective]:
        return [self._effective]

    def _measured(self, of_context: bool) -> tuple[Floats, Floats, Floats]:
        return self._sums[of_context].found()

    # ---- the first pass

    def _survey(self, train: RowPart, judge: RowPart | ArrayRows | None) -> ArrayRows | None:
        """Read all rows: check all of them, measure the training rows, and return the held-out rows."""
        self._sums, self._effective = (Moments(), Moments()), Effective()
        self._ends: dict[str, list[NDArray[Any]]] = {name: [] for name in _rows.FAR}
        chosen = train.at(np.arange(min(train.size, CHUNK), dtype=np.int64) * train.size // min(train.size, CHUNK))
        if isinstance(judge, RowPart):
            self.held_rows = judge.all()
        checks, some, out, at = _Checks(self.support, self.checksums), [], [], 0
        with rows_bar(self.stream.rows, "read", self.progress) as shown:
            for block in self.stream:
                self._check_shape(block)
                checks.add(block)
                shown.update(len(block))
                block = _positive(block)
                is_out = self._is_out(at, len(block))
                out.append(block.take(is_out))
                some.append(block.take(chosen[slice(*np.searchsorted(chosen, [at, at + len(block)]))] - at))
                if checks.fine and len(block):
                    self._measure(block.take(~is_out))
                    for name, table in _tables_of(block):
                        self._ends[name].append(np.stack([table.min(axis=0), table.max(axis=0)]))
                at += len(block)
        checks.report(self.stream.names)
        self._fingerprint = checks.fingerprint()
        if not some:
            raise ValueError("x: expected the same rows each time that the stream is read, got none this time")
        super().__init__(self._data_of(Block.joined(some)))
        self.size, self.rows = train.size, self.stream.rows or train.rows
        return ArrayRows(self._data_of(Block.joined(out))) if isinstance(judge, RowPart) else judge

    def _far_rows(self) -> NDArray[np.int64]:
        """Indices of the rows with far cells, if such rows are few; warns of far cells."""
        far = []
        for i, (name, table) in enumerate(_tables_of(self.data)):
            some, limit = table[:: -(-len(table) // _rows.LOOKED_AT)], _rows.FAR[name]
            cells, names = far_columns(some, [table, *self._ends[name]], limit), self.data.names if name == "x" else ()
            if cells:
                middle = np.median(some, axis=0)  # replaces rows that do not take part in the fit
                parts = ((_tables_of(block)[i][1], block.weights) for block in self.stream)
                values = (x if share is None else np.where(share[:, None] > 0, x, middle) for x, share in parts)
                cells = far_columns(some, values, limit)
            far.append(_rows.far_rows(name, cells, sum(self.kept), names, int))
        return np.unique(np.concatenate(far))

    def _data_of(self, block: Block) -> Data:
        return Data(block.x, block.context, block.weights, self.stream.names, self.support)

    def _count(self) -> None:
        """Count the rows of each part of the stream that take part in the fit; with weights, all rows are read."""
        first = next((block for block in self.stream if len(block)), None)
        if first is None:
            raise ValueError("x: expected at least one row, got none")
        self._check_shape(first)
        self.kept = []
        if first.weights is None:
            self.stream.count()
            self.kept = [size or 0 for size in self.stream._sizes]
            return
        checks = _Checks(None, False)
        for part in range(len(self.stream._sizes)):
            kept = 0
            for block in self.stream.read(part):
                weights: Any = block.weights
                checks.add_weights(weights)
                kept += int((weights > 0).sum())
            self.kept.append(kept)
        checks.report_weights()

    def _check_shape(self, block: Block) -> None:
        if block.x.shape[1] != self.features:
            raise errors.wrong_shape("x", f"(rows, {self.features})", self._shape(block.x))
        columns = 0 if block.context is None else block.context.shape[1]
        if columns != self.contexts:
            expected = f"{self.contexts} columns" if self.contexts else "none, because this takes no context"
            raise ValueError(f"context: expected {expected}, got {columns or 'none'} with the rows of the stream")

    def _shape(self, array: NDArray[Any]) -> str:
        return f"({self.stream.rows or 'rows'}, {array.shape[1]})"

    def _measure(self, block: Block) -> None:
        if not len(block):
            return
        data = self._data_of(block)
        share = data.shares()
        self._effective.add(share)
        for of_context in range(1 + (block.context is not None)):
            self._sums[of_context].add(data.values(slice(None), bool(of_context)), share)

    def _is_out(self, at: int, rows: int) -> NDArray[np.bool_]:
        """A mask of the held-out rows among `rows` rows from the index `at` on."""
        is_out = np.zeros(rows, bool)
        is_out[self.held_rows[slice(*np.searchsorted(self.held_rows, [at, at + rows]))] - at] = True
        return is_out

    # ---- an epoch

    def batches(self, rng: np.random.Generator, bounds: list[int]) -> Iterator[Data]:
        """The training rows in a new order; batch i has the rows from `bounds[i]` to `bounds[i + 1]` of this order."""
        for block in _cut(_mixed(self._training(rng), min(self.buffer, bounds[-1]), rng), bounds):
            yield self._data_of(block)

    def _training(self, rng: np.random.Generator) -> Iterator[Block]:
        """Blocks of the training rows, which are read from the parts of the stream in random order."""
        begins = np.concatenate([[0], np.cumsum(self.kept)])
        for part in rng.permutation(len(self.kept)):
            at = begin = int(begins[part])
            for block in self.stream.read(int(part)):
                block = _positive(block)
                yield block.take(~self._is_out(at, len(block)))
                at += len(block)
            if at - begin != self.kept[part]:
                got = f"{at - begin}; a stream may not change"
                raise ValueError(f"weights: expected {self.kept[part]} above 0, as counted before, got {got}")


def _tables_of(rows: Block | Data) -> list[tuple[str, NDArray[Any]]]:
    """Pairs of a name and a table, for x and, if there is one, for the context."""
    return [(name, table) for name, table in (("x", rows.x), ("context", rows.context)) if table is not None]


def _positive(block: Block) -> Block:
    """The rows of a weight above 0."""
    if block.weights is None:
        return block
    kept = block.weights > 0
    return block if kept.all() else block.take(kept)


def _mixed(blocks: Iterable[Block], capacity: int, rng: np.random.Generator) -> Iterator[Block]:
    """Shuffle the rows in a buffer of `capacity` rows.

    New rows replace rows that leave the buffer. Each turn exchanges a random half of the buffer, so that a row stays
    for a further turn with probability 1/2, and is mixed with rows from further away than `capacity`.
    """
    room: Block | None = None
    order, turn, filled = np.empty(0, np.int64), 0, 0
    for block in blocks:
        room = block.room(capacity) if room is None else room
        if filled < capacity:
            fresh = min(capacity - filled, len(block))
            room.put(slice(filled, filled + fresh), block.take(slice(0, fresh)))
            filled += fresh
            block = block.take(slice(fresh, None))
        while len(block):
            if turn == order.size:
                order, turn = rng.permutation(capacity)[: -(-capacity // 2)], 0
            places = order[turn : turn + len(block)]
            leaving = room.take(places)
            room.put(places, block.take(slice(0, places.size)))
            yield leaving
            turn, block = turn + places.size, block.take(slice(places.size, None))
    if room is None:
        return
    order = rng.permutation(filled)
    for begin in range(0, filled, CHUNK):
        yield room.take(order[begin : begin + CHUNK])


def _cut(blocks: Iterator[Block], bounds: list[int]) -> Iterator[Block]:
    """Cut the rows into batches; at the end, the remaining blocks are read, so that the number of rows is checked."""
    ready: list[Block] = []
    for begin, end in pairwise(bounds):
        size = end - begin
        while sum(map(len, ready)) < size:
            ready.append(next(blocks))
        joined = Block.joined(ready)
        yield joined.take(slice(0, size))
        ready = [joined.take(slice(size, None))]
    for _ in blocks:
        pass


class _Checks:
    """Counts of invalid rows in a stream, with the index of the first one, and checksums of the rows."""

    def __init__(self, support: Support | None, checksums: bool) -> None:
        self.support, self.makes_checksums = support, checksums
        self.rows = 0
        self.bad: dict[str, list[int]] = {"x": [], "context": []}  # number of non-finite rows, and index of the first
        self.beyond: list[Any] = []  # number of rows on bounds or beyond; for the first: index, column, value
        self.weight = 0.0
        self.sums: dict[str, int] = {}
        self.kinds: dict[str, Any] = {}

    @property
    def fine(self) -> bool:
        """Whether all rows so far are valid."""
        return not (any(self.bad.values()) or self.beyond)

    def add(self, block: Block) -> None:
        """Check the next rows."""
        for name, array in (("x", block.x), ("context", block.context)):
            if array is None:
                continue
            count, first = bad_rows(array)
            self.bad[name] = and_more(self.bad[name], [count, self.rows + first] if count else [])
        if self.support is not None:
            self.beyond = and_more(self.beyond, beyond(block.x, self.support, self.rows))
        if self.makes_checksums:
            for name, array in (("x", block.x), ("context", block.context), ("weights", block.weights)):
                self.kinds[name] = None if array is None else (array.dtype, array.shape[1:])
                if array is not None:
                    self.sums[name] = checksum(array, self.sums.get(name, 0))
        self.rows += len(block)

    def add_weights(self, weights: Any) -> None:
        """Check the next weights."""
        bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
        if bad.size:
            raise ValueError(
                f"weights: expected finite numbers of at least 0, got {weights[bad[0]]} at index {self.rows + bad[0]}"
            )
        self.weight += float(weights.sum(dtype=np.float64))
        self.rows += len(weights)

    def report_weights(self) -> None:
        """Raise ValueError if the sum of the weights is not above 0, or is too small or too large to divide by."""
        if not self.weight > 0:
            raise ValueError("weights: expected at least one number above 0, got none")
        if not 1e-300 < self.weight < 1e300:
            raise ValueError(f"weights: expected a sum between 1e-300 and 1e300, got {self.weight:g}")

    def report(self, names: tuple[str, ...]) -> None:
        """Raise ValueError if some rows are invalid."""
        for name, first_bad in self.bad.items():
            if first_bad:
                count, first = first_bad
                raise ValueError(not_finite(name, count, first, self.rows))
        if self.beyond:
            assert self.support is not None
            raise ValueError(not_inside("x", self.beyond, self.rows, self.support, names))

    def fingerprint(self) -> dict[str, str]:
        """The dtype, shape and checksum of each array as a text, which equals the text for the same array in memory."""
        return {
            name: "none"
            if kind is None
            else f"{kind[0]} {(self.rows, *kind[1])}, checksum {self.sums.get(name, 0):08x}"
            for name, kind in self.kinds.items()
        }


def check_stream(
    stream: Stream, support: Support | None, progress: bool, also: Callable[[Block], None] | None = None
) -> None:
    """Read all rows, and raise ValueError for invalid rows, as a fit does; the message has the index of the first one.

    `also`: a further function to call with each block.
    """
    checks, weights, weighted = _Checks(support, False), _Checks(None, False), False
    with rows_bar(stream.rows, "check", progress) as shown:
        for block in stream:
            checks.add(block)
            if block.weights is not None:
                weighted = True
                weights.add_weights(block.weights)
            if also is not None:
                also(block)
            shown.update(len(block))
    checks.report(stream.names)
    if weighted:
        weights.report_weights()


def rows_bar(rows: int | None, what: str, progress: bool) -> Any:
    """A progress bar of the rows read so far, which is cleared at the end, because another bar may follow."""
    return _progress.bar(rows, what, "row", progress, unit_scale=True, leave=False)


class StreamRun(ArrayRun):
    """A fit of a stream: each step uses only the data of its batch."""

    source: StreamRows

    def go(self, progress: bool) -> None:
        """See `Run.go`; a further bar shows the rows of an epoch, because an epoch may take long."""
        self.progress = progress
        super().go(progress)

    def batches(self) -> Iterator[Index]:
        """See `ArrayRun.batches`; each batch has its own copy of rows."""
        rng = np.random.default_rng(int(self.rng.integers(1 << 63)))
        with rows_bar(self.size, "epoch", self.progress) as shown:
            for data in self.source.batches(rng, self.bounds):
                self.data = data
                yield np.arange(len(data.x), dtype=np.int64)
                shown.update(len(data.x))
