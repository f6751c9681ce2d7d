"""Power-law tails: the curve of `Gaussianize` follows a power law where the outermost values of a column support one.

Distances beyond a high threshold have nearly a generalised Pareto distribution for most columns (Balkema and de Haan
1974; Pickands 1975): P(beyond d) = (1 + shape d / scale)^(-1 / shape). With a straight tail, the density of a row far
out falls like that of a normal distribution; with a curve through quantiles of the Pareto distribution, like a power of
the distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from headrace._base.types import Floats

_NORMAL = NormalDist()

SHARE = 0.04  # share of the rows, the outermost on one side, that estimate the tail on that side
LEAST_ROWS = 40  # least number of rows that estimate a tail (SHARE of 1000 rows)
CLEARLY = 1.0  # least gain in log-likelihood, in nats, over an exponential tail
LONGER = 0.5  # the largest shape within these nats of the best is chosen, because far rows lose little then
STEEPEST = 1.0  # the largest shape, which a Cauchy distribution has
KNOTS, TOP = 8, 6.0  # knots beyond a column's outermost quantile, and position of the last one in units of N(0, 1)
WIDEST = 100.0  # the most room for a long tail, in units of the range of the quantiles
_STEEP = np.geomspace(1e-2, 1e2, 61)  # shape / scale in units of 1 / median distance, where the shape is positive
_SHALLOW = np.geomspace(0.05, 0.95, 9)  # shape / scale in units of -1 / largest distance, where the shape is negative


@dataclass(frozen=True)
class LongTail:
    """Distances beyond a threshold: a generalised Pareto distribution with a positive shape."""

    threshold: float
    shape: float
    scale: float
    is_clear: bool  # whether the rows exclude a shape of 0

    def knots(self, knot: float, end: float, room: float) -> tuple[Floats, Floats, Floats] | None:
        """Knots from the outermost quantile `knot`, with latent value `end`, outwards: the arrays distance from `knot`,
        z, and dz / d distance.

        The knots end where the curve, continued as a straight line to the last value of `beyond`, would exceed the
        distance `room`. The result is None if even a line from `knot` exceeds `room`, or `knot` is below the threshold.
        """
        scale = self.scale + self.shape * (knot - self.threshold)  # the excess over `knot` has the same shape
        if not knot >= self.threshold:
            return None
        rest = _NORMAL.cdf(-end)
        z = np.append(end, beyond(end))
        share = np.array([_NORMAL.cdf(-at) / rest for at in z])
        distance = scale / self.shape * np.expm1(-self.shape * np.log(share))
        slope = rest * share ** (1.0 + self.shape) / (scale * np.array([_NORMAL.pdf(at) for at in z]))
        fits = np.flatnonzero(distance + (z[-1] - z) / slope <= room)
        if not fits.size:
            return None
        last = int(fits[-1]) + 1
        return distance[:last], z[:last], slope[:last]


def beyond(end: float) -> Floats:
    """Latent values of the knots beyond the outermost quantile, which has the latent value `end`."""
    return np.linspace(end, max(TOP, end + 1.0), KNOTS + 1)[1:]


def tail_of(x: Floats, share: Floats, standard: bool = False) -> LongTail | None:
    """Fit the upper tail of ascending values; return None if the rows do not support a power law. `share`: the weights.

    `standard`: whether the alternative is a standard normal tail, instead of an exponential one. If `standard`,
    an exponential tail is returned as a power law with the smallest shape.
    """
    below = np.cumsum(share)
    first = int(np.searchsorted(below, (1.0 - SHARE) * below[-1])) + 1
    far = (x[first:] > x[first - 1]) & (share[first:] > 0) if first < x.size else np.zeros(0, bool)
    d, weight = x[first:][far] - x[first - 1], share[first:][far]
    size = float(weight.sum() ** 2 / np.square(weight).sum()) if d.size else 0.0
    if size < LEAST_ROWS:
        return None
    weight = weight / weight.sum()
    median = d[np.searchsorted(np.cumsum(weight), 0.5)]
    steep = np.concatenate([-_SHALLOW[::-1] / d[-1], _STEEP / median])
    best = (weight * np.log1p(steep[:, None] * d)).sum(axis=1)  # the most likely shape for each ratio
    shape = np.minimum(best, STEEPEST)
    scale = shape / steep
    likelihood = size * (-np.log(scale) - (1.0 + 1.0 / shape) * best)
    longest = int(np.flatnonzero(likelihood >= likelihood.max() - LONGER)[-1])
    if not shape[longest] > 0:
        if not standard:
            return None
        longest = _SHALLOW.size
    exponential = -size * (math.log((weight * d).sum()) + 1.0)
    if standard:
        start = float(x[first - 1])
        rest = max(_NORMAL.cdf(-start), 1e-300)
        if (weight * d).sum() <= _NORMAL.pdf(start) / rest - start:
            return None  # the tail is shorter than a normal one
        normal = -0.5 * float((weight * np.square(start + d)).sum()) - 0.5 * math.log(2.0 * math.pi)
        exponential = size * (normal - math.log(rest))
    is_clear = bool(likelihood[steep > 0].max() > exponential + CLEARLY)
    return LongTail(float(x[first - 1]), float(shape[longest]), float(scale[longest]), is_clear)
