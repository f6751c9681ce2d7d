"""Fits, scores and samples for Dask collections: each worker of a cluster is a rank and holds its part of the rows.

The package needs Dask and distributed, ``pip install ".[dask]"``, on the client and on all workers. docs/scale.md
explains the use, also with SLURM, MPI, PyTorch, Ray and Spark.
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
    """`Flow.fit` on a cluster: the flow is fitted in place, with the same bits as ``flow.fit(rows, group=local())``.

    The bits of a fit do not depend on the workers, on their number or order, on partitions or on lost workers: a
    *shard* has ``rows`` adjacent rows of the whole table. Partitions are computed and stay on the workers; each worker
    that holds shards is a rank.

    **If a worker ends**, the fit continues on the remaining workers from the last state, which each worker stores in
    its scratch space every `checkpoint_every` seconds. Dask computes the lost rows again.

    Args:
        flow: A flow on the CPU.
        x: A Dask array, shape (rows, features), float32 or float64, in any chunks; or a Dask frame, in any partitions.
        weights: A Dask or NumPy array, shape (rows,); for a frame x, it can be the name of a column.
        context: A Dask or NumPy array, shape (rows, context); for a frame x, it can be names of columns.
        client: A `distributed.Client`; by default the current one.
        checkpoint: A file for the state of the fit that all workers can reach, instead of the scratch spaces: the
            same call then continues even after the whole cluster was lost.
        columns: For a frame, the names of the features; by default all columns that are neither context nor weights.
        validation: The share of rows to hold out, or rows of the caller: a collection like x, or a tuple (x, context,
            weights) of collections; None for no held-out rows.
        rows: The rows of a shard, on which the bits depend.
        collective: The library of the sums: "gloo" (PyTorch on all workers), "dask" (Dask's own connections, slower),
            or "auto": gloo if it is installed and starts.
        timeout: The seconds that one worker may let other workers wait.
        restarts: The number of times that workers may be lost.
        progress: Whether to show a bar on the standard error of this process, if that is a terminal; after the loss of
            a worker the bar returns to the stored state.
        **options: All other arguments of `Flow.fit`, except `group` and `time_budget`.

    Returns:
        The history, as `Flow.fit` returns it.

    Raises:
        TypeError, ValueError: an argument is not as expected, as in `Flow.fit` with a group, or x is not a Dask
            collection.
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
    """`DualAscentFlow.fit` on a cluster, with the same bits as ``model.fit(rows, group=local())``; see `fit`.

    A step of the ascent sends only a few sums, for which Dask's own connections suffice. If a worker ends, the ascent
    starts again from the first step.

    Args:
        model: The settings of the ascent; its attribute `history` is set.
        x, weights, client, columns, rows, collective, timeout, restarts, progress: As in `fit`.
        validation: As in `fit`; a tuple has the form (x, None, weights).

    Raises:
        TypeError, ValueError, headrace.distributed.GroupError: as in `fit`.
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
    """Refuse, before any rank starts, the arguments that a worker would refuse."""
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
    """The shards to fit, the validation shards or None, and the share of rows to hold out or None."""
    size = check.integer("rows", rows, least=1)
    shards = shards_of(client, "", x, context, weights, columns, size)
    if validation is None or isinstance(validation, (int, float)):
        return shards, None, validation
    given = validation if isinstance(validation, tuple) else (validation,)
    if not 1 <= len(given) <= 3:
        raise TypeError(f"validation: expected a share, x, or a tuple (x, context, weights), got {len(given)} of them")
    own: Any = (*given, None, None)[:3]
    names = {"context": own[1], "weights": own[2]}
    if len(given) == 1:  # a frame of validation rows has the same columns
        names = {"context": None if has_rows(context) else context, "weights": None if has_rows(weights) else weights}
    return shards, shards_of(client, "validation ", own[0], names["context"], names["weights"], columns, size), None
