"""A table in a file: columns have a name or an index, and rows are in pieces, which are read in blocks."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import columns as _columns
from headrace._arrays.frames import MOST_LABELS, codes_of

KINDS = {"i": "integer", "u": "integer", "b": "boolean"}  # kinds of columns by NumPy's kinds of dtypes
TEXT = "text"  # the kind of a column of text

BLOCK = 1 << 16  # the approximate number of rows in a block
LEAST = 8  # results of fewer rows may differ in the last digits, because the core uses other code


class Source(abc.ABC):
    """A table in a file; the number and the names of its columns are known before values are read."""

    path: str
    names: tuple[str, ...] | None  # None if the file has no names
    n_columns: int
    dashes = ""
    """The text before names of arguments in messages: "--" on the command line."""
    missing = False
    """Whether missing values become NaN; if not, they are refused."""

    labels: Mapping[int, tuple[str, ...]] = MappingProxyType({})
    """Labels of text columns, which are read as indices of labels; -1 for unknown texts, NaN for missing values."""

    def learn_labels(self, columns: Sequence[int]) -> None:
        """Learn labels of text columns, which are then read as codes, unless labels are too many or differ
        in all rows.
        """
        seen: list[set[str]] = [set() for _ in columns]
        rows = 0
        for block in self.texts(columns) if columns else ():
            rows += len(block)
            for own, texts in zip(seen, block.T, strict=True):
                own |= set(texts.tolist()) if len(own) <= MOST_LABELS else set()
        found = {i: tuple(sorted(own - {""})) for i, own in zip(columns, seen, strict=True)}
        self.labels = {i: own for i, own in found.items() if 0 < len(own) <= MOST_LABELS and len(own) < rows}

    def texts(self, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        """The columns of text in blocks, shape (rows, columns), with "" for missing values."""
        raise NotImplementedError

    def codes(self, column: int, texts: Iterable[str]) -> NDArray[np.float64]:
        """The codes of texts in a column with labels, NaN for missing values."""
        own = list(texts)
        return np.where([not one for one in own], np.nan, codes_of(own, self.labels[column]))

    @cached_property
    def kinds(self) -> list[str]:
        """The kind of each column, "float", "integer", "boolean" or "text", as far as the file determines it."""
        return ["float"] * self.n_columns

    def read(self, columns: Sequence[int]) -> NDArray[Any]:
        """The values of some columns, shape (rows, len(columns)), float32 or float64."""
        return np.concatenate([np.empty((0, len(columns)), self.dtype(columns)), *self._parts(columns)])

    def blocks(self, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Some columns in blocks, at least one block; no block is so short that the bits of scores would differ."""
        held = None
        for part in self._parts(columns):
            if held is not None and len(part) >= LEAST:
                yield held
                held = None
            held = part if held is None else np.concatenate([held, part])
        yield self.read(columns)[:0] if held is None else held

    def _parts(self, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        for number in range(len(self.pieces())):
            yield from self.piece(number, columns)

    def pieces(self) -> list[int | None]:
        """The number of rows of each piece that can be read separately; None for a piece of unknown size."""
        return [None]

    @abc.abstractmethod
    def piece(self, number: int, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        """The rows of one piece of the table, in blocks."""

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        """The dtype in which some columns are read, float32 or float64."""
        return np.dtype(np.float64)

    def check(self, columns: Sequence[int]) -> None:
        """Raise ValueError for columns that are missing in the file or do not have numbers, if the file's
        header has this information.
        """
        del columns  # text files are checked while they are read

    def label(self, column: int) -> str:
        """The description of a column in a message."""
        return _columns.label(column, self.names)

    def choosing(self, columns: Sequence[int] = ()) -> str:
        """The end of an error message: an argument that chooses `columns`, or other columns if `columns` is empty."""
        if not columns:
            return f"; {self.dashes}columns chooses other columns"
        chosen = f"--columns {_columns.ranges(columns)}" if self.dashes else f"columns={list(columns)}"
        return f"; {chosen} takes the columns of numbers"
