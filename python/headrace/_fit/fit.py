"""A fit of rows from any source, from the arguments of `Flow.fit` to the history."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._arrays.columns import label
from headrace._arrays.names import Names, refuse_others
from headrace._base import arguments as check
from headrace._base.types import Floats
from headrace._base.warn import warn
from headrace._fit import few_rows as _few_rows
from headrace._fit import given_rows as _rows
from headrace._fit import marginals as _marginals
from headrace._fit import residuals as _residuals
from headrace._fit.checkpoint import Checkpoint
from headrace._fit.clock import Clock
from headrace._fit.few_rows import (
    Beginning,
    Chosen,
    arguments_of_student,
    best_beginnings,
    best_teacher,
    chosen_epochs,
    clearly_better,
    samples_of,
)
from headrace._fit.history import History, is_interrupted, kept_fields
from headrace._fit.plan import LEAST, LEAST_HELD_OUT, MANY, Plan, of_settings
from headrace._fit.residuals import Residuals
from headrace._fit.run import ArrayRun, DeviceRun, HeldOut, Run, RunArguments, is_untrained, warn_of_no_gain
from headrace._fit.source import ArrayRows, RowSource
from headrace._fit.start import Start, gaussian_links, not_worse_than_a_gaussian, shared_curves
from headrace._fit.starts.mixture import COMPONENTS
from headrace._fit.trials import FEW, HALF, STEPS, Choice, Links, candidates, decided, overfits, searched, shared
from headrace._flow.bases import StandardNormal
from headrace._flow.fit_arguments import Arguments
from headrace._flow.flow import Flow
from headrace._flow.transforms.gaussianize import Gaussianize

if TYPE_CHECKING:
    from headrace.rows._stream import Stream

TRYING = 0.1  # largest share of a time budget for a trial of marginals
CHOOSING = 0.75  # largest share of a time budget for cross-validation: five fits to four fifths of the rows
LISTS = ("train_loss", "validation_loss", "learning_rate", "seconds", "cpu_seconds")  # attributes of a history
TRYING_ALL = 0.5  # largest share of a time budget for trials that the fit continues


class Fit:
    """A fit in one process; `headrace.distributed.run` has the class of fits in a group of processes."""

    source: RowSource
    judge: RowSource | None
    stream: Stream | None = None
    named: Names = Names()
    """The column names of the frames that the caller passed as rows and context."""
    what = "fit"
    """The name of the fit's progress bar."""
    decays = 1.0
    """A factor for the weight decays that the fit chooses or tries."""
    mixes = True
    """Whether a mixture may replace the base, where rows are few."""
    is_taught = False
    """Whether the flow learns a mixture of few rows even without a gain in cross-validation."""
    judged: Chosen | None = None
    """The result of cross-validation in a fit of few rows; `judged.best` has the losses of the final density."""

    def __init__(self, flow: Flow, history: History, arguments: Arguments) -> None:
        """Prepare a fit; `go` fills in `history`."""
        self.flow, self.history, self.arguments, self.kept = flow, history, arguments, self._kept(arguments)
        self.progress = bool(arguments.progress)
        self.clock, self.seed = Clock(arguments.time_budget), check.integer("seed", arguments.seed)
        self.rng, self.caller = np.random.default_rng(self.seed), flow._interior.caller()

    # ---- overridden for a group

    def _kept(self, arguments: Arguments) -> Checkpoint:
        return Checkpoint(arguments.checkpoint, arguments.checkpoint_every)

    def open(self, x: Any, context: Any) -> None:
        """Check the rows, and hold some of them out; a stream that is larger than its buffer is read once."""
        from headrace.rows._as_stream import arrays_of, stream_of

        validation, weights = arrays_of(self.arguments.validation), self.arguments.weights
        source = self._opened(stream_of(x, context, weights), x, context, weights)
        with self.caller.queue():
            self.source, self.judge = source.split(validation, self.rng, self.caller)

    def _opened(self, stream: Stream | None, x: Any, context: Any, weights: Any) -> ArrayRows:
        flow, known = self.flow, self.flow._interior.names
        self.stream, self.named = stream, Names.of_frames(x, context, flow.features, flow.context)
        if stream is not None and stream.called is not None and known.features is not None:
            refuse_others("x", stream.called, known.features)
        support, checksums = flow._interior.support, self.kept.path is not None
        if stream is not None:
            if flow._interior.on_device:
                raise TypeError("x: expected an array on the flow's device, got a stream; call .to('cpu') of the flow")
            whole = stream.whole()
            if whole is None:
                from headrace._fit.streams import StreamRows

                Plan.of(flow, stream.buffer, self.arguments, judged=True)  # check arguments before rows are read
                return StreamRows(stream, flow.features, flow.context, support, checksums, self.progress)
            x, context, weights = whole.x, whole.context, whole.weights
        called = known.features or self.named.features
        labels = () if called is None else tuple(label(i, called) for i in range(flow.features))
        data = _rows.open_rows("", flow.features, flow.context, self.caller, x, context, weights, support, labels)
        if stream is not None and len(stream.names) == flow.features:
            data.names = stream.names
        return ArrayRows(data)

    def names(self) -> Names:
        """The names of the flow's columns after the fit: its present names, else those of frames or of the stream."""
        called = None if self.stream is None else self.stream.called
        fits = called is not None and len(called) == self.flow.features
        return self.flow._interior.names.or_those_of(self.named).or_those_of(Names(called if fits else None))

    def planned(self) -> Plan:
        """The checked plan of the fit."""
        plan = Plan.of(self.flow, self.source.size, self.arguments, judged=self.judge is not None)
        return replace(plan, constant_decay=self.decays * plan.constant_decay)

    def fingerprint(self) -> dict[str, str]:
        """The inputs, by name, that must equal those of the interrupted fit when a fit resumes; rows as checksums."""
        texts = {**of_settings(self.flow, self.checked, self.seed, self.arguments.plan), **self.source.fingerprint()}
        if self.judge is not None:
            texts["rows held out"] = str(self.judge.size)
            if not self._holds_out():
                texts |= {f"validation {name}": value for name, value in self.judge.fingerprint().items()}
        return texts

    def _holds_out(self) -> bool:
        """Whether the held-out rows come from the table of the training rows."""
        source, judge = self.source, self.judge
        return isinstance(source, ArrayRows) and isinstance(judge, ArrayRows) and judge.data is source.data

    def cross_validates(self, held: int) -> bool:
        """Whether cross-validation can replace `held` held-out rows, which are too few; warns if not."""
        if self.flow._interior.is_fresh and self._holds_out():
            return True
        warn(f"fit: {held} held-out rows are too few to judge by; give more by `validation`, or a number of `epochs`")
        return False

    def run_of(self, flow: Flow, source: RowSource, arguments: RunArguments) -> Run:
        """A run, which takes the optimiser's steps, of the class for the source of rows and for the device."""
        if source.is_stream:
            from headrace._fit.streams import StreamRun

            return StreamRun(flow, source, arguments)
        return (DeviceRun if flow._interior.on_device else ArrayRun)(flow, source, arguments)

    def _arguments_of(self, plan: Plan, held_out: HeldOut | None = None, judged_after: int = 0) -> RunArguments:
        """The arguments of the last run of the fit, which trains on all training rows."""
        state = self.rng, self.caller, self.history, self.clock
        return RunArguments(held_out, plan, *state, judged_after, self.kept, self.what)

    # ---- the fit

    def go(self) -> None:
        """Run the whole fit of the opened rows, and write its course to `history`."""
        fresh = self.flow._interior.is_fresh
        self._go()
        if fresh and self.source.is_first and not is_interrupted(self.history):
            _rows.warn_of_lost(self.flow, self.source)

    def _go(self) -> None:
        flow, history, source, judge = self.flow, self.history, self.source, self.judge
        self.checked = checked = self.planned()
        if self.kept.path is not None:
            self.kept.open(self.fingerprint())
        fresh, held = flow._interior.is_fresh, 0 if judge is None else judge.size
        by_default = self.arguments.epochs is None and judge is not None
        is_few = by_default and held < LEAST_HELD_OUT and self.cross_validates(held)
        steps = _marginals.TRIED if checked.tries else checked.epochs * checked.batches
        curves = _marginals.looked_for(checked.gaussianize, flow._interior, None if is_few else held, steps)
        if is_few:
            self._few(checked.gaussianize)
            return
        held_out = None
        if judge is not None:
            held_out, history.judged_by = HeldOut(judge, flow._interior.on_device), "held-out rows"
        start, weights = Start.of(flow, source), None
        if checked.tries and judge is not None:
            start, marginals, checked, weights = self._chosen(start, judge, curves=curves)
        else:
            start = self._replaced(start, judge, curves=curves)
            marginals = self._marginals(start, judge) if curves and judge is not None else ()
        history.gaussianized = bool(marginals)
        if curves and judge is not None and not marginals and not checked.tries and start.x is not None:
            standing = source.standing()
            tails = _marginals.tails_alone(standing, *start.x, start.linear) if source.is_first else ()
            marginals = shared_curves(source, tails, flow.features, None)
        start.set(flow, source, marginals)
        gaussian, links = None, (*(marginals if checked.gaussianize else ()), *start.linear)
        if held_out is not None and fresh and source.size <= MANY:
            gaussian = flow._interior.vector(), gaussian_links(flow, source, links)
        flow.parameters = flow.parameters if weights is None else weights
        after = 0 if gaussian is None else 2
        run = self.run_of(flow, source, self._arguments_of(checked, held_out, after))
        run.go(self.progress and source.is_first)
        judged = held_out is not None and history.stopped != "interrupted" and run.has_time_to_judge()
        lost = fresh and held_out is not None and is_untrained(history)
        is_trained = by_default or lost or history.best_epoch > 0
        if gaussian is not None and held_out is not None and judged and is_trained:
            count, has_curves = 1 + len(marginals) + len(start.linear), bool(checked.gaussianize)
            with flow._interior.restored():  # to the trained weights
                not_worse_than_a_gaussian(
                    flow, held_out, history, *gaussian, count, by_default=by_default, has_curves=has_curves
                )
        if lost and source.is_first and not (by_default and judged and gaussian is not None):
            warn_of_no_gain(history)
        is_bell = isinstance(flow._interior.base, StandardNormal)
        if curves and checked.overfits and is_bell and held_out is not None and history.best_epoch:
            tails = _marginals.tails_of_latents(flow.features, marginals)
            flow._interior.precede(shared_curves(source, tails, flow.features, None))
            history.best_loss = held_out.loss(flow)

    def _tried(self, start: Start, standing: ArrayRows, judge: RowSource, *, curves: bool) -> tuple[Choice, Run | None]:
        """Choose settings by trials; return the best choice and its run, None if the choice is from a checkpoint."""
        flow, source, plan, kept = self.flow, self.source, self.checked, self.kept
        clock, both = self.clock.share(TRYING_ALL), (Residuals(), Residuals())
        if start.x is not None and _residuals.looked_for(flow._interior):
            both = candidates(standing, start.x, flow)

        def choice(residuals: Residuals) -> Choice:
            if not curves or start.x is None or kept.known("gaussianized") is False:
                return Choice(residuals)
            time = Clock() if plan.gaussianize or kept.known("gaussianized") else clock
            return Choice(residuals, _marginals.gaussianizing(standing, *start.x, time, self.progress, residuals.links))

        if kept.residuals is not None:
            return choice(both[set(both[1].shares) == set(kept.residuals)]), None
        steps = STEPS if plan.bends else 2 * STEPS
        some, rest = source.trial(standing, judge, steps * -(-source.size // plan.batches), self.seed)
        held_out, batches = HeldOut(rest), -(-some.size * plan.batches // source.size)
        short = replace(plan, batches=batches, epochs=max(1, steps // batches))

        def made(setting: Choice) -> Run:
            planned = replace(short, learning_rate=setting.rate, weight_decay=setting.decay)
            begin = replace(start, linear=setting.residuals.links)
            return self._trial_run(begin, setting.links, some, held_out, clock, planned)

        more = choice(both[1]) if set(both[0].shares) != set(both[1].shares) else None
        return searched(made, held_out, choice(both[0]), more, plan, self.progress)

    def _chosen(self, start: Start, judge: RowSource, *, curves: bool) -> tuple[Start, Links, Plan, Any]:
        """The start, curves and plan that trials choose, and the best trial's weights; None for initial weights.

        The lists of the best trial's history become the beginning of the fit's history.
        """
        flow, source, plan, history = self.flow, self.source, self.checked, self.history
        standing, choice, run = source.standing(), Choice(), None
        if source.is_first:
            # other ranks get the first rank's choice, because NumPy's rounding depends on its version and processor
            choice, run = self._tried(start, standing, judge, curves=curves)
        if source.is_first:
            _residuals.warn_of_columns(source, choice.residuals)
        residuals = shared(source, choice.residuals, flow.features)
        links = shared_curves(source, choice.links, flow.features, plan.gaussianize)
        history.residuals, start = dict(residuals.shares), replace(start, linear=residuals.links)
        if going_on := self.kept.chosen:
            return start, links, replace(plan, **going_on), None
        trial = History() if run is None else run.history
        share = choice.share if not overfits(run) else FEW if plan.bends else HALF * choice.share
        begun = min(trial.best_epoch, trial.epochs)  # because a budget may end an epoch early
        rate, decay, share, begun = source.broadcast(np.array([choice.rate, choice.decay, share, begun])).tolist()
        plan = replace(plan, learning_rate=rate, weight_decay=decay).after(int(begun), share)
        if not plan.begun:
            return start, links, plan, None
        lists = np.array([np.resize(getattr(trial, name), plan.begun) for name in LISTS], np.float64)
        for name, values in zip(LISTS, source.broadcast(lists).tolist(), strict=True):
            setattr(history, name, values)
        return start, links, plan, source.broadcast(flow._interior.vector() if run is None else run.best)

    def _trial_run(
        self, start: Start, links: Links, rows: ArrayRows, held_out: HeldOut, clock: Clock, plan: Plan | None = None
    ) -> Run:
        flow = copy.copy(self.flow)
        plan = Plan.of(self.flow, rows.size, self.arguments, judged=True) if plan is None else plan
        start.set(flow, rows, links)
        trial = RunArguments(held_out, plan, copy.deepcopy(self.rng), self.caller, History(), clock)
        return Fit.run_of(self, flow, rows, trial)

    def _trials(
        self, standing: ArrayRows, judge: RowSource, clock: Clock, kinds: Iterable[tuple[Start, Links]]
    ) -> tuple[list[Run], HeldOut]:
        """Runs for a trial over a few rows, one for each pair of start and curves, and the rows that judge them."""
        most = _marginals.STEPS * -(-self.source.size // self.checked.batches)
        some, rest = self.source.trial(standing, judge, most, self.seed)
        held_out = HeldOut(rest, self.flow._interior.on_device)
        return [self._trial_run(*kind, some, held_out, clock) for kind in kinds], held_out

    def _replaced(self, start: Start, judge: RowSource | None, *, curves: bool = False) -> Start:
        """The start with residuals in place of columns that others nearly determine, and in place of further columns if
        a trial with these residuals has a lower held-out loss.
        """
        flow, source, plan, before = self.flow, self.source, self.checked, self.kept.residuals
        if (scale := start.x) is None or not _residuals.looked_for(flow._interior):
            return start
        clock, standing, residuals = self.clock.share(TRYING), source.standing(), Residuals()

        def kind(replaced: Residuals) -> tuple[Start, Links]:
            links = _marginals.gaussianizing(standing, *scale, clock, self.progress, replaced.links) if curves else ()
            return replace(start, linear=replaced.links), links

        if source.is_first:  # other ranks get the first rank's links: NumPy's rounding depends on processors
            residuals, more = candidates(standing, scale, flow)
            if before is not None:
                residuals = more if set(more.shares) == set(before) else residuals
            elif (
                set(more.shares) != set(residuals.shares)
                and judge is not None
                and judge.size >= LEAST_HELD_OUT
                and plan.epochs * plan.batches >= _marginals.TRIED
            ):
                trials = self._trials(standing, judge, clock, map(kind, (residuals, more)))
                residuals = decided(residuals, more, *trials, self.progress)
        residuals = shared(source, residuals, flow.features)
        if source.is_first:
            _residuals.warn_of_columns(source, residuals)
        self.history.residuals = dict(residuals.shares)
        return replace(start, linear=residuals.links)

    def _marginals(self, start: Start, judge: RowSource) -> Links:
        """Links that make columns nearly normal; () if these do not lower the held-out loss of a short fit."""
        assert start.x is not None  # because the flow is fresh
        source, clock, required = self.source, self.clock.share(TRYING), self.checked.gaussianize
        if (before := self.kept.known("gaussianized")) is False:
            return ()
        standing, links = source.standing(), tuple[Gaussianize, ...]()
        if source.is_first:  # the first rank decides for all ranks
            time = Clock() if required or before else clock
            links = _marginals.gaussianizing(standing, *start.x, time, self.progress, start.linear)
            if links and not (required or before):
                runs, held_out = self._trials(standing, judge, clock, [(start, links), (start, ())])
                has_tails = _marginals.has_long_tails(links)
                links = links if _marginals.gain(runs[0], runs[1], held_out, has_tails, self.progress) else ()
        return shared_curves(source, links, self.flow.features, required)

    def _few(self, asked: bool | None) -> None:
        """Choose the initial density and the number of epochs by cross-validation, then train on all rows."""
        self.history.judged_by = "cross-validation"
        assert isinstance(self.source, ArrayRows)
        source, choosing = self.source.of(self.source.part.whole()), self.clock.share(CHOOSING)
        arguments = self.arguments
        if arguments.weight_decay == "auto":  # because only held-out rows can choose a decay
            arguments = replace(arguments, weight_decay=None)

        def begin(flow: Flow, rows: ArrayRows, kind: Beginning) -> None:
            Start.of(flow, rows, say=False).begin(flow, rows, kind, self.seed)

        def made(kind: Beginning, clock: Clock, flow: Flow, rows: ArrayRows) -> Run:
            begin(flow, rows, kind)
            plan = Plan.of(flow, rows.size, arguments, judged=False)
            return self.run_of(flow, rows, RunArguments(None, plan, self.rng, self.caller, History(), clock))

        start, history, kind, chosen = Start.of(self.flow, source), self.history, Beginning(), None
        ran_out = False
        assert start.x is not None  # because the flow is fresh
        is_bell = self.flow._interior.is_over_a_bell
        curves = (True,) if asked else (False,) if asked is False or not is_bell else (False, True)
        if source.size >= LEAST:
            data = self.flow, source, begin, start.x, self.seed, choosing
            kinds = best_beginnings(*data, curves=curves, mixes=self.mixes)
            most = 0 if self.is_taught else Plan.of(self.flow, source.size, arguments, judged=False).epochs
            tried = []
            for i, (origin, untrained) in enumerate(kinds):
                clock = choosing.share(1.0 / (len(kinds) - i))
                if not clock.has(0.0):
                    ran_out = True
                    tried.append(untrained)
                    continue
                tried.append(chosen_epochs(self.flow, source, partial(made, origin, clock), most, clock, self.progress))
                ran_out |= clock.ran_out
            kind, chosen = _best_of(kinds, tried)
            self.judged = chosen
            if self._learns_a_mixture(start, source, chosen, kinds[0][0].limit, curves):
                return
        begun = start.begin(self.flow, source, kind, self.seed)
        if asked and not begun.has_curves:
            raise ValueError(_marginals.NO_GAIN)
        _residuals.warn_of_columns(source, begun.residuals)
        history.residuals, history.gaussianized = dict(begun.residuals.shares), begun.has_curves
        history.mixture = kind.components
        if ran_out:
            history.stopped = "time_budget"
        if chosen is None or not chosen.epochs:
            history.best_loss = math.inf if chosen is None else chosen.mean(chosen.start)
            history.gaussian = not kind.components
            return
        checked = Plan.of(self.flow, source.size, replace(arguments, epochs=chosen.epochs), judged=False)
        run = self.run_of(self.flow, source, self._arguments_of(checked))
        run.go(self.progress)
        history.validation_loss = chosen.history
        if history.best_epoch == chosen.epochs:
            history.best_loss = chosen.history[-1]

    def _learns_a_mixture(
        self, start: Start, source: ArrayRows, chosen: Chosen, limit: float, curves: Sequence[bool]
    ) -> bool:
        """Fit the flow, as a student, to samples of a full-covariance mixture; return whether the student is better.

        The student is better if the mixture's losses of rows left out, plus the student's excess loss on samples of the
        mixture, are below the losses of `chosen` by more than the standard error of the difference.
        """
        clock, history, seed = self.clock.share(CHOOSING), self.history, self.seed
        if not (self.mixes and _few_rows.can_mix(self.flow, source)) or start.x is None:
            return False
        data = source, start.x
        best = best_teacher(*data, limit, curves, self.flow.dtype, seed, clock)

        def is_better(losses: Floats) -> bool:
            return self.is_taught or clearly_better(losses, chosen.best, chosen.weights)

        if best is None or not is_better(best[1]) or not clock.has(0.0):
            return False
        teacher, losses = best
        samples = samples_of(teacher, *data, self.flow.dtype, seed)
        flow, learning = copy.copy(self.flow), History()
        kind = Beginning(limit, teacher.curves, min(teacher.components, max(COMPONENTS)))
        begun = start.begin(flow, source, kind, seed)
        if self.checked.gaussianize and not begun.has_curves:
            return False
        plan = Plan.of(flow, samples.train.size, arguments_of_student(self.arguments, samples.train.size), judged=True)
        held_out = HeldOut(samples.judge, flow._interior.on_device)
        rng = copy.deepcopy(self.rng)
        run = RunArguments(held_out, plan, rng, self.caller, learning, clock, what="fit to samples")
        self.run_of(flow, samples.train, run).go(self.progress)
        lost, interrupted = learning.best_loss - samples.loss, is_interrupted(learning)
        if interrupted and not learning.best_epoch:
            raise KeyboardInterrupt
        if not interrupted and not (math.isfinite(lost) and is_better(losses + lost)):
            return False
        self.flow._interior.become(flow)
        _residuals.warn_of_columns(source, begun.residuals)
        for name in kept_fields():
            setattr(history, name, getattr(learning, name))
        history.judged_by, history.best_loss = "cross-validation", chosen.mean(losses) + lost
        self.judged = replace(chosen, best=losses + lost)
        history.residuals, history.gaussianized = dict(begun.residuals.shares), begun.has_curves
        history.mixture, history.from_samples = teacher.components, True
        return True


def _best_of(kinds: list[tuple[Beginning, Chosen]], tried: list[Chosen]) -> tuple[Beginning, Chosen]:
    """The initial density and the number of epochs with the lowest mean loss of rows left out.

    Where no trained flow is clearly better than the first initial density, this density and 0 epochs are returned.
    """
    best = min(range(len(kinds)), key=lambda i: tried[i].mean(tried[i].best))
    if clearly_better(tried[best].best, kinds[0][1].start, tried[best].weights):
        return kinds[best][0], tried[best]
    return kinds[0][0], replace(tried[0], epochs=0, history=[], best=tried[0].start)


def finished(flow: Flow, history: History, opened: Callable[[], Fit]) -> History:
    """Run the fit with opened rows that `opened` returns; the flow stays unchanged if no weights are better.

    Raises:
        KeyboardInterrupt: Ctrl-C before the fit has better weights than before.
    """
    with flow._interior.restored(unless=lambda: history.best_epoch > 0):
        try:
            fit = opened()
            with fit.caller.queue():
                fit.go()
            flow._interior.name(fit.names())
            if history.stopped not in ("interrupted", "time_budget"):
                fit.kept.remove()
        except KeyboardInterrupt:
            history.stopped = "interrupted"
        if history.stopped == "interrupted" and history.best_epoch == 0:
            raise KeyboardInterrupt  # because the fit has no better weights to return
    return history
