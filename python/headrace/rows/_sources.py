"""Streams of blocks that a program makes, and of memory-mapped arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from headrace._base import arguments as check
from headrace.rows._numpy import content_of
from headrace.rows._stream import Stream

_NOT_BLOCKS = (str, bytes, dict, np.ndarray)  # iterable types that are not blocks of rows

PART = 1 << 14  # the number of rows of an array that are read together


class Blocks(Stream):
    """A stream of the blocks of an iterable, in the order of the iterable."""

    def __init__(self, source: Any, buffer: Any) -> None:
        """Check the source; for the arguments see `headrace.rows.blocks`."""
        self._make: Callable[[], Any]
        if isinstance(source, Iterator):
            got = f"a one-way {check.kind_of(source)}; give the function that makes it"
            raise TypeError(f"source: expected what can be iterated again and again, got {got}")
        if isinstance(source, _NOT_BLOCKS) or not (callable(source) or hasattr(source, "__iter__")):
            raise TypeError(f"source: expected blocks of rows, or a function of them, got {check.kind_of(source)}")
        self._make = source if callable(source) and not hasattr(source, "__iter__") else lambda: source
        self._made: Any = None  # the iterator of the last pass
        super().__init__(buffer, [None])

    def __getstate__(self) -> dict[str, Any]:
        """The stream's state without its iterator, which cannot be pickled."""
        return {**vars(self), "_made": None}

    def _read(self, part: int) -> Iterator[Any]:
        made = self._make()
        if isinstance(made, _NOT_BLOCKS) or not hasattr(made, "__iter__"):
            raise TypeError(f"source: expected a function that gives an iterable of blocks, got {check.kind_of(made)}")
        if isinstance(made, Iterator):
            if made is self._made:
                raise TypeError(f"source: expected a new iterator each time, got the same {check.kind_of(made)} again")
            self._made = made
        yield from made


class Mapped(Stream):
    """A stream of arrays in memory or in .npy files, whose rows can be read in any order."""

    def __init__(self, x: Any, context: Any, weights: Any, buffer: Any) -> None:
        """Open the arrays; for the arguments see `headrace.rows.memmap`."""
        parts = {"x": x, "context": context, "weights": weights}
        self._arrays = [None if value is None else _rows_of(name, value) for name, value in parts.items()]
        rows = self._arrays[0].shape[0] if self._arrays[0] is not None else 0
        for name, array in zip(("context", "weights"), self._arrays[1:], strict=True):
            if array is not None and array.shape[0] != rows:
                raise ValueError(f"{name}: expected {rows} rows, as x has, got shape {array.shape}")
        super().__init__(buffer, [min(PART, rows - begin) for begin in range(0, rows, PART)])

    def _read(self, part: int) -> Iterator[Any]:
        begin = part * PART
        yield tuple(None if array is None else array[begin : begin + PART] for array in self._arrays)


def _rows_of(name: str, value: Any) -> Any:
    """The array for an argument: the argument itself, or the array in the .npy file that it names."""
    if isinstance(value, (str, os.PathLike)):
        try:
            found = content_of(os.fspath(value))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if len(found.shape) not in (1, 2):
            raise ValueError(f"{name}: expected an .npy file with an array (rows, columns), got {value}")
        return found
    if not isinstance(value, np.ndarray) or value.ndim not in (1, 2):
        raise TypeError(f"{name}: expected an array (rows, columns) or an .npy file's path, got {check.kind_of(value)}")
    return value
