"""The arguments of `Flow.fit`, each with its type, default, check and meaning.

A new argument needs a key in `FitKeywords`, which static checkers read, a field in `Arguments`, and an entry in the
docstring of `Arguments`. `Flow.fit`, ensembles, streams, groups, Dask, `headrace.sklearn` and, for a field with an
`option`, the command line have the same arguments and the same help.
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
CHECKPOINT_EVERY = 60.0  # in seconds
EFFORTS = {"normal": "headrace._fit.fit", "high": "headrace._fit.high_effort"}
"""The modules of the ways to fit; the module of "high" imports flows, and is imported on first use."""


def _cosine(done: float) -> float:
    """The cosine schedule's factor of the learning rate, which decreases from 1 to 0.001."""
    return max(0.5 * (1.0 + math.cos(math.pi * done)), 1e-3)


SCHEDULES = {"cosine": _cosine, "plateau": None, "constant": None}
"""Functions from the completed share of steps to a factor of the learning rate; None for a constant factor."""
BY_LOSS = ("plateau",)
"""Schedules that also halve the learning rate by the loss on held-out rows."""
OPTIMIZER_NAMES = ("adam", "muon")
"""The names of the optimisers of `headrace._fit.optimizer`, in the same order."""


class FitKeywords(TypedDict, total=False):
    """Keywords of `Flow.fit`, apart from x and context."""

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
    """The arguments of one call of `Flow.fit`.

    Args:
        weights: Shape (rows,): weights of the rows, not negative; rows of weight 0 take no part.
        validation: The share of rows to hold out, or rows of the caller: ``x_val`` or ``(x_val, context_val,
            weights_val)``; None holds out no rows, and the fit keeps the last weights (their running mean). At most a
            buffer of rows of a stream is held out.
        epochs: The most passes over the training rows; by default the number for 20,000 steps, from 10 to 300, and
            twice that number if held-out rows choose the weight decay.
        batch_size: The number of rows in each step; by default a 64th of the training rows, 32 to 512.
        learning_rate: The rate at the start; by default 5e-3, or 1.28 / (units of the widest hidden layer) if this
            quotient is less.
        schedule: "constant", "cosine" (down to 0 over all epochs) or "plateau" (halved whenever a third of `patience`
            passes without a new best loss on held-out rows, or on training rows if no rows are held out). "auto":
            "constant"; flows of networks (if Adam fits them, only with splines) are also fitted with "cosine", and
            held-out rows choose between the fits, if 8,000 to 50,000 rows are left for training and `epochs`,
            `weight_decay` and `patience` have their defaults.
        optimizer: "adam" or, on the CPU, "muon"; see `headrace.Adam` and `headrace.Muon`. "auto": Adam, except that
            `schedule="auto"` tries its cosine with Muon in flows of rows.
        weight_decay: The decay of the networks' matrices; see `headrace.Adam`. "auto": held-out rows choose a decay
            between c / 125 and c, the smaller of 1 and 1000 / (training rows); None: c.
        clip: The largest norm of a gradient; None for no limit.
        average: The decay of a running mean of the weights, which held-out rows judge and the fit keeps; None for the
            weights themselves.
        patience: Epochs without a new best on held-out rows after which the fit ends (half as many before the fit
            continues with less weight decay instead); None for no limit.
        time_budget: Seconds that the whole fit may take: the fit ends before a step that would exceed the budget, and
            keeps the best weights (`History.stopped` is "time_budget"; ``schedule="cosine"`` is shortened to end with
            the budget). Two fits with a time budget may differ. With ``effort="high"`` as many flows are fitted as the
            budget for all of them allows; None: four flows, without a limit.
        matmul: How steps compute products of networks: "exact", on the CPU "bf16", "bf16_tiles", ..., on a device
            "tf32" or "3xtf32"; by default the flow's own setting, see `to`. Held-out rows use the flow's setting
            (docs/bf16.md).
        gaussianize: Whether the first fit also sets a `Gaussianize` before the `Standardize` at the data end: this
            transform makes a column about normal if cross-validation finds a gain. "auto": in fits of at least 4000
            steps, unless the loss on held-out rows rises by more than a standard error (with heavy tails, two) in
            trials of 400 steps with and without the transform; if fewer than 50 rows are held out, cross-validation
            decides, without `epochs`. A base with edges, several modes or its own tails excludes a `Gaussianize`. True
            is an error if no `Gaussianize` can be set, or no column gains.
        seed: The seed of the choice of held-out rows and of the order of rows.
        progress: Whether to show a bar on the standard error.
        checkpoint: A file for the state of the fit. If the file exists, the same call with a flow made in the same way
            continues from this state to the bits of an uninterrupted fit; the state of another fit is refused. The file
            is removed when the fit ends, except after Ctrl-C (docs/training.md).
        checkpoint_every: Seconds between two writes of the checkpoint, or "epoch", or for example "10 epochs". The
            checkpoint is also written after Ctrl-C.
        group: The processes that fit together (`headrace.distributed`). With a group, x, context, weights and
            validation rows are dicts of the shards that this rank holds, ``{number: array}``; all ranks end with the
            same flow, with the same bits for any number of ranks (docs/scale.md). None: this process alone.
        effort: "normal"; or "high", which takes about ten times as long: several flows are fitted to the same rows, and
            then this flow to samples of their mixture and to the rows. This flow becomes the best flow of its
            structure, by held-out rows or, with few rows, by cross-validation (docs/training.md).
        keep: Of effort="high": whether `History.members` is a `headrace.Ensemble` of the fitted flows.
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
        """The arguments that affect the steps of a fit, by name."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.metadata["of_plan"]}

    def checked(self) -> Self:
        """The arguments after their checks; an error names the argument, the expected and the given value."""
        return replace(self, **checked_fields(self))
