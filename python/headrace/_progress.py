"""The progress bar of a long call on the standard error: the share done, the speed, and the time left."""

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
    """Whether the standard error is a terminal or a notebook, and not a file or a pipe."""
    stream: Any = sys.stderr
    if stream is None:
        return False
    return type(stream).__module__.partition(".")[0] == "ipykernel" or bool(stream.isatty())


def bar(total: float | None, what: str, unit: str, progress: bool, **others: Any) -> Any:
    """A bar of tqdm; nothing if it is switched off or no terminal shows it.

    It is a context manager: its end closes the bar.
    """
    if progress and (receive := _receiver.get()) is not None:
        return _Sent(receive, {"total": total, "desc": what, "unit": unit, **others})
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit=unit, disable=not (progress and watched()), **others)


@contextmanager
def sent_to(receive: Receiver | None) -> Iterator[None]:
    """Inside the block, this thread's bars go as messages to `receive`, which shows them elsewhere; None: shown here.

    A message has ``bar``, the bar's index, ``made``, the arguments of `tqdm`, ``n``, the amount done, ``postfix``,
    and ``closed``.
    """
    before = _receiver.set(receive)
    try:
        yield
    finally:
        _receiver.reset(before)


class _Sent:
    """A bar like `tqdm`'s, sent as a message a few times a second."""

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
        """Add `n` to the amount done."""
        self._told["n"] += n
        if time.monotonic() - self._last >= EVERY:
            self.refresh()

    def set_postfix(self, told: dict[str, Any], refresh: bool = True) -> None:
        """Set the text behind the bar."""
        self._told["postfix"] = dict(told)
        if refresh:
            self.refresh()

    def refresh(self) -> None:
        """Send the state now."""
        self._last = time.monotonic()
        self._receive(dict(self._told))

    def close(self) -> None:
        """Send the end, once."""
        if not self._told["closed"]:
            self._told["closed"] = True
            self.refresh()

    def __enter__(self) -> _Sent:
        """Enter the context manager, which closes the bar at its end."""
        return self

    def __exit__(self, *_: object) -> None:
        """See `close`."""
        self.close()
