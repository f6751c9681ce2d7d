"""Sums over parts of a table, and over all processes that hold some."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np


class Sums(Protocol):
    """Sums over all processes of a fit; a `headrace._fit.source.RowSource` is one."""

    library: Any
    """NumPy, or CuPy where the rows are on a device."""

    def sum(self, parts: Iterable[Any], zero: Any) -> Any:
        """The sum of all parts of all processes, arrays of the shape of `zero`."""

    def total(self, parts: Iterable[float]) -> float:
        """The sum of scalars over all parts of all processes."""

    def maximum(self, array: Any) -> Any:
        """The largest values over all processes, entry by entry."""


class PlainSums:
    """Sums of one process."""

    library: Any = np

    def sum(self, parts: Iterable[Any], zero: Any) -> Any:
        """The sum in the order of the parts, because `sum` rounds differently in different versions of Python; see
        `Sums`.
        """
        total = zero
        for part in parts:
            total = total + part
        return total

    def total(self, parts: Iterable[float]) -> float:
        """See `Sums`."""
        return float(self.sum(parts, 0.0))

    def maximum(self, array: Any) -> Any:
        """See `Sums`."""
        return array
