"""Tables in files: the format of each by its suffix, and the files of paths, folders and patterns."""

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
"""The suffixes in words."""


def suffix_of(path: str) -> str:
    """The end of a file's name that defines its format; of a compressed one, the format inside with it."""
    ends = [one.lower() for one in Path(path).suffixes[-2:]]
    return "".join(ends) if ends[-1:] == [PACKED] else "".join(ends[-1:])


def open_table(
    path: str, *, array: str | None = None, delimiter: str | None = None, header: str = "auto", dashes: str = ""
) -> Source:
    """The table in a file.

    Args:
        path: A path, whose suffix defines the format; "-" is text from the standard input.
        array: Which array of an .npz file; None where there is but one.
        delimiter: Between the columns of text; None to find out.
        header: Whether the first line of text has names: "yes", "no", or "auto", if none of its fields is a number.
        dashes: As of `Source`.

    Raises:
        ValueError: not a table of numbers, or an option that is none of its kind of file; the file, and the row and
            column where there is one, are named.
        OSError: no such file, or not allowed.
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
    """The table in a file, or those in several one below the other, with options as of `open_table`."""
    if len(paths) == 1:
        return open_table(paths[0], **how)
    if STANDARD in paths:
        raise ValueError("DATA: expected the standard input alone or files, got both")
    return Joined(paths, lambda path: open_table(path, **how))


def files_of(paths: Any, suffixes: Sequence[str] = READ, *, name: str = "paths", deep: bool = False) -> list[str]:
    """The files of a path, a folder, a pattern or a list of these, each expanded in alphabetical order.

    Args:
        paths: The path, the folder, the pattern or the list.
        suffixes: Of the files of folders.
        name: Of the argument in messages.
        deep: Whether folders inside folders count.

    Raises:
        FileNotFoundError: a folder or a pattern without such files.
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
    """Files in a folder whose names have one of the suffixes; hidden ones are left out."""
    paths = glob(os.path.join(escape(folder), *(["**"] if deep else []), "[!_]*"), recursive=True)
    return sorted(path for path in paths if suffix_of(os.path.basename(path)) in suffixes and os.path.isfile(path))
