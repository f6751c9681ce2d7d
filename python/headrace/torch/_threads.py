"""Long calls of the core on PyTorch's threads.

After every parallel operation PyTorch's OpenMP threads wait actively for the next operation, for some milliseconds. A
second pool of threads would share each core with PyTorch's. Long calls therefore run on PyTorch's threads if
headrace and PyTorch use the same number of threads.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import torch

from headrace._core import cpu

_OPENMP = re.compile(r"lib(gomp|iomp5|omp)[-.]")
_kept: list[ctypes.CDLL] = []  # keeps a library loaded while its functions are in use


def borrow() -> None:
    """Let long calls run on PyTorch's OpenMP threads, if PyTorch's OpenMP library is found."""
    path = library()
    if path is None:
        return
    try:
        loaded = ctypes.CDLL(str(path))
        run, size = (ctypes.cast(getattr(loaded, name), ctypes.c_void_p).value for name in _NEEDED)
    except (OSError, AttributeError):
        return
    if run and size:
        _kept.append(loaded)
        cpu.borrow_team(run, size)


_NEEDED = ("GOMP_parallel", "omp_get_max_threads")


def library(maps: str = "/proc/self/maps", torch_file: str = torch.__file__) -> Path | None:
    """The path of PyTorch's OpenMP library: the library in its package, or the only one in the process; else None."""
    try:
        lines = Path(maps).read_text().splitlines()
    except OSError:
        return None  # only Linux has this file
    paths = {Path(line.split(maxsplit=5)[5]) for line in lines if line.count("/")}
    found = [path for path in paths if _OPENMP.match(path.name)]
    own = Path(torch_file).resolve().parent
    with_torch = [path for path in found if path.is_relative_to(own) or path.is_relative_to(f"{own}.libs")]
    candidates = with_torch or found
    return candidates[0] if len(candidates) == 1 else None
