"""Distillation of sequences: a student that computes all steps at once learns the density of a teacher.

docs/sequences.md has the objectives and their limits.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace._base import arguments as check
from headrace._base.keywords import taken_from, takes
from headrace._base.public import public
from headrace._base.types import Array, Floats, Unpack
from headrace._fit import optimizer as _optimizer
from headrace._flow.transforms.fixed import Standardize
from headrace.sequences.flow import SequenceFlow
from headrace.variational.arguments import DistilledOverTime, OfSteps
from headrace.variational.descent import Descent, DescentPlan, Rng, StepHistory, StepOutcome, mean_and_error, seed_of
from headrace.variational.divergence_over_time import Batch, Divergence, Inputs, log_prob_of_steps, why_from_samples
from headrace.variational.spectra import WINDOW, Magnitudes, Spectrum, range_of_levels, strength_of_pitch

STEPS, SAMPLES = 2000, 16
RATE = 0.8  # a factor of the default rate of `SequenceFlow.fit`
FIRST = 0.25  # the share of the steps that use spectra alone
JUDGE_BY, REPORT_BY = 4, 16  # the batches of an evaluation and of the report
LEVEL_FRAME, PITCH_FRAME = 160, 320  # in steps: 20 ms and 40 ms at 8 kHz
FRAMES = 2048  # the most frames of signals in a report


@dataclass(frozen=True)
class Sides:
    """One measurement for the student's samples, for the teacher's samples and for the signals."""

    student: float
    teacher: float
    signals: float

    def __repr__(self) -> str:
        """The three values."""
        return f"{self.student:.3g} (teacher {self.teacher:.3g}, signals {self.signals:.3g})"


@public("headrace.variational")
@dataclass(frozen=True)
class SequenceDistillation:
    """The result of `distill_sequences`. **A small KL alone does not make a good student**; see the other fields."""

    kl: float
    """KL(student ‖ teacher) in nats a step, from fresh samples of the student; NaN after an interruption."""
    kl_error: float
    """The standard error of `kl`, from the differences between sequences."""
    estimator: str
    """The estimator of the gradient, "closed_form" or "pathwise"."""
    spectrum: float
    """Σ \\|A - B\\| / Σ B of magnitudes of short-time Fourier transforms, A of the student and B of `signals`; NaN
    without signals."""
    level: float
    """The power of the student's samples over that of `signals`, in decibels: far below 0 it whispers; NaN without
    signals."""
    excess: float
    """The teacher's log density of the student's samples less that of `signals`, in nats a step: above 0, samples are
    more probable than the real signals; NaN without signals."""
    level_range: Sides | None
    """The range from the 10 % to the 90 % quantile of the power of frames of 160 steps, in decibels, for samples of the
    student and of the teacher without their first steps, in which a sample may fade in, and for all `signals`: noise at
    a constant level has a range near 0, whatever its spectrum. None without signals, and for samples of fewer than 640
    steps."""
    pitch: Sides | None
    """The mean over the louder half of frames of 320 steps of the highest autocorrelation at lags of 40 to 160, for the
    student, the teacher and `signals`: noise has a low value."""
    history: StepHistory
    seconds: float
    """The seconds of all steps and of the report."""

    def __repr__(self) -> str:
        """The KL, the other measurements, and the history."""
        heard = ""
        if self.spectrum == self.spectrum:
            heard = f"spectrum={self.spectrum:.3f}, level={self.level:.1f} dB, excess={self.excess:.3f}, "
        if self.level_range is not None:
            heard += f"level_range={self.level_range!r} dB, pitch={self.pitch!r}, "
        return (
            f"SequenceDistillation(kl={self.kl:.4f} ± {self.kl_error:.4f} nats a step, "
            f"estimator={self.estimator!r}, {heard}{self.history!r})"
        )


@dataclass
class SequenceStep:
    """The gradient of one step: of the spectra's distance in the first steps, then of the divergence as well.

    Args:
        divergence, inputs, plan: The divergence, its inputs and the plan of the descent.
        spectrum: The distance of spectra; None without signals.
        power: The weight of the spectra's distance.
        first: The number of steps at the beginning that use spectra alone.
        rng: The generator of all random draws.
    """

    divergence: Divergence
    inputs: Inputs
    plan: DescentPlan
    spectrum: Spectrum | None
    power: float
    first: int
    rng: Rng

    def __post_init__(self) -> None:
        """Compute the mean spectra to compare with, unless each sample has its own signal."""
        self._common: Floats | None = None
        if self.spectrum is not None and not self.inputs.is_paired:
            crops = self.inputs.crops(REPORT_BY * self.plan.samples, np.random.default_rng(seed_of(self.rng)))
            self._common = self.spectrum.target(crops)

    def __call__(self, number: int, beta: float) -> StepOutcome:
        """The outcome of a step."""
        rows, divergence = self.plan.samples, self.divergence
        batch = self._draw(self.rng)
        x, kl = divergence.forth(None, batch, rows)
        good = np.isfinite(kl)
        skipped = rows - int(np.count_nonzero(good))
        if skipped > math.floor(self.plan.skip * rows):
            return StepOutcome(np.empty(0), skipped, None)
        if skipped:
            batch = batch.some(good)
            x, kl = divergence.forth(None, batch, good)
        by_x = None
        if self.spectrum is not None:
            by_x = self.power * self.spectrum.energy_and_grad(x, self._target(batch), batch.same)[1]
        return StepOutcome(kl, skipped, divergence.back(batch, beta, float(number >= self.first), by_x))

    def _draw(self, rng: Rng) -> Batch:
        """Inputs of the samples of a step; pairs of samples share inputs if spectra compare such pairs."""
        is_paired = self.spectrum is not None and self.inputs.is_paired
        return (self.inputs.draw_twice if is_paired else self.inputs.draw)(self.plan.samples, rng)

    def _target(self, batch: Batch) -> Floats:
        assert self.spectrum is not None
        return self.spectrum.target(batch.signals) if self._common is None else self._common  # type: ignore[arg-type]

    def judge(self, seed: int) -> Any:
        """A function of weights: the KL plus the weighted energy of spectra, for batches drawn from one seed."""

        def judge(parameters: Array) -> tuple[float, float]:
            rng, of_batches, heard = np.random.default_rng(seed), [], []
            for _ in range(JUDGE_BY):
                batch = self._draw(rng)
                x, values = self.divergence.forth(parameters, batch, self.plan.samples)
                of_batches.append(values)
                heard.append(self._heard(x, batch))
            kl = np.concatenate(of_batches)
            fine = np.isfinite(kl)
            if np.count_nonzero(~fine) > self.plan.skip * len(kl) or not np.isfinite(heard).any():
                return math.inf, math.nan
            mean, error = mean_and_error(kl[fine])
            return mean + self.power * float(np.nanmean(heard)), error

        return judge

    def _heard(self, x: Array, batch: Batch) -> float:
        """The energy of the samples' spectra; 0 without signals, NaN for samples that are not finite."""
        if self.spectrum is None:
            return 0.0
        return self.spectrum.energy(x, self._target(batch), batch.same) if np.isfinite(x).all() else math.nan

    def reported(self, seed: int) -> tuple[float, float, float, float, float]:
        """The KL, its error, and with signals the distance of spectra, the level and the excess, for one seed."""
        rng, kl, found = np.random.default_rng(seed), [], []
        for _ in range(REPORT_BY):
            batch = self.inputs.draw(self.plan.samples, rng)
            x, values = self.divergence.forth(None, batch, self.plan.samples)
            kl.append(values)
            if self.spectrum is None:
                continue
            distance = self.spectrum.distance(x, self._target(batch)) if np.isfinite(x).all() else math.nan
            both = x, self.inputs.crops(len(x), rng) if batch.signals is None else batch.signals
            powers = [np.square(one, dtype=np.float64).mean() for one in both]
            scores = [log_prob_of_steps(self.divergence.teacher, one, batch) for one in both]
            found.append([distance, *powers, *scores])
        each = np.concatenate(kl)
        mean, error = mean_and_error(each[np.isfinite(each)])
        if not found:
            return mean, error, math.nan, math.nan, math.nan
        distance, power, of_signals, score, of_real = np.mean(found, axis=0).tolist()
        return mean, error, distance, 10.0 * math.log10(power / of_signals), score - of_real


# ---- distillation ----------------------------------------------------------------------------------------------------


@takes(DistilledOverTime, OfSteps)
def distill_sequences(
    teacher: SequenceFlow, student: SequenceFlow, context: Any = None, **keywords: Unpack[DistilledOverTime]
) -> tuple[SequenceFlow, SequenceDistillation]:
    """Minimise KL(student ‖ teacher) of flows of sequences, with samples of the student and densities of the teacher.

    The teacher's networks read data, and the student's read latent values, so that the student draws all steps at once.
    **A small KL alone does not make a good student**: its samples may be too quiet, because the teacher's density is
    high for quiet samples. `signals` prevent that (docs/sequences.md). A sample is a sequence, and divergences are in
    nats a step. A student without scales of data and context copies the teacher's scales. See `headrace.fit_to_density`
    for the end of a run and the conditions for equal bits.

    Args:
        teacher: A flow; it is not changed.
        student: A flow with the teacher's features, context columns and covariates; its weights are changed in place.
        context: An array (rows, context), from which each step draws rows at random, or (context,), one row for all
            samples.
        estimator: "pathwise": the gradient along the student's samples. "closed_form": the KL of each step's densities,
            which are normal in both flows, with less noise. "auto": "closed_form" if the flows allow it, else
            "pathwise".
        steps: The number of steps, by default 2000.
        samples: The sequences of each step, by default 16.
        first_steps: Steps at the beginning that only learn the spectra of `signals`, by default a quarter of `steps`.
        learning_rate: The rate at the start; by default 0.8 times that of `SequenceFlow.fit`.
        length: The number of time steps of each drawn sequence.
        covariates: Shape (rows, frames, covariates), (frames, covariates), or a list of such arrays; each step draws
            crops from random positions of them.
        signals: Real sequences, as x in `SequenceFlow.log_prob`; with covariates each signal belongs to its covariates.
            The loss pulls the short-time Fourier magnitudes of samples towards those of the signals, first alone, then
            beside the divergence. With covariates the samples are pairs with equal covariates, and the loss pushes the
            samples of a pair apart (Gritsenko et al. 2020).
        power: The weight of the relative distance of spectra, by default 1, beside a divergence in nats a step.
        **keywords: Those of `OfSteps`.

    Returns:
        ``(student, report)``, a `SequenceDistillation`.

    Raises:
        TypeError, ValueError: an argument is not as expected, or the flows have no closed form and the estimator is
            "closed_form".
        KeyboardInterrupt: Ctrl-C came before the student had better weights; the student is then unchanged.

    >>> import headrace as hr
    >>> teacher, student = (hr.WaveNet(layers=2, channels=4, map="affine", reads=side) for side in ("data", "latent"))
    >>> student, report = hr.distill_sequences(teacher, student, steps=3, samples=2, length=32, progress=False)
    >>> len(report.history)
    3
    """
    arguments = taken_from(DistilledOverTime, keywords)
    length, signals, covariates = arguments.length, arguments.signals, arguments.covariates
    _check_flows(teacher, student)
    rng, weight = np.random.default_rng(arguments.seed), 1.0 if arguments.power is None else arguments.power
    if arguments.power is not None and signals is None:
        raise ValueError(f"power: expected None without signals, whose spectra it weighs, got {arguments.power!r}")
    inputs = Inputs(teacher, length, context, covariates, signals)
    reason = why_from_samples(teacher, student)
    if arguments.estimator == "closed_form" and reason:
        raise ValueError(f"estimator: 'closed_form' is not available, because {reason}; use 'pathwise'")
    is_closed = arguments.estimator != "pathwise" and not reason
    learner = copy.deepcopy(student)
    _take_over(teacher, learner)
    plan = DescentPlan.of(
        arguments,
        steps=STEPS if arguments.steps is None else arguments.steps,
        samples=arguments.samples or SAMPLES,
        learning_rate=arguments.learning_rate or RATE * _optimizer.default_rate(student),  # type: ignore[arg-type]
    )
    has_spectra = signals is not None and weight > 0.0
    first = round(FIRST * plan.steps) * has_spectra if arguments.first_steps is None else arguments.first_steps
    check.integer("first_steps", first, most=plan.steps)
    if first and not has_spectra:
        raise ValueError(f"first_steps: expected 0 without signals, whose spectra these steps learn, got {first}")
    window = min(WINDOW, length // 2 * 2)
    spectrum = Spectrum(Magnitudes(window), is_paired=inputs.is_paired) if has_spectra else None
    divergence = Divergence(teacher, learner, length, is_closed=is_closed)
    step = SequenceStep(divergence, inputs, plan, spectrum, weight, first, rng)
    judge, of_report = step.judge(seed_of(rng)), seed_of(rng)
    begin = time.perf_counter()
    of_rows: Any = learner
    history = Descent("distill", of_rows, plan, step, judge).go(bool(arguments.progress))
    if history.stopped == "interrupted" and not history.kept_step:
        raise KeyboardInterrupt  # without better weights there is no student to return
    with student._interior.restored():
        _take_over(teacher, student)
        student.parameters = learner.parameters
    is_whole = history.stopped != "interrupted"
    kl, error, distance, level, excess = step.reported(of_report) if is_whole else (math.nan,) * 5
    has_sides = is_whole and step.spectrum is not None and length >= 4 * LEVEL_FRAME
    sides: tuple[Sides | None, Sides | None] = _of_sides(step, of_report) if has_sides else (None, None)
    kind = "closed_form" if is_closed else "pathwise"
    figures = (distance, level, excess, *sides)
    return student, SequenceDistillation(kl, error, kind, *figures, history, time.perf_counter() - begin)


def _check_flows(teacher: Any, student: Any) -> None:
    for name, flow, side in (("teacher", teacher, "data"), ("student", student, "latent")):
        if not isinstance(flow, SequenceFlow):
            raise TypeError(f"{name}: expected a SequenceFlow, as the other one is, got {check.kind_of(flow)}")
        flow._refuse_device(name)
        for t in flow.transforms:
            if getattr(t, "reads", side) != side:
                raise ValueError(f"{name}: expected networks that read {side}, got one that reads {t.reads}")
    if student._base_size():
        raise ValueError(f"student: expected a base without trained parameters, got {student.base!r}")
    for what, got, wanted in (
        ("features", student.features, teacher.features),
        ("context columns", student.context, teacher.context),
        ("covariates", student.covariates, teacher.covariates),
        ("steps a frame (hop)", student.hop, teacher.hop),
    ):
        if got != wanted:
            raise ValueError(f"student: expected {wanted} {what}, as the teacher has, got {got}")


def _take_over(teacher: SequenceFlow, student: SequenceFlow) -> None:
    """Copy the teacher's scales of data and context to a student without them."""
    interior, last = student._interior, teacher.transforms[-1]
    starts = {}
    if interior.is_fresh and isinstance(last, Standardize):
        starts[len(interior.chain) - 1] = last
    columns = teacher.standardize_context if student.standardize_context is None else None
    if starts or columns is not None:
        interior.set_starts(starts, columns)


def _of_sides(step: SequenceStep, seed: int) -> tuple[Sides, Sides]:
    """Ranges of levels and strengths of pitch, of one batch of samples of each flow, without the samples' first steps,
    and of signals: the signals of the batch's covariates if there are any, or else all signals.
    """
    student, teacher, length = step.divergence.student, step.divergence.teacher, step.inputs.length
    batch = step.inputs.draw(step.plan.samples, np.random.default_rng(seed))
    first = min(max(student.field, length), 4 * length) if batch.signals is None else length // 2
    end = first + length if batch.signals is None else length  # of the covariates
    signals = step.inputs.frames(PITCH_FRAME, FRAMES) if batch.signals is None else batch.signals[:, first:]
    of = step.plan.samples, end, batch.context, batch.covariates, batch.seed
    sides = *(flow.sample(*of)[:, first:] for flow in (student, teacher)), signals
    levels = Sides(*(range_of_levels(side, LEVEL_FRAME) for side in sides))
    return levels, Sides(*(strength_of_pitch(side, PITCH_FRAME) for side in sides))
