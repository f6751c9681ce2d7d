"""Tables in files whose suffix defines the format, and lists of the files that paths, folders and patterns name."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from glob import escape, glob, has_magic
from pathlib import Path
from typing import Any

from headrace._base import arguments as check
from headrace.rows._arrow import parquet
from headrace.rows._joined import Joined
from headrace.rows._numpy import Array
from headrace.rows._source import Source
from headrace.rows._text import Text

STANDARD = "-"  # the path of the standard input or output
TEXTS = (".csv", ".tsv", ".txt")
PACKED = ".gz"
OF_TEXT = (*TEXTS, *(f"{suffix}{PACKED}" for suffix in TEXTS))
READ = (".npy", ".npz", *OF_TEXT, ".parquet")
READABLE = f".npy, .npz, {', '.join(TEXTS)}, these also with {PACKED}, .parquet"
"""The suffixes of readable files, as a text for messages."""


def suffix_of(path: str) -> str:
    """The suffix of a file, which defines its format; for a compressed file, the last two suffixes, such as
    ".csv.gz".
    """
    ends = [one.lower() for one in Path(path).suffixes[-2:]]
    return "".join(ends) if ends[-1:] == [PACKED] else "".join(ends[-1:])


def open_table(
    path: str, *, array: str | None = None, delimiter: str | None = None, header: str = "auto", dashes: str = ""
) -> Source:
    """The table in a file.

    Args:
        path: The file's path, whose suffix defines the format; "-" is text from the standard input.
        array: The name of the array in an .npz file; None if the file has only one.
        delimiter: The text between columns of a text file; None to detect it.
        header: Whether the first line of text has names: "yes", "no", or "auto": it has names if no field is a number.
        dashes: As in `Source`.

    Raises:
        ValueError: the file is no table of numbers, or an option does not apply to its format; the message has the
            file, and the row and column if these are known.
        OSError: the file does not exist, or may not be read.
    """
    suffix = TEXTS[0] if path == STANDARD else suffix_of(path).removesuffix(PACKED)
    for option, given, takers in (
        ("array", array is not None, (".npz",)),
        ("delimiter", delimiter is not None, TEXTS),
        ("header", header != "auto", TEXTS),
    ):
        if given and suffix not in takers:
            raise ValueError(f"{dashes}{option}: expected a table in {', '.join(takers)}, which take it, got {path}")
    if path == STANDARD:
        return Text("standard input", delimiter, header, sys.stdin.buffer.read(), dashes)
    if suffix_of(path) in (".npy", ".npz"):
        return Array(path, array, dashes)
    if suffix in TEXTS:
        return Text(path, delimiter, header, None, dashes)
    if suffix_of(path) == ".parquet":
        return parquet(path, dashes)
    raise ValueError(f"{path}: expected a file that ends in {READABLE}")


def open_tables(paths: Sequence[str], **how: Any) -> Source:
    """Open the table in a file, or the tables of several files as one; `how`: options of `open_table`."""
    if len(paths) == 1:
        return open_table(paths[0], **how)
    if STANDARD in paths:
        raise ValueError("DATA: expected the standard input alone or files, got both")
    return Joined(paths, lambda path: open_table(path, **how))


def files_of(paths: Any, suffixes: Sequence[str] = READ, *, name: str = "paths", deep: bool = False) -> list[str]:
    """The files of a path, a folder, a pattern or a list of these, in alphabetical order within a folder or pattern.

    Args:
        paths: A path, a folder, a pattern or a list of these.
        suffixes: The suffixes of files in folders.
        name: The argument's name in messages.
        deep: Whether files in nested folders are included.

    Raises:
        FileNotFoundError: a folder has no file with one of the suffixes, or a pattern matches no file.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    if not isinstance(given, Sequence) or not all(isinstance(path, (str, os.PathLike)) for path in given):
        raise TypeError(f"{name}: expected a path, a pattern, a folder or a list of these, got {check.kind_of(paths)}")
    if not given:
        raise ValueError(f"{name}: expected at least one, got none")
    what = f"tables ({READABLE})" if suffixes is READ else f"{', '.join(suffixes)} files"
    files: list[str] = []
    for path in map(os.fspath, given):
        here = [path]
        if os.path.isdir(path):
            here = inside(path, suffixes, deep=deep)
            if not here:
                raise FileNotFoundError(f"{name}: expected a folder with {what}, got none in {path}")
        elif has_magic(path) and not os.path.exists(path):
            here = sorted(glob(path, recursive=True))
            if not here:
                raise FileNotFoundError(f"{name}: expected some {what}, got none by {path}")
        files += here
    return files


def inside(folder: str, suffixes: Sequence[str], *, deep: bool = False) -> list[str]:
    """The files in a folder that have one of the suffixes, except names that begin with a dot or an underscore."""
    paths = glob(os.path.join(escape(folder), *(["**"] if deep else []), "[!_]*"), recursive=True)
    return sorted(path for path in paths if suffix_of(os.path.basename(path)) in suffixes and os.path.isfile(path))
