"""Progress bars of long calls, on the standard error, with the finished share, the speed and the remaining time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

SECONDS = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f} of {total:.0f} s{postfix}"  # the format of a bar of elapsed time
EVERY = 0.25  # the least seconds between two messages of a bar in another process

Receiver = Callable[[dict[str, Any]], None]
_receiver: ContextVar[Receiver | None] = ContextVar("receiver", default=None)


def watched() -> bool:
    """Whether the standard error is a terminal or a notebook, and not a file or a pipe."""
    stream: Any = sys.stderr
    if stream is None:
        return False
    return type(stream).__module__.partition(".")[0] == "ipykernel" or bool(stream.isatty())


def bar(total: float | None, what: str, unit: str, progress: bool, **others: Any) -> Any:
    """A progress bar of tqdm, which is hidden without `progress`, or if the standard error is no terminal or notebook.

    The bar is a context manager that closes the bar at its end.
    """
    if progress and (receive := _receiver.get()) is not None:
        return _Sent(receive, {"total": total, "desc": what, "unit": unit, **others})
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit=unit, disable=not (progress and watched()), **others)


def seconds_bar(total: float, what: str, progress: bool) -> Any:
    """A progress bar of elapsed seconds, up to `total`."""
    return bar(total, what, "s", progress, bar_format=SECONDS, miniters=0)


def each(items: Collection[T], what: str, unit: str, progress: bool) -> Iterator[T]:
    """The items in order; a bar counts the finished items and is cleared at the end."""
    with bar(len(items), what, unit, progress, leave=False) as shown:
        for item in items:
            yield item
            shown.update()


@contextmanager
def sent_to(receive: Receiver | None) -> Iterator[None]:
    """Inside the block, send bars of this thread as messages to `receive`; with None tqdm shows the bars.

    The keys of a message are ``bar``, the bar's index; ``made``, the arguments of `tqdm`; ``n``, the amount done;
    ``postfix``, the text at the bar's end; and ``closed``.
    """
    before = _receiver.set(receive)
    try:
        yield
    finally:
        _receiver.reset(before)


class _Sent:
    """A bar with `tqdm`'s methods, whose state is sent as a message at most four times a second."""

    made_so_far = 0

    def __init__(self, receive: Receiver, made: dict[str, Any]) -> None:
        _Sent.made_so_far += 1
        self._receive, self._last = receive, 0.0
        self._state = {
            "bar": _Sent.made_so_far,
            "made": made,
            "n": made.get("initial", 0),
            "postfix": "",
            "closed": False,
        }
        self.refresh()

    @property
    def total(self) -> Any:
        """The amount to do; None if unknown."""
        return self._state["made"]["total"]

    @property
    def n(self) -> Any:
        """The amount done."""
        return self._state["n"]

    @n.setter
    def n(self, done: float) -> None:
        self._state["n"] = done

    def update(self, n: float = 1) -> None:
        """Add `n` to the amount done."""
        self._state["n"] += n
        if time.monotonic() - self._last >= EVERY:
            self.refresh()

    def set_postfix(self, entries: dict[str, Any], refresh: bool = True) -> None:
        """Set the text at the bar's end to pairs of names and texts."""
        self.set_postfix_str(", ".join(f"{name}={text}" for name, text in entries.items()), refresh)

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """Set the text at the bar's end."""
        self._state["postfix"] = text
        if refresh:
            self.refresh()

    def refresh(self) -> None:
        """Send the bar's state now."""
        self._last = time.monotonic()
        self._receive(dict(self._state))

    def close(self) -> None:
        """Send the closed state, unless the bar is already closed."""
        if not self._state["closed"]:
            self._state["closed"] = True
            self.refresh()

    def __enter__(self) -> _Sent:
        """Return the bar, which the end of the block closes."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the bar."""
        self.close()
