"""Preparation of a table's rows for a fit: the kinds of columns are recognised, columns are treated accordingly, and
warnings describe the treatment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import columns as _columns
from headrace._base.warn import warn
from headrace._fit.given_rows import check_finite, check_inside, listing
from headrace._fit.streams import check_stream
from headrace._flow.transforms.support import Support, support_or_none
from headrace._tables import table as _table
from headrace._tables.arguments import Treatment
from headrace._tables.facts import Held, Passed, Seen
from headrace._tables.identifiers import identifiers
from headrace._tables.stream import Present, Treated
from headrace._tables.table import Table
from headrace.rows._stream import Block, Stream

ON_THE_COMMAND_LINE = "leave such rows out of the table, or the column by --columns"


@dataclass(frozen=True)
class Prepared:
    """Treated rows for the fit of a flow, and the treatment of all columns of the table."""

    rows: Any
    """The treated rows, a `Block` or a `Stream`."""
    table: Table
    """The treatment of each column of the original table."""
    bounds: list[Any] | None
    periodic: list[Any] | None
    """Periods of the remaining columns."""
    given: Any = None
    """The rows in their original form; rows with missing values are left out if they were dropped."""
    missing: int = 0
    """The number of rows with missing values, which were left out."""


def prepared(rows: Block | Stream, kinds: Sequence[str] | None, how: Treatment, progress: bool = False) -> Prepared:
    """Prepare rows in memory, or a stream, for a fit.

    Row numbers and identifiers are left out, constant columns are kept aside, whole numbers and repeated values are
    spread by noise. The noise of a row depends on its index among the rows that are not dropped.

    Args:
        rows: Rows in their original form, NaN for missing values.
        kinds: Kinds of the columns by their dtypes, as from `frames.kinds_of`.
        how: The arguments of the table.
        progress: Whether to show a bar where a stream is read.

    Raises:
        ValueError: rows have missing values and are not dropped, or are not finite, or lie beyond their bounds,
            or columns contradict the arguments.
    """
    return _of_block(rows, kinds, how) if isinstance(rows, Block) else _of_stream(rows, kinds, how, progress)


def present(rows: Block, how: Treatment) -> Block:
    """Leave out rows with missing values if `how.missing` is "drop"; if it is "refuse", raise ValueError
    for such rows.
    """
    total, labels = len(rows), [_columns.label(i, how.names) for i in range(rows.x.shape[1])]
    good = _table.without_missing(rows.x, labels, how.missing, how.x_name, how.dashes)
    if how.missing == "drop":
        good &= _table.complete(rows.x, rows.context, rows.weights)
    rows = rows if good.all() else rows.take(good)
    if not len(rows):
        wanted = "rows that miss no number" if total else "at least one row"
        raise ValueError(f"{how.x_name}: expected {wanted}, got none")
    return rows


def _of_block(rows: Block, kinds: Sequence[str] | None, how: Treatment) -> Prepared:
    features, total = rows.x.shape[1], len(rows)
    how = how.checked(features)
    rows = present(rows, how)
    labels = tuple(_columns.label(i, how.names) for i in range(features))
    numbers = rows.x if how.missing != "model" else np.nan_to_num(rows.x, nan=0.0, posinf=np.inf, neginf=-np.inf)
    check_finite(how.x_name, numbers, labels, ON_THE_COMMAND_LINE if how.dashes else "")
    used = rows if rows.weights is None or not rows.weights.any() else rows.take(rows.weights > 0)
    table = _learnt(rows.x, Held(used.x, how.support(features).bounds), kinds, how)
    treated = Block(table.spread(rows.x), rows.context, rows.weights)
    ends = table.bounds(how.bounds), table.periods(how.periodic)
    if (support := support_or_none(ends[0], len(table.kept), ends[1])) is not None:
        check_inside(how.x_name, treated.x, support, tuple(labels[i] for i in table.kept))
    return Prepared(treated, table, *ends, rows, total - len(rows))


def _of_stream(rows: Stream, kinds: Sequence[str] | None, how: Treatment, progress: bool) -> Prepared:
    rows = Present(rows) if how.missing == "drop" else rows
    first = next(iter(rows), None)
    if first is None:
        raise ValueError(f"{how.x_name}: expected rows that miss no number, got none")
    how = how.checked(features := first.x.shape[1])
    support = how.support(features)
    seen = Passed(rows, support.bounds)
    try:
        check_stream(rows, _of_floats(support, how, kinds), progress, seen.add)  # check rows before some are held out
    except ValueError as error:
        raise ValueError(f"{how.x_name}: {error}; rows count from 0" if how.dashes else str(error)) from None
    table = _learnt(first.x, seen, kinds or rows.kinds, how)
    missing = rows.left_out if isinstance(rows, Present) else 0
    treated = rows if table.is_plain else Treated(rows, table)
    return Prepared(treated, table, table.bounds(how.bounds), table.periods(how.periodic), rows, missing)


def _of_floats(support: Support, how: Treatment, kinds: Sequence[str] | None) -> Support | None:
    """The support for checks of a stream: without bounds for columns of whole numbers, which may be equal to their
    bounds and are checked elsewhere.
    """
    whole = how._kinds(kinds, len(support.bounds))
    ends: list[list[Any]] = [
        [pair if kind == "float" else None for pair, kind in zip(part, whole, strict=True)]
        for part in (support.bounds, support.periodic)
    ]
    return support_or_none(ends[0], len(whole), ends[1])


def _learnt(first: NDArray[Any], seen: Seen, kinds: Sequence[str] | None, how: Treatment) -> Table:
    """Learn the treatment of the columns from rows; warn of columns left out, of repeated values and of constants."""
    features, names = seen.features, how.names
    left_out: dict[int, str] = {}
    if not how.keep:
        used = how.mentioned(features)
        left_out = {i: what for i, what in identifiers(first, seen, names).items() if i not in used}
        left_out = {} if len(left_out) == features else left_out
    table = how.learn(seen, kinds, left_out)
    labels = dict.fromkeys(how.texts, "text")
    warn_of_left_out(labels | {_columns.label(i, names): what for i, what in left_out.items()}, how)
    if how.spread not in (None, "none"):
        is_auto = isinstance(how.spread, str)
        for line in _table.about_repeats(seen.some, table, names, how.dashes, spread=is_auto):
            warn(f"{how.x_name}: {line}")
    constant = [i for i, column in enumerate(table.columns) if column.constant is not None]
    if constant and how.dashes:
        more = f" and {len(constant) - 1} more" if len(constant) > 1 else ""
        has, are = ("have", "are") if more else ("has", "is")
        value, label = table.columns[constant[0]].constant, _columns.label(constant[0], names)
        warn(f"{how.x_name}: {label}{more} {has} one number in all rows ({value:g}), and {are} kept aside")
    return table


def warn_of_left_out(columns: dict[str, str], how: Treatment) -> None:
    """Warn of columns that are left out, by their labels, with the reason of each."""
    named = listing([f"{label} ({what})" for label, what in columns.items()])
    keep = next((label.removeprefix("column ") for label, what in columns.items() if what != "text"), "")
    way = "; --columns chooses others" if how.dashes else f"; discrete=[{keep}] keeps it"
    if columns:
        warn(f"{how.x_name}: left out: {named}" + (way if keep else ""))
