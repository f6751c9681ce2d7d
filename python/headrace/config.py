"""Threads and facts about this build and machine."""

from __future__ import annotations

from typing import Any

from headrace import _arguments as check
from headrace import _core, _device
from headrace._core import cpu

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

    "cuda" names the devices and what the CUDA module was built for, or says why there is none to compute on.

    >>> import headrace as hr
    >>> sorted(hr.info())
    ['cuda', 'isa', 'isas', 'threads', 'version']
    """
    return {
        "version": cpu.__version__,
        "isa": cpu.isa(),
        "isas": tuple(cpu.isas()),
        "threads": cpu.num_threads(),
        "cuda": _cuda(),
    }


def _cuda() -> str:
    reason, cuda = _core.cuda_unavailable(), _core.cuda
    built = f"built for {cuda.architectures()}, CUDA {_version(cuda.runtime_version())}" if cuda is not None else ""
    if reason:
        return f"not available: {reason}" + (f" ({built})" if built else "")
    names = ", ".join(f"cuda:{i} {name}" for i, name in enumerate(_device.names()))
    return f"{names} ({built}, driver for CUDA {_version(cuda.driver_version())})"


def _version(number: int) -> str:
    """13000 is 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"
