"""A table in a file for the command line: columns by name or index, and rows in blocks."""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import columns as _columns

OTHERS = "; --columns chooses other columns"
KINDS = {"i": "integer", "u": "integer", "b": "boolean"}  # of dtypes

BLOCK = 1 << 16  # rows of a block, approximately
LEAST = 8  # fewer rows take another path through the core, which may differ in the last digits


def choosing(columns: Sequence[int]) -> str:
    """The end of an error: the option that takes these columns, or some, if there are none.

    >>> choosing([0, 1, 2, 4])
    '; --columns 0:3,4 takes the columns of numbers'
    """
    runs: list[list[int]] = []
    for column in columns:
        if runs and column == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([column, column + 1])
    named = ",".join(str(begin) if end == begin + 1 else f"{begin}:{end}" for begin, end in runs)
    return f"; --columns {named} takes the columns of numbers" if named else OTHERS


class Source(abc.ABC):
    """A table in a file, before its values are read: the number and names of its columns."""

    path: str
    names: tuple[str, ...] | None  # None where the file has none
    n_columns: int
    missing = False
    """Whether missing values become NaN; else they are refused."""

    @property
    def kinds(self) -> list[str] | None:
        """The kinds of the columns, "float", "integer" or "boolean"; None where the file does not define them."""
        return None

    @abc.abstractmethod
    def read(self, columns: Sequence[int]) -> NDArray[Any]:
        """These columns, shape (rows, len(columns)), float32 or float64."""

    def blocks(self, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        """These columns in blocks, none so short that its scores would differ in bits; at least one."""
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
        """Rows of each piece of the table that can be read by itself; None where not counted."""
        return [None]

    @abc.abstractmethod
    def piece(self, number: int, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        """The rows of one piece, in blocks."""

    @abc.abstractmethod
    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        """float32 or float64, the dtype in which these columns are read."""

    def label(self, column: int) -> str:
        """The description of a column in a message."""
        return _columns.label(column, self.names)

    def select(self, option: str, text: str) -> list[int]:
        """The columns of a list such as ``mass,radius`` or ``0,3:6``: names, indices from 0, ranges."""
        chosen = [i for token in text.split(",") for i in self._token(option, token.strip())]
        twice = sorted(i for i, count in Counter(chosen).items() if count > 1)
        if twice:
            raise ValueError(f"{option}: expected different columns, got {self.label(twice[0])} twice")
        return chosen

    def find(self, option: str, name: str) -> int:
        """The column of this name."""
        count = (self.names or ()).count(name)
        if self.names is None or count == 0:
            raise self._missing(option, name)
        if count > 1:
            raise ValueError(f"{option}: expected one column {name!r} in {self.path}, got {count}")
        return self.names.index(name)

    def _token(self, option: str, token: str) -> list[int]:
        if self.names is not None and token in self.names:
            return [self.find(option, token)]
        parts = token.split(":")
        try:
            ends = [int(part) if part else None for part in parts]
        except ValueError:
            ends = []
        if len(ends) == 1 and ends[0] is not None and 0 <= ends[0] < self.n_columns:
            return [ends[0]]
        if len(ends) == 2:
            first, end = ends[0] or 0, self.n_columns if ends[1] is None else ends[1]
            if 0 <= first < end <= self.n_columns:
                return list(range(first, end))
        raise self._missing(option, token)

    def _missing(self, option: str, name: str) -> ValueError:
        has = f"{self.n_columns} columns, numbered from 0"
        if self.names is not None:
            has = "the columns " + ", ".join(map(repr, self.names))
        return ValueError(f"{option}: expected a column of {self.path}, got {name!r}; the file has {has}")
