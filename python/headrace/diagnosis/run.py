"""`headrace.diagnose`: tests of a fitted density with held-out rows, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace._arrays.caller import Array
from headrace._arrays.frames import labels_of
from headrace._base import arguments as check
from headrace._base import clients
from headrace._base.keywords import taken_from, takes
from headrace._base.moved import moved_where
from headrace._base.progress import bar
from headrace._base.types import Floats, Unpack
from headrace._base.warn import warn
from headrace._core import cpu
from headrace._fit.ensemble import Ensemble
from headrace._flow.flow import Flow
from headrace._flow.program.module import is_of_sequences
from headrace._tables.density import TableDensity
from headrace._tables.mixed import MixedDensity
from headrace.diagnosis import latent
from headrace.diagnosis.arguments import Diagnosed
from headrace.diagnosis.calibration import calibration, coverage
from headrace.diagnosis.classes import Classes
from headrace.diagnosis.classifier import LEAST_ROWS, copies, is_training, nearer, two_samples
from headrace.diagnosis.findings import Finding, holm
from headrace.diagnosis.judged_rows import Looked, opened, stream
from headrace.diagnosis.latent import scores
from headrace.diagnosis.likelihood import Likelihood, compare
from headrace.diagnosis.record import Worst
from headrace.diagnosis.result import Diagnosis
from headrace.diagnosis.sequences import diagnose_sequences
from headrace.diagnosis.sizes import COLUMN, NAMED, Size, columns_of, listed, missing_nats

WORST = 10  # the number of rows of lowest log density in a record
DRAWN = 5000  # the most draws whose log densities a picture shows
LOOKED = ("scores", "regions", "column_ranks", "point_ranks", "drawn", "held", "samples", "least_right")  # for pictures


class Fitted(Protocol):
    """A fitted density of tables: a `FlowDensity`, a result of `auto`, or a density from a file."""

    def as_table(self) -> TableDensity:
        """The density of a table with the columns of the fit."""


@moved_where(is_of_sequences, diagnose_sequences, "progress")
@takes(Diagnosed)
def diagnose(
    flow: Flow | Ensemble | Fitted, x: Array, context: Array | None = None, **keywords: Unpack[Diagnosed]
) -> Diagnosis:
    """Test a fitted density with rows that it has not seen.

    Rows of x become latent rows, which are independent rows of the base if the density is right. Draws are compared
    with x by their log densities, by a classifier and, with training rows, by distances. Each test has a p-value from a
    completely known distribution, and Holm's method judges all tests together at 5 %. With very many rows every fit is
    rejected, so that the sizes of misfits matter more than p-values.

    Args:
        flow: A flow on any device, which is tested on the CPU. For an `Ensemble`, which has no latent rows, tests of
            latent rows are left out. For a fitted `FlowDensity`, a result of `auto`, or the density of a table from
            `load`, rows are treated as in the fit, and integers get noise. For a posterior or an estimator of sbi,
            whose network is tested, and for a result of `accelerate`, x are parameters, and the context is data.
        x: Held-out rows, shape (rows, features), which neither the fit nor its choice of an epoch used.
        context: Context of the rows, shape (rows, context), as in `Flow.log_prob`.
        weights: Weights of the rows, shape (rows,). Tests use rows that are kept with the probability weight / largest
            weight; the mean log-likelihood is the weighted mean over all rows.
        training: The training rows, or ``(x, context)``, for comparisons and for a test of memorised rows. If more than
            half of x are training rows, a warning says so.
        names, context_names: Names of the columns of x and of the context, for texts; by default the names of data
            frames, or those of the flow.
        seed: The seed of all draws.
        rng: A generator instead of `seed`; see `Flow.sample`.
        progress: Whether to show a bar of the finished tests on the standard error.

    Returns:
        A `Diagnosis`, whose text `print` shows; after Ctrl-C with the tests done so far.

    Raises:
        TypeError, ValueError: As in `Flow.log_prob`; or rows are not finite, and the message has the number of these
            rows.

    >>> import numpy as np, headrace as hr
    >>> x = np.random.default_rng(0).normal(0.0, [1.0, 1.2], (3000, 2))
    >>> flow = hr.Flow([hr.transforms.Standardize([0.0, 0.0], [1.0, 1.0])], dtype="float64")
    >>> diagnosis = hr.diagnose(flow, x)
    >>> diagnosis.p_value < 1e-6, diagnosis.grade, diagnosis.least_right
    (True, 'usable', 'column 1, whose spread is 16% too small')
    """
    settings = taken_from(Diagnosed, keywords)
    weights, training = settings.weights, settings.training
    names, context_names = settings.names, settings.context_names
    again = False
    classes: Classes | None = None
    density: Any
    density, context = clients.opened(flow, context)
    if hasattr(density, "as_table"):  # a FlowDensity, a Choice, or the density of a table from a file
        if context_names is None and (context_columns := getattr(context, "columns", None)) is not None:  # of a frame
            context_names = [str(name) for name in context_columns]
        again = is_training(x, context, training)  # compared before integers get noise, which differs in each call
        table = density.as_table()
        x, context, weights, training, names = table.to_look_at(x, context, weights, training, names)
        density, used = table.flow, table.columns.used
        if isinstance(density, MixedDensity):
            size = density.features
            names = [*map(str, range(size))] if names is None else check.texts("names", names, size)
            context_names = density.context_names if context_names is None else context_names
            labels = [used.columns[i].labels for i in used.kept]
            classes = Classes.of(density, (x, context, weights), names, context_names, labels, settings.seed)
            x, context, weights = density.of_numbers(x, classes.rows.context, classes.rows.weights)
            training = None if training is None else density.of_numbers(*training)
            names, context_names = [names[i] for i in density.continuous], classes.conditions(0)[2]
            density = density if density.flow is None else density.flow
    if not isinstance(density, (Flow, Ensemble)) and classes is None:
        raise TypeError(f"flow: expected a flow, an ensemble or a fitted FlowDensity, got {check.kind_of(density)}")
    for name, value in (("x", x), ("context", context)):
        density._names.check(name, value)
    if names is None and labels_of(x) is None:
        names = density.feature_names
    if context_names is None and labels_of(context) is None:
        context_names = density.context_names
    local = density if density.device == "cpu" else density.to("cpu")
    if classes is not None and isinstance(local, MixedDensity):  # a density without a flow
        likelihoods: list[Likelihood] = []
        rows, log_prob, fitted_to = classes.rows, classes.log_prob, ""
    else:
        rows = opened(local.features, local.context, x, context, weights, training, names, settings.seed, context_names)
        log_prob = np.asarray(local.log_prob(rows.x, rows.context), np.float64)
        likelihoods, fitted_to = compare(log_prob, rows, settings.seed)
    look = _Look(local, rows, log_prob, settings.seed, classes)
    interrupted, found_again, of_training = False, len(rows.x) if again else 0, again
    try:
        with bar(look.expected(), "diagnose", "test", bool(settings.progress)) as shown:
            look.tests(shown)
        if not again:
            found_again, of_training = copies(rows)
    except KeyboardInterrupt:
        interrupted = True
    if of_training:
        known = f"{found_again:,} of {len(rows.x):,} are training rows"
        more = "their likelihood and their p-values hold for no others; give rows that were held out"
        warn(f"x: expected rows that the fit has not seen, but {known}: {more}")
    findings = look.done
    adjusted = holm([finding.p_value for finding in findings])
    whole, every = (density, rows) if classes is None else (classes.density, classes.rows)
    return Diagnosis(
        kind=type(whole).__name__,
        rows=len(every.x),
        looked_at=every.index.size,
        features=whole.features,
        context=whole.context,
        likelihoods=(*likelihoods, *([] if classes is None else [classes.likelihood()])),
        fitted_to=fitted_to,
        tests=tuple(replace(finding, adjusted=p) for finding, p in zip(findings, adjusted, strict=True)),
        worst=look.worst(),
        copies=found_again,
        of_training=of_training,
        interrupted=interrupted,
        log_prob=log_prob,
        names=() if isinstance(local, MixedDensity) else rows.names,
        labels=tuple(look.labels),
        made=_made(rows, settings.seed),
        size=look.size.beside(likelihoods),
        discrete=() if classes is None else classes.names,
        has_splines=isinstance(local, Flow) and local._interior.bends,
        **{name: getattr(look, name) for name in LOOKED},
    )


def _made(rows: Looked, seed: int) -> tuple[tuple[str, str], ...]:
    """The settings needed to repeat the diagnosis."""
    trained = "not given" if rows.training is None else f"{len(rows.training):,}"
    dated = (("date", date.today().isoformat()), ("headrace", cpu.__version__))
    return ("rows held out", f"{len(rows.x):,}"), ("rows of training", trained), ("seed", str(seed)), *dated


@dataclass
class _Look:
    """A running diagnosis: the tests done so far, with the values that these tests computed."""

    flow: Any
    rows: Looked
    log_prob: Floats
    seed: int
    classes: Classes | None = None
    done: list[Finding] = field(default_factory=list)
    regions: Floats | None = None
    column_ranks: Floats | None = None
    point_ranks: Floats | None = None
    scores: Floats | None = None  # scores of the rows with the indices `rows.index`
    all_scores: Floats | None = None
    drawn: Floats | None = None
    labels: list[str] = field(default_factory=list)
    held: Floats | None = None
    samples: Floats | None = None
    size: Size = field(default_factory=Size)
    least_right: str = ""

    def tests(self, shown: Any) -> None:
        """Run each test, and add it to `done` when it is complete."""
        for finding in self._each():
            self.done.append(finding)
            shown.set_postfix_str(finding.name, refresh=False)
            shown.update(min(1, shown.total - shown.n))

    def expected(self) -> int:
        """The number of tests that will run if no row has a density of 0."""
        rows, classes = self.rows, self.classes
        every, discrete = (rows, 0) if classes is None else (classes.rows, len(classes.names))
        count = int(every.index.size >= LEAST_ROWS)
        if not isinstance(self.flow, MixedDensity):
            count += 1 + 2 * (rows.context is not None) + (rows.training is not None)
        features = discrete + (self.flow.features if isinstance(self.flow, Flow) else 0)
        if features:
            many, some, has_conditions = features > 1, every.index.size > 2, discrete > 0 or rows.context is not None
            count += 2 + (discrete > 0) + 2 * many + (many and some) + (some and has_conditions)
        return count

    def _each(self) -> Iterator[Finding]:
        yield from self._latent()
        if not self.rows.index.size:
            return
        if isinstance(self.flow, MixedDensity):
            yield from self._two_samples()
            return
        finding, self.regions = coverage(self.flow, self.rows, self.log_prob, self.seed)
        yield finding
        if self.rows.context is not None:
            findings, self.column_ranks, self.point_ranks = calibration(self.flow, self.rows, self.seed)
            yield from findings
        self._draw()
        yield from self._two_samples()
        if self.rows.training is not None:
            yield nearer(self.flow, self.rows, self.seed)[0]

    def _two_samples(self) -> Iterator[Finding]:
        flow, rows = (self.flow, self.rows) if self.classes is None else (self.classes, self.classes.rows)
        if rows.index.size >= LEAST_ROWS:
            finding, known, pairs = two_samples(flow, rows, self.seed)
            self.size = replace(self.size, known=known, pairs=pairs)
            yield finding

    def _of_numbers(self) -> tuple[Floats, NDArray[np.bool_], list[str]]:
        """Scores of the flow's rows, a mask of rows with a density, and descriptions of the scores' columns. An
        ensemble has no latent rows, and thus no columns of scores.
        """
        if not isinstance(self.flow, Flow):
            return np.empty((len(self.log_prob), 0)), np.isfinite(self.log_prob), []
        z = np.asarray(self.flow.to_latent(self.rows.x, self.rows.context)[0])
        every = scores(self.flow.base, z, self.seed)
        good = np.isfinite(every).all(axis=1) & np.isfinite(self.log_prob)
        places = columns_of(self.flow, self.rows.x, self.rows.context, self.rows.names)
        if places is None:
            self.labels = called = _labels(every[good], self.rows.x[good], self.rows.names)
        else:
            self.labels = [COLUMN + self.rows.names[i] for i, _ in places]
            called = [f"column {self.rows.names[i]}" + (f" given {rest}" if rest else "") for i, rest in places]
        self.all_scores = every  # set together with labels, because Ctrl-C may follow
        return every, good, called

    def _latent(self) -> Iterator[Finding]:
        every, good, called = self._of_numbers()
        index, conditions, names = self.rows.index, self.rows.context, self.rows.context_names
        chosen: NDArray[np.bool_] | None = None
        if self.classes is not None:
            conditions, chosen, names = self.classes.conditions(every.shape[1])
            index, (every, good) = self.classes.rows.index, self.classes.beside(every, good)
            self.labels = [*self.labels, *(COLUMN + name for name in self.classes.names)]
        if not good[index].all():
            yield self._nowhere(index[~good[index]], index.size)
        index, features = index[good[index]], every.shape[1]
        score = every[index]
        self.scores = score if features else None
        if not score.size:
            return
        self.least_right = latent.least_right(score, called, self.classes.shares if self.classes else ())
        nats, error = missing_nats(score, self.seed)
        self.size = replace(self.size, nats=nats, nats_error=error)
        if self.classes is not None:
            yield self.classes.test()
        yield latent.coordinates(score, self.labels)
        if features > 1:
            yield latent.directions(score, self.seed)
            yield latent.radii(score)
        yield latent.farthest(score, self.labels, index)
        if features > 1 and index.size > 2:
            yield latent.correlations(score, self.labels)[0]
        if conditions is not None and index.size > 2:
            yield latent.dependence_on_context(score, conditions[index], self.labels, names, chosen)

    def _nowhere(self, bad: NDArray[np.int64], every: int) -> Finding:
        self.size = replace(self.size, nowhere=bad.size / every)
        known = "have density 0, or none that can be computed"
        sentence = f"{bad.size:,} of {every:,} rows {known}; the first is row {bad[0]}"
        return Finding("rows without a density", 0.0, 1, sentence)

    def _draw(self) -> None:
        """Sample rows with the contexts of held-out rows; keep these rows, the samples, and their log densities."""
        rng = stream(self.seed, 8)
        index = self.rows.some(DRAWN, rng)
        context = self.rows.context_of(index)
        x = self.flow.sample(index.size, context, seed=rng, dtype="float64")
        self.drawn = np.asarray(self.flow.log_prob(x, context), np.float64)
        self.held, self.samples = (np.asarray(part, np.float64) for part in (self.rows.x[index], x))

    def worst(self) -> tuple[Worst, ...]:
        """The rows of the lowest log densities, each with the latent coordinate farthest from the middle."""
        order = np.argsort(np.where(np.isnan(self.log_prob), -np.inf, self.log_prob), kind="stable")[:WORST]
        worst = []
        for row in order.tolist():
            coordinate, value = None, float("nan")
            if self.all_scores is not None and np.isfinite(self.all_scores[row]).all():
                coordinate = int(np.abs(self.all_scores[row]).argmax())
                value = float(self.all_scores[row, coordinate])
            label = None if coordinate is None else self.labels[coordinate]
            worst.append(Worst(row, float(self.log_prob[row]), coordinate, value, label))
        return tuple(worst)


def _labels(score: Floats, x: NDArray[Any], names: tuple[str, ...]) -> list[str]:
    """Names of latent coordinates that mix columns: indices, and the columns that correlate most with a coordinate."""
    numbers = [f"latent coordinate {i}" for i in range(score.shape[1])]
    if len(score) < 10 or score.shape[1] == 1:
        return numbers
    ranked, columns = (_normed(np.argsort(np.argsort(part, axis=0), axis=0)) for part in (score, x))
    going = np.abs(ranked.T @ columns)
    for i, row in enumerate(going):
        most = [names[j] for j in np.argsort(-row)[:NAMED] if row[j] >= 0.5 * row.max()]
        numbers[i] += f" (mostly column{'s' * (len(most) > 1)} {listed(most)})"
    return numbers


def _normed(ranks: NDArray[Any]) -> Floats:
    centred = ranks - ranks.mean(axis=0)
    return np.asarray(centred / np.maximum(np.sqrt(np.square(centred).sum(axis=0)), 1e-300))
