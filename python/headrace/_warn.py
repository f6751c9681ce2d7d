"""Warnings that name the user's own line, however deep in this package they come from."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

__all__ = ["warn"]

_HERE = str(Path(__file__).parent)


def warn(message: str) -> None:
    """A `RuntimeWarning` at the line that called this package."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, RuntimeWarning, stacklevel=level)
