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
    """The path of the compiler that builds headrace on this machine, or None."""
    return shutil.which("c++") or shutil.which("g++")


class Hand:
    """A process of the program with one network."""

    def __init__(
        self, program: Path, folder: Path, arrays: dict[str, NDArray[Any]], dilations: tuple[int, ...]
    ) -> None:
        """Start the process; `arrays` are named as in `headrace.CausalConvolution`, in sizes for which the program has
        code."""
        channels, _, kernel = arrays["input.weight"].shape
        path = Path(tempfile.mkstemp(dir=folder)[1])
        with open(path, "wb") as file:
            np.array([channels, kernel, len(dilations), *dilations], np.int32).tofile(file)
            for array in arrays.values():
                np.ascontiguousarray(array, np.float32).tofile(file)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([str(program), str(path)], stdin=pipe, stdout=pipe, text=True)

    def seconds(self, verb: str, steps: int, file: Path | None = None) -> tuple[int, float, float]:
        """The number of computed steps (whole windows), the processor seconds, and a result to check."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{verb} {steps}{'' if file is None else f' {file}'}\n")
        self._process.stdin.flush()
        count, taken, check = self._process.stdout.readline().split()
        return int(count), float(taken), float(check)

    def outputs(self, steps: int, folder: Path) -> tuple[NDArray[Any], NDArray[Any]]:
        """The values of a sequence, and their raw parameters (steps, 2)."""
        path = folder / "outputs"
        count, _, _ = self.seconds("outputs", steps, path)
        values = np.fromfile(path, np.float32)
        return values[:count], values[count:].reshape(count, 2)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def compiled(folder: Path) -> Path | None:
    """The path of the compiled program, or None without a compiler."""
    found = compiler()
    if found is None:
        return None
    program = folder / "anchor"
    source = Path(__file__).with_name("anchor.cpp")
    subprocess.run([found, *FLAGS, str(source), "-o", str(program)], check=True)
    return program
