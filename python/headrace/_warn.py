"""Warnings that name the user's own line, however deep in this package they come from."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_HERE = os.path.dirname(os.path.abspath(__file__))
_kept: ContextVar[list[str] | None] = ContextVar("kept", default=None)


def warn(message: str) -> None:
    """A `RuntimeWarning` at the line that called this package."""
    if (kept := _kept.get()) is not None:
        kept.append(message)
        return
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, RuntimeWarning, stacklevel=level)


@contextmanager
def kept_in(messages: list[str]) -> Iterator[None]:
    """Inside the block, this thread's warnings go to a list: the stack of a worker has no line of the user."""
    before = _kept.set(messages)
    try:
        yield
    finally:
        _kept.reset(before)
