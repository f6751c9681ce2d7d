"""Rows that do not fit in memory, for `Flow.fit`, `DualAscentFlow.fit` and `FlowDensity.fit`: ``hr.rows``.

Pass a stream instead of ``x``; context and weights are parts of the stream. If a stream has at most ``buffer`` rows,
these are read at once, and a fit has the same bits as with an array. A longer stream is read once to check and measure
its rows, and once in each epoch. A stream with weights, or with an unknown number of rows, is read once more at the
beginning, to count rows. docs/scale.md describes the steps and the memory of fits of long streams.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from headrace._arrays.caller import Array
from headrace.rows._as_stream import of_source
from headrace.rows._chunks import of_dask
from headrace.rows._files import OF_TEXT, files_of, open_tables
from headrace.rows._sources import Blocks, Mapped
from headrace.rows._stream import BUFFER, Block, Stream

__all__ = ["Block", "Stream", "blocks", "csv", "dask", "memmap", "parquet"]

Path = str | os.PathLike[str]


def blocks(source: Iterable[Any] | Callable[[], Iterable[Any]], *, buffer: int = BUFFER) -> Stream:
    """A stream of blocks of rows from a program, in the order of the program: rows are shuffled only within the buffer.

    Args:
        source: An object that can be iterated repeatedly, or a function that returns an iterator. Each block is x, or a
            tuple (x, context, weights): shapes (rows, features), (rows, context) and (rows,), NumPy arrays, or any
            arrays or frames that a fit takes, float32 or float64, with the same dtypes in each block. Blocks may have
            any number of rows, including none.
        buffer: The number of rows that are shuffled together.

    Raises:
        TypeError: the source is an iterator, which can be read only once.

    >>> import numpy as np, headrace as hr
    >>> def made():
    ...     rng = np.random.default_rng(0)
    ...     return (rng.normal([1.0, -2.0], [1.0, 3.0], (1000, 2)) for _ in range(5))
    >>> flow = hr.MAF(2, transforms=2, hidden=(16,))
    >>> history = flow.fit(hr.rows.blocks(made, buffer=2000), progress=False)
    >>> history.judged_by, flow.transforms[-1].mean.round().tolist()
    ('held-out rows', [1.0, -2.0])
    """
    return Blocks(source, buffer)


def memmap(
    x: Path | Array, context: Path | Array | None = None, weights: Path | Array | None = None, *, buffer: int = BUFFER
) -> Stream:
    """A stream of rows of .npy files, or of arrays such as `numpy.memmap`, in parts of 16,384 rows in random order.

    A fit also takes a mapped array directly, whose pages count as used memory, although the system may free them.

    Args:
        x: The path of an .npy file or an array, shape (rows, features), float32 or float64.
        context: A path or an array, shape (rows, context).
        weights: A path or an array, shape (rows,).
        buffer: The number of rows that are shuffled together.

    Raises:
        OSError: a file does not exist.
        ValueError: a file is no .npy file of numbers, or the arrays have different numbers of rows.
    """
    return Mapped(x, context, weights, buffer)


def parquet(
    paths: Path | Sequence[Path],
    columns: str | Sequence[str] | None = None,
    *,
    context: str | Sequence[str] | None = None,
    weights: str | None = None,
    buffer: int = BUFFER,
) -> Stream:
    """A stream of rows of Parquet files, whose row groups are read in random order. pyarrow is needed, ``pip install
    ".[tables]"``.

    Integers and booleans are read as float64, and so are all columns unless every column is float32. Missing values
    become NaN, which a fit refuses.

    Args:
        paths: A file, a pattern such as ``dir/*.parquet``, a folder, or a list of these.
        columns: The names of the features; by default all columns that are neither context nor weights.
        context: The names of the columns that the density is conditioned on.
        weights: The name of the column of row weights.
        buffer: The number of rows that are shuffled together.

    Raises:
        OSError: a file does not exist.
        ValueError: a file is not Parquet, or a column is missing in a file or has no numbers.
    """
    source = open_tables(files_of(paths, (".parquet",), deep=True))
    return of_source(source, columns, context, weights, buffer)


def csv(
    paths: Path | Sequence[Path],
    columns: str | int | Sequence[str | int] | None = None,
    *,
    context: str | int | Sequence[str | int] | None = None,
    weights: str | int | None = None,
    delimiter: str | None = None,
    header: str = "auto",
    buffer: int = BUFFER,
) -> Stream:
    """A stream of rows of text files, .csv, .tsv and .txt, possibly compressed by gzip; files are read in random order.

    The rows of one file are shuffled only within the buffer. Missing values, such as empty cells, ``NA`` and ``null``,
    become NaN, which a fit refuses; "true" and "false" become 1 and 0.

    Args:
        paths: A file, a pattern such as ``dir/*.csv``, a folder, or a list of these, with the same columns by name.
        columns: The names of the features, or their indices in files without names; by default all columns that are
            neither context nor weights.
        context: The names or indices of the columns that the density is conditioned on.
        weights: The name or index of the column of row weights.
        delimiter: The text between columns; by default the first of tab, ``;``, ``,`` and ``|`` in the first line, or
            else white space.
        header: Whether the first line has names: "yes", "no", or "auto": it has names if none of its fields is a
            number.
        buffer: The number of rows that are shuffled together.

    Raises:
        OSError: a file does not exist.
        ValueError: a cell is no number (the message has its line and column), or a column is missing.

    >>> import os, tempfile, headrace as hr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "stars.csv")
    ...     with open(path, "w") as file:
    ...         _ = file.write("name,mass,radius\\nSun,1,1\\nVega,2.1,NA\\n")
    ...     stream = hr.rows.csv(path, ["mass", "radius"])
    ...     print(next(iter(stream)).x.tolist())
    [[1.0, 1.0], [2.1, nan]]
    """
    source = open_tables(files_of(paths, OF_TEXT, deep=True), delimiter=delimiter, header=header)
    return of_source(source, columns, context, weights, buffer)


def dask(
    x: Any, context: Any = None, weights: Any = None, *, columns: Sequence[str] | None = None, buffer: int = BUFFER
) -> Stream:
    """A stream of rows of a Dask array or frame, whose chunks are computed one at a time in random order.

    Args:
        x: A Dask array, shape (rows, features), or a Dask frame.
        context: An array with as many rows as x; for a frame, the names of its context columns.
        weights: An array, shape (rows,); for a frame, the name of its column of weights.
        columns: For a frame, the names of the features; by default all columns that are neither context nor weights.
        buffer: The number of rows that are shuffled together.

    Raises:
        TypeError: x is no array or frame of Dask, or an argument for a frame is not a column name.
        ValueError: shapes do not match, or a column is missing or not unique.
    """
    return of_dask(x, context, weights, columns, buffer)
