"""`SequenceFlow.fit`: the loop of `Flow.fit` over crops of sequences."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._arrays import caller as _arrays
from headrace._base import arguments as check
from headrace._fit import clock as _clock
from headrace._fit import marginals as _marginals
from headrace._fit.clock import Clock
from headrace._fit.fit import TRYING, Fit
from headrace._fit.given_rows import is_share, settled, warn_of_offsets
from headrace._fit.history import History
from headrace._fit.optimizer import default_rate
from headrace._fit.plan import LEAST_HELD_OUT, Plan, of_settings
from headrace._fit.run import Run, RunArguments, is_untrained, warn_of_no_gain
from headrace._flow.bases import StandardNormal
from headrace._flow.tails import StudentT
from headrace._flow.transforms.fixed import Standardize
from headrace.sequences.arrays import Covariates, Sequences
from headrace.sequences.convolution import CausalConvolution
from headrace.sequences.crops import Batch, Crops, HeldSequences, OpenSequences, Stretch, spread
from headrace.sequences.prediction import AdaptivePrediction, LinearPrediction, levinson
from headrace.sequences.runs import context_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headrace._flow.bases import Base
    from headrace._flow.fit_arguments import Arguments
    from headrace._flow.program.evaluation import Pair
    from headrace.sequences.internals import SequenceInterior

# A crop has four times the steps of the receptive field before it, so that four fifths of the computed steps count;
# short series are divided into 64 crops, each of at least half a field. A batch has about 2^14 steps of sequences, as
# in recipes for audio.
FIELDS, LEAST_FIELDS, CROPS, LEAST_CROP = 4.0, 0.5, 64, 32
STEPS_OF_A_BATCH, LEAST_BATCH = 2**14, 4
_TRIAL, _SHORT = 64, 16  # steps of the optimiser in each trial of a base, and in each trial of a prediction
LEAST_TAILS = 1280  # the fewest steps of a fit that tries another base: two trials take at most a tenth of a fit
LEAST_ADAPTIVE = 50_000  # the fewest training steps for a trial of an adaptive prediction
FRONT, JUDGING = 0.25, 2**15  # the largest share of the time for a trial of a prediction, and the steps that judge it
_BOUNDING, _PIECE = 2**18, 2**13  # the most steps that set bounds of an adaptive prediction, and the steps of a piece
# If an epoch takes more multiply-adds than WORK, some ten seconds of a core, held-out steps judge the weights after
# each WORK, or after each 20th of a fit if that is earlier. If held-out steps are more than an EIGHTH of the steps
# trained on between two judgements, a sample of them judges. A judgement takes at most a 25th of the time, because a
# gradient costs as much as GRADIENT densities.
WORK, JUDGEMENTS, EIGHTH, GRADIENT = 4e11, 20, 8, 3


class SequenceFit(Fit):
    """A fit of a flow of sequences."""

    flow: Any  # a flow whose `_interior` is a `SequenceInterior`
    source: Any
    judge: Any

    def __init__(
        self, flow: Any, history: History, arguments: Arguments, crop: int | None, quantised: float | None
    ) -> None:
        """See `SequenceFlow.fit`."""
        if arguments.group is not None:
            raise ValueError("group: expected None, because one process fits sequences, got a group")
        if arguments.effort != "normal" or arguments.keep:
            raise ValueError(f"effort: expected 'normal', without keep, got {arguments.effort!r}, {arguments.keep}")
        if arguments.gaussianize not in ("auto", False):
            raise ValueError(f"gaussianize: expected False or 'auto' for sequences, got {arguments.gaussianize!r}")
        super().__init__(flow, history, arguments)
        self.crop = None if crop is None else check.integer("crop", crop, least=1)
        self.quantised = None if quantised is None else check.number("quantised", quantised, above=0.0, below=np.inf)

    def open(self, x: Any, context: Any, covariates: Any = None) -> None:
        """Check sequences, and hold out some of their steps."""
        given = self._sequences("", x, context, covariates, self.arguments.weights)
        validation, stretches, judges = self.arguments.validation, given.whole(), given
        out: list[Stretch] = []
        if is_share(validation):
            stretches, out = given.split(validation, self.rng)
        elif validation is not None:
            judges = self._of_caller(validation)
            out = judges.whole()
        self.given, self.is_end = given, any(part.begin for part in out)
        self.history.held_out = {part.sequence: part.steps for part in out if judges is given}
        self.parts = stretches, judges, out
        self._cut(self.flow._interior)

    def _cut(self, interior: SequenceInterior) -> None:
        """Cut training steps into crops, and prepare held-out steps, with the earlier steps that a flow needs."""
        stretches, judges, out = self.parts
        longest, every = max(self.given.lengths), interior.every
        before = interior.check_field(self.crop, longest)
        self.given.every = judges.every = every
        crop = min(self.crop or self._usual_crop(stretches, before), longest)
        self.source = Crops(self.given, stretches, crop, before)
        self.judge = HeldSequences(judges, out, before, self.seed) if out else None

    def _of_caller(self, validation: Any) -> OpenSequences:
        """The sequences that the caller gives as `validation`."""
        parts = validation if isinstance(validation, tuple) else (validation,)
        if not 1 <= len(parts) <= 4 or not (_arrays.is_array(parts[0]) or isinstance(parts[0], list)):
            kinds = ", ".join(check.kind_of(part) for part in parts)
            raise TypeError(f"validation: expected a share, x or (x, context, covariates, weights), got {kinds}")
        return self._sequences("validation ", *parts, *[None] * (4 - len(parts)))

    def _sequences(self, of: str, x: Any, context: Any, covariates: Any, weights: Any) -> OpenSequences:
        flow, caller = self.flow, self.caller
        sequences = Sequences(caller, f"{of}x", x, flow.features, integers=self.quantised is not None)
        if not sequences.rows:
            raise ValueError(f"{of}x: expected at least one sequence, got none")
        sequences.check()
        rows = context_of(caller, context, flow.context, sequences.batch)
        if rows is not None and not np.isfinite(rows).all():
            raise ValueError(f"{of}context: expected finite numbers, got a NaN or an infinity")
        frames = Covariates(flow, caller, covariates, sequences.batch)
        frames.check(sequences.lengths)
        share, _ = _arrays.row_weights(f"{of}weights", weights, sequences.rows, caller)
        support = flow._interior.support
        opened = OpenSequences(sequences.arrays, rows, frames, share, flow.hop, self.quantised, flow.dtype, support)
        if support is None:
            opened.limit(of)
        else:
            opened.check_inside(of, support)
        return opened

    def _usual_crop(self, stretches: list[Stretch], before: int | None) -> int:
        """The default number of steps of a crop."""
        if before is None:
            return int(max(part.end for part in stretches))
        total = sum(part.steps for part in stretches)
        return round(max(min(FIELDS * before, max(LEAST_FIELDS * before, total / CROPS)), LEAST_CROP))

    def planned(self) -> Plan:
        """See `Fit.planned`; batches consist of crops, and weight decay depends on the number of training steps."""
        source, checked = self.source, self.arguments.checked()
        usual = max(min(STEPS_OF_A_BATCH // source.crop, source.count // CROPS), LEAST_BATCH)
        size = usual if checked.batch_size is None else checked.batch_size
        batches = -(-source.count // size)
        return Plan.of(self.flow, source.size, self.arguments, judged=self.judge is not None, batches=batches)

    def fingerprint(self) -> dict[str, str]:
        """See `Fit`."""
        texts = {**of_settings(self.flow, self.checked, self.seed, self.arguments.plan), **self.given.fingerprint()}
        texts |= {"crop": str(self.source.crop), "quantised": str(self.quantised)}
        if self.judge is not None:
            texts["steps held out"] = str(self.judge.size)
            texts |= {f"validation {name}": value for name, value in self.judge.fingerprint().items()}
        return texts

    def go(self) -> None:
        """See `Fit`."""
        flow, history = self.flow, self.history
        self.checked = self.planned()
        if self.kept.path is not None:
            self.kept.open(self.fingerprint())
        if self.judge is not None:
            history.judged_by = "held-out steps" if self.is_end else "held-out sequences"
        self._start()
        every = self._judged_every()
        if self.judge is not None and every < self.checked.batches:
            most = every * self.source.size // (self.checked.batches * EIGHTH)
            self.judge = self.judge.sample(self.source.crop, most)
        run = CropRun(flow, self.source, self._arguments_of(self.checked, self.judge))
        run.every = every
        run.go(self.progress)
        if self.judge is not None and is_untrained(history):
            warn_of_no_gain(history)

    def foreseen(self, x: Any, context: Any = None, covariates: Any = None) -> tuple[Plan, float]:
        """The plan of a fit to sequences, and the seconds of a step of the optimiser on this machine."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the fit itself warns
            self.open(x, context, covariates)
        plan = self.planned()
        return plan, self._seconds_of_step(plan.batches)

    def _seconds_of_step(self, batches: int) -> float:
        """The seconds that a batch's gradient takes on this machine, measured by the second of two runs."""
        batch = self.source.batch(next(self.source.epoch(0, batches)), np.random.default_rng(0))
        batch = batch._replace(x=batch.x / max(float(np.abs(batch.x).max()), 1.0))
        begins = []
        for _ in range(2):  # the first step is slower
            begins.append(_clock.now())
            self.flow.nll_and_grad(*batch)
        return _clock.now() - begins[-1]

    def _judged_every(self) -> int:
        """The number of steps of the optimiser between two judgements: an epoch's steps, or fewer."""
        plan, source = self.checked, self.source
        whole = 1.0 + (0 if source.before is None else source.before) / source.crop
        each = GRADIENT * whole * self.flow.n_parameters * source.size / plan.batches
        if plan.batches * each <= WORK:
            return plan.batches
        return max(min(int(WORK / each), plan.epochs * plan.batches // JUDGEMENTS, plan.batches), 1)

    def _start(self) -> None:
        """Standardise features and context by the training steps unless an earlier fit did, and choose prediction and
        base.
        """
        interior, stretches = self.flow._interior, self.source.stretches
        starts: dict[int, Any] = {}
        context = None
        if interior.is_fresh:
            names = tuple(f"feature {i}" for i in range(self.flow.features))
            scale = settled("x", *self.given.moments(stretches), names, True)
            are_narrow = all(array.dtype == np.float32 for array in self.given.arrays)
            warn_of_offsets(names, interior.support, are_narrow, scale, self.flow.dtype, "draw")
            starts[interior.end] = Standardize(*scale)
            self._start_predictions(starts)
            self._start_adaptive(starts, interior.chain[: interior.end + 1])
        if self.given.context is not None and self.flow.standardize_context is None and len(self.given.context) > 1:
            context = settled("context", *self.given.moments_of_context(stretches), (), True)
        if starts or context is not None:
            if starts and self._tries_adaptive():
                self._try_adaptive(starts, context)
            interior.set_starts(starts, context)
        if starts and self._tries_tails():
            self._try_tails()

    def _may_try(self, steps: int) -> bool:
        """Whether enough steps are held out for a trial, in a fit of at least `steps` steps of the optimiser."""
        plan, judge = self.checked, self.judge
        is_judged = judge is not None and judge.size >= LEAST_HELD_OUT
        return is_judged and plan.gaussianize is None and plan.epochs * plan.batches >= steps

    def _tries_tails(self) -> bool:
        """Whether a trial may replace the base by one with heavy tails, which splines of an inner flow lack."""
        has_inner = any(t._settings.inner is not None for t in self.flow._chain if isinstance(t, CausalConvolution))
        is_bell = type(self.flow.base) is StandardNormal and self.source.before is not None
        return has_inner and is_bell and self._may_try(LEAST_TAILS)

    def _try_tails(self) -> None:
        """Replace the base by `StudentT` unless short fits with both bases show a clear loss on held-out steps."""
        flow, clock, is_heavy = self.flow, self.clock.share(TRYING), self.kept.known("heavy_tails")
        base = StudentT(flow.features)
        if is_heavy is None:
            heavy, other = (self._trial_run_of({}, None, clock, base=kind) for kind in (base, None))
            rule = True, self.progress, _TRIAL, "try heavy tails"
            is_heavy = _marginals.gain(heavy, other, self.judge, *rule)
        if is_heavy:
            flow._interior.set_starts({}, None, base)
        self.history.heavy_tails = is_heavy

    def _tries_adaptive(self) -> bool:
        """Whether a trial may replace a linear prediction by an adaptive one."""
        flow = self.flow
        network, *following = flow._chain
        is_one = flow.features == 1 and [type(t) for t in following] == [LinearPrediction, Standardize]
        is_plain = is_one and flow.transforms[1].is_identity and not network.covariates
        is_plain = is_plain and network._settings.map == "logistic_mixture"  # any other map is a user's choice
        is_free = flow._chooses_prediction and self.crop is None and self.source.size >= LEAST_ADAPTIVE
        return bool(is_plain and is_free and self._may_try(_marginals.TRIED))

    def _try_adaptive(self, starts: dict[int, Any], context: Pair | None) -> None:
        """Put an adaptive prediction into `starts` if it gains on held-out steps in short fits with and without it."""
        network, gains = self.flow._chain[0], self.kept.known("adaptive")
        chain = [network._with_sizes(self.seed), AdaptivePrediction(1), starts[2]]
        other = dict(enumerate(chain))
        self._start_adaptive(other, chain)
        tried = copy.copy(self.flow)
        tried._interior.set_starts(other, context)
        self._cut(tried._interior)  # the same steps must judge both predictions
        whole, self.checked = self.checked, self.planned()
        least = self._seconds_of_step(self.checked.batches) * 2 * _SHORT / FRONT if self.clock.is_limited else 0.0
        if gains is None and self.clock.left() >= least:
            self.judge = self.judge.sample(self.source.crop, JUDGING)
            adaptive, linear = (self._trial_run_of(kind, context, Clock(), _SHORT) for kind in (other, starts))
            rule = False, self.progress, _SHORT, "try adaptive prediction"
            gains = not _marginals.gain(linear, adaptive, self.judge, *rule)
        self.history.adaptive = gains = bool(gains)
        self._cut((tried if gains else self.flow)._interior)
        if gains:
            starts.update(other)
        else:
            self.checked = whole

    def _trial_run_of(
        self, starts: dict[int, Any], context: Pair | None, clock: Clock, steps: int = _TRIAL, base: Base | None = None
    ) -> CropRun:
        """A short run of a copy of the flow, with other starts or another base, on crops spread over all training
        steps.
        """
        tried, share, source = copy.copy(self.flow), min(steps / self.checked.batches, 1.0), self.source
        tried._interior.set_starts(starts, context, base)
        some = spread(source.stretches, source.crop, round(1.0 / share))
        crops = Crops(self.given, some, source.crop, source.before)
        plan = replace(self.checked, batches=min(math.ceil(share * self.checked.batches), crops.count))
        if plan.optimizer != "adam":  # the optimiser must not decide the trial
            plan = replace(plan, optimizer="adam", learning_rate=default_rate(tried))
        state = copy.deepcopy(self.rng), self.caller, History(), clock
        return CropRun(tried, crops, RunArguments(self.judge, plan, *state))

    def _start_predictions(self, starts: dict[int, Any]) -> None:
        """Set a linear prediction before the `Standardize` to Levinson's solution for the training steps."""
        chain, last = self.flow._interior.chain, self.flow._interior.end
        if last and isinstance(chain[last - 1], LinearPrediction) and self.flow.transforms[last - 1].is_identity:
            order, scale = chain[last - 1].order, starts[last]
            correlations = self.given.autocorrelation(self.source.stretches, order, scale.mean, scale.std)
            reflections = np.array([levinson(column) for column in correlations.T])
            starts[last - 1] = LinearPrediction.of_reflections(reflections, self.flow.dtype)

    def _start_adaptive(self, starts: dict[int, Any], chain: Sequence[Any]) -> None:
        """Set the bounds of an adaptive prediction before the `Standardize` by some of the training steps."""
        last = len(chain) - 1
        link, standardize = chain[last - 1] if last else None, starts[last]
        if isinstance(link, AdaptivePrediction) and link.is_identity:
            pieces = spread(self.source.stretches, _PIECE, -(-self.source.size // _BOUNDING))
            before = [piece.begin - self.given.start_of(piece, link.field) for piece in pieces]
            pairs = zip(pieces, before, strict=True)
            values = [self.given.steps(piece.begin - n, piece.end, piece.sequence, None) for piece, n in pairs]
            values = [(self.given.unbounded(steps) - standardize.mean) / standardize.std for steps in values]
            step = None
            if self.quantised is not None and self.given.support is None:
                step = self.quantised / float(standardize.std.max())
            starts[last - 1] = link.bounded(values, before, step)


class CropRun(Run):
    """A running fit over crops."""

    source: Crops
    shows_steps = True
    every = 0
    """The number of steps between two judgements; 0 for a single judgement at the end of each epoch."""

    def _prepare(self) -> None:
        self.library = np

    def batches(self) -> Iterator[Batch]:
        """See `Run`."""
        self.weight, key = 0.0, int(self.rng.integers(1 << 63))
        for i, crops in enumerate(self.source.epoch(key, self.plan.batches)):
            batch = self.source.batch(crops, np.random.default_rng([key, 1, i]))
            self.share = float(batch.weights.sum(dtype=np.float64))
            self.weight += self.share
            yield batch

    def _loss_of(self, batch: Batch) -> float:
        """See `Run`."""
        flow: Any = self.flow
        loss, self.gradient = flow.nll_and_grad(*batch)
        return float(loss * self.share)

    def _stepped(self, loss: float) -> None:
        """See `Run`."""
        if self.bar is not None:
            self.bar.trained(loss / self.share)

    def _before(self, batch: int) -> None:
        """See `Run`: judge the weights before a batch if a judgement is due. A resumed fit repeats the judgement."""
        after = self.clock.left() >= 2.0 * (self.judge_seconds or 0.0)
        if self.bar is None or not self.every or not batch or batch % self.every or not after:
            return
        self.tick = 0.0  # a step's duration excludes the judgement
        loss = self._keep_if_best(self.history.epochs + 1)
        if math.isfinite(loss):
            self.bar.show({"held out": f"{loss:.3f}"})
