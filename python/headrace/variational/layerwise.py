"""The first phase of a distillation: each transform of the student learns the teacher's transform of its index.

A MAF's transform, seen from its latent side, is an IAF's transform with another network, and the two have a KL in
closed form. Transforms are paired from the latent end on; docs/variational.md has the measurements.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._flow.bases import Normal
from headrace._flow.flow import Flow
from headrace._flow.transforms.masked import MaskedAutoregressive
from headrace._flow.transforms.transform import Transform
from headrace.variational.closed_form import ConditionalStep, Draw, draw_of, why_not
from headrace.variational.descent import JUDGE_BY, Descent, DescentPlan, StepHistory, mean_and_error, seed_of
from headrace.variational.target import Contexts

COMPARED = 16_384  # the number of samples for the divergence of one exchanged transform


@dataclass(frozen=True)
class Correspondence:
    """Each transform of the teacher with the student's transform of its index, as pairs of separate flows."""

    pairs: list[tuple[Flow, Flow]]
    starts: list[int]
    """The index in the teacher of the first transform of each pair."""
    reason: str
    """The reason why there are no pairs; "" if there are pairs."""


@dataclass
class Alone:
    """The outcome of the first phase, in which transforms are trained alone."""

    histories: list[StepHistory] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    """For each k the KL to the teacher's first k transforms of the same with the last one exchanged for the student's;
    later transforms do not change this KL."""

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C ended the first phase of the distillation."""
        return bool(self.histories) and self.histories[-1].stopped == "interrupted"


def correspondence(teacher: Flow, student: Flow) -> Correspondence:
    """A pair for each transform of the teacher, from the latent end on; none unless each pair has a KL in closed form.

    Additional transforms of a student, at the data end, belong to no pair, and become the identity. The student's fixed
    scales at the data end are part of the last pair, like the teacher's.
    """
    base, own_base = teacher._interior.base, student._interior.base
    if type(base) is not type(own_base):
        return _none("the bases are of different kinds")
    if isinstance(base, Normal):
        return _none("the bases have means and deviations of their own")
    cuts, own_cuts = _cuts(teacher), _cuts(student)
    if not cuts:
        return _none("the teacher has no autoregressive transforms")
    if len(own_cuts) < len(cuts):
        return _none(
            f"the student has fewer autoregressive transforms than the teacher, {len(own_cuts)} of {len(cuts)}"
        )
    pairs = []
    for k, (theirs, part) in enumerate(zip(cuts, own_cuts, strict=False)):
        rest = student.transforms[part[1] :] if k == len(cuts) - 1 else ()
        fixed = [t for t in rest if not isinstance(t, MaskedAutoregressive)]
        pair = (
            _part(teacher, teacher.transforms[slice(*theirs)]),
            _part(student, [*student.transforms[slice(*part)], *fixed]),
        )
        if reason := why_not(*pair):
            return _none(f"of transform {k + 1}, {reason}")
        pairs.append(pair)
    return Correspondence(pairs, [start for start, _ in cuts], "")


def learn_one_by_one(
    teacher: Flow,
    student: Flow,
    matched: Correspondence,
    contexts: Contexts,
    plan: DescentPlan,
    rng: np.random.Generator,
    progress: bool,
) -> Alone:
    """Train the student's transforms on the teacher's of equal index; additional transforms become the identity."""
    alone = Alone()
    for k, ((theirs, learner), start) in enumerate(zip(matched.pairs, matched.starts, strict=True)):
        before = teacher[:start] if start else Flow([], teacher.base, dtype=teacher.dtype)
        draw = _draw_before(before, contexts, rng) if k else draw_of(student, contexts, rng)
        step = ConditionalStep(theirs, learner, draw, plan)
        z, context = draw(JUDGE_BY * plan.samples)

        def judge(p: NDArray[Any], step: Any = step, z: Any = z, context: Any = context) -> tuple[float, float]:
            return mean_and_error(step.kl(z, context, p))

        name = f"distill, transform {k + 1} of {len(matched.pairs)}"
        alone.histories.append(Descent(name, learner, plan, step, judge).go(progress))
        if alone.is_interrupted:
            break
        alone.kl.append(_exchanged(before, theirs, learner, contexts, rng))
    if matched.pairs:
        rest = student.transforms[_cuts(student)[len(matched.pairs) - 1][1] :]
        learnt = [learner.parameters for _, learner in matched.pairs]
        student.parameters = np.concatenate([*learnt, *map(_identity_weights, rest)])
    return alone


def _none(reason: str) -> Correspondence:
    return Correspondence([], [], reason)


def _cuts(flow: Flow) -> list[tuple[int, int]]:
    """Index pairs (start, end) that cut a chain into parts with one autoregressive transform each."""
    chain = flow._interior.chain
    ends = [i + 1 for i, t in enumerate(chain) if isinstance(t, MaskedAutoregressive)]
    ends[-1:] = [len(chain)] if ends else []
    return list(pairwise([0, *ends]))


def _part(flow: Flow, chain: list[Transform] | tuple[Transform, ...]) -> Flow:
    scale = flow.standardize_context if any(t.context for t in chain) else None
    return Flow(chain, dtype=flow.dtype, standardize_context=scale)


def _draw_before(flow: Flow, contexts: Contexts, rng: np.random.Generator) -> Draw:
    """A function that draws samples of the transforms before a pair, and their context."""

    def draw(rows: int) -> tuple[NDArray[np.float64], NDArray[Any] | None]:
        context = contexts(rows, rng)
        return flow.sample(rows, context if flow.context else None, seed_of(rng)).astype(np.float64), context

    return draw


def _exchanged(before: Flow, theirs: Flow, learner: Flow, contexts: Contexts, rng: np.random.Generator) -> float:
    """KL of `learner` after `before` to `theirs` after `before`, from samples; NaN if a log density is not finite."""
    u, context = _draw_before(before, contexts, rng)(COMPARED)
    x, own_log_det = learner.to_data(u.astype(learner.dtype), context if learner.context else None)
    v, their_log_det = theirs.to_latent(x, context if theirs.context else None)
    known = context if before.context else None
    moved, kept = (before.log_prob(side.astype(before.dtype), known).astype(np.float64) for side in (u, v))
    return float(np.mean(moved - own_log_det - kept - their_log_det))


def _identity_weights(t: Transform) -> NDArray[Any]:
    """The transform's weights with a last layer that makes the transform the identity for any input."""
    packed: NDArray[Any] = t.parameters
    if isinstance(t, MaskedAutoregressive):
        tensors = [tensor.copy() for tensor in t._network.core.unpack(packed)]
        tensors[-2][:] = 0.0
        tensors[-1][:] = np.tile(t._settings.identity, t.features)
        packed = t._network.core.pack(tensors)
    return packed
