"""Tables in .csv, .tsv and .txt files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from headrace._cli.tables.source import OTHERS, Source

__all__ = ["HEADERS", "Text", "is_number"]

DELIMITERS = ("\t", ";", ",", "|")  # in this order; white space if there is none of them
HEADERS = ("auto", "yes", "no")
MISSING = ("", "na", "n/a", "null", "none")  # texts for what is not there, beside "nan"
TRUTH = {"true": "1", "false": "0"}  # texts for truth values, as pandas and polars write them

CHUNK = 1 << 14  # rows of text turned into numbers at a time


def is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field  # which Python's own notation has between digits, and no table


class Text(Source):
    def __init__(self, path: str, delimiter: str | None, header: str, content: bytes | None = None) -> None:
        self.path, self.content = path, content
        self.delimiter = delimiter
        first = next(self._lines(), None)
        if first is None:
            raise ValueError(f"{path}: expected a table, got no lines")
        line, fields = first
        numbers = sum(map(is_number, fields))
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
        for _, fields in islice(self._lines(), int(self.has_names), CHUNK):
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
        while chunk := list(islice(lines, CHUNK)):
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
                        if not (is_number(fields[i]) or (self.missing and _is_missing(fields[i]))):
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
