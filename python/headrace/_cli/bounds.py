"""The option ``--bounds``: which numbers columns of a table may have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._cli import tables
from headrace.transforms.support import Support

__all__ = ["check_rows", "read"]


def read(source: tables.Source, text: str, columns: Sequence[int]) -> Support:
    """What a list like ``age=0:,share=0:1,3=:5`` means for the features: a column, its lower end and its upper end.

    A column is a name or a number of the table's, and an end that is left out is none.
    """
    bounds: list[Any] = [None] * len(columns)
    for entry in _entries(text):
        name, equals, ends = entry.rpartition("=")
        low, colon, high = ends.partition(":")
        if not (equals and colon and (low.strip() or high.strip())):
            raise ValueError(f"--bounds: expected COLUMN=LOW:HIGH, with one end or both, got {entry!r}")
        name = name.strip()
        is_name = source.names is not None and name in source.names  # it may have commas, too
        for column in [source.find("--bounds", name)] if is_name else source.select("--bounds", name):
            if column not in columns:
                raise ValueError(f"--bounds: expected columns of features, got {source.label(column)}")
            place = columns.index(column)
            if bounds[place] is not None:
                raise ValueError(f"--bounds: expected different columns, got {source.label(column)} twice")
            bounds[place] = _pair(entry, low.strip(), high.strip())
    return Support(bounds)


def _entries(text: str) -> list[str]:
    """Between commas, of which names may have some too: an entry ends after its ends."""
    entries: list[str] = []
    for part in text.split(","):
        if entries and ":" not in entries[-1].rpartition("=")[2]:
            entries[-1] += "," + part
        else:
            entries.append(part)
    return [entry.strip() for entry in entries]


def _pair(entry: str, low: str, high: str) -> tuple[float | None, float | None]:
    try:
        pair = (float(low) if low else None, float(high) if high else None)
        Support([pair])
    except ValueError:
        raise ValueError(f"--bounds: expected finite numbers for LOW and HIGH, LOW below HIGH, got {entry!r}") from None
    return pair


def check_rows(source: tables.Source, columns: Sequence[int], values: NDArray[Any], support: Support) -> None:
    """Refuse rows on a bound or beyond, by row and column."""
    low, high = (end.astype(values.dtype) for end in support._ends())
    bad = (values <= low) | (values >= high)
    rows = np.flatnonzero(bad.any(axis=1))
    if rows.size:
        at = int(bad[rows[0]].argmax())
        first, last = (("" if end is None else f"{end:g}") for end in support.bounds[at] or (None, None))
        raise ValueError(
            f"{source.path}: row {rows[0]}, {source.label(columns[at])}: expected a number between its bounds "
            f"{first}:{last}, got {values[rows[0], at]:g}; rows like this: {rows.size} of {len(values)}; the first row "
            "has number 0"
        )
