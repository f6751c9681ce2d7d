"""Warnings that name the user's own line, however deep in this package they come from."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

# This package, and the module whose frames are between the calls of a function that `silent` decorates.
_HERE = (os.path.dirname(os.path.dirname(os.path.abspath(__file__))), contextlib.__file__)
_kept: ContextVar[list[str] | None] = ContextVar("kept", default=None)
_silent: ContextVar[tuple[str, ...]] = ContextVar("silent", default=())

PREFERRED = "fit: held-out rows prefer a Gaussian"
"""The beginning of the warning of a fit with `epochs` that ends below a Gaussian."""
FREQUENT = "x: one value is frequent"
"""The beginning of the warning of a first fit to columns with one frequent value."""


def warn(message: str, kind: type[Warning] = RuntimeWarning) -> None:
    """A warning at the line that called this package."""
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
    """Inside the block, this thread's warnings go to a list: the stack of a worker has no line of the user."""
    before = _kept.set(messages)
    try:
        yield
    finally:
        _kept.reset(before)


@contextmanager
def silent(beginning: str) -> Iterator[None]:
    """Inside the block, there is no warning that begins so."""
    before = _silent.set((*_silent.get(), beginning))
    try:
        yield
    finally:
        _silent.reset(before)


def fixed_epochs() -> AbstractContextManager[None]:
    """Inside the block, fits have a number of epochs that callers cannot leave out, without a warning of that."""
    return silent(PREFERRED)
