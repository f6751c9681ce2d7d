"""Many flows, each fitted to a table of its own: a flow a class, a bin, a pixel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from headrace._base import arguments as check
from headrace._fit.clock import Clock
from headrace._fit.ensemble import flows_of
from headrace._fit.history import History, is_interrupted
from headrace._fit.side_by_side import Failed, run, threads_side_by_side
from headrace._flow.flow import Flow
from headrace.rows._as_stream import is_stream

_OF_A_TABLE = ("context", "weights")
_OF_ONE = ("checkpoint", "group")
_PLAIN = (TypeError, ValueError, RuntimeError)  # errors that are made of one message


def fit_many(
    flows: Sequence[Flow],
    tables: Iterable[Any],
    *,
    time_budget: float | None = None,
    progress: bool = True,
    **settings: Any,
) -> list[History]:
    """Fit each flow to its own table, in place: flow i as ``flows[i].fit(tables[i], ...)`` would, with the same bits.

    Small flows are fitted side by side, a thread each, which is faster than one after another with all threads; large
    flows, those with fewer than 10,000 parameters, and flows on a device, one after another. Flows may be of different
    classes, sizes, features and dtypes.

    Args:
        flows: At least one, each once.
        tables: One for each flow: rows ``x``, or a tuple ``(x, context)`` or ``(x, context, weights)``, as `Flow.fit`
            takes these. Any iterable: a table is asked for when a thread is free for it, so that a generator needs the
            memory of as many tables as there are threads.
        time_budget: Seconds for all flows, in equal parts; the rest of one flow's goes to those after it.
        progress: Whether to show one bar on the standard error.
        **settings: All other arguments of `Flow.fit`, the same for each flow, but `checkpoint` and `group`. The same
            `seed`, too: a flow's start is its own.

    Returns:
        The history of each fit. Memory beyond the tables is twice that of the flows, and that of the fits under way.

    Raises:
        TypeError, ValueError: As `Flow.fit`, with the index of the flow; a flow that is there twice; fewer or more
            tables than flows. After any error all flows are as before the call.
        KeyboardInterrupt: Ctrl-C; all flows are as before the call, too.

    >>> import numpy as np, headrace as hr
    >>> rng = np.random.default_rng(0)
    >>> tables = [rng.exponential(1.0 + i, (600, 1 + i)) for i in range(3)]
    >>> flows = [hr.NSF(x.shape[1], transforms=2, hidden=(16,)) for x in tables]
    >>> histories = hr.fit_many(flows, tables, progress=False)
    >>> [history.judged_by for history in histories]
    ['held-out rows', 'held-out rows', 'held-out rows']
    """
    given = _checked(flows)
    for name in _OF_A_TABLE:
        if settings.get(name) is not None:
            raise ValueError(f"{name}: expected None, as each table has its own as (x, context, weights), got one")
    for name in _OF_ONE:
        if settings.get(name) is not None:
            raise ValueError(f"{name}: expected None in a fit of many flows, got {settings[name]!r}")
    if isinstance(tables, (str, bytes)) or not np.iterable(tables):
        raise TypeError(f"tables: expected a sequence or an iterator of tables, got {check.kind_of(tables)}")
    if isinstance(tables, Sized) and len(tables) != len(given):
        raise ValueError(f"tables: expected {len(given)}, one for each flow, got {len(tables)}")
    threads, clock, streams = threads_side_by_side(given), Clock(time_budget), Lock()

    def fitted(i: int, flow: Flow, table: Any) -> History:
        x, *others = table if isinstance(table, tuple) else (table,)
        own = dict(zip(_OF_A_TABLE, others, strict=False))
        if len(others) > len(_OF_A_TABLE):
            raise ValueError(f"expected x, (x, context) or (x, context, weights), got {1 + len(others)} parts")
        if clock.is_limited:
            own["time_budget"] = clock.turn(i, len(given), threads)
        if not is_stream(x):
            return flow.fit(x, progress=progress, **own, **settings)
        with streams:  # several may read one file
            return flow.fit(x, progress=progress, **own, **settings)

    def jobs() -> Iterator[Any]:
        waiting = iter(tables)
        for i, flow in enumerate(given):
            try:
                table = next(waiting)
            except StopIteration:
                raise ValueError(f"tables: expected {len(given)}, one for each flow, got {i}") from None
            yield partial(fitted, i, flow, table)
            del table
        if next(waiting, None) is not None:
            raise ValueError(f"tables: expected {len(given)}, one for each flow, got more")

    with ExitStack() as stack:
        for flow in given:
            stack.enter_context(flow._interior.restored())
        try:
            done = run(
                jobs(),
                threads,
                total=len(given),
                progress=progress,
                is_interrupted=is_interrupted,
                named=lambda i, message: f"flows[{i}]: {message}",
            )
        except Failed as failed:
            error = failed.error
            if type(error) in _PLAIN:
                raise type(error)(f"flows[{failed.index}], tables[{failed.index}]: {error}") from error
            raise error from None
        if done.interrupted:
            raise KeyboardInterrupt
    return done.leading()


def _checked(flows: Any) -> list[Flow]:
    given = list(flows_of(flows))
    first: dict[int, int] = {}
    for i, flow in enumerate(given):
        if first.setdefault(id(flow), i) != i:
            raise ValueError(f"flows[{i}]: expected each flow once, got that of index {first[id(flow)]} again")
    return given
