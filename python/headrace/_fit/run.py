"""A running fit: epochs of steps, losses of held-out rows, and the best weights."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller
from headrace._base.warn import warn
from headrace._fit import clock as _clock
from headrace._fit.bar import FitBar
from headrace._fit.checkpoint import Checkpoint
from headrace._fit.clock import Clock
from headrace._fit.given_rows import Data, Index
from headrace._fit.history import History
from headrace._fit.optimizer import OPTIMIZERS, Adam, scheduled
from headrace._fit.plan import Plan, Stages
from headrace._fit.side_by_side import between_steps
from headrace._fit.source import ArrayRows, RowSource
from headrace._flow.fit_arguments import BY_LOSS
from headrace._flow.flow import Flow

LAST, FALLING = 10, 0.01  # the last 1 / LAST of the epochs; the least gain of held-out rows in these, in nats
GAINED = 0.2  # least gain of held-out rows, in nats, after a trial of a quarter of the epochs


class HeldOut:
    """Held-out rows: a small number is copied into one table, a larger one is read from its table in blocks."""

    def __init__(self, source: RowSource, on_device: bool = False, density: Any = None) -> None:
        """`density`: the density to judge, which has the parameters of a run's flow; None for the flow itself."""
        self.source, self.weight, self.density = source, source.weight(), density
        self.size, self.copied = source.size, source.copied(on_device)

    def loss(self, flow: Flow, parameters: NDArray[Any] | None = None) -> float:
        """The mean negative log-likelihood of the rows; infinity if it is not finite."""
        sums, density = [], flow if self.density is None else self.density
        for data in self._parts():
            log_prob = density.log_prob(data.x, data.context, parameters=parameters)
            sums.append(-_arrays.weighted_sum(log_prob, data.weights))
        loss = self.source.total(sums) / self.weight
        return loss if math.isfinite(loss) else math.inf

    def losses(self, *flows: Flow) -> Iterator[tuple[NDArray[np.float64], ...]]:
        """For each part of the rows, a tuple on the host: losses under each flow, and last the rows' weights."""
        for data in self._parts():
            densities = [flow.log_prob(data.x, data.context) for flow in flows]
            yield (*(-_arrays.on_host(each).astype(np.float64) for each in densities), _arrays.on_host(data.shares()))

    def log_probs(self, flow: Flow, parameters: NDArray[Any] | None = None) -> NDArray[np.float64]:
        """Log densities of all rows, on the host."""
        parts = [flow.log_prob(data.x, data.context, parameters=parameters) for data in self._parts()]
        return np.concatenate([_arrays.on_host(part).astype(np.float64) for part in parts])

    def weights(self) -> NDArray[np.float64]:
        """The weights of all rows, on the host."""
        return np.concatenate([_arrays.on_host(data.shares()) for data in self._parts()])

    def _parts(self) -> Iterator[Data]:
        return self.source.parts() if self.copied is None else iter(self.copied)


@dataclass(frozen=True)
class RunArguments:
    """The arguments of a run, other than the flow and the rows."""

    held_out: HeldOut | None
    plan: Plan
    rng: np.random.Generator
    caller: Caller
    history: History
    clock: Clock
    judged_after: int = 0
    """The number of validation passes after the run, for which time is reserved."""
    kept: Checkpoint | None = None
    """The file of the run's state, from which the run resumes."""
    what: str = "fit"
    """The name of the run's progress bar."""


class Run(abc.ABC):
    """A running fit over rows of any source."""

    library: Any
    """NumPy, or CuPy where the rows are on a device."""
    gradient: NDArray[Any]
    mean_weight: float
    weight: float
    """The weight of all rows, or of the steps of a pass so far."""
    warns = True
    """Whether to warn if a loss that is not finite ends the run."""
    shows_steps = False
    """Whether the run's bar counts steps, because an epoch may be long."""

    def __init__(self, flow: Flow, source: Any, arguments: RunArguments) -> None:
        """Prepare the first step. `source`: the training data, of `size` rows or steps in all processes."""
        plan, held_out, history = arguments.plan, arguments.held_out, arguments.history
        self.kept = Checkpoint(None, 0.0) if arguments.kept is None else arguments.kept
        self.flow, self.source, self.held_out = flow, source, held_out
        self.size: int = source.size
        self.what = arguments.what
        self.clock, self.judged_after, self.paced = arguments.clock, arguments.judged_after, False
        self.bar: FitBar | None = None
        self.tick = self.step_seconds = 0.0
        self.judge_seconds: float | None = None
        self.plan, self.rng, self.history, self.caller = plan, arguments.rng, history, arguments.caller
        self.stages = Stages(plan, held_out is not None)
        history.weight_decay, history.schedule = self.stages.now.decay, self.stages.now.schedule
        self._begin_stage()
        program, self.parameters_of_step = flow._interior.stepping(plan.matmul)
        self.program = self.caller.queued(program)
        self.drops = flow._interior.drops
        self.best = flow.parameters
        self.start_tried = False
        self.lowest, self.lowest_epoch = math.inf, 0  # the lowest loss, and its epoch, for the schedule
        self.begin = _clock.now()
        self.step = self.judged_step = plan.begun * plan.batches
        self.spent = self.begin - self.clock.begin if plan.tries else 0.0  # seconds of trials
        self.rate, self.rate_factor = plan.learning_rate, 1.0  # the factor is for schedules that depend on the loss
        self._prepare()

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Set the attributes that all steps use."""

    @abc.abstractmethod
    def batches(self) -> Iterator[Any]:
        """The training data in a new order, batch by batch."""

    @abc.abstractmethod
    def _loss_of(self, batch: Any) -> float:
        """Write the gradient of a batch's mean loss to `gradient`, and return the sum of the losses."""

    def _before(self, batch: int) -> None:  # noqa: B027  # nothing for most runs
        """A hook, which `one_pass` calls before the step of the batch with the index `batch`."""

    def _stepped(self, loss: float) -> None:  # noqa: B027  # likewise
        """A hook, which `one_pass` calls after each step; `loss` is the sum of the batch's losses."""

    def one_pass(self) -> float:
        """Run one pass over the training data in a new order; return the mean of batches' losses before their steps.

        If the time is over, the pass ends early and returns NaN.
        """
        self.tick = 0.0
        done, total = self.kept.pass_begins(self)
        for i, batch in enumerate(self.batches()):
            if i < done:  # batches that the interrupted fit finished
                self._draw_dropout()
                continue
            self._before(i)
            if not self._has_time():
                return math.nan
            loss = self._loss_of(batch)
            self.adam.learning_rate = self._rate()
            self.kept.step_begins(i, total, total + loss)
            if not math.isfinite(loss) or not math.isfinite(self.adam.step(self.gradient)):
                return math.nan
            self.step += 1
            total += loss
            self._stepped(loss)
            self.kept.step_ends(self)
        return float(total / self.weight)

    def also_kept(self, clock: int) -> dict[str, Any]:
        """Further values, by name, to store with the state of a fit; `clock` is the optimiser's step count."""
        return {}

    def restored(self, kept: dict[str, Any], clock: int) -> None:  # noqa: B027  # likewise
        """Restore the values that `also_kept` returned."""

    def _begin_stage(self) -> None:
        plan, decay = self.plan, self.stages.now.decay
        self.adam: Adam = OPTIMIZERS[plan.optimizer](
            self.flow, plan.learning_rate, weight_decay=decay, clip=plan.clip, average=plan.average
        )

    def go(self, progress: bool) -> None:
        """Run all epochs; at the end, even after an error, the flow gets the best weights."""
        history, batches = self.history, self.plan.batches
        bar = FitBar(self.stages.most, self.clock, progress, self.what, batches if self.shows_steps else 0)
        message, self.paced, self.bar = "", True, bar
        try:
            epoch = self.kept.resume(self) or self.plan.begun
            bar.begin(epoch, self.step)
            if self.clock.has(0.0) and (self.held_out is None or self.held_out.copied is not None):
                self._try_start()  # with many held-out rows, the first validation follows the first epoch
            while epoch < self.stages.end or self._next_stage(epoch):
                epoch += 1
                loss = self.one_pass()
                if self.clock.ran_out:
                    self.kept.interrupted(self)
                    history.stopped = "time_budget"
                    if self.step > self.judged_step:
                        self._keep_if_best(epoch)
                    break
                self.kept.pass_ends()
                if not math.isfinite(loss):
                    history.stopped = "non-finite"
                    message = f"the loss became {loss} in epoch {epoch} at learning rate {self.adam.learning_rate:.3g}"
                    break
                if not self._finish_epoch(epoch, loss):
                    break
                self.kept.epoch_ends(self)
                bar.epoch(epoch, self._losses_text(loss))
            else:
                if history.validation_loss and not math.isfinite(history.best_loss):
                    message = "the held-out loss was never finite"
        except KeyboardInterrupt:
            self.kept.interrupted(self)
            history.stopped = "interrupted"
            if self.step:
                self._keep_if_best(history.epochs + 1)  # because an epoch may be long
        finally:
            self.flow.parameters = self.best
            history.partial_epoch = max(self.step / batches - history.epochs, 0.0)
            history.elapsed = _clock.now() - self.begin + self.spent
            history.still_falls = self._still_falls()
            bar.close()
        if message and self.warns:
            kept = f"those of epoch {history.best_epoch}" if history.best_epoch else "those it began with"
            advice = "; try a smaller learning_rate" if history.stopped == "non-finite" else ""
            warn(f"fit: {message}; the weights are {kept}{advice}")

    def _still_falls(self) -> bool:
        """Whether the held-out loss still fell at the end of a run whose epochs or time were over.

        The last tenth of a cosine's epochs shows little gain, because the rate is small by then. If a run that
        continues a trial gained much over this trial, more epochs would gain more.
        """
        history, stages, begun = self.history, self.stages, self.plan.begun
        all_of_them, losses = history.validation_loss, stages.of_the_last_schedule(history.validation_loss)
        is_over = history.epochs >= stages.end or history.stopped == "time_budget"
        if not is_over or not history.best_epoch or history.schedule != stages.now.schedule:
            return False
        last = -(-len(losses) // LAST)
        before, now = min(losses[:-last], default=math.inf), min(losses[-last:], default=math.inf)
        gained = min(all_of_them[:begun], default=-math.inf) - now
        return now < before - FALLING or (now <= before and gained > GAINED)

    def _losses_text(self, loss: float) -> dict[str, str]:
        """The texts beside the bar, by name."""
        texts = {"train": f"{loss:.3f}"}
        if self.history.validation_loss:
            texts["held out"] = f"{self.history.validation_loss[-1]:.3f}"
        if len(self.stages.decays) > 1:
            texts["decay"] = f"{self.stages.now.decay:.2g}"
        return texts

    def current(self) -> NDArray[Any]:
        """The weights that are judged and kept: the running mean of the parameters, or without one the parameters."""
        return self.flow.parameters if self.plan.average is None else self.adam.averaged

    def _keep_if_best(self, epoch: int) -> float:
        """Judge the current weights on held-out rows and keep the best, or without such rows keep the current ones."""
        self._try_start()
        return self._judge(epoch, self.current())

    def _try_start(self) -> None:
        if not self.start_tried:
            self.start_tried = True
            self._judge(self.plan.begun, self.best)

    def _judge(self, epoch: int, weights: NDArray[Any]) -> float:
        self.judged_step = self.step
        if self.held_out is None:
            self.best = weights
            self.history.best_epoch = epoch
            return math.nan
        begin = _clock.now()
        loss = self.held_out.loss(self.flow, weights)
        self.judge_seconds = max(_clock.now() - begin, self.judge_seconds or 0.0)
        self.stages.tried(epoch, loss, self.history)
        if loss < self.history.best_loss:
            self.best = weights
            self.history.best_loss, self.history.best_epoch = loss, epoch
        return loss

    def _finish_epoch(self, epoch: int, loss: float) -> bool:
        """Record an epoch, judge its weights, and return whether the run continues."""
        history, patience = self.history, self.plan.patience
        judged = self._keep_if_best(epoch)
        if self.held_out is None:
            history.best_loss = judged = loss
        else:
            history.validation_loss.append(judged)
        history.train_loss.append(loss)
        history.learning_rate.append(self.adam.learning_rate)
        history.seconds.append(_clock.now() - self.begin + self.spent)
        history.cpu_seconds.append(_clock.cpu() - self.clock.cpu_begin)
        if judged < self.lowest:
            self.lowest, self.lowest_epoch = judged, epoch
        waited = epoch - self.lowest_epoch
        if self.plan.schedule in BY_LOSS and waited and waited % max(1, patience // 3) == 0:
            self.rate_factor /= 2
        if self.stages.waited(epoch) and not self._next_stage(epoch):
            history.stopped = "patience"
            return False
        return True

    def _next_stage(self, epoch: int) -> bool:
        """Begin the next stage after this epoch; return False if there is no further stage."""
        if not epoch:
            return False
        seconds = self.history.seconds[-1] / epoch if self.history.seconds else 0.0
        has_time = self.clock.left() >= seconds * self.stages.epochs_of_cosine(epoch)
        if not self.stages.next_stage(epoch, has_time=has_time):
            return False
        self.flow.parameters = self.best
        self._begin_stage()
        return True

    def _has_time(self, steps: int = 1) -> bool:
        """Whether `steps` further steps, and the work after the run, fit into the time budget."""
        between_steps()
        if not self.clock.is_limited:
            return True
        last, self.tick = self.tick, _clock.now()
        if self.bar is not None:
            self.bar.step(self.tick)
        if last:  # the estimate decays after a slow step
            self.step_seconds = max((self.tick - last) / steps, 0.95 * self.step_seconds)
        return self.clock.has(1.5 * steps * self.step_seconds + self._kept_seconds())

    def has_time_to_judge(self) -> bool:
        """Whether the work after the run fits into the rest of the time budget."""
        if not self.clock.is_limited:
            return True
        return self.judge_seconds is not None and self.clock.left() >= self.judged_after * self.judge_seconds

    def _kept_seconds(self) -> float:
        """Seconds that are reserved to judge the last weights and for the work after the run."""
        if self.held_out is None:
            return 0.0
        once = self.judge_seconds
        if once is None:  # an upper limit: a row costs more in a step than in a density
            once = self.step_seconds * self.held_out.size * self.plan.batches / self.size
        return once * (1 + (not self.start_tried) + self.judged_after)

    def _find_gradient_in(
        self, data: Data, index: Index, rows: int, log_prob: NDArray[Any], dropout: int | None
    ) -> None:
        """Write to `gradient` the part of the rows at `index` in the gradient of the mean loss of `rows` rows."""
        self.program.gradient(
            inverse=True,
            of_log_prob=True,
            input=data.x,
            index=index,
            context=data.context,
            grad_row=data.weights,
            row_scale=-1.0 / (self.mean_weight * rows),
            log_prob=log_prob,
            grad_weights=self.gradient,
            parameters=self.parameters_of_step(),
            dropout=dropout,
        )

    def _draw_dropout(self) -> int | None:
        """Draw the seed of a step's dropout; return None for a flow without dropout."""
        return int(self.rng.integers(2**63)) if self.drops else None

    def _rate(self) -> float:
        now = self.stages.now
        return self.rate * self.rate_factor * scheduled(now.schedule, self._done)

    def _done(self) -> float:
        """The finished share of the steps or, if larger, of the time; a cosine stage has only steps."""
        done = self.stages.done(self.step, self.plan.batches)
        if self.stages.is_cosine:
            return done
        return max(done, self.clock.passed(self.begin, self._kept_seconds())) if self.paced else done


class ArrayRun(Run):
    """A fit of rows in memory, or in a file that is mapped into memory."""

    source: ArrayRows
    data: Data
    """The rows from which the steps take their batches."""

    def _prepare(self) -> None:
        """See `Run`."""
        size, batches = self.size, self.plan.batches
        self.data = self.source.data
        self.bounds = [size * i // batches for i in range(batches + 1)]
        self.library = self.source.library
        self.mean_weight = self.source.weight() / size
        self.weight = self.mean_weight * size
        self.gradient = self.library.empty(self.flow._interior.program.n_weights, self.flow.dtype)
        self.log_prob = self.library.empty(self._log_probs(), self.flow.dtype)

    def _log_probs(self) -> int:
        """The number of log densities in memory at a time: the rows of the largest batch."""
        return -(-self.size // self.plan.batches)

    def batches(self) -> Iterator[Index]:
        """See `Run`."""
        pools = self.source.part.shuffled(self.rng)
        ready: list[Index] = []
        for begin, end in pairwise(self.bounds):
            while sum(part.size for part in ready) < end - begin:
                ready.append(next(pools))
            rows = ready[0] if len(ready) == 1 else np.concatenate(ready)
            yield rows[: end - begin]
            ready = [rows[end - begin :]]

    def _loss_of(self, batch: Index) -> float:
        """See `Run`."""
        log_prob, weights = self.log_prob[: batch.size], self.data.weights
        self._find_gradient(batch, log_prob)
        return -_arrays.weighted_sum(log_prob, None if weights is None else weights[batch])

    def _find_gradient(self, index: Index, log_prob: NDArray[Any]) -> None:
        """Write the gradient of a batch's mean loss to `gradient`, and the rows' log densities to `log_prob`."""
        self._find_gradient_in(self.data, index, index.size, log_prob, self._draw_dropout())


def is_untrained(history: History) -> bool:
    """Whether every epoch of a completed fit was worse on held-out rows than the weights before the fit."""
    return not history.best_epoch and bool(history.train_loss) and history.stopped in ("epochs", "patience")


def warn_of_no_gain(history: History) -> None:
    """Warn that no epoch improved a flow, which is untrained or became the Gaussian of the training rows."""
    now = "the Gaussian of the training rows" if history.gaussian else "untrained"
    held = history.judged_by
    warn(
        f"fit: no epoch of {history.epochs} was better on {held} than the weights before the first; "
        f"the flow is {now}; train for longer, or look for {held} far out"
    )


class DeviceRun(ArrayRun):
    """A fit on a CUDA device. Within a pass the host does not wait for the device; it reads results at the end.

    With a time budget, the host waits every `STEPS` steps, because otherwise the duration of steps is not known.
    """

    STEPS = 16  # steps between two waits

    def _log_probs(self) -> int:
        """See `ArrayRun`: the log densities of all rows stay in memory."""
        return self.size

    def one_pass(self) -> float:
        """See `Run.one_pass`."""
        weights, empty = self.data.weights, self.library.empty
        order = self.library.asarray(np.concatenate(list(self.source.part.shuffled(self.rng))))
        norms, adam = empty(self.plan.batches, np.float64), self.caller.queued(self.adam._core)
        self.tick, waits = 0.0, self.STEPS if self.clock.is_limited else self.plan.batches
        for i, (begin, end) in enumerate(pairwise(self.bounds)):
            if i % waits == 0:
                if i and self.clock.is_limited:
                    float(norms[i - 1])  # waits
                if not self._has_time(waits):
                    return math.nan
            self._find_gradient(order[begin:end], self.log_prob[begin:end])
            self.adam.learning_rate = self._rate()
            adam.step(self.gradient, self.adam.learning_rate, norms[i : i + 1])
            self.step += 1
        total = -_arrays.weighted_sum(self.log_prob, None if weights is None else weights[order])
        return total / self.weight if bool(np.isfinite(norms).all()) else math.nan
