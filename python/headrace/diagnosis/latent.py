"""Tests of latent rows: under the right density they are independent rows of the base.

The tests use scores: standard normal quantiles of the base's distribution function at latent values. Scores of a
conditional flow are those of each coordinate's probability integral transform given earlier coordinates and the
context. No parameter is estimated from the rows, so that the distribution of each statistic is completely known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats
from headrace._flow.bases import Base, Logistic, Normal, StandardNormal
from headrace._flow.flow import Flow
from headrace._flow.tails import Independent, NormalMixture, StudentT, Uniform
from headrace.diagnosis import distributions as of
from headrace.diagnosis.findings import Finding, least_of, number
from headrace.diagnosis.judged_rows import stream

Tails = tuple[Floats, Floats]  # the probabilities below and above a value, each without cancellation

_BASES = {"normal": StandardNormal, "logistic": Logistic, "uniform": Uniform}  # densities in an `Independent`
_DRAWS, _MOST_DRAWN = 200_000, 20_000_000  # the fewest draws, and the most drawn values, for a base without a formula


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
            each = zip(base.densities, value.T, strict=True)
            return np.concatenate([scores(_BASES[name](1), column[:, None], seed) for name, column in each], axis=1)
        elif isinstance(base, NormalMixture):
            lower, upper = _mixture(base, value)
        elif isinstance(base, StudentT) and find_spec("scipy") is not None:
            from scipy.special import stdtr

            lower, upper = stdtr(base.df, value), stdtr(base.df, -value)
        else:
            lower, upper = _drawn(base, value, seed)
        return np.where(np.isfinite(value), quantile(lower, upper), np.nan)


def quantile(lower: Floats, upper: Floats) -> Floats:
    """The scores with the given tail probabilities, computed from the smaller tail."""
    return np.where(lower < upper, of.normal_quantile(lower), -of.normal_quantile(upper))


def _logistic(value: Floats) -> Tails:
    return 1.0 / (1.0 + np.exp(-value)), 1.0 / (1.0 + np.exp(value))


def _uniform(value: Floats) -> Tails:
    """Tail probabilities of values on [-1, 1]; values outside get 0 or 1."""
    return np.clip(0.5 * (1.0 + value), 0.0, 1.0), np.clip(0.5 * (1.0 - value), 0.0, 1.0)


def _mixture(base: NormalMixture, value: Floats) -> Tails:
    """Tail probabilities of each coordinate given earlier coordinates (Rosenblatt's transform).

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
    """Tail probabilities as ranks among many draws of a base with independent coordinates, column by column."""
    features = value.shape[1]
    rows = max(min(max(_DRAWS, 20 * len(value)), _MOST_DRAWN // features), 1000)
    draws = np.sort(np.asarray(Flow([], base, dtype="float64").sample(rows, seed=stream(seed, 3))), axis=0)
    place = np.stack([np.searchsorted(draws[:, i], value[:, i]) for i in range(features)], axis=1)
    lower = (place + 0.5) / (rows + 1.0)
    return lower, 1.0 - lower


DIRECTIONS = 32


def coordinate_tails(score: Floats) -> Floats:
    """P-values of each coordinate's mean, spread, and Anderson-Darling statistic, shape (3, features)."""
    rows = len(score)
    lower, upper = of.normal_tail(-score), of.normal_tail(score)
    means, squares = score.sum(axis=0), np.square(score).sum(axis=0)
    by_shape = of.anderson_darling_tail(of.anderson_darling(lower, upper), rows)
    return np.stack([2.0 * of.normal_tail(np.abs(means) / math.sqrt(rows)), of.spread_tails(squares, rows), by_shape])


def coordinates(score: Floats, labels: list[str]) -> Finding:
    """A test of whether each coordinate is standard normal, by mean, spread, and Anderson-Darling statistic."""
    p = coordinate_tails(score)
    worst = int(p.min(axis=0).argmin())
    sentence = f"{labels[worst]} has {_moments(score[:, worst])}"
    return Finding("latent coordinates", least_of(float(p.min()), p.size), p.size, sentence)


def least_right(score: Floats, called: Sequence[str], classes: Sequence[tuple[Any, str]] = ()) -> str:
    """A text about the coordinate with the largest misfit, and the error in location, spread or shape.

    `classes`: p-values and a description for each discrete column; these columns are the last coordinates.
    """
    p = coordinate_tails(score)
    which, worst = (int(i) for i in np.unravel_index(int(p.argmin()), p.shape))
    if worst >= len(called):
        return classes[worst - len(called)][1]
    values = score[:, worst]
    mean, spread, rows = float(values.mean()), float(values.std()), len(values)
    if which == 0:
        return f"{called[worst]}, which lies {abs(mean):.2f} standard deviations too {'low' if mean > 0 else 'high'}"
    if which == 1 and spread > 0:
        return f"{called[worst]}, whose spread is {abs(1 / spread - 1):.0%} too {'small' if spread > 1 else 'large'}"
    far = float((np.abs(values) > 1.96).mean())
    if abs(far - 0.05) > 2.0 * math.sqrt(0.05 * 0.95 / rows):
        light = "light" if far > 0.05 else "heavy"
        return f"{called[worst]}, whose tails are too {light}: they hold {far:.1%} of the rows in place of 5 %"
    inside = float((np.abs(values) < 0.6745).mean())
    return f"{called[worst]}, whose shape is wrong: its middle half holds {inside:.1%} of the rows"


def _moments(values: Floats) -> str:
    """A text with the moments of values and the expected moments."""
    mean, spread = float(values.mean()), float(values.std())
    text = f"mean {mean:.3f} and standard deviation {spread:.3f} where 0 and 1 are expected"
    n = len(values)
    if n < 3:
        return f"{' and '.join(map(number, values))} where standard normal numbers are expected"
    if n > 20 and abs(mean) < 3 / math.sqrt(n) and abs(spread - 1) < 3 / math.sqrt(2 * n):
        inside, far = float((np.abs(values) < 0.6745).mean()), float((np.abs(values) > 1.96).mean())
        text += f"; {inside:.1%} lie in the middle half, and {far:.1%} outside of the middle 95 %"
    return text


def directions(score: Floats, seed: int) -> Finding:
    """Tests of latent rows along random directions, which can show deviations that no coordinate shows."""
    turns = stream(seed, 4).standard_normal((score.shape[1], DIRECTIONS))
    along = score @ (turns / np.sqrt(np.square(turns).sum(axis=0)))
    p = of.anderson_darling_tail(of.anderson_darling(of.normal_tail(-along), of.normal_tail(along)), len(score))
    worst = int(p.argmin())
    sentence = f"along one of {DIRECTIONS} random directions the latent rows have {_moments(along[:, worst])}"
    return Finding("random directions", least_of(float(p[worst]), p.size), p.size, sentence)


def radii(score: Floats) -> Finding:
    """A test of whether the squared distances from the middle are chi-square distributed."""
    square, features = np.square(score).sum(axis=1), score.shape[1]
    upper = of.chi_square_tail(square, features)[:, None]
    p = of.anderson_darling_tail(of.anderson_darling(1.0 - upper, upper), len(score))
    mean, median = float(square.mean()), float(np.median(upper))
    middle = f"the mean squared distance from the middle is {number(mean)} where {features} is expected"
    sentence = f"{middle}, and {median:.1%} of the base lies farther out than the median row"
    return Finding("distance from the middle", float(p[0]), 1, sentence)


def farthest(score: Floats, labels: list[str], index: NDArray[np.int64]) -> Finding:
    """A test of whether the largest absolute score is too large or too small."""
    row, column = np.unravel_index(int(np.abs(score).argmax()), score.shape)
    value = float(score[row, column])
    beyond = float(2.0 * of.normal_tail(abs(value)))
    above = -math.expm1(score.size * math.log1p(-min(beyond, 1.0 - 1e-16)))  # the probability of a score farther from 0
    p = min(1.0, 2.0 * min(above, 1.0 - above))
    beyond_of = [-math.expm1(math.log(share) / score.size) for share in (0.025, 0.975)]
    low, high = (float(-of.normal_quantile(share / 2.0)) for share in beyond_of)
    which = f"{number(value)}, {labels[column]} of row {index[row]}"
    expected = f"where {low:.2f} to {high:.2f} are expected on either side"
    sentence = f"the farthest of {score.size:,} latent numbers is {which}, {expected}"
    return Finding("farthest number", p, 1, sentence)


def correlations(score: Floats, labels: list[str]) -> tuple[Finding, Floats]:
    """A test of dependence between coordinates, by correlations of values and of sizes; and the former correlations.

    Sizes are converted to standard normal values, so that the distribution of each correlation is exactly known. The
    correlations of values have the shape (features, features).
    """
    rows, features = score.shape
    size = sizes(score)
    signed, sized = (part / np.sqrt(np.maximum(np.square(part).sum(axis=0), of.TINY)) for part in (score, size))
    upper = np.triu_indices(features, 1)
    off = np.nonzero(~np.eye(features, dtype=bool))
    plain = signed.T @ signed
    kinds = [
        ("{} and {} have correlation", upper, plain),
        ("the sizes of {} and {} have correlation", upper, sized.T @ sized),
        ("{} and the size of {} have correlation", off, signed.T @ sized),
    ]
    least, message, looked = 2.0, "", 0
    for text, pairs, matrix in kinds:
        values = matrix[pairs]
        p = of.correlation_tails(values, rows)
        worst, looked = int(p.argmin()), looked + p.size
        if p[worst] < least:
            least = float(p[worst])
            message = f"{text.format(labels[pairs[0][worst]], labels[pairs[1][worst]])} {values[worst]:.3f}"
    return Finding("independence", least_of(least, looked), looked, message), plain


def dependence_on_context(
    score: Floats,
    context: NDArray[Any],
    labels: list[str],
    names: Sequence[str] | None = None,
    chosen: NDArray[np.bool_] | None = None,
) -> Finding:
    """A test of whether latent values or their sizes depend on the context, by correlations with ranks of columns.

    `chosen`: a mask of the coordinates to compare with each column of the context; all by default.
    """
    rows = len(score)
    size = sizes(score)
    least, message, looked = 2.0, "no column of context has two numbers", 0
    for c, column in enumerate(context.T):
        which = np.arange(score.shape[1]) if chosen is None else np.flatnonzero(chosen[c])
        _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
        middle = np.cumsum(counts) - 0.5 * counts
        rank = of.normal_quantile(middle / rows)[place]
        for what, values in (("", rank), ("the size of ", np.square(rank))):
            centred = values - values.mean()
            length = math.sqrt(float(centred @ centred))
            if not (which.size and length > 1e-9 * math.sqrt(rows)):
                continue
            for kind, part in (("", score[:, which]), ("the size of ", size[:, which])):
                cosine = centred @ part / (length * np.sqrt(np.maximum(np.square(part).sum(axis=0), of.TINY)))
                p = of.correlation_tails(cosine, rows)
                worst, looked = int(p.argmin()), looked + p.size
                if p[worst] < least:
                    least = float(p[worst])
                    column_of = f"{what}context column {names[c] if names else c}"
                    message = f"{kind}{labels[which[worst]]} and {column_of} have correlation {cosine[worst]:.3f}"
    return Finding("dependence on the context", least_of(least, looked) if looked else 1.0, max(looked, 1), message)


def sizes(score: Floats) -> Floats:
    """Standard normal values that increase with the absolute values of the given standard normal values."""
    return np.asarray(-of.normal_quantile(2.0 * of.normal_tail(np.abs(score))))
