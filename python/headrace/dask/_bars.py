"""Progress bars in the calling process for tasks on workers."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from headrace._base import progress as _progress

TOPIC = "headrace-progress"  # the topic of workers' events; the scheduler keeps a few events of each topic

_clients: WeakKeyDictionary[Any, dict[str, Shown]] = WeakKeyDictionary()
_lock = threading.Lock()  # locks _clients and its values


class Shown:
    """The bar of a fit that runs in another process."""

    def __init__(self, name: str) -> None:
        """Prepare a bar; `name`: the name of the fit in its messages; "" for no bar."""
        self.name = name
        self._heard: dict[Any, dict[str, Any]] = {}  # the latest message of each bar, in the order of the bars
        self._bar: Any = None
        self._number: Any = None

    def hear(self, message: dict[str, Any]) -> None:
        """Store a message, in the thread of the client's connections; `draw` draws it later."""
        self._heard[message["rank"], message["bar"]] = message

    def draw(self) -> None:
        """Draw the messages that were received so far."""
        for number in list(self._heard):
            message = self._heard.pop(number)
            if number != self._number:
                self.close()
                made = dict(message["made"])
                self._number = number
                self._bar = _progress.bar(made.pop("total"), made.pop("desc"), progress=True, **made)
            if self._bar is not None:
                self._bar.set_postfix_str(message["postfix"], refresh=False)
                self._bar.update(message["n"] - self._bar.n)
                if message["closed"]:
                    self.close()

    def close(self) -> None:
        """Leave the bar on the screen in its last state."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@contextmanager
def shown(client: Any, name: str, progress: bool) -> Iterator[Shown]:
    """A bar for a fit on the client's cluster, hidden unless `progress` is True and there is a terminal or notebook."""
    one = Shown(name if progress and _progress.watched() else "")
    if not one.name:
        yield one
        return
    with _lock:  # without the lock, a fit could end the client's subscription after the next fit has begun
        known = _clients.setdefault(client, {})
        if not known:
            client.subscribe_topic(TOPIC, lambda event: _heard(known, event[1]))
        known[name] = one
    try:
        yield one
    finally:
        one.draw()
        one.close()
        with _lock:
            del known[name]
            if not known:
                client.unsubscribe_topic(TOPIC)


def _heard(known: dict[str, Shown], message: Any) -> None:
    if isinstance(message, dict) and (one := known.get(message.get("fit", ""))) is not None:
        one.hear(message)


# ---- bars of collections ---------------------------------------------------------------------------------------------


def computed(found: Any) -> Any:
    """A Dask collection, computed on its cluster, with a bar of its rows, or of its parts if rows are unknown."""
    rows = _rows_of(found)
    known = not any(math.isnan(n) for n in rows.values())
    what: dict[str, Any] = {"unit": "row", "unit_scale": True} if known else {"unit": "part"}
    total = sum(rows.values()) if known else len(rows)
    with _progress.bar(total, "log_prob", progress=True, **what) as bar:

        def done(key: Any) -> None:
            if key in rows:
                bar.update(rows[key] if known else 1)

        client = _client()
        if client is None:
            from dask.callbacks import Callback

            class Reports(Callback):  # type: ignore[misc]  # Dask has no types
                def _posttask(self, key: Any, *_: Any) -> None:
                    done(key)

            with Reports():
                return found.persist()
        from distributed import as_completed, futures_of

        found = client.persist(found)
        for future in as_completed(futures_of(found)):
            if future.status == "error":
                future.result()
            done(future.key)
        return found


def _client() -> Any:
    """The current client, or None if there is none."""
    try:
        from distributed import get_client

        return get_client()
    except (ImportError, ValueError):
        return None


def _rows_of(found: Any) -> dict[Any, float]:
    """The number of rows of each part by its key, NaN if unknown."""
    chunks = getattr(found, "chunks", None)
    keys = [key for one in found.__dask_keys__() for key in (one if isinstance(one, list) else [one])]
    return dict(zip(keys, [math.nan] * len(keys) if chunks is None else chunks[0], strict=True))
