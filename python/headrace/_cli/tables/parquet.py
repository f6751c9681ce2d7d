"""Tables in .parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.install import install
from headrace._cli.tables import source
from headrace._cli.tables.source import OTHERS, Source, choosing

NO_PYARROW = f"reading and writing .parquet needs pyarrow: {install('tables')}"


def load_pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError(NO_PYARROW) from None
    return pyarrow


class Parquet(Source):
    def __init__(self, path: str) -> None:
        self.path = path
        self.arrow = load_pyarrow()
        try:
            self.file = self.arrow.parquet.ParquetFile(path)
        except self.arrow.ArrowInvalid as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path}: not a Parquet file, as its suffix has it: {reason}") from None
        self.labels: list[str] = self.file.schema_arrow.names
        self.names, self.n_columns = tuple(self.labels), len(self.labels)
        groups = range(self.file.num_row_groups)
        self.sizes: list[int] = [self.file.metadata.row_group(i).num_rows for i in groups]

    def read(self, columns: Sequence[int]) -> NDArray[Any]:
        self._check(columns)
        return self._numbers(self.file.read(columns=[self.labels[i] for i in columns]), columns, 0)

    def pieces(self) -> list[int | None]:
        return list(self.sizes)

    def piece(self, number: int, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        self._check(columns)
        begin = sum(self.sizes[:number])
        for batch in self.file.iter_batches(source.BLOCK, [number], [self.labels[i] for i in columns]):
            yield self._numbers(self.arrow.Table.from_batches([batch]), columns, begin)
            begin += batch.num_rows

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        kinds = {self.file.schema_arrow.field(i).type for i in columns}
        return np.dtype(np.float32 if kinds <= {self.arrow.float32(), self.arrow.float16()} else np.float64)

    @property
    def kinds(self) -> list[str]:
        """See `Source`."""
        types = self.arrow.types
        every = [field.type for field in self.file.schema_arrow]
        return [
            "integer" if types.is_integer(kind) else "boolean" if types.is_boolean(kind) else "float" for kind in every
        ]

    def _check(self, columns: Sequence[int]) -> None:
        for i in columns:
            if not self._is_number(i):
                kind, others = self.file.schema_arrow.field(i).type, choosing([*filter(self._is_number, columns)])
                raise ValueError(f"{self.path}: {self.label(i)}: expected numbers, got {kind}{others}")
            if (count := self.labels.count(self.labels[i])) > 1:
                raise ValueError(f"{self.path}: expected one {self.label(i)}, got {count}{OTHERS}")

    def _is_number(self, column: int) -> bool:
        types, kind = self.arrow.types, self.file.schema_arrow.field(column).type
        return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))

    def _numbers(self, table: Any, columns: Sequence[int], begin: int) -> NDArray[Any]:
        out = np.empty((table.num_rows, len(columns)), self.dtype(columns))
        for position, i in enumerate(columns):
            column = table.column(self.labels[i])
            if column.null_count and self.missing:
                column = column.cast(self.arrow.float64())
            elif column.null_count:
                row = begin + column.is_null().to_numpy().argmax()
                raise ValueError(f"{self.path}: row {row}, {self.label(i)}: expected a number, got null")
            out[:, position] = column.to_numpy()
        return out
