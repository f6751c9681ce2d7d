"""The density of a table in its original form: a flow of the columns that vary, and conversions between rows of the
table and rows of the flow.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from headrace import files
from headrace._arrays import columns as _columns
from headrace._arrays import frames
from headrace._arrays.caller import Caller
from headrace._arrays.names import Names, refuse_others
from headrace._base.moved import ENDS
from headrace._base.rng import Rng, takes_rng
from headrace._base.warn import warn
from headrace._core import LEAST_ROWS
from headrace._fit.ensemble import Ensemble
from headrace._flow.flow import Flow
from headrace._tables import table as _table
from headrace._tables.mixed import MixedDensity
from headrace._tables.table import FIT, LOOK, Column, Table

if TYPE_CHECKING:
    from headrace._flow.transforms.transform import Transform
    from headrace.sequences.convolution import CausalConvolution
    from headrace.sequences.flow import SequenceFlow
    from headrace.sequences.prediction import LinearPrediction


@dataclass(frozen=True)
class Columns:
    """Kinds and names of a table's columns."""

    table: Table
    """The treatment of each column."""
    names: tuple[str, ...] | None = None
    context_names: tuple[str, ...] | None = None
    dtype: str = "float64"
    """The dtype of the rows of the fit."""
    library: str | None = None
    """The library of the frame of the fit, "pandas" or "polars"."""
    frame_names: tuple[str, ...] | None = None
    """The names of the frame's columns."""
    taken: tuple[tuple[int, ...], int] | None = None
    """For a density from a file without names, if columns were left out: the used columns, and the number of all
    columns."""

    @property
    def used(self) -> Table:
        """The table without the columns that are left out."""
        return self.table.used()

    @property
    def used_names(self) -> tuple[str, ...] | None:
        """The names of the used columns."""
        return None if self.names is None else tuple(self.names[i] for i in self.table.places)

    @property
    def kept_names(self) -> tuple[str, ...] | None:
        """The names of the columns that the density has."""
        return None if self.names is None else tuple(self.names[i] for i in self.table.kept)

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The labels of columns of text, by name."""
        names = self.frame_names or self.names or ()
        return {name: column.labels for name, column in zip(names, self.table.columns, strict=False) if column.labels}

    @property
    def matter(self) -> bool:
        """Whether the treatment changes rows of the table, or drops some."""
        return not self.table.is_plain or self.table.missing == "drop"

    def opened(self, x: Any, *others: Any, x_name: str = "x") -> list[Any]:
        """Open a table with the columns of the fit; return its used columns as an array, then the opened `others`.

        Raises:
            ValueError: the columns, or the order of a frame's columns, differ from those of the fit.
        """
        every, places = len(self.table.columns), self.table.places
        x = frames.without_text(frames.coded(x, self.labels)[0], self.frame_names or ())[0]
        labels = frames.labels_of(x)
        if self.frame_names is not None and labels is not None:
            used = tuple(self.frame_names[i] for i in places)
            refuse_others(x_name, labels, used if len(labels) == len(used) else self.frame_names)
        caller = Caller()
        rows, *rest = (
            None if part is None else caller.open(name, part, whole=True)
            for name, part in zip((x_name, "context", "weights"), (x, *others), strict=False)
        )
        if rows is None or rows.ndim != 2 or rows.shape[1] not in (every, len(places)):
            shape = None if rows is None else rows.shape
            raise ValueError(f"{x_name}: expected rows of {every} columns, got shape {shape}")
        return [rows[:, places] if rows.shape[1] > len(places) else rows, *rest]

    def notes(self) -> dict[str, str]:
        """The entries about the columns in a file of the density."""
        texts = {"dtype": self.dtype}
        texts |= Names(self.kept_names, self.context_names).notes()
        used = replace(self, table=self.used, names=self.used_names)
        if used.matter:
            texts["table"] = _table.note(used.table, used.names)
        if self.taken is not None:
            texts["used"] = json.dumps({"columns": self.taken[0], "of": self.taken[1]})
        return texts

    @classmethod
    def of_notes(cls, notes: dict[str, str], flow: Flow | Ensemble | MixedDensity) -> Columns:
        """The columns from the notes in a file; without such notes, untreated columns with the names of the flow."""
        context_names, taken = flow.context_names or (), _taken(notes, flow.features)
        if (table := _table.kept_in(notes, flow.features)) is None:
            plain = Table((_table.Column(),) * flow.features)
            return cls(plain, flow.feature_names, context_names, notes.get("dtype", ""), taken=taken)
        return cls(table, table.names, context_names, notes.get("dtype", ""), None, table.names, taken)

    def lines(self) -> list[str]:
        """A description of the preprocessing, one line for each treatment."""
        labels = [_columns.label(i, self.names).removeprefix("column ") for i in range(len(self.table.columns))]
        every = [*enumerate(self.table.columns)]
        groups = {
            "Left out": [i for i, c in every if c.left_out],
            "A probability for each value": [i for i, c in every if c.values],
            "Whole numbers, spread for the fits and rounded in samples": _spread(self.table, True),
            "Spread by noise, as values repeat": _spread(self.table, False),
            "One value alone, kept aside and put back in samples": [i for i, c in every if c.constant is not None],
        }
        named = {what: [labels[i] for i in which] for what, which in groups.items() if which}
        return [f"{what}: {', '.join(of[:8])}{' …' if len(of) > 8 else ''}." for what, of in named.items()]


def _taken(notes: Mapping[str, str], least: int) -> tuple[tuple[int, ...], int] | None:
    """The used columns and the number of all columns, from the notes in a file; None without a valid note."""
    try:
        recorded = json.loads(notes["used"])
        columns, every = tuple(map(int, recorded["columns"])), int(recorded["of"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return (columns, every) if len(columns) >= least and all(0 <= i < every for i in columns) else None


def _spread(table: Table, discrete: bool) -> list[int]:
    return [i for i in table.kept if table.columns[i].width and table.columns[i].is_discrete == discrete]


@dataclass(frozen=True, repr=False)
class TableDensity:
    """The density of a table in its original form, from a file that `headrace fit` or `Choice.save` wrote:
    `headrace.load` returns it.

    All methods take and return rows as the table has them: with whole numbers, constant columns and missing values.
    `flow` is the density of the columns that vary, with whole numbers and repeated values spread by noise.
    """

    flow: Flow | Ensemble | MixedDensity
    """The density of the columns after their treatment."""
    columns: Columns
    """Kinds and names of the table's columns; `columns.table` can be printed."""
    called: str = "x"
    """The name of the rows in errors of a diagnosis: "x", or the name of a file."""

    @property
    def context(self) -> int:
        """The number of context columns."""
        return self.flow.context

    def log_prob(self, x: Any, context: Any = None) -> NDArray[Any]:
        """The log density of rows of the table, shape (rows,), in the flow's dtype: for whole numbers a log
        probability.

        The result is -inf, with a warning, for a row with a different value in a constant column, and NaN for a row
        with missing values if the fit left such rows out.

        Args:
            x: Rows of the table, shape (rows, columns), or a frame with the columns of the fit.
            context: As in `Flow.log_prob`.
        """
        return self.scores(*self.columns.opened(x, context)).astype(self.flow.dtype)

    def scores(
        self, rows: NDArray[Any], context: NDArray[Any] | None, *, x_name: str = "x", alone: bool = False
    ) -> NDArray[np.float64]:
        """`log_prob` in float64, of rows that `opened` returned; `alone`: whether a row must have the same bits alone
        as among others.
        """
        verb = partial(by_row, self.flow.log_prob) if alone else self.flow.log_prob
        return self.columns.used.log_prob(verb, rows, context, name=x_name, names=self.columns.used_names)

    def probabilities(self, column: str | int, x: Any, context: Any = None) -> dict[Any, NDArray[np.float64]]:
        """A dict from each value of a discrete column to its probability given the rest of each row, shape (rows,).

        Args:
            column: A column of labels, flags or counts with a probability for each value, by name or index.
            x: Rows of the table, whose values in the column do not matter.
            context: As in `log_prob`.
        """
        names = self.columns.names
        at = _columns.chosen("column", [column], len(self.columns.table.columns), names, "x")[0]
        kind, kept = self.columns.table.columns[at], self.columns.table.kept
        if not isinstance(self.flow, MixedDensity) or not kind.values or kind.rest:
            raise ValueError(f"column: expected one with a probability for each value, got {_columns.label(at, names)}")
        rows, conditions = self.columns.opened(x, context)
        each = self.flow.probabilities(kept.index(at), self.columns.used.spread(rows, LOOK), conditions)
        called = [kind.labels[int(value)] if kind.labels and value == value else value for value in kind.values]
        return dict(zip(called, each.T, strict=True))

    @property
    def has_members(self) -> bool:
        """Whether the density is, or has, an ensemble."""
        return isinstance(self.flow.flow if isinstance(self.flow, MixedDensity) else self.flow, Ensemble)

    def spread(self, rows: NDArray[Any], context: NDArray[Any] | None) -> NDArray[Any]:
        """The spread of an ensemble's log densities of rows that `opened` returned; see `Ensemble.spread`."""
        assert not isinstance(self.flow, Flow)
        return self.flow.spread(self.columns.used.without_constants(rows), context)

    @takes_rng
    def sample(
        self,
        n: int,
        context: Any = None,
        *,
        seed: Any = None,
        rng: Rng = None,
        first_row: int | None = None,
        as_frame: bool = False,
    ) -> Any:
        """Draw rows of the table: whole numbers are rounded, and constant columns are included.

        Args:
            n, context, seed, first_row: As in `Flow.sample`.
            as_frame: Whether to return a frame with names and dtypes; of the library of the frame in the fit, by
                default pandas.

        Raises:
            ImportError: a frame was requested, and pandas is not installed.
        """
        # Values far from zero, such as times, need all digits of float64 if the rows of the fit were float64.
        dtype = "float64" if self.columns.dtype == "float64" else None
        drawn: Any = self.flow.sample(n, context, seed=seed, first_row=first_row, dtype=dtype)
        if not (self.columns.matter or as_frame):
            return drawn
        used = self.columns.used
        rows = used.back(np.asarray(drawn))
        return _as_frame(rows, used, self.columns.used_names, self.columns.library) if as_frame else rows

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the density to a file, with the treatment of the columns."""
        files.save(self.flow, path, self.columns.notes())

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, allow_non_finite: bool = False) -> TableDensity:
        """Read a file with the density of a table; see `Flow.load`."""
        return files.load_as(cls, path, allow_non_finite, of_file)

    def as_table(self) -> TableDensity:
        """The density itself; other classes, such as `FlowDensity` and `Choice`, convert themselves by a method of this
        name.
        """
        return self

    def to_look_at(self, x: Any, context: Any, weights: Any, training: Any, names: Any) -> tuple[Any, ...]:
        """Convert arguments of `headrace.diagnose` for this density to arguments for its `flow`."""
        called = self.columns.kept_names if names is None else tuple(names)
        for table in (self.columns.table, self.columns.used) if names is not None else ():
            if called is not None and len(called) == len(table.columns):
                called = tuple(called[i] for i in table.kept)
        looked = self.looked_at(x, context, weights, x_name=self.called)
        if training is None:
            return *looked, None, called
        parts = training if isinstance(training, tuple) else (training,)
        seen = self.looked_at(*(*parts, None)[:2], x_name="training", purpose=FIT)
        return *looked, seen[:2], called

    def looked_at(
        self, x: Any, context: Any = None, weights: Any = None, *, x_name: str = "x", purpose: int = LOOK
    ) -> tuple[Any, ...]:
        """Treat rows as the fit did; return them with context and weights. Rows with missing values are left out if the
        fit left out such rows.

        `purpose`: `FIT` or `LOOK`; each has different noise.
        """
        rows, given, share = self.columns.opened(x, context, weights, x_name=x_name)
        if given is not None and given.ndim == 1:
            given = given[:, None] if given.size == len(rows) != 1 else np.broadcast_to(given, (len(rows), given.size))
        used, names = self.columns.used, self.columns.used_names
        return used.to_look_at(rows, given, share, names=names, x_name=x_name, purpose=purpose)

    def __repr__(self) -> str:
        """A short description: the flow and the number of columns."""
        return f"TableDensity({self.flow!r}, {len(self.columns.used.columns)} columns)"

    def __getattr__(self, name: str) -> Any:
        """Raise AttributeError, with a hint if the flow has the attribute."""
        hint = f"; its flow of treated columns has it, .flow.{name}" if hasattr(Flow, name) and name[0] != "_" else ""
        raise AttributeError(f"{type(self).__name__}: expected an attribute of a table's density, got {name!r}{hint}")


def by_row(verb: Any, x: NDArray[Any], context: NDArray[Any] | None) -> NDArray[Any]:
    """The result of `verb` for rows padded to `LEAST_ROWS`, so that a row has the same bits alone as among others."""
    rows = len(x)
    missing = max(LEAST_ROWS - rows, 0)
    if missing and rows:
        x = np.concatenate([x, np.repeat(x[:1], missing, axis=0)])
        if context is not None and context.ndim == 2 and len(context) == rows:
            context = np.concatenate([context, np.repeat(context[:1], missing, axis=0)])
    return np.asarray(verb(x, context)[:rows], np.float64)


def library_of(x: Any) -> str | None:
    """The library of a frame, "pandas" or "polars"; None for other objects."""
    return next((name for name in ("pandas", "polars") if isinstance(x, frames.class_of(name, "DataFrame"))), None)


def _as_frame(rows: NDArray[Any], table: Table, names: Sequence[Any] | None, library: str | None) -> Any:
    """Rows of a table as a frame of the library, or of pandas if it is None, with whole numbers as integers."""
    called = [f"x{i}" for i in range(rows.shape[1])] if names is None else names
    pairs = zip(called, table.columns, strict=True)
    columns = {str(name): _typed(rows[:, i], column) for i, (name, column) in enumerate(pairs)}
    return importlib.import_module(library or "pandas").DataFrame(columns)


def _typed(values: NDArray[Any], column: Column) -> Any:
    """Values of a column in its dtype; codes of labels as text, with None for missing values."""
    if column.labels:
        return called(values, column.labels)
    dtypes: dict[str, Any] = {"integer": np.int64, "boolean": np.bool_}
    return values if np.isnan(values).any() else values.astype(dtypes.get(column.kind, values.dtype))


def called(codes: NDArray[Any], labels: Sequence[str]) -> list[str | None]:
    """A list of the labels of codes, with None for NaN."""
    return [None if np.isnan(code) else labels[int(code)] for code in codes]


def of_file(flow: Any, notes: Mapping[str, str]) -> Any:
    """The contents of a file: the density of a table if the notes describe a table, else the flow or
    transform itself.
    """
    if not isinstance(flow, (Flow, Ensemble, MixedDensity)):
        return flow
    columns = Columns.of_notes(dict(notes), flow)
    return TableDensity(flow, columns) if columns.matter else flow


# ---- `headrace.load` and `headrace.from_bytes`: `files` reads without imports of the classes that it makes -----------

Loaded: TypeAlias = (
    "Flow | Ensemble | MixedDensity | TableDensity | SequenceFlow | Transform | CausalConvolution | LinearPrediction"
)


def load(path: str | os.PathLike[str], *, allow_non_finite: bool = False) -> Loaded:
    return _told(of_file(*files.contents(path, allow_non_finite=allow_non_finite)), os.fspath(path))


def from_bytes(data: bytes, *, allow_non_finite: bool = False) -> Loaded:
    return _told(of_file(*files.contents_of_bytes(data, allow_non_finite=allow_non_finite)), "data")


def _told(loaded: Any, name: str) -> Loaded:
    if isinstance(loaded, TableDensity):
        what = "gives the density of the rows of its table, as they come; the flow of treated columns, which 0.5 gave,"
        warn(f"{name}: {what} is its .flow; this warning ends with {ENDS}", FutureWarning)
    return cast("Loaded", loaded)


load.__doc__, from_bytes.__doc__ = files.load.__doc__, files.from_bytes.__doc__
