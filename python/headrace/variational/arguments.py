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

# Defaults of descents; docs/variational.md has the measurements behind these values.
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
    """Arguments of every descent along gradients.

    Args:
        schedule: The learning rate's schedule: "cosine" (down to 0 over all steps) or "constant".
        annealing: ``(start, share)``: step t uses β log_density with β = min(1, start + t / (share · steps)), so
            that distant modes can be found before the density between them becomes steep. None for β = 1 in all steps.
        weight_decay: The decay of the networks' matrices; see `headrace.Adam`.
        clip: The largest norm of a gradient; None for no limit.
        average: The decay of a running mean of the weights, which is evaluated and kept; None for the weights
            themselves.
        skip: The largest share of a step's samples whose log densities or gradients may be NaN or infinite; such
            samples are left out, counted in the history, and reported by a warning at the end. A larger share of such
            samples is an error.
        seed: A value from 0 to 2^64 - 1 that determines all samples.
        rng: A generator or seed in place of `seed`; see `Flow.sample`.
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
    """Arguments that descents of a `Flow` have and descents of a `SequenceFlow` do not.

    Args:
        evaluated: The number of fresh samples for the estimate at the end; 0 for no estimate.
        optimizer: "adam" or "muon"; see `headrace.Adam` and `headrace.Muon`. docs/variational.md compares both.
    """

    optimizer: Annotated[str, argument("adam", check.one_of(*OPTIMIZER_NAMES))]
    evaluated: Annotated[int, argument(EVALUATED, check.integer)]


class ToDensity(OfSteps, Evaluated, total=False):
    """Keywords of `fit_to_density`, whose docstring explains the keywords that no other descent has."""

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
    """Keywords of `distill`, whose docstring explains the keywords that no other descent has."""

    temperature: Annotated[float, argument(1.0, check.real(above=0.0))]


class DistilledOverTime(OfStudents, total=False):
    """Keywords of `distill_sequences`, whose docstring explains the keywords that no other descent has."""

    length: Annotated[int, argument(512, check.whole(2))]
    covariates: Annotated[Any, argument()]
    signals: Annotated["Array | list[Array] | None", argument()]
    power: Annotated[float | None, argument(None, check.real(0.0))]
