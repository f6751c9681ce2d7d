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
from headrace._fit.clock import Clock
from headrace._fit.rows import CHUNK, Data, Part
from headrace._fit.run import HeldOut, Run
from headrace.transforms.gaussianize import Gaussianize

__all__ = ["STEPS", "TRIED", "Sample", "few", "gain", "gaussianizing", "of_sample"]

Floats = NDArray[np.float64]

_NORMAL = NormalDist()

ROWS = 1 << 14  # at most so many stand for all,
NUMBERS, FEWEST = 1 << 19, 1 << 11  # and so many numbers of all columns, but not fewer rows than the second
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

    def shares(self) -> Floats:
        """What rows count, 1 for the one that counts most."""
        return np.ones(len(self.rows)) if self.weights is None else self.weights / self.weights.max()

    def size(self) -> float:
        """How many rows weights leave (Kish)."""
        share = self.shares()
        return float(np.square(share.sum()) / np.square(share).sum())


@dataclass(frozen=True)
class Column:
    """Ascending numbers of a column, what they count, and which fold each is of."""

    x: Floats
    share: Floats
    fold: NDArray[np.int64]

    @classmethod
    def of(cls, x: Floats, share: Floats) -> Column:
        """Of rows in any order: every so manieth one is of a fold."""
        order = np.argsort(x, kind="stable")
        return cls(x[order], share[order], order % FOLDS)

    def where(self, chosen: NDArray[np.bool_]) -> Column:
        """Some of the rows."""
        return Column(self.x[chosen], self.share[chosen], self.fold[chosen])


@dataclass(frozen=True)
class Curve:
    """What takes a column to N(0, 1): a rational quadratic function between knots, straight beyond (`Gaussianize`)."""

    x: Floats
    z: Floats
    slope: Floats

    def at(self, x: Floats) -> tuple[Floats, Floats]:
        """z and log dz/dx. In NumPy, as there are many curves of few rows."""
        k = np.clip(np.searchsorted(self.x, x, side="right") - 1, 0, self.x.size - 2)
        width, height = np.diff(self.x)[k], np.diff(self.z)[k]
        steep, d0, d1 = height / width, self.slope[k], self.slope[k + 1]
        t = np.clip((x - self.x[k]) / width, 0.0, 1.0)
        r = 1.0 - t
        below = steep + (d0 + d1 - 2.0 * steep) * t * r
        inside = self.z[k] + height * (steep * t * t + d0 * t * r) / below
        slope = np.square(steep / below) * (d1 * t * t + 2.0 * steep * t * r + d0 * r * r)
        beyond = x - np.clip(x, self.x[0], self.x[-1])
        z: Floats = inside + beyond * slope
        return z, np.log(slope)


def gaussianizing(data: Data, part: Part, mean: Floats, std: Floats, clock: Clock) -> tuple[Gaussianize] | tuple[()]:
    """A `Gaussianize` from latent to standardised data, by training rows; none where no column gains, or no time is."""
    data, part = data.standing_for(part)
    size = min(part.size, ROWS, max(NUMBERS // mean.size, FEWEST))
    if size < LEAST_ROWS:
        return ()
    places = np.arange(size, dtype=np.int64) * part.size // size
    rows = _arrays.library(data.x).asarray(part.at(places))
    z = (_arrays.on_host(data.unbounded(rows)) - mean) / std
    weights = None if data.weights is None else _arrays.on_host(data.weights[rows]).astype(np.float64)
    circles = () if data.support is None else [c for c, period in enumerate(data.support.periodic) if period]
    return of_sample(Sample(z, weights), circles, clock)


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


def few(data: Data, part: Part, most: int) -> tuple[Data, Part]:
    """Rows for a trial, in memory: all of a part, or so many that stand for them."""
    data, part = data.standing_for(part)
    most = min(most, CHUNK)
    if part.size <= most:
        return data, part
    return data.rows(part.at(np.arange(most, dtype=np.int64) * part.size // most)), Part(most)


def of_sample(
    sample: Sample, circles: Sequence[int] = (), clock: Clock | None = None
) -> tuple[Gaussianize] | tuple[()]:
    """The same, of rows in memory; columns that lie on a circle stay as they are."""
    size, share = sample.size(), sample.shares()
    if not size >= LEAST_ROWS:
        return ()
    end = _NORMAL.inv_cdf(1.0 - TAIL / size)
    latent = np.linspace(-end, end, KNOTS)
    features = sample.rows.shape[1]
    data, slopes = np.tile(latent, (features, 1)), np.ones((features, KNOTS))
    any_gains = False
    for c in range(features):
        if clock is not None and not clock.has(0.0):
            return ()
        curve = None if c in circles else _chosen(Column.of(sample.rows[:, c], share), latent)
        if curve is not None:
            data[c], slopes[c], any_gains = curve.x, curve.slope, True
    try:
        return (Gaussianize(data, latent, slopes),) if any_gains else ()
    except ValueError:  # two knots closer than a spline takes
        return ()


def _chosen(column: Column, latent: Floats) -> Curve | None:
    """The curve of a column by which rows gain most, with knots at these places; None if they do not clearly gain."""
    best, gain = None, 0.0
    for count in COUNTS:
        found = _gain(column, latent, count)
        if found is not None and found > gain:
            best, gain = count, found
    curve = None if best is None else _curve(column, latent, best)
    if curve is None:
        return None
    try:
        x = Gaussianize(curve.x[None], curve.z, curve.slope[None]).forward(latent[:, None])[0][:, 0]
    except ValueError:
        return None
    return Curve(x, latent, np.exp(curve.at(x)[1]))


def _gain(column: Column, latent: Floats, count: int) -> float | None:
    """Nats that a row gains by a curve through the other folds' rows over a normal density; None if not clearly any."""
    gains, shares = [], []
    for fold in range(FOLDS):
        seen, unseen = column.where(column.fold != fold), column.where(column.fold == fold)
        curve = _curve(seen, latent, count)
        if curve is None:
            return None
        z, log_slope = curve.at(unseen.x)
        gains.append(log_slope - 0.5 * np.square(z) - _normal(unseen.x, seen))
        shares.append(unseen.share)
    each, share = np.concatenate(gains), np.concatenate(shares)
    if not np.isfinite(each).all() or not share.sum() > 0:
        return None
    share = share / share.sum()
    mean = float((share * each).sum())
    error = float(np.sqrt(np.square(share * (each - mean)).sum()))
    return mean if mean > CLEARLY * error else None


def _normal(x: Floats, seen: Column) -> Floats:
    """The log density of N(mean, variance) of the rows seen, but for the constant."""
    total = seen.share.sum()
    mean = (seen.share * seen.x).sum() / total
    variance = (seen.share * np.square(seen.x - mean)).sum() / total
    density: Floats = -0.5 * np.square(x - mean) / variance - 0.5 * np.log(variance)
    return density


def _curve(column: Column, latent: Floats, count: int) -> Curve | None:
    """What takes quantiles of a column to those of N(0, 1), so many; None where rows repeat values."""
    x, share = column.x, column.share
    total = float(share.sum())
    if not total > 0:
        return None
    ends = latent[:: (KNOTS - 1) // (count - 1)]
    below = (np.cumsum(share) - 0.5 * share) / total
    knots = np.interp([_NORMAL.cdf(end) for end in ends], below, x)
    values = x[np.concatenate([[True], np.diff(x) > 0])]
    if (np.diff(np.searchsorted(values, knots, side="right")) < DISTINCT).any():
        return None
    slopes = _slopes(np.diff(knots), np.diff(ends))
    slopes[0] = _tail(knots[0] - x, -ends[0], share, slopes[0])
    slopes[-1] = _tail(x - knots[-1], ends[-1], share, slopes[-1])
    return Curve(knots, ends, slopes)


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
