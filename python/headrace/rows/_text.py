"""Tables in .csv, .tsv and .txt files, possibly compressed by gzip; this module detects the dialect, and
NumPy parses.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.rows._source import TEXT, Source

DELIMITERS = ("\t", ";", ",", "|")  # delimiters by preference; white space if the first line has none of them
HEADERS = ("auto", "yes", "no")
MISSING = ("", "na", "n/a", "null", "none", "?", "-")  # texts of missing values, apart from "nan"
TRUTH = {"true": "1", "false": "0"}  # texts of truth values, as pandas and polars write them

GZIP = b"\x1f\x8b"  # the first bytes of gzip files
MOST_LINES = 16  # the most lines of a header after its first, if names have line breaks
CHUNK = 1 << 14  # the number of rows of text that are parsed at a time


def is_number(field: str) -> bool:
    """Whether a cell's text is a number: ASCII, without the underscores between digits that Python allows."""
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field and field.isascii()


def _numbers(fields: Sequence[str]) -> Iterator[int]:
    """The indices of the fields that are numbers."""
    return (i for i, field in enumerate(fields) if is_number(field))


Lines = Sequence[tuple[int, str]]  # pairs of a line's number, from 1, and its text


class Text(Source):
    def __init__(
        self, path: str, delimiter: str | None, header: str, content: bytes | None = None, dashes: str = ""
    ) -> None:
        self.path, self.content, self.dashes = path, content, dashes
        lines = self._lines()
        first = list(islice(lines, 1))
        if not first:
            raise ValueError(f"{path}: expected a table, got no lines")
        self.delimiter = delimiter or next((mark for mark in DELIMITERS if mark in first[0][1]), " ")
        fields: list[str] = self._loaded(first, np.str_)[0].tolist()
        for line in islice(lines, MOST_LINES):  # a quoted name may contain line breaks
            if not fields[-1].endswith("\n"):
                break
            first.append(line)
            fields = self._loaded(first, np.str_)[0].tolist()
        self.n_columns = len(fields)
        if fields[-1].endswith("\n"):
            raise self._uneven(first)
        numbers = sum(map(is_number, fields))
        counted = fields[1:] and fields in ([str(i + k) for i in range(len(fields))] for k in (0, 1))
        why, others = "", ""
        if 0 < numbers < len(fields):
            why, others = "has numbers and other text", self.choosing([*_numbers(fields)])
        elif counted and (fields[2:] or any(set(line) & set(".eE") for _, line in islice(self._lines(), 1, 2))):
            why = f"counts from {fields[0]} to {fields[-1]}"
        if header == "auto" and why:
            ways = f"{self._option('header', 'yes')} for names, {self._option('header', 'no')} for a row"
            raise ValueError(f"{path}: line {first[-1][0]} {why}, so it may be names or a row: give {ways}{others}")
        has_names = header == "yes" or (header == "auto" and numbers == 0)
        self.names = tuple(field.strip() for field in fields) if has_names else None
        self.before = len(first) if has_names else 0  # the number of lines before the first row

    def _option(self, name: str, value: str) -> str:
        return f"{self.dashes}{name} {value}" if self.dashes else f"{name}={value!r}"

    @cached_property
    def kinds(self) -> list[str]:
        """The kind of each column, from the first block of 256 lines in which it has a value: "boolean" if its first
        value is a truth value, "text" if none of its values is a number, else "float".
        """
        kinds, lines = ["float"] * self.n_columns, islice(self._lines(), self.before, CHUNK)
        left = {*range(self.n_columns)}
        while left and (some := list(islice(lines, 256))):
            if (cells := self._cells(some, np.str_)) is None:
                return ["float"] * self.n_columns
            for i, column in enumerate(_plain(cells).T.tolist()):
                if i in left and (values := [cell for cell in column if cell not in (*MISSING, "nan")]):
                    left.remove(i)
                    if values[0] in TRUTH:
                        kinds[i] = "boolean"
                    elif not any(is_number(cell.replace(",", ".", 1)) for cell in values):
                        kinds[i] = TEXT
        return kinds

    def _lines(self) -> Iterator[tuple[int, str]]:
        """The lines that are neither empty nor comments, with their numbers."""
        with self._opened() as stream, io.TextIOWrapper(stream, encoding="utf-8-sig") as file:
            try:
                for number, line in enumerate(file, 1):
                    if "\0" in line:
                        raise ValueError(f"{self.path}: line {number}: expected text, got a NUL")
                    if line.strip() and not line.lstrip().startswith("#"):
                        yield number, line.rstrip("\n") + "\n"  # lines after an open quote belong to the quoted cell
            except (EOFError, zlib.error, gzip.BadGzipFile):
                raise ValueError(f"{self.path}: expected a whole gzip file, got one that is cut or damaged") from None
            except UnicodeDecodeError as error:
                advice = "; tables of other kinds are read from files alone"
                if self.content is None:
                    advice = f"; iconv -f latin1 -t utf-8 {self.path} converts it, if it is of that encoding"
                got = f"byte {error.object[error.start]:#04x}{advice}"
                raise ValueError(f"{self.path}: expected UTF-8 text, got {got}") from None

    def _opened(self) -> Any:
        """A binary file object of the text, which is decompressed if necessary."""
        if self.content is not None:
            stream = io.BytesIO(self.content)
            return gzip.GzipFile(fileobj=stream) if self.content.startswith(GZIP) else stream
        with open(self.path, "rb") as file:
            packed = file.read(len(GZIP)) == GZIP
        return gzip.open(self.path, "rb") if packed else open(self.path, "rb")

    def _loaded(self, lines: Lines, dtype: type[np.generic]) -> NDArray[Any]:
        """The cells of lines as `dtype`, without checks; numbers in quotes are accepted only as texts."""
        quote = None if self.delimiter == " " or dtype is np.float64 else '"'
        mark = None if self.delimiter == " " else self.delimiter
        return np.loadtxt([line for _, line in lines], dtype, None, mark, quotechar=quote, ndmin=2)

    def _cells(self, lines: Lines, dtype: type[np.generic]) -> NDArray[Any] | None:
        """The cells of lines as `dtype`; None if a cell cannot be converted, or a line does not have `n_columns`
        columns.
        """
        try:
            found = self._loaded(lines, dtype)
        except ValueError:
            return None
        return found if found.shape == (len(lines), self.n_columns) else None

    def piece(self, number: int, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        lines, chosen, is_first = islice(self._lines(), self.before, None), list(columns), True
        while some := list(islice(lines, CHUNK)):
            is_plain = not self.labels and all(line.isascii() for _, line in some)
            cells = self._cells(some, np.float64) if is_plain else None
            yield self._converted(some, chosen, is_first) if cells is None else cells[:, chosen]
            is_first = False

    def texts(self, columns: Sequence[int]) -> Iterator[NDArray[Any]]:
        lines = islice(self._lines(), self.before, None)
        while some := list(islice(lines, CHUNK)):
            yield np.stack([self._text_of(self._checked(some), i) for i in columns], axis=1)

    def _text_of(self, cells: NDArray[Any], column: int) -> NDArray[Any]:
        """The texts of a column, "" for missing cells."""
        texts = np.char.strip(cells[:, column])
        return np.where(np.isin(np.char.lower(texts), (*MISSING, "nan")), "", texts)

    def _checked(self, lines: Lines) -> NDArray[Any]:
        """The cells of lines as texts; raises ValueError if a line is not a row of the table."""
        cells = self._cells(lines, np.str_)
        if cells is None or cells[-1, -1].endswith("\n"):
            raise self._uneven(lines)
        return cells

    def _converted(self, lines: Lines, chosen: list[int], is_first: bool) -> NDArray[Any]:
        """The values of chosen columns. `is_first`: whether lines are the first rows, where a word probably means a
        text column.
        """
        cells = self._checked(lines)
        texts = _plain(cells[:, chosen])
        coded = {k: self.codes(i, self._text_of(cells, i)) for k, i in enumerate(chosen) if i in self.labels}
        texts[:, [*coded]] = "0"
        if self.missing:
            texts = np.where(np.isin(texts, MISSING), "nan", texts)
        for column in texts.T:
            if np.isin(column, [*TRUTH, "nan"]).all():
                for word, digit in TRUTH.items():
                    column[column == word] = digit
        for row, (number, _) in enumerate(lines):
            row_texts = texts[row].tolist()
            for i, text in zip(chosen, row_texts, strict=True):
                if not is_number(text):
                    others = f"; {self.dashes}columns leaves the column out"
                    if is_first and row == 0:
                        others = self.choosing([chosen[k] for k in _numbers(row_texts)])
                    if is_number(text.replace(",", ".", 1)):
                        others = f"; pandas.read_csv(FILE, sep={self.delimiter!r}, decimal=',') reads decimal commas"
                    where = f"{self.path}: line {number}, {self.label(i)}"
                    raise ValueError(f"{where}: expected a number, got {str(cells[row, i])!r}{others}")
        found = texts.astype(np.float64)
        for k, codes in coded.items():
            found[:, k] = codes
        return found

    def _uneven(self, lines: Lines) -> ValueError:
        """The error for the first line that is not a row of the table."""
        for number, line in lines:
            cells = self._loaded([(number, line)], np.str_)[0]
            what = f"{self.n_columns} columns, as in the first line, got {cells.size}; see {self.dashes}delimiter"
            if cells[-1].endswith("\n"):
                what = "the end of a cell in quotes, got that of the line"
            elif cells.size == self.n_columns:
                continue
            return ValueError(f"{self.path}: line {number}: expected {what}")
        raise AssertionError("expected a line that is no row")


def _plain(cells: NDArray[np.str_]) -> NDArray[np.str_]:
    return np.char.lower(np.char.strip(cells))
