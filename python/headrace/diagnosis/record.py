"""The record of a diagnosis: results, and a text that fits one screen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.layout import Block, Grid, Item
from headrace._base.types import Floats
from headrace.diagnosis import bands
from headrace.diagnosis.advice import advice_for
from headrace.diagnosis.distributions import normal_tail
from headrace.diagnosis.findings import Finding, Tested, number, with_error
from headrace.diagnosis.likelihood import Likelihood
from headrace.diagnosis.sizes import Size, listed


@dataclass(frozen=True)
class Worst:
    """A row of low log density."""

    row: int
    log_prob: float
    coordinate: int | None
    """The latent coordinate that is farthest out; None for an ensemble, or if the row has no latent value."""
    value: float
    """The position of the coordinate, in standard deviations."""
    label: str | None = None


@dataclass(frozen=True, repr=False)
class Record(Tested):
    """All results of a diagnosis."""

    kind: str
    """The flow's class."""
    rows: int
    looked_at: int
    """The number of rows in the tests: all, or with weights the random part that was kept."""
    features: int
    context: int
    likelihoods: tuple[Likelihood, ...]
    """The likelihoods of the flow, of a Gaussian and kernels if they exist, and of columns with classes."""
    fitted_to: str
    """A text that names the rows that the simple densities were fitted to."""
    tests: tuple[Finding, ...]
    worst: tuple[Worst, ...]
    """The ten rows of lowest log density, the lowest first."""
    copies: int
    """The number of rows of x that are training rows."""
    of_training: bool
    """Whether more than half of x are training rows, apart from copies that repeated values explain."""
    interrupted: bool
    """Whether Ctrl-C left tests out."""
    log_prob: Floats
    """Log densities of all rows, shape (rows,)."""
    scores: Floats | None = field(default=None, compare=False)
    """Latent rows as standard normal scores, shape (looked_at, features); None for an ensemble."""
    regions: Floats | None = field(default=None, compare=False)
    """For each of at most 2000 rows, the share of the smallest region of highest density that contains it."""
    column_ranks: Floats | None = field(default=None, compare=False)
    """For the rows of `regions`, ranks of each column among draws with the same context, as shares; or None."""
    point_ranks: Floats | None = field(default=None, compare=False)
    """Ranks of the distances of the rows of `regions` to random points, as shares; None without context."""
    drawn: Floats | None = field(default=None, compare=False)
    """Log densities of draws, for a picture."""
    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    """Names of latent coordinates: names of columns if no transform mixes columns, or else indices, with the columns
    that correlate most with each coordinate."""
    held: Floats | None = field(default=None, compare=False)
    """At most 5,000 of the tested rows, shape (rows, features)."""
    samples: Floats | None = field(default=None, compare=False)
    """As many draws as `held` has rows, with the same context and columns."""
    made: tuple[tuple[str, str], ...] = ()
    """The origin and the date of the diagnosis: pairs of a name and a value."""
    on_the_command_line: bool = False
    """Whether advice names options of the command line, and not arguments of Python."""
    size: Size = field(default_factory=Size)
    """The sizes of the misfit, which determine the grade."""
    least_right: str = ""
    discrete: tuple[str, ...] = ()
    """Columns of a table that have a probability for each value, or for some values."""
    has_splines: bool = False
    """Whether the flow has splines, so that advice does not name them."""

    @property
    def sentences(self) -> list[str]:
        """The sentences of the verdict, the last of which has the p-value."""
        if self.tests and self.of_training:
            known = f"{self.copies:,} of {_counted(self.rows, 'row')}"
            return [f"Nothing can be said of new rows: {known} were trained on."]
        return super().sentences

    def rank_histogram(self, coordinate: int, bins: int = 20) -> tuple[NDArray[np.int64], tuple[int, int]]:
        """Counts of a latent coordinate's probability integral transform in bins of equal width, and a band for them.

        Under the right density all bins lie within the band, ends included, with a probability of at least 95 %.

        Raises:
            ValueError: there are no latent rows, for example of an ensemble.
        """
        if self.scores is None or not len(self.scores):
            raise ValueError("coordinate: expected a diagnosis with latent rows, got one without")
        return _histogram(normal_tail(-self.scores[:, coordinate]), bins)

    def column_histogram(self, column: int | str, bins: int = 20) -> tuple[NDArray[np.int64], tuple[int, int]]:
        """Counts of a column's ranks among draws with the same context in bins of equal width, and a band for them.

        The histogram is that of simulation-based calibration. `column` is the index or the name of a column.

        Raises:
            ValueError: the density has no context, or there is no such column.
        """
        if self.column_ranks is None:
            raise ValueError("column: expected a diagnosis of a density with context, got one without")
        if isinstance(column, str) and column not in self.names:
            raise ValueError(f"column: expected one of {', '.join(map(repr, self.names))}, got {column!r}")
        place = self.names.index(column) if isinstance(column, str) else check.index("column", column, len(self.names))
        return _histogram(self.column_ranks[:, place], bins)

    def summary(self) -> dict[str, Any]:
        """The whole record without rows, as values and texts for JSON."""
        summary = super().summary()
        for tested, test in zip(self.tests, summary["tests"], strict=True):
            test["next"] = self.next_step(tested) if tested.misses else None
        plain = ("kind", "rows", "looked_at", "fitted_to", "copies", "of_training", "discrete", "interrupted")
        summary |= {name: getattr(self, name) for name in plain}
        summary |= {name: [dict(vars(part)) for part in getattr(self, name)] for name in ("likelihoods", "worst")}
        return {**summary, "made": dict(self.made)}

    def __repr__(self) -> str:
        """The verdict."""
        return f"Diagnosis({self.kind}, rows={self.rows}: {self.verdict})"

    def blocks(self) -> list[Block]:
        """The paragraphs and tables of the printed text."""
        given = f" given {_counted(self.context, 'number')} of context" if self.context else ""
        blocks: list[Block] = [
            f"{self.kind} of {_counted(self.features, 'feature')}{given}, looked at with {_counted(self.rows, 'row')}",
            "",
            *self.sentences,
            *self.notes(),
            "",
            "mean log-likelihood, nats a row",
            Grid((), [self._likelihood(density) for density in self.likelihoods], right=(1,), wraps=(2,), indent="  "),
        ]
        if self.fitted_to and len(self.likelihoods) > 1:
            blocks.append(Item(f"the simple densities were fitted to {self.fitted_to}"))
        blocks += self.evidence(self.next_steps())
        return [*blocks, "", "rows that fit worst", *(Item(self._worst(row)) for row in self.worst[:3])]

    def next_step(self, finding: Finding, on_a_page: bool = False, splines: bool = True) -> str:
        """Advice about a finding, with `on_a_page` for a page with pictures; `splines`: whether to name splines."""
        advice, splines = advice_for(finding.name), splines and not self.has_splines
        return advice.text(self.on_the_command_line, splines=splines, pictures=not on_a_page)

    def next_steps(self, on_a_page: bool = False) -> list[str]:
        """Advice on all findings that reject the density, without repetitions."""
        first = next((test for test in self.misses if advice_for(test.name).has_splines), None)
        return [*dict.fromkeys(self.next_step(test, on_a_page, test is first) for test in self.misses)]

    def notes(self) -> list[str]:
        """Notes beside the verdict."""
        notes = []
        if self.interrupted:
            notes.append("Interrupted: these are the tests done so far.")
        if self.looked_at < self.rows:
            notes.append(f"The tests took {self.looked_at:,} of {self.rows:,} rows, kept by their weights.")
        if self.discrete and self.names:
            notes.append(f"Coverage, ranks and distances are of {listed(self.names)} alone, in rows that have them.")
        if self.copies:
            notes.append(f"{_counted(self.copies, 'row')} of x can be found in the training rows: give held-out ones.")
        if 0 < self.looked_at < 100:
            notes.append("With so few rows only coarse faults are found.")
        if self.rows >= 100_000 and self.misses:
            notes.append("With 100,000 rows or more the tests find the smallest faults: see how large they are.")
        return notes

    @staticmethod
    def _likelihood(peer: Likelihood) -> tuple[str, str, str]:
        comparison, more = "", "more" if not peer.gain < 0 else "less"
        if peer.name != "flow" and not np.isnan(peer.gain):  # NaN if both densities are 0 at a row
            comparison = f"the flow has {abs(peer.gain):.4f}{with_error(peer.gain_error)} {more} on {peer.rows:,} rows"
        return peer.name, f"{peer.mean:.4f}{with_error(peer.error)}", comparison

    @staticmethod
    def _worst(row: Worst) -> str:
        text = f"row {row.row}: log density {number(row.log_prob)}"
        return text if row.label is None else f"{text}; {row.label} at {number(row.value)} standard deviations"


def _histogram(ranks: Floats, bins: int) -> tuple[NDArray[np.int64], tuple[int, int]]:
    counts = np.histogram(ranks, bins=bins, range=(0.0, 1.0))[0].astype(np.int64)
    return counts, bands.histogram_band(len(ranks), bins)


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"
