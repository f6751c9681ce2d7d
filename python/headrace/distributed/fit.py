"""`Flow.fit` with a group: `headrace._fit.fit.Fit` with the rows of all ranks."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from headrace._base import arguments as check
from headrace._base.group import Group
from headrace._base.warn import warn
from headrace._core import cpu
from headrace._fit.fit import Fit
from headrace._fit.history import History
from headrace._fit.plan import LEAST_HELD_OUT, Plan, of_settings, rows_of_a_batch
from headrace._fit.run import Run, RunArguments
from headrace._fit.source import RowSource
from headrace._flow.fit_arguments import Arguments
from headrace._flow.internals import Trainable
from headrace.distributed.groups import same_everywhere, together
from headrace.distributed.run import Chunks, SharedCheckpoint, SharedRun
from headrace.distributed.shards import ShardedRows, opened, shared_names, split


class SharedFit(Fit):
    """A fit of a group: all ranks check the same call together, and batches are of chunks."""

    source: ShardedRows
    judge: ShardedRows | None

    def __init__(self, flow: Trainable, history: History, arguments: Arguments) -> None:
        """See `Fit`."""
        self.group = check_group(arguments.group)
        with together(self.group):
            if arguments.time_budget is not None:
                raise ValueError("time_budget: expected None with a group, whose bits do not depend on time")
            if flow._interior.on_device:
                raise ValueError("group: expected a flow on the CPU, got one on a CUDA device; call flow.to('cpu')")
            super().__init__(flow, history, arguments)

    def _kept(self, arguments: Arguments) -> SharedCheckpoint:
        return SharedCheckpoint(arguments.checkpoint, arguments.checkpoint_every, self.group)

    def open(self, x: Any, context: Any) -> None:
        """See `Fit`."""
        flow, given = self.flow, (x, context, self.arguments.weights)
        of_flow = self.group, flow.features, flow.context, self.caller
        table = opened(*of_flow, *given, support=flow._interior.support, seed=self.seed)
        same_everywhere(self.group, {"seed": str(self.seed)})
        self.named = shared_names(self.group, x, context, flow._interior.names)
        self.source, self.judge = split(table, self.arguments.validation, self.caller)

    def planned(self) -> Plan:
        """See `Fit`; the chunks determine the number of batches."""
        with together(self.group):
            plan, size = super().planned(), self.source.size
            self.chunks = Chunks(self.source, rows_of_a_batch(size, self.arguments.checked().batch_size))
            plan = replace(plan, batches=self.chunks.batches)
            self.settings = of_settings(self.flow, plan, self.seed, self.arguments.plan)
            self.settings |= {name: str(value) for name, value in asdict(plan).items()}
            self.settings |= {
                "instruction set": cpu.isa(),
                "version": cpu.__version__,
                "checkpoint": str(self.kept.path is not None),
            }
        same_everywhere(self.group, self.settings)
        return plan

    def fingerprint(self) -> dict[str, str]:
        """See `Fit`."""
        judge = self.judge
        out = "none" if judge is None else f"{judge.size} of {judge.fingerprint()['rows']}"
        return {**self.settings, **self.source.fingerprint(), "rows held out": out}

    def cross_validates(self, held: int) -> bool:
        """See `Fit`."""
        raise ValueError(
            f"epochs: expected a number with a group where so few rows are held out as {held}, as no "
            f"cross-validation is done on several ranks; or hold out at least {LEAST_HELD_OUT} rows by `validation`"
        )

    def run_of(self, flow: Trainable, source: RowSource, arguments: RunArguments) -> Run:
        """See `Fit`."""
        if source.is_first:
            _warn_of_idle_ranks(self.group.size, self.chunks)
        return SharedRun(flow, self.chunks, arguments)


def _warn_of_idle_ranks(size: int, chunks: Chunks) -> None:
    if size > chunks.of_a_batch:
        parts = "one chunk" if chunks.of_a_batch == 1 else f"{chunks.of_a_batch} chunks"
        warn(
            f"fit: a batch is {parts} of rows, so that no more of the {size} ranks have something to do at a time; "
            f"give batch_size={chunks.most * size} or more"
        )


def check_group(group: Any) -> Group:
    """The group, checked."""
    if not isinstance(group, Group):
        raise TypeError(
            f"group: expected a headrace.distributed.Group, as local(), from_torch() and from_mpi() make, got "
            f"{check.kind_of(group)}"
        )
    size = check.integer("group.size", group.size, least=1)
    check.integer("group.rank", group.rank, most=size - 1)
    return group
