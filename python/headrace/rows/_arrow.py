"""Streams of Arrow's data sets: files of Parquet by row groups, and files of other kinds one after another."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.install import install
from headrace.rows._columns import chosen_columns
from headrace.rows._held_out import CHUNK
from headrace.rows._stream import Stream

NO_PYARROW = f"parquet: needs pyarrow: {install('tables')}"


def files_of(paths: Any) -> list[str]:
    """The files of a path, a pattern, a folder or a sequence of these, each expanded in alphabetical order."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    if not isinstance(given, Sequence) or not all(isinstance(path, (str, os.PathLike)) for path in given):
        raise TypeError(f"paths: expected a path, a pattern, a folder or a list of these, got {check.kind_of(paths)}")
    found: list[str] = []
    for path in map(os.fspath, given):
        if os.path.isdir(path):
            here = sorted(glob(os.path.join(path, "**", "*.parquet"), recursive=True))
        elif has_magic(path) and not os.path.exists(path):
            here = sorted(glob(path, recursive=True))
        else:
            here = [path]
        if not here:
            raise FileNotFoundError(f"paths: expected some .parquet files, got none by {path}")
        found += here
    if not found:
        raise ValueError("paths: expected at least one, got none")
    return found


class Dataset(Stream):
    """The rows of a data set; a part is a row group where there are some, or a file."""

    def __init__(self, source: Any, columns: Any, context: Any, weights: Any, buffer: Any) -> None:
        """`source`: a `pyarrow.dataset.Dataset`, or files of Parquet as `files_of` gives them."""
        try:
            import pyarrow as arrow
            import pyarrow.dataset
        except ImportError:
            raise ImportError(NO_PYARROW) from None
        self._arrow = arrow
        try:
            if isinstance(source, list):
                source = arrow.dataset.dataset(source, format="parquet")
            self._schema = source.schema
            self._choose(columns, context, weights)
            self._parts = [group for fragment in source.get_fragments() for group in self._groups(fragment)]
        except arrow.ArrowInvalid as error:
            raise ValueError(f"paths: expected files of Parquet: {str(error).splitlines()[0]}") from None
        super().__init__(buffer, [rows for _, rows in self._parts])
        self._names = tuple(f"column {name!r}" for name in self._wanted[0])
        self.called = tuple(self._wanted[0])

    def of_table(self) -> Stream:
        """See `Stream.of_table`; columns are floats already, and the schema has their original kinds."""
        other, types = copy.copy(self), self._arrow.types
        kinds = [self._schema.field(name).type for name in self._wanted[0]]
        found = [
            "integer" if types.is_integer(kind) else "boolean" if types.is_boolean(kind) else "float" for kind in kinds
        ]
        other.kinds = found if set(found) != {"float"} else None
        return other

    def _choose(self, columns: Any, context: Any, weights: Any) -> None:
        """The columns of features, context and weights; by default all others are features."""
        self._wanted = chosen_columns(self._schema.names, columns, context, weights)
        for name in (name for of in self._wanted for name in of):
            kind, types = self._schema.field(name).type, self._arrow.types
            if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
                raise ValueError(
                    f"columns: expected numbers, got {kind} in column {name!r}; choose others by `columns`"
                )

    def _groups(self, fragment: Any) -> Iterator[tuple[Any, int | None]]:
        """The row groups of a file, and the number of rows in each."""
        if not hasattr(fragment, "split_by_row_group"):
            yield fragment, None
            return
        there = fragment.physical_schema.names
        partition = str(fragment.partition_expression)
        for name in (name for of in self._wanted for name in of):
            if name not in there and name not in partition:
                raise ValueError(f"{fragment.path}: expected column {name!r}, as other files have, got none")
        for group in fragment.split_by_row_group():
            yield group, sum(one.num_rows for one in group.row_groups)

    def _read(self, part: int) -> Iterator[Any]:
        fragment = self._parts[part][0]
        every = [name for of in self._wanted for name in of]
        batches = fragment.to_batches(
            self._schema, columns=every, batch_size=CHUNK, batch_readahead=0, fragment_readahead=0, use_threads=False
        )
        for batch in batches:
            x, context, weights = (self._numbers(batch, names) for names in self._wanted)
            yield x, context if self._wanted[1] else None, weights[:, 0] if self._wanted[2] else None

    def _numbers(self, batch: Any, names: Sequence[str]) -> NDArray[Any]:
        """Columns as one array, float32 where none is wider; missing values become NaN."""
        narrow = {self._arrow.float32(), self._arrow.float16()}
        kinds = {self._schema.field(name).type for name in names}
        out = np.empty((batch.num_rows, len(names)), np.float32 if kinds <= narrow else np.float64)
        for i, name in enumerate(names):
            out[:, i] = batch.column(name).to_numpy(zero_copy_only=False)
        return out
