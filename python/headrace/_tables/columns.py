"""Columns of a table that count its rows: an index that came along when the table was saved, and no feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["about_index", "label"]

_LEAST_ROWS = 5  # fewer count up by accident


def label(column: int, names: Sequence[str] | None) -> str:
    """A column in a message: its name, or its index from 0 without one."""
    return f"column {column}" if names is None else f"column {names[column]!r}"


def about_index(x: NDArray[Any], names: Sequence[str] | None = None) -> str | None:
    """A sentence about the first column that numbers the rows; None if none does.

    That is a column 0, 1, 2, ... or 1, 2, 3, ..., and one of different whole numbers with an empty name or a name like
    "Unnamed: 0", pandas' name of a saved index, after rows were shuffled or chosen.

    Args:
        x: Shape (rows, columns).
        names: Of the columns, or None.
    """
    if len(x) < _LEAST_ROWS:
        return None
    for i, column in enumerate(x.T):
        name = None if names is None else names[i].strip()
        if _counts(column):
            what = f"{column[0]:.0f}, {column[1]:.0f}, {column[2]:.0f}, ..."
        elif name is not None and (not name or name.startswith("Unnamed:")) and _identifies(column):
            what = "different whole numbers"
        else:
            continue
        return f"{label(i, names)} ({what}) looks like the numbers of the rows, and would be fitted as a feature"
    return None


def _counts(column: NDArray[Any]) -> bool:
    """Whether it is 0, 1, 2, ... or 1, 2, 3, ...; for most columns three values decide."""
    first = column[0]
    if not ((first == 0 or first == 1) and (column[:3] == first + np.arange(3)).all()):
        return False
    return bool((column == (first + np.arange(len(column))).astype(column.dtype)).all())


def _identifies(column: NDArray[Any]) -> bool:
    return bool((np.trunc(column) == column).all()) and np.unique(column).size == column.size
