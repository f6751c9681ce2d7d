"""The marginal maps that a fit starts with: columns are made about normal where rows that a curve has not seen gain.

What is left to the networks is how columns depend on each other: edges, skewness and tails of a column cost them many
units, and a curve of some knots nothing (docs/notes/training.md has what it is worth). Where it is modes that a column
has, and a gap between them, networks may do better with the column as it is: some steps of both say which.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._fit.rows import CHUNK, Data, Part
from headrace._fit.run import HeldOut, Run
from headrace.transforms.gaussianize import Gaussianize
from headrace.transforms.transform import Transform

__all__ = ["STEPS", "TRIED", "Sample", "few", "gain", "gaussianizing", "of_sample"]

Floats = NDArray[np.float64]

_NORMAL = NormalDist()

ROWS = 1 << 14  # at most so many stand for all
LEAST_ROWS = 200
TAIL = 10.0  # rows beyond the outermost knots
COUNTS = (9, 17, 33)  # of quantiles, among which rows choose
KNOTS = COUNTS[-1]
FOLDS = 4
CLEARLY = 2.0  # standard errors by which rows must gain
DISTINCT = 3  # values between two quantiles, at least: a column of fewer has no density
STEPS = 400  # of a trial
TRIED = 4000  # steps that a fit may take, at least, for a trial to be worth it


@dataclass(frozen=True)
class Sample:
    """Standardised rows that stand for those to train on, and their weights, on the host."""

    rows: Floats
    weights: Floats | None

    def fold(self, fold: int, *, out: bool) -> Sample:
        """Every so manieth row, or (`out`) the others."""
        chosen = (np.arange(len(self.rows)) % FOLDS == fold) != out
        return Sample(self.rows[chosen], None if self.weights is None else self.weights[chosen])

    def size(self) -> float:
        """How many rows weights leave (Kish)."""
        if self.weights is None:
            return float(len(self.rows))
        return float(np.square(self.weights.sum()) / np.square(self.weights).sum())


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


def gain(tried: Run, other: Run, held_out: HeldOut) -> bool:
    """Whether the first of two fits is the better one on held-out rows after as many steps."""
    lowest = [math.inf, math.inf]
    for _ in range(-(-STEPS // tried.plan.batches)):
        now = []
        for run in (tried, other):
            passed = run.one_pass()
            now.append(held_out.loss(run.flow, run.current()) if math.isfinite(passed) else math.inf)
            if run.clock.ran_out:
                return lowest[0] < lowest[1]
        lowest = [min(pair) for pair in zip(lowest, now, strict=True)]
    return lowest[0] < lowest[1]


def few(data: Data, part: Part) -> tuple[Data, Part]:
    """Rows for a trial, in memory: all of a part, or so many that stand for them."""
    data, part = data.standing_for(part)
    if part.size <= CHUNK:
        return data, part
    return data.rows(part.at(np.arange(CHUNK, dtype=np.int64) * part.size // CHUNK)), Part(CHUNK)


def of_sample(sample: Sample, circles: Sequence[int] = ()) -> tuple[Transform, ...]:
    """The same, of rows in memory; columns that lie on a circle stay as they are."""
    if sample.size() < LEAST_ROWS:
        return ()
    end = _NORMAL.inv_cdf(1.0 - TAIL / sample.size())
    latent = np.linspace(-end, end, KNOTS)
    data, slopes = np.tile(latent, (sample.rows.shape[1], 1)), np.ones((sample.rows.shape[1], KNOTS))
    chosen = [c for c in range(len(data)) if c not in circles and _of_column(sample, c, latent, data, slopes)]
    return (Gaussianize(data, latent, slopes),) if chosen else ()


def _of_column(sample: Sample, c: int, latent: Floats, data: Floats, slopes: Floats) -> bool:
    """Put the knots of a column in their place, if rows gain by them."""
    own = Sample(sample.rows[:, c : c + 1], sample.weights)
    best, gain = None, 0.0
    for count in COUNTS:
        found = _gain(own, latent, count)
        if found is not None and found > gain:
            best, gain = count, found
    curve = None if best is None else _curve(own, latent, best)
    if curve is None:
        return False
    x, log_det = curve.forward(latent[:, None])
    data[c], slopes[c] = x[:, 0], np.exp(-log_det)
    return True


def _gain(own: Sample, latent: Floats, count: int) -> float | None:
    """Nats that a row gains by a curve through the other folds' rows over a normal density; None if not clearly any."""
    gains, weights = [], []
    for fold in range(FOLDS):
        seen, unseen = own.fold(fold, out=True), own.fold(fold, out=False)
        curve = _curve(seen, latent, count)
        if curve is None:
            return None
        z, log_det = curve.inverse(unseen.rows)
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


def _curve(own: Sample, latent: Floats, count: int) -> Gaussianize | None:
    """What takes quantiles of a column to those of N(0, 1), so many; None where rows repeat values."""
    x, weights = own.rows[:, 0], own.weights
    order = np.argsort(x, kind="stable")
    x, share = x[order], np.ones(len(x)) if weights is None else weights[order]
    ends = latent[:: (KNOTS - 1) // (count - 1)]
    below = (np.cumsum(share) - 0.5 * share) / share.sum()
    knots = np.interp([_NORMAL.cdf(end) for end in ends], below, x)
    values = np.unique(x)
    if (np.diff(np.searchsorted(values, knots, side="right")) < DISTINCT).any():
        return None
    slopes = _slopes(np.diff(knots), np.diff(ends))
    slopes[0] = _tail(knots[0] - x, -ends[0], share, slopes[0])
    slopes[-1] = _tail(x - knots[-1], ends[-1], share, slopes[-1])
    try:
        return Gaussianize(knots[None], ends, slopes[None])
    except ValueError:  # too close for a spline
        return None


def _slopes(gaps: Floats, rises: Floats) -> Floats:
    """At the knots, so that the curve does not swing: harmonic means of chords (Fritsch and Butland 1984).

    At the ends it is that of the last chord.
    """
    chords = rises / gaps
    inner = (
        3
        * (gaps[:-1] + gaps[1:])
        / ((2 * gaps[1:] + gaps[:-1]) / chords[:-1] + (gaps[1:] + 2 * gaps[:-1]) / chords[1:])
    )
    return np.concatenate([chords[:1], inner, chords[-1:]])


def _tail(beyond: Floats, end: float, share: Floats, otherwise: float) -> float:
    """The slope of a straight tail: the most likely one for the rows that lie beyond its knot.

    They become z = end + slope · beyond, and have log densities log slope - z² / 2. Heavy tails make it small, so that
    a row far out costs its own density, and not more.
    """
    is_beyond = (beyond > 0) & (share > 0)
    if not is_beyond.any():
        return otherwise
    d, weight = beyond[is_beyond], share[is_beyond]
    total, first, second = float(weight.sum()), float((weight * d).sum()), float((weight * d * d).sum())
    half = 0.5 * end * first  # of slope² second + slope end first = total
    return total / (half + math.sqrt(half * half + total * second))
