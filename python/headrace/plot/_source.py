"""Arguments of pictures, opened: a density in any public form, rows, and names of columns."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import files
from headrace._arrays import frames
from headrace._arrays.caller import Caller
from headrace._arrays.frames import is_frame
from headrace._base import arguments as check
from headrace._base.output import printable
from headrace._base.pictures import NO_MATPLOTLIB, can_draw
from headrace._fit.ensemble import Ensemble
from headrace._fit.given_rows import open_rows
from headrace._flow.flow import Flow
from headrace._tables import table as _table
from headrace._tables.density import Columns, of_file

Rows = NDArray[Any]


@dataclass(frozen=True)
class Drawn:
    """A density for a picture, on the CPU, with its columns."""

    flow: Any
    """The flow or the ensemble of the density."""
    columns: Columns
    """The kinds and names of the columns of the density's rows."""

    def rows(self, x: Any, contexts: int = 0, context: Any = None) -> PlottedRows:
        """Checked rows in the columns of the density, with the same kind of noise as in the fit."""
        found = self.given(x, contexts, context)
        return PlottedRows(self.columns.used.spread(found.x, _table.LOOK), found.context, found.weights)

    def given(self, x: Any, contexts: int = 0, context: Any = None, weights: Any = None) -> PlottedRows:
        """Checked rows without added noise; rows with missing values are left out if the fit left such rows out.

        The columns of a frame are put in the order of the fit.
        """
        names, missing, gaps = self.columns.used_names, self.columns.table.missing, np.array(False)
        x = in_order(frames.without_text(x, names or ())[0], names)
        if np.ndim(x) == 2:
            x, context, weights = self.columns.opened(x, context, weights)
            good = ~np.isnan(x).any(axis=1) | (missing != "drop")
            x, context, weights = (p[good] if np.shape(p)[:1] == good.shape else p for p in (x, context, weights))
            gaps = np.isnan(x) & (missing == "model")
            x = np.where(gaps, 0.0, x)
        found = rows_of(x, len(self.columns.used.columns), contexts, context, weights)
        return replace(found, x=np.where(gaps, np.nan, found.x))

    def sample(self, n: int, context: Rows | None, seed: int) -> Rows:
        """Draws in the data's units, float64, without rows that are not finite; modelled missing values are NaN."""
        x: Rows = np.asarray(self.flow.sample(n, context, seed=seed, dtype="float64"))
        x = x[(np.isfinite(x) | (np.isnan(x) & (self.columns.table.missing == "model"))).all(axis=1)]
        if not len(x):
            raise ValueError("flow: expected a density with finite draws, got none in its sample")
        return x


@dataclass(frozen=True)
class PlottedRows:
    """Rows with context and weights. Values are finite, or NaN where the density models missing values."""

    x: Rows
    context: Rows | None = None
    weights: NDArray[np.float64] | None = None

    def some(self, most: int, seed: int) -> Rows:
        """At most `most` rows; rows with weights are drawn with probabilities proportional to the weights."""
        if len(self.x) <= most and self.weights is None:
            return self.x
        share = None if self.weights is None else self.weights / self.weights.sum()
        rng = np.random.default_rng(seed)
        return self.x[rng.choice(len(self.x), min(most, len(self.x)), replace=share is not None, p=share)]


def require() -> None:
    """Raise an error if matplotlib is missing.

    Raises:
        ImportError: matplotlib is not installed.
    """
    if not can_draw():
        raise ImportError(NO_MATPLOTLIB)


def density_of(flow: Any) -> Drawn:
    """The density of a flow, an ensemble, a fitted `FlowDensity`, a `Choice`, a table, or a file's path.

    Raises:
        TypeError: `flow` is of another type.
    """
    if isinstance(flow, (str, os.PathLike)):
        flow = of_file(*files.contents(flow))
    if hasattr(flow, "as_table"):
        found = flow.as_table()
        flow, columns = found.flow, found.columns
    elif isinstance(flow, (Flow, Ensemble)):
        columns = Columns.of_notes({}, flow)
    else:
        got = check.kind_of(flow)
        raise TypeError(f"flow: expected a flow, an ensemble, a fitted FlowDensity, a Choice or a path, got {got}")
    return Drawn(flow if flow.device == "cpu" else flow.to("cpu"), columns)


def rows_of(x: Any, features: int | None, contexts: int = 0, context: Any = None, weights: Any = None) -> PlottedRows:
    """Rows, checked as a fit checks them.

    Raises:
        TypeError, ValueError: rows are not as expected, as in `Flow.fit`.
    """
    x = _floats(x)
    if features is None:
        shape = np.shape(x)
        features = int(shape[1]) if len(shape) == 2 else 1
    found = open_rows("", features, contexts, Caller(), x, context, weights)
    share = None if found.weights is None else found.weights.astype(np.float64)
    return PlottedRows(found.x, found.context, share)


def _floats(x: Any) -> Any:
    """Integers, bools, lists and frames as float64, which pictures do not distinguish; other arrays unchanged."""
    whole = isinstance(x, np.ndarray) and x.dtype.kind in "iub"
    return np.asarray(x, np.float64) if whole or is_frame(x) or isinstance(x, (list, tuple)) else x


def row_of(context: Any, contexts: int) -> Rows | None:
    """One row of context, shape (contexts,), or None without context."""
    if (context is None) != (contexts == 0):
        wanted = f"one row of {contexts} numbers" if contexts else "None, as the density takes no context"
        raise ValueError(f"context: expected {wanted}, got {'None' if context is None else 'an array'}")
    if context is None:
        return None
    row = np.asarray(context, np.float64)
    row = row[None] if row.ndim == 0 else row[0] if row.ndim == 2 and len(row) == 1 else row
    if row.shape != (contexts,) or not np.isfinite(row).all():
        raise ValueError(f"context: expected one row of {contexts} finite numbers, got shape {np.shape(context)}")
    return row


def names_of(features: int, given: Sequence[str] | None, x: Any, known: tuple[str, ...] | None) -> tuple[str, ...]:
    """Names of columns: `given`, or else the names in the frame x, those of the density, or names made from indices."""
    if given is not None:
        return check.texts("names", given, features)
    if (labels := frames.names_of(x, features)) is not None:
        return known if known is not None and _is_other_order(labels, known) else tuple(labels)
    return known if known is not None else tuple(f"column {i}" for i in range(features))


def in_order(x: Any, known: tuple[str, ...] | None) -> Any:
    """x with its columns in the order `known` if x is a frame with the same columns in another order."""
    if known is not None and is_frame(x) and _is_other_order(getattr(x, "columns", ()), known):
        return x[list(known)]
    return x


def _is_other_order(columns: Any, known: tuple[str, ...] | None) -> bool:
    """Whether `columns` of a frame are the columns of the fit in another order."""
    names = [name for name in columns if isinstance(name, str)]
    return known is not None and names != list(known) and sorted(names) == sorted(known)


def columns_of(columns: Any, names: tuple[str, ...], argument: str = "columns") -> list[int]:
    """The indices of columns that are chosen by index or name; None for all columns."""
    if columns is None:
        return list(range(len(names)))
    if isinstance(columns, (str, int, np.integer)):
        columns = [columns]
    if not np.iterable(columns):
        raise TypeError(f"{argument}: expected numbers or names of columns, got {check.kind_of(columns)}")
    found = [_column(column, names, argument) for column in columns]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"{argument}: expected different columns, at least one, got {list(columns)!r}")
    return found


def _column(column: Any, names: tuple[str, ...], argument: str) -> int:
    if isinstance(column, str):
        if names.count(column) != 1:
            raise ValueError(f"{argument}: expected one of {', '.join(map(repr, names))}, got {column!r}")
        return names.index(column)
    return check.index(argument, column, len(names))


def label(name: str, width: int = 22, lines: int = 2) -> str:
    """A name for an axis, in lines of about `width` characters; text after the last line is cut.

    >>> label("the mean absolute magnitude in the Hipparcos band, corrected", 20)
    'the mean absolute\\nmagnitude in the …'
    """
    text = " ".join(printable(name).split())
    parts = textwrap.wrap(text, width, break_long_words=True) or [""]
    if len(parts) > lines:
        parts = [*parts[: lines - 1], parts[lines - 1][: width - 2] + " …"]
    return "\n".join(parts).replace("$", r"\$")  # a dollar sign would begin mathematics
