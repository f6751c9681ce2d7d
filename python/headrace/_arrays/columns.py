"""Columns of a table: their labels in messages, choices by name or index, and indices that were saved as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check

_LEAST_ROWS = 5  # fewer count up by accident
SPIKE = 0.05  # the share of rows with one value from which on it is frequent


def label(column: int, names: Sequence[str] | None) -> str:
    """A column in a message: its name, or its index from 0 without one."""
    return f"column {column}" if names is None else f"column {names[column]!r}"


def ranges(columns: Sequence[int]) -> str:
    """Columns by their indices in short.

    >>> ranges([0, 1, 2, 4])
    '0:3,4'
    """
    runs: list[list[int]] = []
    for column in columns:
        if runs and column == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([column, column + 1])
    return ",".join(str(begin) if end == begin + 1 else f"{begin}:{end}" for begin, end in runs)


def chosen(name: str, columns: Any, features: int, names: Sequence[str] | None, table_name: str = "x") -> list[int]:
    """The indices of columns given by index or name.

    Args:
        name: Of the argument in messages.
        columns: An iterable of these.
        features: The number of columns.
        names: Of all columns; None for unknown ones.
        table_name: The table's name in messages.

    Raises:
        TypeError, ValueError: something else, or no column of the table.
    """
    if not np.iterable(columns):
        raise TypeError(f"{name}: expected columns by number or name, got {check.kind_of(columns)}")
    found = []
    for column in columns:
        if not isinstance(column, str):
            found.append(check.index(name, column, features) % features)
        elif names is None:
            raise ValueError(
                f"{name}: expected columns by number, as the names of the columns of {table_name} are not known, got "
                f"{column!r}"
            )
        elif column not in names:
            there = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
            raise ValueError(f"{name}: expected a column of {table_name}, got {column!r}; there are {there}")
        else:
            found.append(list(names).index(column))
    return found


def by_column(name: str, value: Any, features: int, names: Sequence[str] | None, table_name: str = "x") -> Any:
    """A list with an entry for each column, from a dict by index or name, which may lack some; other values unchanged.

    >>> by_column("bounds", {"b": (0, None), 0: (1, 2)}, 3, ["a", "b", "c"])
    [(1, 2), (0, None), None]
    """
    if not isinstance(value, Mapping):
        return value
    found: list[Any] = [None] * features
    places = chosen(name, value, features, names, table_name)
    if len(set(places)) < len(places):
        raise ValueError(f"{name}: expected each column once, got {list(value)!r}")
    for place, one in zip(places, value.values(), strict=True):
        found[place] = one
    return found


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


def spike(column: NDArray[Any], label: str) -> str | None:
    """A column with one frequent value, as of rain that is zero on most days, in words; None where others repeat, too.

    Noise as wide as the smallest gap leaves such a value a spike.
    """
    values, counts = np.unique(column, return_counts=True)
    others = np.delete(counts, counts.argmax())
    if not others.size or counts.max() < SPIKE * len(column) or others[others > 1].sum() > SPIKE * others.sum():
        return None
    most = f"{values[counts.argmax()]:g} in {counts.max():,} of {len(column):,} rows"
    return f"{label} ({most}, and {len(values) - 1:,} different ones elsewhere)"
