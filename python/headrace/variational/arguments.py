"""The arguments of descents: `fit_to_density`, `distill` and `distill_sequences`."""

import math
from typing import Annotated, Any, TypedDict

import numpy as np

from headrace._base import arguments as check
from headrace._base.keywords import argument
from headrace._base.rng import Rng
from headrace._base.types import Array
from headrace._flow.fit_arguments import BY_LOSS, OPTIMIZER_NAMES
from headrace._flow.fit_arguments import SCHEDULES as OF_FITS

SCHEDULES = tuple(name for name in OF_FITS if name not in BY_LOSS)

# Defaults; their measurements are in docs/variational.md.
CLIP = 5.0
AVERAGE = 0.999
SKIP = 0.1
EVALUATED = 65_536


def _annealing(name: str, value: Any) -> tuple[float, float]:
    pair = tuple(value) if np.iterable(value) else ()
    if len(pair) != 2:
        raise TypeError(f"{name}: expected two numbers (start, share), got {value!r}")
    start = check.number(f"{name}[0]", pair[0], least=0.0, below=math.inf)
    return start, check.number(f"{name}[1]", pair[1], above=0.0, below=math.inf)


class OfSteps(TypedDict, total=False):
    """Arguments of every descent.

    Args:
        schedule: Of the learning rate: "cosine" (down to nothing over all steps) or "constant".
        annealing: ``(start, share)``: step t goes by β log_density with β = min(1, start + t / (share · steps)), so
            that heaps far apart can be found before the density is steep between them. None: β = 1.
        weight_decay: Of the networks' matrices; see `headrace.Adam`.
        clip: The largest norm of a gradient; None for no limit.
        average: Decay of a running mean of the weights, which is judged and kept; None for the weights
            themselves.
        skip: The largest share of a step's samples with log densities or gradients that are NaN or infinite; they are
            left out, counted in the history, and reported by a warning at the end. More is an error.
        seed: 0 to 2^64 - 1, of all samples.
        rng: Instead of `seed`; see `Flow.sample`.
        progress: Whether to show a bar on the standard error.
    """

    schedule: Annotated[str, argument("cosine", check.one_of(*SCHEDULES))]
    annealing: Annotated[tuple[float, float] | None, argument(None, _annealing)]
    weight_decay: Annotated[float, argument(0.0, check.real(0.0))]
    clip: Annotated[float | None, argument(CLIP, check.real(above=0.0))]
    average: Annotated[float | None, argument(AVERAGE, check.real(above=0.0, below=1.0))]
    skip: Annotated[float, argument(SKIP, check.real(0.0, below=1.0))]
    seed: Annotated[int, argument(0, check.whole(most=2**64 - 1))]
    rng: Rng
    progress: Annotated[bool, argument(True)]


class Evaluated(TypedDict, total=False):
    """The arguments of descents of flows of rows.

    Args:
        evaluated: Fresh samples for the estimate at the end; 0 for none.
        optimizer: "adam" or "muon"; see `headrace.Adam` and `headrace.Muon`. Gains: docs/variational.md.
    """

    optimizer: Annotated[str, argument("adam", check.one_of(*OPTIMIZER_NAMES))]
    evaluated: Annotated[int, argument(EVALUATED, check.integer)]


class ToDensity(OfSteps, Evaluated, total=False):
    """Keywords of `fit_to_density`, whose docstring has the meanings of its additional ones."""

    gradient: Annotated[str, argument("returned")]
    estimator: Annotated[str, argument("sticking_the_landing", check.one_of("sticking_the_landing", "plain"))]
    steps: Annotated[int, argument(4000, check.integer)]
    samples: Annotated[int, argument(256, check.whole(1))]
    per_context: Annotated[int, argument(1, check.whole(1))]
    learning_rate: Annotated[float | None, argument(None, check.real(above=0.0))]


class OfStudents(OfSteps, total=False):
    """Arguments of every distillation."""

    estimator: Annotated[str, argument("auto", check.one_of("auto", "pathwise", "closed_form"))]
    steps: Annotated[int | None, argument(None, check.integer)]
    samples: Annotated[int | None, argument(None, check.whole(1))]
    first_steps: Annotated[int | None, argument(None, check.integer)]
    learning_rate: Annotated[float | None, argument(None, check.real(above=0.0))]


class Distilled(OfStudents, Evaluated, total=False):
    """Keywords of `distill`, whose docstring has the meanings of its additional ones."""

    temperature: Annotated[float, argument(1.0, check.real(above=0.0))]


class DistilledOverTime(OfStudents, total=False):
    """Keywords of `distill_sequences`, whose docstring has the meanings of its additional ones."""

    length: Annotated[int, argument(512, check.whole(2))]
    covariates: Annotated[Any, argument()]
    signals: Annotated["Array | list[Array] | None", argument()]
    power: Annotated[float | None, argument(None, check.real(0.0))]
