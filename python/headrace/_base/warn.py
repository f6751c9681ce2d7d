"""Warnings that name the user's own line, however deep in this package they come from."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_kept: ContextVar[list[str] | None] = ContextVar("kept", default=None)
_fixed: ContextVar[bool] = ContextVar("fixed", default=False)

PREFERRED = "fit: held-out rows prefer a Gaussian"
"""The beginning of the warning of a fit with `epochs` that ends below a Gaussian."""


def warn(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """A warning at the line that called this package."""
    if _fixed.get() and message.startswith(PREFERRED):
        return
    if (kept := _kept.get()) is not None:
        kept.append(message)
        return
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def kept_in(messages: list[str]) -> Iterator[None]:
    """Inside the block, this thread's warnings go to a list: the stack of a worker has no line of the user."""
    before = _kept.set(messages)
    try:
        yield
    finally:
        _kept.reset(before)


@contextmanager
def fixed_epochs() -> Iterator[None]:
    """Inside the block, fits have a number of epochs that callers cannot leave out, and no warning that they should."""
    before = _fixed.set(True)
    try:
        yield
    finally:
        _fixed.reset(before)
