"""Threads and facts about this build and machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from headrace import _core
from headrace._base import arguments as check
from headrace._core import cpu
from headrace._core import device as _device
from headrace._core.threads import MOST

__all__ = ["get_num_threads", "include", "info", "set_num_threads", "threads"]


def set_num_threads(n: int) -> None:
    """Use n threads in each call from now on, the calling one included; results do not depend on it.

    At import it is HEADRACE_NUM_THREADS of the environment; else OMP_NUM_THREADS or MKL_NUM_THREADS, the first of them
    that is set; else the number of cores that this process may use, by its affinity and its control groups. Threads
    that are no longer needed end. threadpoolctl, where it is installed, reads and sets the number, too.

    Args:
        n: From 1 to 4096.

    Raises:
        TypeError: n is no integer.
        ValueError: n is out of range.
    """
    cpu.set_num_threads(check.integer("n", n, least=1, most=MOST))


def get_num_threads() -> int:
    """The number of threads that a call from this thread uses."""
    return cpu.num_threads()


@contextmanager
def threads(n: int) -> Iterator[None]:
    """A context in which calls from this thread use n threads; other threads keep their number.

    Args:
        n: From 1 to 4096.

    Raises:
        TypeError: n is no integer.
        ValueError: n is out of range.

    >>> import headrace as hr
    >>> with hr.threads(1):
    ...     hr.get_num_threads()
    1
    """
    before = cpu.limit_thread(check.integer("n", n, least=1, most=MOST))
    try:
        yield
    finally:
        cpu.limit_thread(before)


def include() -> str:
    """The folder of ``headrace.hpp`` and ``headrace.h``, for a compiler's ``-I``: headrace's files without Python.

    The first is a single header without dependencies; the second is of the library, whose flags ``python -m
    headrace.config`` prints.

    >>> import os, headrace.config
    >>> "headrace.hpp" in os.listdir(headrace.config.include())
    True
    """
    return os.path.join(os.path.dirname(os.path.abspath(cpu.__file__)), "include")


def info() -> dict[str, Any]:
    """Version, instruction set in use (`HEADRACE_ISA` forces one), those usable here, threads, and CUDA or why not.

    "isa_not_built" is "v3" or "v4" where this processor has that set and the build lacks it, which makes calls slower.
    A build from source has kernels for the machine that compiled it; ``HEADRACE_SETS=ALL pip install .`` has all.
    Otherwise it is empty.
    "bf16" is whether the instruction set multiplies in bf16 itself ("native"), does so in calls of fewer than 8 rows
    ("native for few rows"), or multiplies in float32 ("emulated"), to the same bits; "bf16_tiles" is the instruction
    set whose products ``matmul="bf16_tiles"`` takes, the fastest one here, to the same bits again. "v4_amx" needs the
    system's permission, for which the first such flow asks. "cuda" has the devices and the architectures of the CUDA
    module, or the reason why none can be used. "commit" is that of a build from a clone, with "-dirty" where files had
    changed since, and otherwise empty.

    >>> import headrace as hr
    >>> sorted(hr.info())
    ['bf16', 'bf16_tiles', 'commit', 'cuda', 'isa', 'isa_not_built', 'isas', 'threads', 'version']
    """
    isa = cpu.isa()
    return {
        "version": cpu.__version__,
        "commit": cpu.commit,
        "isa": isa,
        "isas": tuple(cpu.isas()),
        "isa_not_built": cpu.isa_not_built(),
        "bf16": _BF16.get(isa.partition("_")[2], "emulated"),
        "bf16_tiles": cpu.isa_of_tiles(),
        "threads": cpu.num_threads(),
        "cuda": _cuda(),
    }


# Products in bf16 by the suffix of the instruction set.
_BF16 = {"bf16": "native", "bf16_few": "native for few rows", "amx": "native"}


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
