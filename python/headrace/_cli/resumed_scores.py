"""Scores of one output that Ctrl-C ended: those of the first rows are kept beside it, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.output import replacing
from headrace.rows._files import open_table

FORMAT = 1


class Watch:
    """Parts that come one by one until Ctrl-C, which drops the part being computed, but not one being written."""

    def __init__(self, patience: int) -> None:
        """`patience`: the number of signals that a write survives, which may wait for a reader; the next one ends it.

        Signal handlers are unchanged until the block is entered.
        """
        self.stopped = self._may_raise = False
        self._left = patience

    def __enter__(self) -> Watch:
        """Install a handler, in the main thread, because only this one receives signals."""
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the handler."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, *_: object) -> None:
        self.stopped, self._left = True, self._left - 1
        if self._may_raise or self._left < 0:
            raise KeyboardInterrupt

    def until(self, parts: Iterator[NDArray[Any]], least: int = 0) -> Iterator[NDArray[Any]]:
        """The parts done so far; with fewer than `least` Ctrl-C raises as usual."""
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
    """The scores of the first rows of a table, a table of their own, with a record of their inputs."""

    def __init__(self, output: str, inputs: dict[str, Any]) -> None:
        """`output`: the path of the complete scores. `inputs`: everything that they depend on."""
        place = Path(output)
        self.path = str(place.with_name(f"{place.stem}.partial{place.suffix}"))
        self.record = str(place.with_name(f"{place.stem}.partial.json"))
        self.inputs = inputs
        self.rows = 0
        """The number of stored rows."""

    def open(self) -> None:
        """Look for stored scores of an earlier call; those of other inputs are refused.

        Raises:
            ValueError: some exist, or another file is in their place.
        """
        if not os.path.exists(self.path):
            return
        advice = f"remove {self.path} and {self.record}, or give another output"
        try:
            with open(self.record, encoding="utf-8") as file:
                there = json.load(file)
            rows, earlier = int(there["rows"]), dict(there["scores"])
            if there["format"] != FORMAT or rows < 1:
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(
                f"--output: expected {self.path} and {self.record} as an earlier `headrace score` left them, got "
                f"others; {advice}"
            ) from None
        for name in {**self.inputs, **earlier}:
            if earlier.get(name) != self.inputs.get(name):
                raise ValueError(
                    f"--output: expected scores of the same {name} in {self.path}, where Ctrl-C ended an earlier "
                    f"call, got those of another ({earlier.get(name)} there, {self.inputs.get(name)} here); {advice}"
                )
        self.rows = rows

    def parts(self, columns: int, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """The stored scores, in blocks; shape (rows,) with one column."""
        rows = 0
        for block in open_table(self.path).blocks(list(range(columns))) if self.rows else ():
            rows += len(block)
            yield block.astype(dtype) if columns > 1 else block[:, 0].astype(dtype)
        if rows != self.rows:
            raise ValueError(f"{self.path}: expected {self.rows} rows, as {self.record} says, got {rows}")

    def note(self, rows: int) -> None:
        """Write the record of the stored scores."""
        with replacing(self.record) as stream:
            stream.write(json.dumps({"format": FORMAT, "rows": rows, "scores": self.inputs}, indent=1).encode())

    def remove(self) -> None:
        """Remove the stored scores, because the output is complete."""
        for path in (self.path, self.record) if self.rows else ():
            with suppress(FileNotFoundError):
                os.unlink(path)
