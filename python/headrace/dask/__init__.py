"""Fits, scores and samples of rows in Dask collections: each worker of a cluster is a rank where its rows are.

Needs Dask and distributed, ``pip install ".[dask]"``, on the client and on all workers. docs/scale.md explains how
it works, also with SLURM, MPI, PyTorch, Ray and Spark.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headrace._arrays.names import refuse_others
from headrace._base import arguments as check
from headrace._base.install import install
from headrace._flow.flow import Flow
from headrace.ascent.dual_ascent import DualAscentFlow
from headrace.dask import _launch
from headrace.dask._lazy import log_prob, sample
from headrace.dask._table import called, has_rows, shards_of
from headrace.distributed.shards import ROWS

if TYPE_CHECKING:
    from headrace.ascent.flow import AscentFlow
    from headrace.training import History

__all__ = ["fit", "fit_ascent", "log_prob", "sample"]

COLLECTIVES = ("auto", "gloo", "dask")


def fit(
    flow: Flow,
    x: Any,
    weights: Any = None,
    context: Any = None,
    client: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    columns: Sequence[Any] | None = None,
    validation: Any = 0.1,
    rows: int = ROWS,
    collective: str = "auto",
    timeout: float = 60.0,
    restarts: int = 3,
    progress: bool = True,
    **options: Any,
) -> History:
    """`Flow.fit` on a cluster: the flow is fitted in place, with the bits of ``flow.fit(rows, group=local())``.

    These depend on neither the workers, their number or order, nor partitions, nor lost workers: a *shard* is ``rows``
    neighbouring rows of the whole table. Partitions are computed and stay on the workers; each worker that holds shards
    is a rank.

    **If a worker ends**, the fit goes on with the remaining ones, from the last state: each worker keeps one in its own
    scratch space every `checkpoint_every` seconds. Dask computes the lost rows again.

    Args:
        flow: On the CPU.
        x: An array of Dask, shape (rows, features), float32 or float64, in any chunks; or a frame, in any partitions.
        weights: An array of Dask or NumPy, shape (rows,); of a frame also the name of a column.
        context: An array of Dask or NumPy, shape (rows, context); of a frame also names of columns.
        client: A `distributed.Client`; by default the present one.
        checkpoint: A file for the state of the fit that all workers can reach, in place of the scratch spaces: with
            it the same call goes on after the whole cluster was lost.
        columns: Of a frame, names of the features; by default all columns that are nothing else.
        validation: The share of rows to hold out, or rows of your own: a collection as x, or a tuple (x, context,
            weights) of such; None for none.
        rows: Of a shard. The bits depend on it.
        collective: For sums: "gloo" (PyTorch on all workers), "dask" (Dask's own connections, which take longer), or
            "auto": gloo where it is installed and starts.
        timeout: Seconds that a worker may let the others wait.
        restarts: The number of times that workers may be lost.
        progress: Whether to show a bar on the standard error of this process, if it is a terminal; where a
            worker was lost it returns to the stored state.
        **options: All others of `Flow.fit` but `group` and `time_budget`.

    Returns:
        As `Flow.fit`.

    Raises:
        TypeError, ValueError: As `Flow.fit` with a group, and no collection of Dask.
        headrace.distributed.GroupError: workers were lost more often than `restarts`.
    """
    if not isinstance(flow, Flow):
        raise TypeError(f"flow: expected a headrace.Flow, got {check.kind_of(flow)}")
    if flow._interior.on_device:
        raise ValueError("flow: expected one on the CPU, got one on a CUDA device; call flow.to('cpu')")
    _check_options(options, flow.fit)
    if checkpoint is not None:
        options["checkpoint"] = os.path.abspath(os.fspath(checkpoint))
    launch = _launch_of(client, collective, timeout, restarts, checkpoint is None, progress)
    named, known = called(x, columns, context, weights), flow._interior.names
    for name, given, own in (("x", named.features, known.features), ("context", named.context, known.context)):
        if given is not None and own is not None:
            refuse_others(name, given, own)
    with launch.client.as_current():
        shards, judge, validation = _shards(launch.client, x, context, weights, columns, validation, rows)
        arguments = {"model": flow, "options": {**options, "validation": validation}}
        fitted, history = _launch.launched(launch, arguments, shards, judge)
    with flow._interior.restored():
        flow._interior.become(fitted)
    flow._interior.name(known.or_those_of(named))
    return history


def fit_ascent(
    model: DualAscentFlow,
    x: Any,
    weights: Any = None,
    client: Any = None,
    *,
    columns: Sequence[Any] | None = None,
    validation: Any = 0.1,
    rows: int = ROWS,
    collective: str = "auto",
    timeout: float = 60.0,
    restarts: int = 3,
    progress: bool = True,
) -> AscentFlow:
    """`DualAscentFlow.fit` on a cluster, with the bits of ``model.fit(rows, group=local())``; see `fit`.

    A step sends a few sums, for which Dask's own connections suffice. If a worker ends, the ascent starts again.

    Args:
        model: The settings; gets the `history`.
        x, weights, client, columns, rows, collective, timeout, restarts, progress: As in `fit`.
        validation: As in `fit`; a tuple is (x, None, weights).

    Raises:
        TypeError, ValueError, headrace.distributed.GroupError: As in `fit`.
    """
    if not isinstance(model, DualAscentFlow):
        raise TypeError(f"model: expected a headrace.DualAscentFlow, got {check.kind_of(model)}")
    launch = _launch_of(client, collective, timeout, restarts, False, progress)
    with launch.client.as_current():
        shards, judge, validation = _shards(launch.client, x, None, weights, columns, validation, rows)
        arguments = {"model": model, "options": {"validation": validation}}
        fitted, flow = _launch.launched(launch, arguments, shards, judge)
    model.history = fitted.history
    flow._interior.name(called(x, columns, None, weights))
    return flow


def _check_options(options: dict[str, Any], of: Any) -> None:
    """Refuse arguments here that a worker would refuse."""
    for name in ("group", "time_budget"):
        if options.get(name) is not None:
            raise ValueError(f"{name}: expected None, because the workers are the group, got {options[name]!r}")
        options.pop(name, None)
    known = inspect.signature(of).parameters
    for name in options:
        if name not in known:
            raise TypeError(f"fit: expected arguments of Flow.fit, got {name!r}")


def _launch_of(
    client: Any, collective: Any, timeout: Any, restarts: Any, keeps: bool, progress: bool
) -> _launch.Launch:
    if collective not in COLLECTIVES:
        raise ValueError(f"collective: expected one of {', '.join(map(repr, COLLECTIVES))}, got {collective!r}")
    seconds = check.number("timeout", timeout, above=0.0, below=math.inf)
    again = check.integer("restarts", restarts)
    try:
        from distributed import Client, get_client
    except ImportError as error:
        raise ImportError(f"headrace.dask: expected distributed; {install('dask')} ({error})") from error
    if client is None:
        client = get_client()
    if not isinstance(client, Client) or client.asynchronous:
        raise TypeError(f"client: expected a distributed.Client that is not asynchronous, got {check.kind_of(client)}")
    return _launch.Launch(client, collective, seconds, again, keeps and again > 0, bool(progress))


def _shards(
    client: Any, x: Any, context: Any, weights: Any, columns: Any, validation: Any, rows: Any
) -> tuple[list[Any], list[Any] | None, Any]:
    """Shards to fit, shards to judge by, and the share to hold out instead."""
    size = check.integer("rows", rows, least=1)
    shards = shards_of(client, "", x, context, weights, columns, size)
    if validation is None or isinstance(validation, (int, float)):
        return shards, None, validation
    given = validation if isinstance(validation, tuple) else (validation,)
    if not 1 <= len(given) <= 3:
        raise TypeError(f"validation: expected a share, x, or a tuple (x, context, weights), got {len(given)} of them")
    own: Any = (*given, None, None)[:3]
    names = {"context": own[1], "weights": own[2]}
    if len(given) == 1:  # a frame has columns of the same names
        names = {"context": None if has_rows(context) else context, "weights": None if has_rows(weights) else weights}
    return shards, shards_of(client, "validation ", own[0], names["context"], names["weights"], columns, size), None
