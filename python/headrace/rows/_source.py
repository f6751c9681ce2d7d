"""A table in a file: its columns by name or index, and its rows in pieces, each read in blocks."""

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

KINDS = {"i": "integer", "u": "integer", "b": "boolean"}  # of dtypes
TEXT = "text"  # the kind of a column without numbers

BLOCK = 1 << 16  # rows of a block, approximately
LEAST = 8  # fewer rows take another path through the core, which may differ in the last digits


class Source(abc.ABC):
    """A table in a file, before its values are read: the number and names of its columns."""

    path: str
    names: tuple[str, ...] | None  # None if the file has no names
    n_columns: int
    dashes = ""
    """Before the names of arguments in messages: "--" on the command line."""
    missing = False
    """Whether missing values become NaN; else they are refused."""

    labels: Mapping[int, tuple[str, ...]] = MappingProxyType({})
    """Labels of text columns, which are read as codes: indices of labels, -1 for other texts, NaN for missing ones."""

    def learn_labels(self, columns: Sequence[int]) -> None:
        """Read columns of text as codes, but those with too many labels, or with another one in each row."""
        seen: list[set[str]] = [set() for _ in columns]
        rows = 0
        for block in self.texts(columns) if columns else ():
            rows += len(block)
            for own, texts in zip(seen, block.T, strict=True):
                own |= set(texts.tolist()) if len(own) <= MOST_LABELS else set()
        found = {i: tuple(sorted(own - {""})) for i, own in zip(columns, seen, strict=True)}
        self.labels = {i: own for i, own in found.items() if 0 < len(own) <= MOST_LABELS and len(own) < rows}

    def texts(self, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Columns of text in blocks, shape (rows, columns), with "" for missing ones."""
        raise NotImplementedError

    def codes(self, column: int, texts: Iterable[str]) -> NDArray[np.float64]:
        """Codes of the texts of a column with labels."""
        own = list(texts)
        return np.where([not one for one in own], np.nan, codes_of(own, self.labels[column]))

    @cached_property
    def kinds(self) -> list[str]:
        """The kinds of the columns, "float", "integer", "boolean" or "text", as far as the file defines them."""
        return ["float"] * self.n_columns

    def read(self, columns: Sequence[int]) -> NDArray[Any]:
        """These columns, shape (rows, len(columns)), float32 or float64."""
        return np.concatenate([np.empty((0, len(columns)), self.dtype(columns)), *self._parts(columns)])

    def blocks(self, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        """These columns in blocks, of which none is so short that its scores would differ in bits; at least one."""
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
        """Rows of each piece of the table that can be read separately; None for pieces that were not counted."""
        return [None]

    @abc.abstractmethod
    def piece(self, number: int, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        """The rows of one piece, in blocks."""

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        """float32 or float64, the dtype in which these columns are read."""
        return np.dtype(np.float64)

    def check(self, columns: Sequence[int]) -> None:
        """Refuse columns that are known to be missing in the file, or to have no numbers."""
        del columns  # a file of text is read first

    def label(self, column: int) -> str:
        """The description of a column in a message."""
        return _columns.label(column, self.names)

    def choosing(self, columns: Sequence[int] = ()) -> str:
        """The end of an error: the argument that takes these columns, or some if it is empty."""
        if not columns:
            return f"; {self.dashes}columns chooses other columns"
        chosen = f"--columns {_columns.ranges(columns)}" if self.dashes else f"columns={list(columns)}"
        return f"; {chosen} takes the columns of numbers"
