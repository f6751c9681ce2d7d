"""Several tables as one, and the columns of a table as a stream of rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.rows._source import Source
from headrace.rows._stream import Stream, joint_kind

BUFFER_BYTES = 1 << 28  # bytes of rows in the buffer, by default


class Joined(Source):
    """Several tables as one, whose rows are joined; only one file is open at a time, and columns are
    matched by name.
    """

    def __init__(self, paths: Sequence[str], opened: Callable[[str], Source]) -> None:
        self.path, self.paths, self.opened = f"{paths[0]} and {len(paths) - 1} more", paths, opened
        self._pieces: list[tuple[int, int]] = []  # the index of the file, and of the piece in the file
        self._sizes: list[int | None] = []
        self._orders: list[list[int | None]] = []  # by file: the indices of the first file's columns in this file
        self._open: tuple[int, Source] | None = None
        for i, path in enumerate(paths):
            source = opened(path)
            if i == 0:
                self.names, self.n_columns, self.dashes = source.names, source.n_columns, source.dashes
                self._wide, self.kinds = np.zeros(source.n_columns, bool), [*source.kinds]
            order = self._order(source)
            kinds = source.kinds
            for column, place in enumerate(order):
                if place is not None:
                    self.kinds[column] = joint_kind(self.kinds[column], kinds[place])
                    self._wide[column] |= source.dtype([place]) == np.float64
            self._orders.append(order)
            sizes = source.pieces()
            self._sizes += sizes
            self._pieces += [(i, number) for number in range(len(sizes))]

    def _order(self, source: Source) -> list[int | None]:
        first = self.paths[0]
        if (self.names is None) != (source.names is None):
            has, there = ("no names", "has them") if self.names is None else ("names", "has none")
            raise ValueError(f"{source.path}: expected {has} of columns, as {first} has, but it {there}")
        if source.names == self.names:
            if source.n_columns != self.n_columns:
                expected = f"{self.n_columns} columns, as {first} has"
                raise ValueError(f"{source.path}: expected {expected}, got {source.n_columns}")
            return list(range(self.n_columns))
        assert source.names is not None
        assert self.names is not None
        return [source.names.index(name) if source.names.count(name) == 1 else None for name in self.names]

    def check(self, columns: Sequence[int]) -> None:
        for path, order in zip(self.paths, self._orders, strict=True):
            for column in columns:
                if order[column] is None:
                    expected = f"one {self.label(column)}, as {self.paths[0]} has"
                    raise ValueError(f"{path}: expected {expected}, got none, or several")
        self._at(0).check([column for column in columns if column not in self.labels])

    def pieces(self) -> list[int | None]:
        return self._sizes

    def piece(self, number: int, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        file, inside = self._pieces[number]
        dtype, source = self.dtype(columns), self._at(file)
        source.missing = self.missing
        source.labels = {self._place(file, column): own for column, own in self.labels.items()}
        for block in source.piece(inside, [self._place(file, column) for column in columns]):
            yield block.astype(dtype, copy=False)

    def texts(self, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        for file in range(len(self.paths)):
            yield from self._at(file).texts([self._place(file, column) for column in columns])

    def _at(self, file: int) -> Source:
        if self._open is None or self._open[0] != file:
            self._open = file, self.opened(self.paths[file])
        return self._open[1]

    def _place(self, file: int, column: int) -> int:
        place = self._orders[file][column]
        assert place is not None
        return place

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        return np.dtype(np.float64 if self._wide[list(columns)].any() else np.float32)


class Columns(Stream):
    """Columns of a table as a stream of rows."""

    def __init__(self, source: Source, columns: Sequence[Sequence[int]], buffer: int | None, what: str = "") -> None:
        """`columns`: indices of features, context and weights. `buffer`: a number of rows; None for `BUFFER_BYTES`
        bytes. `what`: the name of the rows in messages, if all parts are read in one dtype; "" if each part has its own
        dtype.
        """
        self._apart = not what
        self._source, self._columns = source, [list(part) for part in columns]
        self._every = [column for part in columns for column in part]
        source.check(self._every)
        row_bytes = max(len(self._every), 1) * source.dtype(self._every).itemsize
        super().__init__(max(BUFFER_BYTES // row_bytes, 1) if buffer is None else buffer, source.pieces())
        self.shown: Any = None
        """A progress bar that counts the rows read; None for no bar."""
        self._names, self._what = tuple(source.label(column) for column in columns[0]), what or "x"
        self.called = None if source.names is None else tuple(source.names[column] for column in columns[0])

    def of_table(self) -> Stream:
        """A copy of the stream with the kinds of its columns; see `Stream.of_table`. The stream already reads
        floats.
        """
        other, every = copy.copy(self), self._source.kinds
        kinds = [every[column] for column in self._columns[0]]
        other.kinds = kinds if set(kinds) != {"float"} else None
        return other

    def _read(self, part: int) -> Iterator[Any]:
        ends, apart = np.cumsum([len(columns) for columns in self._columns])[:-1], self._apart
        kinds = [self._source.dtype(columns if apart else self._every) for columns in self._columns]
        for block in self._source.piece(part, self._every):
            if self.shown is not None:
                self.shown.update(len(block))
            split = zip(np.split(block, ends, axis=1), kinds, strict=True)
            x, context, weights = (one.astype(kind, copy=False) for one, kind in split)
            yield x, context if self._columns[1] else None, weights[:, 0] if self._columns[2] else None
