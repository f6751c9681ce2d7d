"""Rows of a stream for a fit: one pass that checks and measures them, and the order of an epoch.

Memory is that of the buffer, which is shuffled; of rows held out, at most as many; and of `CHUNK` rows that stand for
all where a few are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import _progress
from headrace._fit.moments import Moments
from headrace._fit.rows import (
    CHUNK,
    Data,
    Effective,
    Part,
    bad_rows,
    checksum,
    not_finite,
    not_inside,
    outside,
    settled,
)
from headrace._streams.stream import Block, Stream
from headrace.transforms.support import Support

__all__ = ["StreamData", "check_stream", "rows_bar"]

Floats = NDArray[np.float64]


class StreamData(Data):
    """Rows of a stream. What it has as `Data` are some that stand for the training rows where a few are enough."""

    def __init__(
        self, stream: Stream, features: int, contexts: int, support: Support | None, told: bool, progress: bool
    ) -> None:
        """Nothing is read yet. `told`: whether a checksum of the rows is needed."""
        super().__init__(np.empty((0, features)), None, None, (), support)
        self.stream, self.features, self.contexts, self.told, self.progress = stream, features, contexts, told, progress
        self.buffer = stream.buffer
        self.kept: list[int] = []  # rows of a weight above 0 in each part
        self.held_rows = np.empty(0, np.int64)  # numbers of those held out, among the former
        self.fingerprint: dict[str, str] = {}
        self.total_weight = 0.0  # of the training rows
        self.effective = Effective()  # likewise

    # ---- as `Data`

    def most_held(self) -> int:
        """See `Data`."""
        return self.buffer

    def taking_part(self) -> tuple[int, None]:
        """See `Data`."""
        self._count()
        return sum(self.kept), None

    def weight_of(self, part: Part) -> float:
        """See `Data`; of the training rows, whichever part is asked for."""
        return self.total_weight

    def effective_rows(self, part: Part) -> tuple[float, int]:
        """See `Data`; of the training rows, whichever part is asked for."""
        return self.effective.found(), self.stream.rows or part.rows

    def standing_for(self, part: Part) -> tuple[Data, Part]:
        """See `Data`."""
        return Data(self.x, self.context, self.weights, self.names, self.support), Part(len(self.x))

    def moments_of(self, part: Part, of_context: bool, say: bool) -> tuple[Floats, Floats]:
        """See `Data`: of all training rows."""
        name, names, found = ("context", (), self._of_context) if of_context else ("x", self.names, self._of_x)
        return settled(name, *found.found(), names, say)

    # ---- the first pass

    def survey(self, train: Part, given: tuple[Data, Part] | None) -> tuple[Data, Part] | None:
        """Read all rows: check them, measure those to train on, and keep those held out, which are given back."""
        held = given[1] if given is not None and given[0] is self else None
        size = min(train.size, CHUNK)
        chosen = train.at(np.arange(size, dtype=np.int64) * train.size // size)
        if held is not None:
            self.held_rows = held.all()
        checks, sums = _Checks(self.support, self.told), [Moments(), Moments()]
        some: list[Block] = []
        out: list[Block] = []
        at = 0
        with rows_bar(self.stream.rows, "read", self.progress) as shown:
            for block in self.stream:
                self._check_shape(block)
                checks.add(block)
                shown.update(len(block))
                block = _positive(block)
                is_out = self._is_out(at, len(block))
                out.append(block.take(is_out))
                some.append(block.take(chosen[slice(*np.searchsorted(chosen, [at, at + len(block)]))] - at))
                if checks.fine:
                    self._measure(block.take(~is_out), sums)
                at += len(block)
        self.names = self.stream.names
        checks.report(self.names)
        self._of_x, self._of_context = sums
        self.total_weight = float(sums[0].weight)
        self.fingerprint = checks.told()
        if not some:
            raise ValueError("x: expected the same rows each time that the stream is read, got none this time")
        those = Block.joined(some)
        self.x, self.context, self.weights = those.x, those.context, those.weights
        if held is None:
            return given
        rest = Block.joined(out)
        return Data(rest.x, rest.context, rest.weights, self.names, self.support), Part(len(rest))

    def _count(self) -> None:
        """Rows that take part, in each part: where there are weights they are read."""
        first = next((block for block in self.stream if len(block)), None)
        if first is None:
            raise ValueError("x: expected at least one row, got none")
        self._check_shape(first)
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
            raise ValueError(f"x: expected shape (rows, {self.features}), got {self._shape(block.x)}")
        columns = 0 if block.context is None else block.context.shape[1]
        if columns != self.contexts:
            expected = f"{self.contexts} columns" if self.contexts else "none, as this takes no context"
            raise ValueError(f"context: expected {expected}, got {columns or 'none'} with the rows of the stream")

    def _shape(self, array: NDArray[Any]) -> str:
        return f"({self.stream.rows or 'rows'}, {array.shape[1]})"

    def _measure(self, block: Block, sums: list[Moments]) -> None:
        if not len(block):
            return
        share = np.ones(len(block)) if block.weights is None else block.weights.astype(np.float64)
        self.effective.add(share)
        values = block.x.astype(np.float64)
        sums[0].add(values if self.support is None else self.support.inverse(values)[0], share)
        if block.context is not None:
            sums[1].add(block.context.astype(np.float64), share)

    def _is_out(self, at: int, rows: int) -> NDArray[np.bool_]:
        """Which of so many rows, from this number on, are held out."""
        is_out = np.zeros(rows, bool)
        is_out[self.held_rows[slice(*np.searchsorted(self.held_rows, [at, at + rows]))] - at] = True
        return is_out

    # ---- an epoch

    def batches(self, rng: np.random.Generator, bounds: list[int]) -> Iterator[Data]:
        """The training rows in a new order, a batch at a time: rows from `bounds[i]` to `bounds[i + 1]`."""
        for block in _cut(_mixed(self._training(rng), min(self.buffer, bounds[-1]), rng), bounds):
            yield Data(block.x, block.context, block.weights, self.names, self.support)

    def _training(self, rng: np.random.Generator) -> Iterator[Block]:
        """The training rows, part by part in random order."""
        begins = np.concatenate([[0], np.cumsum(self.kept)])
        for part in rng.permutation(len(self.kept)):
            at = begin = int(begins[part])
            for block in self.stream.read(int(part)):
                block = _positive(block)
                yield block.take(~self._is_out(at, len(block)))
                at += len(block)
            if at - begin != self.kept[part]:
                raise ValueError(
                    f"weights: expected {self.kept[part]} of them above 0, as were counted before, got {at - begin}; a "
                    "stream has to give the same rows each time that it is read"
                )


def _positive(block: Block) -> Block:
    """Those of a weight above 0."""
    if block.weights is None:
        return block
    kept = block.weights > 0
    return block if kept.all() else block.take(kept)


def _mixed(blocks: Iterable[Block], capacity: int, rng: np.random.Generator) -> Iterator[Block]:
    """All rows in random order, as far as so many of them can be mixed at a time.

    What comes takes the place of rows that leave. In each turn that is one half of the places, drawn anew, so that a
    row stays for another turn as often as not, and meets rows from further away than the room is large.
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
    """The same rows in batches; at the end the rest of the blocks is asked for, which checks how many there were."""
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
    """What is wrong with the rows, with the numbers of the first ones, and a checksum of them."""

    def __init__(self, support: Support | None, told: bool) -> None:
        self.support, self.does_tell = support, told
        self.rows = 0
        self.bad: dict[str, list[int]] = {"x": [], "context": []}  # how many rows are not finite, and the first
        self.beyond: list[Any] = []  # how many rows are on bounds or beyond; of the first: number, column, value
        self.weight = 0.0
        self.sums: dict[str, int] = {}
        self.kinds: dict[str, Any] = {}

    @property
    def fine(self) -> bool:
        """Whether nothing was found yet."""
        return not (any(self.bad.values()) or self.beyond)

    def add(self, block: Block) -> None:
        """The next rows."""
        for name, array in (("x", block.x), ("context", block.context)):
            if array is None:
                continue
            count, first = bad_rows(array)
            if count:
                self.bad[name] = self.bad[name] or [0, self.rows + first]
                self.bad[name][0] += count
        if self.support is not None:
            mask = outside(block.x, self.support)
            rows = np.flatnonzero(mask.any(axis=1))
            if rows.size:
                row, column = int(rows[0]), int(mask[rows[0]].argmax())
                self.beyond = self.beyond or [0, self.rows + row, column, float(block.x[row, column])]
                self.beyond[0] += rows.size
        if self.does_tell:
            for name, array in (("x", block.x), ("context", block.context), ("weights", block.weights)):
                self.kinds[name] = None if array is None else (array.dtype, array.shape[1:])
                if array is not None:
                    self.sums[name] = checksum(array, self.sums.get(name, 0))
        self.rows += len(block)

    def add_weights(self, weights: Any) -> None:
        """The next weights."""
        bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
        if bad.size:
            raise ValueError(
                f"weights: expected finite numbers of at least 0, got {weights[bad[0]]} at index {self.rows + bad[0]}"
            )
        self.weight += float(weights.sum(dtype=np.float64))
        self.rows += len(weights)

    def report_weights(self) -> None:
        """Refuse weights that nothing can be divided by."""
        if not self.weight > 0:
            raise ValueError("weights: expected at least one number above 0, got none")
        if not 1e-300 < self.weight < 1e300:
            raise ValueError(f"weights: expected a sum between 1e-300 and 1e300, got {self.weight:g}")

    def report(self, names: tuple[str, ...]) -> None:
        """Refuse what was found."""
        for name, found in self.bad.items():
            if found:
                count, first = found
                raise ValueError(not_finite(name, count, first, self.rows))
        if self.beyond:
            assert self.support is not None
            count, row, column, value = self.beyond
            raise ValueError(not_inside("x", count, self.rows, row, column, value, self.support, names))

    def told(self) -> dict[str, str]:
        """Of each array its dtype, shape and checksum, as of arrays in memory."""
        return {
            name: "none"
            if kind is None
            else f"{kind[0]} {(self.rows, *kind[1])}, checksum {self.sums.get(name, 0):08x}"
            for name, kind in self.kinds.items()
        }


def check_stream(
    stream: Stream, support: Support | None, progress: bool, also: Callable[[Block], None] | None = None
) -> None:
    """Read all rows, and refuse what a fit would refuse, with the number of the first such row.

    `also`: what else is to see each block.
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
    """A bar of rows that were read, of how many; it goes when it is done, as another may follow."""
    return _progress.bar(rows, what, "row", progress, unit_scale=True, leave=False)
