"""Preprocessing of columns with whole numbers, a constant, or repeated values, and the inverse of the preprocessing.

Before a fit, whole numbers and truth values are spread by uniform noise as wide as the gap between them (dequantised:
Uria, Murray, Larochelle 2013; Theis, van den Oord, Bethge 2016), and draws are rounded. Constant columns are left out
of a fit, and put back into samples.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import columns as _columns
from headrace._arrays.names import are_names
from headrace._base import arguments as check
from headrace._base.warn import warn
from headrace._fit.given_rows import listing
from headrace._flow.transforms.support import Support
from headrace._tables import repeats
from headrace._tables.facts import FAR, LOOKED_AT, Facts, Held, Pair, Seen
from headrace._tables.printed import described

KINDS = ("float", "integer", "boolean", "category")
MISSING = ("refuse", "drop", "model")
NOISE = 0x6E6F697365  # with the seed of a table, the seed of the noise
FIT, LOOK = 0, 1  # purposes of noise: rows of a fit, or rows to compare with the density
CELLS_OF_TWO, CELLS = 16, 32  # points per cell for the mean of a density of one or two columns, and of more
LEAST_ROWS = 50  # least number of rows for a message about repeats
REPEATED = 0.5  # a column repeats values if this share of rows has a repeated value

LogProb = Callable[[NDArray[Any], "NDArray[Any] | None"], NDArray[Any]]


@dataclass(frozen=True)
class Column:
    """The kind of a table's column, and its preprocessing."""

    kind: str = "float"
    """"float", "integer", "boolean" or, for codes of labels, "category"."""
    width: float = 0.0
    """Width of the uniform noise that is added before a fit; for whole numbers the gap between them."""
    offset: float = 0.0
    """A whole number of the column, or a value on its grid."""
    constant: float | None = None
    """The only value of a constant column; None for other columns."""
    bounds: Pair | None = None
    """Bounds of a column with noise, which whole numbers may reach."""
    period: tuple[float, float] | None = None
    """The period of periodic whole numbers."""
    step: float = 0.0
    """The step of the grid of a column with noise; 0 without a grid."""
    frequent: tuple[float, ...] = ()
    """Values of a column with noise that many rows share, if no other value is nearer than the width of the noise."""
    left_out: str = ""
    """The kind of a column that is left out, such as an identifier."""
    values: tuple[float, ...] = ()
    """Values each of which has a probability; NaN, for missing values, is the last."""
    rest: bool = False
    """Whether all values other than `values` have a density."""
    labels: tuple[str, ...] = ()
    """Labels of a category, by their codes."""

    @property
    def is_discrete(self) -> bool:
        """Whether draws are rounded."""
        return self.kind != "float"

    @property
    def ends(self) -> Pair:
        """The outermost whole numbers within the bounds."""
        low, high = self.bounds or (None, None)
        return (
            None if low is None else self.offset + self.width * math.ceil((low - self.offset) / self.width - 1e-9),
            None if high is None else self.offset + self.width * math.floor((high - self.offset) / self.width + 1e-9),
        )

    def back(self, x: NDArray[Any]) -> NDArray[Any]:
        """Convert draws of the column to values of the table: rounded, without noise, or the constant."""
        if self.constant is not None:
            return np.full(len(x), self.constant, x.dtype)
        if not self.width:
            return x
        if not self.is_discrete:
            return np.asarray(repeats.without_noise(x, self), x.dtype)
        rounded = self.offset + self.width * np.round((x - self.offset) / self.width)
        if self.period is not None:
            rounded = self.period[0] + np.mod(rounded - self.period[0], self.period[1] - self.period[0])
        low, high = (0.0, 1.0) if self.kind == "boolean" else self.ends
        if low is not None or high is not None:
            rounded = np.clip(rounded, low, high)
        return np.asarray(rounded, x.dtype)

    def folded(self, x: NDArray[Any]) -> NDArray[Any]:
        """Reflect noisy values of a column of floats that are beyond its bounds."""
        if self.is_discrete or self.bounds is None:
            return x
        for end, sign in zip(self.bounds, (1.0, -1.0), strict=True):
            if end is not None:
                x = np.where(sign * (x - end) < 0.0, 2.0 * end - x, x)
        inner = [
            None if end is None else np.nextafter(np.asarray(end, x.dtype), np.asarray(side, x.dtype))
            for end, side in zip(self.bounds, (np.inf, -np.inf), strict=True)
        ]
        return np.asarray(np.clip(x, *inner))


@dataclass(frozen=True, repr=False)
class Table:
    """The treatment of all columns of a table, with maps between rows of the table and rows of a density; can be
    printed.
    """

    columns: tuple[Column, ...]
    seed: int = 0
    """Seed of the noise."""
    missing: str = "refuse"
    """The treatment of rows with missing values: "refuse", "drop" or "model"."""
    names: tuple[str, ...] | None = field(default=None, compare=False)
    """Names of the columns, for the printed table."""

    @classmethod
    def learn(
        cls,
        x: NDArray[Any] | Seen,
        kinds: Sequence[str],
        jitter: Sequence[float | None],
        *,
        names: Sequence[str] | None = None,
        bounds: Sequence[Pair | None] | None = None,
        periodic: Sequence[tuple[float, float] | None] | None = None,
        left_out: Mapping[int, str] | None = None,
        x_name: str = "x",
    ) -> Table:
        """Learn the treatment of the columns from rows.

        Args:
            x: Rows, shape (rows, columns), or their statistics.
            kinds: The kind of each column.
            jitter: The width of the noise of each column of floats; None for no noise.
            names: Names of the columns.
            bounds, periodic: Bounds and period of each column, as in `Support`.
            left_out: Columns that the density leaves out, each with a description of its values.
            x_name: The name of x in messages.

        Raises:
            ValueError: a column of whole numbers has other values, values beyond its bounds, or an invalid period.
        """
        columns = []
        ends: list[Pair | None] = [None] * len(kinds) if bounds is None else list(bounds)
        periods: list[tuple[float, float] | None] = [None] * len(kinds) if periodic is None else list(periodic)
        seen = x if isinstance(x, Seen) else Held(x, ends)
        for i, (kind, width) in enumerate(zip(kinds, jitter, strict=True)):
            if left_out and i in left_out:
                columns.append(Column(kind, left_out=left_out[i]))
                continue
            facts = seen.facts(i, whole=kind != "float")
            if kind != "float":
                _check_whole(f"{x_name}: {_columns.label(i, names)}", facts, ends[i], periods[i])
            if facts.low == facts.high:
                columns.append(Column(kind, constant=facts.low))
            elif kind == "float":
                grid = repeats.learn(seen.some[:, i], width) if width else {}
                columns.append(Column(kind, width, bounds=ends[i], **grid) if width else Column(kind))
            else:
                period = periods[i]
                gap = facts.gap if period is None else math.gcd(facts.gap, int(period[1] - period[0]))
                columns.append(Column(kind, float(gap), facts.low, None, ends[i], period))
        return cls(tuple(columns), names=None if names is None else tuple(map(str, names)))

    def __repr__(self) -> str:
        """A printed table with a line for each column: its name, its kind, and its treatment by a fit."""
        return described(self.columns, self.names)

    @property
    def kept(self) -> list[int]:
        """The columns of the density: the used columns that are not constant, or all used ones if all are constant."""
        return [i for i in self.places if self.columns[i].constant is None] or self.places

    @property
    def places(self) -> list[int]:
        """The indices of the used columns, which are not left out."""
        return [i for i, column in enumerate(self.columns) if not column.left_out]

    def used(self) -> Table:
        """The table with only the used columns."""
        names = None if self.names is None else tuple(self.names[i] for i in self.places)
        return replace(self, columns=tuple(self.columns[i] for i in self.places), names=names)

    @property
    def is_plain(self) -> bool:
        """Whether all columns stay unchanged."""
        return not any(c.width or c.constant is not None or c.left_out or c.values for c in self.columns)

    def without_constants(self, x: NDArray[Any]) -> NDArray[Any]:
        """The rows with only the columns that the density has."""
        return x if len(self.kept) == len(self.columns) else np.ascontiguousarray(x[:, self.kept])

    def spread(self, x: NDArray[Any], purpose: int = FIT, *, first_row: int = 0) -> NDArray[Any]:
        """Convert rows of the table to rows of the density: without constant columns, with noise in columns with a
        width.

        The noise depends on the seed, the purpose and the index of the row; `first_row` is the index of the first row.
        """
        if self.is_plain:
            return x
        rows: NDArray[Any] = x[:, self.kept]  # a copy
        widths = np.array([self.columns[i].width for i in self.kept])
        noisy = np.flatnonzero(widths)
        if noisy.size:
            bits = np.random.PCG64([self.seed, NOISE, purpose])
            rng = np.random.Generator(bits.advance(first_row * noisy.size))  # one step of the generator for each value
            rows[:, noisy] += (widths[noisy] * (rng.random((len(rows), noisy.size)) - 0.5)).astype(rows.dtype)
            for i in noisy.tolist():
                rows[:, i] = self.columns[self.kept[i]].folded(rows[:, i])
        return rows

    def to_look_at(
        self, x: NDArray[Any], *others: Any, names: Sequence[str] | None, x_name: str, purpose: int = LOOK
    ) -> tuple[Any, ...]:
        """Treat rows as the fit does, to compare the rows with the density; return the treated rows and `others`.

        Raises:
            ValueError: some rows have missing values, and the fit did not leave such rows out.
        """
        labels = [_columns.label(i, names) for i in range(len(self.columns))]
        good = without_missing(x, labels, self.missing, x_name)
        if self.missing == "drop":
            good &= complete(x, *others)
        if not good.all():
            x, others = x[good], tuple(None if part is None else part[good] for part in others)
        self._impossible(x, x_name, names, "they are looked at by the other columns", "they are looked at as they are")
        return self.spread(x, purpose), *others

    def back(self, x: NDArray[Any]) -> NDArray[Any]:
        """Convert draws of the density to rows of the table: rounded, and with the constant columns."""
        if self.is_plain:
            return x
        rows = np.empty((len(x), len(self.columns)), x.dtype)
        rows[:, self.kept] = x
        for i, column in enumerate(self.columns):
            rows[:, i] = column.back(rows[:, i])
        return rows

    def log_prob(
        self,
        verb: LogProb,
        x: NDArray[Any],
        context: NDArray[Any] | None,
        *,
        name: str = "x",
        names: Sequence[str] | None = None,
    ) -> NDArray[np.float64]:
        """Log densities of rows, in which columns of whole numbers contribute log probabilities.

        The density by `verb` is averaged over 16 or 32 points in the cell around whole numbers of a row; the offsets
        of the points are the same for all rows. A row with a different value in a constant column, or a fraction in a
        column of whole numbers, has a log density of -inf, with a warning. `name` is the name of x in messages, and
        `names` are the names of columns.
        """
        rows = self.without_constants(x)
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
        then = "their log density is -inf"
        total = np.where(self._impossible(x, name, names, then, then), -np.inf, total)
        is_given = len(rows) == 0 or self.is_plain or self.missing == "model"
        return total if is_given else np.where(np.isnan(x).any(axis=1), np.nan, total)

    def _impossible(
        self, x: NDArray[Any], x_name: str, names: Sequence[str] | None, of_others: str, of_fractions: str
    ) -> NDArray[np.bool_]:
        """A mask of rows that differ in a constant column, or have fractions among whole numbers, with warnings.

        NaN does not count as different or as a fraction. `of_others`, `of_fractions`: ends of the warnings.
        """
        same = [i for i, column in enumerate(self.columns) if column.constant is not None]
        whole = [i for i, column in enumerate(self.columns) if column.is_discrete and column.width]
        kept, numbers = x[:, same], x[:, whole]
        differs = (kept != np.array([self.columns[i].constant for i in same], x.dtype)) & ~np.isnan(kept)
        broken = np.isfinite(numbers) & (np.trunc(numbers) != numbers)
        if (count := int(differs.any(axis=1).sum())) > 0:
            first = same[differs.any(axis=0).argmax()]
            known = f"{self.columns[first].constant:g}, the one value that {_columns.label(first, names)} had"
            alike = "in all rows to fit, or in other such columns"
            warn(f"{x_name}: {count} of {len(x)} rows differ from {known} {alike}: {of_others}")
        if (count := int(broken.any(axis=1).sum())) > 0:
            at = int(broken.any(axis=0).argmax())
            value, label = numbers[broken[:, at].argmax(), at], _columns.label(whole[at], names)
            alike = "or in other columns that had whole numbers alone in all rows to fit"
            warn(f"{x_name}: {count} of {len(x)} rows are not whole in {label}, as {value:g}, {alike}: {of_fractions}")
        return np.asarray(differs.any(axis=1) | broken.any(axis=1))

    def bounds(self, bounds: Sequence[Any] | None) -> list[Any] | None:
        """Bounds of the columns of the density, None for a column without bounds; for whole numbers, the bounds of
        their cells.
        """
        if bounds is None:
            return None
        check.length("bounds", list(bounds), len(self.columns))
        ends = list(bounds)
        for i, column in enumerate(self.columns):
            if ends[i] is not None and column.is_discrete and column.width:
                half, (low, high) = 0.5 * column.width, replace(column, bounds=tuple(ends[i])).ends
                ends[i] = (None if low is None else low - half, None if high is None else high + half)
        return ends_of(ends, self.kept)

    def periods(self, periods: Sequence[Any] | None) -> list[Any] | None:
        """Periods of the columns of the density; None for a column without a period."""
        if periods is not None:
            check.length("periodic", list(periods), len(self.columns))
        return ends_of(periods, self.kept)

    def header(self) -> list[dict[str, Any]]:
        """The columns as types that JSON has; `of_header` is the inverse."""
        every = [{**vars(c), "values": [None if np.isnan(v) else v for v in c.values]} for c in self.columns]
        return [{name: value for name, value in entry.items() if name not in LATER or value} for entry in every]

    @classmethod
    def of_header(cls, header: Any, seed: Any = 0, missing: Any = "refuse") -> Table:
        """The table of a result of `header`; raises ValueError, TypeError or KeyError for other objects."""
        if not isinstance(header, list) or not header:
            raise TypeError("expected a list of columns")
        columns = []
        for entry in header:
            kind = check.choice("kind", entry["kind"], KINDS)
            width = check.number("width", entry["width"], least=0.0, below=np.inf)
            offset = check.number("offset", entry["offset"], above=-np.inf, below=np.inf)
            constant = entry["constant"]
            if constant is not None:
                constant = check.number("constant", constant, above=-np.inf, below=np.inf)
            support = Support([entry.get("bounds")], [entry.get("period")])
            step = check.number("step", entry.get("step", 0.0), least=0.0, below=np.inf)
            frequent = [check.number("frequent", v, above=-np.inf, below=np.inf) for v in entry.get("frequent", ())]
            ends = support.bounds[0], support.periodic[0]
            values = tuple(np.nan if v is None else float(v) for v in entry.get("values", ()))
            labels, rest = tuple(map(str, entry.get("labels", ()))), entry.get("rest", False) is True
            more: dict[str, Any] = {"values": values, "rest": rest, "labels": labels}
            columns.append(Column(kind, width, offset, constant, *ends, step, tuple(frequent), **more))
        return cls(tuple(columns), check.integer("seed", seed), check.choice("missing", missing, MISSING))


def ends_of(ends: Sequence[Any] | None, columns: Sequence[int]) -> list[Any] | None:
    """The bounds or periods of `columns`; None if none of these columns has any."""
    kept = [] if ends is None else [ends[i] for i in columns]
    return kept if any(pair is not None for pair in kept) else None


# Keys of a column that a file lacks if the values are false, such as None or 0.
LATER = ("bounds", "period", "step", "frequent", "left_out", "values", "rest", "labels")


# ---- notes of a file -------------------------------------------------------------------------------------------------


def note(table: Table, names: Sequence[str] | None) -> str:
    """The note "table" of a file, as JSON: the preprocessing of the columns, and their names or null."""
    settings = {"seed": table.seed, "missing": table.missing}
    return json.dumps({"names": None if names is None else list(names), "columns": table.header(), **settings})


def kept_in(notes: dict[str, str], features: int) -> Table | None:
    """The table in the notes of a file; None without one, or if the number of its kept columns is not `features`."""
    try:
        recorded = json.loads(notes.get("table", "null"))
        table = Table.of_header(recorded["columns"], recorded.get("seed", 0), recorded.get("missing", "refuse"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    names = recorded.get("names")
    table = replace(table, names=tuple(names) if are_names(names, len(table.columns)) else None)
    return table if len(table.kept) == features else None


# ---- kinds of columns ------------------------------------------------------------------------------------------------


def _check_whole(column_name: str, facts: Facts, bounds: Pair | None, period: tuple[float, float] | None) -> None:
    """Raise ValueError for fractions, or values beyond bounds, in a column of whole numbers."""
    low, high = bounds or (None, None)
    for expected, wrong in (
        ("whole numbers, as discrete says", facts.odd), (f"whole numbers from {low} to {high}", facts.beyond)
    ):  # fmt: skip
        if wrong is not None:
            got = f"{wrong.first:g}; numbers like this: {wrong.count:,} of {facts.rows:,}"
            raise ValueError(f"{column_name}: expected {expected}, got {got}")
    if facts.high - facts.low >= FAR:
        apart = f"{facts.low:.17g} and {facts.high:.17g}; leave the column out, or take it for real numbers by discrete"
        raise ValueError(f"{column_name}: expected whole numbers less than 2^53 apart, got {apart}")
    if period is not None and period[1] - period[0] != np.trunc(period[1] - period[0]):
        raise ValueError(f"{column_name}: expected a whole period, because its numbers are whole, got {period}")


@functools.lru_cache(maxsize=16)
def _places(columns: int) -> NDArray[np.float64]:
    """Points that are spread evenly in (-1/2, 1/2)^columns, shape (points, columns): the values of each column are the
    midpoints of equal parts of the interval.

    The mirror image of each point is a point, too, so that linear functions are averaged without error. The design with
    the least correlated columns, of 64 random designs, is returned. Source: K. Q. Ye, W. Li, A. Sudjianto, *Algorithmic
    construction of optimal symmetric Latin hypercube designs*, Journal of Statistical Planning and Inference 90, 2000.
    """
    cells = CELLS_OF_TWO if columns <= 2 else CELLS
    middles = (np.arange(cells // 2) + 0.5) / cells
    best, chosen = np.inf, np.concatenate([middles, -middles])[:, None]
    if columns == 1:
        return chosen
    for design in range(64):
        rng = np.random.default_rng([design, columns])
        top = np.stack([rng.permutation(middles) * rng.choice([-1.0, 1.0], cells // 2) for _ in range(columns)], axis=1)
        places = np.concatenate([top, -top])
        together = np.corrcoef(np.concatenate([places, np.square(places)], axis=1).T)
        if (worst := float(np.abs(together - np.eye(2 * columns)).max())) < best:
            best, chosen = worst, places
    return chosen


def without_missing(
    x: NDArray[Any], labels: Sequence[str], missing: str, name: str, dashes: str = ""
) -> NDArray[np.bool_]:
    """A mask of the rows without NaN, or all True if `missing` is "model". `labels`: labels of the columns in messages.

    `dashes`: "--" if messages are for the command line.

    Raises:
        ValueError: some values are missing, and `missing` is "refuse"; or all rows would be dropped.
    """
    absent = np.isnan(x)
    good: NDArray[np.bool_] = ~absent.any(axis=1)
    if good.all() or missing == "model":
        return np.ones(len(x), bool)
    counts = absent.sum(axis=0)
    counted = listing([f"{labels[i]} {counts[i]:,}" for i in np.argsort(-counts, kind="stable") if counts[i]])
    if missing == "drop" and not good.any():
        raise ValueError(f"{name}: expected rows that miss no number, got none of {len(x):,} ({counted})")
    if missing == "refuse":
        row = int((~good).argmax())
        way = "--missing drop" if dashes else "missing='drop'"
        first = f"row {row}, {labels[int(absent[row].argmax())]}"
        got = f"NaN in {int((~good).sum()):,} of {len(x):,} rows ({counted}); {way} leaves such rows out"
        raise ValueError(f"{name}: {first}: expected no missing values, got {got}")
    return good


def complete(x: NDArray[Any], *others: NDArray[Any] | None) -> NDArray[np.bool_]:
    """A mask of rows without NaN in any array."""
    parts = [part.reshape(len(x), -1) for part in (x, *others) if part is not None]
    return ~np.any([np.isnan(part).any(axis=1) for part in parts], axis=0)


def repeating(x: NDArray[Any], table: Table) -> list[int]:
    """Indices of float columns without noise in which half of the rows have repeated values, or a twentieth the same
    value.
    """
    if len(x) < LEAST_ROWS:
        return []
    some = x[:: -(-len(x) // LOOKED_AT)]
    repeated = []
    for i, column in enumerate(table.columns):
        if column.constant is None and not (column.width or column.left_out or column.values):
            counts = np.unique(some[:, i], return_counts=True)[1]
            shared = counts[counts > 1].sum() / len(some)
            if shared >= REPEATED or (counts.max() > 1 and counts.max() / len(some) >= _columns.SPIKE):
                repeated.append(i)
    return repeated


def about_repeats(
    x: NDArray[Any], table: Table, names: Sequence[str] | None, dashes: str = "", *, spread: bool = False
) -> list[str]:
    """Sentences for warnings about float columns with repeated values, and about columns with one frequent value.

    `spread`: whether noise was added because values repeat, which the sentences mention. `dashes`: as in
    `without_missing`.
    """
    plain = tuple(replace(column, width=column.width * column.is_discrete) for column in table.columns)
    repeated = repeating(x, replace(table, columns=plain) if spread else table)
    some = x[:: -(-len(x) // LOOKED_AT)] if repeated else x
    counts = {i: np.unique(some[:, i], return_counts=True) for i in repeated}
    spiked = [i for i in repeated if _columns.is_spike(counts[i][1])]
    none = "--spread none" if dashes else "spread='none'"
    sentences = []
    if milder := [i for i in repeated if i not in spiked]:
        then = f"spread by noise as wide as their gaps, {none} keeps them" if spread else SPREAD
        sentences.append(f"values repeat in {listing([_columns.label(i, names) for i in milder])}: {then}")
    if spiked:
        values, of_each = counts[spiked[0]]
        most = f"{values[of_each.argmax()]:g} in {of_each.max():,} of {len(some):,} rows"
        labels = listing([_columns.label(i, names) for i in spiked])
        sentences.append(f"one value is frequent in {labels} ({most}): {APART}")
    return sentences


SPREAD = "a density spikes there, and its likelihood means little"
APART = "a density spikes there; headrace.sklearn.FlowDensity of splines gives it a probability (docs/tables.md)"
