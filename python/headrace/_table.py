"""Tables as they come: columns that a density of real numbers cannot have as they are, and the way back from it.

Whole numbers and truth values are spread by uniform noise over the gap to the next ones before a fit (dequantised:
Uria, Murray, Larochelle 2013; Theis, van den Oord, Bethge 2016), and draws are rounded. Columns with one value alone
are kept aside, and put back.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import _arguments as check
from headrace import _columns
from headrace._arrays.frames import class_of

__all__ = ["Column", "Table", "about_repeats", "kinds_of", "repeating", "smallest_gap", "without_missing"]

KINDS = ("float", "integer", "boolean")
FEW_CELLS, CELLS = 16, 32  # places in the cell of one or two whole numbers, or of more, where a density is averaged
LOOKED_AT = 16_384  # rows in which repeated values are looked for
LEAST_ROWS = 50  # of fewer, nothing is said of repeats
REPEATED, SPIKE = 0.5, 0.05  # shares of rows: with the value of another one, and with one value

LogProb = Callable[[NDArray[Any], "NDArray[Any] | None"], NDArray[Any]]


@dataclass(frozen=True)
class Column:
    """What a column of a table is."""

    kind: str = "float"
    """"float", "integer" or "boolean"."""
    width: float = 0.0
    """Of the uniform noise that is added before a fit; of whole numbers the gap between them."""
    offset: float = 0.0
    """One of the whole numbers."""
    constant: float | None = None
    """The only value, of a column that has no other."""

    @property
    def is_discrete(self) -> bool:
        """Whether draws are rounded."""
        return self.kind != "float"


@dataclass(frozen=True)
class Table:
    """All columns of a table, and between its rows and those of a density the ways there and back."""

    columns: tuple[Column, ...]

    @classmethod
    def learn(
        cls,
        x: NDArray[Any],
        kinds: Sequence[str],
        jitter: Sequence[float | None],
    ) -> Table:
        """Of rows without missing values.

        Args:
            x: Shape (rows, columns).
            kinds: Of each column.
            jitter: Widths of noise, None for none.
        """
        found = []
        for column, kind, width in zip(x.T, kinds, jitter, strict=True):
            low, high = float(column.min()), float(column.max())
            if low == high:
                found.append(Column(kind, constant=low))
            elif kind == "float":
                found.append(Column(kind, 0.0 if width is None else width))
            else:
                found.append(Column(kind, _gap(column), low))
        if all(one.constant is not None for one in found):  # nothing would be left to fit
            found = [Column(one.kind) for one in found]
        return cls(tuple(found))

    @property
    def kept(self) -> list[int]:
        """The columns that a density has."""
        return [i for i, one in enumerate(self.columns) if one.constant is None]

    @property
    def is_plain(self) -> bool:
        """Whether nothing is changed."""
        return not any(one.width or one.constant is not None for one in self.columns)

    def spread(self, x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Rows to fit: without constant columns, and with noise in those that have some."""
        rows = x[:, self.kept]
        widths = np.array([self.columns[i].width for i in self.kept])
        noisy = np.flatnonzero(widths)
        if noisy.size:
            rows = rows.copy()
            rows[:, noisy] += (widths[noisy] * (rng.random((len(rows), noisy.size)) - 0.5)).astype(rows.dtype)
        return rows

    def back(self, x: NDArray[Any]) -> NDArray[Any]:
        """Draws as rows of the table: rounded, and with the constant columns."""
        rows = np.empty((len(x), len(self.columns)), x.dtype)
        for i, one in enumerate(self.columns):
            if one.constant is not None:
                rows[:, i] = one.constant
        rows[:, self.kept] = x
        for i, one in enumerate(self.columns):
            if one.is_discrete and one.width:
                rows[:, i] = one.offset + one.width * np.round((rows[:, i] - one.offset) / one.width)
            if one.kind == "boolean" and one.constant is None and one.width:
                rows[:, i] = np.clip(rows[:, i], 0.0, 1.0)
        return rows

    def log_prob(
        self, verb: LogProb, x: NDArray[Any], context: NDArray[Any] | None, *, name: str = "x"
    ) -> NDArray[np.float64]:
        """Log densities of rows; of whole numbers these are log probabilities, as they count and have no width.

        A density is averaged over 16 or 32 places in the cell of whole numbers, the same for each row. A row with
        another number in a constant column has a log density of -inf, with a warning.
        """
        rows = np.ascontiguousarray(x[:, self.kept])
        widths = np.array([self.columns[i].width if self.columns[i].is_discrete else 0.0 for i in self.kept])
        cells = np.flatnonzero(widths)
        if not cells.size:
            total = np.asarray(verb(rows, context), np.float64)
        else:
            total = np.full(len(rows), -np.inf)
            places = _places(int(cells.size))
            for place in places:
                moved = rows.astype(np.float64)
                moved[:, cells] += widths[cells] * place
                with np.errstate(invalid="ignore"):
                    total = np.logaddexp(total, np.asarray(verb(moved, context), np.float64))
            total += np.log(widths[cells]).sum() - np.log(len(places))
        return self._elsewhere(total, x, name)

    def _elsewhere(self, log_prob: NDArray[np.float64], x: NDArray[Any], name: str) -> NDArray[np.float64]:
        """-inf for rows that differ in a constant column."""
        other = np.zeros(len(x), bool)
        first = None
        for i, one in enumerate(self.columns):
            if one.constant is not None:
                differs = x[:, i] != np.asarray(one.constant, x.dtype)
                if differs.any() and first is None:
                    first = i
                other |= differs
        if first is None:
            return log_prob
        warnings.warn(
            f"{name}: {int(other.sum())} of {len(x)} rows differ from {self.columns[first].constant:g}, the one value "
            f"that column {first} had in all rows to fit, or in other such columns: their log density is -inf",
            RuntimeWarning,
            stacklevel=4,
        )
        return np.where(other, -np.inf, log_prob)

    def bounds(self, bounds: Any, argument: str = "bounds") -> Any:
        """Those of the columns that are left: around whole numbers wider by half a gap."""
        if bounds is None:
            return None
        given = list(bounds)
        check.length(argument, given, len(self.columns))
        found = []
        for i in self.kept:
            pair, half = given[i], 0.5 * self.columns[i].width
            if pair is not None and argument == "bounds" and half:
                pair = tuple(end if end is None else end + sign * half for end, sign in zip(pair, (-1, 1), strict=True))
            found.append(pair)
        return found if any(pair is not None for pair in found) else None

    def header(self) -> list[dict[str, Any]]:
        """For JSON; the way back is `of_header`."""
        return [dict(vars(one)) for one in self.columns]

    @classmethod
    def of_header(cls, header: Any) -> Table:
        """Raises ValueError, TypeError or KeyError for what `header` did not give."""
        if not isinstance(header, list) or not header:
            raise TypeError("expected a list of columns")
        found = []
        for entry in header:
            kind = check.choice("kind", entry["kind"], KINDS)
            width = check.number("width", entry["width"], least=0.0, below=np.inf)
            offset = check.number("offset", entry["offset"], above=-np.inf, below=np.inf)
            constant = entry["constant"]
            if constant is not None:
                constant = check.number("constant", constant, above=-np.inf, below=np.inf)
            found.append(Column(kind, width, offset, constant))
        table = cls(tuple(found))
        if not table.kept:
            raise ValueError("expected a column that is not constant")
        return table


def _gap(column: NDArray[Any]) -> float:
    """The largest whole number of which all differences are multiples; 1 where some are no whole numbers."""
    values = np.unique(column)
    steps = np.diff(values)
    if not (np.trunc(values) == values).all() or steps.max(initial=0.0) >= 2**53:
        return 1.0
    return float(np.gcd.reduce(steps.astype(np.int64)))


@functools.lru_cache(maxsize=16)
def _places(columns: int) -> NDArray[np.float64]:
    """Places evenly in (-1/2, 1/2)^columns, shape (places, columns): each column has the middles of equal parts.

    For each place there is the one on the other side, so that slopes leave no error; of 64 such designs it is the one
    whose columns have least to do with each other. Source: K. Q. Ye, W. Li, A. Sudjianto, *Algorithmic construction of
    optimal symmetric Latin hypercube designs*, Journal of Statistical Planning and Inference 90, 2000.
    """
    cells = FEW_CELLS if columns <= 2 else CELLS
    middles = (np.arange(cells // 2) + 0.5) / cells
    best, found = np.inf, np.concatenate([middles, -middles])[:, None]
    if columns == 1:
        return found
    for design in range(64):
        rng = np.random.default_rng([design, columns])
        one = np.stack([rng.permutation(middles) * rng.choice([-1.0, 1.0], cells // 2) for _ in range(columns)], axis=1)
        places = np.concatenate([one, -one])
        together = np.corrcoef(np.concatenate([places, np.square(places)], axis=1).T)
        if (worst := float(np.abs(together - np.eye(2 * columns)).max())) < best:
            best, found = worst, places
    return found


def kinds_of(x: Any) -> list[str] | None:
    """Of the columns of a frame of pandas or polars, or of an array; None for floats alone, and for what is neither."""
    dtypes: Any = getattr(x, "dtypes", None)
    if isinstance(x, class_of("polars", "DataFrame")):
        kinds = ["integer" if one.is_integer() else "boolean" if str(one) == "Boolean" else "float" for one in dtypes]
    elif isinstance(x, class_of("pandas", "DataFrame")):
        kinds = [_kind(getattr(one, "kind", "f")) for one in dtypes]
    else:
        try:
            array: Any = np.asarray(x) if hasattr(x, "__array__") or isinstance(x, (list, tuple)) else np.empty(0)
        except (TypeError, ValueError):  # what is none is refused elsewhere
            return None
        if array.ndim != 2:
            return None
        kinds = [_kind(array.dtype.kind)] * array.shape[1]
    return kinds if set(kinds) != {"float"} else None


def _kind(code: str) -> str:
    return {"i": "integer", "u": "integer", "b": "boolean"}.get(code, "float")


def without_missing(x: NDArray[Any], labels: Sequence[str], missing: str, name: str) -> NDArray[np.bool_]:
    """Which rows have no NaN; refused with counts unless they are to be dropped. `labels` are those of the columns.

    Raises:
        ValueError: some are missing, and `missing` is "refuse"; or all rows are.
    """
    absent = np.isnan(x)
    good: NDArray[np.bool_] = ~absent.any(axis=1)
    if good.all():
        return good
    counts = absent.sum(axis=0)
    worst = np.argsort(-counts, kind="stable")[:5]
    told = ", ".join(f"{labels[i]} {counts[i]:,}" for i in worst if counts[i])
    more = int((counts > 0).sum()) - min(int((counts > 0).sum()), 5)
    told += f" and {more} columns more" if more else ""
    if missing == "refuse" or not good.any():
        row = int((~good).argmax())
        first = f"row {row}, {labels[int(absent[row].argmax())]}"
        raise ValueError(
            f"{name}: {first}: expected no missing values, got NaN in {int((~good).sum()):,} of {len(x):,} rows "
            f"({told}); missing='drop' leaves such rows out"
        )
    return good


def repeating(x: NDArray[Any], table: Table) -> list[int]:
    """The columns of floats without noise whose values repeat: half of them are others', or a twentieth is one."""
    if len(x) < LEAST_ROWS:
        return []
    some = x[:: -(-len(x) // LOOKED_AT)]
    found = []
    for i, one in enumerate(table.columns):
        if one.constant is None and not one.width:
            counts = np.unique(some[:, i], return_counts=True)[1]
            shared = counts[counts > 1].sum() / len(some)
            if shared >= REPEATED or (counts.max() > 1 and counts.max() / len(some) >= SPIKE):
                found.append(i)
    return found


def about_repeats(x: NDArray[Any], table: Table, names: Sequence[str] | None) -> str | None:
    """A sentence about columns of floats whose values repeat, or one of them does; None where none."""
    found = repeating(x, table)
    if not found:
        return None
    i, some = found[0], x[:: -(-len(x) // LOOKED_AT)]
    values, counts = np.unique(some[:, i], return_counts=True)
    others = len(found) - 1
    more = "" if not others else f", and in {others} more column{'' if others == 1 else 's'}"
    told = f"{values[counts.argmax()]:g} in {counts.max() / len(some):.0%} of them"
    return (
        f"values repeat in {_columns.label(i, names)} ({len(values):,} different ones in {len(some):,} rows, {told})"
        f"{more}: a density spikes there, and its likelihood means little; spread them by jitter, or say that they are "
        "whole numbers by discrete"
    )


def smallest_gap(column: NDArray[Any]) -> float | None:
    """Between two different values, as of rounded measurements; None where there is but one."""
    values = np.unique(column.astype(np.float64))
    steps = np.diff(values)
    steps = steps[steps > 1e-9 * (values[-1] - values[0])]
    return float(steps.min()) if steps.size else None
