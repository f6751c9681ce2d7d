"""The bar that a long call shows on the standard error: what is done, how fast, and how long it will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["bar", "sent_to", "watched"]

EVERY = 0.25  # seconds between two messages of a bar that is shown elsewhere

Receiver = Callable[[dict[str, Any]], None]
_receiver: ContextVar[Receiver | None] = ContextVar("receiver", default=None)


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
    if progress and (receive := _receiver.get()) is not None:
        return _Sent(receive, {"total": total, "desc": what, "unit": unit, **others})
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit=unit, disable=not (progress and watched()), **others)


@contextmanager
def sent_to(receive: Receiver | None) -> Iterator[None]:
    """Inside, bars of this thread are told to somebody who shows them elsewhere; None: they are shown here.

    A message has ``bar``, which numbers the bars, ``made``, what `tqdm` is given, ``n``, how much is done, ``postfix``,
    and ``closed``.
    """
    before = _receiver.set(receive)
    try:
        yield
    finally:
        _receiver.reset(before)


class _Sent:
    """What a bar of `tqdm` is, told a few times a second."""

    made_so_far = 0

    def __init__(self, receive: Receiver, made: dict[str, Any]) -> None:
        _Sent.made_so_far += 1
        self._receive, self._last = receive, 0.0
        self._told = {
            "bar": _Sent.made_so_far,
            "made": made,
            "n": made.get("initial", 0),
            "postfix": {},
            "closed": False,
        }
        self.refresh()

    def update(self, n: float = 1) -> None:
        """So much more is done."""
        self._told["n"] += n
        if time.monotonic() - self._last >= EVERY:
            self.refresh()

    def set_postfix(self, told: dict[str, Any], refresh: bool = True) -> None:
        """What stands behind the bar."""
        self._told["postfix"] = dict(told)
        if refresh:
            self.refresh()

    def refresh(self) -> None:
        """Tell it now."""
        self._last = time.monotonic()
        self._receive(dict(self._told))

    def close(self) -> None:
        """Tell the end of it, once."""
        if not self._told["closed"]:
            self._told["closed"] = True
            self.refresh()

    def __enter__(self) -> _Sent:
        """As a context manager, whose end closes the bar."""
        return self

    def __exit__(self, *_: object) -> None:
        """See `close`."""
        self.close()
