"""Names of columns of frames on several ranks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace._arrays.frames import labels_of
from headrace._arrays.names import Names, refuse_others
from headrace._base.group import Group
from headrace.distributed.agreement import broadcast_bytes, together


def shared_names(group: Group, x: Any, context: Any, known: Names) -> Names:
    """The names of the columns of all shards that are frames, equal on all ranks; None where all are arrays.

    Args:
        group: The ranks.
        x, context: An array, a frame, a dict of the shards of this rank, or None.
        known: Names that the flow has already.

    Raises:
        ValueError: names differ between two frames or from known ones; on all ranks.
    """
    own = (("x", x, known.features), ("context", context, known.context))
    with together(group):
        mine = [_of_shards(*one) for one in own]
    return Names(*(_of_all(group, name, names) for (name, _, _), names in zip(own, mine, strict=True)))


def _of_shards(name: str, given: Any, known: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The names in the shards of this rank."""
    found = None
    shards = given if isinstance(given, Mapping) else {0: given}
    for number in sorted(shards):
        if (names := labels_of(shards[number])) is not None:
            refuse_others(f"{name} of shard {number}", names, known or found or names)
            found = found or names
    return found


def _of_all(group: Group, name: str, mine: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The names of the first rank that has some."""
    holders = np.zeros(group.size, np.int64)
    holders[group.rank] = mine is not None
    holders = group.sum(holders)
    if not holders.any():
        return None
    first: tuple[str, ...] = tuple(json.loads(broadcast_bytes(group, json.dumps(mine).encode(), int(holders.argmax()))))
    with together(group):
        if mine is not None:
            refuse_others(name, mine, first)
    return first
