"""The compiled core: `_cpu`, and why there is no `_cuda` (yet)."""

from __future__ import annotations

from headrace import _cpu as cpu

CUDA_UNAVAILABLE = "this version of headrace has no CUDA module yet"

__all__ = ["CUDA_UNAVAILABLE", "cpu"]
