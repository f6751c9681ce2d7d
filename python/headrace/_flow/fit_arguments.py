"""The arguments of `Flow.fit`: each one's type, default, check and meaning, in this one place.

A new argument is a key of `FitKeywords`, which static checkers read, and a field of `Arguments`. `Flow.fit`, ensembles,
streams, groups, Dask, `headrace.sklearn` and, with an `Option`, the command line have it then, with its help.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from headrace._base import arguments as check

if TYPE_CHECKING:
    from typing_extensions import Self

    from headrace._arrays.caller import Array
    from headrace._base.group import Group

CLIP = 5.0
AVERAGE = 0.999
PATIENCE = 50
CHECKPOINT_EVERY = 60.0  # seconds
EFFORTS = {"normal": "headrace._fit.fit", "high": "headrace._fit.high_effort"}
"""Ways to fit, and their modules; the latter imports flows, and is imported when it is asked for."""


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
    seconds: float | None
    keep: bool


@dataclass(frozen=True, eq=False)
class Option:
    """An option of the command line."""

    metavar: str
    kind: str
    """Its type: "integer" (from 0), "size" (from 1), "positive" (a number), "interval" or "text"."""


def _argument(
    default: Any,
    meaning: str,
    checked: Callable[[Any], Any] | None = None,
    *,
    of_plan: bool = False,
    option: Option | None = None,
) -> Any:
    """A field: its default, its help, and the check of a value that is not the default.

    `of_plan`: whether it affects how steps are taken, and so distinguishes fits in a checkpoint.
    """
    metadata = {"meaning": meaning, "checked": checked, "of_plan": of_plan, "option": option}
    return field(default=default, metadata=metadata)


def _decay(value: Any) -> Any:
    if isinstance(value, str):
        return check.choice("weight_decay", value, ("auto",))
    return check.number("weight_decay", value, least=0.0, below=math.inf)


def _gaussianize(value: Any) -> Any:
    if not isinstance(value, (bool, np.bool_)) and value != "auto":
        raise ValueError(f"gaussianize: expected True, False or 'auto', got {value!r}")
    return value


@dataclass(frozen=True, kw_only=True, eq=False)
class Arguments:
    """The arguments of one call."""

    weights: Array | None = _argument(  # noqa: RUF009  # a field
        None,
        "Shape (rows,): weights of the rows, not negative; rows of weight 0 take no part.",
    )
    validation: Any = _argument(  # noqa: RUF009  # a field
        0.1,
        "The share of rows to hold out, or rows of your own: ``x_val`` or ``(x_val, context_val, "
        "weights_val)``; None for none, and then the last weights (their running mean) are kept. Of a stream "
        "at most as many rows are held out as its buffer holds.",
    )
    epochs: int | None = _argument(
        None,
        "Passes over the training rows, at most; by default as many as make 20,000 steps, 10 to 300, and "
        "twice as many where held-out rows choose the weight decay.",
        lambda value: check.integer("epochs", value),
        of_plan=True,
        option=Option("N", "integer"),
    )
    batch_size: int | None = _argument(
        None,
        "Rows of a step; by default a 64th of the rows, 32 to 512.",
        lambda value: check.integer("batch_size", value, least=1),
        of_plan=True,
        option=Option("N", "size"),
    )
    learning_rate: float | None = _argument(
        None,
        "At the start; by default 5e-3, or 1.28 over the units of the widest hidden layer if less.",
        lambda value: check.number("learning_rate", value, above=0.0, below=math.inf),
        of_plan=True,
        option=Option("RATE", "positive"),
    )
    schedule: str = _argument(
        "auto",
        '"constant", "cosine" (down to nothing over all epochs) or "plateau" (halved whenever a third of '
        "`patience` passes without a new best on held-out rows, or in training if there are none). "
        '"auto": constant; flows with splines are then fitted with a cosine, too, and held-out rows choose, '
        "where 8,000 to 50,000 rows are left to train on and `epochs`, `weight_decay` and `patience` are the "
        "defaults.",
        lambda value: check.choice("schedule", value, (*SCHEDULES, "auto")),
        of_plan=True,
    )
    optimizer: str = _argument(
        "auto",
        '"adam" or, on the CPU, "muon"; see `headrace.Adam` and `headrace.Muon`. "auto": Adam, and Muon for the '
        'cosine that `schedule="auto"` tries, where Muon is possible.',
        lambda value: check.choice("optimizer", value, (*OPTIMIZER_NAMES, "auto")),
        of_plan=True,
    )
    weight_decay: float | str | None = _argument(
        "auto",
        'Of the networks\' matrices; see `headrace.Adam`. "auto": held-out rows choose, from 1000 over the '
        "rows, at most 1, down to a 125th of that; None: the first of these.",
        lambda value: _decay(value),
        of_plan=True,
    )
    clip: float | None = _argument(
        CLIP,
        "The largest norm of a gradient; None for no limit.",
        lambda value: check.number("clip", value, above=0.0, below=math.inf),
        of_plan=True,
    )
    average: float | None = _argument(
        AVERAGE,
        "Decay of a running mean of the weights, which is what is tried on held-out rows and kept; None for "
        "the weights themselves.",
        lambda value: check.number("average", value, above=0.0, below=1.0),
        of_plan=True,
    )
    patience: int | None = _argument(
        PATIENCE,
        "Epochs without a new best on held-out rows after which the fit ends (half as many where it goes on "
        "with less weight decay instead); None for no end.",
        lambda value: check.integer("patience", value, least=1),
        of_plan=True,
        option=Option("N", "size"),
    )
    time_budget: float | None = _argument(
        None,
        "Seconds that all of this may take: the fit ends before a step that would exceed them, keeps the best "
        'weights as ever (`History.stopped` is "time_budget"; ``schedule="cosine"`` comes to its end with the '
        "time). How many steps that makes depends on the machine, so that such a fit is not the same twice.",
        option=Option("SECONDS", "positive"),
    )
    matmul: str | None = _argument(
        None,
        'How steps compute products of networks: "exact", on the CPU "bf16", "bf16x3" or "bf16x6", on a '
        'device "tf32" or "3xtf32"; by default as the flow does, see `to`. The flow\'s own products judge '
        "held-out rows (docs/bf16.md).",
        of_plan=True,
    )
    gaussianize: bool | str = _argument(
        "auto",
        "Whether the first fit also sets a `Gaussianize` before that `Standardize`: it makes a column "
        "about normal where cross-validation says that rows gain by it. "
        '"auto": unless held-out rows lose by it, by more than a standard error (with heavy tails, two), in a '
        "trial of 400 steps with it and without, in fits of 4000 steps or more; if fewer than 50 rows are held out, "
        "cross-validation decides, without `epochs`. Never over a base with edges, modes or "
        "tails of its own. True is an error where none can be set, or no column gains.",
        lambda value: _gaussianize(value),
        of_plan=True,
    )
    seed: int = _argument(
        0,
        "Of the choice of held-out rows and of the order of rows.",
    )
    progress: bool = _argument(
        True,
        "Whether to show a bar on the standard error.",
    )
    checkpoint: str | os.PathLike[str] | None = _argument(  # noqa: RUF009  # a field
        None,
        "A file for the state of the fit. Where it is there already, the same call with a flow made in the "
        "same way goes on from it, to the same bits as if nothing had stopped it; that of another fit is "
        "refused. It is removed when the fit ends, but for Ctrl-C (docs/training.md).",
        option=Option("FILE", "text"),
    )
    checkpoint_every: float | str = _argument(  # a field
        CHECKPOINT_EVERY,
        'Seconds between two writes of it, or "epoch", or as "10 epochs". After Ctrl-C it is written too.',
        option=Option("TIME", "interval"),
    )
    group: Group | None = _argument(  # noqa: RUF009  # a field
        None,
        "Who fits together (`headrace.distributed`). Then x, context, weights and rows of your own to judge "
        "by are dicts of the shards that this rank holds, ``{number: array}``; all ranks end with the same "
        "flow, which has the same bits for any number of them (docs/scale.md). None: this process alone.",
    )
    effort: str = _argument(
        "normal",
        '"high", for some ten times as long: several flows are fitted to the same rows, this one among them, and then '
        "this one to samples of their mixture and to the rows. It ends as the best of these on held-out rows, of those "
        "that have its structure (docs/training.md).",
        lambda value: check.choice("effort", value, tuple(EFFORTS)),
        option=Option("HOW", "text"),
    )
    seconds: float | None = _argument(
        None,
        'Of an effort of "high": what it may take, with as many flows as there is time for; None: four flows, for as '
        "long as they need.",
        lambda value: check.number("seconds", value, above=0.0, below=math.inf),
        option=Option("SECONDS", "positive"),
    )
    keep: bool = _argument(
        False,
        'Of effort="high": whether `History.members` keeps the flows, as a `headrace.Ensemble`.',
        lambda value: check.truth("keep", value),
    )

    @property
    def plan(self) -> dict[str, Any]:
        """The arguments that affect how steps are taken, by name."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.metadata["of_plan"]}

    def checked(self) -> Self:
        """Checked arguments; an error names the argument, the expected value and the given one."""
        found = {}
        for one in fields(self):
            value, checks = getattr(self, one.name), one.metadata["checked"]
            may_be_none = value is None and str(one.type).endswith("None")
            if checks is not None and not may_be_none:
                found[one.name] = checks(value)
        return replace(self, **found)


def options() -> dict[str, Option]:
    """The options of the command line, by the names of the arguments."""
    return {one.name: one.metadata["option"] for one in fields(Arguments) if one.metadata["option"] is not None}
