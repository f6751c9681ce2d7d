"""A search for the best density within a time budget: by successive halving, or with few rows by cross-validation."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from headrace._arrays.caller import Array
from headrace._arrays.names import Names
from headrace._base import arguments as check
from headrace._base.keywords import taken_from, takes
from headrace._base.progress import seconds_bar
from headrace._base.types import Floats, Unpack
from headrace._base.warn import FREQUENT, fixed_epochs, silent
from headrace._fit.clock import Clock
from headrace._fit.ensemble import Ensemble
from headrace._fit.history import whole
from headrace._flow.flow import Flow
from headrace._flow.transforms.support import Support, support_or_none
from headrace._tables.arguments import Treatment
from headrace._tables.classes import discretes
from headrace._tables.density import Columns
from headrace._tables.discrete import Discrete
from headrace._tables.mixed import MixedDensity
from headrace._tables.table import ends_of
from headrace.choosing import candidates as simple
from headrace.choosing.arguments import AutoKeywords, OfSearch, OfTable
from headrace.choosing.candidates import Setting, Trial, candidates, chosen_by, with_high_effort
from headrace.choosing.classes import apart
from headrace.choosing.result import Choice, Judged, compared, of_classes_alone
from headrace.choosing.sample import Sample, folds, of_table, parted, parts
from headrace.diagnosis.likelihood import weighted_mean
from headrace.diagnosis.result import Diagnosis
from headrace.diagnosis.run import diagnose

CROSS_VALIDATES_BELOW = 500  # with fewer rows, cross-validation judges densities on all rows
LEAST = 4  # the least number of rows
FOLDS = 5
SEARCHING = 1 / 3  # share of the time for the search, if a fit with high effort follows
OF_DEFAULT = 4 / 5  # largest share of the time for the default: other candidates rarely win
ALL_ROWS = 1.5  # largest ratio of the seconds of a fit to all rows to those of the same fit in the search
LOOKED_AT, MOST_KNOWN = 5000, 10_000  # the most rows of a diagnosis, and the most training rows for it


@takes(AutoKeywords)
def auto(x: Array, time_budget: float = 60.0, **keywords: Unpack[AutoKeywords]) -> Choice:
    """Try flows of several kinds and sizes within a time budget; return the best, a table of all, and a diagnosis.

    From 500 rows on, a tenth of the rows, at most 5000, serves to choose, and another tenth to judge. The default, an
    `NSF` without options, comes first, with up to four fifths of the time. Successive halving shares the remaining
    time: all candidates get a little, and the better half continues with more, until one is left
    (Jamieson, Talwalkar 2016). If the fit of the best candidate ended early, and enough time is left, the candidate is
    fitted again to all rows at the end; the search reserves time for this fit. With fewer than 500 rows, five-fold
    cross-validation chooses and judges, and the best candidate is fitted to all rows at the end. A Gaussian and a
    kernel density are compared with the flows, and may be the best.

    Results are not reproducible, because the number of steps in a given time depends on the machine.

    Args:
        x: Shape (rows, features), an array or a frame; at least 4 rows. Columns of over 128 texts, and columns that
            count the rows or have a different integer in each row, are left out, with a warning, unless `discrete`,
            `spread`, `bounds` or `periodic` names them. A column with one value in all rows is left out of the fits,
            and included again by `Choice.sample`.
        time_budget: The seconds for the fits; the diagnosis of the best density comes after them.
        context: Shape (rows, context), or (rows,) for one column: the conditions of the density. With a context there
            is no kernel density and no dual ascent, and the mean of the Gaussian is linear in the context.
        weights: Shape (rows,): weights of the rows, not negative.
        families: The families to try, among "maf", "nsf", "realnvp" and "dual-ascent".
        bounds: For each column ``(low, high)`` or None, or a dict by index or name, as in `MAF`; integers may be
            bounds.
        periodic: For each column ``(low, high)``, one period of it, or None, as in `MAF`. With periods the Gaussian is
            uniform around the circles, and there is no kernel density.
        names: The names of the columns, for the diagnosis and for files; by default those of a frame.
        discrete: The columns of integers or truth values, which are spread by noise for the fits and rounded in
            samples (docs/tables.md). "auto": columns of frames with such dtypes, and arrays of integers; None
            for no columns; or a list of columns, by index or name.
        spread: Uniform noise for columns of other values that repeat: "auto", as wide as the smallest gap
            between two values; "none"; a width; or a dict of widths by index or name.
        missing: "refuse" rows with NaN, with the counts of each column; or "drop" them.
        categories: The columns with a probability for each value, from one network: "auto", columns of text, categories
            and truth values, and integers of up to 128 values if held-out rows prefer probabilities to noise; None for
            no columns, which leaves out text; or a list of columns, by index or name. Densities of all other
            columns are tried conditional on the `categories`, and the table has the log-likelihood of all columns.
        dtype: The dtype of the flows, "float32" or "float64".
        effort: "high": the search has a third of the time, and an `NSF` with residual blocks, fitted with
            ``effort="high"``, has the rest; only from 500 rows on.
        keep: Whether `Choice.members` keeps the mixture that this `NSF` has learnt; only with effort="high".
        seed: The seed of held-out rows, of fresh weights and of the order of rows.
        rng: A generator or seed in place of `seed`; see `Flow.sample`.
        progress: Whether to show a bar on the standard error.

    Returns:
        A `Choice`, which `print` shows as a report. The methods `sample`, `log_prob` and `save` of the choice are for
        the original table; the attribute `flow` is the density of the treated columns (spread, without constant ones),
        a `MixedDensity` for columns with classes. Ctrl-C ends the search and keeps the best density so far.

    Raises:
        TypeError, ValueError: an argument is not as expected, as in `Flow.fit`; there are missing values and `missing`
            is "refuse", or there are fewer than 4 rows.

    >>> import numpy as np, headrace as hr
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((1000, 2))
    >>> x[:, 1] += np.square(x[:, 0])
    >>> choice = hr.auto(x, time_budget=2, families=("nsf",), progress=False)
    >>> choice.name[:3], choice.flow.sample(3, seed=0).shape, len(choice.table)
    ('NSF', (3, 2), 5)
    """
    clock = Clock(check.number("time_budget", time_budget, above=0.0, below=np.inf))
    table, settings = taken_from(OfTable, keywords), taken_from(OfSearch, keywords)
    ends = settings.bounds, settings.periodic
    more: dict[str, Any] = {"seed": settings.seed, "categories": table.categories, "gates": False}
    how = Treatment(table.discrete, table.spread, table.missing, *ends, **more)
    sample, columns, ready = of_table(x, table.context, table.weights, table.names, how)
    return of_treated(sample, columns, clock, **vars(settings) | {"bounds": ready.bounds, "periodic": ready.periodic})


def of_treated(sample: Sample, columns: Columns, clock: Clock, **arguments: Any) -> Choice:
    """Search for the density of treated rows; `columns`: their treatment; `arguments`: keywords of `search`."""
    classes = discretes([columns.table.columns[i] for i in columns.table.kept], sample.x)
    if classes and len(sample) >= LEAST:
        return _of_classes(classes, sample, columns, clock, arguments)
    names = Names(columns.kept_names, columns.context_names or None)
    return replace(search(sample, names, clock, **arguments), columns=columns)


def _of_classes(
    classes: Sequence[Discrete], sample: Sample, columns: Columns, clock: Clock, arguments: dict[str, Any]
) -> Choice:
    """Search for the density of a table with class columns: a density of the other columns, given these classes."""
    begin, seed, rows = time.perf_counter(), arguments["seed"], len(sample)
    is_small = rows < CROSS_VALIDATES_BELOW
    unseen = folds(rows, min(FOLDS, rows), seed) if is_small else [np.concatenate(parts(rows, seed)[1:])]
    density, numbers = apart(sample, classes, unseen, seed, arguments["dtype"], clock)
    density._names = Names(columns.kept_names, columns.context_names or None)
    if not density.continuous:
        return of_classes_alone(density, columns, numbers if is_small else parted(numbers, seed)[2], begin)
    ends = {name: ends_of(arguments[name], density.continuous) for name in ("bounds", "periodic")}
    names = Names(columns.kept_names).of_columns(density.continuous)
    choice: Any = search(numbers, names, clock, **arguments | ends)
    density.flow, members = choice.flow, choice.members
    members = None if members is None else MixedDensity(density.head, members, density.continuous)
    seconds = time.perf_counter() - begin
    return replace(choice, flow=density, members=members, columns=columns, seconds=seconds)


def search(sample: Sample, names: Names, clock: Clock, **keywords: Unpack[OfSearch]) -> Choice:
    """Search for the density of treated rows; `names`: the names of their columns."""
    args = taken_from(OfSearch, keywords)
    if len(sample) < LEAST:
        raise ValueError(f"x: expected at least {LEAST} rows of a weight above 0, got {len(sample)}")
    support = support_or_none(args.bounds, sample.features, args.periodic)
    setting = Setting(sample.features, sample.contexts, args.bounds, args.periodic, args.dtype, args.seed)
    is_small = len(sample) < CROSS_VALIDATES_BELOW
    if args.effort == "high" and is_small:
        least = CROSS_VALIDATES_BELOW
        raise ValueError(f"effort: expected 'normal' with fewer than {least} rows, got 'high' with {len(sample)}")
    if args.keep and args.effort != "high":
        raise ValueError(f"keep: expected False with effort={args.effort!r}, which has one flow, got True")
    trials = [Trial(c, args.seed) for c in candidates(args.families, setting, is_small=is_small)]
    kind = _CrossValidation if is_small else _SuccessiveHalving
    trying = kind(sample, trials, setting, support, clock, bool(args.progress), args.effort, args.keep)
    choice = trying.go(names.features)
    flow: Any = choice.flow
    flow._interior.name(names)
    return choice


@dataclass
class _Search:
    """The common part of both methods of search, successive halving and cross-validation."""

    sample: Sample
    trials: list[Trial]
    setting: Setting
    support: Support | None
    clock: Clock
    progress: bool
    effort: str = "normal"
    keep: bool = False
    interrupted: bool = False
    members: Ensemble | None = None
    begin: float = field(default_factory=time.perf_counter)

    @contextmanager
    def shown(self) -> Iterator[Any]:
        """Show a bar of the elapsed seconds during a block; Ctrl-C ends only this block, and the search keeps its
        results.
        """
        total, begin = round(self.clock.left(), 1), time.perf_counter()
        with seconds_bar(total, "auto", self.progress) as shown:
            shown.begun_at = begin
            try:
                yield shown
                shown.n = total  # fits that ended early count as complete
            except KeyboardInterrupt:
                self.interrupted = True

    def tell(self, shown: Any, trial: Trial, best: float) -> None:
        """Show the current candidate, and the best log-likelihood of earlier candidates."""
        shown.n = min(time.perf_counter() - shown.begun_at, shown.total)
        shown.set_postfix_str(trial.candidate.name + (f", best so far {best:.3f}" if np.isfinite(best) else ""))

    def simple(self, sample: Sample, *, say: bool) -> dict[str, Flow]:
        """Fit the simple densities to a sample; return them by name."""
        s = self.setting
        if s.context:
            flow = simple.linear_gaussian(s.features, s.context, self.support, s.dtype)
            options: dict[str, Any] = {"epochs": 30, "seed": s.seed, "progress": False}
            with fixed_epochs(), silent(FREQUENT):
                whole(flow.fit(sample.x, sample.context, weights=sample.weights, **options))
            return {"linear Gaussian": flow}
        flows = {"Gaussian": simple.gaussian(sample, self.support, s.dtype, say=say)}
        if (kernels := simple.kernels(sample, self.support, s.dtype, s.seed)) is not None:
            flows["kernel density"] = kernels
        return flows

    def timed_simple(self, sample: Sample, *, say: bool) -> dict[str, tuple[Flow, float]]:
        """The densities from `simple` by name, each with its seconds: an equal share of the total."""
        begin = time.perf_counter()
        flows = self.simple(sample, say=say)
        took = (time.perf_counter() - begin) / len(flows)
        return {name: (flow, took) for name, flow in flows.items()}

    def trial_of(self, best: Judged) -> Trial | None:
        """The trial of the best density; None for a simple density, and after Ctrl-C."""
        return next((t for t in self.trials if t.candidate.name == best.name and not self.interrupted), None)

    def of_all_rows(self, trial: Trial, seconds: float) -> Trial:
        """Fit the candidate of a trial to all rows, in a new trial."""
        last = Trial(trial.candidate, self.setting.seed)
        try:
            last.go(self.sample, None, seconds)
        except KeyboardInterrupt:
            self.interrupted = True
        return last

    def look(self, flow: Any, rows: Sample, names: Any, training: Any = None) -> Diagnosis | None:
        """A diagnosis of the best density; None if Ctrl-C came before or during the diagnosis."""
        if self.interrupted:
            return None
        more: dict[str, Any] = {"seed": self.setting.seed, "progress": self.progress}
        result: Diagnosis
        try:
            result = diagnose(flow, rows.x, rows.context, weights=rows.weights, training=training, names=names, **more)
        except KeyboardInterrupt:
            self.interrupted = True
            return None
        return result

    def choice(self, judged: list[Judged], weights: Floats | None, judged_by: str, flow: Any, diagnosis: Any) -> Choice:
        """The result of the search; `flow`: the best density fitted to all rows, or None."""
        best = _best(judged)
        table, as_good = compared(judged, best, weights)
        chosen = best.flow if flow is None else flow
        assert chosen is not None
        seconds = time.perf_counter() - self.begin
        return Choice(chosen, best.name, table, as_good, diagnosis, judged_by, self.interrupted, seconds, self.members)


def _best(judged: list[Judged]) -> Judged:
    """The density with the highest mean log-likelihood on the choosing rows; in a tie the first density,
    because simple densities come first.
    """
    return max((entry for entry in judged if entry.log_prob is not None), key=lambda entry: entry.chosen_by)


class _SuccessiveHalving(_Search):
    """A search by successive halving."""

    def go(self, names: Sequence[str] | None) -> Choice:
        fitted, choosing, judging = parted(self.sample, self.setting.seed)
        basics = self.timed_simple(fitted, say=True)
        with self.shown() as shown, tempfile.TemporaryDirectory() as folder:
            whole = self.clock
            if self.effort == "high":
                self.clock = whole.share(SEARCHING)
            self._halve(fitted, choosing, folder, shown)
            self.clock = whole
            if self.effort == "high":
                self._try_hard(fitted, choosing, shown)
        judged = []
        for name, (basic, took) in basics.items():
            judged.append(Judged(name, basic, judging.log_prob(basic), took, "", chosen_by(basic, choosing)))
        for t in self.trials:
            log_prob = None if t.flow is None else judging.log_prob(t.flow)
            judged.append(Judged(t.candidate.name, t.flow, log_prob, t.seconds, _state(t), _reached(t)))
        best = _best(judged)
        flow = self._to_all(best)
        judged_by = f"{len(judging):,} rows that no fit and no choice has seen"
        judged_by += "" if flow is None else " before the best was fitted to all rows"
        some = judging.take(np.arange(min(len(judging), LOOKED_AT)))
        known = fitted.take(np.arange(min(len(fitted), MOST_KNOWN)))
        training = known.x if known.context is None else (known.x, known.context)
        diagnosis = self.look(best.flow, some, names, None if best.name == "kernel density" else training)
        return self.choice(judged, judging.weights, judged_by, flow, diagnosis)

    def _try_hard(self, fitted: Sample, choosing: Sample, shown: Any) -> None:
        """Fit the candidate with high effort for the remaining time."""
        trial = Trial(with_high_effort(self.setting, self.keep), self.setting.seed)
        self.tell(shown, trial, max((other.chosen_by for other in self.trials), default=-np.inf))
        self.trials.append(trial)
        if (seconds := self.clock.left()) > 0:
            trial.go(fitted, choosing, seconds)
            self.members = trial.members

    def _to_all(self, best: Judged) -> Flow | None:
        """Fit the best candidate to all rows; return None for a simple density, for a fit that did not end, or without
        time.
        """
        trial = self.trial_of(best)
        if trial is None or not trial.is_over or self.clock.left() < ALL_ROWS * trial.seconds:
            return None
        last = self.of_all_rows(trial, self.clock.left())
        return last.flow if last.is_over and not self.interrupted else None

    def _halve(self, fitted: Sample, choosing: Sample, folder: str, shown: Any) -> None:
        """Fit all candidates for a little time, and the better half for more, until one is left, which gets the
        remaining time.

        The default is fitted first, for up to four fifths of the time, so that even a short search has tried the
        default. If the default's fit ends early, time for a fit to all rows is reserved, unless it would be more than
        four fifths of the remaining time.
        """
        alive, needed = list(self.trials), 0.0
        for trial in (tried for tried in alive if tried.candidate.is_default and len(alive) > 1):
            if (seconds := self.clock.left() * OF_DEFAULT) > 0:
                self.tell(shown, trial, -np.inf)
                trial.go(fitted, choosing, seconds, folder)
            if trial.is_over and self.effort != "high":
                needed = ALL_ROWS * trial.seconds
        left, rounds = self.clock.left(), max(len(alive) - 1, 0).bit_length()
        rest = max(left / (rounds + 1), needed if needed <= OF_DEFAULT * left else 0.0)
        for i in range(rounds):
            end = time.perf_counter() + (self.clock.left() - rest) / (rounds - i)
            waiting = [tried for tried in alive if not tried.is_over]
            for j, trial in enumerate(waiting):
                seconds = (end - time.perf_counter()) / (len(waiting) - j)
                if seconds <= 0:
                    continue
                self.tell(shown, trial, max(tried.chosen_by for tried in self.trials))
                trial.go(fitted, choosing, seconds, folder)
            alive.sort(key=lambda tried: -tried.chosen_by)
            half = max(len(alive) // 2 + len(alive) % 2, 1)
            for trial in alive[half:]:
                trial.dropped = True
            alive = alive[:half]
        for last in alive:
            if not last.is_over and (seconds := self.clock.left()) > 0:
                self.tell(shown, last, max(tried.chosen_by for tried in self.trials))
                last.go(fitted, choosing, seconds, folder)


def _reached(trial: Trial) -> float:
    """The mean log-likelihood by which a trial is chosen; -inf for a dropped trial, which had less time and might win
    by noise.
    """
    return -np.inf if trial.dropped and not trial.is_over else trial.chosen_by


def _state(trial: Trial) -> str:
    if not trial.rounds:
        return "not begun"
    if trial.stopped == "time_budget":
        return f"dropped after round {trial.rounds}" if trial.dropped else "to the end of the time"
    return "it ended" if trial.stopped in ("patience", "epochs", "steps", "constant") else trial.stopped


class _CrossValidation(_Search):
    """A search by cross-validation, with a fit to all rows at the end."""

    def go(self, names: Sequence[str] | None) -> Choice:
        parts = folds(len(self.sample), min(FOLDS, len(self.sample)), self.setting.seed)
        rest = [np.setdiff1d(np.arange(len(self.sample)), out) for out in parts]
        judged, kept = self._simple_pooled(parts, rest)
        weights = self.sample.weights
        with self.shown() as shown:
            for i, trial in enumerate(self.trials):
                self.tell(shown, trial, max((entry.chosen_by for entry in judged), default=-np.inf))
                share = self.clock.left() / (len(self.trials) - i + 1)  # the 1 is the fit to all rows
                pooled = np.full(len(self.sample), np.nan)
                end_of_trial = time.perf_counter() + share
                for k, out in enumerate(parts):
                    seconds = max((end_of_trial - time.perf_counter()) / (len(parts) - k), 1e-3)
                    trial.go(self.sample.take(rest[k]), None, seconds)
                    assert trial.flow is not None
                    pooled[out] = self.sample.take(out).log_prob(trial.flow)
                    kept.setdefault(trial.candidate.name, trial.flow)
                trial.chosen_by = weighted_mean(np.where(np.isnan(pooled), -np.inf, pooled), weights)[0]
                judged.append(Judged(trial.candidate.name, trial.flow, pooled, trial.seconds, "", trial.chosen_by))
        done = {entry.name for entry in judged}
        for trial in self.trials:
            if trial.candidate.name not in done:
                state = "not begun" if trial.flow is None else "interrupted"
                judged.append(Judged(trial.candidate.name, None, None, trial.seconds, state, -np.inf))
        best = _best(judged)
        flow = self._to_all(best)
        diagnosis = self.look(kept[best.name], self.sample.take(parts[0]), names)
        judged_by = f"all {len(self.sample):,} rows, each by a fit to four fifths of the others, as rows are few"
        return self.choice(judged, weights, judged_by, flow, diagnosis)

    def _simple_pooled(self, parts: Any, rest: Any) -> tuple[list[Judged], dict[str, Flow]]:
        """Cross-validate the simple densities; return their results, and their fits to the rows outside the
        first fold.
        """
        whole = self.timed_simple(self.sample, say=True)
        pooled = {name: np.full(len(self.sample), np.nan) for name in whole}
        kept: dict[str, Flow] = {}
        for out, remaining in zip(parts, rest, strict=True):
            for name, flow in self.simple(self.sample.take(remaining), say=False).items():
                if name in pooled:
                    pooled[name][out] = self.sample.take(out).log_prob(flow)
                    kept.setdefault(name, flow)
        judged = []
        for name, (flow, took) in whole.items():
            if not np.isnan(pooled[name]).any():
                mean = weighted_mean(pooled[name], self.sample.weights)[0]
                judged.append(Judged(name, flow, pooled[name], took * (len(parts) + 1), "", mean))
        return judged, kept

    def _to_all(self, best: Judged) -> Flow | None:
        """Fit the best candidate to all rows; a simple density, which has been fitted to all rows, is returned as it
        is.
        """
        if (trial := self.trial_of(best)) is None:
            return best.flow
        last = self.of_all_rows(trial, max(self.clock.left(), trial.seconds / FOLDS))
        return best.flow if last.flow is None else last.flow
