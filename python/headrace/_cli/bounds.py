"""The options ``--bounds`` and ``--periodic``: the ranges of a table's columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._flow.transforms.support import Support
from headrace._tables.table import Table
from headrace.rows import _columns
from headrace.rows._source import Source

Pairs = list["tuple[float | None, float | None] | None"]


def read(source: Source, columns: Sequence[int], bounds: str | None, periodic: str | None) -> Support:
    """The features' bounds and periods from both options."""
    pairs, periods = (
        [None] * len(columns) if text is None else _pairs(option, source, text, columns)
        for option, text in (("--bounds", bounds), ("--periodic", periodic))
    )
    for column, pair, period in zip(columns, pairs, periods, strict=True):
        if period is not None and None in period:
            raise ValueError(f"--periodic: expected both ends of a period, got one for {source.label(column)}")
        if period is not None and pair is not None:
            raise ValueError(f"--periodic: expected columns without --bounds, got {source.label(column)}")
    return Support(pairs, periods)  # type: ignore[arg-type]  # both ends are present


def _pairs(option: str, source: Source, text: str, columns: Sequence[int]) -> Pairs:
    """Each feature's ends from a list such as ``age=0:,share=0:1,3=:5``: a column, its lower end and its upper end.

    A column is a name or an index in the table; an end that is left out is unbounded.
    """
    found: Pairs = [None] * len(columns)
    for entry in _entries(text):
        name, equals, ends = entry.rpartition("=")
        low, colon, high = ends.partition(":")
        if not (equals and colon and (low.strip() or high.strip())):
            raise ValueError(f"{option}: expected COLUMN=LOW:HIGH, with {_ENDS[option]}, got {entry!r}")
        name = name.strip()
        is_name = source.names is not None and name in source.names  # a name may contain commas, too
        for column in [_columns.find(source, option, name)] if is_name else _columns.select(source, option, name):
            if column not in columns:
                raise ValueError(f"{option}: expected columns of features, got {source.label(column)}")
            place = columns.index(column)
            if found[place] is not None:
                raise ValueError(f"{option}: expected different columns, got {source.label(column)} twice")
            found[place] = _pair(option, entry, low.strip(), high.strip())
    return found


_ENDS = {"--bounds": "one end or both", "--periodic": "both ends"}


def _entries(text: str) -> list[str]:
    """The entries between commas; names may contain commas, too, because an entry ends after its ends."""
    entries: list[str] = []
    for part in text.split(","):
        if entries and ":" not in entries[-1].rpartition("=")[2]:
            entries[-1] += "," + part
        else:
            entries.append(part)
    return [entry.strip() for entry in entries]


def _pair(option: str, entry: str, low: str, high: str) -> tuple[float | None, float | None]:
    try:
        pair = (float(low) if low else None, float(high) if high else None)
        Support([pair])
    except ValueError:
        raise ValueError(f"{option}: expected finite numbers for LOW and HIGH, LOW below HIGH, got {entry!r}") from None
    return pair


def check_rows(source: Source, columns: Sequence[int], values: NDArray[Any], support: Support, table: Table) -> None:
    """Refuse rows on a bound or beyond, by row and column; whole numbers have their own check, and may be on one."""
    with np.errstate(over="ignore"):  # a bound beyond the dtype is infinite there
        low, high = (end.astype(values.dtype) for end in support._ends())
    bad = (values <= low) | (values >= high)
    bad[:, [i for i, one in enumerate(table.columns) if one.is_discrete]] = False
    rows = np.flatnonzero(bad.any(axis=1))
    if rows.size:
        at = int(bad[rows[0]].argmax())
        first, last = (("" if end is None else f"{end:g}") for end in support.bounds[at] or (None, None))
        raise ValueError(
            f"{source.path}: row {rows[0]}, {source.label(columns[at])}: expected a number between its bounds "
            f"{first}:{last}, got {values[rows[0], at]:g}; rows like this: {rows.size} of {len(values)}, which "
            "count from 0; leave them out of the table, or give wider --bounds"
        )
