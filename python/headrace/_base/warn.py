"""Warnings with the line of the user's code that called this package, from any depth of calls."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

# Frames of these files are not the user's: this package, and contextlib, which calls functions that `silent` decorates.
_HERE = (os.path.dirname(os.path.dirname(os.path.abspath(__file__))), contextlib.__file__)
_kept: ContextVar[list[str] | None] = ContextVar("kept", default=None)
_silent: ContextVar[tuple[str, ...]] = ContextVar("silent", default=())

PREFERRED = "fit: held-out rows prefer a Gaussian"
"""The beginning of the warning of a fit with `epochs` that ends below a Gaussian."""
FREQUENT = "x: one value is frequent"
"""The beginning of the warning of a first fit to columns with one frequent value."""


def warn(message: str, kind: type[Warning] = RuntimeWarning) -> None:
    """Issue a warning with the line of the user's code that called this package."""
    if message.startswith(_silent.get()):
        return
    if (kept := _kept.get()) is not None:
        kept.append(message)
        return
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, kind, stacklevel=level)


@contextmanager
def kept_in(messages: list[str]) -> Iterator[None]:
    """Inside the block, collect this thread's warnings in a list, because a worker's stack has no line of the user."""
    before = _kept.set(messages)
    try:
        yield
    finally:
        _kept.reset(before)


@contextmanager
def silent(beginning: str) -> Iterator[None]:
    """A context manager that suppresses warnings whose message starts with `beginning`."""
    before = _silent.set((*_silent.get(), beginning))
    try:
        yield
    finally:
        _silent.reset(before)


def fixed_epochs() -> AbstractContextManager[None]:
    """Inside the block, suppress the advice against `epochs`, for fits whose callers cannot leave `epochs` out."""
    return silent(PREFERRED)
