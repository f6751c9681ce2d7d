"""The result of a choice: all densities that were tried, the best one, and simple ones that are as good."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace._arrays.columns import label
from headrace._base.layout import Block, Grid, lines_of
from headrace._base.public import public
from headrace._base.rng import Rng, takes_rng
from headrace._base.types import Floats
from headrace._fit.ensemble import Ensemble
from headrace._flow.flow import Flow
from headrace._tables.density import Columns, TableDensity
from headrace._tables.mixed import MixedDensity
from headrace._tables.table import Table, without_missing
from headrace.choosing.sample import Sample
from headrace.diagnosis.likelihood import weighted_mean
from headrace.diagnosis.result import Diagnosis

PLAIN = Columns(Table(()))  # the columns of a table that was not treated
SIMPLE = ("Gaussian", "linear Gaussian", "kernel density")
CLASSES = "probabilities of classes"
NEGLIGIBLE = 0.01  # a difference, in nats a row, without effect in practice
NEAR = f"within the standard error, or {NEGLIGIBLE} nats a row"


@public("headrace.choosing")
@dataclass(frozen=True)
class Tried:
    """A density that was tried, with its log-likelihood on rows that the fit has not seen."""

    name: str
    log_likelihood: float
    """The mean log-likelihood in nats a row; NaN if the fit was not begun."""
    error: float
    """The standard error of the mean."""
    behind: float
    """The best density's mean log-likelihood minus this density's."""
    behind_error: float
    """The standard error of `behind`, from differences on the same rows."""
    seconds: float
    state: str
    """The state of the density's fit, in words."""
    flow: Flow | None = field(default=None, compare=False, repr=False)


@public("headrace.choosing")
@dataclass(frozen=True, repr=False)
class Choice:
    """The result of `headrace.auto`, which `print` shows as a report.

    >>> import numpy as np, headrace as hr
    >>> x = np.random.default_rng(0).standard_normal((600, 2))
    >>> choice = hr.auto(x, time_budget=0.5, families=("maf",), progress=False)
    >>> "Gaussian" in (choice.name, *choice.as_good)
    True
    """

    flow: Flow | MixedDensity
    """The best density."""
    name: str
    """The name of the best density."""
    table: tuple[Tried, ...]
    """All densities tried, the best first."""
    as_good: tuple[str, ...]
    """Simpler densities that are as good as the best: within the standard error of the difference, or 0.01 nats."""
    diagnosis: Diagnosis | None
    """A diagnosis of the best density on held-out rows; None after Ctrl-C, or if no rows are left."""
    judged_by: str
    """A description of the rows by which the table was computed."""
    interrupted: bool
    """Whether Ctrl-C ended the search."""
    seconds: float
    members: Ensemble | MixedDensity | None = field(default=None, compare=False)
    """With ``keep=True`` the mixture that the `NSF` of high effort has learnt from the rows to fit; else None."""
    columns: Columns = field(default=PLAIN, compare=False)
    """The kinds of the table's columns: for the fits, integers were spread and constant columns left out."""

    @takes_rng
    def sample(self, n: int, context: Any = None, *, seed: Any = None, rng: Rng = None, as_frame: bool = False) -> Any:
        """Draw rows of the original table: integers are rounded, and constant columns are included.

        Args:
            n, context, seed: As in `Flow.sample`.
            as_frame: Whether to return a frame of the original table's library, or else of pandas, with names
                and dtypes.

        Raises:
            ImportError: a frame was requested, and pandas is not installed.
        """
        return self.as_table().sample(n, context, seed=seed, as_frame=as_frame)

    def log_prob(self, x: Any, context: Any = None) -> Floats:
        """The log density of rows of the original table, shape (rows,); a log probability for columns of integers.

        The result is -inf, with a warning, for a row with a different value in a constant column, and NaN for a row
        with missing values if the fit dropped such rows.
        """
        rows, contexts = self.columns.opened(x, context)
        labels = [label(i, self.columns.used_names) for i in range(rows.shape[1])]
        if self.columns.table.missing == "refuse":
            without_missing(rows, labels, "refuse", "x")
        return self.as_table().scores(rows, contexts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the density to a file, with the treatment of the columns.

        Commands that read the file, such as `headrace sample`, treat rows as the fit did, and `headrace.load` returns
        the density of the table.
        """
        self.as_table().save(path)

    def as_table(self) -> TableDensity:
        """The density of the original table, as `headrace.load` returns it from a file."""
        return TableDensity(self.flow, self.columns)

    def __repr__(self) -> str:
        """The name and the log-likelihood of the best density, and the number of densities tried."""
        return f"Choice({self.name}: {self.table[0].log_likelihood:.4f} nats a row, {len(self.table)} tried)"

    def __str__(self) -> str:
        """A report that fits on one screen."""
        return "\n".join(lines_of(self.blocks()))

    def blocks(self, more: str = "result.diagnosis has all of it") -> list[Block]:
        """The blocks of the report: a table and paragraphs; `more`: a text that tells where the complete
        diagnosis is.
        """
        rows = []
        for tried in self.table:
            if np.isnan(tried.log_likelihood):
                rows.append((tried.name, "", "", "", tried.state))
                continue
            mean = f"{tried.log_likelihood:.4f} ± {tried.error:.4f}"
            behind = "" if tried is self.table[0] else f"{tried.behind:.4f} ± {tried.behind_error:.4f}"
            rows.append((tried.name, mean, behind, f"{tried.seconds:.1f} s", tried.state))
        head = ("density", "nats a row", "behind the best", "time", "")
        notes = [f"Judged by {self.judged_by}.", comparison_of(self.name, self.as_good), *self.columns.lines()]
        lines: list[Block] = ["mean log-likelihood", Grid(head, rows, right=(1, 2, 3), wraps=(0, 4)), "", *notes]
        if self.interrupted:
            lines.append("Interrupted: this is the best so far.")
        if self.diagnosis is not None:
            lines += ["", f"A look at the best: {self.diagnosis.verdict}", f"({more})"]
        return lines

    def summary(self) -> dict[str, Any]:
        """The result without rows and flows, as a dict of numbers and strings that can be written as JSON."""
        table = [{key: value for key, value in vars(tried).items() if key != "flow"} for tried in self.table]
        values = {name: getattr(self, name) for name in ("name", "judged_by", "interrupted", "seconds")}
        diagnosis = None if self.diagnosis is None else self.diagnosis.summary()
        return {**values, "table": table, "as_good": list(self.as_good), "diagnosis": diagnosis}


def comparison_of(name: str, as_good: tuple[str, ...]) -> str:
    """A sentence that compares the best density, `name`, with simple densities that are as good."""
    if name == CLASSES:
        return "All columns have classes, so that nothing else was tried."
    if name in SIMPLE:
        return f"The {name} is the best: nothing that was trained is better."
    if not as_good:
        return f"{name} is the best. It is better than the simple densities by more than the standard error."
    verb = "is" if len(as_good) == 1 else "are"
    names = " and ".join(f"a {kind}" for kind in as_good)
    return f"{name} is the best, but {names} {verb} as good ({NEAR}): take the simpler one."


def of_classes_alone(density: MixedDensity, columns: Columns, judging: Sample, begin: float) -> Choice:
    """The result for a table whose columns all have classes; `begin`: the time at which the work began."""
    seconds, judged_by = time.perf_counter() - begin, f"{len(judging):,} rows that no fit has seen"
    only = Judged(CLASSES, None, judging.known, seconds, "it ended", 0.0)
    tried = compared([only], only, judging.weights)[0]
    return Choice(density, CLASSES, tried, (), None, judged_by, False, seconds, columns=columns)


@dataclass(frozen=True)
class Judged:
    """A density with its log densities of the judging rows; these are None if the fit was not begun."""

    name: str
    flow: Flow | None
    log_prob: Floats | None
    seconds: float
    state: str
    chosen_by: float
    """The mean log-likelihood on the rows by which the search chooses."""


def compared(judged: list[Judged], best: Judged, weights: Floats | None) -> tuple[tuple[Tried, ...], tuple[str, ...]]:
    """The densities with their log-likelihoods, the best one first, and the names of simple densities that
    are as good.
    """
    tried, as_good = [], []
    for entry in judged:
        if entry.log_prob is None or best.log_prob is None:
            tried.append(Tried(entry.name, np.nan, np.nan, np.nan, np.nan, entry.seconds, entry.state, entry.flow))
            continue
        mean, error = weighted_mean(entry.log_prob, weights)
        with np.errstate(invalid="ignore"):
            behind = np.where(entry.log_prob == best.log_prob, 0.0, best.log_prob - entry.log_prob)
        away, spread = weighted_mean(behind, weights)
        tried.append(Tried(entry.name, mean, error, away, spread, entry.seconds, entry.state, entry.flow))
        # A single row gives no standard error, so that no finite difference is significant.
        near = away <= max(spread, NEGLIGIBLE) or (len(behind) == 1 and np.isfinite(away))
        if entry is not best and entry.name in SIMPLE and near:
            as_good.append(entry.name)
    tried.sort(key=lambda entry: (entry.name != best.name, np.isnan(entry.log_likelihood), -entry.log_likelihood))
    return tuple(tried), tuple(as_good)
