"""Columns of a table with a probability for each value: labels, flags, counts with spikes, frequent values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import columns as _columns
from headrace._tables.discrete import Discrete
from headrace._tables.facts import Held, Seen

if TYPE_CHECKING:
    from headrace._tables.table import Column, Table

MOST = 128  # the most classes of a column
LEAST_ROWS = 50
WIDTHS = (0.5, 1.0, 2.0, 4.0, 8.0)  # widths of kernels for smoothed counts, in units of the gap
UNIFORM = 0.01  # the uniform share of a smoothed distribution
REPEATED = 0.5  # if this share of the rarer values repeat, frequent values get no class


def classified(table: Table, seen: Seen, how: Any) -> Table:
    """Choose the columns with classes, which have no noise; return the table with these classes. The columns of
    a stream get no classes. `how`: a `Treatment`.
    """
    asked = how.categories
    if isinstance(asked, str) and asked != "auto":
        raise ValueError(f"categories: expected 'auto', None or a list of columns, got {asked!r}")
    if asked is None or not isinstance(seen, Held):
        return table
    places = "categories", asked, seen.features, how.names, how.x_name
    named = set() if isinstance(asked, str) else set(_columns.chosen(*places))
    columns = []
    for i, column in enumerate(table.columns):
        x, is_free = seen.some[:, i], all(ends is None or ends[i] is None for ends in (how.bounds, how.periodic))
        labels = how.labels.get(i, how.labels.get(None if how.names is None else how.names[i], ()))
        if column.left_out:
            columns.append(column)
            continue
        values, rest = _values(column, x, is_free, bool(labels) or i in named, how)
        lost = (np.nan,) if np.isnan(x).any() else ()
        if (values or lost) and not (column.constant is not None and not lost):
            if not (rest and column.is_discrete):
                column = replace(column, width=0.0, step=0.0, frequent=())
            column = replace(column, constant=None, values=(*values, *lost), rest=rest)
        columns.append(replace(column, kind="category", labels=labels) if labels else column)
    return replace(table, columns=tuple(columns))


def _values(column: Column, x: NDArray[Any], is_free: bool, is_named: bool, how: Any) -> tuple[tuple[float, ...], bool]:
    """The values that get a probability each, and whether all other values have a density."""
    x = x[~np.isnan(x)]
    different, counts = np.unique(x, return_counts=True)
    values = tuple(map(float, different))
    if is_named or column.kind == "boolean" or column.constant is not None:
        return values, False
    if column.is_discrete:
        steps = 1 + round((values[-1] - values[0]) / column.width)
        if is_free and column.width and steps <= MOST and (steps <= 2 or has_spikes(x, column.width)):
            return tuple((values[0] + column.width * np.arange(steps)).tolist()), False
        return (), True
    if not (how.gates and is_free) or len(x) < LEAST_ROWS:
        return (), True
    frequent = counts >= _columns.SPIKE * len(x)
    rarer = counts[~frequent]
    if rarer.size < 2 or rarer[rarer > 1].sum() >= REPEATED * rarer.sum():
        return (), True
    return tuple(map(float, different[frequent])), True


def has_spikes(x: NDArray[Any], step: float) -> bool:
    """Whether the shares of whole numbers predict held-out rows at least as well as shares smoothed by a
    normal kernel.
    """
    if len(x) < LEAST_ROWS:
        return False
    grid = np.round((x - x.min()) / step).astype(int)
    size, held = int(grid.max()) + 1, np.random.default_rng(len(x)).permutation(len(x)) % 5 == 0
    counts = np.bincount(grid[~held], minlength=size)
    shares, apart = (counts + 0.5) / (counts + 0.5).sum(), np.subtract.outer(np.arange(size), np.arange(size))
    smooth = []
    for width in WIDTHS:
        kernel = np.exp(-0.5 * np.square(apart / width))
        law = (kernel / kernel.sum(axis=0)) @ counts / counts.sum()
        smooth.append(float(np.log((1.0 - UNIFORM) * law + UNIFORM / size)[grid[held]].mean()))
    return float(np.log(shares)[grid[held]].mean()) >= max(smooth)


def discretes(columns: Sequence[Column], x: NDArray[Any]) -> list[Discrete]:
    """A `Discrete` for each column of `x` whose treatment, an entry of `columns`, has values with classes."""
    discrete = []
    for i, column in enumerate(columns):
        if column.values:
            gaps = np.diff(column.values)
            has_gaps = column.kind == "integer" and not column.rest and not np.isnan(gaps).all()
            step = float(np.nanmin(gaps)) if has_gaps else 0.0
            there = x[:, i][~np.isnan(x[:, i])]
            scale = (float(there.mean()), float(there.std()) or 1.0) if step else (0.0, 1.0)
            discrete.append(Discrete(i, column.values, column.rest, step, *scale))
    return discrete
