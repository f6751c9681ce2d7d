"""The likelihood of held-out rows under the flow, and under simple densities that are fitted to other rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats
from headrace._fit.gaussian import gaussian_log_prob
from headrace._fit.starts.kernels import KernelDensity
from headrace.diagnosis.judged_rows import Looked, stream

MOST_FEATURES = 4  # the most features for kernels: for more, no bandwidth is good
MOST_POINTS, MOST_JUDGED = 10_000, 2000  # the most kernels, and the most rows that a kernel density scores


@dataclass(frozen=True)
class Likelihood:
    """A mean log-likelihood of rows held out, in nats a row."""

    name: str
    mean: float
    error: float
    """The standard error of the mean; NaN for one row."""
    rows: int
    gain: float = 0.0
    """The flow's mean minus this density's mean, over the same rows."""
    gain_error: float = 0.0
    """The standard error of the gain, which is small if the same rows are unlikely under both densities."""


def compare(log_prob: Floats, rows: Looked, seed: int) -> tuple[list[Likelihood], str]:
    """Likelihoods of the flow, a Gaussian and, for few features, kernels; and a text that names the fitted rows.

    The simple densities are fitted to the training rows. Without training rows, the Gaussian is fitted to each half of
    x and scores the other half, and kernels at the rows of one half score the other half. The Gaussian's mean is linear
    in the context.
    """
    likelihoods = [Likelihood("flow", *weighted_mean(log_prob, rows.weights), len(log_prob))]
    half = stream(seed, 1).permutation(len(rows.x)) % 2 == 0
    alone = rows.training is None
    parts = [(half, ~half), (~half, half)] if alone else [(np.ones(len(rows.x), bool),) * 2]
    gaussian = np.full(len(rows.x), math.nan)
    try:
        for learnt, judged in parts:
            gaussian[judged] = _gaussian(rows, learnt, judged)
    except np.linalg.LinAlgError:  # the rows lie in a plane, or are too few
        gaussian = np.full(0, math.nan)
    if gaussian.size and np.isfinite(gaussian).all():
        likelihoods.append(_beside("Gaussian", gaussian, log_prob, np.arange(len(rows.x)), rows))
    if rows.x.shape[1] <= MOST_FEATURES and rows.context is None and rows.weights is None:
        judged = np.flatnonzero(parts[0][1])[:MOST_JUDGED]
        points = rows.x[parts[0][0]] if rows.training is None else rows.training
        if len(points) > MOST_POINTS:
            points = points[stream(seed, 2).choice(len(points), MOST_POINTS, replace=False)]
        try:
            kernels = KernelDensity.of(points).log_prob(rows.x[judged]) if len(points) > 9 else None
        except np.linalg.LinAlgError:
            kernels = None
        if kernels is not None:
            likelihoods.append(_beside("kernel density", kernels, log_prob, judged, rows))
    source = "one half of these rows and judged on the other" if alone else "the training rows"
    return likelihoods, source


def _gaussian(rows: Looked, learnt: NDArray[np.bool_], judged: NDArray[np.bool_]) -> Floats:
    if rows.training is not None:
        context = None
        if rows.context is not None and rows.training_context is not None:
            context = rows.training_context, rows.context
        return gaussian_log_prob(rows.training, rows.x, context=context)
    if learnt.sum() <= rows.x.shape[1] + 1 + (0 if rows.context is None else rows.context.shape[1]):
        raise np.linalg.LinAlgError("too few rows")
    weights = None if rows.weights is None else rows.weights[learnt]
    context = None if rows.context is None else (rows.context[learnt], rows.context[judged])
    if weights is not None and not weights.any():
        raise np.linalg.LinAlgError("no weight")
    return gaussian_log_prob(rows.x[learnt], rows.x[judged], weights=weights, context=context)


def _beside(name: str, values: Floats, log_prob: Floats, index: NDArray[Any], rows: Looked) -> Likelihood:
    weights = None if rows.weights is None else rows.weights[index]
    with np.errstate(invalid="ignore"):
        gain = weighted_mean(log_prob[index] - values, weights)
    return Likelihood(name, *weighted_mean(values, weights), len(index), *gain)


def weighted_mean(values: Floats, weights: Floats | None) -> tuple[float, float]:
    """The weighted mean of values, and its standard error."""
    share = np.full(len(values), 1.0 / len(values)) if weights is None else weights / weights.sum()
    mean = float(np.sum(share * values, where=share > 0))
    if not math.isfinite(mean) or np.count_nonzero(share) < 2:
        return mean, math.nan
    freedom = 1.0 - float(share @ share)
    return mean, math.sqrt(float(np.square(share) @ np.square(values - mean)) / freedom)
