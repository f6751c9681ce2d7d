"""`Flow.fit` with a group."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import _arguments as check
from headrace._core import cpu
from headrace._fit import rows as _rows
from headrace._fit.clock import Clock
from headrace._fit.fingerprint import of_settings
from headrace._fit.history import History
from headrace._fit.marginals import looked_for
from headrace._fit.plan import FEW, MANY, Plan
from headrace._fit.run import is_untrained, warn_of_no_gain
from headrace.distributed.groups import Group
from headrace.distributed.marginals import Marginals
from headrace.distributed.run import Chunks, SharedCheckpoint, SharedHeldOut, SharedRun, planned
from headrace.distributed.shards import opened, split
from headrace.distributed.starting import decorrelating, not_worse_than, standardize
from headrace.distributed.together import same_everywhere, together

if TYPE_CHECKING:
    from headrace._interior import Trainable

__all__ = ["fit"]


def fit(
    flow: Trainable,
    x: Any,
    context: Any,
    history: History,
    *,
    group: Group,
    weights: Any,
    validation: Any,
    seed: Any,
    progress: bool,
    time_budget: Any = None,
    checkpoint: Any,
    checkpoint_every: Any,
    **plan: Any,
) -> None:
    """See `headrace.training.fit`; the history is filled in."""
    check_group(group)
    with together(group):
        if time_budget is not None:
            raise ValueError("time_budget: expected None with a group, whose bits do not depend on time")
        if flow._interior.on_device:
            raise ValueError("group: expected a flow on the CPU, got one on a CUDA device; call flow.to('cpu')")
        number = check.integer("seed", seed)
        kept = SharedCheckpoint(checkpoint, checkpoint_every)
        kept.group = group
    caller, support = flow._interior.caller(), flow._interior.support
    table = opened(group, flow.features, flow.context, caller, x, context, weights, support=support, seed=number)
    same_everywhere(group, {"seed": str(number)})
    judge = split(table, validation, flow.features, flow.context, caller, support)
    with together(group):
        checked, chunks = planned(
            table, Plan.of(flow, table.size, judged=judge is not None, **plan), plan["batch_size"]
        )
        settings = of_settings(flow, checked, number, plan)
        settings |= {name: str(value) for name, value in asdict(checked).items()}
        settings |= {
            "instruction set": cpu.isa(),
            "version": cpu.__version__,
            "checkpoint": str(checkpoint is not None),
        }
    same_everywhere(group, settings)
    fresh, held = flow._interior.is_fresh, 0 if judge is None else judge.held
    wanted = looked_for(checked.gaussianize, flow._interior, held, checked.epochs * checked.batches)
    by_default = plan["epochs"] is None and judge is not None
    if by_default and judge is not None and judge.held < FEW:
        raise ValueError(
            f"epochs: expected a number with a group where so few rows are held out as {judge.held}, as no "
            f"cross-validation is done on several ranks; or hold out at least {FEW} rows by `validation`"
        )
    if kept.path is not None:
        settings["rows"] = table.checksum()
        settings["rows held out"] = "none" if judge is None else f"{judge.held} of {judge.checksum()}"
        kept.open(settings)
    first = group.rank == 0
    if first:
        _warn_of_idle_ranks(group.size, chunks)
    curves = Marginals(flow, table, checked, plan, number, caller, kept.gaussianized, wanted)
    standardize(flow, table, first, curves)
    history.gaussianized = bool(curves.found)
    start = flow._interior.vector() if fresh and judge is not None and table.size <= MANY else None
    held_out = None
    if judge is not None:
        held_out, history.judged_by = SharedHeldOut(judge), "held-out rows"
    rng = np.random.default_rng(number)
    data: Any = table
    run = SharedRun(flow, data, data, held_out, checked, rng, caller, history, Clock(), 0, kept)
    run.chunks = chunks
    run.go(progress and first)
    lost = fresh and judge is not None and is_untrained(history)
    if start is not None and judge is not None and history.stopped != "interrupted" and (by_default or lost):
        standard, own = flow._interior.standardize, curves.found if checked.gaussianize else ()
        assert standard is not None
        with flow._interior.restored():  # to the trained weights
            links = (*decorrelating(flow, table, own), *own, standard)
            not_worse_than(flow, judge, history, start, links, 1 + len(curves.found), bool(own), by_default)
    if first and lost and not (by_default and history.gaussian):
        warn_of_no_gain(history)
    if history.stopped != "interrupted":
        kept.remove()


def _warn_of_idle_ranks(size: int, chunks: Chunks) -> None:
    if size > chunks.of_a_batch:
        parts = "one chunk" if chunks.of_a_batch == 1 else f"{chunks.of_a_batch} chunks"
        _rows.warn(
            f"fit: a batch is {parts} of rows, so that no more of the {size} ranks have something to do at a time; "
            f"give batch_size={chunks.most * size} or more"
        )


def check_group(group: Any) -> None:
    """Refuse what is no group."""
    if not isinstance(group, Group):
        raise TypeError(
            f"group: expected a headrace.distributed.Group, as local(), from_torch() and from_mpi() make, got "
            f"{check.kind_of(group)}"
        )
    size = check.integer("group.size", group.size, least=1)
    check.integer("group.rank", group.rank, most=size - 1)
