"""Rows of a table that are held out, and the remaining ones: their numbers, their indices, their order of reading."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check

Index = NDArray[np.int64]

CHUNK = 1 << 16  # rows at a time where a pass over all would need a copy
MOMENT_ROWS, MOMENT_BLOCK = 1 << 20, 256  # moments of more rows are those of a sample, in blocks over the whole table
POOL, BLOCK = 1 << 18, 1 << 10  # more rows are shuffled by blocks, and then within a pool of such blocks


class RowPart:
    """A train or a validation subset of a table, in ascending order, by a formula instead of an array of indices.

    One row of each of `held` equal strata of `rows` rows, at a position that a hash of the stratum's index decides; the
    remaining rows are the other part.
    """

    def __init__(self, rows: int, held: int = 0, key: int = 0, *, out: bool = False, kept: Any = None) -> None:
        """`out`: the rows held out. `kept`: the table's rows that take part at all, ascending; None for all."""
        self.rows, self.held, self.key, self.out, self.kept = rows, held, key, out, kept
        self.size = held if out else rows - held

    def whole(self) -> RowPart:
        """The held-out rows and the remaining ones, together."""
        return RowPart(self.rows, kept=self.kept)

    def at(self, places: Index) -> Index:
        """The rows at some positions of the part."""
        if not self.held:
            chosen = places
        elif self.out:
            chosen = self._start(places) + self._offset(places)
        else:
            left = self.rows - self.held
            stratum = ((places + 1) * self.held - 1) // left  # the last stratum that begins within `places` rows
            inside = places - stratum * left // self.held
            chosen = self._start(stratum) + inside + (inside >= self._offset(stratum))
        return chosen if self.kept is None else self.kept[chosen].astype(np.int64)

    def all(self) -> Index:
        """All rows of the part."""
        return self.at(np.arange(self.size, dtype=np.int64))

    def chunks(self, rows: int = CHUNK) -> Iterator[Index]:
        """The rows of the part in chunks."""
        return (self.at(np.arange(i, min(i + rows, self.size), dtype=np.int64)) for i in range(0, self.size, rows))

    def spread(self) -> Iterator[Index]:
        """The rows of the part in chunks, or blocks over the whole part."""
        if self.size <= MOMENT_ROWS:
            yield from self.chunks()
            return
        blocks = MOMENT_ROWS // MOMENT_BLOCK
        inside = np.arange(MOMENT_BLOCK, dtype=np.int64)
        for some in np.split(np.arange(blocks, dtype=np.int64) * self.size // blocks, blocks // 256):
            yield self.at((some[:, None] + inside).ravel())

    def shuffled(self, rng: np.random.Generator) -> Iterator[Index]:
        """The rows of the part in random order: pools of neighbouring blocks are shuffled together."""
        blocks = rng.permutation(-(-self.size // BLOCK)) if self.size > POOL else np.zeros(1, np.int64)
        rows = BLOCK if self.size > POOL else self.size
        for i in range(0, blocks.size, POOL // BLOCK):
            places = (blocks[i : i + POOL // BLOCK, None] * rows + np.arange(rows)).ravel()
            yield self.at(rng.permutation(places[places < self.size]))

    def _start(self, stratum: Index) -> Index:
        return stratum * self.rows // self.held

    def _offset(self, stratum: Index) -> Index:
        size = self._start(stratum + 1) - self._start(stratum)
        return (_hash(stratum.astype(np.uint64) + np.uint64(self.key)) % size.astype(np.uint64)).astype(np.int64)


def _hash(number: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))


def held_of(name: str, share: Any, rows: int, most: int | None = None) -> int:
    """The number of held-out rows: one at least where the share is above 0, and never all."""
    share = check.number(name, share, least=0.0, below=1.0)
    held = max(min(max(round(share * rows), 1), rows - 1), 0) if share > 0 else 0
    return held if most is None else min(held, most)


def names_of(x: Any, features: int) -> tuple[str, ...]:
    """Names of the columns of a table or an array in messages."""
    names = tuple(f"column {name!r}" for name in getattr(x, "columns", ()))
    return names if len(names) == features else tuple(f"column {i}" for i in range(features))
