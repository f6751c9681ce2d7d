"""Tables in Parquet files and Arrow data sets, in pieces: row groups, or whole files of formats without row groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.install import install
from headrace.rows import _source
from headrace.rows._source import TEXT, Source

NO_PYARROW = f"reading and writing .parquet needs pyarrow: {install('tables')}"


def load_pyarrow() -> Any:
    try:
        import pyarrow.dataset
        import pyarrow.parquet
    except ImportError:
        raise ImportError(NO_PYARROW) from None
    return pyarrow


class Arrow(Source):
    """A table of row groups with one schema."""

    def __init__(self, path: str, schema: Any, dashes: str = "") -> None:
        self.path, self.arrow, self.schema, self.dashes = path, load_pyarrow(), schema, dashes
        self.names, self.n_columns = tuple(schema.names), len(schema.names)
        self.groups: list[tuple[int | None, Callable[[list[str]], Any]]] = []
        """For each group the number of its rows, and a function that reads some of its columns in batches."""

    def pieces(self) -> list[int | None]:
        return [rows for rows, _ in self.groups]

    def piece(self, number: int, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        self.check(columns)
        assert self.names is not None
        begin = 0 if self.missing else sum(rows or 0 for rows, _ in self.groups[:number])
        for batch in self.groups[number][1]([self.names[i] for i in columns]):
            yield self._numbers(batch, columns, begin)
            begin += batch.num_rows

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        kinds = {self.schema.field(i).type for i in columns}
        return np.dtype(np.float32 if kinds <= {self.arrow.float32(), self.arrow.float16()} else np.float64)

    @cached_property
    def kinds(self) -> list[str]:
        """The kinds of the columns, from the schema; see `Source`."""
        return [self._kind(field.type) for field in self.schema]

    def _kind(self, kind: Any) -> str:
        types = self.arrow.types
        if types.is_integer(kind):
            return "integer"
        if types.is_boolean(kind):
            return "boolean"
        if types.is_floating(kind):
            return "float"
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return TEXT if types.is_string(kind) or types.is_large_string(kind) else "other"

    def check(self, columns: Sequence[int]) -> None:
        kinds, names = self.kinds, self.names or ()
        for i in columns:
            if kinds[i] in (TEXT, "other") and i not in self.labels:
                others = self.choosing([k for k in columns if kinds[k] not in (TEXT, "other")])
                kind = self.schema.field(i).type
                raise ValueError(f"{self.path}: {self.label(i)}: expected numbers, got {kind}{others}")
            if (count := names.count(names[i])) > 1:
                raise ValueError(f"{self.path}: expected one {self.label(i)}, got {count}{self.choosing()}")

    def texts(self, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        assert self.names is not None
        called = [self.names[i] for i in columns]
        for _, batches in self.groups:
            for batch in batches(called):
                yield np.array([self._text_of(batch.column(name)) for name in called], object).T

    def _text_of(self, column: Any) -> list[str]:
        return ["" if one is None else one for one in column.to_pylist()]

    def _numbers(self, batch: Any, columns: Sequence[int], begin: int) -> NDArray[Any]:
        out = np.empty((batch.num_rows, len(columns)), self.dtype(columns))
        assert self.names is not None
        for position, i in enumerate(columns):
            column = batch.column(self.names[i])
            if i in self.labels:
                out[:, position] = self.codes(i, self._text_of(column))
                continue
            if column.null_count and not self.missing:
                row = begin + column.is_null().to_numpy(zero_copy_only=False).argmax()
                raise ValueError(f"{self.path}: row {row}, {self.label(i)}: expected a number, got null")
            if column.null_count:
                column = column.cast(self.arrow.float64())
            out[:, position] = column.to_numpy(zero_copy_only=False)
        return out


def parquet(path: str, dashes: str = "") -> Arrow:
    """Open the table in a Parquet file."""
    arrow = load_pyarrow()
    try:
        file = arrow.parquet.ParquetFile(path)
    except arrow.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not a Parquet file, as its suffix has it: {reason}") from None
    found = Arrow(path, file.schema_arrow, dashes)
    for i in range(file.num_row_groups):
        found.groups.append((file.metadata.row_group(i).num_rows, partial(file.iter_batches, _source.BLOCK, [i])))
    return found


def dataset(source: Any) -> Arrow:
    """The table of a `pyarrow.dataset.Dataset`."""
    found = Arrow("x", source.schema)

    def batches(group: Any, names: list[str]) -> Any:
        how = {"batch_readahead": 0, "fragment_readahead": 0, "use_threads": False}
        return group.to_batches(source.schema, columns=names, batch_size=_source.BLOCK, **how)

    for fragment in source.get_fragments():
        by_group = hasattr(fragment, "split_by_row_group")
        for group in fragment.split_by_row_group() if by_group else [fragment]:
            rows = sum(one.num_rows for one in group.row_groups) if by_group else None
            found.groups.append((rows, partial(batches, group)))
    return found
