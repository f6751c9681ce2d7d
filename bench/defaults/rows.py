"""The objects that the rows of the table name, and the times of the table's rows."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from bench.defaults.measured import Measured, measured, timed
from bench.defaults.table import MAPS, Row
from headrace._cli.cli import main
from headrace._cli.signals import Signal
from headrace.rows import _waves as waves

RATE = 8000


def rows(*shape: int) -> NDArray[np.float32]:
    """Random values near zero, equal in every call."""
    return (0.5 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def process(*arguments: str) -> None:
    """Run Python in another process, which has the same packages."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages are also compiled to byte code
    subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)


def soil() -> None:
    """Leave values of every magnitude in the memory in which maps keep their parameters and results."""
    for name, (z, raw) in _SOIL.items():
        hr.ops.coupling(z, raw, map=name)


def _of_every_magnitude(*shape: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return (rng.choice([-1.0, 1.0], shape) * np.exp(rng.uniform(-100, 80, shape))).astype(np.float32)


_SOIL = {name: (_of_every_magnitude(16, 2), _of_every_magnitude(16, 2, count)) for name, count in MAPS.items()}


class Rows:
    """The times of the table's rows; successive rows with the same construction share their objects."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._made, self._before = "", dict[int, dict[str, Any]]()

    def measure(self, row: Row, pairs: int, block: float) -> Measured:
        """The times of a table row; for the kind "many", the times per row or step."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of short fits
            call = timed(row.call, self._names(row.made, row.n))
            fastest = timed(row.fastest, self._names(row.made, row.fastest_n))
            result = measured(call, fastest, pairs, block, soil)
        if row.kind != "many":
            return result
        return Measured(result.seconds / row.n, result.fastest / row.fastest_n, result.ratio * row.fastest_n / row.n)

    def _names(self, made: str, n: int) -> dict[str, Any]:
        if self._made != made:
            self._made, self._before = made, {}
        if n not in self._before:
            names = {"np": np, "hr": hr, "rows": rows, "n": n, "folder": str(self._folder)}
            names |= {"command": self._command, "process": process, "write_files": self._write_files}
            exec(made, names)
            self._before[n] = names
        return self._before[n]

    def _command(self, line: str) -> None:
        """Run a command line, in which words with a suffix are files of the folder."""
        words = [str(self._folder / word) if Path(word).suffix[1:].isalpha() else word for word in line.split()]
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            status = main([*words, "--quiet"])
        if status:
            raise RuntimeError(f"headrace {line}: ended with {status}")

    def _write_files(self) -> None:
        """Write a flow, a table as .csv and .npy, a default voice and an affine one, and a signal."""
        hr.NSF(3).save(self._folder / "flow.safetensors")
        np.savetxt(self._folder / "table.csv", rows(300, 3), delimiter=",", header="a,b,c", comments="")
        np.save(self._folder / "table.npy", rows(300, 3))
        for name, shape in (("voice", {}), ("affine", {"map": "affine"})):
            data = hr.to_bytes(hr.WaveNet(standardize=([0.0], [1000.0]), **shape), Signal(RATE).notes())
            (self._folder / f"{name}.safetensors").write_bytes(data)
        waves.write(str(self._folder / "signal.wav"), RATE, 1, 400, [(1000 * rows(400, 1)).astype(np.int16)])
