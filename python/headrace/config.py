"""Threads and facts about this build and machine."""

from __future__ import annotations

from typing import Any

from headrace import _arguments as check
from headrace._core import CUDA_UNAVAILABLE, cpu

__all__ = ["get_num_threads", "info", "set_num_threads"]


def set_num_threads(n: int) -> None:
    """Use n threads from now on, the calling one included; results do not depend on it.

    The environment variable HEADRACE_NUM_THREADS sets it at import; the default is the number of cores.
    """
    cpu.set_num_threads(check.integer("n", n, least=1, most=4096))


def get_num_threads() -> int:
    """The number of threads in use."""
    return cpu.num_threads()


def info() -> dict[str, Any]:
    """Version, instruction set in use (`HEADRACE_ISA` forces one), those usable here, threads, and CUDA or why not.

    >>> import headrace as hr
    >>> sorted(hr.info())
    ['cuda', 'isa', 'isas', 'threads', 'version']
    """
    return {
        "version": cpu.__version__,
        "isa": cpu.isa(),
        "isas": tuple(cpu.isas()),
        "threads": cpu.num_threads(),
        "cuda": f"not available: {CUDA_UNAVAILABLE}",
    }
