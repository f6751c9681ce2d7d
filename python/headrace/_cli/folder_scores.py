"""Scores of many tables in a folder, a file for each: finished files are kept, and all belong to the same inputs.

A file of scores takes its place when it is complete, so that an existing file is finished. The inputs of a folder's
scores, a flow, columns and tables, are in a file beside them before the first of them is computed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.output import replacing
from headrace._base.platform import ends_in_separator, without_separator
from headrace._cli import writing
from headrace.rows._files import open_table

RECORD = "headrace-score.json"
FORMAT = 1
EDGE, SAMPLES, SAMPLE = 1 << 16, 64, 1 << 12  # bytes of a table that are compared: both ends, and this many between


def is_folder(path: str | None) -> bool:
    """Whether scores are to go to a folder; one with a table's suffix has to end as a folder does."""
    if path is None:
        return False
    return ends_in_separator(path) or (os.path.isdir(path) and Path(path).suffix.lower() not in writing.WRITTEN)


class Folder:
    """A folder of scores."""

    def __init__(self, path: str, files: Sequence[str], suffix: str | None) -> None:
        """`files`: of the tables. `suffix`: of the scores; None for that of the table where it can be written."""
        self.path, self.files = without_separator(path), files
        self.names = dict(zip(files, _names(files, suffix), strict=True))
        inside = os.path.realpath(self.path)
        for file, name in self.names.items():
            if os.path.realpath(file) == os.path.join(inside, name):
                raise ValueError(f"--output: expected another folder than that of the tables, got {path}")

    def open(self, inputs: dict[str, str]) -> None:
        """Make the folder, or go on in it; scores of other inputs there are refused. `inputs`: of the scores."""
        os.makedirs(self.path, exist_ok=True)
        place = os.path.join(self.path, RECORD)
        there: dict[str, Any] = {"format": FORMAT, "scores": inputs, "tables": {}}
        if os.path.exists(place):
            there = _read(place)
        elif others := sorted(name for name in os.listdir(self.path) if not name.startswith(".headrace-")):
            raise ValueError(
                f"--output: expected an empty folder, or one with scores of the same flow, got {self.path} with "
                f"{others[0]} and no {RECORD}"
            )
        for name in {**inputs, **there["scores"]}:
            if inputs.get(name) != there["scores"].get(name):
                raise ValueError(
                    f"--output: expected a folder with scores of the same {name}, got {self.path}, whose are of "
                    f"another ({there['scores'].get(name)} there, {inputs.get(name)} here); give another folder"
                )
        self.marks = {name: mark(file) for file, name in self.names.items()}
        for file, name in self.names.items():
            known = there["tables"].get(name)
            if known is not None and known != self.marks[name]:
                raise ValueError(
                    f"--output: {file} is another table than the one whose scores are {os.path.join(self.path, name)}; "
                    "remove these, and what is said of them in "
                    f"{place}, or give another folder"
                )
        there["tables"] |= self.marks
        with replacing(place) as stream:
            stream.write(json.dumps(there, indent=1).encode())

    def left(self) -> list[str]:
        """Tables without scores yet, in order."""
        return [file for file in self.files if not os.path.exists(self.place(file))]

    def place(self, file: str) -> str:
        """The path of a table's scores."""
        return os.path.join(self.path, self.names[file])

    def write(self, file: str, columns: Sequence[str], parts: Iterator[NDArray[Any]]) -> None:
        """Write the scores of a table, which has to be unchanged at the end."""

        def checked() -> Iterator[NDArray[Any]]:
            yield from parts
            if mark(file) != self.marks[self.names[file]]:
                raise ValueError(f"{file}: expected a table that stays as it is, but it changed while it was read")

        place = self.place(file)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        writing.write_parts(place, columns, checked())

    def written(self, file: str, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """The stored scores of a table, in blocks."""
        for block in open_table(self.place(file)).blocks([0]):
            yield block[:, 0].astype(dtype)


def _names(files: Sequence[str], suffix: str | None) -> list[str]:
    """Paths of the scores: the paths of the tables below their common folder."""
    paths = [os.path.realpath(file) for file in files]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise ValueError(f"DATA: expected different tables, got {twice} twice")
    top = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [_named(os.path.relpath(path, top), suffix) for path in paths]


def _named(name: str, suffix: str | None) -> str:
    if suffix is not None:
        return name if Path(name).suffix.lower() == suffix else name + suffix
    return name if Path(name).suffix.lower() in writing.WRITTEN else f"{name}.csv"


def mark(file: str) -> str:
    """A fingerprint of a table: its size, and a digest of its ends and of bytes between them."""
    digest = hashlib.blake2b(digest_size=16)
    with open(file, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        digest.update(stream.read(EDGE))
        for i in range(1, SAMPLES + 1):
            stream.seek(size * i // (SAMPLES + 1))
            digest.update(stream.read(SAMPLE))
        stream.seek(max(size - EDGE, 0))
        digest.update(stream.read(EDGE))
    return f"{size} bytes, {digest.hexdigest()}"


def _read(place: str) -> dict[str, Any]:
    try:
        with open(place, encoding="utf-8") as file:
            there = json.load(file)
        if there["format"] != FORMAT or not all(isinstance(there[key], dict) for key in ("scores", "tables")):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"--output: expected what an earlier `headrace score` wrote, got {place}") from None
    return dict(there)
