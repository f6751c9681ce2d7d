"""Distillation of sequences: a student that makes all steps at once learns a teacher's density.

docs/sequences.md has the objectives and what they lack.

**In closed form** (Ping et al. 2019, of one value a step): the student's x_t is affine in its noise ε_t, given the
noise before, and the teacher's latent u_t is affine in x_t, given the steps before. So u_t = a_t + b_t ε_t with log b_t
the sum of both log-derivatives, and a_t = u_t - b_t ε_t. With normal bases KL_t = ½(a_t² + b_t² - 1) - log b_t.

**From samples** (van den Oord et al. 2017): log q(x) = log p_base(z) - Σ log-derivatives is that of the student's
samples x, and log p(x) and its gradient by x are the teacher's.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import _arguments as check
from headrace._arrays.caller import Caller
from headrace._fit import optimizer as _optimizer
from headrace.bases import Normal, StandardNormal
from headrace.sequences.arrays import Covariates, Sequences
from headrace.sequences.convolution import CausalConvolution
from headrace.sequences.flow import SequenceFlow
from headrace.sequences.prediction import LinearPrediction
from headrace.sequences.program import Cotangent
from headrace.transforms.fixed import Standardize
from headrace.variational.contexts import Contexts, contexts_of
from headrace.variational.descent import Descent, DescentPlan, Rng, StepHistory, StepOutcome, mean_and_error, seed_of
from headrace.variational.spectra import WINDOW, Magnitudes, Spectrum

__all__ = ["Divergence", "SequenceDistillation", "SequenceStep", "distill_sequences", "why_from_samples"]

Array = NDArray[Any]
Floats = NDArray[np.float64]

STEPS, SAMPLES, LENGTH = 2000, 16, 512
RATE = 0.8  # of the default of `fit`
FIRST = 0.25  # of the steps by spectra alone
JUDGE_BY, REPORT_BY = 4, 16  # batches of a judgement and of the report


@dataclass(frozen=True)
class SequenceDistillation:
    """The result of `distill` for flows of sequences. **A small KL alone is no good student**: see the other three."""

    kl: float
    """KL(student ‖ teacher) in nats a step, from fresh samples of the student; NaN if it was interrupted."""
    kl_error: float
    """The standard error of that, from the differences between sequences."""
    estimator: str
    """"closed_form" or "pathwise"."""
    spectrum: float
    """Σ |A - B| / Σ B of magnitudes of short-time Fourier transforms, A the student's and B those of `signals`; NaN
    without these."""
    level: float
    """Power of the student's samples over that of `signals`, in decibels: far below 0, it whispers; NaN without."""
    excess: float
    """The teacher's log density of the student's samples less that of `signals`, in nats a step: above 0, samples are
    more probable than what is real; NaN without."""
    history: StepHistory
    seconds: float
    """Seconds of all steps and the report."""

    def __repr__(self) -> str:
        """KL, what it is judged by beside it, and steps."""
        heard = ""
        if self.spectrum == self.spectrum:
            heard = f"spectrum={self.spectrum:.3f}, level={self.level:.1f} dB, excess={self.excess:.3f}, "
        return (
            f"SequenceDistillation(kl={self.kl:.4f} ± {self.kl_error:.4f} nats a step, "
            f"estimator={self.estimator!r}, {heard}{self.history!r})"
        )


# ---- what a step draws -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """What the samples of a step are drawn for, or by."""

    seed: int  # of the noise
    context: Array | None  # (rows, context)
    covariates: Array | None  # (rows, frames, covariates)
    signals: Array | None  # (rows, steps, features), of these covariates

    def some(self, keep: NDArray[np.bool_]) -> Batch:
        """These rows."""
        return Batch(self.seed, *(a if a is None else a[keep] for a in (self.context, self.covariates, self.signals)))


class Inputs:
    """Contexts, covariates and signals to draw from.

    Args:
        flow: The teacher.
        length: Steps of each sample.
        context, covariates, signals: See `distill`.
    """

    def __init__(self, flow: SequenceFlow, length: int, context: Any, covariates: Any, signals: Any) -> None:
        """See the class."""
        self._contexts: Contexts = contexts_of(flow, context)  # type: ignore[arg-type]  # reads flow.context alone
        self._flow, self.length = flow, length
        self.signals: list[Array] = []
        caller = Caller()
        if signals is not None:
            given = Sequences(caller, "signals", signals, flow.features)
            if not given.rows:
                raise ValueError("signals: expected at least one sequence, got none")
            for i, n in enumerate(given.lengths.tolist()):
                if n < length:
                    raise ValueError(
                        f"signals: expected sequences of at least {length} steps (length), got {n} in sequence {i}"
                    )
            for block in given.whole():
                given.part(block, 0, block.steps)  # refuses values that are not finite
            self.signals = given.arrays
        rows = len(self.signals) if signals is not None else _leading(covariates)
        self._frames = Covariates(caller, covariates, flow.covariates, (rows,), flow.hop, flow.dtype).arrays
        self._of_crop = -(-length // flow.hop)
        for i, own in enumerate(self._frames):
            if len(own) < self._of_crop:
                raise ValueError(
                    f"covariates: expected at least {self._of_crop} frames for {length} steps (length) at {flow.hop} "
                    f"steps a frame, got {len(own)} in sequence {i}"
                )

    @property
    def is_paired(self) -> bool:
        """Whether samples and signals have the same covariates."""
        return bool(self._frames) and bool(self.signals)

    def draw(self, rows: int, rng: Rng) -> Batch:
        """Inputs of this many samples."""
        seed, context = seed_of(rng), self._contexts(rows, rng)
        if context is not None and len(context) != rows:
            context = np.repeat(context, rows, axis=0)
        if not self._frames:
            return Batch(seed, context, None, None)
        covariates, signals = [], []
        for i in rng.integers(len(self.signals) or len(self._frames), size=rows).tolist():
            own = self._frames[i % len(self._frames)]
            most = len(own) - self._of_crop
            if self.signals:
                most = min(most, (len(self.signals[i]) - self.length) // self._flow.hop)
            first = int(rng.integers(most + 1))
            covariates.append(own[first : first + self._of_crop])
            if self.signals:
                begin = first * self._flow.hop
                signals.append(self.signals[i][begin : begin + self.length])
        return Batch(seed, context, np.stack(covariates), np.stack(signals) if signals else None)

    def crops(self, rows: int, rng: Rng) -> Array:
        """Crops of the signals, (rows, steps, features), in proportion to length."""
        most = np.array([len(own) - self.length + 1 for own in self.signals])
        found = []
        for i in rng.choice(len(most), size=rows, p=most / most.sum()).tolist():
            begin = int(rng.integers(most[i]))
            found.append(self.signals[i][begin : begin + self.length])
        return np.stack(found)


def _leading(covariates: Any) -> int:
    """Sequences of an array (rows, frames, columns), or of a list; 1 of (frames, columns)."""
    if isinstance(covariates, (list, tuple)):
        return len(covariates)
    return int(covariates.shape[0]) if getattr(covariates, "ndim", 2) == 3 else 1


# ---- the objective ---------------------------------------------------------------------------------------------------


def why_from_samples(teacher: SequenceFlow, student: SequenceFlow) -> str:
    """The reason why the divergence of two flows has no closed form; empty if it has one."""
    if teacher.features != 1:
        return f"a step has {teacher.features} values"
    for name, flow in (("teacher", teacher), ("student", student)):
        if not isinstance(flow.base, (StandardNormal, Normal)):
            return f"the {name}'s base {flow.base!r} is not normal"
        for t in flow.transforms:
            if isinstance(t, CausalConvolution) and (t.inner is not None or t._settings.map not in _AFFINE):
                return f"the {name}'s {t!r} is not affine"
            if not isinstance(t, (CausalConvolution, LinearPrediction, Standardize)):
                return f"the {name}'s {t!r} is not known to be affine"
    return ""


_AFFINE = ("affine", "additive")


class Divergence:
    """KL(student ‖ teacher) of samples, and its gradient by the student's parameters.

    Args:
        teacher, student: Of the same features, context and covariates.
        length: Steps of each sample.
        is_closed: By the closed form in place of log densities.
    """

    def __init__(self, teacher: SequenceFlow, student: SequenceFlow, length: int, *, is_closed: bool) -> None:
        """See the class."""
        self.teacher, self.student, self.length, self.is_closed = teacher, student, length, is_closed
        self._moments = [_moments(flow) for flow in (student, teacher)] if is_closed else []

    def forth(self, parameters: Array | None, batch: Batch, rows: NDArray[np.bool_] | int) -> tuple[Array, Floats]:
        """The samples, and KL in nats a step of each sequence; all of `rows`, a number, or those of a mask."""
        own, other = self.student._program, self.teacher._program
        self._vector = own.vector if parameters is None else own.read_by_calls(parameters)
        n = rows if isinstance(rows, int) else len(rows)
        z = own.noise(self._vector, batch.seed, range(n), 0, self.length)
        self._z = z if isinstance(rows, int) else z[rows]
        inputs = _of_flow(self.student, batch)
        with np.errstate(all="ignore"):  # values that are not finite are counted
            x, log_det = own.run(self._vector, False, self._z, *inputs, None)
            self._x = x.astype(self.teacher.dtype, copy=False)
            u, more = other.run(other.vector, True, self._x, *_of_flow(self.teacher, batch), None)
            if self.is_closed:
                kl = self._closed(u, log_det.astype(np.float64) + more)
            else:
                log_q = own.log_base(self._vector, self._z).astype(np.float64) - log_det
                kl = log_q - more - other.log_base(other.vector, u)
            return x, kl.mean(axis=1)

    def _closed(self, u: Array, log_b: Floats) -> Floats:
        (loc, scale), (mean, deviation) = self._moments
        noise = (self._z[..., 0].astype(np.float64) - loc) / scale
        log_b = log_b + math.log(scale / deviation)
        self._b = np.exp(log_b)
        self._a = (u[..., 0].astype(np.float64) - mean) / deviation - self._b * noise
        self._slope = self._b * (self._b - self._a * noise)  # of ½(a² + b²) by log b
        kl: Floats = 0.5 * (self._a**2 + self._b**2 - 1.0) - log_b
        return kl

    def back(self, batch: Batch, beta: float, weight: float, by_x: Floats | None) -> Array:
        """The gradient of `weight` times the mean of log q - beta log p, and of by_x · x; after `forth`."""
        own, other = self.student._program, self.teacher._program
        rows, steps = self._z.shape[:2]
        share = weight / (rows * steps)
        total = np.zeros(self._z.shape) if by_x is None else by_x
        by_log_det = np.full((rows, steps), -share)
        if weight:
            total = total + self._by_samples(other, batch, beta * share)
            if self.is_closed:
                by_log_det += beta * share * self._slope
        cotangent = Cotangent(value=total.astype(self.student.dtype), log_det=by_log_det.astype(self.student.dtype))
        _, found = own.vjp(
            self._vector, False, self._z, *_of_flow(self.student, batch), cotangent, ("inputs", "parameters")
        )
        assert found.parameters is not None
        gradient: Array = found.parameters.astype(self.student.dtype)
        return gradient

    def _by_samples(self, other: Any, batch: Batch, share: float) -> Floats:
        """The gradient by x through the teacher."""
        dtype = self.teacher.dtype
        if self.is_closed:
            by_u = share * self._a / self._moments[1][1]
            cotangent = Cotangent(
                value=by_u[..., None].astype(dtype), log_det=(share * (self._slope - 1.0)).astype(dtype)
            )
        else:
            cotangent = Cotangent(log_prob=np.full(self._x.shape[:2], -share, dtype))
        inputs = _of_flow(self.teacher, batch)
        _, found = other.vjp(other.vector, True, self._x, *inputs, cotangent, ("inputs",))
        by_x: Floats = found.inputs.astype(np.float64)
        return by_x


def _of_flow(flow: SequenceFlow, batch: Batch) -> tuple[Array | None, Array | None]:
    """Context and covariates as a program takes them."""
    context, covariates = batch.context, batch.covariates
    if context is not None:
        context = np.ascontiguousarray(context, flow.dtype if flow.standardize_context is None else None)
    return context, None if covariates is None else np.ascontiguousarray(covariates, flow.dtype)


def _moments(flow: SequenceFlow) -> tuple[float, float]:
    """Mean and deviation of a normal base of one value."""
    base = flow.base
    return (float(base.loc[0]), float(base.scale[0])) if isinstance(base, Normal) else (0.0, 1.0)


class SequenceStep:
    """The gradient of one step: of spectra in the first steps, then of the divergence as well.

    Args:
        divergence, inputs, plan: Of the descent.
        spectrum: None without signals.
        power: The weight of the spectra's distance.
        first: Steps by spectra alone.
        rng: Of all that is drawn.
    """

    def __init__(
        self,
        divergence: Divergence,
        inputs: Inputs,
        plan: DescentPlan,
        spectrum: Spectrum | None,
        power: float,
        first: int,
        rng: Rng,
    ) -> None:
        """See the class."""
        self.divergence, self.inputs, self.plan, self.rng = divergence, inputs, plan, rng
        self.spectrum, self.power, self.first = spectrum, power, first
        self._common: Floats | None = None
        if spectrum is not None and not inputs.is_paired:
            crops = inputs.crops(REPORT_BY * plan.samples, np.random.default_rng(seed_of(rng)))
            self._common = spectrum.target(crops)

    def __call__(self, number: int, beta: float) -> StepOutcome:
        """See the class."""
        rows, divergence = self.plan.samples, self.divergence
        batch = self.inputs.draw(rows, self.rng)
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
            by_x = self.power * self.spectrum.distance_and_grad(x, self._target(batch))[1]
        return StepOutcome(kl, skipped, divergence.back(batch, beta, float(number >= self.first), by_x))

    def _target(self, batch: Batch) -> Floats:
        assert self.spectrum is not None
        return self.spectrum.target(batch.signals) if self._common is None else self._common  # type: ignore[arg-type]

    def heard(self, x: Array, batch: Batch) -> float:
        """The distance of spectra; 0 without signals."""
        return 0.0 if self.spectrum is None else self.spectrum.distance(x, self._target(batch))

    def judged(self, seed: int, parameters: Array | None, batches: int) -> tuple[Floats, Floats, Floats]:
        """KL of each sequence, each batch's distance of spectra, and mean squares of samples, of one seed."""
        rng, kl, heard, squares = np.random.default_rng(seed), [], [], []
        for _ in range(batches):
            batch = self.inputs.draw(self.plan.samples, rng)
            x, own = self.divergence.forth(parameters, batch, self.plan.samples)
            kl.append(own)
            heard.append(self.heard(x, batch) if np.isfinite(x).all() else math.nan)
            squares.append(np.square(x, dtype=np.float64).mean())
        return np.concatenate(kl), np.array(heard), np.array(squares)

    def judge(self, seed: int) -> Any:
        """The judge of weights: KL, and the weighted distance of spectra."""

        def judge(parameters: Array) -> tuple[float, float]:
            kl, heard, _ = self.judged(seed, parameters, JUDGE_BY)
            fine = np.isfinite(kl)
            if np.count_nonzero(~fine) > self.plan.skip * len(kl) or not np.isfinite(heard).any():
                return math.inf, math.nan
            mean, error = mean_and_error(kl[fine])
            return mean + self.power * float(np.nanmean(heard)), error

        return judge


# ---- distillation ----------------------------------------------------------------------------------------------------


def distill_sequences(
    teacher: Any,
    student: Any,
    context: Any,
    *,
    estimator: str,
    steps: Any,
    samples: Any,
    first_steps: Any,
    learning_rate: Any,
    length: Any,
    covariates: Any,
    signals: Any,
    power: Any,
    seed: Any,
    progress: Any,
    **of_plan: Any,
) -> tuple[SequenceFlow, SequenceDistillation]:
    """See `headrace.distill`."""
    _check_flows(teacher, student)
    rng = np.random.default_rng(check.integer("seed", seed, most=2**64 - 1))
    own_length = LENGTH if length is None else check.integer("length", length, least=2)
    weight = check.number("power", 1.0 if power is None else power, least=0.0, below=math.inf)
    if power is not None and signals is None:
        raise ValueError(f"power: expected None without signals, whose spectra it weighs, got {power!r}")
    inputs = Inputs(teacher, own_length, context, covariates, signals)
    reason = why_from_samples(teacher, student)
    if estimator == "closed_form" and reason:
        raise ValueError(f"estimator: 'closed_form' is not available, because {reason}; use 'pathwise'")
    is_closed = estimator != "pathwise" and not reason
    learner = copy.deepcopy(student)
    _take_over(teacher, learner)
    plan = DescentPlan.of(
        learner,
        steps=STEPS if steps is None else steps,
        samples=SAMPLES if samples is None else samples,
        learning_rate=RATE * _optimizer.default_rate(student) if learning_rate is None else learning_rate,
        **of_plan,
    )
    has_spectra = signals is not None and weight > 0.0
    first = check.integer(
        "first_steps", round(FIRST * plan.steps) * has_spectra if first_steps is None else first_steps, most=plan.steps
    )
    if first and not has_spectra:
        raise ValueError(f"first_steps: expected 0 without signals, whose spectra these steps learn, got {first}")
    window = min(WINDOW, own_length // 2 * 2)
    spectrum = Spectrum(Magnitudes(window), is_paired=inputs.is_paired) if has_spectra else None
    divergence = Divergence(teacher, learner, own_length, is_closed=is_closed)
    step = SequenceStep(divergence, inputs, plan, spectrum, weight, first, rng)
    judge, of_report = step.judge(seed_of(rng)), seed_of(rng)
    begin = time.perf_counter()
    of_rows: Any = learner
    history = Descent("distill", of_rows, plan, step, judge).go(bool(progress))
    if history.stopped == "interrupted" and not history.kept_step:
        raise KeyboardInterrupt  # without better weights there is nothing to return
    with student._interior.restored():
        _take_over(teacher, student)
        student.parameters = learner.parameters
    found = (
        _reported(step, of_report)
        if history.stopped != "interrupted"
        else (math.nan, math.nan, math.nan, math.nan, math.nan)
    )
    kl, error, distance, level, excess = found
    kind = "closed_form" if is_closed else "pathwise"
    return student, SequenceDistillation(kl, error, kind, distance, level, excess, history, time.perf_counter() - begin)


def _check_flows(teacher: Any, student: Any) -> None:
    for name, flow, side in (("teacher", teacher, "data"), ("student", student, "latent")):
        if not isinstance(flow, SequenceFlow):
            raise TypeError(f"{name}: expected a SequenceFlow, as the other one is, got {check.kind_of(flow)}")
        for t in flow.transforms:
            if isinstance(t, CausalConvolution) and t.reads != side:
                way = "densities" if side == "data" else "samples"
                raise ValueError(
                    f"{name}: expected networks that read {side}, whose {way} of all steps are made at once, got one "
                    f"that reads {t.reads}"
                )
    if student._base_size():
        raise ValueError(
            f"student: expected a base without trained parameters, got {student.base!r}; samples have no derivatives "
            "by them here"
        )
    for what, own, wanted in (
        ("features", student.features, teacher.features),
        ("context columns", student.context, teacher.context),
        ("covariates", student.covariates, teacher.covariates),
        ("steps a frame (hop)", student.hop, teacher.hop),
    ):
        if own != wanted:
            raise ValueError(f"student: expected {wanted} {what}, as the teacher has, got {own}")


def _take_over(teacher: SequenceFlow, student: SequenceFlow) -> None:
    """The scales of data and context, where the student has none of its own."""
    interior, last = student._interior, teacher.transforms[-1]
    starts = {}
    if interior.is_fresh and isinstance(last, Standardize):
        starts[len(interior.chain) - 1] = last
    columns = teacher.standardize_context if student.standardize_context is None else None
    if starts or columns is not None:
        interior.set_starts(starts, columns)


def _reported(step: SequenceStep, seed: int) -> tuple[float, float, float, float, float]:
    """KL and its error, and beside signals the distance of spectra, the level and the excess."""
    kl, heard, squares = step.judged(seed, None, REPORT_BY)
    mean, error = mean_and_error(kl[np.isfinite(kl)])
    inputs, divergence = step.inputs, step.divergence
    if step.spectrum is None:
        return mean, error, math.nan, math.nan, math.nan
    rng, real = np.random.default_rng(seed), []
    log_prob: list[float] = []
    of_real: list[float] = []
    for _ in range(REPORT_BY):
        batch = inputs.draw(step.plan.samples, rng)
        x, _ = divergence.forth(None, batch, step.plan.samples)
        signals = inputs.crops(len(x), rng) if batch.signals is None else batch.signals
        for values, scores in ((x, log_prob), (signals, of_real)):
            scores.append(_score(divergence.teacher, values, batch))
        real.append(np.square(signals, dtype=np.float64).mean())
    level = 10.0 * math.log10(float(np.mean(squares)) / float(np.mean(real)))
    return mean, error, float(np.mean(heard)), level, float(np.mean(log_prob) - np.mean(of_real))


def _score(teacher: SequenceFlow, x: Array, batch: Batch) -> float:
    """The mean log density of steps."""
    program = teacher._program
    z, log_det = program.run(program.vector, True, x.astype(teacher.dtype), *_of_flow(teacher, batch), None)
    return float(np.mean(log_det + program.log_base(program.vector, z), dtype=np.float64))
