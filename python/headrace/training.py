"""Training: `Flow.fit`, its defaults, and what it says of a fit.

The defaults come from a search over learning rates, batch sizes, epochs, schedules and weight decays on real tables of
1000 to 1,000,000 rows; docs/notes/training.md says on which, and what was found.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import _arguments as check
from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller
from headrace._fit import gaussian as _gaussian
from headrace._fit import marginals as _marginals
from headrace._fit import rows as _rows
from headrace._fit.act_norms import start_act_norms
from headrace._fit.checkpoint import Checkpoint
from headrace._fit.clock import Clock
from headrace._fit.cross_validation import chosen_epochs, clearly_better
from headrace._fit.fingerprint import fingerprint
from headrace._fit.history import History
from headrace._fit.optimizer import Adam
from headrace._fit.plan import FEW, LEAST, MANY, Plan
from headrace._fit.rows import Data, Part
from headrace._fit.run import DeviceRun, HeldOut, Run, is_untrained, warn_of_no_gain
from headrace._fit.stream_run import StreamRun
from headrace._fit.streams import StreamData
from headrace._streams.given import arrays_of, stream_of
from headrace.transforms.fixed import Standardize
from headrace.transforms.support import circles_of
from headrace.transforms.transform import Transform

if TYPE_CHECKING:
    from headrace._interior import Trainable

__all__ = ["Adam", "History"]

# Defaults of a fit.
CLIP = 5.0
AVERAGE = 0.999
PATIENCE = 50
CHECKPOINT_EVERY = 60.0  # seconds

TRYING = 0.1  # of a time budget, at most, to a trial of marginals
CHOOSING = 0.75  # of a time budget, at most, to cross-validation: five fits to four fifths of the rows for one to all


def fit(
    flow: Trainable,
    x: Any,
    context: Any,
    *,
    weights: Any,
    validation: Any,
    seed: Any,
    progress: bool,
    time_budget: Any = None,
    checkpoint: Any,
    checkpoint_every: Any,
    group: Any = None,
    **plan: Any,
) -> History:
    """See `Flow.fit`; nothing of the flow changes before all arguments are checked."""
    said = {"weights": weights, "validation": validation, "seed": seed, "progress": progress}
    kept_in = {"checkpoint": checkpoint, "checkpoint_every": checkpoint_every, "time_budget": time_budget}
    history = History()
    with flow._interior.restored(unless=lambda: history.best_epoch >= 0):
        try:
            if group is None:
                _fit_alone(flow, x, context, history, **said, **kept_in, **plan)
            else:
                from headrace.distributed.fit import fit as fit_together

                fit_together(flow, x, context, history, group=group, **said, **kept_in, **plan)
        except KeyboardInterrupt:
            history.stopped = "interrupted"
        if history.stopped == "interrupted" and history.best_epoch < 0:
            raise KeyboardInterrupt  # without better weights there is nothing to return
    return history


def _fit_alone(
    flow: Trainable,
    x: Any,
    context: Any,
    history: History,
    *,
    weights: Any,
    validation: Any,
    seed: Any,
    progress: bool,
    time_budget: Any,
    checkpoint: Any,
    checkpoint_every: Any,
    **plan: Any,
) -> None:
    """`fit` without a group; the history is filled in."""
    clock = Clock(time_budget)
    rng = np.random.default_rng(check.integer("seed", seed))
    kept = Checkpoint(checkpoint, checkpoint_every)
    caller = flow._interior.caller()
    validation = arrays_of(validation)
    data = _opened(flow, caller, x, context, weights, plan, kept.path is not None, progress)
    with caller.queue():
        one = _Fit(flow, data, validation, rng, caller, history, plan, clock, kept)
        if kept.path is not None:
            kept.open(fingerprint(flow, data, one.given, one.checked, int(seed), plan))
        one.go(progress)
        if history.stopped not in ("interrupted", "time_budget"):
            kept.remove()


def _opened(
    flow: Trainable,
    caller: Caller,
    x: Any,
    context: Any,
    weights: Any,
    plan: dict[str, Any],
    told: bool,
    progress: bool,
) -> Data:
    """Rows that are checked, or those of a stream that does not fit in its buffer, which is read later."""
    stream = stream_of(x, context, weights)
    if stream is not None:
        if flow._interior.on_device:
            raise TypeError("x: expected an array on the device of the flow, got a stream; call .to('cpu') of the flow")
        whole = stream.whole()
        if whole is None:
            Plan.of(flow, stream.buffer, judged=True, **plan)  # before the rows are read
            return StreamData(stream, flow.features, flow.context, flow._interior.support, told, progress)
        x, context, weights = whole.x, whole.context, whole.weights
    data = _rows.open_rows("", flow.features, flow.context, caller, x, context, weights, flow._interior.support)
    if stream is not None and len(stream.names) == flow.features:
        data.names = stream.names
    return data


class _Fit:
    """How one fit is judged, and from where it starts."""

    def __init__(
        self,
        flow: Trainable,
        data: Data,
        validation: Any,
        rng: np.random.Generator,
        caller: Caller,
        history: History,
        plan: dict[str, Any],
        clock: Clock,
        kept: Checkpoint,
    ) -> None:
        self.clock, self.kept = clock, kept
        self.flow, self.data, self.rng, self.caller, self.history, self.plan = flow, data, rng, caller, history, plan
        self.train, self.given = _rows.split(flow.features, flow.context, data, validation, rng, caller)
        if isinstance(data, StreamData):
            self.given = data.survey(self.train, self.given)
        self.checked = Plan.of(flow, self.train.size, judged=self.given is not None, **plan)
        self.fresh = flow._interior.is_fresh
        self.by_default = plan["epochs"] is None and self.given is not None
        self.kind: type[Run] = DeviceRun if flow._interior.on_device else Run
        if isinstance(data, StreamData):
            self.kind = StreamRun

    def go(self, progress: bool) -> None:
        """The fit."""
        held, steps = 0 if self.given is None else self.given[1].size, self.checked.epochs * self.checked.batches
        curves = _marginals.looked_for(self.checked.gaussianize, self.flow._interior, held, steps)
        few = self.by_default and self.given is not None and held < FEW
        if few and self.fresh and self.given is not None and self.given[0] is self.data:
            self._few(progress)
            return
        if few and self.given is not None:
            _rows.warn(
                f"fit: {held} held-out rows are too few to judge by; give more by `validation`, or "
                "say by `epochs` how long to train"
            )
        held_out = None
        if self.given is not None:
            held_out = HeldOut(*self.given, self.flow._interior.on_device)
            self.history.judged_by = "held-out rows"
        marginals = self._marginals(held_out) if curves and held_out is not None else ()
        _standardize(self.flow, self.data, self.train, marginals=marginals)
        self.history.gaussianized = bool(marginals)
        start = links = None
        if held_out is not None and self.fresh and self.train.size <= MANY:
            start = self.flow._interior.vector()
            links = self._gaussian(marginals) if self.by_default else None
        after = 0 if start is None else 2
        run = self._run(self.flow, self.train, held_out, self.checked, self.history, self.clock, after, self.kept)
        run.go(progress)
        judged = held_out is not None and self.history.stopped != "interrupted" and run.has_time_to_judge()
        lost = self.fresh and held_out is not None and is_untrained(self.history)
        if start is not None and held_out is not None and judged and (self.by_default or lost):
            with self.flow._interior.restored():  # to the trained weights
                links = self._gaussian(marginals) if links is None else links
                self._not_worse_than_a_gaussian(held_out, start, links, 1 + len(marginals))
        if lost and not (self.by_default and self.history.gaussian):
            warn_of_no_gain(self.history)

    def _gaussian(self, marginals: tuple[Transform, ...]) -> tuple[Transform, ...]:
        """Links that make the flow the Gaussian of the training rows; over curves where they are asked for."""
        kept = marginals if self.checked.gaussianize else ()
        standardize = self.flow._interior.standardize
        assert standardize is not None
        known = standardize.mean, standardize.std, self.flow.standardize_context, self.flow.dtype
        return (*_gaussian.decorrelating(self.data, self.train, *known, kept), *kept, standardize)

    def _marginals(self, held_out: HeldOut) -> tuple[Transform, ...]:
        """What makes columns about normal, where a short fit is better on held-out rows with it than without."""
        told, interior = self.checked.gaussianize, self.flow._interior
        before, clock = self.kept.gaussianized, self.clock.share(TRYING)
        if before is False:
            return ()
        moments = self.data.moments_of(self.train, False, False)
        found = _marginals.gaussianizing(self.data, self.train, *moments, Clock() if told or before else clock)
        _marginals.check_found(told, found)
        if not found or told or before:
            return found
        most = _marginals.STEPS * -(-self.train.size // self.checked.batches)
        data, part = _marginals.few(self.data, self.train, most)
        plan, runs = Plan.of(self.flow, part.size, judged=True, **self.plan), []
        kind = DeviceRun if interior.on_device else Run
        for links in (found, ()):
            flow = copy.copy(self.flow)
            _standardize(flow, self.data, self.train, marginals=links, say=False)
            rng = copy.deepcopy(self.rng)
            runs.append(kind(flow, data, part, held_out, plan, rng, self.caller, History(), clock))
        in_doubt = _marginals.has_long_tails(found)
        return found if _marginals.gain(runs[0], runs[1], held_out, in_doubt) else ()

    def _run(
        self,
        flow: Trainable,
        part: Part,
        held_out: HeldOut | None,
        plan: Plan,
        history: History,
        clock: Clock,
        judged_after: int = 0,
        kept: Checkpoint | None = None,
    ) -> Run:
        others = (self.rng, self.caller, history, clock, judged_after, kept)
        return self.kind(flow, self.data, part, held_out, plan, *others)

    def _few(self, progress: bool) -> None:
        """Cross-validation says how many epochs serve; then all rows are trained on."""
        self.history.judged_by = "cross-validation"
        part = self.train.whole()
        choosing = self.clock.share(CHOOSING)
        plan = {**self.plan, "weight_decay": None if self.plan["weight_decay"] == "auto" else self.plan["weight_decay"]}

        def made(flow: Trainable, rows: Part) -> Run:
            _standardize(flow, self.data, rows, gaussian=True, say=False)
            return self._run(flow, rows, None, Plan.of(flow, rows.size, judged=False, **plan), History(), choosing)

        history = self.history
        epochs, loss = 0, math.inf
        losses: list[float] = []
        if part.size >= LEAST:
            most = Plan.of(self.flow, part.size, judged=False, **plan).epochs
            epochs, losses, loss = chosen_epochs(self.flow, self.data, part, made, most, choosing)
        _standardize(self.flow, self.data, part, gaussian=True)
        if choosing.ran_out:
            history.stopped = "time_budget"
        if not epochs:
            history.best_loss, history.gaussian = loss, True
            return
        checked = Plan.of(self.flow, part.size, judged=False, **{**plan, "epochs": epochs})
        self._run(self.flow, part, None, checked, history, self.clock).go(progress)
        history.validation_loss = losses
        if history.best_epoch + 1 == epochs:
            history.best_loss = losses[-1]

    def _not_worse_than_a_gaussian(self, held_out: HeldOut, start: Any, links: tuple[Transform, ...], own: int) -> None:
        """Put the Gaussian of the training rows in place of weights that are not clearly better.

        With epochs given, the Gaussian has to be the one that is clearly better. `own`: so many links the fit has put
        at the data end.
        """
        flow, history = self.flow, self.history
        other = copy.copy(flow)
        other._interior.rescale(links, None, _gaussian.quietened(other, start), replaced=own)
        fitted, simple = -held_out.log_probs(flow), -held_out.log_probs(other)
        weights = held_out.weights()
        if not np.isfinite(fitted).all():
            is_kept = False
        elif self.by_default:
            is_kept = clearly_better(fitted, simple, weights)
        else:
            is_kept = not clearly_better(simple, fitted, weights)
        if is_kept:
            return
        flow._interior.become(other)
        history.best_epoch, history.gaussian = -1, True
        history.gaussianized &= bool(self.checked.gaussianize)
        history.best_loss = float((simple * weights).sum() / weights.sum())


def _standardize(
    flow: Trainable,
    data: Data,
    train: Part,
    *,
    gaussian: bool = False,
    marginals: tuple[Transform, ...] = (),
    say: bool = True,
) -> None:
    """Set what a fit standardises, unless an earlier one has; with a Gaussian, correlations too, or marginals."""
    interior = flow._interior
    links: tuple[Transform, ...] | None = None
    columns = None
    one_row = data.context is not None and data.context.shape[0] == 1 != data.x.shape[0]  # says nothing of a spread
    if data.context is not None and flow.standardize_context is None and not one_row:
        columns = data.moments_of(train, True, say)
        if say:
            few, part = _marginals.few(data, train, _rows.CHUNK)
            context: Any = few.rows(part.all()).context
            _rows.warn_of_far_contexts(_rows.inner_ends(_arrays.on_host(context), columns), columns[1])
    if interior.is_fresh:
        circles = circles_of(data.support)
        mean, std = data.moments_of(train, False, say)
        if say:
            _rows.warn_of_weights(*data.effective_rows(train))
        mean[circles], std[circles] = 0.0, 1.0  # they lie in [-1, 1) already, and have no middle
        if say:
            _rows.warn_of_offsets(data, mean, std, flow.dtype)
        links = (Standardize(mean, std),)
        if gaussian:
            scale = flow.standardize_context if columns is None else columns
            links = (*_gaussian.decorrelating(data, train, mean, std, scale, flow.dtype), *links)
        links = (*marginals, *links)
    if links is not None or columns is not None:
        interior.rescale(links, columns, _gaussian.quietened(flow, interior.vector()) if gaussian else None)
    start_act_norms(flow, data, train)
