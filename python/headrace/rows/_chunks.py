"""Streams of Dask arrays and frames; each chunk or partition is a part of the stream."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from headrace._arrays.frames import class_of
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace.rows._columns import chosen_columns
from headrace.rows._stream import Stream


def is_array(value: Any) -> bool:
    """Whether a value is a Dask array."""
    return isinstance(value, class_of("dask.array", "Array"))


def is_frame(value: Any) -> bool:
    """Whether a value is a Dask frame."""
    return isinstance(value, class_of("dask.dataframe", "DataFrame"))


def whole_rows(array: Any) -> Any:
    """The array, rechunked so that each row is in one chunk."""
    return array.rechunk({1: -1}) if array.ndim == 2 and array.numblocks[1] > 1 else array


def checked_array(x: Any, columns: Any, prefix: str = "") -> Any:
    """Check a Dask array of rows; return it with each row in one chunk. `columns` must be None, because only frames
    have names.
    """
    if not is_array(x):
        raise TypeError(f"{prefix}x: expected an array or a frame of Dask, got {check.kind_of(x)}")
    if columns is not None:
        raise ValueError(f"columns: expected None, as {prefix}x is an array, got names")
    if x.ndim != 2:
        raise errors.wrong_shape(f"{prefix}x", "(rows, features)", x.shape)
    return whole_rows(x)


def aligned(name: str, array: Any, x: Any) -> Any:
    """An array rechunked along its rows like x."""
    if math.isnan(x.shape[0]) or math.isnan(array.shape[0]):
        if array.numblocks[0] != x.numblocks[0]:
            raise ValueError(f"{name}: expected {x.numblocks[0]} chunks, as x has, got {array.numblocks[0]}")
        return array
    if array.shape[0] != x.shape[0]:
        raise ValueError(f"{name}: expected {x.shape[0]} rows, as x has, got shape {array.shape}")
    return array if array.chunks[0] == x.chunks[0] else array.rechunk({0: x.chunks[0]})


def is_of_dask(value: Any) -> bool:
    """Whether a value is a Dask array or frame; False if Dask is not imported."""
    return is_array(value) or is_frame(value)


def of_dask(x: Any, context: Any, weights: Any, columns: Any, buffer: Any) -> Stream:
    """Make the stream of a Dask array or frame; see `headrace.rows.dask`."""
    if is_frame(x):
        return Partitions(x, columns, context, weights, buffer)
    return Chunks(checked_array(x, columns), context, weights, buffer)


class Chunks(Stream):
    """A stream of a Dask array, chunk by chunk, with context and weights that are Dask or NumPy arrays."""

    def __init__(self, x: Any, context: Any, weights: Any, buffer: Any) -> None:
        """Check shapes; for the arguments see `headrace.rows.dask`."""
        rows = x.chunks[0]
        known = not any(math.isnan(n) for n in rows)
        self._ends = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64) if known else None
        self._all = [x, self._aligned("context", context, x), self._aligned("weights", weights, x)]
        super().__init__(buffer, [int(n) if known else None for n in rows])

    def _aligned(self, name: str, value: Any, x: Any) -> Any:
        """The weights or the context, with the same chunks of rows as x."""
        if value is None or (self._ends is not None and isinstance(value, np.ndarray)):
            if value is not None and self._ends is not None and len(value) != self._ends[-1]:
                raise ValueError(f"{name}: expected {self._ends[-1]} rows, as x has, got shape {value.shape}")
            return value
        if not is_array(value):
            raise TypeError(f"{name}: expected an array of Dask, as x is, got {check.kind_of(value)}")
        return aligned(name, whole_rows(value), x)

    def _read(self, part: int) -> Iterator[Any]:
        yield tuple(None if array is None else self._chunk(array, part) for array in self._all)

    def _chunk(self, array: Any, part: int) -> Any:
        if isinstance(array, np.ndarray):
            assert self._ends is not None
            return array[self._ends[part] : self._ends[part + 1]]
        return np.asarray(array.blocks[part].compute())


class Partitions(Stream):
    """A stream of a Dask frame, partition by partition."""

    def __init__(self, frame: Any, columns: Any, context: Any, weights: Any, buffer: Any) -> None:
        """Choose columns; for the arguments see `headrace.rows.dask`."""
        self._wanted = features, conditions, counts = chosen_columns(list(frame.columns), columns, context, weights)
        self._frame = frame[[*features, *conditions, *counts]]
        super().__init__(buffer, [None] * frame.npartitions)
        self._names = tuple(f"column {name!r}" for name in features)
        self.called = tuple(features) if all(isinstance(name, str) for name in features) else None

    def _read(self, part: int) -> Iterator[Any]:
        frame = self._frame.partitions[part].compute()
        features, conditions, counts = self._wanted
        yield (frame[features], frame[conditions] if conditions else None, frame[counts[0]] if counts else None)
