"""The options ``--bounds``, ``--periodic``, ``--discrete`` and ``--spread``: the columns of a table in lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace._flow.transforms.support import Support
from headrace.rows import _columns
from headrace.rows._source import Source
from headrace.rows._text import is_number

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


def widths(source: Source, columns: Sequence[int], spread: str | None) -> Any:
    """The widths of noise in a list such as ``age=1,mass=0.1``, by places of features; auto and none unchanged."""
    if spread is None or spread in ("auto", "none"):
        return spread or "auto"
    found: dict[int, float] = {}
    for entry in spread.split(","):
        name, equals, width = entry.rpartition("=")
        if not equals or not is_number(width) or not 0.0 < float(width) < np.inf:
            raise ValueError(f"--spread: expected auto, none, or COLUMN=WIDTH with a width above 0, got {entry!r}")
        found |= dict.fromkeys(places(source, columns, "--spread", name.strip()), float(width))
    return found


def places(source: Source, columns: Sequence[int], option: str, text: str) -> list[int]:
    """The places of columns among the features."""
    chosen = _columns.select(source, option, text)
    if others := [column for column in chosen if column not in columns]:
        raise ValueError(f"{option}: expected columns of features, got {source.label(others[0])}")
    return [columns.index(column) for column in chosen]
