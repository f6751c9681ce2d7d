"""Columns that distinguish rows and are not measurements: indices that were saved as columns, and identifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._tables.facts import Seen

LEAST_ROWS = 5  # in fewer rows, values may be 0, 1, 2, ... by accident
LEAST_DIFFERENT = 50  # fewer whole numbers may all be different by accident
CROWDED = 8  # with rows² / range above this, some measured values would be equal
WIDE = 2.0**31  # a range of whole numbers that is unusual for quantities
ENDS = ("id", "index", "idx", "number", "_no")  # ends of identifiers' names, in singular or plural


def identifiers(x: NDArray[Any], seen: Seen, names: Sequence[str] | None) -> dict[int, str]:
    """Find columns whose values are row numbers, or a different whole number in each row; return a description of each.

    A column of different whole numbers in at least 50 rows is an identifier if its name is that of an identifier, if
    its range is so narrow that measured values would repeat, or if its range is at least 2^31. For columns with an
    empty name, or a name like "Unnamed: 0", which pandas gives to saved indices, five rows are enough for an index.

    Args:
        x: The first rows of the table, whose row numbers begin at 0.
        seen: Statistics of the rows that take part in the fit.
        names: Names of the columns, or None.
    """
    reasons = {}
    for i in range(seen.features):
        if len(x) >= LEAST_ROWS and _counts(x[:, i]):
            reasons[i] = ", ".join(f"{value:.0f}" for value in x[:3, i]) + ", ..."
        elif _identifies(seen, i, None if names is None else names[i].strip()):
            reasons[i] = "another whole number in each row"
    return reasons


def _counts(column: NDArray[Any]) -> bool:
    """Whether a column is 0, 1, 2, ... or 1, 2, 3, ...; in most columns the first three values decide."""
    first = column[0]
    if not ((first == 0 or first == 1) and (column[:3] == first + np.arange(3)).all()):
        return False
    return bool((column == (first + np.arange(len(column))).astype(column.dtype)).all())


def _identifies(seen: Seen, i: int, name: str | None) -> bool:
    column = seen.some[:, i]
    is_saved = name is not None and (not name or name.startswith("Unnamed:"))
    if len(column) < (LEAST_ROWS if is_saved else LEAST_DIFFERENT) or np.trunc(column[0]) != column[0]:
        return False
    extent = float(column.max()) - float(column.min())
    is_named = is_saved or (name is not None and name.lower().removesuffix("s").endswith(ENDS))
    if not (is_named or len(column) ** 2 >= CROWDED * extent or extent >= WIDE):
        return False
    return bool((np.trunc(column) == column).all()) and np.unique(column).size == column.size
