"""The loop by hand (anchor.cpp): compiled for this machine at its first use, and called through pipes."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLAGS = ("-O3", "-march=native", "-std=c++20", "-Wno-psabi")


def compiler() -> str | None:
    """The one that headrace is built by here."""
    return shutil.which("c++") or shutil.which("g++")


class Hand:
    """One network of it, for as long as the process lives."""

    def __init__(
        self, program: Path, folder: Path, arrays: dict[str, NDArray[Any]], dilations: tuple[int, ...]
    ) -> None:
        """`arrays` are named as those of a `headrace.CausalConvolution`, whose sizes are those that it has code for."""
        channels, _, kernel = arrays["input.weight"].shape
        path = Path(tempfile.mkstemp(dir=folder)[1])
        with open(path, "wb") as file:
            np.array([channels, kernel, len(dilations), *dilations], np.int32).tofile(file)
            for array in arrays.values():
                np.ascontiguousarray(array, np.float32).tofile(file)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([str(program), str(path)], stdin=pipe, stdout=pipe, text=True)

    def seconds(self, verb: str, steps: int, file: Path | None = None) -> tuple[int, float, float]:
        """Steps that it took (whole windows), seconds of the processor, and a value to check."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{verb} {steps}{'' if file is None else f' {file}'}\n")
        self._process.stdin.flush()
        count, taken, check = self._process.stdout.readline().split()
        return int(count), float(taken), float(check)

    def outputs(self, steps: int, folder: Path) -> tuple[NDArray[Any], NDArray[Any]]:
        """Values of a sequence, and their raw parameters (steps, 2)."""
        path = folder / "outputs"
        count, _, _ = self.seconds("outputs", steps, path)
        values = np.fromfile(path, np.float32)
        return values[:count], values[count:].reshape(count, 2)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def compiled(folder: Path) -> Path | None:
    """The program, or None without a compiler."""
    found = compiler()
    if found is None:
        return None
    program = folder / "anchor"
    source = Path(__file__).with_name("anchor.cpp")
    subprocess.run([found, *FLAGS, str(source), "-o", str(program)], check=True)
    return program
