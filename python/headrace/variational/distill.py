"""Probability density distillation (van den Oord et al. 2017): a flow learns the density of another flow.

docs/variational.md has the objectives, the estimators and the measurements behind the defaults.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.keywords import taken_from, takes
from headrace._base.moved import moved_where
from headrace._base.public import public
from headrace._base.stored import header_of
from headrace._base.types import Unpack
from headrace._fit import optimizer as _optimizer
from headrace._flow.bases import Normal
from headrace._flow.flow import Flow
from headrace._flow.program.module import is_of_sequences
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.gaussianize import Gaussianize
from headrace._flow.transforms.support import Support
from headrace._flow.transforms.transform import Transform
from headrace.variational.arguments import Distilled, Evaluated, OfSteps
from headrace.variational.closed_form import ConditionalStep, draw_of, why_not
from headrace.variational.descent import Descent, DescentPlan, PathStep, StepHistory, judge_of, seed_of
from headrace.variational.fit import FreeEnergy, estimate, estimate_or_none, require_flow
from headrace.variational.layerwise import Alone, correspondence, learn_one_by_one
from headrace.variational.over_time import distill_sequences
from headrace.variational.target import Contexts, Target, contexts_of

# Many steps of few samples each come nearer to the teacher in the same time than fewer steps of more samples
# (docs/variational.md).
SAMPLES, FIRST_STEPS = 128, 4000
# Steps of the whole student: after steps of single transforms, without such steps, and in closed form.
STEPS, STEPS_AT_ONCE, STEPS_CLOSED = 12_000, 16_000, 5000
# A factor of the default rate of `Flow.fit`, and another factor for single transforms and in closed form.
RATE, FIRST_RATE = 0.3, 6.0
TIMED_ROWS, TIMED_CALLS = 8192, 5


@public("headrace.variational")
@dataclass(frozen=True)
class Speed:
    """The rows per second of a flow: the median of a few calls with 8192 rows, with the current number of threads."""

    log_prob: float
    sample: float

    def __repr__(self) -> str:
        """Both rates in thousands of rows per second."""
        return f"Speed(log_prob={self.log_prob / 1e3:.0f}k, sample={self.sample / 1e3:.0f}k rows/s)"


@public("headrace.variational")
@dataclass(frozen=True)
class Distillation:
    """The result of `distill`."""

    kl: float
    """KL(student ‖ teacher) in nats, from fresh samples of the student; NaN if the distillation was interrupted."""
    kl_error: float
    """The standard error of `kl`."""
    estimates: FreeEnergy | None
    """Estimates of KL and log_z. Both densities are normalised, so that the true log_z is 0: a lower estimate shows
    that the student misses a part of the teacher, to which KL(student ‖ teacher) is nearly blind. With context from an
    array, importance weights belong to pairs of context and row."""
    estimator: str
    """The estimator of the gradient, "pathwise" or "closed_form"."""
    transform_kl: list[float]
    """For each transform that was trained alone: the KL in nats from the teacher with this transform exchanged for the
    student's to the teacher, from 16,384 samples; empty if no transform was trained alone."""
    not_alone: str
    """The reason why no transform was trained alone first; "" if transforms were, and in closed form."""
    history: StepHistory
    seconds: float
    """The seconds of all steps and of the estimate."""
    teacher: Speed | None
    student: Speed | None

    def __repr__(self) -> str:
        """The KL, the speeds and the history."""
        skipped = f"not_alone={self.not_alone!r}, " if self.not_alone else ""
        return (
            f"Distillation(kl={self.kl:.4f} ± {self.kl_error:.4f}, estimator={self.estimator!r}, {skipped}"
            f"teacher={self.teacher!r}, student={self.student!r}, {self.history!r})"
        )


@moved_where(is_of_sequences, distill_sequences)
@takes(Distilled, OfSteps, Evaluated)
def distill(
    teacher: Flow, student: Flow, context: NDArray[Any] | None = None, **keywords: Unpack[Distilled]
) -> tuple[Flow, Distillation]:
    """Minimise KL(student ‖ teacher), with samples of the student and densities of the teacher.

    If the student has at least as many transforms as the teacher, and each pair of transforms, counted from the latent
    end, has a KL in closed form, each transform of the student first learns the teacher's transform alone, from samples
    of the transforms before it. Additional transforms of the student begin as the identity.

    If the student ends in a `Standardize` that is still the identity, and the teacher ends in a `Standardize`, the
    student copies the latter, and a `Gaussianize` before it. A student that does not standardise its context copies the
    teacher's scale of contexts. Fixed transforms that both flows have at the data end do not change a divergence, and
    are left out of the comparison. See `fit_to_density` for the end of a run and the conditions for equal bits.

    Args:
        teacher: A flow; it is not changed.
        student: A flow with the teacher's numbers of features and context columns; its weights are changed in place.
        context: An array (rows, context), from which each step draws rows at random; an array (context,), one row for
            all samples; or a function that draws contexts; see `fit_to_density`.
        estimator: "pathwise": the gradient of log student - log teacher along the student's samples, with the
            student's parameters held fixed in its own density. "closed_form": the KL of each coordinate's conditional
            densities, which are normal in both flows, in closed form, with less noise. The closed form requires normal
            bases, and only affine or additive autoregressive transforms, with one order of coordinates; the student's
            networks read latent values, and the teacher's networks read data. "auto": "closed_form" if the flows allow
            it, otherwise "pathwise".
        temperature: The student learns the teacher's density for base samples whose deviations from their mean are
            multiplied by this factor: below 1, samples are nearer to the mode.
        steps: The steps of the whole student, by default 12,000 after steps of single transforms, else 16,000; 5000 in
            closed form.
        samples: The samples of each step, by default 128.
        first_steps: The steps of each single transform, by default 4000, or half of `steps` if less; 0 for none.
        learning_rate: The rate at the start; single transforms are fitted at six times this rate. The default rate is
            1.5e-3, or 0.38 over the units of the widest hidden layer if less; in closed form it is six times as much.
        **keywords: Those of `OfSteps`.

    Returns:
        ``(student, report)``, a `Distillation`.

    Raises:
        TypeError, ValueError: an argument is not as expected; the student has samples beyond the teacher's bounds; the
            flows have no closed form and the estimator is "closed_form".
        KeyboardInterrupt: Ctrl-C came before the student had better weights; the student is then unchanged.

    >>> import headrace as hr
    >>> teacher, student = hr.MAF(3, transforms=1, hidden=(8,), seed=1), hr.IAF(3, transforms=1, hidden=(8,))
    >>> student, report = hr.distill(teacher, student, steps=50, samples=64, progress=False)
    >>> report.estimator, report.kl < 1e-3
    ('closed_form', True)
    """
    args = taken_from(Distilled, keywords)
    _check_flows(teacher, student)
    rng = np.random.default_rng(args.seed)
    contexts = contexts_of(teacher, context)
    warm = tempered(teacher, args.temperature)
    _check_bounds(teacher, student)
    learner = copy.deepcopy(student)
    _take_over(teacher, learner)
    warm, learner = _before_common_end(warm, learner)
    reason = why_not(warm, learner)
    if args.estimator == "closed_form" and reason:
        raise ValueError(f"estimator: 'closed_form' is not available, as {reason}; use 'pathwise'")
    closed = args.estimator != "pathwise" and not reason
    pairs = correspondence(warm, learner)
    rate = RATE * _optimizer.default_rate(student) * (FIRST_RATE if closed else 1.0)
    paired = STEPS if args.first_steps != 0 and not pairs.reason else STEPS_AT_ONCE
    steps = (STEPS_CLOSED if closed else paired) if args.steps is None else args.steps  # defaults of similar times
    of_steps = {"steps": steps, "samples": args.samples or SAMPLES, "learning_rate": args.learning_rate or rate}
    plan = DescentPlan.of(args, **of_steps)
    count = min(plan.steps // 2, FIRST_STEPS) if args.first_steps is None else args.first_steps

    target: Target = warm.log_prob_and_score
    step = (
        ConditionalStep(warm, learner, draw_of(learner, contexts, rng), plan)
        if closed
        else PathStep(learner, target, contexts, plan, rng, landing=True)
    )
    judge = judge_of(learner, target, contexts, plan, seed_of(rng))
    begin = time.perf_counter()
    first = replace(plan, steps=count, learning_rate=FIRST_RATE * plan.learning_rate, optimizer="adam")
    not_alone = "" if closed else pairs.reason or ("" if count else "first_steps is 0")
    alone = Alone()
    if not closed and not not_alone:
        alone = learn_one_by_one(warm, learner, pairs, contexts, first, rng, bool(args.progress))
    if alone.is_interrupted:
        history = StepHistory(stopped="interrupted")
    else:
        history = Descent("distill", learner, plan, step, judge).go(bool(args.progress))
    if history.stopped == "interrupted" and not any(descent.kept_step for descent in (*alone.histories, history)):
        raise KeyboardInterrupt  # without better weights there is no student to return
    with student._interior.restored():
        _take_over(teacher, student)
        student.parameters = learner.parameters
    estimated = None
    if history.stopped != "interrupted" and args.evaluated:
        estimated = estimate_or_none(estimate, learner, target, contexts, args.evaluated, rng, history)
    seconds, kind = time.perf_counter() - begin, "closed_form" if closed else "pathwise"
    kl, error = (np.nan, np.nan) if estimated is None else (estimated.free_energy, estimated.standard_error)
    speeds = [None if estimated is None else _speed(flow, contexts) for flow in (teacher, student)]
    return student, Distillation(kl, error, estimated, kind, alone.kl, not_alone, history, seconds, *speeds)


def _check_flows(teacher: Flow, student: Flow) -> None:
    require_flow("teacher", teacher)
    require_flow("student", student)
    if teacher is student:
        raise ValueError("student: expected another flow than the teacher, got the same one")
    if student.features != teacher.features:
        raise ValueError(f"student: expected {teacher.features} features, as the teacher has, got {student.features}")
    if teacher.context != student.context:
        raise ValueError(f"student: expected the teacher's {teacher.context} context columns, got {student.context}")


def _before_common_end(teacher: Flow, student: Flow) -> tuple[Flow, Flow]:
    """Both flows without the fixed transforms at the data end that are equal and therefore do not change a divergence.

    A Gaussianize or a Support would hide the affine chain that closed forms need. Flows that share only a `Standardize`
    are returned unchanged.
    """
    chains = teacher.transforms, student.transforms
    alike = list(takewhile(lambda pair: _is_same(*pair), zip(*map(reversed, chains), strict=False)))
    if all(isinstance(end, Standardize) for end, _ in alike) or len(alike) == min(map(len, chains)):
        return teacher, student
    apart = slice(None, -len(alike))  # Flow.__getitem__ slices transforms, AscentFlow.__getitem__ steps
    return Flow.__getitem__(teacher, apart), Flow.__getitem__(student, apart)


def _is_same(transform: Transform, other: Transform) -> bool:
    """Whether two transforms are the same fixed transform of the data end, with equal arrays."""
    if type(transform) is not type(other) or not isinstance(transform, (Gaussianize, Standardize, Support)):
        return False
    arrays, theirs = transform._fixed_arrays(), other._fixed_arrays()
    return header_of(transform) == header_of(other) and all(np.array_equal(arrays[k], theirs[k]) for k in arrays)


def tempered(flow: Flow, temperature: float) -> Flow:
    """A flow whose base samples are `temperature` times as far from the base's mean."""
    if temperature == 1.0:
        return flow
    base = flow.base
    loc = base.loc if isinstance(base, Normal) else np.zeros(flow.features)
    scaling = Standardize((1.0 - temperature) * loc, np.full(flow.features, temperature))
    return Flow([scaling, *flow.transforms], base, dtype=flow.dtype, standardize_context=flow.standardize_context)


def _check_bounds(teacher: Flow, student: Flow) -> None:
    """Refuse a student that has samples where the teacher's density is 0, because the divergence is infinite."""
    outer = teacher._interior.support
    if outer is None:
        return
    inner = student._interior.support or Support([None] * teacher.features)
    (least, most), (low, high) = _reach(outer), _reach(inner)
    beyond = np.flatnonzero((low < least) | (high > most))
    if beyond.size:
        c = int(beyond[0])
        want, got = (support.periodic[c] or support.bounds[c] for support in (outer, inner))
        raise ValueError(f"student: expected the teacher's bounds {want} in column {c}, got {got or 'none'}")


def _reach(support: Support) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least and the greatest possible value of each column of samples."""
    low, high = support._ends()
    for c, period in enumerate(support.periodic):
        if period is not None:
            low[c], high[c] = period
    return low, high


def _take_over(teacher: Flow, student: Flow) -> None:
    """Copy the teacher's scales of data and context to a student without them."""
    ends = (teacher._interior.support, student._interior.support)
    supports = [end and (end.bounds, end.periodic, end.linear) for end in ends]
    is_same = supports[0] == supports[1]  # scales are in units of unbounded rows
    links = teacher._interior.links if student._interior.is_fresh and is_same else ()
    columns = teacher.standardize_context if student.standardize_context is None else None
    if links or columns is not None:
        student._interior.rescale(links or None, columns)


def _speed(flow: Flow, contexts: Contexts) -> Speed:
    context = contexts(TIMED_ROWS, np.random.default_rng(0))
    x = flow.sample(TIMED_ROWS, context, seed=0)

    def rate(call: Callable[[], Any]) -> float:
        seconds = []
        for _ in range(TIMED_CALLS):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        return TIMED_ROWS / statistics.median(seconds)

    return Speed(rate(lambda: flow.log_prob(x, context)), rate(lambda: flow.sample(TIMED_ROWS, context, seed=0)))
