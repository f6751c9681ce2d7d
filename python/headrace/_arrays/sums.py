"""Sums over the parts of a table and over all processes that have parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np


class Sums(Protocol):
    """An object that sums over all processes of a fit, such as a `headrace._fit.source.RowSource`."""

    library: Any
    """The library of the arrays: NumPy, or CuPy for rows on a device."""

    def sum(self, parts: Iterable[Any], zero: Any) -> Any:
        """The sum of all parts, which are arrays in the shape of `zero`, over all processes."""

    def total(self, parts: Iterable[float]) -> float:
        """The sum of all parts, which are scalars, over all processes."""

    def maximum(self, array: Any) -> Any:
        """The largest value of each entry of `array` over all processes."""


class PlainSums:
    """Sums of a fit in one process."""

    library: Any = np

    def sum(self, parts: Iterable[Any], zero: Any) -> Any:
        """The sum in the order of the parts, by `+`, because Python's `sum` rounds differently in some versions; see
        `Sums`.
        """
        total = zero
        for part in parts:
            total = total + part
        return total

    def total(self, parts: Iterable[float]) -> float:
        """The sum of scalars; see `Sums`."""
        return float(self.sum(parts, 0.0))

    def maximum(self, array: Any) -> Any:
        """The argument `array`, because the fit has one process; see `Sums`."""
        return array
