"""The marginal maps that a distributed fit starts with: `headrace._fit.marginals` of some rows that all ranks get."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._fit import marginals as _marginals
from headrace._fit.act_norms import start_act_norms
from headrace._fit.clock import Clock
from headrace._fit.history import History
from headrace._fit.plan import FEW, Plan
from headrace._fit.rows import Data, Part
from headrace._fit.run import HeldOut, Run
from headrace.distributed.shards import Table
from headrace.distributed.starting import weights_of
from headrace.transforms.fixed import Standardize
from headrace.transforms.gaussianize import Gaussianize
from headrace.transforms.transform import Transform

if TYPE_CHECKING:
    from headrace._arrays.caller import Caller
    from headrace._interior import Trainable

__all__ = ["Marginals"]

Floats = NDArray[np.float64]

JUDGED = 8  # of so many rows of a trial one is held out


@dataclass
class Marginals:
    """A fit that asks for its marginal maps once it knows means and standard deviations."""

    flow: Trainable
    table: Table
    held: int  # rows held out, of all ranks
    checked: Plan
    plan: dict[str, Any]
    seed: int
    caller: Caller
    before: bool | None  # what a fit that was stopped had found
    found: bool = False  # whether there are any

    def __call__(self, mean: Floats, std: Floats) -> tuple[Transform, ...]:
        """A `Gaussianize`, where rows gain by it: what rank 0 finds."""
        told = self.checked.gaussianize
        if told is False or not self.flow._interior.is_over_a_bell or self.held < FEW or self.before is False:
            return ()
        if told is None and self.checked.epochs * self.checked.batches < _marginals.TRIED:
            return ()
        data, mine = self._sample(), None
        if self.table.group.rank == 0:  # NumPy rounds as its version and the processor do
            mine = self._searched(data, mean, std)
        n = self.flow.features
        numbers = np.zeros((2 * n + 2, _marginals.MOST))  # and in the last row how many knots there are
        if mine is not None:
            count = mine.latent.size
            numbers[:-1, :count] = np.concatenate([mine.data, mine.slopes, mine.latent[None]])
            numbers[-1] = count
        numbers = self.table.group.broadcast(numbers)
        count = int(numbers[-1, 0])
        self.found = count > 0
        numbers = np.ascontiguousarray(numbers[:, :count])
        return (Gaussianize(numbers[:n], numbers[-2], numbers[n : 2 * n]),) if self.found else ()

    def _searched(self, data: Data, mean: Floats, std: Floats) -> Gaussianize | None:
        found = _marginals.gaussianizing(data, Part(len(data.x)), mean, std, Clock())
        if not found or self.checked.gaussianize or self.before:
            return found[0] if found else None
        rows = len(data.x)
        key = int(np.random.default_rng(self.seed).integers(1 << 63))
        parts = [Part(rows, rows // JUDGED, key, out=out) for out in (False, True)]
        held_out, runs = HeldOut(data, parts[1], False), []
        plan = Plan.of(self.flow, parts[0].size, judged=True, **self.plan)
        for links in (found, ()):
            flow = copy.copy(self.flow)
            flow._interior.rescale((*links, Standardize(mean, std)), self._of_context(data))
            start_act_norms(flow, data, parts[0])
            rng = np.random.default_rng(self.seed)
            runs.append(Run(flow, data, parts[0], held_out, plan, rng, self.caller, History(), Clock()))
        in_doubt = _marginals.has_long_tails(found)
        return found[0] if _marginals.gain(runs[0], runs[1], held_out, in_doubt) else None

    def _of_context(self, data: Data) -> tuple[Floats, Floats] | None:
        if data.context is None or self.flow.standardize_context is not None:
            return None
        return data.moments_of(Part(len(data.x)), True, False)

    def _sample(self) -> Data:
        """Some training rows of all ranks, each of which adds its own to zeros: integers keep every bit."""
        n, most = self.flow.features, min(self.table.size, _marginals.ROWS)
        sample = np.zeros((most, n + self.flow.context + 1))
        shares = [self.table.share_of(shard, most) for shard in self.table.shards]
        given = [share for share in shares if share[0] < share[1]]
        for (first, end), data in zip(given, self.table.training(most), strict=True):
            sample[first:end, :n] = data.x
            if data.context is not None:
                sample[first:end, n:-1] = data.context
            sample[first:end, -1] = weights_of(data)
        sample = self.table.group.sum(sample.view(np.int64)).view(np.float64)
        context = np.ascontiguousarray(sample[:, n:-1]) if self.flow.context else None
        x, weights = (np.ascontiguousarray(part) for part in (sample[:, :n], sample[:, -1]))
        return Data(x, context, weights, (), self.flow._interior.support)
