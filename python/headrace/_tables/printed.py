"""A printed table of the columns of a table, with their treatment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace._base.layout import Grid


def described(columns: Sequence[Any], names: Sequence[str] | None) -> str:
    """A printed table with a line for each `Column`: name or index, kind, and treatment by a fit."""
    called = names or [str(i) for i in range(len(columns))]
    rows = [(name, column.kind, _treatment(column)) for name, column in zip(called, columns, strict=True)]
    return "\n".join(Grid(("column", "kind", "in a fit"), rows, wraps=(0, 2)).lines())


def _treatment(column: Any) -> str:
    if column.left_out:
        return f"left out: {column.left_out}"
    if column.constant is not None:
        return f"always {column.constant:g}: kept aside"
    text = "as it is"
    if column.values:
        called = column.labels or ["missing" if value != value else f"{value:g}" for value in column.values]
        shown = ", ".join(called[:4]) + (", …" if len(called) > 4 else "")
        text = f"a probability for each of {len(called)} values ({shown})"
        text += ", a density of all others" if column.rest else ""
    if column.width:
        text = f"noise {column.width:g} wide" + (", samples are rounded" if column.is_discrete or column.step else "")
    if column.bounds is not None:
        low, high = ("no end" if end is None else f"{end:g}" for end in column.bounds)
        text += f", from {low} to {high}"
    if column.period is not None:
        text += f", around from {column.period[0]:g} to {column.period[1]:g}"
    return text
