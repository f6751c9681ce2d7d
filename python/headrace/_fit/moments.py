"""Weighted means and deviations of columns that come some rows at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Moments"]

Floats = NDArray[np.float64]


class Moments:
    """Mean, standard deviation and half the range of each column, in float64, whatever the blocks.

    Blocks are merged as Chan, Golub, LeVeque (1983) do, by deviations and not by their squares, which may leave the
    numbers.
    """

    def __init__(self) -> None:
        """Of no rows."""
        self.weight = 0.0
        self.mean = self.std = self.low = self.high = np.empty(0)

    def add(self, values: Floats, share: Floats) -> None:
        """Rows, shape (rows, columns), with weights above 0, shape (rows,); at least one row."""
        low, high, total = values.min(axis=0), values.max(axis=0), float(share.sum())
        middle, half = low / 2 + high / 2, high / 2 - low / 2
        unit = np.where(half > 0, half, 1.0)
        away = (values - middle) / unit
        own = (away * share[:, None]).sum(axis=0) / total
        std = unit * np.sqrt((np.square(away - own) * share[:, None]).sum(axis=0) / total)
        mean = middle + unit * own
        if not self.weight:
            self.weight, self.mean, self.std, self.low, self.high = total, mean, std, low, high
            return
        both = self.weight + total
        old, new = self.weight / both, total / both
        apart = 2.0 * np.sqrt(old * new) * (mean / 2 - self.mean / 2)
        self.std = np.hypot(np.hypot(np.sqrt(old) * self.std, np.sqrt(new) * std), apart)
        self.mean = self.mean + 2.0 * new * (mean / 2 - self.mean / 2)
        self.weight, self.low, self.high = both, np.minimum(self.low, low), np.maximum(self.high, high)

    def found(self) -> tuple[Floats, Floats, Floats]:
        """Mean, standard deviation, and half the range."""
        return self.mean, self.std, self.high / 2 - self.low / 2
