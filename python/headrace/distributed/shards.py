"""Rows in shards: each rank holds a part of a table, and all ranks check rows and names of columns together."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller
from headrace._arrays.frames import labels_of
from headrace._arrays.names import Names, refuse_others
from headrace._arrays.row_parts import RowPart, held_of, names_of
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.group import Group
from headrace._base.types import Floats
from headrace._fit import given_rows as _rows
from headrace._fit.given_rows import Data, Index
from headrace._fit.source import ArrayRows, RowSource, Shard
from headrace._flow.transforms.support import Support
from headrace.distributed.exact import exact_sum
from headrace.distributed.groups import broadcast_bytes, gathered, same_everywhere, together

ROWS = 1 << 16  # the number of rows of a shard, by default
MOST_SHARDS = 1 << 24
STANDING = 1 << 14  # the most rows that each rank keeps as a sample of the whole table
JUDGED = 8  # one row in this many is held out to judge a trial
_HELD_OUT = 0x4E1D  # a key of generators, for separate draws of held-out rows

Integers = NDArray[np.int64]


def shards(array: Any, group: Group, rows: int = ROWS) -> dict[int, Any]:
    """The shards of a rank from a table that all ranks can read, such as a mapped file, as a dict of shard number →
    rows.

    The table is cut into shards of ``rows`` rows, and each rank has adjacent shards. A fit's bits depend on the
    shards, and not on the ranks that hold them. Ranks may also read their own shards from anywhere, and pass a dict of
    them to `fit`: each shard on one rank, numbered from 0 without gaps, with any number of rows.

    Args:
        array: Shape (rows, ...); the shards are views of it.
        group: A result of `headrace.distributed.local` or of another function that makes groups.
        rows: The rows of a shard; the last shard may have fewer.

    >>> import numpy as np, headrace as hr
    >>> parts = hr.distributed.shards(np.zeros((10, 2)), hr.distributed.local(), rows=4)
    >>> {number: part.shape for number, part in parts.items()}
    {0: (4, 2), 1: (4, 2), 2: (2, 2)}
    """
    rows = check.integer("rows", rows, least=1)
    count = -(-len(array) // rows)
    mine = range(count * group.rank // group.size, count * (group.rank + 1) // group.size)
    return {number: array[number * rows : (number + 1) * rows] for number in mine}


@dataclass(frozen=True)
class Kind:
    """Properties of a table's rows that are equal on all ranks."""

    features: int
    contexts: int
    names: tuple[str, ...]
    support: Support | None
    weighted: bool
    is_float32: bool  # whether any rows are float32


class ShardedRows(RowSource):
    """The training rows or the validation rows of a table, of which this rank holds some shards."""

    def __init__(
        self, group: Group, shards: list[Shard], sizes: Integers, taken: Integers, seed: int, kind: Kind
    ) -> None:
        """`shards`: this rank's, ascending. `sizes`, `taken`: each shard's number of rows, in all and in the part."""
        self.group, self.shards, self.sizes, self.taken, self.seed, self.kind = group, shards, sizes, taken, seed, kind
        self.size, self.rows, self.is_first = int(taken.sum()), int(sizes.sum()), group.rank == 0
        self.names, self.support = kind.names, kind.support
        self.weighted, self.is_float32 = kind.weighted, kind.is_float32

    def of(self, parts: list[RowPart], taken: Integers) -> ShardedRows:
        """Another part of the table, from parts of this rank's shards; `taken`: the rows of the part in each shard."""
        begins = np.cumsum(taken) - taken
        pairs = zip(self.shards, parts, strict=True)
        shards = [replace(shard, begin=int(begins[shard.number]), part=part) for shard, part in pairs]
        return ShardedRows(self.group, shards, self.sizes, taken, self.seed, self.kind)

    def sum(self, parts: Iterable[Any], zero: Any) -> Any:
        """The sum over all ranks, rounded once; see `RowSource`."""
        return exact_sum(self.group, [zero, *parts])

    def total(self, parts: Iterable[float]) -> float:
        """The sum of scalars over all ranks, rounded once; see `RowSource`."""
        return float(exact_sum(self.group, [[0.0], *([part] for part in parts)])[0])

    def maximum(self, array: Any) -> Any:
        """The largest values over all ranks; see `RowSource`."""
        return self.group.maximum(np.ascontiguousarray(array))

    def broadcast(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array of rank 0; see `RowSource`."""
        return array if self.group.size == 1 else self.group.broadcast(np.ascontiguousarray(array))

    def columns(self, of_context: bool) -> int:
        """The number of context columns or of features; see `RowSource`."""
        return self.kind.contexts if of_context else self.kind.features

    def picked(self, places: Index, parts: list[Any]) -> Floats:
        """The rows at some indices of the table; see `RowSource`."""
        columns = int(self.maximum(np.array([max((part.shape[1] for part in parts), default=0)]))[0])
        mine, at = [np.empty((0, columns))], [np.empty(0, np.int64)]
        for shard, part in zip(self.shards, parts, strict=True):
            inside = np.flatnonzero((places >= shard.begin) & (places < shard.begin + shard.part.size))
            mine.append(part[places[inside] - shard.begin].astype(np.float64))
            at.append(inside)
        return gathered(self.group, np.concatenate(mine), np.concatenate(at), len(places))

    def copied(self, on_device: bool) -> list[Data]:
        """The rows of this rank's shards, which stay on the CPU; see `RowSource`."""
        return list(self.parts())

    def standing(self) -> ArrayRows:
        """A sample of the rows of all ranks; see `RowSource`. A rank adds 0 for rows of other ranks."""
        n, contexts, most = self.kind.features, self.kind.contexts, min(self.size, STANDING)
        sample = np.zeros((most, n + contexts + 1))
        shares = [self.share_of(shard, most) for shard in self.shards]
        not_empty = [share for share in shares if share[0] < share[1]]
        for (first, end), data in zip(not_empty, self.parts(most), strict=True):
            sample[first:end, :n], sample[first:end, -1] = data.x, data.shares()
            if data.context is not None:
                sample[first:end, n:-1] = data.context
        sample = self.group.sum(sample.view(np.int64)).view(np.float64)
        x, context, weights = (np.ascontiguousarray(part) for part in (sample[:, :n], sample[:, n:-1], sample[:, -1]))
        return ArrayRows(Data(x, context if contexts else None, weights, (), self.support))

    def trial(self, standing: ArrayRows, judge: RowSource, most: int, seed: int) -> tuple[ArrayRows, RowSource]:
        """A trial's rows for training and for judging, from `standing`, which all ranks have; see `RowSource`."""
        key = int(np.random.default_rng(seed).integers(1 << 63))
        train, rest = (RowPart(standing.size, standing.size // JUDGED, key, out=out) for out in (False, True))
        return standing.of(train), standing.of(rest)

    def fingerprint(self) -> dict[str, str]:
        """Checksums of all rows, contexts and weights; see `RowSource`."""
        sums = np.zeros((self.sizes.size, 3), np.int64)
        for shard in self.shards:
            for i, array in enumerate((shard.data.x, shard.data.context, shard.data.weights)):
                kind = -1 if array is None else zlib.crc32(str(array.dtype).encode())
                sums[shard.number, i] = kind if array is None else _rows.checksum(array, kind)
        checksum = zlib.crc32(self.group.sum(sums).tobytes())
        return {"rows": f"{checksum:08x} over {self.rows} rows in {self.sizes.size} shards"}


def opened(
    group: Group,
    features: int,
    contexts: int,
    caller: Caller,
    x: Any,
    context: Any = None,
    weights: Any = None,
    *,
    support: Support | None = None,
    seed: int = 0,
    prefix: str = "",
) -> ShardedRows:
    """The rows of `Flow.fit` in a group, checked on all ranks together; all belong to the training part."""
    with together(group):
        parts = _parts(f"{prefix}x", x, group)
        beside = {
            "context": _parts(f"{prefix}context", context, group),
            "weights": _parts(f"{prefix}weights", weights, group),
        }
        for name, other in beside.items():
            if other and other.keys() != parts.keys():
                raise ValueError(f"{prefix}{name}: expected the shards of x, {sorted(parts)}, got {sorted(other)}")
        local = {
            number: _opened(prefix, number, part, beside, features, contexts, caller)
            for number, part in sorted(parts.items())
        }
    # Ranks without a shard cannot know whether there are weights; either all ranks with a shard have weights, or none.
    of_all = local.values()
    facts = [any(d.weights is not None for d in of_all), any(d.weights is None for d in of_all)]
    facts.append(any(d.x.dtype == np.float32 for d in of_all))
    weighted, unweighted, is_float32 = group.maximum(np.array(facts, np.int64)).astype(bool).tolist()
    if weighted and unweighted:
        raise ValueError(f"{prefix}weights: expected weights of all shards or of none")
    sizes = _sizes(group, f"{prefix}x", {number: len(data.x) for number, data in local.items()})
    first = np.cumsum(sizes) - sizes
    for name in ("x", "context", "weights"):
        arrays = [(int(first[number]), getattr(data, name)) for number, data in local.items()]
        _check_finite(group, f"{prefix}{name}", arrays, int(sizes.sum()))
    with together(group):
        for number, data in local.items():
            data.support = support
            if data.weights is not None and len(data.weights) and data.weights.min() < 0:
                at = int(np.argmin(data.weights))
                raise ValueError(
                    f"{prefix}weights: expected numbers of at least 0, got {data.weights[at]} in row "
                    f"{first[number] + at}"
                )
            if support is not None:
                _rows.check_inside(f"{prefix}x of shard {number}", data.x, support, data.names)
    taken, training = np.zeros(sizes.size, np.int64), []
    for number, data in local.items():
        taken[number], kept = data.taking_part(int(first[number]))
        training.append(RowPart(int(taken[number]), kept=kept))
    taken = group.sum(taken)
    made = [
        Shard(number, int(first[number]), int(taken[:number].sum()), data, part)
        for (number, data), part in zip(local.items(), training, strict=True)
    ]
    names = next((data.names for data in of_all), tuple(f"column {i}" for i in range(features)))
    kind = Kind(features, contexts, names, support, weighted, is_float32)
    table = ShardedRows(group, made, sizes, taken, seed, kind)
    if not table.rows:
        raise ValueError(f"{prefix}x: expected at least one row, got none on any rank")
    total = table.weight()
    if not 1e-300 < total < 1e300:
        raise ValueError(f"{prefix}weights: expected a sum between 1e-300 and 1e300, got {total:g}")
    return table


def _parts(name: str, value: Any, group: Group) -> dict[int, Any]:
    """A dict of shard number → array, from an argument, checked."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {check.integer(f"{name}: number of a shard", n, most=MOST_SHARDS - 1): part for n, part in value.items()}
    if not _arrays.is_array(value):
        raise TypeError(f"{name}: expected a dict of shards, {{number: array}}, got {check.kind_of(value)}")
    if group.size > 1:
        raise TypeError(
            f"{name}: expected a dict of the shards that this rank holds, {{number: array}}, got an array; of one that "
            "all ranks can read, headrace.distributed.shards(array, group) gives each its share"
        )
    return shards(value, group)


def _opened(
    prefix: str, number: int, x: Any, beside: dict[str, dict[int, Any]], features: int, contexts: int, caller: Caller
) -> Data:
    at = f" of shard {number}"
    array = _arrays.matrix(f"{prefix}x{at}", x, features, caller, whole=True)
    rows = array.shape[0]
    context, weights = (beside[name].get(number) for name in ("context", "weights"))
    columns = _arrays.context_rows(context, rows, contexts, f"{prefix}context{at}", caller)
    if columns is not None and columns.shape[0] != rows:
        raise errors.wrong_shape(f"{prefix}context{at}", f"({rows}, {contexts})", columns.shape)
    counts = None if weights is None else _arrays.shaped(f"{prefix}weights{at}", weights, (rows,), caller, whole=True)
    return Data(array, columns, counts, names_of(x, features))


def _sizes(group: Group, name: str, mine: dict[int, int]) -> Integers:
    """The numbers of rows of all shards."""
    count = int(group.maximum(np.array([max(mine, default=-1) + 1], np.int64))[0])
    counts = np.zeros((2, count), np.int64)
    for number, rows in mine.items():
        counts[:, number] = rows, 1
    counts = group.sum(counts)
    holders: Integers = counts[1]
    wrong = np.flatnonzero(holders != 1)
    if wrong.size:
        raise ValueError(
            f"{name}: expected each shard from 0 to {count - 1} on one rank, got shard {wrong[0]} on "
            f"{holders[wrong[0]]}"
        )
    if not count:
        raise ValueError(f"{name}: expected at least one shard, got none on any rank")
    return counts[0]


def _check_finite(group: Group, name: str, arrays: list[tuple[int, Any]], rows: int) -> None:
    """Refuse NaN and infinity, counted over all ranks; the message has the number of such rows and the first index."""
    count, first = 0, -rows
    for begin, array in arrays:
        bad, at = (0, 0) if array is None else _rows.bad_rows(array)
        if bad:
            count, first = count + bad, max(first, -(begin + at))
    count = int(group.sum(np.array([count], np.int64))[0])
    first = -int(group.maximum(np.array([first], np.int64))[0])
    if count:
        raise ValueError(_rows.not_finite(name, count, first, rows))


def split(table: ShardedRows, validation: Any, caller: Caller) -> tuple[ShardedRows, ShardedRows | None]:
    """The training and the validation part: held-out rows of each shard, or the caller's validation rows."""
    group, kind = table.group, table.kind
    held_out_by = "none" if validation is None else repr(float(validation)) if _rows.is_share(validation) else "rows"
    same_everywhere(group, {"validation": held_out_by})
    if held_out_by == "none":
        return table, None
    if held_out_by == "rows":
        with together(group):
            parts = validation if isinstance(validation, tuple) else (validation,)
            if not 1 <= len(parts) <= 3:
                raise TypeError(f"validation: expected a share, x or (x, context, weights), got {len(parts)} parts")
        arrays = (*parts, None, None)[:3]
        judge = opened(group, kind.features, kind.contexts, caller, *arrays, support=kind.support, prefix="validation ")
        return table, judge
    rows = table.size
    held = held_of("validation", validation, rows)
    if not held:
        return table, None
    ends = np.cumsum(table.taken)
    of_shards = ends * held // rows - (ends - table.taken) * held // rows
    left, out = [], []
    for shard in table.shards:
        kept, size, count = shard.part.kept, shard.part.size, int(of_shards[shard.number])
        key = int(np.random.default_rng([table.seed, _HELD_OUT, shard.number]).integers(1 << 63))
        left.append(RowPart(size, count, key, kept=kept) if count < size else RowPart(0))
        out.append(RowPart(size, count, key, out=True, kept=kept) if count else RowPart(0))
    return table.of(left, table.taken - of_shards), table.of(out, of_shards)


def shared_names(group: Group, x: Any, context: Any, known: Names) -> Names:
    """The column names of all frames among the shards, equal on all ranks; None if all shards are arrays.

    Args:
        group: The ranks.
        x, context: An array, a frame, a dict of the shards of this rank, or None.
        known: The names that the flow has already.

    Raises:
        ValueError: on all ranks, if the names of two frames differ, or differ from known names.
    """
    tables = (("x", x, known.features), ("context", context, known.context))
    with together(group):
        mine = [_of_shards(*table) for table in tables]
    return Names(*(_of_all(group, name, names) for (name, _, _), names in zip(tables, mine, strict=True)))


def _of_shards(name: str, value: Any, known: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The column names of this rank's shards, or None if no shard has names."""
    first = None
    shards = value if isinstance(value, Mapping) else {0: value}
    for number in sorted(shards):
        if (names := labels_of(shards[number])) is not None:
            refuse_others(f"{name} of shard {number}", names, known or first or names)
            first = first or names
    return first


def _of_all(group: Group, name: str, mine: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The column names on the first rank that has any, compared with those of other ranks; None without names."""
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
