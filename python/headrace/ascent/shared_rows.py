"""Rows of an ascent with a group, checked on all ranks together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace._arrays.caller import Caller
from headrace._arrays.device_caller import caller_of
from headrace._base.group import Group
from headrace._fit import given_rows as _rows
from headrace._flow.transforms.support import Support
from headrace.ascent.periodic import counted, cut_open, off
from headrace.ascent.standardised_rows import StandardisedRows
from headrace.distributed.agreement import same_everywhere, together
from headrace.distributed.fit import check_group
from headrace.distributed.shards import opened, split


def shared_rows(
    settings: Any, group: Group, x: Any, context: Any, weights: Any, validation: Any
) -> tuple[StandardisedRows, tuple[Support, ...]]:
    """Rows of an ascent with a group, and the maps to their support; `settings`: a `headrace.DualAscentFlow`."""
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
        features = 0 if first is None else caller.open("x", first, whole=True).shape[-1]
    features = int(group.maximum(np.array([features], np.int64))[0])
    arguments = {name: repr(value) for name, value in vars(settings).items() if name != "history"}
    same_everywhere(group, arguments)
    table = opened(group, features, 0, caller, x, None, weights, seed=settings.seed)
    table, judge = split(table, validation, caller)
    own = {id(s.data): s for t in (table, judge) if t for s in t.shards}.values()
    ends: tuple[Support, ...] = ()
    with together(group):
        support = settings.support(features, None)
        if support is not None:
            counts = counted(support, np.empty((0, features)))
            for shard in own:
                _rows.check_inside(f"x of shard {shard.number}", shard.data.x, support, shard.data.names)
                counts += counted(support, shard.data.x)
    if support is not None:
        ends = cut_open(support, group.sum(counts), settings.dtype)
        for shard in own:
            shard.data.x = off(ends, shard.data.x)
    return StandardisedRows(table, judge, settings.precision, settings.seed, settings.dtype), ends
