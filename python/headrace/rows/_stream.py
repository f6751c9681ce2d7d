"""A stream of rows: parts that can be read repeatedly and in any order, in blocks of rows."""

from __future__ import annotations

import abc
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import frames
from headrace._arrays.caller import Caller
from headrace._arrays.row_parts import CHUNK, RowPart, held_of, names_of
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.public import public
from headrace._base.rng import Rng, takes_rng

BUFFER = 1_000_000  # the most rows in memory, by default
PARTS = ("x", "context", "weights")

Index = NDArray[np.int64] | NDArray[np.bool_] | slice


@public("headrace.rows")
@dataclass(frozen=True)
class Block:
    """A block of rows of a stream, as NumPy arrays."""

    x: NDArray[Any]
    """Shape (rows, features), float32 or float64."""
    context: NDArray[Any] | None = None
    """Shape (rows, context), or None."""
    weights: NDArray[Any] | None = None
    """Shape (rows,), or None."""

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.x)

    def take(self, index: Index) -> Block:
        """A block with the rows at `index`, as views if `index` is a slice."""
        return Block(*(None if array is None else array[index] for array in self.arrays()))  # type: ignore[arg-type]

    def put(self, index: Index, other: Block) -> None:
        """Overwrite the rows at `index` by the rows of another block."""
        for mine, its in zip(self.arrays(), other.arrays(), strict=True):
            if mine is not None:
                mine[index] = its

    def room(self, rows: int) -> Block:
        """A block of `rows` uninitialised rows with the dtypes and columns of this block."""
        arrays = (None if a is None else np.empty((rows, *a.shape[1:]), a.dtype) for a in self.arrays())
        return Block(*arrays)  # type: ignore[arg-type]

    @staticmethod
    def joined(blocks: Sequence[Block]) -> Block:
        """A block with the rows of all `blocks`, of which there is at least one."""
        if len(blocks) == 1:
            return blocks[0]
        columns = zip(*(block.arrays() for block in blocks), strict=True)
        return Block(*(None if of[0] is None else np.concatenate(of) for of in columns))  # type: ignore[arg-type]

    def arrays(self) -> tuple[NDArray[Any] | None, ...]:
        """The arrays x, context and weights."""
        return self.x, self.context, self.weights

    def _kind(self) -> tuple[Any, ...]:
        """The dtype and the number of columns of each array, which must be the same for all blocks of a stream."""
        return tuple(None if a is None else (a.dtype.name, a.shape[1:]) for a in self.arrays())


@public("headrace.rows")
class Stream(abc.ABC):
    """Rows that do not fit in memory, read block by block, as often as a fit needs them.

    `headrace.rows.parquet`, `memmap`, `dask` and `blocks` make streams. An iteration yields `Block`s in the order of
    the rows, of at most 65,536 rows, with ``x``, ``context`` and ``weights``.
    """

    def __init__(self, buffer: Any, sizes: Sequence[int | None]) -> None:
        """`buffer`: the most rows in memory. `sizes`: the number of rows of each part, or None if it is unknown."""
        self.buffer = check.integer("buffer", buffer, least=1)
        """The number of rows that are shuffled together, and the most rows that are held out."""
        self._sizes = list(sizes)
        self._kind: tuple[Any, ...] | None = None  # the layout of the first block
        self._names: tuple[str, ...] = ()
        self._what = "x"  # the name of the rows in messages
        self._takes_whole = False
        self.called: tuple[str, ...] | None = None
        """The names of the columns of x, or None; for blocks of frames, the names are known after a block was read."""
        self.kinds: list[str] | None = None
        """The kinds of columns of x in blocks read so far, "float", "integer" or "boolean"; None for floats only."""

    @abc.abstractmethod
    def _read(self, part: int) -> Iterator[Any]:
        """The rows of a part in blocks, each x or a tuple (x, context, weights), in any framework on the CPU."""

    @property
    def rows(self) -> int | None:
        """The number of rows; None before the first count."""
        known = [size for size in self._sizes if size is not None]
        return sum(known) if len(known) == len(self._sizes) else None

    def __iter__(self) -> Iterator[Block]:
        """Iterate over all rows in their order, in blocks."""
        for part in range(len(self._sizes)):
            yield from self.read(part)

    def __repr__(self) -> str:
        """A short description: the number of rows, if known, and the buffer."""
        rows = "rows not counted yet" if self.rows is None else f"{self.rows:,} rows"
        return f"{type(self).__name__}({rows}, buffer={self.buffer:,})"

    def read(self, part: int) -> Iterator[Block]:
        """The rows of a part in blocks; raises ValueError if their number, dtype or columns differ from an earlier
        pass.
        """
        rows, size = 0, self._sizes[part]
        for item in self._read(part):
            block = self._opened(item, part, rows)
            rows += len(block)
            if size is not None and rows > size:
                break
            for begin in range(0, len(block), CHUNK):
                yield block.take(slice(begin, begin + CHUNK))
        if size is None:
            self._sizes[part] = rows
        elif rows != size:
            where = f" in part {part}" if len(self._sizes) > 1 else ""
            got = f"more than {size}" if rows > size else str(rows)
            raise ValueError(f"x: expected {size} rows{where}, as counted before, got {got}; a stream may not change")

    def of_table(self) -> Stream:
        """A copy of the stream that reads integers and truth values as floats; `kinds` has the original kinds of the
        columns.
        """
        other = copy.copy(self)
        other._takes_whole, other._kind = True, None
        return other

    def count(self) -> int:
        """The number of rows; parts of unknown size are read to count their rows."""
        for part, size in enumerate(self._sizes):
            if size is None:
                for _ in self.read(part):
                    pass
        assert self.rows is not None
        return self.rows

    def whole(self) -> Block | None:
        """All rows, if they fit in the buffer; otherwise None."""
        if self.rows is not None and self.rows > self.buffer:
            return None
        blocks, rows = [], 0
        for block in self:
            blocks.append(block.take(np.arange(len(block))))  # a copy, because a source may reuse its arrays
            rows += len(block)
            if rows > self.buffer:
                return None
        if not blocks:
            raise ValueError(f"{self._what}: expected at least one row, got none")
        return Block.joined(blocks)

    @takes_rng
    def some(self, seed: int = 0, most: int | None = None, *, rng: Rng = None) -> Block:
        """All rows, if there are at most `most`; otherwise `most` rows, drawn uniformly from the whole stream.

        Args:
            seed: The seed of the choice.
            most: The largest number of rows; by default that of the buffer.
        """
        most = self.buffer if most is None else check.integer("most", most, least=1)
        if most >= self.buffer and (found := self.whole()) is not None:
            return found
        return self._gathered(self._drawn(min(most, self.count()), seed))

    @takes_rng
    def split(self, share: float, seed: int = 0, *, rng: Rng = None) -> tuple[Stream, Block | None]:
        """Split the stream into a stream without some rows, and these rows: a share of all rows, at most `buffer` rows.

        The stream is cut into as many equal runs as rows are left out; one random row of each run is left out.

        Args:
            share: The share of rows to leave out, from 0 and below 1; 0 leaves out none.
            seed: The seed of the choice.
        """
        rows = self.count()
        held = held_of("share", share, rows, self.buffer)
        if not held:
            return self, None
        chosen = self._drawn(held, seed)
        return Without(self, chosen), self._gathered(chosen)

    def _drawn(self, rows: int, seed: int) -> NDArray[np.int64]:
        """The ascending indices of `rows` random rows, spread over the whole stream."""
        key = int(np.random.default_rng(check.integer("seed", seed)).integers(1 << 63))
        return RowPart(self.count(), rows, key, out=True).all()

    def _gathered(self, chosen: NDArray[np.int64]) -> Block:
        """Read the rows at the ascending indices `chosen` into one block."""
        self.count()
        blocks, begin = [], 0
        for part, size in enumerate(self._sizes):
            assert size is not None
            first, last = np.searchsorted(chosen, [begin, begin + size])
            if first < last:
                at = begin
                for block in self.read(part):
                    inside = slice(*np.searchsorted(chosen, [at, at + len(block)]))
                    blocks.append(block.take(chosen[inside] - at))
                    at += len(block)
            begin += size
        return Block.joined(blocks)

    def _opened(self, item: Any, part: int, row: int) -> Block:
        """Check an item of the source, and return it as a block of NumPy arrays."""
        given = item if isinstance(item, tuple) else (item,)
        if not 1 <= len(given) <= 3:
            raise TypeError(f"x: expected x or (x, context, weights) in each block, got a tuple of {len(given)}")
        own: list[Any] = [*given, *[None] * (3 - len(given))]
        x = own[0]
        where = f" in the block from row {row} on" + (f" of part {part}" if len(self._sizes) > 1 else "")
        if self._takes_whole:
            self._note_kinds(frames.kinds_of(x))
        array, columns, counts = [
            None if value is None else Caller().open(f"{name}{where}", value, whole=True)
            for name, value in zip(PARTS, own, strict=True)
        ]
        if array is None or array.ndim != 2:
            got = "None" if array is None else str(array.shape)
            raise errors.wrong_shape(f"x{where}", "(rows, features)", got)
        if columns is not None and columns.ndim == 1:
            columns = columns[:, None]
        for name, other, axes in (("context", columns, 2), ("weights", counts, 1)):
            if other is not None and (other.ndim != axes or len(other) != len(array)):
                raise ValueError(f"{name}{where}: expected {len(array)} rows, as x has, got shape {other.shape}")
        block = Block(array, columns, counts)
        if self._kind is None:
            self._kind = block._kind()
            self._names = self._names or names_of(x, array.shape[1])
            if self.called is None and (names := frames.names_of(x, array.shape[1])) is not None:
                self.called = tuple(names)
        elif block._kind() != self._kind:
            for name, first, now in zip(PARTS, self._kind, block._kind(), strict=True):
                if first != now:
                    raise ValueError(f"{name}{where}: expected {_text_of(first)}, as before, got {_text_of(now)}")
        return block

    def _note_kinds(self, kinds: list[str] | None) -> None:
        """Combine the kinds of columns in a block with those in earlier blocks; see `joint_kind`."""
        if self._kind is None:  # no block was read before
            self.kinds = kinds
        elif self.kinds is not None:
            pairs = zip(self.kinds, kinds or ["float"] * len(self.kinds), strict=True)
            self.kinds = [joint_kind(*pair) for pair in pairs]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns of x in messages; empty before the first block was read."""
        return self._names


def joint_kind(one: str, other: str) -> str:
    """The kind of a column with values of two kinds: "integer" for boolean and integer, "float" if one is float."""
    return one if one == other else "float" if "float" in (one, other) else "integer"


def _text_of(kind: Any) -> str:
    """A text for error messages: the dtype and shape of one array of a block."""
    if kind is None:
        return "none"
    dtype, columns = kind
    return f"{dtype} of shape (rows{''.join(f', {n}' for n in columns) or ','})"


class Without(Stream):
    """A stream without the rows at the ascending indices `left_out`."""

    def __init__(self, source: Stream, left_out: NDArray[np.int64]) -> None:
        self._source, self._left_out = source, left_out
        self._begins = np.concatenate([[0], np.cumsum([size or 0 for size in source._sizes])])
        held = np.diff(np.searchsorted(left_out, self._begins))
        super().__init__(source.buffer, [int(n) for n in np.diff(self._begins) - held])
        self._names = source.names

    def _read(self, part: int) -> Iterator[Any]:
        at = int(self._begins[part])
        for block in self._source.read(part):
            inside = slice(*np.searchsorted(self._left_out, [at, at + len(block)]))
            kept = np.ones(len(block), bool)
            kept[self._left_out[inside] - at] = False
            at += len(block)
            chosen = block.take(kept)
            yield chosen.x, chosen.context, chosen.weights
