"""PyTorch's threads as headrace's.

After every parallel operation PyTorch's OpenMP threads watch for the next one for some milliseconds. Workers of a pool
beside them get half a core each. Long calls therefore run on these threads, if both libraries have the same number.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import torch

from headrace._core import cpu

_OPENMP = re.compile(r"lib(gomp|iomp5|omp)[-.]")
_kept: list[ctypes.CDLL] = []  # keeps a library with functions in use loaded


def borrow() -> None:
    """Let long calls run on PyTorch's OpenMP threads, if its library is found."""
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
    """The OpenMP library that PyTorch uses: the one in its package, or the only one of the process."""
    try:
        lines = Path(maps).read_text().splitlines()
    except OSError:
        return None  # not Linux
    paths = {Path(line.split(maxsplit=5)[5]) for line in lines if line.count("/")}
    found = [path for path in paths if _OPENMP.match(path.name)]
    own = Path(torch_file).resolve().parent
    with_torch = [path for path in found if path.is_relative_to(own) or path.is_relative_to(f"{own}.libs")]
    candidates = with_torch or found
    return candidates[0] if len(candidates) == 1 else None
