"""The choice of features, context and weights among a table's named columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from headrace._base import arguments as check


def chosen_columns(
    there: Sequence[Any], columns: Any, context: Any, weights: Any
) -> tuple[list[Any], list[Any], list[Any]]:
    """Names of features, of context and of weights, at most one of these; by default all are features that are neither.

    Args:
        there: Names of all columns.
        columns: A name, or several; None for the default.
        context: A name, or several; None for none.
        weights: A name, or None.

    Raises:
        TypeError: a value that is no name.
        ValueError: names that are missing, ambiguous, or given twice.
    """
    kinds: tuple[type, ...] = (str, *(type(name) for name in there))
    if weights is not None and not isinstance(weights, kinds):
        raise TypeError(f"weights: expected the name of a column, got {check.kind_of(weights)}")
    conditions, counts = _names("context", context, kinds), [] if weights is None else [weights]
    features = _names("columns", columns, kinds) or [name for name in there if name not in (*conditions, *counts)]
    every = [*features, *conditions, *counts]
    for name in every:
        if there.count(name) != 1:
            raise ValueError(
                f"columns, context, weights: expected names of columns, got {name!r}, which is there "
                f"{there.count(name)} times; there are {', '.join(map(repr, there))}"
            )
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
