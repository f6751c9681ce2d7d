"""The compiled cores: `_cpu`, and `_cuda` or the reason why this installation cannot use `_cuda`."""

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
_missing = ""  # the reason why `cuda` is None
try:
    import headrace._cuda
except ModuleNotFoundError:
    _missing = "it was built without its CUDA module"
except ImportError as error:
    _missing = f"its CUDA module cannot be loaded ({error})"
else:
    cuda = headrace._cuda

LEAST_ROWS = 8  # results of fewer rows may differ in the last digits, because the core uses other code

__all__ = ["LEAST_ROWS", "CudaUnavailable", "cpu", "cuda", "cuda_unavailable"]


@public()
class CudaUnavailable(RuntimeError):
    """The error if a CUDA device is requested that cannot be used; the message has the reason."""


def cuda_unavailable() -> str:
    """The reason why this installation cannot use any CUDA device; "" if a device can be used."""
    return _missing if cuda is None else str(cuda.reason())
