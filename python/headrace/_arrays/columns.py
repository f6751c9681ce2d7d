"""Columns of a table: labels in messages, choices by name or index, and the detection of one frequent value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check

SPIKE = 0.05  # a value is frequent if at least this share of rows has it
# The least number of rows with a frequent value. Of tables of 20 to 100 normal values, rounded to multiples of 1/10
# to 1/200 of the standard deviation, at most 0.1 % have 5 equal values by chance, and 2.4 % have 3; if a tenth of
# the values is equal, 38 % of the tables of 40 rows and 98 % of the tables of 100 rows have 5 equal values.
LEAST_EQUAL = 5


def label(column: int, names: Sequence[str] | None) -> str:
    """The label of a column in messages: its name, or its index from 0 if names are unknown."""
    return f"column {column}" if names is None else f"column {names[column]!r}"


def ranges(columns: Sequence[int]) -> str:
    """The indices of columns as a short text with ranges.

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
    """The indices of columns that `columns` chooses by index or name.

    Args:
        name: The argument's name in messages.
        columns: An iterable of indices and names.
        features: The number of columns.
        names: The names of all columns; None if unknown.
        table_name: The table's name in messages.

    Raises:
        TypeError, ValueError: a choice is neither an index nor a name, or the table lacks the column.
    """
    if not np.iterable(columns):
        raise TypeError(f"{name}: expected columns by number or name, got {check.kind_of(columns)}")
    indices = []
    for column in columns:
        if not isinstance(column, str):
            indices.append(check.index(name, column, features) % features)
        elif names is None:
            raise ValueError(f"{name}: expected columns by number, because {table_name} has no names, got {column!r}")
        elif column not in names:
            there = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
            raise ValueError(f"{name}: expected a column of {table_name}, got {column!r}; there are {there}")
        else:
            indices.append(list(names).index(column))
    return indices


def by_column(name: str, value: Any, features: int, names: Sequence[str] | None, table_name: str = "x") -> Any:
    """A list with an entry, or None, for each column, from a dict by index or name; other values are unchanged.

    >>> by_column("bounds", {"b": (0, None), 0: (1, 2)}, 3, ["a", "b", "c"])
    [(1, 2), (0, None), None]
    """
    if not isinstance(value, Mapping):
        return value
    values: list[Any] = [None] * features
    places = chosen(name, value, features, names, table_name)
    if len(set(places)) < len(places):
        raise ValueError(f"{name}: expected each column once, got {list(value)!r}")
    for place, entry in zip(places, value.values(), strict=True):
        values[place] = entry
    return values


def is_spike(counts: NDArray[Any]) -> bool:
    """Whether one value is frequent and other values hardly repeat, as in a column of zeros and continuous values.

    `counts`: the count of each different value. Noise as wide as the smallest gap between values would leave a spike at
    a frequent value.
    """
    remaining, most = np.delete(counts, counts.argmax()), counts.max()
    is_frequent = most >= max(SPIKE * counts.sum(), LEAST_EQUAL)
    return bool(remaining.size and is_frequent and remaining[remaining > 1].sum() <= SPIKE * remaining.sum())


def spike(column: NDArray[Any], label: str) -> str | None:
    """A description of a column's one frequent value, such as the zeros of rainfall on most days; None if no value is
    frequent or other values repeat.
    """
    values, counts = np.unique(column, return_counts=True)
    if not is_spike(counts):
        return None
    most = f"{values[counts.argmax()]:g} in {counts.max():,} of {len(column):,} rows"
    return f"{label} ({most}, and {len(values) - 1:,} different ones elsewhere)"
