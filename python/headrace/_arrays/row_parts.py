"""Held-out and training rows of a table: the number of held-out rows, row indices, and the order of reading."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check

Index = NDArray[np.int64]

CHUNK = 1 << 16  # the number of rows that are copied at a time in a pass over all rows
MOMENT_ROWS, MOMENT_BLOCK = 1 << 20, 256  # moments of more rows than this use sampled blocks
POOL, BLOCK = 1 << 18, 1 << 10  # more than POOL rows are shuffled by blocks, then in pools


class RowPart:
    """The training or the validation rows of a table, in ascending order; a formula replaces arrays of indices.

    One row of each of `held` equal strata of `rows` rows is held out, at a position that a hash of the stratum's index
    decides; the remaining rows are for training.
    """

    def __init__(self, rows: int, held: int = 0, key: int = 0, *, out: bool = False, kept: Any = None) -> None:
        """`out`: whether the part has the held-out rows; `kept`: the indices of rows to divide; None for all rows."""
        self.rows, self.held, self.key, self.out, self.kept = rows, held, key, out, kept
        self.size = held if out else rows - held

    def whole(self) -> RowPart:
        """A part that contains the held-out and the training rows."""
        return RowPart(self.rows, kept=self.kept)

    def at(self, places: Index) -> Index:
        """The table's row indices at some positions of the part."""
        if not self.held:
            chosen = places
        elif self.out:
            chosen = self._start(places) + self._offset(places)
        else:
            left = self.rows - self.held
            stratum = ((places + 1) * self.held - 1) // left  # the stratum of a training row, by its position
            inside = places - stratum * left // self.held
            chosen = self._start(stratum) + inside + (inside >= self._offset(stratum))
        return chosen if self.kept is None else self.kept[chosen].astype(np.int64)

    def all(self) -> Index:
        """The table's row indices of all rows of the part."""
        return self.at(np.arange(self.size, dtype=np.int64))

    def chunks(self, rows: int = CHUNK) -> Iterator[Index]:
        """The table's row indices of the part, in chunks of `rows` rows."""
        return (self.at(np.arange(i, min(i + rows, self.size), dtype=np.int64)) for i in range(0, self.size, rows))

    def spread(self) -> Iterator[Index]:
        """The row indices of the part in chunks; a large part is sampled by blocks that are spread over its rows."""
        if self.size <= MOMENT_ROWS:
            yield from self.chunks()
            return
        blocks = MOMENT_ROWS // MOMENT_BLOCK
        inside = np.arange(MOMENT_BLOCK, dtype=np.int64)
        for some in np.split(np.arange(blocks, dtype=np.int64) * self.size // blocks, blocks // 256):
            yield self.at((some[:, None] + inside).ravel())

    def shuffled(self, rng: np.random.Generator) -> Iterator[Index]:
        """The row indices of the part in random order: pools of random blocks are shuffled together."""
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
    """The hash of each number by the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))


def held_of(name: str, share: Any, rows: int, most: int | None = None) -> int:
    """The number of held-out rows of a table: at least one if the share is above 0, and never all rows."""
    share = check.number(name, share, least=0.0, below=1.0)
    held = max(min(max(round(share * rows), 1), rows - 1), 0) if share > 0 else 0
    return held if most is None else min(held, most)


def names_of(x: Any, features: int) -> tuple[str, ...]:
    """The labels in messages of the columns of a table or an array."""
    names = tuple(f"column {name!r}" for name in getattr(x, "columns", ()))
    return names if len(names) == features else tuple(f"column {i}" for i in range(features))
