"""`Flow.fit` with a group: the sums of a step, the order of rows, and the losses of held-out rows over all ranks.

Every rank computes the whole fit, except for the gradients of chunks and the densities of rows on other ranks.
Gradients and densities are exchanged as integers (`headrace.distributed.exact`), so that results do not depend on the
number of ranks.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._base import arguments as check
from headrace._base.group import Group
from headrace._base.warn import warn
from headrace._core import cpu
from headrace._fit.checkpoint import Checkpoint
from headrace._fit.fit import Fit
from headrace._fit.history import History
from headrace._fit.plan import LEAST_HELD_OUT, Plan, of_settings, rows_of_a_batch
from headrace._fit.run import Run, RunArguments
from headrace._fit.source import RowSource
from headrace._flow.fit_arguments import Arguments
from headrace._flow.flow import Flow
from headrace.distributed.exact import FixedSum
from headrace.distributed.groups import broadcast_bytes, same_everywhere, together
from headrace.distributed.shards import ShardedRows, opened, shared_names, split

CHUNK_ROWS = 512  # the most rows that the core sums in one call
_STATE = "state"  # the key of the encoded state in the dict of its arrays
_ORDER, _BATCHES, _DROPOUT = 0x0DE2, 0xBA7C, 0xD209  # keys of generators, for separate draws of one seed


class Chunk(NamedTuple):
    """Rows that are adjacent in the order of a shard, and whose gradient one rank computes."""

    number: int  # the index of the chunk among all chunks
    shard: int
    begin: int
    end: int


class Chunks:
    """The training rows in chunks, each of one shard, and the order of chunks in an epoch, independent of the ranks."""

    def __init__(self, table: ShardedRows, batch_rows: int) -> None:
        """Divide the rows of a table into chunks; `batch_rows`: the approximate size of a batch."""
        self.table, self.most = table, CHUNK_ROWS
        rows, most = table.taken, min(CHUNK_ROWS, batch_rows)
        counts = -(-rows // most)
        self.count = count = int(counts.sum())
        self._shard = np.repeat(np.arange(rows.size, dtype=np.int32), counts)
        place = np.arange(count) - np.repeat(np.cumsum(counts) - counts, counts)
        rows, counts = rows[self._shard], counts[self._shard]
        self._begin, self._end = rows * place // counts, rows * (place + 1) // counts
        self.of_a_batch = max(1, round(batch_rows * count / table.size))
        self.batches = -(-count // self.of_a_batch)

    def some(self, numbers: NDArray[np.int64]) -> list[Chunk]:
        """The chunks at the given indices, from 0 to `count` - 1."""
        found = (numbers, self._shard[numbers], self._begin[numbers], self._end[numbers])
        return [Chunk(*of) for of in zip(*(one.tolist() for one in found), strict=True)]

    def epoch(self, epoch: int) -> Iterator[list[Chunk]]:
        """Yield batches, each of one chunk from each stretch of the table, so that ranks share the work of a batch."""
        count, strata = self.count, min(self.of_a_batch, self.count)
        drawn = np.full((-(-count // strata), strata), -1)  # a column for each stretch, filled up with -1
        for j in range(strata):
            begin, end = count * j // strata, count * (j + 1) // strata
            rng = np.random.default_rng([self.table.seed, _BATCHES, epoch, j])
            drawn[: end - begin, j] = begin + rng.permutation(end - begin)
        order = drawn[drawn >= 0]
        for begin, end in pairwise(count * b // self.batches for b in range(self.batches + 1)):
            yield self.some(order[begin:end])

    def order_of(self, shard: int, epoch: int) -> NDArray[np.uint32]:
        """Indices within the training rows of a shard, in the order of an epoch."""
        rng = np.random.default_rng([self.table.seed, _ORDER, epoch, shard])
        return rng.permutation(int(self.table.taken[shard])).astype(np.uint32)


class SharedRun(Run):
    """A running fit whose gradients are sums over several ranks."""

    def __init__(self, flow: Flow, chunks: Chunks, arguments: RunArguments) -> None:
        """Prepare a fit of chunks; the other arguments are those of `Run`."""
        self.chunks, self.table = chunks, chunks.table
        super().__init__(flow, chunks.table, arguments)

    def _prepare(self) -> None:
        table = self.table
        self.library = np
        self.mean_weight = table.weight() / table.size
        self.weight = self.mean_weight * self.size
        self.sum = FixedSum(self.program.n_weights)
        self.gradient = np.empty(self.program.n_weights, self.flow.dtype)
        self.log_prob = np.empty(CHUNK_ROWS, self.flow.dtype)
        self.mine = {shard.number: shard for shard in table.shards}

    def _begin_stage(self) -> None:
        super()._begin_stage()
        self.taken = 0  # the steps that this optimiser has taken
        self.exponents: dict[int, int] = {}  # exponents by step, of at most the next two steps

    def also_kept(self, clock: int) -> dict[str, Any]:
        """The exponent of the next step, as a part of the stored state; see `Run`."""
        return {"exponent": self.exponents[clock]} if clock in self.exponents else {}

    def restored(self, kept: dict[str, Any], clock: int) -> None:
        """Restore the exponent from a state; see `Run`."""
        self.taken = clock
        self.exponents = {clock: int(kept["exponent"])} if "exponent" in kept else {}

    def _keep_if_best(self, epoch: int) -> float:
        if self.history.stopped == "interrupted" and self.held_out is not None:
            return math.nan  # other ranks may be in another collective call
        return super()._keep_if_best(epoch)

    def batches(self) -> Iterator[list[Chunk]]:
        """The batches of an epoch; see `Run`."""
        self.orders: dict[int, NDArray[np.uint32]] = {}
        return self.chunks.epoch(self.history.epochs)

    def _loss_of(self, batch: list[Chunk]) -> float:
        """The sum of the losses of a batch, NaN if it is not finite; see `Run`."""
        exponent = self._find_gradient_of(batch, self.history.epochs)
        if exponent is None:
            return math.nan
        self.exponents[self.taken + 1] = exponent
        return self.sum.loss

    def _stepped(self, loss: float) -> None:
        """Count a step; see `Run`."""
        self.exponents.pop(self.taken, None)
        self.taken += 1

    def _find_gradient_of(self, batch: list[Chunk], epoch: int) -> int | None:
        """Find the gradient of a batch's mean loss; return the next exponent, or None if a value is not finite."""
        group: Group = self.table.group
        exponent = self.exponents.get(self.taken)
        if exponent is not None:
            self._sum_chunks(batch, epoch, exponent)
        if exponent is None or self.sum.is_too_large:
            largest = float(group.maximum(np.array([self._largest(batch, epoch)]))[0])
            if not math.isfinite(largest):
                return None
            exponent = FixedSum.exponent_for(largest)
            self._sum_chunks(batch, epoch, exponent)
        self.sum.read(self.gradient, exponent)
        return self.sum.exponent_after(self.gradient, exponent)

    def _sum_chunks(self, batch: list[Chunk], epoch: int, exponent: int) -> None:
        """Sum the gradients and losses of a batch over all ranks."""
        self.sum.clear()
        for gradient, loss in self._gradients(batch, epoch):
            self.sum.add(gradient, exponent)
            self.sum.add_loss(loss)
        self.sum.over(self.table.group)

    def _largest(self, batch: list[Chunk], epoch: int) -> float:
        """The largest entry of this rank's gradients; infinity if an entry is not finite."""
        found = [float(np.abs(gradient).max(initial=0.0)) for gradient, _ in self._gradients(batch, epoch)]
        return max((one if math.isfinite(one) else math.inf for one in found), default=0.0)

    def _gradients(self, batch: list[Chunk], epoch: int) -> Iterator[tuple[NDArray[Any], float]]:
        """The gradient and the loss of each chunk of this rank; all gradients are in one array."""
        rows = sum(chunk.end - chunk.begin for chunk in batch)
        for chunk in batch:
            if (shard := self.mine.get(chunk.shard)) is None:
                continue
            order = self.orders.get(chunk.shard)
            if order is None:
                order = self.orders[chunk.shard] = self.chunks.order_of(chunk.shard, epoch)
            index, data = shard.part.at(order[chunk.begin : chunk.end].astype(np.int64)), shard.data
            log_prob = self.log_prob[: index.size]
            self._find_gradient_in(data, index, rows, log_prob, self._dropout_of(chunk, epoch))
            yield self.gradient, -_arrays.weighted_sum(log_prob, None if data.weights is None else data.weights[index])

    def _dropout_of(self, chunk: Chunk, epoch: int) -> int | None:
        """The seed of a chunk's dropout; None without dropout."""
        if not self.drops:
            return None
        return int(np.random.default_rng([self.table.seed, _DROPOUT, epoch, chunk.number]).integers(2**63))


@dataclass(frozen=True)
class OwnFile(os.PathLike[str]):
    """The path of a checkpoint file for each rank, if ranks share no folder."""

    path: str

    def __fspath__(self) -> str:
        """The path as a string."""
        return self.path


class SharedCheckpoint(Checkpoint):
    """A checkpoint in one file, which rank 0 reads and writes, or in a file for each rank; the newest file is read."""

    def __init__(self, path: Any, every: Any, group: Group) -> None:
        """Prepare a checkpoint in a group; see `Checkpoint`."""
        super().__init__(path, every)
        self.group = group
        self.writes = self.writes and (group.rank == 0 or isinstance(path, OwnFile))

    def open(self, fingerprint: dict[str, str]) -> None:
        """Read the state on one rank, and send it to all; see `Checkpoint`."""
        if self.path is None:
            return
        with together(self.group):
            if self.writes:
                super().open(fingerprint)
        places = np.zeros(self.group.size, np.int64)
        if self._found is not None:
            places[self.group.rank] = 1 + (self._found[0]["epoch"] << 32) + self._found[0]["batches"]
        root = int(np.argmax(self.group.sum(places)))
        data = b""
        if self.group.rank == root and self._found is not None:
            stream = io.BytesIO()
            state, arrays = self._found
            kept: dict[str, Any] = {_STATE: np.frombuffer(json.dumps(state).encode(), np.uint8), **arrays}
            np.savez(stream, **kept)
            data = stream.getvalue()
        if (data := broadcast_bytes(self.group, data, root)) and self.group.rank != root:
            arrays = dict(np.load(io.BytesIO(data)))  # np.load refuses pickles
            self._found = json.loads(arrays.pop(_STATE).tobytes()), arrays


class SharedFit(Fit):
    """A fit in a group: all ranks check its call together, and batches consist of chunks."""

    source: ShardedRows
    judge: ShardedRows | None

    def __init__(self, flow: Flow, history: History, arguments: Arguments) -> None:
        """Check the group's call; see `Fit`."""
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
        """Open and check the shards of all ranks; see `Fit`."""
        flow, given = self.flow, (x, context, self.arguments.weights)
        of_flow = self.group, flow.features, flow.context, self.caller
        table = opened(*of_flow, *given, support=flow._interior.support, seed=self.seed)
        same_everywhere(self.group, {"seed": str(self.seed)})
        self.named = shared_names(self.group, x, context, flow._interior.names)
        self.source, self.judge = split(table, self.arguments.validation, self.caller)

    def planned(self) -> Plan:
        """The plan, with the number of batches that the chunks determine; see `Fit`."""
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
        """The settings and rows that a checkpoint must match; see `Fit`."""
        judge = self.judge
        out = "none" if judge is None else f"{judge.size} of {judge.fingerprint()['rows']}"
        return {**self.settings, **self.source.fingerprint(), "rows held out": out}

    def cross_validates(self, held: int) -> bool:
        """Refuse cross-validation, which groups do not support; see `Fit`."""
        raise ValueError(
            f"epochs: expected a number with a group where so few rows are held out as {held}, because no "
            f"cross-validation is done on several ranks; or hold out at least {LEAST_HELD_OUT} rows by `validation`"
        )

    def run_of(self, flow: Flow, source: RowSource, arguments: RunArguments) -> Run:
        """The run of a fit in a group, with a warning if ranks would be idle; see `Fit`."""
        size, chunks = self.group.size, self.chunks
        if source.is_first and size > chunks.of_a_batch:
            parts = "one chunk" if chunks.of_a_batch == 1 else f"{chunks.of_a_batch} chunks"
            warn(
                f"fit: a batch is {parts} of rows, so that no more of the {size} ranks have something to do at a time; "
                f"give batch_size={chunks.most * size} or more"
            )
        return SharedRun(flow, self.chunks, arguments)


def check_group(group: Any) -> Group:
    """The group, checked for its methods, size and rank."""
    if not isinstance(group, Group):
        raise TypeError(f"group: expected a Group of local(), from_torch() or from_mpi(), got {check.kind_of(group)}")
    size = check.integer("group.size", group.size, least=1)
    check.integer("group.rank", group.rank, most=size - 1)
    return group
