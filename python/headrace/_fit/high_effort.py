"""`fit(effort="high")`: several flows are fitted to the same rows, and then another flow to samples of their mixture.

The variance of a single fit costs more than its bias: a mixture of several fits is better than each fit, and one flow
can learn the mixture from any number of samples. In fits of few rows, cross-validation replaces held-out rows, and all
members of the mixture have equal weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.row_parts import held_of
from headrace._base import arguments as check
from headrace._base.platform import give_memory_back
from headrace._base.stored import header_of
from headrace._base.types import Floats
from headrace._base.warn import fixed_epochs
from headrace._fit import clock as _clock
from headrace._fit.checkpoint import Checkpoint
from headrace._fit.clock import Clock
from headrace._fit.ensemble import Ensemble, mixed
from headrace._fit.few_rows import Chosen, can_mix
from headrace._fit.fit import Fit, finished
from headrace._fit.given_rows import Data, is_share, outside
from headrace._fit.history import History, is_interrupted
from headrace._fit.plan import LEAST_HELD_OUT
from headrace._fit.run import HeldOut
from headrace._fit.side_by_side import Failed, run, threads_side_by_side
from headrace._fit.source import ArrayRows
from headrace._flow.fit_arguments import Arguments
from headrace._flow.flow import Flow
from headrace._flow.flows import MAF, NSF
from headrace._flow.tails import Uniform

MEMBERS, MOST_MEMBERS = 4, 16  # numbers of members without and with a time budget
MEMBERS_TIME = 0.6  # share of the time budget for the fits of members
MANY = 8000  # with this many training rows, more members have splines, with different decays
SAMPLES = 200_000  # samples of the mixture, at most
BYTES = 1 << 25  # the most memory of the mixture's samples
DRAWN = 1 << 13  # samples that are drawn at a time
STEPS, BATCH = 15_000, 512  # steps of the student's training, and rows in a batch
DECAY = 0.01
REAL = 0.25  # total weight of the training rows over total weight of the samples
FEWEST = 50  # least number of rows of a fit by high effort
STEPS_OF_FEW, JUDGED = 8000, 0.1  # steps of a student of few rows, and the share of its samples that judge it
FAR = 10.0  # samples further beyond the training rows than this many ranges of a column are dropped


# ---- members ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kind:
    """A way to make a member of the mixture; the first member is a fit of the caller's flow instead."""

    name: str
    make: Callable[..., Flow]
    decays: float = 1.0
    """A factor of the weight decay in fits of many rows, one for each member: no decay is best for all tables."""
    is_taught: bool = False
    """Whether the flow learns a mixture of normal densities."""


_KINDS = (
    _Kind("NSF with residual blocks", partial(NSF, residual=True)),
    _Kind("NSF", NSF, 0.25),
    _Kind("MAF", MAF),
    _Kind("NSF with residual blocks", partial(NSF, residual=True), 2.5),
)
_SMALLER, _LARGER = (0, 1, 2), (0, 1, 3, 2)  # the order of kinds, repeated for more members

_OF_FEW = (_Kind("mixture of normal densities", NSF, is_taught=True), _Kind("MAF", MAF), _Kind("NSF", NSF))


@dataclass
class _Member:
    name: str
    flow: Flow
    history: History
    seconds: float
    fits_in: bool
    """Whether the member has the structure of the caller's flow, so that the caller's flow can become this member."""
    judged: Chosen | None
    """The result of cross-validation, where rows are few."""


class _HighEffort:
    """One call of `fit` with ``effort="high"``."""

    def __init__(self, flow: Flow, x: Any, context: Any, arguments: Arguments) -> None:
        """Check all arguments, and open the rows."""
        self.flow, self.arguments = flow, _refused(flow, arguments)
        self.clock = Clock(arguments.time_budget)
        self.members_clock = self.clock.share(MEMBERS_TIME) if self.clock.is_limited else self.clock
        self.structure, self.kept = _structure(flow), Checkpoint(arguments.checkpoint, arguments.checkpoint_every)
        self.states: list[Checkpoint] = []
        self.first = self._fit_of(copy.copy(flow), 0)
        self.first.open(x, context)
        self.rows, self.is_few = _enough(self.first, arguments)
        self.kinds: Sequence[_Kind] = [_KINDS[i] for i in (_LARGER if self.rows >= MANY else _SMALLER)]
        if self.is_few:
            assert isinstance(self.first.source, ArrayRows)
            self.kinds = _OF_FEW if can_mix(flow, self.first.source) else _OF_FEW[1:]
        self.found: list[_Member] = []

    def _fit_of(self, flow: Flow, index: int) -> Fit:
        arguments = replace(self.arguments, checkpoint=self._path(index), seed=self.arguments.seed + index, keep=False)
        if self.members_clock.is_limited:
            arguments = replace(arguments, time_budget=max(self.members_clock.left(), 1e-9))
        return self._kept(Fit(flow, History(), arguments))

    def _path(self, what: int | str) -> str | None:
        """The path of the checkpoint of one fit: the path of the caller's checkpoint with a suffix."""
        return None if self.kept.path is None else f"{self.kept.path}.{what}"

    def _kept(self, fit: Fit) -> Fit:
        """Return the fit, set so that its checkpoint stays until all fits are over."""
        fit.kept.stays = True
        self.states.append(fit.kept)
        return fit

    def go(self) -> History:
        """Fit the members and the student; the caller's flow becomes the best flow that has its structure."""
        interrupted = self._fit_members()
        members = self.found
        if not members or members[0].name != _OWN:
            raise KeyboardInterrupt
        tried = {f"{i}: {member.name}": member.history.best_loss for i, member in enumerate(members)}
        best = min((member for member in members if member.fits_in), key=lambda member: member.history.best_loss)
        chosen, flow, history = best.name, best.flow, best.history
        mixture: Ensemble | None = None
        if not interrupted and len(members) > 1:
            mixture, tried["mixture"] = self._mixture()
            student = self._fit_student(mixture, tried["mixture"])
            interrupted = student is None or is_interrupted(student[1])
            if student is not None:
                tried["student"] = student[1].best_loss
                if student[1].best_loss <= history.best_loss:
                    chosen, (flow, history) = "student", student
        self.flow._interior.become(flow)
        self.flow._interior.name(self.first.names())
        if interrupted:
            history.stopped = "interrupted"
        else:
            for state in self.states:
                state.stays = False
                state.remove()
        history.tried, history.chosen = tried, chosen
        history.fits = [replace(member.history) for member in members]
        history.members = mixture if self.arguments.keep else None
        return history

    # ---- members

    def _fit_members(self) -> bool:
        """Fit the members side by side; return whether Ctrl-C ended the fits."""
        limited = self.members_clock.is_limited
        some = [self.flow] * (MOST_MEMBERS if limited else MEMBERS)
        try:
            done = run(
                self._jobs(len(some)),
                threads_side_by_side(some),
                total=None if limited else len(some),
                what="members",
                progress=bool(self.arguments.progress),
                is_interrupted=lambda member: is_interrupted(member.history),
            )
        except Failed as failed:
            raise failed.error from None
        self.found = done.leading()
        give_memory_back()
        return done.interrupted

    def _jobs(self, most: int) -> Iterator[Callable[[], _Member]]:
        """The fits of the members in order; with a time budget, as long as there is time for the longest fit."""
        for index in range(most):
            yield partial(self._member, index)
            longest = max((member.seconds for member in self.found), default=0.0)
            if self.members_clock.is_limited and index and not self.members_clock.has(longest):
                return

    def _member(self, index: int) -> _Member:
        begin = _clock.now()
        if index == 0:
            fit, name, fits_in = self.first, _OWN, True
        else:
            kind = self.kinds[(index - 1) % len(self.kinds)]
            flow = _fresh(self.flow, kind.make, self.arguments.seed + index)
            name, fits_in = kind.name, _structure(flow) == self.structure
            fit = self._fit_of(flow, index)
            fit.decays, fit.is_taught = kind.decays if self.rows >= MANY else 1.0, kind.is_taught
            fit.source, fit.judge, fit.progress = self.first.source, self.first.judge, self.first.progress
        history = finished(fit.flow, fit.history, lambda: fit)
        member = _Member(name, fit.flow, history, _clock.now() - begin, fits_in, fit.judged)
        self.found.append(member)
        return member

    # ---- the mixture and its student

    def _mixture(self) -> tuple[Ensemble, float]:
        """The mixture with the best weights on held-out rows, and its held-out loss; in a fit of few rows, the mixture
        with equal weights, and its loss in cross-validation.
        """
        flows = [member.flow for member in self.found]
        if self.is_few:
            judged = [member.judged for member in self.found if member.judged is not None]
            return Ensemble(flows), judged[0].mean(-_mixed_equally([-member.best for member in judged]))
        assert self.first.judge is not None
        judge = HeldOut(self.first.judge)
        weights, loss = weights_of_mixture(np.stack([judge.log_probs(flow) for flow in flows]), judge.weights())
        return Ensemble(flows, weights), loss

    def _fit_student(self, mixture: Ensemble, loss: float) -> tuple[Flow, History] | None:
        """Fit a student to samples and rows; return None if Ctrl-C came before the student had better weights.

        `loss`: the mixture's loss. In a fit of few rows, the student's loss is `loss` plus the mean of log p(mixture) -
        log p(student) over held-out samples.
        """
        arguments, student = self.arguments, copy.copy(self.flow)
        before = _clock.now() - self.clock.begin
        data = self._rows_of_student(mixture)
        give_memory_back()
        size = len(data.x)
        batch = min(BATCH if arguments.batch_size is None else arguments.batch_size, size)
        read = (STEPS_OF_FEW if self.is_few else STEPS) * batch if arguments.epochs is None else self._rows_of_members()
        settings: dict[str, Any] = {"epochs": max(round(read / size), 1), "batch_size": batch}
        if arguments.schedule == Arguments.schedule:
            settings |= {"schedule": "cosine", "patience": None}
        if arguments.weight_decay == Arguments.weight_decay:
            settings["weight_decay"] = DECAY
        if self.clock.is_limited:
            settings["time_budget"] = max(self.clock.left(), 1e-9)
        settings |= {"checkpoint": self._path("student"), "keep": False}
        fit = self._kept(Fit(student, History(), replace(arguments, **settings)))
        fit.source, fit.judge, fit.what = ArrayRows(data), self.first.judge, "student"
        if self.is_few:
            fit.source, fit.judge = fit.source.split(JUDGED, fit.rng, fit.caller)
        fit.clock.cpu_begin = self.clock.cpu_begin
        try:
            history = finished(student, fit.history, lambda: fit)
        except KeyboardInterrupt:
            return None
        history.seconds = [before + seconds for seconds in history.seconds]
        if self.is_few and fit.judge is not None:
            judge = HeldOut(fit.judge)
            known = _mixed_equally([judge.log_probs(flow) for flow in mixture.flows])
            history.best_loss += loss + float(np.average(known, weights=judge.weights()))
            history.judged_by = self.first.history.judged_by
        return student, history

    def _rows_of_members(self) -> int:
        """The number of rows that all members together read in all epochs, if the caller gives the number of epochs."""
        assert self.arguments.epochs is not None
        return max(len(self.found) * self.arguments.epochs * self.rows, 1)

    def _rows_of_student(self, mixture: Ensemble) -> Data:
        """The student's data, with weights: samples of the mixture and, unless rows are few, training rows."""
        source = self.first.source
        assert isinstance(source, ArrayRows)
        data, features = source.data, self.flow.features
        dtype = np.result_type(data.x.dtype, self.flow.dtype)
        most = min(SAMPLES, max(BYTES // (features * dtype.itemsize), 1))
        if self.arguments.epochs is not None:
            most = min(most, self._rows_of_members())
        real, index = source.some(0 if self.is_few else most)
        x = np.empty((most + len(index), features), dtype)
        share = np.empty(len(x))
        drawn = source.part.at(np.arange(most, dtype=np.int64) % source.part.size)  # rows with the samples' contexts
        context = data.context
        has_rows = context is not None and context.shape[0] == data.x.shape[0]
        contexts = None if context is None else context[0] if not has_rows else context[drawn]
        kept, least, most_of = 0, *self._ends(source)
        taken = []
        for begin in range(0, most, DRAWN):
            some = slice(begin, min(begin + DRAWN, most))
            conditions = contexts[some] if has_rows and contexts is not None else contexts
            rows = mixture.sample(some.stop - begin, conditions, seed=self.arguments.seed, first_row=begin, dtype=dtype)
            good = np.flatnonzero(self._is_near(rows, least, most_of))
            x[kept : kept + good.size] = rows[good]
            share[kept : kept + good.size] = data.shares(drawn[some][good]) if has_rows else 1.0
            taken.append(begin + good)
            kept += good.size
        end = kept + len(index)
        x[kept:end] = real.x[index]
        own_share = data.shares(index)
        factor = REAL * share[:kept].sum() / own_share.sum() if kept and index.size else 1.0
        share[kept:end] = own_share * factor
        if has_rows and context is not None and contexts is not None:
            context = np.concatenate([contexts[np.concatenate(taken)], context[index]])
        return Data(x[:end], context, share[:end], data.names, data.support)

    def _ends(self, source: ArrayRows) -> tuple[Floats, Floats]:
        """The least and the largest value of samples in each column: `FAR` ranges beyond the training rows."""
        least, most = np.full(self.flow.features, math.inf), np.full(self.flow.features, -math.inf)
        for data in source.parts():
            x = _arrays.on_host(data.x)
            least, most = np.minimum(least, x.min(axis=0)), np.maximum(most, x.max(axis=0))
        return least - FAR * (most - least), most + FAR * (most - least)

    def _is_near(self, rows: NDArray[Any], least: Floats, most: Floats) -> NDArray[np.bool_]:
        good: NDArray[np.bool_] = np.asarray(((rows >= least) & (rows <= most)).all(axis=1))  # no NaN either
        if (support := self.flow._interior.support) is not None:
            good &= ~np.asarray(outside(rows, support).any(axis=1))
        return good


def with_effort(effort: Any, takes: Collection[str]) -> dict[str, Any]:
    """Default settings of a new flow that depend on the effort: "high" fits need a flow that can learn a mixture.

    `takes`: the names of the settings that the flow's class has and the caller leaves at their defaults.
    """
    return {"residual": True} if effort == "high" and "residual" in takes else {}


_OWN = "the flow's own fit"


def _mixed_equally(log_probs: list[Floats]) -> Floats:
    return np.asarray(mixed(log_probs, np.full(len(log_probs), 1.0 / len(log_probs))))


def _structure(flow: Flow) -> Any:
    """A description of the flow, equal for flows of the same structure; the flow itself if a file cannot
    describe it.
    """
    try:
        return header_of(flow)
    except TypeError:
        return flow


def _fresh(flow: Flow, make: Callable[..., Flow], seed: int) -> Flow:
    """Make a fresh flow by `make` for the rows of `flow`, with the same bounds and periods."""
    support, ends = flow._interior.support, dict[str, Any]()
    if support is not None:
        ends = {"bounds": support.bounds, "periodic": support.periodic if any(support.periodic) else None}
        if isinstance(flow.base, Uniform) and not any(support.periodic):
            ends["base"] = "uniform"
    arithmetic: dict[str, Any] = {"dtype": flow.dtype, "matmul": flow.matmul}
    return make(flow.features, context=flow.context, seed=seed, **arithmetic, **ends)


def weights_of_mixture(log_probs: Floats, weights: Floats) -> tuple[Floats, float]:
    """Mixture weights that maximise the likelihood of rows, by expectation-maximisation, and the mixture's loss.

    Args:
        log_probs: Log densities of the rows under each member, shape (members, rows).
        weights: Weights of the rows, shape (rows,).

    >>> found, loss = weights_of_mixture(np.log([[0.8, 0.8, 0.1], [0.2, 0.2, 0.9]]), np.ones(3))
    >>> found.round(2).tolist()
    [0.64, 0.36]
    """
    share = weights / weights.sum()
    finite = np.nan_to_num(log_probs, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    top = np.maximum(finite.max(axis=0), -1e300)
    density = np.exp(finite - top)
    members = np.full(len(density), 1.0 / len(density))
    for _ in range(1000):
        parts = members[:, None] * density
        total = parts.sum(axis=0)
        sums = (parts / np.where(total > 0, total, 1.0)) @ share
        if not (size := sums.sum()) > 0:
            break
        members, before = sums / size, members
        if np.abs(members - before).max() < 1e-6:
            break
    with np.errstate(divide="ignore"):
        loss = -float(((np.log(members @ density) + top) * share).sum())
    return members, loss


# ---- checks ----------------------------------------------------------------------------------------------------------


def _refused(flow: Flow, arguments: Arguments) -> Arguments:
    """The arguments of the fit of the caller's flow; raises ValueError for those that high effort does not support."""
    if arguments.effort == "normal":
        raise ValueError("keep: expected False with effort='normal', which has one flow, got True")
    if arguments.group is not None:
        raise ValueError(f"group: expected None with effort='high', on several ranks, got {arguments.group!r}")
    if arguments.checkpoint is not None and arguments.time_budget is not None:
        raise ValueError(f"time_budget: expected None beside checkpoint, effort='high', got {arguments.time_budget!r}")
    if flow._interior.on_device:
        raise ValueError("effort: expected 'normal' for a flow on a device, got 'high'; call flow.to('cpu')")
    held = arguments.validation
    if held is None or (is_share(held) and not held):
        raise ValueError(f"validation: expected rows to hold out with effort='high', which weigh flows, got {held!r}")
    return replace(arguments, effort="normal", seed=check.integer("seed", arguments.seed))


def _enough(first: Fit, arguments: Arguments) -> tuple[int, bool]:
    """The number of training rows, and whether cross-validation replaces held-out rows, because these would be too few.

    Raises:
        ValueError: if rows are too few even for cross-validation, or a stream is larger than its buffer.
    """
    source, judge = first.source, first.judge
    if source.is_stream:
        raise ValueError(
            "effort: expected 'normal' for a stream of more rows than its buffer holds, got 'high'; give some of the "
            "rows as an array, or a larger buffer"
        )
    held = 0 if judge is None else judge.size
    if held >= LEAST_HELD_OUT:
        return source.size, False
    if not is_share(arguments.validation):
        raise ValueError(f"validation: expected at least {LEAST_HELD_OUT} rows with effort='high', got {held}")
    rows = held + source.size
    if arguments.epochs is not None or not first.flow._interior.is_fresh:
        need = _rows_needed(arguments.validation)
        raise ValueError(
            f"x: expected at least {need} rows with effort='high' and validation={arguments.validation:g}, so that "
            f"{LEAST_HELD_OUT} are held out to weigh its flows by, got {rows}"
        )
    if rows < FEWEST:
        raise ValueError(f"x: expected at least {FEWEST} rows with effort='high', got {rows}")
    return rows, True


def _rows_needed(share: float) -> int:
    """The least number of rows of which a share `share`, to hold out, has at least `LEAST_HELD_OUT` rows."""
    rows = math.floor((LEAST_HELD_OUT - 1) / share)
    while held_of("validation", share, rows) < LEAST_HELD_OUT:
        rows += 1
    return rows


def fit_with_high_effort(flow: Any, x: Any, context: Any, arguments: Arguments) -> History:
    """See `Flow.fit`."""
    with flow._interior.restored(), fixed_epochs():
        return _HighEffort(flow, x, context, arguments).go()
