"""The choice of features, context and weights among a table's columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from headrace._base import arguments as check
from headrace.rows._source import Source


def chosen_columns(
    there: Sequence[Any], columns: Any, context: Any, weights: Any
) -> tuple[list[Any], list[Any], list[Any]]:
    """The names of features, of context and of weights (at most one); by default all remaining columns are features.

    Args:
        there: The names of all columns, or their indices in a table without names.
        columns: The name of a feature, or several names; None for the default.
        context: A name, or several names; None for no context.
        weights: The name of the weights; None for no weights.

    Raises:
        TypeError: an argument is not a name.
        ValueError: a name is missing, ambiguous, or chosen twice.
    """
    kinds: tuple[type, ...] = (str, *(type(name) for name in there))
    if weights is not None and not isinstance(weights, kinds):
        raise TypeError(f"weights: expected the name of a column, got {check.kind_of(weights)}")
    conditions, counts = _names("context", context, kinds), [] if weights is None else [weights]
    features = _names("columns", columns, kinds) or [name for name in there if name not in (*conditions, *counts)]
    every = [*features, *conditions, *counts]
    for name in every:
        if there.count(name) != 1:
            got = f"{name!r}, which is there {there.count(name)} times; there are {', '.join(map(repr, there))}"
            raise ValueError(f"columns, context, weights: expected names of columns, got {got}")
        if every.count(name) > 1:
            raise ValueError(f"columns, context, weights: expected different columns, got {name!r} twice")
    return features, conditions, counts


def _names(argument: str, value: Any, kinds: tuple[type, ...]) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, kinds):
        return [value]
    given = list(value) if isinstance(value, Iterable) else [value]
    if not all(isinstance(name, kinds) for name in given):
        raise TypeError(f"{argument}: expected names of columns, got {check.kind_of(value)}")
    return given


def select(source: Source, option: str, text: str) -> list[int]:
    """The indices of columns in a text such as ``mass,radius`` or ``0,3:6``: names, indices from 0, ranges."""
    chosen = [i for token in text.split(",") for i in _token(source, option, token.strip())]
    twice = sorted(i for i, count in Counter(chosen).items() if count > 1)
    if twice:
        raise ValueError(f"{option}: expected different columns, got {source.label(twice[0])} twice")
    return chosen


def find(source: Source, option: str, name: str) -> int:
    """The index of the column with the name `name`."""
    count = (source.names or ()).count(name)
    if source.names is None or count == 0:
        raise _missing(source, option, name)
    if count > 1:
        raise ValueError(f"{option}: expected one column {name!r} in {source.path}, got {count}")
    return source.names.index(name)


def _token(source: Source, option: str, token: str) -> list[int]:
    if source.names is not None and token in source.names:
        return [find(source, option, token)]
    parts = token.split(":")
    try:
        ends = [int(part) if part else None for part in parts]
    except ValueError:
        ends = []
    if len(ends) == 1 and ends[0] is not None and 0 <= ends[0] < source.n_columns:
        return [ends[0]]
    if len(ends) == 2:
        first, end = ends[0] or 0, source.n_columns if ends[1] is None else ends[1]
        if 0 <= first < end <= source.n_columns:
            return list(range(first, end))
    raise _missing(source, option, token)


def _missing(source: Source, option: str, name: str) -> ValueError:
    has = f"{source.n_columns} columns, numbered from 0"
    if source.names is not None:
        has = "the columns " + ", ".join(map(repr, source.names))
    return ValueError(f"{option}: expected a column of {source.path}, got {name!r}; the file has {has}")
