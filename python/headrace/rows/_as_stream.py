"""The stream for an argument of rows: the caller's stream, or a stream that is made from a Dask or Arrow object."""

from __future__ import annotations

from typing import Any

from headrace._arrays.frames import class_of
from headrace._base import arguments as check
from headrace.rows import _arrow
from headrace.rows._chunks import is_of_dask, of_dask
from headrace.rows._columns import chosen_columns
from headrace.rows._joined import Columns
from headrace.rows._source import Source
from headrace.rows._stream import BUFFER, Stream


def is_stream(x: Any) -> bool:
    """Whether x is a stream, or an object that is read as a stream."""
    return isinstance(x, (Stream, class_of("pyarrow.dataset", "Dataset"))) or is_of_dask(x)


def stream_of(x: Any, context: Any = None, weights: Any = None) -> Stream | None:
    """The stream x, or a stream made from x; None for arrays and frames in memory."""
    if is_of_dask(x):
        return of_dask(x, context, weights, None, BUFFER)
    if isinstance(x, class_of("pyarrow.dataset", "Dataset")):
        return of_source(_arrow.dataset(x), None, context, weights, BUFFER)
    if not isinstance(x, Stream):
        return None
    for name, value in (("context", context), ("weights", weights)):
        if value is not None:
            raise ValueError(f"{name}: expected None, because a stream of rows has its own, got {check.kind_of(value)}")
    return x


def of_source(source: Source, columns: Any, context: Any, weights: Any, buffer: int) -> Stream:
    """A stream of columns of a table, chosen by name, or by index if there are no names; missing values are NaN."""
    source.missing = True
    there = list(range(source.n_columns)) if source.names is None else list(source.names)
    chosen = chosen_columns(there, columns, context, weights)
    return Columns(source, [[there.index(name) for name in part] for part in chosen], buffer)


def arrays_of(validation: Any) -> Any:
    """Read validation rows from a stream into arrays, if they fit in its buffer; return any other value unchanged."""
    parts = validation if isinstance(validation, tuple) else (validation,)
    stream = stream_of(*parts) if 1 <= len(parts) <= 3 else None
    if stream is None:
        return validation
    whole = stream.whole()
    if whole is None:
        raise ValueError(f"validation: expected at most {stream.buffer} rows, the stream's buffer, got more")
    return whole.x, whole.context, whole.weights
