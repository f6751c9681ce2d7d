"""Curves that make a column nearly normal, through quantiles of its values or of their kernel density.

Curves are judged by rows that they have not seen. Curves of many rows have knots at quantiles of the values. A hundred
rows are too few for nine quantiles, so that curves of few rows have knots at quantiles of a kernel density (Parzen
1962).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats
from headrace._fit.starts import long_tails as _long_tails
from headrace._fit.starts.long_tails import LongTail
from headrace._fit.starts.scores import Shares, before, masses, smoothed
from headrace._flow.transforms.gaussianize import Gaussianize

_NORMAL = NormalDist()

FOLDS = 4
DISTINCT = 3  # least number of different values between two quantiles for a curve
SPREAD = 3e-6  # least gap, as a share of the range, to which close knots are moved apart

# Curves of few rows.
LEAST_ROWS = 40
WIDTHS = (0.4, 0.6, 0.9, 1.4, 2.2)  # kernel widths, in units of deviation / rows^(1/5)
KNOTS = 17
TAIL, SHARE = 10.0, 0.05  # the most rows beyond an outermost knot, and their largest share
CELLS = 512  # cells of the grid of a density
CLEARLY = 1.0  # standard errors by which unseen rows must gain
DIFFERENT = 0.9  # least share of different values in a column that gets a curve


@dataclass(frozen=True)
class Column:
    """The values of a column in ascending order, and the weight and the fold of each value."""

    x: Floats
    share: Floats
    fold: NDArray[np.int64]

    @classmethod
    def of(cls, x: Floats, share: Floats) -> Column:
        """The values of rows in any order; rows are distributed to the folds in turn."""
        order = np.argsort(x, kind="stable")
        return cls(x[order], share[order], order % FOLDS)

    def folds(self) -> list[tuple[Column, Column]]:
        """A pair for each fold: the rows of all other folds, and the rows of this fold."""
        return [(self.where(self.fold != fold), self.where(self.fold == fold)) for fold in range(FOLDS)]

    def shares(self) -> Floats:
        """The shares of rows in the total weight, fold after fold."""
        share: Floats = np.concatenate([self.share[self.fold == fold] for fold in range(FOLDS)])
        share /= share.sum()
        return share

    def where(self, chosen: NDArray[np.bool_]) -> Column:
        """Some of the rows."""
        return Column(self.x[chosen], self.share[chosen], self.fold[chosen])

    @property
    def moments(self) -> tuple[float, float]:
        """Mean and variance."""
        total = self.share.sum()
        mean = (self.share * self.x).sum() / total
        return float(mean), float((self.share * np.square(self.x - mean)).sum() / total)

    @property
    def is_clearly_long(self) -> bool:
        """Whether one of the tails clearly follows a power law."""
        return any(tail is not None and tail.is_clear for tail in self.tails)

    @cached_property
    def tails(self) -> tuple[LongTail | None, LongTail | None]:
        """The lower and the upper tail; the lower one is fitted to the values with the opposite sign."""
        return _long_tails.tail_of(-self.x[::-1], self.share[::-1]), _long_tails.tail_of(self.x, self.share)


@dataclass(frozen=True)
class Curve:
    """A map of a column to N(0, 1), as in `Gaussianize`: rational quadratic between knots, straight beyond."""

    x: Floats
    z: Floats
    slope: Floats

    def at(self, x: Floats) -> tuple[Floats, Floats]:
        """z and log dz/dx. The computation is in NumPy, because there are many curves of few rows."""
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

    def placed(self, latent: Floats, spread: bool = False) -> Curve | None:
        """Nearly the same curve with knots at `latent`; None if these knots would be closer than `Gaussianize` allows.

        `spread`: whether to move knots that are too close, such as at a sharp edge, away from the middle.
        """
        curve = Curve(*_spread(self.x, self.z, self.slope)) if spread else self
        try:
            x = Gaussianize(curve.x[None], curve.z, curve.slope[None]).forward(latent[:, None])[0][:, 0]
            slope = np.exp(curve.at(x)[1])
            if spread:
                x, _, slope = _spread(x, latent, slope)
            Gaussianize(x[None], latent, slope[None])
        except ValueError:
            return None
        return Curve(x, latent, slope)

    def is_longer(self, latent: Floats) -> bool:
        """Whether the curve has knots beyond the first or the last value of `latent`."""
        return bool(self.z[0] < latent[0] or self.z[-1] > latent[-1])

    def mirrored(self) -> Curve:
        """The curve for the same column with the opposite sign."""
        return Curve(-self.x[::-1], -self.z[::-1], self.slope[::-1])


def _spread(x: Floats, latent: Floats, slope: Floats) -> tuple[Floats, Floats, Floats]:
    """Move knots as far apart as `Gaussianize` requires; moved inner knots get the slopes of their chords.

    The end knots keep the slopes of the tails, because the slope of a spike would move all rows beyond the end far out.
    """
    moved, middle, least = x.copy(), x.size // 2, SPREAD * (x[-1] - x[0])
    for i in range(middle + 1, x.size):
        moved[i] = max(x[i], moved[i - 1] + least)
    for i in range(middle - 1, -1, -1):
        moved[i] = min(x[i], moved[i + 1] - least)
    return moved, latent, np.where((moved == x) | np.isin(latent, latent[[0, -1]]), slope, np.gradient(latent, moved))


def gains_of(column: Column, made: Callable[[Column], Curve | None]) -> Floats | None:
    """Gains in nats of rows, fold after fold, by a curve over a normal density, both fitted to the other folds."""
    gains = []
    for seen, unseen in column.folds():
        if (curve := made(seen)) is None:
            return None
        z, log_slope = curve.at(unseen.x)
        mean, variance = seen.moments
        normal = -0.5 * np.square(unseen.x - mean) / variance - 0.5 * np.log(variance)
        gains.append(log_slope - 0.5 * np.square(z) - normal)
    each = np.concatenate(gains)
    return each if np.isfinite(each).all() else None


def best_of(
    column: Column, kinds: Sequence[Callable[[Column], Curve | None]], errors: float
) -> tuple[int, Floats] | None:
    """The index in `kinds` of the function whose curves gain most, and the gains; None if none clearly gains."""
    best, most = None, 0.0
    for i, made in enumerate(kinds):
        each = gains_of(column, made)
        if each is not None and (mean := mean_beyond(each, column.shares(), errors)) > most:
            best, most = (i, each), mean
    return best


def mean_beyond(each: Floats, share: Floats, errors: float) -> float:
    """The weighted mean if it is larger than `errors` standard errors; else minus infinity."""
    mean = float((share * each).sum())
    error = float(np.sqrt(np.square(share * (each - mean)).sum()))
    return mean if mean > errors * error else -math.inf


def of_quantiles(column: Column, ends: Floats, closest: float | None = None) -> Curve | None:
    """The curve from quantiles of a column to the quantiles `ends` of N(0, 1); None if too many values repeat.

    `closest`: None for straight tails; else the least gap of quantiles over the range of the knots with long tails.
    """
    x, share = column.x, column.share
    total = float(share.sum())
    if not total > 0:
        return None
    below = (np.cumsum(share) - 0.5 * share) / total
    knots = np.interp([_NORMAL.cdf(end) for end in ends], below, x)
    values = x[np.concatenate([[True], np.diff(x) > 0])]
    if (np.diff(np.searchsorted(values, knots, side="right")) < DISTINCT).any():
        return None
    curve = _with_tails(column, knots, ends, _slopes(np.diff(knots), np.diff(ends)))
    if closest is None:
        return curve
    room = min(_long_tails.WIDEST * float(knots[-1] - knots[0]), float(np.diff(knots).min()) / closest)
    lower, upper = column.tails
    return lengthened(lengthened(curve, upper, room).mirrored(), lower, room).mirrored()


def lengthened(curve: Curve, tail: LongTail | None, room: float) -> Curve:
    """The curve with a long tail at its upper end, up to the distance `room`; unchanged if `tail` is None."""
    further = None if tail is None else tail.knots(float(curve.x[-1]), float(curve.z[-1]), room)
    if further is None:
        return curve
    distance, z, slope = further
    parts = (curve.x[:-1], curve.x[-1] + distance), (curve.z[:-1], z), (curve.slope[:-1], slope)
    return Curve(*(np.concatenate(part) for part in parts))


def _slopes(gaps: Floats, rises: Floats) -> Floats:
    """Slopes at the knots without overshoot: harmonic means of chords (Fritsch and Butland 1984).

    The slope at the first and the last knot is that of the outermost chord.
    """
    chords = rises / gaps
    inner = (
        3
        * (gaps[:-1] + gaps[1:])
        / ((2 * gaps[1:] + gaps[:-1]) / chords[:-1] + (gaps[1:] + 2 * gaps[:-1]) / chords[1:])
    )
    return np.concatenate([chords[:1], inner, chords[-1:]])


def _with_tails(column: Column, knots: Floats, latent: Floats, slopes: Floats) -> Curve:
    """The curve through these knots, with straight tails that are fitted to the rows beyond the knots."""
    slopes[0] = _tail(knots[0] - column.x, -latent[0], column.share, slopes[0])
    slopes[-1] = _tail(column.x - knots[-1], latent[-1], column.share, slopes[-1])
    return Curve(knots, latent, slopes)


def _tail(beyond: Floats, end: float, share: Floats, otherwise: float) -> float:
    """The slope of a straight tail with the largest likelihood of the rows beyond the last knot.

    Rows in the tail become z = end + slope · beyond, with log densities log slope - z² / 2. Heavy tails make the slope
    small, so that a row far out costs little.
    """
    is_beyond = (beyond > 0) & (share > 0)
    if not is_beyond.any():
        return otherwise
    d, weight = beyond[is_beyond], share[is_beyond]
    total, first, second = float(weight.sum()), float((weight * d).sum()), float((weight * d * d).sum())
    half = 0.5 * end * first  # solve slope² second + slope end first = total
    return total / (half + math.sqrt(half * half + total * second))


def of_kernels(column: Column, latent: Floats, width: float) -> Curve | None:
    """The curve from quantiles of a kernel density of the column to those of N(0, 1); None if it is not increasing."""
    x, share = column.x, column.share
    total = float(share.sum())
    h = width * math.sqrt(column.moments[1]) * (total**2 / float(np.square(share).sum())) ** -0.2
    if not h > 0:
        return None
    grid, step = np.linspace(x[0] - 4.0 * h, x[-1] + 4.0 * h, CELLS, retstep=True)
    if 4.0 * h <= step:  # kernels narrower than a cell, because rows are far out
        return None
    shares = Shares.of(share, x.size)
    density = smoothed(masses(before(x, shares.of_rows, grid[0], step, CELLS), shares.total)[1], h / step) / step
    below = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1])) * step])
    rises = np.concatenate([[True], np.diff(below) > 0])
    knots = np.interp([_NORMAL.cdf(z) for z in latent], below[rises] / below[-1], grid[rises])
    slopes = np.interp(knots, grid, density) / [_NORMAL.pdf(z) for z in latent]
    if not (np.diff(knots) > 0).all() or not (slopes > 0).all():
        return None
    return _with_tails(column, knots, latent, slopes)


def of_few_rows(rows: Floats, share: Floats, circles: Sequence[int] = ()) -> tuple[Gaussianize, ...]:
    """Curves for the standardised columns whose unseen rows gain by a curve; () if no column gains."""
    return _kept(rows.tobytes(), rows.shape, share.tobytes(), tuple(circles))


@lru_cache(maxsize=16)
def _kept(bytes_: bytes, shape: tuple[int, ...], shares: bytes, circles: tuple[int, ...]) -> tuple[Gaussianize, ...]:
    """See `of_few_rows`; results are cached, because cross-validation fits curves to the same rows again and again."""
    rows, share = np.frombuffer(bytes_).reshape(shape), np.frombuffer(shares)
    size = float(share.sum() ** 2 / np.square(share).sum())
    if size < LEAST_ROWS:
        return ()
    end = -_NORMAL.inv_cdf(min(TAIL / size, SHARE))
    latent, features = np.linspace(-end, end, KNOTS), rows.shape[1]
    data, slopes, any_gains = np.tile(latent, (features, 1)), np.ones((features, KNOTS)), False
    kinds = [partial(of_kernels, latent=latent, width=width) for width in WIDTHS]
    for c in range(features):
        column = Column.of(rows[:, c], share / share.max())
        if c in circles or np.unique(column.x).size < DIFFERENT * column.x.size:
            continue
        best = best_of(column, kinds, CLEARLY)
        curve = None if best is None else kinds[best[0]](column)
        if curve is not None and (placed := curve.placed(latent, spread=True)) is not None:
            data[c], slopes[c], any_gains = placed.x, placed.slope, True
    return (Gaussianize(data, latent, slopes),) if any_gains else ()
