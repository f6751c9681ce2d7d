"""Tables of numbers in files, for the command line: .npy, .npz, .csv (.txt, .tsv) and .parquet."""

from __future__ import annotations

import abc
import csv
import io
import os
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from headrace._install import install
from headrace._output import replacing, spreadsheet_cell
from headrace._tables import columns as _columns

__all__ = ["READ", "WRITTEN", "Source", "open_table", "write_parts", "write_table"]

TEXT = (".csv", ".tsv", ".txt")
READ = (".npy", ".npz", *TEXT, ".parquet")
WRITTEN = (".npy", ".csv", ".parquet")

DELIMITERS = ("\t", ";", ",", "|")  # in this order; white space if there is none of them
HEADERS = ("auto", "yes", "no")
OTHERS = "; --columns chooses other columns"
MISSING = ("", "na", "n/a", "null", "none")  # texts for what is not there, beside "nan"
TRUTH = {"true": "1", "false": "0"}  # texts for truth values, as pandas and polars write them
KINDS = {"i": "integer", "u": "integer", "b": "boolean"}  # of dtypes
NO_PYARROW = f"reading and writing .parquet needs pyarrow: {install('tables')}"

_CHUNK = 1 << 14  # rows of text turned into numbers at a time
_BLOCK = 1 << 16  # rows of a block, about
_LEAST = 8  # fewer rows take another path through the core, which may differ in the last digits


class Source(abc.ABC):
    """A table in a file, before its numbers are read: how many columns there are, and what they are called."""

    path: str
    names: tuple[str, ...] | None  # None where the file has none
    n_columns: int
    missing = False
    """Whether what is missing becomes NaN; else it is refused."""

    @property
    def kinds(self) -> list[str] | None:
        """Of the columns, "float", "integer" or "boolean"; None where the file does not tell."""
        return None

    @abc.abstractmethod
    def read(self, columns: Sequence[int]) -> NDArray[Any]:
        """These columns, shape (rows, len(columns)), float32 or float64."""

    def blocks(self, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        """The same, some rows at a time, none of them so few that they get other bits than among all; at least one."""
        held = None
        for part in self._parts(columns):
            if held is not None and len(part) >= _LEAST:
                yield held
                held = None
            held = part if held is None else np.concatenate([held, part])
        yield self.read(columns)[:0] if held is None else held

    def _parts(self, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        for number in range(len(self.pieces())):
            yield from self.piece(number, columns)

    def pieces(self) -> list[int | None]:
        """Rows of each piece of the table that can be read alone; None where nobody has counted them."""
        return [None]

    @abc.abstractmethod
    def piece(self, number: int, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        """The rows of one piece, some at a time."""

    @abc.abstractmethod
    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        """float32 or float64, in which these columns are read."""

    def label(self, column: int) -> str:
        """How a message calls a column."""
        return _columns.label(column, self.names)

    def select(self, option: str, text: str) -> list[int]:
        """The columns that a list like ``mass,radius`` or ``0,3:6`` means: names, indices from 0, ranges."""
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


def open_table(path: str, *, array: str | None = None, delimiter: str | None = None, header: str = "auto") -> Source:
    """The table in a file.

    Args:
        path: Its suffix says what it is; "-" is text from the standard input.
        array: Which array of an .npz file; None where there is but one.
        delimiter: Between the columns of text; None to find out.
        header: Whether the first line of text has names: "yes", "no", or "auto", if none of its fields is a number.

    Raises:
        ValueError: not a table of numbers, or an option that is none of its kind of file; the file, and the row and
            column where there is one, are named.
        OSError: no such file, or not allowed.
    """
    suffix = TEXT[0] if path == "-" else Path(path).suffix.lower()
    for option, given, takers in (
        ("--array", array is not None, (".npz",)),
        ("--delimiter", delimiter is not None, TEXT),
        ("--header", header != "auto", TEXT),
    ):
        if given and suffix not in takers:
            raise ValueError(f"{option}: expected a table in {', '.join(takers)}, which alone take it, got {path}")
    if path == "-":
        return _Text("standard input", delimiter, header, sys.stdin.buffer.read())
    if suffix in (".npy", ".npz"):
        return _Array(path, array)
    if suffix in TEXT:
        return _Text(path, delimiter, header)
    if suffix == ".parquet":
        return _Parquet(path)
    raise ValueError(f"{path}: expected a file that ends in {', '.join(READ)}")


# ---- NumPy -----------------------------------------------------------------------------------------------------------


class _NoSuchArray(ValueError):
    """An array that an .npz file does not have, as opposed to a file that is broken."""


class _Array(Source):
    def __init__(self, path: str, name: str | None) -> None:
        self.path, self.names = path, None
        try:
            with open(path, "rb") as file:
                content: Any = _opened(file) if name is None and path.lower().endswith(".npy") else None
                if content is None:
                    file.seek(0)
                    content = np.load(file, allow_pickle=False)
                if isinstance(content, np.lib.npyio.NpzFile):
                    content = content[self._choose(content.files, name)]
        except (EOFError, zipfile.BadZipFile, zlib.error, ValueError) as error:
            if isinstance(error, _NoSuchArray):
                raise
            raise ValueError(
                f"{path}: expected a NumPy file of numbers, got one that is broken, foreign or has Python objects"
            ) from None
        if content.ndim == 1 and isinstance(content, np.ndarray):
            content = content[:, None]
        if content.ndim != 2 or content.dtype.kind not in "fiub":
            raise ValueError(
                f"{path}: expected an array (rows, columns) of real numbers, got shape {content.shape} of "
                f"{content.dtype}"
            )
        self.content, self.n_columns = content, content.shape[1]

    @property
    def kinds(self) -> list[str]:
        """See `Source`."""
        return [KINDS.get(self.content.dtype.kind, "float")] * self.n_columns

    def _choose(self, names: list[str], name: str | None) -> str:
        if name is None and len(names) == 1:
            return names[0]
        if name is None or name not in names:
            raise _NoSuchArray(
                f"--array: expected one of the arrays {', '.join(map(repr, names))} of {self.path}, got {name!r}"
            )
        return name

    def read(self, columns: Sequence[int]) -> NDArray[Any]:
        return self._chosen(self.content[:], columns)

    def pieces(self) -> list[int | None]:
        rows = self.content.shape[0]
        return [min(_BLOCK, rows - begin) for begin in range(0, rows, _BLOCK)]

    def piece(self, number: int, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        yield self._chosen(self.content[number * _BLOCK : (number + 1) * _BLOCK], columns)

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        return np.dtype(np.float32 if self.content.dtype in (np.float16, np.float32) else np.float64)

    def _chosen(self, rows: NDArray[Any], columns: Sequence[int]) -> NDArray[Any]:
        every = list(columns) == list(range(self.n_columns))
        return np.ascontiguousarray(rows if every else rows[:, list(columns)], self.dtype(columns))


class _Rows:
    """The rows of an .npy file in C order, read from it when they are asked for."""

    def __init__(self, file: IO[bytes], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.path, self.shape, self.dtype, self.begin = file.name, shape, dtype, file.tell()
        self.ndim, self.row_bytes = 2, shape[1] * dtype.itemsize

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        begin, end, _ = rows.indices(self.shape[0])
        with open(self.path, "rb") as file:
            file.seek(self.begin + begin * self.row_bytes)
            data = file.read((end - begin) * self.row_bytes)
        if len(data) < (end - begin) * self.row_bytes:
            raise ValueError(
                f"{self.path}: expected {self.shape[0]} rows, as it began with, got a file that is shorter"
            )
        return np.frombuffer(data, self.dtype).reshape(end - begin, self.shape[1])


def _opened(file: IO[bytes]) -> _Rows | None:
    """A table of which any part can be read alone; None for one that is read as a whole, or refused there."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        return None
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if fortran or len(shape) not in (1, 2) or dtype.kind not in "fiub" or 0 in shape:
        return None
    rows, columns = shape[0], shape[1] if len(shape) == 2 else 1
    if os.fstat(file.fileno()).st_size - file.tell() < rows * columns * dtype.itemsize:
        return None
    return _Rows(file, (rows, columns), dtype)


# ---- text ------------------------------------------------------------------------------------------------------------


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field  # which Python's own notation has between digits, and no table


class _Text(Source):
    def __init__(self, path: str, delimiter: str | None, header: str, content: bytes | None = None) -> None:
        self.path, self.content = path, content
        self.delimiter = delimiter
        first = next(self._lines(), None)
        if first is None:
            raise ValueError(f"{path}: expected a table, got no lines")
        line, fields = first
        numbers = sum(map(_is_number, fields))
        if header == "auto" and 0 < numbers < len(fields):
            raise ValueError(
                f"{path}: line {line} has numbers and other text, so that it may be names or a row: say --header yes "
                "or --header no"
            )
        self.has_names = header == "yes" or (header == "auto" and numbers == 0)
        self.names = tuple(field.strip() for field in fields) if self.has_names else None
        self.n_columns = len(fields)

    @property
    def kinds(self) -> list[str] | None:
        """Of text a truth value tells, the first field of a column that is not missing; numbers do not."""
        found: list[str | None] = [None] * self.n_columns
        for _, fields in islice(self._lines(), int(self.has_names), _CHUNK):
            if len(fields) != self.n_columns:
                return None
            for i, field in enumerate(fields):
                if found[i] is None and not (_is_missing(field) or field.strip().lower() == "nan"):
                    found[i] = "boolean" if field.strip().lower() in TRUTH else "float"
            if None not in found:
                break
        return [kind or "float" for kind in found]

    def _bytes(self) -> IO[bytes]:
        return open(self.path, "rb") if self.content is None else io.BytesIO(self.content)

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Number and fields of each line, but for empty ones and those that begin with #."""
        with self._bytes() as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as file:
            try:
                yield from self._fields(file)
            except UnicodeDecodeError as error:
                advice = "" if self.content is None else "; tables of other kinds are read from files alone"
                raise ValueError(
                    f"{self.path}: expected UTF-8 text, got byte {error.object[error.start]:#04x}{advice}"
                ) from None

    def _fields(self, file: IO[str]) -> Iterator[tuple[int, list[str]]]:
        if self.delimiter is None:
            start = next((line for line in file if line.strip() and not line.lstrip().startswith("#")), "")
            self.delimiter = next((mark for mark in DELIMITERS if mark in start), " ")
            file.seek(0)
        if self.delimiter == " ":
            for number, line in enumerate(file, 1):
                if line.strip() and not line.lstrip().startswith("#"):
                    yield number, line.split()
            return
        reader = csv.reader(file, delimiter=self.delimiter, strict=True)
        while True:
            first = reader.line_num + 1
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise ValueError(
                    f"{self.path}: line {first}: expected fields of a row, got text that cannot be parted: {error}"
                ) from None
            if fields is None:
                return
            blank = len(fields) < 2 and not "".join(fields).strip()
            if not blank and not fields[0].lstrip().startswith("#"):
                yield reader.line_num, fields

    def read(self, columns: Sequence[int]) -> NDArray[Any]:
        return np.concatenate([np.empty((0, len(columns))), *self._parts(columns)])

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:
        return np.dtype(np.float64)

    def piece(self, number: int, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        lines, chosen, is_first = self._lines(), list(columns), True
        if self.has_names:
            next(lines)
        while chunk := list(islice(lines, _CHUNK)):
            for number, fields in chunk:
                if len(fields) != self.n_columns:
                    raise ValueError(
                        f"{self.path}: line {number}: expected {self.n_columns} columns, as in the first line, got "
                        f"{len(fields)}"
                    )
            rows = [[fields[i] for i in chosen] for _, fields in chunk]
            try:
                if any("_" in field for row in rows for field in row):
                    raise ValueError
                numbers = np.array(_without_truth(self._filled(rows)), np.float64)
            except ValueError:
                for number, fields in chunk:
                    for i in chosen:
                        if not (_is_number(fields[i]) or (self.missing and _is_missing(fields[i]))):
                            # In the first row it is likely a column of text, and not a slip.
                            advice = OTHERS if is_first and number == chunk[0][0] else ""
                            raise ValueError(
                                f"{self.path}: line {number}, {self.label(i)}: expected a number, got {fields[i]!r}"
                                + advice
                            ) from None
                raise
            yield numbers.reshape(len(chunk), len(chosen))
            is_first = False

    def _filled(self, rows: list[list[str]]) -> list[list[str]]:
        """With "nan" where nothing is, if that is allowed."""
        if not self.missing:
            return rows
        return [["nan" if _is_missing(field) else field for field in fields] for fields in rows]


def _without_truth(rows: list[list[str]]) -> list[list[str]]:
    """With 1 and 0 in columns of truth values alone."""
    known = {*TRUTH, "nan"}
    first = rows[0] if rows else []
    whole = [
        i
        for i, field in enumerate(first)
        if field.strip().lower() in known and all(row[i].strip().lower() in known for row in rows)
    ]
    for row in rows if whole else []:
        for i in whole:
            row[i] = TRUTH.get(row[i].strip().lower(), "nan")
    return rows


def _is_missing(field: str) -> bool:
    return field.strip().lower() in MISSING


# ---- Parquet ---------------------------------------------------------------------------------------------------------


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError(NO_PYARROW) from None
    return pyarrow


class _Parquet(Source):
    def __init__(self, path: str) -> None:
        self.path = path
        self.arrow = _pyarrow()
        try:
            self.file = self.arrow.parquet.ParquetFile(path)
        except self.arrow.ArrowInvalid as error:
            raise ValueError(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from None
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
        for batch in self.file.iter_batches(_BLOCK, [number], [self.labels[i] for i in columns]):
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
        types = self.arrow.types
        for i in columns:
            kind = self.file.schema_arrow.field(i).type
            if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
                raise ValueError(f"{self.path}: {self.label(i)}: expected numbers, got {kind}{OTHERS}")
            if (count := self.labels.count(self.labels[i])) > 1:
                raise ValueError(f"{self.path}: expected one {self.label(i)}, got {count}{OTHERS}")

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


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_table(
    path: str | None, values: NDArray[Any], names: Sequence[str] | None = None, kinds: Sequence[str] | None = None
) -> None:
    """Write an array (rows, columns), or (rows,) as one column; no path: to the standard output, as .csv.

    In .parquet, columns whose `kinds` are "integer" or "boolean" have such types.

    Text has as many digits as give back the same number, and names that do no harm in a terminal or a spreadsheet. An
    .npy file has the array as it is, without the names.
    """
    if path is None:
        _write_text(sys.stdout, values, names)
        return
    suffix = Path(path).suffix.lower()
    table = _arrow_table(path, values, names, kinds) if suffix == ".parquet" else None
    with replacing(path) as stream:
        if suffix == ".npy":
            np.save(stream, values)
        elif table is not None:
            _pyarrow().parquet.write_table(table, stream)
        else:
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
            _write_text(text, values, names)
            text.detach()


def write_parts(
    path: str,
    names: Sequence[str],
    parts: Iterable[NDArray[Any]],
    instead: Callable[[], str | None] | None = None,
) -> None:
    """Write a table, (rows, columns) or (rows,), part by part in the memory of one; otherwise as `write_table`.

    There is at least one part, and all are of one dtype. `instead`: as of `replacing`.
    """
    suffix = Path(path).suffix.lower()
    with replacing(path, instead) as stream:
        if suffix == ".npy":
            _write_npy(stream, parts)
        elif suffix == ".parquet":
            _write_parquet(path, stream, names, parts)
        else:
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
            for i, part in enumerate(parts):
                _write_text(text, part, None if i else names)
            text.detach()


def _write_npy(stream: IO[bytes], parts: Iterable[NDArray[Any]]) -> None:
    """NumPy leaves room in the header for the number of rows, which is known last."""

    def write_header(like: NDArray[Any], rows: int) -> int:
        described = {"descr": np.lib.format.dtype_to_descr(like.dtype), "fortran_order": False}
        stream.seek(0)
        np.lib.format.write_array_header_1_0(stream, {**described, "shape": (rows, *like.shape[1:])})
        return stream.tell()

    begin, rows = 0, 0
    for part in parts:
        if begin == 0:
            begin = write_header(part, 0)
        stream.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        rows += len(part)
    if write_header(part, rows) != begin:
        raise AssertionError("expected a header of one length")


def _write_parquet(path: str, stream: IO[bytes], names: Sequence[str], parts: Iterable[NDArray[Any]]) -> None:
    tables = (_arrow_table(path, part, names) for part in parts)
    first = next(tables)
    # Numbers that hardly repeat are not looked up in a dictionary, which takes longer than to compress them.
    with _pyarrow().parquet.ParquetWriter(stream, first.schema, use_dictionary=False) as writer:
        for table in chain([first], tables):
            writer.write_table(table)


def _arrow_table(
    path: str, values: NDArray[Any], names: Sequence[str] | None, kinds: Sequence[str] | None = None
) -> Any:
    columns = values[:, None] if values.ndim == 1 else values
    labels = list(names or [f"x{i}" for i in range(columns.shape[1])])
    label, count = max(Counter(labels).items(), key=itemgetter(1), default=("", 0))
    if count > 1:
        raise ValueError(
            f"{path}: expected different names of columns, as .parquet needs, got {label!r} {count} times; .csv and "
            ".npy do without"
        )
    every = zip(columns.T, kinds or ["float"] * len(labels), strict=True)
    return _pyarrow().table([np.ascontiguousarray(_typed(*column)) for column in every], names=labels)


def _typed(column: NDArray[Any], kind: str) -> NDArray[Any]:
    """Whole numbers and truth values as such; a column that has others stays as it is."""
    if kind == "float" or not ((np.trunc(column) == column) & (np.abs(column) < 2**53)).all():
        return column
    if kind == "boolean":
        return column.astype(np.bool_) if np.isin(column, (0, 1)).all() else column
    return column.astype(np.int64)


def _write_text(file: IO[str], values: NDArray[Any], names: Sequence[str] | None) -> None:
    if names:
        csv.writer(file, lineterminator="\n").writerow(map(spreadsheet_cell, names))
    digits = 9 if values.dtype == np.float32 else 17
    np.savetxt(file, values, fmt=f"%.{digits}g", delimiter=",")
