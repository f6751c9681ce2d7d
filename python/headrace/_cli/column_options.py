"""The options ``--discrete``, ``--spread`` and ``--missing`` of a table."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._cli import screen
from headrace._flow.transforms.support import Support
from headrace._tables import table as _table
from headrace._tables.facts import Held, Seen
from headrace._tables.table import Table
from headrace.rows._columns import select
from headrace.rows._source import Source
from headrace.rows._stream import Block
from headrace.rows._text import is_number


def present(source: Source, columns: Sequence[Sequence[int]], rows: Block, arguments: argparse.Namespace) -> Block:
    """The rows without those with missing values, if these are to be dropped; else they are refused."""
    labels = [source.label(column) for part in columns for column in part]
    weights = None if rows.weights is None else rows.weights[:, None]
    parts = [part for part in (rows.x, rows.context, weights) if part is not None]
    try:
        good = _table.without_missing(np.concatenate(parts, axis=1), labels, arguments.missing, source.path)
    except ValueError as error:
        raise ValueError(str(error).replace("missing='drop'", "--missing drop")) from None
    if good.all():
        return rows
    if not arguments.quiet:
        notice = f"{int((~good).sum()):,} of {len(good):,} rows miss a number and are left out"
        screen.tell(f"{source.path}: {notice}")
    return rows.take(good)


def kinds_of(source: Source, columns: Sequence[int], arguments: argparse.Namespace) -> list[str]:
    """The kind of each feature's column, "float", "integer" or "boolean"."""
    kinds = [source.kinds[i] for i in columns]
    if arguments.discrete == "none":
        return ["float"] * len(columns)
    if arguments.discrete is None:
        return kinds
    named = [_place(source, columns, "--discrete", i) for i in select(source, "--discrete", arguments.discrete)]
    return ["integer" if i in named and kind == "float" else kind for i, kind in enumerate(kinds)]


def learn(
    source: Source,
    columns: Sequence[int],
    x: NDArray[Any] | Seen,
    arguments: argparse.Namespace,
    support: Support | None = None,
) -> Table:
    """The kinds of the features' columns, with a warning of constant ones and of those with repeated values.

    `x`: the rows, or a sample of them.
    """
    kinds = kinds_of(source, columns, arguments)
    seen = x if isinstance(x, Seen) else Held(x, [None] * len(columns) if support is None else support.bounds)
    widths: list[float | None] = [None] * len(columns)
    names = None if source.names is None else [source.names[i] for i in columns]
    own: dict[str, Any] = {"names": names, "x_name": source.path}
    if support is not None:
        own |= {"bounds": support.bounds, "periodic": support.periodic}
    if arguments.spread == "auto":
        repeated = _table.repeating(seen.some, Table.learn(seen, kinds, widths, **own))
        for i, gap in zip(repeated, seen.smallest_gaps(repeated), strict=True):
            widths[i] = gap
    elif arguments.spread is not None:
        for entry in arguments.spread.split(","):
            name, equals, width = entry.rpartition("=")
            if not equals or not is_number(width) or not 0.0 < float(width) < np.inf:
                raise ValueError(f"--spread: expected auto, or COLUMN=WIDTH with a width above 0, got {entry!r}")
            for column in select(source, "--spread", name.strip()):
                place = _place(source, columns, "--spread", column)
                if kinds[place] != "float":
                    raise ValueError(f"--spread: {source.label(column)} has whole numbers, which are spread anyway")
                widths[place] = float(width)
    found = replace(Table.learn(seen, kinds, widths, **own), seed=arguments.seed, missing=arguments.missing)
    _warn(source, columns, seen.some, found)
    return found


def _place(source: Source, columns: Sequence[int], option: str, column: int) -> int:
    if column not in columns:
        raise ValueError(f"{option}: expected columns of features, got {source.label(column)}")
    return list(columns).index(column)


def _warn(source: Source, columns: Sequence[int], x: NDArray[Any], found: Table) -> None:
    constant = [i for i, one in enumerate(found.columns) if one.constant is not None]
    if constant:
        first = found.columns[constant[0]].constant
        more = f" and {len(constant) - 1} more" if len(constant) > 1 else ""
        have, are = ("have", "are") if more else ("has", "is")
        warnings.warn(
            f"{source.path}: {source.label(columns[constant[0]])}{more} {have} one number in all rows ({first:g}), and "
            f"{are} kept aside: samples have it again, and rows with another number have a density of 0",
            RuntimeWarning,
            stacklevel=3,
        )
    names = None if source.names is None else [source.names[i] for i in columns]
    if message := _table.about_repeats(x, found, names):
        text = message.replace("by jitter", "by --spread").replace("by discrete", "by --discrete")
        warnings.warn(f"{source.path}: {text}", RuntimeWarning, stacklevel=3)
