"""Readers of lists of columns in the options ``--bounds``, ``--periodic``, ``--discrete`` and ``--spread``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace._flow.transforms.support import Support
from headrace.rows import _columns
from headrace.rows._source import Source
from headrace.rows._text import is_number

Ends = dict[int, tuple[float | None, float | None]]
_ENDS = {"--bounds": "one end or both", "--periodic": "both ends"}


def read(source: Source, columns: Sequence[int], bounds: str | None, periodic: str | None) -> tuple[Ends, Ends]:
    """The bounds and the periods in the options ``--bounds`` and ``--periodic``, by indices of features."""
    pairs, periods = (_pairs(*option, source, columns) for option in (("--bounds", bounds), ("--periodic", periodic)))
    for place, period in periods.items():
        if None in period or place in pairs:
            wanted = "both ends of a period, got one for" if None in period else "columns without --bounds, got"
            raise ValueError(f"--periodic: expected {wanted} {source.label(columns[place])}")
    return pairs, periods


def _pairs(option: str, text: str | None, source: Source, columns: Sequence[int]) -> Ends:
    """Both ends by index of the feature, from a list such as ``age=0:,share=0:1,3=:5`` of columns' names or indices."""
    by_column: Ends = {}
    for entry in _entries(text) if text is not None else ():
        name, equals, ends = entry.rpartition("=")
        low, colon, high = map(str.strip, ends.partition(":"))
        if not (equals and colon and (low or high)):
            raise ValueError(f"{option}: expected COLUMN=LOW:HIGH, with {_ENDS[option]}, got {entry!r}")
        try:
            pair = (float(low) if low else None, float(high) if high else None)
            Support([pair])
        except ValueError:
            raise ValueError(f"{option}: expected finite numbers, LOW below HIGH, got {entry!r}") from None
        for place in places(source, columns, option, name.strip()):
            if place in by_column:
                raise ValueError(f"{option}: expected different columns, got {source.label(columns[place])} twice")
            by_column[place] = pair
    return by_column


def _entries(text: str) -> list[str]:
    """The entries between commas of a text. A name may contain commas, because an entry ends only after its bounds."""
    entries: list[str] = []
    for part in text.split(","):
        if entries and ":" not in entries[-1].rpartition("=")[2]:
            entries[-1] += "," + part
        else:
            entries.append(part)
    return [entry.strip() for entry in entries]


def widths(source: Source, columns: Sequence[int], spread: str | None) -> Any:
    """The widths of noise by index of the feature, from a list such as ``age=1,mass=0.1``; or the text auto or none."""
    if spread is None or spread in ("auto", "none"):
        return spread or "auto"
    by_column: dict[int, float] = {}
    for entry in spread.split(","):
        name, equals, width = entry.rpartition("=")
        if not equals or not is_number(width) or not 0.0 < float(width) < np.inf:
            raise ValueError(f"--spread: expected auto, none, or COLUMN=WIDTH with a width above 0, got {entry!r}")
        by_column |= dict.fromkeys(places(source, columns, "--spread", name.strip()), float(width))
    return by_column


def places(source: Source, columns: Sequence[int], option: str, text: str) -> list[int]:
    """The positions, among the features `columns`, of the columns that `text` lists; a name may contain commas."""
    is_name = source.names is not None and text in source.names
    chosen = [_columns.find(source, option, text)] if is_name else _columns.select(source, option, text)
    if unknown := [column for column in chosen if column not in columns]:
        raise ValueError(f"{option}: expected columns of features, got {source.label(unknown[0])}")
    return [columns.index(column) for column in chosen]
