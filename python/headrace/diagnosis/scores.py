"""Standard normal numbers in place of latent ones, by the base's own distribution: *scores*.

Scores of a conditional flow are the probability integral transforms of each coordinate given those before it and the
context.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats
from headrace._flow.bases import Base, Logistic, Normal, StandardNormal
from headrace._flow.flow import Flow
from headrace._flow.tails import Independent, NormalMixture, StudentT, Uniform
from headrace.diagnosis import distributions as of
from headrace.diagnosis.judged_rows import stream

Tails = tuple[Floats, Floats]  # the probabilities below and above, each with its own digits

_DRAWS, _MOST_DRAWN = 200_000, 20_000_000  # rows and values of a base with a distribution that is known only by draws


def scores(base: Base, z: NDArray[Any], seed: int) -> Floats:
    """Scores of latent rows, shape (rows, features), in float64; not finite for values that are not finite."""
    value = z.astype(np.float64)
    kind = type(base)
    with np.errstate(over="ignore", invalid="ignore"):
        if kind is StandardNormal:
            return value
        if isinstance(base, Normal):
            return np.asarray((value - base.loc) / base.scale)
        if kind is Logistic:
            lower, upper = _logistic(value)
        elif kind is Uniform:
            lower, upper = _uniform(value)
        elif isinstance(base, Independent):
            return np.stack([_of_column(name, value[:, i]) for i, name in enumerate(base.densities)], axis=1)
        elif isinstance(base, NormalMixture):
            lower, upper = _mixture(base, value)
        elif isinstance(base, StudentT) and find_spec("scipy") is not None:
            from scipy.special import stdtr

            lower, upper = stdtr(base.df, value), stdtr(base.df, -value)
        else:
            lower, upper = _drawn(base, value, seed)
        return np.where(np.isfinite(value), _quantile(lower, upper), np.nan)


def _quantile(lower: Floats, upper: Floats) -> Floats:
    """The score that has these tails, by the smaller one."""
    return np.where(lower < upper, of.normal_quantile(lower), -of.normal_quantile(upper))


def _logistic(value: Floats) -> Tails:
    return 1.0 / (1.0 + np.exp(-value)), 1.0 / (1.0 + np.exp(value))


def _uniform(value: Floats) -> Tails:
    """Scores on [-1, 1]; values outside get the farthest score."""
    return np.clip(0.5 * (1.0 + value), 0.0, 1.0), np.clip(0.5 * (1.0 - value), 0.0, 1.0)


def _of_column(name: str, value: Floats) -> Floats:
    if name == "normal":
        return value
    tails = {"logistic": _logistic, "uniform": _uniform}[name]
    return np.where(np.isfinite(value), _quantile(*tails(value)), np.nan)


def _mixture(base: NormalMixture, value: Floats) -> Tails:
    """Scores of each coordinate given those before it, which set the components' weights (Rosenblatt's transform).

    Source: M. Rosenblatt, Annals of Mathematical Statistics 23, 1952.
    """
    lower, upper = np.empty_like(value), np.empty_like(value)
    with np.errstate(divide="ignore"):
        log_share = np.log(base.weights / base.weights.sum()) + np.zeros((len(value), 1))
    for i, column in enumerate(value.T):
        share = np.exp(log_share - log_share.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        away = (column[:, None] - base.loc[:, i]) / base.scale[:, i]
        lower[:, i], upper[:, i] = (np.sum(share * of.normal_tail(side), axis=1) for side in (-away, away))
        log_share = log_share - 0.5 * np.square(away) - np.log(base.scale[:, i])
    return lower, upper


def _drawn(base: Base, value: Floats, seed: int) -> Tails:
    """Places among many draws of a base of independent coordinates, one by one."""
    features = value.shape[1]
    rows = max(min(max(_DRAWS, 20 * len(value)), _MOST_DRAWN // features), 1000)
    draws = np.sort(np.asarray(Flow([], base, dtype="float64").sample(rows, seed=stream(seed, 3))), axis=0)
    place = np.stack([np.searchsorted(draws[:, i], value[:, i]) for i in range(features)], axis=1)
    lower = (place + 0.5) / (rows + 1.0)
    return lower, 1.0 - lower
