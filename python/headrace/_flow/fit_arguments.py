"""The arguments of `Flow.fit`, each with its type, default, check and meaning.

A new argument is a key of `FitKeywords`, which static checkers read, and a field of `Arguments` with its entry in the
docstring. `Flow.fit`, ensembles, streams, groups, Dask, `headrace.sklearn` and, with an `option`, the command line have
it then, with its help.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict

import numpy as np

from headrace._arrays.caller import Array
from headrace._base import arguments as check
from headrace._base.group import Group
from headrace._base.keywords import argument, checked_fields
from headrace._base.types import Self

CLIP = 5.0
AVERAGE = 0.999
PATIENCE = 50
CHECKPOINT_EVERY = 60.0  # seconds
EFFORTS = {"normal": "headrace._fit.fit", "high": "headrace._fit.high_effort"}
"""Ways to fit, and their modules; that of "high" imports flows, and is imported on first use."""


def _cosine(done: float) -> float:
    """A factor from 1 to nearly 0."""
    return max(0.5 * (1.0 + math.cos(math.pi * done)), 1e-3)


SCHEDULES = {"cosine": _cosine, "plateau": None, "constant": None}
"""Factors of the learning rate when this share of all steps is done; None for 1 at any time."""
BY_LOSS = ("plateau",)
"""Schedules that also halve the rate by the loss of held-out rows."""
OPTIMIZER_NAMES = ("adam", "muon")
"""The optimisers in `headrace._fit.optimizer`, in its order."""


class FitKeywords(TypedDict, total=False):
    """Keywords of `Flow.fit`, beside x and context."""

    weights: Array | None
    validation: Any
    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    schedule: str
    optimizer: str
    weight_decay: float | str | None
    clip: float | None
    average: float | None
    patience: int | None
    time_budget: float | None
    matmul: str | None
    gaussianize: bool | str
    seed: int
    progress: bool
    checkpoint: str | os.PathLike[str] | None
    checkpoint_every: float | str
    group: Group | None
    effort: str
    keep: bool


def _decay(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return check.choice(name, value, ("auto",))
    return check.number(name, value, least=0.0, below=math.inf)


def _gaussianize(name: str, value: Any) -> Any:
    if not isinstance(value, (bool, np.bool_)) and value != "auto":
        raise ValueError(f"{name}: expected True, False or 'auto', got {value!r}")
    return value


@dataclass(frozen=True, kw_only=True, eq=False)
class Arguments:
    """The arguments of one call.

    Args:
        weights: Shape (rows,): weights of the rows, not negative; rows of weight 0 take no part.
        validation: The share of rows to hold out, or rows of your own: ``x_val`` or ``(x_val, context_val,
            weights_val)``; None for none, and then the last weights (their running mean) are kept. Of a stream at most
            as many rows are held out as its buffer holds.
        epochs: Passes over the training rows, at most; by default as many as make 20,000 steps, 10 to 300, and twice as
            many where held-out rows choose the weight decay.
        batch_size: Rows of a step; by default a 64th of the rows, 32 to 512.
        learning_rate: At the start; by default 5e-3, or 1.28 over the units of the widest hidden layer if less.
        schedule: "constant", "cosine" (down to nothing over all epochs) or "plateau" (halved whenever a third of
            `patience` passes without a new best on held-out rows, or in training if there are none). "auto": constant;
            flows of networks (by Adam, with splines) are then fitted with a cosine, too, and held-out rows choose,
            where 8,000 to 50,000 rows are left to train on and `epochs`, `weight_decay` and `patience` are the
            defaults.
        optimizer: "adam" or, on the CPU, "muon"; see `headrace.Adam` and `headrace.Muon`. "auto": Adam, and Muon for
            the cosine that `schedule="auto"` tries in flows of rows.
        weight_decay: Of the networks' matrices; see `headrace.Adam`. "auto": held-out rows choose, from 1000 over the
            rows, at most 1, down to a 125th of that; None: the first of these.
        clip: The largest norm of a gradient; None for no limit.
        average: Decay of a running mean of the weights, which is tried on held-out rows and kept; None for the
            weights themselves.
        patience: Epochs without a new best on held-out rows after which the fit ends (half as many where it goes on
            with less weight decay instead); None for no end.
        time_budget: Seconds that all of this may take: the fit ends before a step that would exceed them, keeps the
            best weights as ever (`History.stopped` is "time_budget"; ``schedule="cosine"`` comes to its end with the
            time). How many steps that makes depends on the machine, so that such a fit is not the same twice. Of
            ``effort="high"`` it is the time of all: as many flows are fitted as there is time for; None: four, for as
            long as they need.
        matmul: How steps compute products of networks: "exact", on the CPU "bf16", "bf16_tiles", ..., on a device
            "tf32" or "3xtf32"; by default as the flow does, see `to`. The flow's own products judge held-out rows
            (docs/bf16.md).
        gaussianize: Whether the first fit also sets a `Gaussianize` before that `Standardize`: it makes a
            column about normal where rows gain by it in cross-validation. "auto": unless held-out rows lose by
            it, by more than a standard error (with heavy tails, two), in a trial of 400 steps with it and without, in
            fits of 4000 steps or more; if fewer than 50 rows are held out, cross-validation decides, without `epochs`.
            Never over a base with edges, modes or tails of its own. True is an error where none can be set, or no
            column gains.
        seed: Of the choice of held-out rows and of the order of rows.
        progress: Whether to show a bar on the standard error.
        checkpoint: A file for the state of the fit. Where the file exists, the same call with a flow made in the same
            way goes on from it, to the same bits as without a stop; that of another fit is refused. The file is removed
            when the fit ends, but for Ctrl-C (docs/training.md).
        checkpoint_every: Seconds between two writes of the checkpoint, or "epoch", or as "10 epochs". After Ctrl-C it
            is written too.
        group: Who fits together (`headrace.distributed`). Then x, context, weights and rows of your own to judge by are
            dicts of the shards that this rank holds, ``{number: array}``; all ranks end with the same flow, which has
            the same bits for any number of them (docs/scale.md). None: this process alone.
        effort: "high", for some ten times as long: several flows are fitted to the same rows, this one among them, and
            then this one to samples of their mixture and to the rows. It ends as the best of these on held-out rows, of
            those that have its structure; of few rows by cross-validation (docs/training.md).
        keep: Of effort="high": whether `History.members` keeps the flows, as a `headrace.Ensemble`.
    """

    weights: Array | None = argument()
    validation: Any = argument(0.1)
    epochs: int | None = argument(None, check.integer, of_plan=True, option=True)
    batch_size: int | None = argument(None, check.whole(1), of_plan=True, option=True)
    learning_rate: float | None = argument(None, check.real(above=0.0), of_plan=True, option=True)
    schedule: str = argument(
        "auto", check.one_of(*SCHEDULES, "auto"), of_plan=True, option="of the learning rate: " + ", ".join(SCHEDULES)
    )
    optimizer: str = argument(
        "auto", check.one_of(*OPTIMIZER_NAMES, "auto"), of_plan=True, option=" or ".join(OPTIMIZER_NAMES)
    )
    weight_decay: float | str | None = argument("auto", _decay, of_plan=True, option="of the networks' matrices")
    clip: float | None = argument(CLIP, check.real(above=0.0), of_plan=True, option=True)
    average: float | None = argument(AVERAGE, check.real(above=0.0, below=1.0), of_plan=True, option=True)
    patience: int | None = argument(PATIENCE, check.whole(1), of_plan=True, option=True)
    time_budget: float | None = argument(
        None,
        check.real(above=0.0),
        option="seconds that the fit may take; with --effort high the number of flows depends on it",
    )
    matmul: str | None = argument(None, of_plan=True)
    gaussianize: bool | str = argument(
        "auto", _gaussianize, of_plan=True, option="whether columns are made normal first: true, false or auto"
    )
    seed: int = argument(0)
    progress: bool = argument(True)
    checkpoint: str | os.PathLike[str] | None = argument(None, option=True)
    checkpoint_every: float | str = argument(CHECKPOINT_EVERY, option=True)
    group: Group | None = argument()
    effort: str = argument(
        "normal",
        check.one_of(*EFFORTS),
        option="normal or high; several flows are fitted then, and one to samples of their mixture",
    )
    keep: bool = argument(False, check.truth)

    @property
    def plan(self) -> dict[str, Any]:
        """The arguments that affect how steps are taken, by name."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.metadata["of_plan"]}

    def checked(self) -> Self:
        """Checked arguments; an error names the argument, the expected value and the given one."""
        return replace(self, **checked_fields(self))
