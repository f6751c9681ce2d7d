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
from headrace._fit.plan import Plan
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
    checked: Plan
    plan: dict[str, Any]
    seed: int
    caller: Caller
    before: bool | None  # what a fit that was stopped had found
    wanted: bool  # whether there may be some
    found: tuple[Gaussianize, ...] = ()

    def __call__(self, mean: Floats, std: Floats) -> tuple[Transform, ...]:
        """A `Gaussianize`, where rows gain by it: what rank 0 finds."""
        if not self.wanted or self.before is False:
            return ()
        data = self._sample()
        n = self.flow.features
        numbers = np.zeros((_marginals.LINKS, 2 * n + 2, _marginals.MOST))  # the last row has how many knots there are
        if self.table.group.rank == 0:  # NumPy rounds as its version and the processor do
            for link, own in zip(self._searched(data, mean, std), numbers, strict=False):
                own[:-1, : link.latent.size] = np.concatenate([link.data, link.slopes, link.latent[None]])
                own[-1] = link.latent.size
        links = []
        for own in self.table.group.broadcast(numbers):
            if count := int(own[-1, 0]):
                own = np.ascontiguousarray(own[:, :count])
                links.append(Gaussianize(own[:n], own[-2], own[n : 2 * n]))
        _marginals.check_found(self.checked.gaussianize, links)
        self.found = tuple(links)
        return self.found

    def _searched(self, data: Data, mean: Floats, std: Floats) -> tuple[Gaussianize, ...]:
        found = _marginals.gaussianizing(data, Part(len(data.x)), mean, std, Clock())
        if not found or self.checked.gaussianize or self.before:
            return found
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
        return found if _marginals.gain(runs[0], runs[1], held_out, in_doubt) else ()

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
