"""A mixture of normal densities with covariances of their own, from whose samples a flow of few rows may learn.

Of clusters with different shapes such a mixture needs fewer rows than networks. No base is one, but a flow can follow
it: samples are as many as wanted, and the flow is trained on these in place of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from headrace._base.types import Floats
from headrace._fit.clock import Clock
from headrace._fit.cross_validation import FOLDS
from headrace._fit.few_rows import Seen, in_folds, inner_links, standardised
from headrace._fit.given_rows import Data, Moments, outside
from headrace._fit.residuals import behind
from headrace._fit.source import ArrayRows
from headrace._fit.starts import mixture as _mixture
from headrace._flow.fit_arguments import Arguments
from headrace._flow.transforms.fixed import Standardize

SAMPLES, BATCH, STEPS = 50_000, 512, 4000  # of the flow that learns
JUDGED = 4000  # further samples by which it is judged
DECAY = 0.01
STARTS = 3  # of a mixture in cross-validation
WAIT = 1  # number of components without a gain, after which no more are tried
KEPT = ("schedule", "weight_decay", "patience")  # arguments of a fit to samples, where they are given
NUMBERS_OF_A_ROW = 2  # that a mixture has for each row, at most: in many columns covariances of their own are noise


@dataclass(frozen=True)
class Teacher:
    """A kind of such a mixture."""

    limit: float
    """1 - R² below which columns are replaced by their residuals."""
    curves: bool
    components: int
    prior: float
    """Rows of the common covariance that each component has beside its own."""


@dataclass(frozen=True)
class Samples:
    """Samples of such a mixture to train on, and others to judge by."""

    train: ArrayRows
    judge: ArrayRows
    loss: float
    """The loss of the latter under the mixture itself."""


def best_teacher(
    source: ArrayRows, scale: Moments, limit: float, curves: Sequence[bool], dtype: Any, seed: int, clock: Clock
) -> tuple[Teacher, Floats] | None:
    """The mixture of the lowest loss of rows left out, and these losses, fold after fold, in the data's units.

    None where rows are too few for one, or no time is left.

    Args:
        source: The rows.
        scale: Means and standard deviations of their columns.
        limit: 1 - R² below which columns are replaced by their residuals.
        curves: Whether columns have curves, in the order of trials.
        dtype: The dtype of the flow.
        seed: Of the starts of each mixture.
        clock: Ends the trials.
    """
    z, share, slopes = standardised(source, scale)
    weights, best, lowest = in_folds(share), None, math.inf
    for own in curves:
        waited, least = 0, math.inf
        folds = [Seen.of(z, share, i, limit, own, (), dtype) for i in range(FOLDS)]
        for components in _mixture.COMPONENTS_OF_FULL:
            numbers = components * z.shape[1] * (z.shape[1] + 3) // 2
            if waited == WAIT or numbers > NUMBERS_OF_A_ROW * len(z) or not clock.has(0.0):
                break
            waited += 1
            for prior in _mixture.PRIORS_OF_FULL:
                kind = Teacher(limit, own, components, prior)
                each = [fold.losses(components, seed, prior, full=True, starts=STARTS) for fold in folds]
                losses = np.concatenate(each) - in_folds(slopes)
                loss = float(weights @ losses / weights.sum())
                if loss < least:
                    least, waited = loss, 0
                if loss < lowest:
                    best, lowest = (kind, losses), loss
    return best


def samples_of(teacher: Teacher, source: ArrayRows, scale: Moments, dtype: Any, seed: int) -> Samples:
    """Samples of the mixture of all rows, in the data's units."""
    z, share, _ = standardised(source, scale)
    curves, residuals = inner_links(z, share, teacher.limit, teacher.curves, (), dtype)
    links, support = (*curves, *residuals.links), source.support
    mixture = _mixture.fitted(behind(z, links), share, teacher.components, seed, teacher.prior, full=True)
    outer = (*links, Standardize(*scale), *(() if support is None else (support,)))

    def drawn(size: int, key: int) -> tuple[ArrayRows, Floats]:
        x = mixture.sample(size, np.random.default_rng([seed, key]))
        log_prob = mixture.log_prob(x)
        for link in outer:
            x, log_det = link.forward(x)
            log_prob = log_prob - log_det
        good = np.isfinite(x).all(axis=1) & np.isfinite(log_prob)
        if support is not None:
            good &= ~outside(x, support).any(axis=1)
        return ArrayRows(Data(source.library.asarray(x[good]), None, None, source.names, support)), log_prob[good]

    train, judge = drawn(SAMPLES, 0)[0], drawn(JUDGED, 1)
    return Samples(train, judge[0], -float(judge[1].mean()))


def arguments_of_student(given: Arguments, size: int) -> Arguments:
    """The arguments of a fit to this number of samples: those given, where they are not the defaults."""
    batch = BATCH if given.batch_size is None else given.batch_size
    own: dict[str, Any] = {
        "epochs": max(round(STEPS * BATCH / size), 1),
        "batch_size": min(batch, size),
        "schedule": "cosine",
        "weight_decay": DECAY,
        "patience": None,
    }
    for one in fields(Arguments):
        if one.name in KEPT and getattr(given, one.name) != one.default:
            del own[one.name]
    return replace(given, **own)
