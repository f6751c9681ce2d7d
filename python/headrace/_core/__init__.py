"""The compiled cores: `_cpu` always; `_cuda` where it was built, and otherwise the reason why it cannot be used."""

from __future__ import annotations

from typing import Any

from headrace._base import platform as _platform
from headrace._base.public import public

try:
    from headrace import _cpu as cpu
except ImportError as error:
    raise ImportError(_platform.why_no_core(error)) from error
from headrace._core import threads as _threads

_threads.begin()

cuda: Any = None
_missing = ""  # the reason if there is no `cuda`
try:
    import headrace._cuda
except ModuleNotFoundError:
    _missing = "it was built without its CUDA module"
except ImportError as error:
    _missing = f"its CUDA module cannot be loaded ({error})"
else:
    cuda = headrace._cuda

LEAST_ROWS = 8  # fewer take another path through the core, which may differ in the last digits

__all__ = ["LEAST_ROWS", "CudaUnavailable", "cpu", "cuda", "cuda_unavailable"]


@public()
class CudaUnavailable(RuntimeError):
    """Work on a CUDA device was asked for, and no device can be used; the message gives the reason."""


def cuda_unavailable() -> str:
    """Why no CUDA device can be used by this installation; empty where one can."""
    return _missing if cuda is None else str(cuda.reason())
