"""The bar that a long call shows on the standard error: what is done, how fast, and how long it will take."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["bar", "watched"]


def watched() -> bool:
    """Whether somebody looks at the standard error: a terminal, or a notebook; not a file or a pipe."""
    stream: Any = sys.stderr
    if stream is None:
        return False
    return type(stream).__module__.partition(".")[0] == "ipykernel" or bool(stream.isatty())


def bar(total: float | None, what: str, unit: str, progress: bool, **others: Any) -> Any:
    """A bar of tqdm; nothing where there is to be none, and where nobody looks.

    It is a context manager: its end closes the bar.
    """
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit=unit, disable=not (progress and watched()), **others)
