"""Several tables as one, and tables as streams of rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._cli import tables
from headrace._cli.tables import Source
from headrace.rows._stream import Stream, joint_kind

STANDARD = "-"  # the path of the standard input or output
BUFFER = 1 << 28  # bytes of rows that are held in memory, by default


def found(paths: Sequence[str], suffixes: Sequence[str] = tables.READ) -> list[str]:
    """The files of paths, folders and patterns, each expanded in alphabetical order; of folders those with a suffix."""
    files: list[str] = []
    for path in paths:
        here = [path]
        if os.path.isdir(path):
            here = inside(path, suffixes)
            if not here:
                raise FileNotFoundError(f"DATA: expected a folder with tables ({tables.READABLE}), got none in {path}")
        elif has_magic(path) and not os.path.exists(path):
            here = sorted(glob(path, recursive=True))
            if not here:
                kind = "tables" if suffixes is tables.READ else f"{', '.join(suffixes)} files"
                raise FileNotFoundError(f"DATA: expected some {kind}, got none by {path}")
        files += here
    return files


def inside(folder: str, suffixes: Sequence[str]) -> list[str]:
    """Files in a folder whose names have one of the suffixes; hidden ones are left out."""

    def is_one(name: str) -> bool:
        return not name.startswith((".", "_")) and tables.suffix_of(name) in suffixes

    return sorted(one.path for one in os.scandir(folder) if one.is_file() and is_one(one.name))


def open_tables(paths: Sequence[str], **how: Any) -> Source:
    """One table, or several below each other, with options as of `tables.open_table`."""
    files = found(paths)
    if len(files) == 1:
        return tables.open_table(files[0], **how)
    return _Several(files, how)


class _Several(Source):
    """Tables of the same columns, one below the other, of which one is open at a time."""

    def __init__(self, paths: Sequence[str], how: dict[str, Any]) -> None:
        if STANDARD in paths:
            raise ValueError("DATA: expected the standard input alone or files, got both")
        self.path, self.paths, self.how = f"{paths[0]} and {len(paths) - 1} more", paths, how
        self._pieces: list[tuple[int, int]] = []  # index of the file, and of the piece there
        self._sizes: list[int | None] = []
        self._orders: list[list[int]] = []  # of each file: the indices of the first file's columns
        self._wide = np.zeros(0, bool)  # whether each column is float64 in some file
        self._kinds: list[str] = []
        self._open: tuple[int, Source] | None = None
        for i, path in enumerate(paths):
            source = tables.open_table(path, **how)
            if i == 0:
                self.names, self.n_columns = source.names, source.n_columns
                self._wide = np.zeros(source.n_columns, bool)
            order = self._order(source)
            kinds = [(source.kinds or ["float"] * source.n_columns)[column] for column in order]
            self._kinds = [joint_kind(*pair) for pair in zip(self._kinds or kinds, kinds, strict=True)]
            self._orders.append(order)
            self._wide |= [source.dtype([column]) == np.float64 for column in order]
            sizes = source.pieces()
            self._sizes += sizes
            self._pieces += [(i, number) for number in range(len(sizes))]

    def _order(self, source: Source) -> list[int]:
        first = self.paths[0]
        if source.n_columns != self.n_columns:
            raise ValueError(
                f"{source.path}: expected {self.n_columns} columns, as {first} has, got {source.n_columns}"
            )
        if source.names == self.names:
            return list(range(self.n_columns))
        if self.names is None or source.names is None:
            has, there = ("no names", "has them") if self.names is None else ("names", "has none")
            raise ValueError(f"{source.path}: expected {has} of columns, as {first} has, but it {there}")
        if sorted(source.names) != sorted(self.names) or len(set(self.names)) < self.n_columns:
            missing = next((name for name in self.names if name not in source.names), self.names[0])
            raise ValueError(
                f"{source.path}: expected the columns of {first}, got others; column {missing!r} is missing"
            )
        return [source.names.index(name) for name in self.names]

    @property
    def kinds(self) -> list[str] | None:
        """The kinds on which all tables agree."""
        return self._kinds

    def read(self, columns: Sequence[int]) -> NDArray[Any]:
        return np.concatenate([np.empty((0, len(columns)), self.dtype(columns)), *self._parts(columns)])

    def pieces(self) -> list[int | None]:
        return self._sizes

    def piece(self, number: int, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        file, inside = self._pieces[number]
        order, dtype = self._orders[file], self.dtype(columns)
        if self._open is None or self._open[0] != file:
            self._open = file, tables.open_table(self.paths[file], **self.how)
        source = self._open[1]
        source.missing = self.missing
        for block in source.piece(inside, [order[column] for column in columns]):
            yield block.astype(dtype, copy=False)

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        return np.dtype(np.float64 if self._wide[list(columns)].any() else np.float32)


class TableStream(Stream):
    """Columns of a table as a stream of rows."""

    def __init__(self, source: Source, columns: Sequence[Sequence[int]], buffer: int | None) -> None:
        """`columns`: of features, context and weights. `buffer`: in rows; by default as many as `BUFFER` holds."""
        self._source, self._columns = source, columns
        self._every = [column for part in columns for column in part]
        row_bytes = len(self._every) * source.dtype(self._every).itemsize
        super().__init__(buffer or max(BUFFER // row_bytes, 1), source.pieces())
        self.shown: Any = None
        """A bar of the rows that are read; None for no bar."""
        self._names, self._what = tuple(source.label(column) for column in columns[0]), source.path
        self.called = None if source.names is None else tuple(source.names[column] for column in columns[0])

    def _read(self, part: int) -> Iterator[Any]:
        ends = np.cumsum([len(columns) for columns in self._columns])[:-1]
        for block in self._source.piece(part, self._every):
            x, context, weights = np.split(block, ends, axis=1)
            if self.shown is not None:
                self.shown.update(len(block))
            yield x, context if self._columns[1] else None, weights[:, 0] if self._columns[2] else None
