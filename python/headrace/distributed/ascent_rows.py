"""What an ascent on several ranks is made of rows: `headrace.ascent.rows`, of which each rank has some shards."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays.caller import Caller
from headrace._arrays.device_caller import caller_of
from headrace._fit import rows as _rows
from headrace._fit.rows import Data, Part
from headrace.ascent import rows as _ascent_rows
from headrace.ascent.circles import counted, cut_open, off
from headrace.ascent.rows import Rows, jittered
from headrace.distributed.fit import check_group
from headrace.distributed.groups import Group
from headrace.distributed.shards import Table, opened, split
from headrace.distributed.starting import moments_of
from headrace.distributed.together import gathered, same_everywhere, together
from headrace.transforms.support import Support, support_or_none

__all__ = ["SharedRows", "shared_rows"]

Floats = NDArray[np.float64]

_COPIES, _NOISE = 0xC09E, 0x2015  # tell draws from others of the same seed


class SharedRows(Rows):
    """Rows of all ranks to fit and held out, of which this one has some shards, with what standardises them."""

    def __init__(self, table: Table, judge: Table | None, precision: float, seed: int, dtype: Any) -> None:
        """See the class; columns without spread are warned of by name, and those whose values repeat."""
        group, root = table.group, math.sqrt(precision)
        self.group, self.table, self.judge = group, table, judge
        self.seed, self.dtype, self.device, self.unit = seed, np.dtype(dtype), None, 1.0 / root
        features = int(group.maximum(np.array([max((s.data.x.shape[1] for s in table.shards), default=0)]))[0])
        names = tuple(f"column {i}" for i in range(features))
        mean, std = moments_of("x", table, lambda data: data.x.astype(np.float64), names, group.rank == 0)
        self.mean, self.std = mean, std * root
        self.train = np.empty(0, np.int64)
        # Who sees these sees nothing of rows, but whether there are any.
        self.held_out = None if judge is None else Data(np.empty((0, features)), None, None)
        scale = _power_of_two_for(table, judge)
        self.own = [self._taken(shard.data, shard.train, scale) for shard in table.shards]
        self.others = []
        for shard in () if judge is None else judge.shards:
            if shard.held_out is not None:
                self.others.append(self._taken(shard.data, shard.held_out, scale))
        self._spread_repeated()

    @property
    def count(self) -> int:
        """Training rows of all ranks."""
        return self.table.size

    def _taken(self, data: Data, part: Part, scale: int) -> tuple[Floats, Floats | None]:
        chosen = data.rows(part.all())
        weights = None if chosen.weights is None else np.ldexp(chosen.weights.astype(np.float64), -scale)
        return self.standardised(chosen.x), weights

    def _spread_repeated(self) -> None:
        """Find columns with a spread, and spread repeated values."""
        group, n = self.group, len(self.mean)
        assert group is not None
        low, high = np.full(n, np.inf), np.full(n, -np.inf)
        for z, _ in self.own:
            if len(z):
                low, high = np.minimum(low, z.min(axis=0)), np.maximum(high, z.max(axis=0))
        low, high = -group.maximum(-low), group.maximum(high)
        active = np.flatnonzero(high - low > _ascent_rows.FLAT)
        looked_at = self.picked(
            np.arange(0, self.count, -(-self.count // _ascent_rows.LOOKED_AT)), [z for z, _ in self.own]
        )
        spread = np.zeros(n)
        for k in active:
            column = looked_at[:, k].astype(self.dtype).astype(np.float64) / self.unit
            spread[k] = self.unit * _ascent_rows._spread(column)
        if spread.any():
            for shard, (z, _) in zip(self.table.shards, self.own, strict=True):
                rng = np.random.default_rng([self.seed, _ascent_rows._SPREAD_SEED, shard.number])
                z += spread * (rng.random(z.shape) - 0.5)
            repeated = np.flatnonzero(spread)
            if group.rank == 0:
                warnings.warn(
                    f"x: values repeat in {repeated.size} columns ({_ascent_rows._listing(repeated)}); the fit spreads "
                    "them between one value and the next, or over a thousandth of the standard deviation where that is "
                    "more",
                    RuntimeWarning,
                    stacklevel=5,
                )
        self._standard = np.empty((0, n)), active, spread

    def picked(self, places: NDArray[np.int64], parts: list[NDArray[Any]]) -> Floats:
        """Some training rows of all ranks by their places among them; `parts`: what this rank's shards have there."""
        ends = np.cumsum(self.table.trained)
        mine, at = [np.empty((0, self._columns(parts)))], [np.empty(0, np.int64)]
        for shard, part in zip(self.table.shards, parts, strict=True):
            first = int(ends[shard.number] - self.table.trained[shard.number])
            found = np.flatnonzero((places >= first) & (places < ends[shard.number]))
            mine.append(part[places[found] - first].astype(np.float64))
            at.append(found)
        assert self.group is not None
        return gathered(self.group, np.concatenate(mine), np.concatenate(at), len(places))

    def _columns(self, parts: list[NDArray[Any]]) -> int:
        """How many all ranks' parts have."""
        assert self.group is not None
        return int(self.group.maximum(np.array([max((part.shape[1] for part in parts), default=0)]))[0])

    def given_parts(self) -> list[Floats]:
        """The training rows of this rank's shards in the data's units: as they were given, or spread."""
        return [z * self.std + self.mean for z, _ in self.own]

    def to_refine(self, copies: int, jitter: float, rng: np.random.Generator) -> tuple[Any, Any, Any]:
        """See `Rows`; dicts of shards. What is drawn is drawn for each shard."""
        flat = np.setdiff1d(np.arange(len(self.mean)), self.active)
        x, weights = {}, {}
        for shard, z, (_, counts) in zip(self.table.shards, self.given_parts(), self.own, strict=True):
            if copies:
                rng = np.random.default_rng([self.seed, _COPIES, shard.number])
                z, counts = jittered(z, counts, copies, jitter * self.std * self.unit, rng)
            if flat.size:
                rng = np.random.default_rng([self.seed, _NOISE, shard.number])
                z[:, flat] = self.mean[flat] + self.std[flat] * self.unit * rng.standard_normal((len(z), flat.size))
            x[shard.number] = z
            if counts is not None:
                weights[shard.number] = counts
        held_out = None
        if self.judge is not None:
            held, counted = {}, {}
            for shard in self.judge.shards:
                data = shard.data.rows(Part(0).all() if shard.held_out is None else shard.held_out.all())
                held[shard.number] = data.x
                if data.weights is not None:
                    counted[shard.number] = data.weights
            held_out = held, None, counted or None
        return x, weights or None, held_out


def _power_of_two_for(table: Table, judge: Table | None) -> int:
    """The exponent of one that makes the largest weight about 1, so that any dtype holds them."""
    largest = [
        float(s.data.weights.max(initial=0.0))
        for t in (table, judge)
        if t
        for s in t.shards
        if s.data.weights is not None
    ]
    found = float(table.group.maximum(np.array([max(largest, default=0.0)]))[0])
    return int(np.frexp(found)[1]) if found else 0


def shared_rows(
    settings: Any, group: Group, x: Any, context: Any, weights: Any, validation: Any
) -> tuple[SharedRows, tuple[Support, ...]]:
    """Rows of an ascent with a group, and what takes them to their support; `settings`: a `headrace.DualAscentFlow`."""
    check_group(group)
    with together(group):
        if context is not None:
            raise ValueError("context: expected None, as an ascent takes none")
        if settings.map == "kink" and settings.copies:
            raise ValueError("copies: expected 0 or None with a group, where an ascent takes rows as they are")
        first = next(iter(x.values()), None) if isinstance(x, Mapping) else x
        caller = Caller() if first is None else caller_of(first)
        if caller.device is not None:
            raise ValueError("x: expected arrays on the CPU with a group")
        features = 0 if first is None else caller.open("x", first).shape[-1]
    features = int(group.maximum(np.array([features], np.int64))[0])
    told = {name: repr(value) for name, value in vars(settings).items() if name != "history"}
    same_everywhere(group, told)
    table = opened(group, features, 0, caller, x, None, weights, seed=settings.seed)
    judge = split(table, validation, features, 0, caller, None)
    own = {id(s): s for t in (table, judge) if t for s in t.shards}.values()
    ends: tuple[Support, ...] = ()
    with together(group):
        support = support_or_none(settings.bounds, features, settings.periodic)
        if support is not None:
            counts = counted(support, np.empty((0, features)))
            for shard in own:
                _rows.check_inside(f"x of shard {shard.number}", shard.data.x, support, shard.data.names)
                counts += counted(support, shard.data.x)
    if support is not None:
        ends = cut_open(support, group.sum(counts), settings.dtype)
        for shard in own:
            shard.data.x = off(ends, shard.data.x)
    return SharedRows(table, judge, settings.precision, settings.seed, settings.dtype), ends


def turns_alike(group: Group, blocks: list[Floats]) -> list[Floats]:
    """Those of rank 0: matrices that another machine's linear algebra made may differ by rounding."""
    return blocks if group.size == 1 else [group.broadcast(np.ascontiguousarray(block)) for block in blocks]
