"""Gradient descent along reparametrised samples, for fits to a density and for distillation.

The noise ε comes from the flow's own generator, and x(ε) is the flow's sample. Both x(ε) and log q(x) are
differentiated by the parameters along the direction to data: a forward pass computes the samples, the density is
evaluated at these, and a forward and a backward pass with the density's gradient follow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import progress as _progress
from headrace._base.public import public
from headrace._base.warn import warn
from headrace._core import cpu
from headrace._fit.optimizer import OPTIMIZERS, Adam, scheduled
from headrace._flow.flow import Flow
from headrace.variational.target import Contexts, Target

Pair = tuple[NDArray[Any], NDArray[Any]]
Rng = np.random.Generator
Judge = Callable[[NDArray[Any]], tuple[float, float]]  # weights -> free energy, standard error

# The number of evaluations in a descent, and the samples of an evaluation as a multiple of those of a step.
JUDGED, JUDGE_BY = 20, 8
MOST_SLACK = 0.05  # in nats, the largest tolerance; else two standard errors of the lowest free energy
LOST = 1.0  # a last free energy this many nats above the lowest one causes a warning


@public("headrace.variational")
@dataclass
class StepHistory:
    """The history of `fit_to_density` or `distill`: for each step, values before the step changes the weights."""

    free_energy: list[float] = field(default_factory=list)
    """The mean of log q - log p over the step's samples, in nats, without annealing: -log Z of p, plus the KL."""
    standard_error: list[float] = field(default_factory=list)
    """Standard errors of the free energy, computed for independent samples even if samples share a context."""
    beta: list[float] = field(default_factory=list)
    """The power β of the density at each step."""
    learning_rate: list[float] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    """The number of samples that were left out because of a NaN or an infinity."""
    seconds: list[float] = field(default_factory=list)
    """Seconds since the beginning of the descent."""
    kept_step: int = 0
    """The number of steps that led to the kept weights: the latest weights whose free energy exceeds the lowest one by
    no more than the noise of an evaluation."""
    lowest_free_energy: float = math.inf
    """The lowest free energy of an evaluation, which follows each twentieth of the steps; all use the same noise."""
    stopped: str = "steps"
    """Why the descent ended: "steps" (all done), "interrupted" or "non-finite"."""

    def __len__(self) -> int:
        """The number of steps."""
        return len(self.free_energy)

    def __repr__(self) -> str:
        """The last free energy, the number of steps, and the reason why the descent ended."""
        last = f"{self.free_energy[-1]:.4f} ± {self.standard_error[-1]:.4f}" if self.free_energy else "none"
        return (
            f"StepHistory(steps={len(self)}, last={last}, kept_step={self.kept_step}, skipped={sum(self.skipped)}, "
            f"stopped={self.stopped!r}, seconds={self.seconds[-1] if self.seconds else 0.0:.2f})"
        )


@dataclass(frozen=True)
class DescentPlan:
    """The checked arguments of a descent that its steps use."""

    steps: int
    samples: int
    learning_rate: float
    schedule: str
    annealing: tuple[float, float] | None
    weight_decay: float
    clip: float | None
    average: float | None
    skip: float
    optimizer: str = "adam"

    @classmethod
    def of(cls, given: Any, **settings: Any) -> DescentPlan:
        """The plan of checked arguments (`headrace.variational.arguments`), some of them replaced by `settings`."""
        names = [one.name for one in fields(cls) if hasattr(given, one.name)]
        return cls(**{name: settings.get(name, getattr(given, name)) for name in names})

    def beta(self, step: int) -> float:
        """The power β of the density at a step: min(1, start + step / span), where the span is a share of all steps."""
        return 1.0 if self.annealing is None else min(1.0, self.annealing[0] + step / (self.annealing[1] * self.steps))

    def rate(self, step: int) -> float:
        """The learning rate at a step."""
        return self.learning_rate * scheduled(self.schedule, lambda: step / self.steps)


def noise_of(flow: Flow, rows: int, seed: int) -> NDArray[Any]:
    """The noise of a flow's samples with this seed: rows of the standard density that the base transforms."""
    out = np.empty((rows, flow.features), flow.dtype)
    interior = flow._interior
    name, steps = interior.base._standard()
    made = [step.made_for(cpu) for step in steps]
    standard = type(interior.program)(flow.features, 0, name, made, len(made), [], [])
    standard.sample(rows, seed, value=out)
    return out


class Paths:
    """Samples of a flow as functions of its parameters: noise, samples, log densities, and their backward pass."""

    def __init__(self, flow: Flow, rows: int) -> None:
        """Allocate memory for `rows` rows."""
        self.flow = flow
        base = flow._interior.base
        if not base.moves_noise:
            raise ValueError(
                f"flow: expected a base whose samples are functions of its parameters, got {base!r}, whose trained "
                "parameters say how numbers are drawn, so that samples have no derivatives by them; make it with "
                f"hr.{type(base).__name__}(..., trainable=False), or train it on rows by flow.fit"
            )
        self.noise = noise_of(flow, 0, 0)
        self.x = np.empty((rows, flow.features), flow.dtype)
        self.log_q = np.empty(rows, flow.dtype)
        self.gradient = np.empty(flow._interior.program.n_weights, flow.dtype)

    def draw(self, seed: int, context: NDArray[Any] | None) -> None:
        """Draw new noise and samples, the same as those of `Flow.sample_and_log_prob` with this seed."""
        self.noise = noise_of(self.flow, len(self.x), seed)
        self.flow._program.from_noise(self.noise, value=self.x, log_prob=self.log_q, context=context)

    def back(
        self, by_x: NDArray[Any], by_log_q: float, context: NDArray[Any] | None, keep: NDArray[np.bool_] | None
    ) -> NDArray[Any]:
        """The gradient, by the parameters, of Σ by_x · x(ε) + by_log_q log q(x(ε)) over the rows to keep."""
        noise = self.noise
        if keep is not None:  # a row that is not finite would make the sum NaN
            noise, by_x = noise[keep], by_x[keep]
            context = context[keep] if context is not None and len(context) == len(keep) > 1 else context
        self.flow._program.gradient(
            inverse=False,
            of_log_prob=True,
            input=noise,
            context=context,
            grad_value=by_x,
            row_scale=by_log_q,
            grad_weights=self.gradient,
        )
        return self.gradient


@dataclass(frozen=True)
class StepOutcome:
    """A step's results: log q - log p of its samples, the number of skipped samples, and the parameters' gradient."""

    excess: NDArray[np.float64]  # log q - log p of the samples that were not skipped
    skipped: int
    gradient: NDArray[Any] | None  # None if too few samples of the flow were finite


class PathStep:
    """The pathwise gradient of E[log q - β log p].

    With `landing` the parameters are held fixed in log q(x), because the gradient by these parameters has the mean 0;
    the remaining gradient is 0 for each sample where q is p (sticking the landing; Roeder, Wu, Duvenaud 2017). The
    gradient with `landing` needs the score of q, for which samples pass to latent and back once more. Without
    `landing`, the gradient of log q(x(ε)) is computed in the same backward pass as that of x(ε).
    """

    def __init__(
        self, flow: Flow, target: Target, contexts: Contexts, plan: DescentPlan, rng: Rng, *, landing: bool
    ) -> None:
        """Prepare for a `target` that takes rows and their context."""
        self.flow, self.target, self.contexts, self.rng, self.landing = flow, target, contexts, rng, landing
        self.paths = Paths(flow, plan.samples)
        self.most_skipped = math.floor(plan.skip * plan.samples)

    def __call__(self, number: int, beta: float) -> StepOutcome:
        """The gradient of the objective at one step."""
        paths, flow = self.paths, self.flow
        context = self.contexts(len(paths.x), self.rng)
        paths.draw(seed_of(self.rng), context)
        good = np.isfinite(paths.log_q) & np.isfinite(paths.x).all(axis=1)
        if len(good) - np.count_nonzero(good) > self.most_skipped:
            return StepOutcome(np.empty(0), len(good), None)
        value, slope = evaluate(self.target, paths.x, context, good)
        fine = np.isfinite(value) & np.isfinite(slope).all(axis=1)
        skipped = len(fine) - int(np.count_nonzero(fine))
        if skipped > self.most_skipped:
            raise ValueError(
                f"log_density: expected NaN or infinity in at most {self.most_skipped} of {len(fine)} samples (skip), "
                f"got {skipped} in step {number}, {_first(paths.x, context, value, slope, good & ~fine)}"
            )
        by_x = slope * (-beta)
        if self.landing:
            log_q, score = flow.log_prob_and_score(paths.x, context)
            by_x += score
            fine &= np.isfinite(log_q) & np.isfinite(score).all(axis=1)
            skipped = len(fine) - int(np.count_nonzero(fine))
        kept = len(fine) - skipped
        keep = None if skipped == 0 else fine
        by_x *= 1.0 / max(kept, 1)
        gradient = paths.back(by_x, 0.0 if self.landing else 1.0 / max(kept, 1), context, keep)
        return StepOutcome((paths.log_q.astype(np.float64) - value)[fine], skipped, gradient)


def evaluate(target: Target, x: NDArray[Any], context: NDArray[Any] | None, good: NDArray[np.bool_]) -> Pair:
    """The target's values and gradients in float64 for the rows in `good`; NaN for all other rows."""
    if good.all():
        value, slope = target(x, context)
        return value.astype(np.float64), slope.astype(np.float64)
    some = context[good] if context is not None and len(context) == len(good) else context
    all_values, all_slopes = np.full(len(x), np.nan), np.full(x.shape, np.nan)
    all_values[good], all_slopes[good] = target(x[good], some)
    return all_values, all_slopes


def _first(
    x: NDArray[Any], context: NDArray[Any] | None, value: NDArray[Any], slope: NDArray[Any], bad: NDArray[np.bool_]
) -> str:
    if not bad.any():
        return "all of them samples that were themselves not finite"
    row = int(np.flatnonzero(bad)[0])
    own = f", context = {context[row].tolist()}" if context is not None and len(context) == len(x) else ""
    return f"first at x = {x[row].tolist()}{own}: log density {value[row]}, gradient {slope[row].tolist()}"


def seed_of(rng: Rng) -> int:
    """A seed for the samples of a flow, drawn from a generator."""
    return int(rng.integers(2**64, dtype=np.uint64))


def log_weights(
    flow: Flow, target: Target, contexts: Contexts, rows: int, rng: Rng, parameters: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """The target's log density minus that of the flow, for samples of the flow; NaN if a sample is not finite."""
    context = contexts(rows, rng)
    x, log_q = np.empty((rows, flow.features), flow.dtype), np.empty(rows, flow.dtype)
    flow._program.sample(rows, seed_of(rng), value=x, log_prob=log_q, context=context, parameters=parameters)
    good = np.isfinite(log_q) & np.isfinite(x).all(axis=1)
    return evaluate(target, x, context, good)[0] - log_q


@dataclass
class Descent:
    """A descent: steps of an optimiser along gradients of reparametrised samples."""

    name: str
    flow: Flow
    plan: DescentPlan
    step: Callable[[int, float], StepOutcome]
    """A function of the step's index and β that returns the gradient."""
    judge: Judge
    """A function of weights that returns their free energy and its standard error."""
    history: StepHistory = field(default_factory=StepHistory)
    """The history, empty at first, to which the descent appends."""

    def __post_init__(self) -> None:
        """Make the optimiser, which begins with the flow's weights."""
        flow, plan = self.flow, self.plan
        self.adam: Adam = OPTIMIZERS[plan.optimizer](
            flow, plan.learning_rate, weight_decay=plan.weight_decay, clip=plan.clip, average=plan.average
        )
        self.kept = flow.parameters
        self.slack = 0.0

    def go(self, progress: bool) -> StepHistory:
        """Run all steps, then give the flow the kept weights, also after an error."""
        history, plan = self.history, self.plan
        bar = _progress.bar(plan.steps, self.name, "step", progress)
        begin = time.perf_counter()
        message = ""
        try:
            self._judge()
            for number in range(plan.steps):
                beta = plan.beta(number)
                found = self.step(number, beta)
                self.adam.learning_rate = plan.rate(number)
                if found.gradient is None or not math.isfinite(self.adam.step(found.gradient)):
                    history.stopped = "non-finite"
                    message = f"samples of the flow or their gradients became NaN or infinite in step {number}"
                    break
                mean, error = mean_and_error(found.excess)
                history.free_energy.append(mean)
                history.standard_error.append(error)
                history.beta.append(beta)
                history.learning_rate.append(self.adam.learning_rate)
                history.skipped.append(found.skipped)
                history.seconds.append(time.perf_counter() - begin)
                if (number + 1) * JUDGED // plan.steps > number * JUDGED // plan.steps:
                    last = self._judge()
                if progress:
                    bar.set_postfix({"free energy": f"{mean:.3f}"}, refresh=False)
                    bar.update()
            else:
                if plan.steps and not last < history.lowest_free_energy + LOST:
                    message = f"the free energy rose to {last:.3g} from {history.lowest_free_energy:.3g}"
        except KeyboardInterrupt:
            history.stopped = "interrupted"
            self._judge()
        finally:
            self.flow.parameters = self.kept
            bar.close()
        if message:
            message += f"; the weights are those after {history.kept_step} steps; try a smaller learning_rate"
            warn(f"{self.name}: {message}")
        if any(history.skipped):
            warn(
                f"{self.name}: log densities or their gradients were NaN or infinite in {sum(history.skipped)} of "
                f"{len(history) * plan.samples} samples, which were left out"
            )
        return history

    def _judge(self) -> float:
        """Evaluate the running mean of the weights, and keep it unless it is clearly worse than the best."""
        history = self.history
        weights = self.adam.averaged if len(history) and self.plan.average is not None else self.flow.parameters
        energy, error = self.judge(weights)
        if energy < history.lowest_free_energy:
            history.lowest_free_energy = energy
            self.slack = min(2.0 * error, MOST_SLACK) if error == error else 0.0
        if energy <= history.lowest_free_energy + self.slack:
            self.kept, history.kept_step = weights, len(history)
        return energy


def judge_of(flow: Flow, target: Target, contexts: Contexts, plan: DescentPlan, seed: int) -> Judge:
    """A function of weights that returns the free energy of samples with the same noise; inf if too few are finite."""
    rows = JUDGE_BY * plan.samples

    def judge(parameters: NDArray[Any]) -> tuple[float, float]:
        excess = -log_weights(flow, target, contexts, rows, np.random.default_rng(seed), parameters)
        fine = np.isfinite(excess)
        if not fine.any() or np.count_nonzero(~fine) > plan.skip * rows:
            return math.inf, math.nan
        return mean_and_error(excess[fine])

    return judge


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """The mean of the values and its standard error; NaN if there are too few values."""
    n = values.size
    if n == 0:
        return math.nan, math.nan
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
