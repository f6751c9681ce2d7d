"""Power-law tails: where a column's outermost rows support them, the curve of `Gaussianize` follows them.

Beyond a high threshold, distances of about any column are distributed as a generalised Pareto (Balkema and de Haan
1974; Pickands 1975): P(beyond d) = (1 + shape d / scale)^(-1 / shape). A straight tail gives a row that is far out the
density of a normal distribution; a curve through quantiles of this one gives it a power of its distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from headrace._base.types import Floats

_NORMAL = NormalDist()

SHARE = 0.04  # share of all rows: the outermost rows on a side, by which its tail is estimated,
LEAST_ROWS = 40  # if they are at least this many: from 1000 rows on
CLEARLY = 1.0  # nats that their log-likelihood gains, at least, beside an exponential tail
LONGER = 0.5  # nats that a larger shape may cost, within a standard error: rows far out lose little by a larger shape
STEEPEST = 1.0  # the largest shape: that of a Cauchy distribution
KNOTS, TOP = 8, 6.0  # knots beyond a column's outermost quantile, and position of the last one in units of N(0, 1)
WIDEST = 100.0  # times the distance of the outermost quantile: the curve is straight from there on
_STEEP = np.geomspace(1e-2, 1e2, 61)  # shape / scale in units of 1 / median distance, where the shape is positive,
_SHALLOW = np.geomspace(0.05, 0.95, 9)  # in units of -1 / largest distance, where the shape is negative


@dataclass(frozen=True)
class LongTail:
    """Distances beyond a threshold: a generalised Pareto distribution with a positive shape."""

    threshold: float
    shape: float
    scale: float
    is_clear: bool  # whether the rows exclude a shape of 0

    def knots(self, knot: float, end: float, room: float) -> tuple[Floats, Floats, Floats] | None:
        """Knots at and beyond the outermost quantile, at latent `end`: distances from it, latent z, dz / d distance.

        There are fewer knots where the curve would leave `room` before the last value of `beyond`; after them it is
        straight. None where the curve leaves `room` even without knots.
        """
        scale = self.scale + self.shape * (knot - self.threshold)  # beyond a knot the distribution is of the same kind
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
    """Latent values of further knots, in units of N(0, 1), if the outermost quantile is at `end`."""
    return np.linspace(end, max(TOP, end + 1.0), KNOTS + 1)[1:]


def tail_of(x: Floats, share: Floats, standard: bool = False) -> LongTail | None:
    """The upper tail of ascending values and their shares; None where a power law is not supported.

    `standard`: whether a standard normal tail is the alternative, in place of an exponential one. Where rows support no
    power, the smallest shape stands for an exponential one.
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
    best = (weight * np.log1p(steep[:, None] * d)).sum(axis=1)  # the most likely shapes for these
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
            return None  # rows lie less far beyond the threshold than normal ones
        normal = -0.5 * float((weight * np.square(start + d)).sum()) - 0.5 * math.log(2.0 * math.pi)
        exponential = size * (normal - math.log(rest))
    is_clear = bool(likelihood[steep > 0].max() > exponential + CLEARLY)
    return LongTail(float(x[first - 1]), float(shape[longest]), float(scale[longest]), is_clear)
