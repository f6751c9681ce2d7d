"""The compiled cores: `_cpu` always; `_cuda` where it was built, and otherwise why it cannot be used."""

from __future__ import annotations

from typing import Any

from headrace import _cpu as cpu

cuda: Any
try:
    from headrace import _cuda as cuda
except ImportError as error:
    cuda = None
    _MISSING = "it was built without its CUDA module"
    if getattr(error, "path", None):  # it is there, and cannot be loaded
        _MISSING = f"its CUDA module cannot be loaded ({error})"

__all__ = ["CudaUnavailable", "cpu", "cuda", "cuda_unavailable"]


class CudaUnavailable(RuntimeError):
    """Work on a CUDA device was asked for, and there is none to be used; the message says why."""


def cuda_unavailable() -> str:
    """Why no CUDA device can be used by this installation; empty where one can."""
    return _MISSING if cuda is None else str(cuda.reason())
