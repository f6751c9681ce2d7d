"""Rows that do not fit in memory, for `Flow.fit`, `DualAscentFlow.fit` and `FlowDensity.fit`: ``hr.rows``.

Pass a stream instead of ``x``; it has its own context and weights. Up to ``buffer`` rows are read at once: then a fit
has the same bits as with an array. Longer streams are read once to check and to measure them, and once each epoch. If
there are weights, or if the number of rows is unknown, they are first read once to count rows. docs/scale.md describes
the steps of such a fit, and its memory.
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
    """Blocks of rows from a program, in its own order: shuffled within the buffer, and no further.

    Args:
        source: An object that can be iterated repeatedly, or a function that gives an iterator. Each block is x, or a
            tuple (x, context, weights): shapes (rows, features), (rows, context) and (rows,), NumPy or any array or
            frame that a fit takes, float32 or float64, all of one dtype. Blocks may be of any size, also empty.
        buffer: Rows that are shuffled together.

    Raises:
        TypeError: an iterator, which can be read but once.

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
    """Rows of .npy files, or of arrays as `numpy.memmap`, read 16,384 at a time in random order.

    A fit also takes a mapped array directly. In that case its pages, which the system may free, count as used memory.

    Args:
        x: Shape (rows, features), float32 or float64.
        context: Shape (rows, context).
        weights: Shape (rows,).
        buffer: Rows that are shuffled together.

    Raises:
        OSError: no such file.
        ValueError: no .npy file of numbers, or other numbers of rows.
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
    """Rows of Parquet files: row groups in random order. Needs pyarrow, ``pip install ".[tables]"``.

    Integers and booleans are read as float64, and so is everything if the columns are not all float32. Missing values
    become NaN, which a fit refuses.

    Args:
        paths: A file, a pattern such as ``dir/*.parquet``, a folder, or a list of these.
        columns: Names of the features; by default all columns that are nothing else.
        context: Names of the columns that the density is conditioned on.
        weights: Name of the weights of the rows.
        buffer: Rows that are shuffled together.

    Raises:
        OSError: no such file.
        ValueError: no Parquet, a column that is not there, in a file or in all, or that has no numbers.
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
    """Rows of text files, .csv, .tsv and .txt, perhaps compressed by gzip: files in random order.

    Rows of one file are shuffled within the buffer, and no further. Missing values, such as empty cells, ``NA`` and
    ``null``, become NaN, which a fit refuses; truth values become 0 and 1.

    Args:
        paths: A file, a pattern such as ``dir/*.csv``, a folder, or a list of these, with the same columns by name.
        columns: Names of the features, or their indices where files have no names; by default all columns that are
            nothing else.
        context: Names or indices of the columns that the density is conditioned on.
        weights: Name or index of the weights of the rows.
        delimiter: Between the columns; by default the first of tab, ``;``, ``,`` and ``|`` in the first line, or else
            white space.
        header: Whether the first line has names: "yes", "no", or "auto", if none of its fields is a number.
        buffer: Rows that are shuffled together.

    Raises:
        OSError: no such file.
        ValueError: a cell that is no number, with its line and column; a column that is not there.

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
    """Rows of a Dask array or frame: chunks in random order, each computed when it is its turn.

    Args:
        x: An array, shape (rows, features), or a frame.
        context: An array with as many rows; of a frame, names of columns.
        weights: An array, shape (rows,); of a frame, the name of a column.
        columns: Of a frame, names of the features; by default all columns that are nothing else.
        buffer: Rows that are shuffled together.

    Raises:
        TypeError: nothing of Dask's, or of a frame something else than names.
        ValueError: other shapes, or a column that is not there, or not once.
    """
    return of_dask(x, context, weights, columns, buffer)
