"""Rows in shards: what each rank holds of a table, checked together with all others."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import _arguments as check
from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller
from headrace._fit import rows as _rows
from headrace._fit.rows import CHUNK, Data, Part
from headrace.distributed.exact import exact_sum
from headrace.distributed.groups import Group
from headrace.distributed.together import same_everywhere, together
from headrace.transforms.support import Support

__all__ = ["Shard", "Table", "opened", "shards"]

ROWS = 1 << 16  # of a shard, by default
MOST_SHARDS = 1 << 24
_HELD_OUT = 0x4E1D  # tells draws from others of the same seed

Integers = NDArray[np.int64]


def shards(array: Any, group: Group, rows: int = ROWS) -> dict[int, Any]:
    """This rank's share of a table that all ranks can read, such as a mapped file: shard number → rows.

    The table is cut into shards of ``rows`` rows, and each rank has neighbouring ones. A fit's bits depend on the
    shards, and not on which rank has them. So ranks may also read their own shards from anywhere, and give a dict of
    them to `fit`: each shard on one rank, numbered from 0 without gaps, of any sizes.

    Args:
        array: Shape (rows, ...); views of it are returned.
        group: As `headrace.distributed.local` and others make it.
        rows: Of a shard; the last one may have fewer.

    >>> import numpy as np, headrace as hr
    >>> parts = hr.distributed.shards(np.zeros((10, 2)), hr.distributed.local(), rows=4)
    >>> {number: part.shape for number, part in parts.items()}
    {0: (4, 2), 1: (4, 2), 2: (2, 2)}
    """
    rows = check.integer("rows", rows, least=1)
    count = -(-len(array) // rows)
    mine = range(count * group.rank // group.size, count * (group.rank + 1) // group.size)
    return {number: array[number * rows : (number + 1) * rows] for number in mine}


@dataclass
class Shard:
    """A block of neighbouring rows of the table."""

    number: int
    first: int  # the number of its first row in the table
    data: Data
    train: Part
    held_out: Part | None = None


@dataclass
class Table:
    """A table of which this rank has some shards."""

    group: Group
    shards: list[Shard]  # this rank's, in ascending order
    sizes: Integers  # rows of all shards, whoever has them
    trained: Integers  # of these, those that are trained on
    held: int  # rows held out, of all shards
    seed: int

    @property
    def size(self) -> int:
        """Rows to train on."""
        return int(self.trained.sum())

    @property
    def rows(self) -> int:
        """All of them, those of weight 0 too."""
        return int(self.sizes.sum())

    def training(self, most: int | None = None) -> Iterator[Data]:
        """Copies of this rank's training rows, some at a time; at most so many of all ranks', spread over the table."""
        for shard in self.shards:
            first, end = self.share_of(shard, self.size if most is None else min(most, self.size))
            some, size = end - first, shard.train.size
            places = np.arange(some, dtype=np.int64) * size // max(some, 1)
            for begin in range(0, some, CHUNK):
                yield shard.data.rows(shard.train.at(places[begin : begin + CHUNK]))

    def share_of(self, shard: Shard, most: int) -> tuple[int, int]:
        """Which of so many training rows, spread over the table, a shard gives: from the first one up to the second."""
        end, whole = int(self.trained[: shard.number + 1].sum()), max(self.size, 1)
        return (end - shard.train.size) * most // whole, end * most // whole

    def judging(self) -> Iterator[Data]:
        """Copies of this rank's rows held out, some at a time."""
        for shard in self.shards:
            if shard.held_out is not None:
                for rows in shard.held_out.chunks():
                    yield shard.data.rows(rows)

    def weight(self, *, held_out: bool = False) -> float:
        """The sum of the weights of the rows to train on, or of those held out, of all ranks."""
        parts = [(shard.data, shard.held_out if held_out else shard.train) for shard in self.shards]
        sums = [[data.weight_of(part)] for data, part in parts if part is not None]
        return float(exact_sum(self.group, [[0.0], *sums])[0])

    def effective_rows(self) -> float:
        """Kish's effective number of the rows to train on, of all ranks."""
        weighted = [(shard.data.weights, shard.train) for shard in self.shards if shard.data.weights is not None]
        shares = [weights[rows].astype(np.float64) for weights, part in weighted for rows in part.chunks()]
        most = float(self.group.maximum(np.array([max((part.max() for part in shares), default=0.0)]))[0])
        if not most:
            return float(self.size)
        sums = [[(part / most).sum(), np.square(part / most).sum()] for part in shares]
        total, square = exact_sum(self.group, [[0.0, 0.0], *sums])
        return float(total**2 / square)

    def checksum(self) -> str:
        """Of all rows, context and weights."""
        sums = np.zeros((self.sizes.size, 3), np.int64)
        for shard in self.shards:
            for i, array in enumerate((shard.data.x, shard.data.context, shard.data.weights)):
                kind = -1 if array is None else zlib.crc32(str(array.dtype).encode())
                sums[shard.number, i] = kind if array is None else _rows.checksum(array, kind)
        return f"{zlib.crc32(self.group.sum(sums).tobytes()):08x} over {self.rows} rows in {self.sizes.size} shards"


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
) -> Table:
    """Rows as `Flow.fit` takes them with a group, checked on all ranks together; all are to be trained on."""
    with together(group):
        parts = _parts(f"{prefix}x", x, group)
        others = {
            "context": _parts(f"{prefix}context", context, group),
            "weights": _parts(f"{prefix}weights", weights, group),
        }
        for name, other in others.items():
            if other and other.keys() != parts.keys():
                raise ValueError(f"{prefix}{name}: expected the shards of x, {sorted(parts)}, got {sorted(other)}")
        local = {
            number: _opened(prefix, number, part, others, features, contexts, caller)
            for number, part in sorted(parts.items())
        }
    # Ranks without a shard know of no weights; those with one must all have some, or none.
    has = np.array(
        [any(d.weights is not None for d in local.values()), any(d.weights is None for d in local.values())], np.int64
    )
    if group.maximum(has).all():
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
    made = []
    for number, data in local.items():
        rows, kept = data.taking_part()
        made.append(Shard(number, int(first[number]), data, Part(rows, kept=kept)))
    trained = np.zeros(sizes.size, np.int64)
    for shard in made:
        trained[shard.number] = shard.train.size
    table = Table(group, made, sizes, group.sum(trained), 0, seed)
    if not table.rows:
        raise ValueError(f"{prefix}x: expected at least one row, got none on any rank")
    total = table.weight()
    if not 1e-300 < total < 1e300:
        raise ValueError(f"{prefix}weights: expected a sum between 1e-300 and 1e300, got {total:g}")
    return table


def _parts(name: str, given: Any, group: Group) -> dict[int, Any]:
    """Shard number → array."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {check.integer(f"{name}: number of a shard", n, most=MOST_SHARDS - 1): part for n, part in given.items()}
    if not _arrays.is_array(given):
        raise TypeError(f"{name}: expected a dict of shards, {{number: array}}, got {check.kind_of(given)}")
    if group.size > 1:
        raise TypeError(
            f"{name}: expected a dict of the shards that this rank holds, {{number: array}}, got an array; of one that "
            "all ranks can read, headrace.distributed.shards(array, group) gives each its share"
        )
    return shards(given, group)


def _opened(
    prefix: str, number: int, x: Any, others: dict[str, dict[int, Any]], features: int, contexts: int, caller: Caller
) -> Data:
    at = f" of shard {number}"
    array = _arrays.matrix(f"{prefix}x{at}", x, features, caller)
    rows = array.shape[0]
    context, weights = (others[name].get(number) for name in ("context", "weights"))
    columns = _arrays.context_rows(context, rows, contexts, f"{prefix}context{at}", caller)
    if columns is not None and columns.shape[0] != rows:
        raise ValueError(f"{prefix}context{at}: expected shape ({rows}, {contexts}), got {columns.shape}")
    counts = None if weights is None else _arrays.shaped(f"{prefix}weights{at}", weights, (rows,), caller)
    return Data(array, columns, counts, _rows.names_of(x, features))


def _sizes(group: Group, name: str, mine: dict[int, int]) -> Integers:
    """Rows of all shards."""
    count = int(group.maximum(np.array([max(mine, default=-1) + 1], np.int64))[0])
    found = np.zeros((2, count), np.int64)
    for number, rows in mine.items():
        found[:, number] = rows, 1
    found = group.sum(found)
    holders: Integers = found[1]
    wrong = np.flatnonzero(holders != 1)
    if wrong.size:
        raise ValueError(
            f"{name}: expected each shard from 0 to {count - 1} on one rank, got shard {wrong[0]} on "
            f"{holders[wrong[0]]}"
        )
    if not count:
        raise ValueError(f"{name}: expected at least one shard, got none on any rank")
    sizes: Integers = found[0]
    return sizes


def _check_finite(group: Group, name: str, arrays: list[tuple[int, Any]], rows: int) -> None:
    """Refuse NaN and infinity, with their number and the first, counted over all ranks."""
    count, first = 0, -rows
    for begin, array in arrays:
        bad, at = (0, 0) if array is None else _rows.bad_rows(array)
        if bad:
            count, first = count + bad, max(first, -(begin + at))
    count = int(group.sum(np.array([count], np.int64))[0])
    first = -int(group.maximum(np.array([first], np.int64))[0])
    if count:
        raise ValueError(_rows.not_finite(name, count, first, rows))


def split(
    table: Table, validation: Any, features: int, contexts: int, caller: Caller, support: Support | None
) -> Table | None:
    """Hold out rows of each shard, or open rows of the caller's own; the table to judge by, or None."""
    group = table.group
    kind = "none" if validation is None else repr(float(validation)) if _rows.is_share(validation) else "rows"
    same_everywhere(group, {"validation": kind})
    if kind == "none":
        return None
    if kind == "rows":
        with together(group):
            parts = validation if isinstance(validation, tuple) else (validation,)
            if not 1 <= len(parts) <= 3:
                raise TypeError(
                    f"validation: expected a share, x, or a tuple (x, context, weights), got {len(parts)} of them"
                )
        own = (*parts, None, None)[:3]
        judge = opened(group, features, contexts, caller, *own, support=support, prefix="validation ")
        for shard in judge.shards:
            shard.held_out = shard.train
        judge.held = judge.size
        return judge
    rows = table.size
    held = _rows.held_of("validation", validation, rows)
    if not held:
        return None
    ends = np.cumsum(table.trained)
    of_shards = ends * held // rows - (ends - table.trained) * held // rows
    for shard in table.shards:
        kept, size, count = shard.train.kept, shard.train.size, int(of_shards[shard.number])
        key = int(np.random.default_rng([table.seed, _HELD_OUT, shard.number]).integers(1 << 63))
        if count:
            shard.train = Part(size, count, key, kept=kept) if count < size else Part(0)
            shard.held_out = Part(size, count, key, out=True, kept=kept)
    table.trained = table.trained - of_shards
    table.held = held
    return table
