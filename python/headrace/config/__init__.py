"""The number of threads, and information about this build and this machine."""

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
    """Use n threads, including the calling thread, in each later call; results do not depend on n.

    At import the number is that of the environment variable HEADRACE_NUM_THREADS; if unset, OMP_NUM_THREADS or
    MKL_NUM_THREADS, the first of the two that is set; if all are unset, the number of cores that this process may use,
    by its affinity and its control groups. Surplus threads end. If threadpoolctl is installed, its functions also read
    and set the number.

    Args:
        n: The number of threads, 1 to 4096.

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
    """A context manager in which calls from this thread use n threads; calls from other threads keep their number.

    Args:
        n: The number of threads, 1 to 4096.

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
    """The folder of ``headrace.hpp`` and ``headrace.h``, for the option ``-I`` of a compiler of C or C++.

    ``headrace.hpp`` is a single header without dependencies; ``headrace.h`` is the header of the C library, whose
    compiler flags ``python -m headrace.config`` prints.

    >>> import os, headrace.config
    >>> "headrace.hpp" in os.listdir(headrace.config.include())
    True
    """
    return os.path.join(os.path.dirname(os.path.abspath(cpu.__file__)), "include")


def info() -> dict[str, Any]:
    """The version, the instruction set in use (`HEADRACE_ISA` sets it), usable sets, threads, and CUDA's availability.

    "isa_not_built" is "v3" or "v4" if this processor has that set and the build lacks it, which makes calls slower;
    otherwise "". A build from source has kernels for the compiling machine; ``HEADRACE_SETS=ALL pip install .`` builds
    kernels for all sets. "bf16" is "native" if the instruction set has products in bf16, "native for few rows" if only
    calls of fewer than 8 rows use them, or "emulated" if float32 computes the same bits; "bf16_tiles" is the
    instruction set of the products of ``matmul="bf16_tiles"``, the fastest set on this machine; all sets compute the
    same bits. "v4_amx" needs the system's permission, which the first flow that uses AMX requests. "cuda" has the
    devices and the architectures of the CUDA module, or the reason why CUDA cannot be used. "commit" is the commit of a
    build from a clone, with "-dirty" if files had changed since, and otherwise "".

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


# The value of "bf16" in `info`, by the suffix of the instruction set.
_BF16 = {"bf16": "native", "bf16_few": "native for few rows", "amx": "native"}


def _cuda() -> str:
    reason, cuda = _core.cuda_unavailable(), _core.cuda
    built = f"built for {cuda.architectures()}, CUDA {_version(cuda.runtime_version())}" if cuda is not None else ""
    if reason:
        return f"not available: {reason}" + (f" ({built})" if built else "")
    names = ", ".join(f"cuda:{i} {name}" for i, name in enumerate(_device.names()))
    return f"{names} ({built}, driver for CUDA {_version(cuda.driver_version())})"


def _version(number: int) -> str:
    """The text of a version from CUDA's number: 13.0 from 13000."""
    return f"{number // 1000}.{number % 1000 // 10}"
