"""Tables of numbers in files, for the command line: .npy, .npz, .csv (.txt, .tsv), as .csv.gz too, and .parquet."""

from __future__ import annotations

import sys
from pathlib import Path

from headrace._cli.tables.arrays import Array
from headrace._cli.tables.parquet import Parquet
from headrace._cli.tables.source import OTHERS, Source
from headrace._cli.tables.text import HEADERS, Text
from headrace._cli.tables.writing import WRITTEN, write_parts, write_table

__all__ = [
    "HEADERS",
    "OTHERS",
    "READ",
    "READABLE",
    "WRITTEN",
    "Source",
    "open_table",
    "suffix_of",
    "write_parts",
    "write_table",
]

TEXT = (".csv", ".tsv", ".txt")
PACKED = ".gz"
READ = (".npy", ".npz", *TEXT, *(f"{suffix}{PACKED}" for suffix in TEXT), ".parquet")
READABLE = f".npy, .npz, {', '.join(TEXT)}, these also with {PACKED}, .parquet"
"""The same in words."""


def suffix_of(path: str) -> str:
    """The end of a file's name that defines its format; of a compressed one, the format inside with it."""
    ends = [one.lower() for one in Path(path).suffixes[-2:]]
    return "".join(ends) if ends[-1:] == [PACKED] else "".join(ends[-1:])


def open_table(path: str, *, array: str | None = None, delimiter: str | None = None, header: str = "auto") -> Source:
    """The table in a file.

    Args:
        path: Its suffix defines the format; "-" is text from the standard input.
        array: Which array of an .npz file; None where there is but one.
        delimiter: Between the columns of text; None to find out.
        header: Whether the first line of text has names: "yes", "no", or "auto", if none of its fields is a number.

    Raises:
        ValueError: not a table of numbers, or an option that is none of its kind of file; the file, and the row and
            column where there is one, are named.
        OSError: no such file, or not allowed.
    """
    suffix = TEXT[0] if path == "-" else suffix_of(path).removesuffix(PACKED)
    for option, given, takers in (
        ("--array", array is not None, (".npz",)),
        ("--delimiter", delimiter is not None, TEXT),
        ("--header", header != "auto", TEXT),
    ):
        if given and suffix not in takers:
            raise ValueError(f"{option}: expected a table in {', '.join(takers)}, which alone take it, got {path}")
    if path == "-":
        return Text("standard input", delimiter, header, sys.stdin.buffer.read())
    if suffix_of(path) in (".npy", ".npz"):
        return Array(path, array)
    if suffix in TEXT:
        return Text(path, delimiter, header)
    if suffix_of(path) == ".parquet":
        return Parquet(path)
    raise ValueError(f"{path}: expected a file that ends in {READABLE}")
