"""Unfinished files of scores, from which `headrace score` resumes after Ctrl-C, and statistics of scores.

Unfinished scores of one table are in a file beside the output, with a record of the inputs. Scores of many tables are
in a folder: a file for each table, which gets its final name when it is complete, and a record that is written before
the first file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.platform import ends_in_separator, without_separator
from headrace._cli import writing
from headrace.rows._files import open_table

RECORD = "headrace-score.json"
FORMAT = 1
EDGE, SAMPLES, SAMPLE = 1 << 16, 64, 1 << 12  # bytes of a file that a digest reads: both ends, and samples in between


class Scores:
    """Number, mean, spread and range of finite scores, updated as in Chan, Golub, LeVeque (1983)."""

    def __init__(self) -> None:
        """Statistics of no rows."""
        self.rows = self.finite = 0
        self.mean = self.squares = 0.0  # squares: the sum of squared deviations from the mean
        self.least, self.most = math.inf, -math.inf

    def add(self, log_prob: NDArray[Any]) -> None:
        """Add the scores of rows, shape (rows,)."""
        finite = log_prob[np.isfinite(log_prob)].astype(np.float64)
        self.rows += log_prob.size
        if not finite.size:
            return
        mean, before = float(finite.mean()), self.finite
        self.finite += finite.size
        away = mean - self.mean
        self.mean = mean if before == 0 else self.mean + away * finite.size / self.finite
        self.squares += float(np.square(finite - mean).sum()) + away * away * before * finite.size / self.finite
        self.least, self.most = min(self.least, float(finite.min())), max(self.most, float(finite.max()))

    def report(self) -> dict[str, Any]:
        """The statistics for a JSON object, by name; undefined statistics are NaN."""
        n = self.finite
        error = math.sqrt(self.squares / (n - 1) / n) if n > 1 else math.nan
        stats = {"log_likelihood": self.mean, "standard_error": error, "least": self.least, "most": self.most}
        return {"rows": self.rows, "not_finite": self.rows - n, **(stats if n else dict.fromkeys(stats, math.nan))}


# ---- records ---------------------------------------------------------------------------------------------------------


def _read_record(path: str, expected: str, **kinds: type) -> dict[str, Any]:
    """The record in a file; raises ValueError for other contents, with a message that ends with `expected`."""
    try:
        with open(path, encoding="utf-8") as file:
            there = json.load(file)
        holds = all(there[key] and isinstance(there[key], kind) for key, kind in kinds.items())
        if there["format"] == FORMAT and holds:
            return dict(there)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ValueError(f"--output: expected {expected}")


def _write_record(path: str, **entries: Any) -> None:
    writing.write_text(path, json.dumps({"format": FORMAT, **entries}, indent=1))


def _check_same(inputs: dict[str, Any], there: dict[str, Any], where: str, advice: str) -> None:
    """Raise ValueError if stored scores were computed from other inputs."""
    for name in {**inputs, **there}:
        if inputs.get(name) != there.get(name):
            raise ValueError(
                f"--output: expected scores of the same {name} in {where}, got those of another "
                f"({there.get(name)} there, {inputs.get(name)} here); {advice}"
            )


# ---- one table -------------------------------------------------------------------------------------------------------


class Watch:
    """Iterate over parts until Ctrl-C, which stops the computation of a part, but not the writing of a part."""

    def __init__(self, patience: int) -> None:
        """`patience`: the number of times that Ctrl-C does not stop a write, which may wait for a reader."""
        self.stopped = self._may_raise = False
        self._left = patience

    def __enter__(self) -> Watch:
        """Install a handler of Ctrl-C if this is the main thread, because only the main thread receives signals."""
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the handler that `__enter__` replaced."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, *_: object) -> None:
        self.stopped, self._left = True, self._left - 1
        if self._may_raise or self._left < 0:
            raise KeyboardInterrupt

    def until(self, parts: Iterator[NDArray[Any]], least: int = 0) -> Iterator[NDArray[Any]]:
        """Yield the parts until Ctrl-C, which raises KeyboardInterrupt if fewer than `least` parts are done."""
        done = 0
        while not self.stopped:
            try:
                self._may_raise = True
                part = next(parts, None)
                self._may_raise = False
            except KeyboardInterrupt:
                self._may_raise, self.stopped = False, True
                break
            if part is None:
                return
            yield part
            done += 1
        if done < least:
            raise KeyboardInterrupt


class Kept:
    """The scores of the first rows of a table, in a separate file, and a record of the inputs in another file."""

    def __init__(self, output: str, inputs: dict[str, Any]) -> None:
        """`output`: the path of the complete scores. `inputs`: everything that the scores depend on."""
        place = Path(output)
        self.path = str(place.with_name(f"{place.stem}.partial{place.suffix}"))
        self.record = str(place.with_name(f"{place.stem}.partial.json"))
        self.inputs = inputs
        self.rows = 0  # the number of stored scores

    def open(self) -> None:
        """Read the record of an earlier call, if any; raises ValueError for other inputs and for other files."""
        if not os.path.exists(self.path):
            return
        advice = f"remove {self.path} and {self.record}, or give another output"
        earlier = f"{self.path} and {self.record} as an earlier `headrace score` left them, got others; {advice}"
        there = _read_record(self.record, earlier, rows=int, scores=dict)
        _check_same(self.inputs, there["scores"], self.path, advice)
        self.rows = there["rows"]

    def parts(self, columns: int, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """Yield the stored scores in blocks, of shape (rows,) if there is one column, else (rows, columns)."""
        rows = 0
        for block in open_table(self.path).blocks(list(range(columns))) if self.rows else ():
            rows += len(block)
            yield block.astype(dtype) if columns > 1 else block[:, 0].astype(dtype)
        if rows != self.rows:
            raise ValueError(f"{self.path}: expected {self.rows} rows, as {self.record} says, got {rows}")

    def note(self, rows: int) -> None:
        """Write the record of `rows` stored scores."""
        _write_record(self.record, rows=rows, scores=self.inputs)

    def remove(self) -> None:
        """Remove the stored scores and their record, after the output is complete."""
        for path in (self.path, self.record) if self.rows else ():
            Path(path).unlink(missing_ok=True)


# ---- many tables -----------------------------------------------------------------------------------------------------


def is_folder(path: str | None) -> bool:
    """Whether an output is a folder: a path that ends in a separator, or a folder without a table's suffix."""
    if path is None:
        return False
    return ends_in_separator(path) or (os.path.isdir(path) and Path(path).suffix.lower() not in writing.WRITTEN)


class Folder:
    """A folder of scores."""

    def __init__(self, path: str, files: Sequence[str], form: str | None) -> None:
        """`files`: the tables. `form`: the format of scores; None for each table's format, or csv."""
        self.path, self.names = without_separator(path), _names(files, form)
        for file, name in self.names.items():
            if os.path.realpath(file) == os.path.join(os.path.realpath(self.path), name):
                raise ValueError(f"--output: expected another folder than that of the tables, got {path}")

    def open(self, inputs: dict[str, str]) -> None:
        """Make the folder, or resume in an existing one; raises ValueError if it has scores of other inputs."""
        os.makedirs(self.path, exist_ok=True)
        path, tables = os.path.join(self.path, RECORD), dict[str, str]()
        if os.path.exists(path):
            kinds = {"scores": dict, "tables": dict}
            there = _read_record(path, f"what an earlier `headrace score` wrote, got {path}", **kinds)
            _check_same(inputs, there["scores"], self.path, "give another folder")
            tables = there["tables"]
        elif foreign := sorted(name for name in os.listdir(self.path) if not name.startswith(".headrace-")):
            got = f"{self.path} with {foreign[0]} and no {RECORD}"
            raise ValueError(f"--output: expected an empty folder, or one with scores of the same flow, got {got}")
        self.marks = {name: mark(file) for file, name in self.names.items()}
        for file, name in self.names.items():
            if tables.get(name, self.marks[name]) != self.marks[name]:
                raise ValueError(
                    f"--output: {file} is another table than the one whose scores are {os.path.join(self.path, name)}; "
                    f"remove these, and their entries in {path}, or give another folder"
                )
        _write_record(path, scores=inputs, tables=tables | self.marks)

    def left(self) -> list[str]:
        """The tables whose scores are not written yet, in order."""
        return [file for file in self.names if not os.path.exists(self.place(file))]

    def place(self, file: str) -> str:
        """The path of a table's scores."""
        return os.path.join(self.path, self.names[file])

    def write(self, file: str, columns: Sequence[str], parts: Iterator[NDArray[Any]]) -> None:
        """Write the scores of a table; raises ValueError if the table changed while it was read."""

        def checked() -> Iterator[NDArray[Any]]:
            yield from parts
            if mark(file) != self.marks[self.names[file]]:
                raise ValueError(f"{file}: expected a table that stays as it is, but it changed while it was read")

        place = self.place(file)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        writing.write_parts(place, columns, checked())

    def written(self, file: str, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """Yield the stored scores of a table in blocks."""
        for block in open_table(self.place(file)).blocks([0]):
            yield block[:, 0].astype(dtype)


def _names(files: Sequence[str], form: str | None) -> dict[str, str]:
    """The path of each table's scores, which is the table's path relative to the common folder of all tables."""
    paths = [os.path.realpath(file) for file in files]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise ValueError(f"DATA: expected different tables, got {twice} twice")
    top = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = dict(zip(files, (os.path.relpath(path, top) for path in paths), strict=True))
    kept = writing.WRITTEN if form is None else (f".{form}",)
    return {
        file: name if Path(name).suffix.lower() in kept else f"{name}.{form or 'csv'}" for file, name in names.items()
    }


def digest(content: bytes) -> str:
    """A fingerprint of bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def mark(file: str) -> str:
    """A fingerprint of a table's file: its size, and a digest of the bytes at both ends and of samples in between."""
    with open(file, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        content = stream.read(EDGE)
        for i in range(1, SAMPLES + 1):
            stream.seek(size * i // (SAMPLES + 1))
            content += stream.read(SAMPLE)
        stream.seek(max(size - EDGE, 0))
        return f"{size} bytes, {digest(content + stream.read(EDGE))}"
