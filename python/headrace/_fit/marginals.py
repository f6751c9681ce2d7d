"""The marginal maps that a fit starts with: columns are made about normal where rows that a curve has not seen gain.

What is left to the networks is how columns depend on each other: edges, skewness and tails of a column cost them many
units, and a curve of some knots nothing (docs/notes/training.md has what it is worth).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._fit.rows import Data, Part
from headrace.ascent import marginals as _curves
from headrace.ascent.marginals import Curve, Shares
from headrace.transforms.gaussianize import LEAST, Gaussianize
from headrace.transforms.transform import Transform

__all__ = ["Sample", "gaussianizing", "of_sample"]

Floats = NDArray[np.float64]

ROWS = 1 << 14  # at most so many stand for all
LEAST_ROWS = 200
KNOTS = 33
BANDWIDTHS = (0.1, 0.3, 1.0)  # of the curves' kernels
FOLDS = 4
CLEARLY = 2.0  # standard errors by which rows must gain
LEAST_GAP = 1e-3  # standard deviations between two knots: closer ones are rows that repeat a value


@dataclass(frozen=True)
class Sample:
    """Standardised rows that stand for those to train on, and their weights, on the host."""

    rows: Floats
    weights: Floats | None

    def fold(self, fold: int, *, out: bool) -> Sample:
        """Every so manieth row, or (`out`) the others."""
        chosen = (np.arange(len(self.rows)) % FOLDS == fold) != out
        return Sample(self.rows[chosen], None if self.weights is None else self.weights[chosen])

    def shares(self) -> Shares:
        """What rows count."""
        return Shares.of(self.weights, len(self.rows))


def gaussianizing(data: Data, part: Part, mean: Floats, std: Floats) -> tuple[Transform, ...]:
    """A `Gaussianize` from latent to standardised data, by training rows; none where no column gains."""
    data, part = data.standing_for(part)
    size = min(part.size, ROWS)
    if size < LEAST_ROWS:
        return ()
    places = np.arange(size, dtype=np.int64) * part.size // size
    rows = _arrays.library(data.x).asarray(part.at(places))
    z = (_arrays.on_host(data.unbounded(rows)) - mean) / std
    weights = None if data.weights is None else _arrays.on_host(data.weights[rows]).astype(np.float64)
    circles = () if data.support is None else [c for c, period in enumerate(data.support.periodic) if period]
    return of_sample(Sample(z, weights), circles)


def of_sample(sample: Sample, circles: object = ()) -> tuple[Transform, ...]:
    """The same, of rows in memory; columns that lie on a circle stay as they are."""
    shares = sample.shares()
    if shares.rows < LEAST_ROWS:
        return ()
    end = NormalDist().inv_cdf(1.0 - _curves.TAIL / shares.rows)
    latent = np.linspace(-end, end, KNOTS)
    data, slopes = np.tile(latent, (sample.rows.shape[1], 1)), np.ones((sample.rows.shape[1], KNOTS))
    chosen = [c for c in range(len(data)) if c not in list(circles) and _of_column(sample, c, latent, data, slopes)]
    return (Gaussianize(data, latent, slopes),) if chosen else ()


def _of_column(sample: Sample, c: int, latent: Floats, data: Floats, slopes: Floats) -> bool:
    """Put the knots of a column in their place, if rows gain by them."""
    own = Sample(sample.rows[:, c : c + 1], sample.weights)
    best, gain = None, 0.0
    for bandwidth in BANDWIDTHS:
        found = _gain(own, latent, bandwidth)
        if found is not None and found > gain:
            best, gain = bandwidth, found
    knots = None if best is None else _knots(own, latent, best)
    if knots is None:
        return False
    data[c], slopes[c] = knots
    return True


def _gain(own: Sample, latent: Floats, bandwidth: float) -> float | None:
    """Nats that a row gains by a curve through the other folds' rows over a normal density; None if not clearly any."""
    gains, weights = [], []
    for fold in range(FOLDS):
        seen, unseen = own.fold(fold, out=True), own.fold(fold, out=False)
        knots = _knots(seen, latent, bandwidth)
        if knots is None:
            return None
        z, log_det = Gaussianize(knots[0][None], latent, knots[1][None]).inverse(unseen.rows)
        before = _normal(unseen.rows[:, 0], seen)
        gains.append(log_det - 0.5 * np.square(z[:, 0]) - before)
        weights.append(np.ones(len(z)) if unseen.weights is None else unseen.weights)
    each, share = np.concatenate(gains), np.concatenate(weights)
    if not np.isfinite(each).all():
        return None
    share = share / share.sum()
    mean = float((share * each).sum())
    error = float(np.sqrt(np.square(share * (each - mean)).sum()))
    return mean if mean > CLEARLY * error else None


def _normal(x: Floats, seen: Sample) -> Floats:
    """The log density of N(mean, variance) of the rows seen, but for the constant."""
    mean = np.average(seen.rows[:, 0], weights=seen.weights)
    variance = np.average(np.square(seen.rows[:, 0] - mean), weights=seen.weights)
    density: Floats = -0.5 * np.square(x - mean) / variance - 0.5 * np.log(variance)
    return density


def _knots(own: Sample, latent: Floats, bandwidth: float) -> tuple[Floats, Floats] | None:
    """Places and slopes of the curve that takes a column to N(0, 1) at the knots; None where rows repeat values."""
    curve = _curves.normal_score(own.rows[:, 0], own.shares(), bandwidth)
    if curve is None or not _reaches(curve, latent):
        return None
    x = np.interp(latent, curve.y, curve.x)
    for end, inner in ((0, 1), (-1, -2)):  # beyond the curve it is straight
        beyond = latent[end] - curve.y[end]
        if beyond * (latent[end] - latent[inner]) > 0:
            x[end] = curve.x[end] + beyond / curve.slope[end]
    gaps = np.diff(x)
    if not (gaps > LEAST_GAP).all() or not (gaps > 4 * LEAST * (x[-1] - x[0])).all():
        return None
    chords = np.diff(latent) / gaps
    return x, _slopes(gaps, chords)


def _reaches(curve: Curve, latent: Floats) -> bool:
    """Whether all knots but the outermost lie on the curve."""
    return bool(curve.y[0] <= latent[1] and curve.y[-1] >= latent[-2])


def _slopes(gaps: Floats, chords: Floats) -> Floats:
    """At the knots, so that the curve does not swing: harmonic means of chords (Fritsch and Butland 1984).

    At the ends it is the chord: what lies beyond goes on as the last rows do.
    """
    inner = 3 * (gaps[:-1] + gaps[1:]) / (
        (2 * gaps[1:] + gaps[:-1]) / chords[:-1] + (gaps[1:] + 2 * gaps[:-1]) / chords[1:]
    )
    return np.concatenate([chords[:1], inner, chords[-1:]])
