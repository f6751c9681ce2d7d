"""Tables of `headrace.auto`: their conversion to rows of a density, and its inverse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import columns as _columns
from headrace._arrays import frames
from headrace._arrays.caller import Caller
from headrace._arrays.names import Names, refuse_others
from headrace._base import arguments as check
from headrace._base.warn import warn
from headrace._fit.given_rows import check_inside
from headrace._flow.transforms.support import Bounds, Periods, support_or_none
from headrace._tables import arguments as given
from headrace._tables import table as _table
from headrace.choosing.sample import Sample, opened


@dataclass(frozen=True)
class Columns:
    """Kinds and names of a table's columns."""

    table: _table.Table
    """The preprocessing of each column."""
    names: tuple[str, ...] | None = None
    context_names: tuple[str, ...] | None = None
    dtype: str = "float64"
    """The dtype of the given rows."""
    library: str | None = None
    """The library of the given frame, "pandas" or "polars"."""
    frame_names: tuple[str, ...] | None = None
    """The names of the frame's columns."""

    @property
    def kept_names(self) -> tuple[str, ...] | None:
        """The names of the columns of the density."""
        return None if self.names is None else tuple(self.names[i] for i in self.table.kept)

    @property
    def matter(self) -> bool:
        """Whether rows of the table differ from those of the density."""
        return not self.table.is_plain or self.table.missing == "drop"

    def opened(self, x: Any, *others: Any, x_name: str = "x") -> list[Any]:
        """Rows of such a table as an array, NaN where one is missing, with context and weights.

        Raises:
            ValueError: other columns than those of the fit, or a frame with the same in another order.
        """
        self._check_names(x, x_name)
        caller = Caller()
        rows, *rest = (
            None if part is None else caller.open(name, part, whole=True)
            for name, part in zip((x_name, "context", "weights"), (x, *others), strict=False)
        )
        if rows is None or rows.ndim != 2 or rows.shape[1] != len(self.table.columns):
            shape = None if rows is None else rows.shape
            raise ValueError(f"{x_name}: expected rows of {len(self.table.columns)} columns, got shape {shape}")
        return [rows, *rest]

    def _check_names(self, x: Any, x_name: str) -> None:
        expected, got = self.frame_names, frames.names_of(x, len(self.table.columns))
        if expected is None or got is None:
            return
        refuse_others(x_name, got, expected)

    def notes(self) -> dict[str, str]:
        """The columns' entry in a file of the density."""
        found = {"dtype": self.dtype}
        found |= Names(self.kept_names, self.context_names).notes()
        if self.matter:
            found["table"] = _table.note(self.table, self.names)
        return found

    def lines(self) -> list[str]:
        """A description of the preprocessing."""
        labels = [_columns.label(i, self.names).removeprefix("column ") for i in range(len(self.table.columns))]
        whole = [i for i in self.table.kept if self.table.columns[i].is_discrete and self.table.columns[i].width]
        spread = [i for i in self.table.kept if not self.table.columns[i].is_discrete and self.table.columns[i].width]
        constant = [i for i, one in enumerate(self.table.columns) if one.constant is not None]
        return [
            f"{what}: {', '.join(labels[i] for i in which[:8])}{' …' if len(which) > 8 else ''}."
            for what, which in (
                ("Whole numbers, spread for the fits and rounded in samples", whole),
                ("Spread by noise, as values repeat", spread),
                ("One value alone, kept aside and put back in samples", constant),
            )
            if which
        ]


def learnt(
    x: Any,
    context: Any,
    weights: Any,
    *,
    bounds: Any,
    periodic: Any,
    names: Sequence[str] | None,
    discrete: Any,
    jitter: Any,
    missing: str,
    seed: int,
) -> tuple[Sample, Columns, Bounds | None, Periods | None]:
    """Rows as densities take them, the kinds of their columns, and the bounds and periods of the remaining ones."""
    check.choice("missing", missing, _table.MISSING)
    frames.check_numbers("x", x)
    x = frames.inferred(x)
    seen, library, dropped = frames.kinds_of(x), given.library_of(x), missing == "drop"
    shape = np.shape(x)
    features = int(shape[1]) if len(shape) == 2 else 1
    called = frames.names_of(x, features) if names is None else list(check.texts("names", names, features))
    bounds = _columns.by_column("bounds", bounds, features, called)
    periodic = _columns.by_column("periodic", periodic, features, called)
    support = support_or_none(bounds, features, periodic)
    context_columns = getattr(context, "columns", None)
    caller = Caller()
    parts: list[Any] = [
        None if part is None else caller.open(name, part, whole=True)
        for name, part in (("x", x), ("context", context), ("weights", weights))
    ]
    rows = parts[0]
    if rows is not None and rows.ndim == 2 and len(rows):
        parts = _present(rows, parts[1:], called, missing)
    sample = opened(parts[0], parts[1], parts[2], None, features)
    if dropped and not len(sample):
        raise ValueError("x: expected rows that miss no number, got none")
    if message := _columns.about_index(sample.x, called):
        warn(f"x: {message}; drop it if it is an index")
    table = given.learn(
        sample.x, seen, discrete=discrete, jitter=jitter, missing=missing, support=support, names=called, x_name="x"
    )
    table = replace(table, seed=seed)
    if message := _table.about_repeats(sample.x, table, called):
        warn(f"x: {message}")
    own: Any = table.bounds(bounds) if bounds is not None else None
    periods: Any = table.periods(periodic) if periodic is not None else None
    sample = replace(sample, x=np.ascontiguousarray(table.spread(sample.x)))
    if (ends := support_or_none(own, len(table.kept), periods)) is not None:
        check_inside("x", sample.x, ends, tuple(_columns.label(i, called) for i in table.kept))
    if not sample.contexts:
        context_names: tuple[str, ...] | None = ()
    else:
        context_names = (
            None
            if context_columns is None or len(context_columns) != sample.contexts
            else tuple(map(str, context_columns))
        )
    own_names, of_frame = (None if one is None else tuple(one) for one in (called, frames.names_of(x, features)))
    found = Columns(table, own_names, context_names, sample.x.dtype.name, library, of_frame)
    return sample, found, own, periods


def _present(rows: NDArray[Any], others: Sequence[Any], names: Sequence[str] | None, missing: str) -> list[Any]:
    """Rows without missing values, with context and weights, in which none may be missing either."""
    labels = [_columns.label(i, names) for i in range(rows.shape[1])]
    good = _table.without_missing(rows, labels, missing, "x")
    fitting = [part is not None and len(part) == len(rows) for part in others]
    if missing == "drop":
        for part, fits in zip(others, fitting, strict=True):
            if fits:
                good = good & ~np.isnan(part.reshape(len(rows), -1)).any(axis=1)
    if good.all():
        return [rows, *others]
    return [rows[good], *(part[good] if fits else part for part, fits in zip(others, fitting, strict=True))]
