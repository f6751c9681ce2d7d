"""Dask collections as shards: blocks of a fixed number of adjacent rows, from any partitions.

A partition may have any number of rows, even 0; for partitions of a frame this number is unknown. A shard's rows follow
from its index alone, so that a fit's bits depend on the rows, and on neither partitions nor workers.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from headrace._arrays.caller import Caller
from headrace._arrays.frames import class_of
from headrace._arrays.names import Names
from headrace._base import arguments as check
from headrace.rows._chunks import checked_array, is_array, is_frame, whole_rows
from headrace.rows._columns import chosen_columns

Pieces = list[tuple[Any, Any, int, int]]  # partition, names of columns or None, first row, end of the rows


def is_series(value: Any) -> bool:
    """Whether a value is a column of a Dask frame."""
    return isinstance(value, class_of("dask.dataframe", "Series"))


def names_of(frame: Any, columns: Any, context: Any, weights: Any) -> tuple[list[Any], Any, Any]:
    """The names of the features, and those of context and weights if they are columns of the frame."""
    given = [None if has_rows(value) else value for value in (context, weights)]
    features, conditions, counts = chosen_columns(list(frame.columns), columns, *given)
    return features, conditions or None, counts[0] if counts else None


def called(x: Any, columns: Any, context: Any, weights: Any) -> Names:
    """The names of the columns of a frame, and of its context, if they are strings; None for arrays."""
    features, conditions, _ = names_of(x, columns, context, weights) if is_frame(x) else (None, None, None)
    if is_frame(context):
        conditions = list(context.columns)
    both = (features, conditions)
    return Names(*(tuple(own) if own and all(isinstance(one, str) for one in own) else None for own in both))


def has_rows(value: Any) -> bool:
    """Whether a value contains rows, and not names of columns."""
    return is_array(value) or is_frame(value) or is_series(value) or isinstance(value, np.ndarray)


class _Parts:
    """The partitions of a collection on the cluster."""

    def __init__(self, futures: list[Any], sizes: list[int]) -> None:
        self.futures = futures
        self.ends = [0, *accumulate(sizes)]

    @property
    def rows(self) -> int:
        return self.ends[-1]

    def pieces(self, names: Any, begin: int, end: int) -> Pieces:
        """The pieces of partitions that contain the rows from `begin` to `end`."""
        found, i = [], bisect_right(self.ends, begin) - 1
        while i < len(self.futures) and self.ends[i] < end:
            first, last = max(begin, self.ends[i]), min(end, self.ends[i + 1])
            if first < last:
                found.append((self.futures[i], names, first - self.ends[i], last - self.ends[i]))
            i += 1
        return found


def shards_of(
    client: Any, prefix: str, x: Any, context: Any, weights: Any, columns: Sequence[Any] | None, rows: int
) -> list[Any]:
    """Futures of shards, each (x, context, weights) of `rows` rows; the last shard has the remaining rows.

    Context and weights are names of columns of a frame x, or collections, or NumPy arrays.
    """
    own: list[tuple[_Parts, Any] | None]
    if is_frame(x):
        features, conditions, count = names_of(x, columns, context, weights)
        parts = _parts(client, x)
        own = [(parts, features)]
        for name, value, names in (("context", context, conditions), ("weights", weights, count)):
            own.append((parts, names) if names is not None else _given(client, f"{prefix}{name}", value, rows))
    else:
        given = (("x", checked_array(x, columns, prefix)), ("context", context), ("weights", weights))
        own = [_given(client, f"{prefix}{name}", value, rows) for name, value in given]
    whole = [None if one is None else one[0].rows for one in own]
    for name, count in zip(("context", "weights"), whole[1:], strict=True):
        if count is not None and count != whole[0]:
            raise ValueError(f"{prefix}{name}: expected {whole[0]} rows, as x has, got {count}")
    total = whole[0] or 0
    if not total:
        raise ValueError(f"{prefix}x: expected at least one row, got none")
    cuts = [(begin, min(begin + rows, total)) for begin in range(0, total, rows)]
    pieces = [tuple(None if one is None else one[0].pieces(one[1], *cut) for one in own) for cut in cuts]
    places = _places(client, [of[0] or [] for of in pieces])
    how = {"pure": False, "allow_other_workers": True}
    return [client.submit(_cut, prefix, *of, workers=[at], **how) for of, at in zip(pieces, places, strict=True)]


def _places(client: Any, shards: list[Pieces]) -> list[str]:
    """For each shard the worker with most of its rows, unless the worker then has too many shards for its threads.

    Shards of a small table, which Dask computes on one worker, are moved to all workers: rows are copied once, but read
    in every epoch.
    """
    from distributed import wait

    parts = list({id(piece[0]): piece[0] for of in shards for piece in of}.values())
    wait(parts)
    who, threads = client.who_has(parts), client.nthreads()
    total = sum(threads.values())
    room = {address: len(shards) * n // total for address, n in threads.items()}
    left, more = len(shards) - sum(room.values()), set(room)  # shards left by rounding, and workers for them

    def takes(address: str) -> bool:
        nonlocal left
        if room.get(address, 0) > 0:
            room[address] -= 1
            return True
        if not left or address not in more:
            return False
        left -= 1
        more.discard(address)
        return True

    places = []
    for of in shards:
        rows: dict[str, int] = {}
        for part, _, begin, end in of:
            for address in who.get(part.key, ()):
                rows[address] = rows.get(address, 0) + end - begin
        places.append(next(filter(takes, sorted(rows, key=lambda one: -rows[one])), ""))
    return [place or next(filter(takes, sorted(room, key=lambda one: -room[one]))) for place in places]


def _given(client: Any, name: str, value: Any, rows: int) -> tuple[_Parts, Any] | None:
    """The partitions of a separate collection, or None without one."""
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        from dask import array

        value = array.from_array(value, chunks=(rows, *value.shape[1:]))
    if not (is_array(value) or is_frame(value) or is_series(value)):
        raise TypeError(f"{name}: expected an array or a frame of Dask, got {check.kind_of(value)}")
    return _parts(client, value), None


def _parts(client: Any, collection: Any) -> _Parts:
    """The partitions of a collection, which are computed if necessary, and the number of rows of each partition."""
    from distributed import wait

    sizes = None
    if is_array(collection):
        collection = whole_rows(collection)
        if not any(math.isnan(n) for n in collection.chunks[0]):
            sizes = [int(n) for n in collection.chunks[0]]
        delayed = list(collection.to_delayed().ravel())
    else:
        delayed = list(collection.to_delayed())
    futures = client.compute(delayed)
    if sizes is None:
        wait(futures)
        sizes = client.gather(client.map(len, futures, pure=False))
    return _Parts(futures, sizes)


def _cut(prefix: str, *pieces: Pieces | None) -> tuple[Any, ...]:
    """One shard: x, context and weights; each array is a view of one partition, or a copy from several partitions."""
    named = zip(("x", "context", "weights"), pieces, strict=True)
    return tuple(None if of is None else _joined(f"{prefix}{name}", of) for name, of in named)


def _joined(name: str, pieces: Pieces) -> Any:
    arrays = [Caller().open(name, _rows(part, names, begin, end), whole=True) for part, names, begin, end in pieces]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _rows(part: Any, names: Any, begin: int, end: int) -> Any:
    some = part.iloc[begin:end] if hasattr(part, "iloc") else part[begin:end]
    return some if names is None else some[names]
