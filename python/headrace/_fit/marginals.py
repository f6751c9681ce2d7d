"""The marginal maps that a fit starts with: columns are made nearly normal where rows unseen by a curve gain.

The networks then learn only how columns depend on each other: edges, skewness and tails of a column cost them many
units, and a curve of some knots nothing (gains: docs/notes/training.md). Where a column has modes
and a gap between them, networks may do better with the column unchanged: some steps of both decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._base import progress as _progress
from headrace._base.types import Floats
from headrace._fit import long_tails as _long_tails
from headrace._fit.clock import Clock
from headrace._fit.long_tails import LongTail
from headrace._fit.plan import LEAST_HELD_OUT
from headrace._fit.residuals import behind
from headrace._fit.run import HeldOut, Run
from headrace._fit.source import ArrayRows
from headrace._flow.transforms.gaussianize import Gaussianize
from headrace._flow.transforms.support import circles_of
from headrace._flow.transforms.transform import Transform

if TYPE_CHECKING:
    from headrace._flow.internals import Interior


_NORMAL = NormalDist()

ROWS = 1 << 14  # the number of rows that represent all, at most,
NUMBERS, FEWEST = 1 << 19, 1 << 11  # and of values in all columns, but not fewer rows than the second
LEAST_ROWS = 200
TAIL = 10.0  # rows beyond the outermost knots
COUNTS = (9, 17, 33)  # of quantiles, among which rows choose
KNOTS = COUNTS[-1]
CLOSEST = (4e-6, 2e-5)  # least shares of the range with long tails between two quantiles: the first that gives a curve
LINKS = 2  # at most
MOST = KNOTS + 2 * _long_tails.KNOTS  # of them all, with long tails
SPREAD = 3e-6  # of the range, between knots closer than `Gaussianize` allows
CROWDED = 3e-5  # of the range, between two of the fewest quantiles: closer ones leave no room for knots between them
REACH = 12.0  # scale of asinh for these, in the same unit: more would leave its own knots no room
FOLDS = 4
CLEARLY = 2.0  # standard errors by which rows must gain, or lose
DISTINCT = 3  # values between two quantiles, at least: a column of fewer has no density
STEPS = 400  # of a trial
NO_GAIN = (
    "gaussianize: expected False or 'auto' for rows of which no column gains by a curve (on rows that it has "
    "not seen), or too few of which differ, got True"
)
TRIED = 4000  # steps that a fit may take, at least, for a trial to be worth it


@dataclass(frozen=True)
class Sample:
    """Standardised rows that represent those to train on, and their weights, on the host."""

    rows: Floats
    weights: Floats | None

    def shares(self) -> Floats:
        """Relative weights of rows, 1 for the largest."""
        return np.ones(len(self.rows)) if self.weights is None else self.weights / self.weights.max()

    def size(self) -> float:
        """The effective number of rows (Kish)."""
        share = self.shares()
        return float(np.square(share.sum()) / np.square(share).sum())


@dataclass(frozen=True)
class Column:
    """Ascending values of a column, their weights, and the index of each one's fold."""

    x: Floats
    share: Floats
    fold: NDArray[np.int64]

    @classmethod
    def of(cls, x: Floats, share: Floats) -> Column:
        """The values of rows in any order; rows are distributed to the folds in turn."""
        order = np.argsort(x, kind="stable")
        return cls(x[order], share[order], order % FOLDS)

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
        """The lower tail, of the values with the opposite sign, and the upper one."""
        return _long_tails.tail_of(-self.x[::-1], self.share[::-1]), _long_tails.tail_of(self.x, self.share)


@dataclass(frozen=True)
class Curve:
    """A map of a column to N(0, 1): a rational quadratic function between knots, straight beyond (`Gaussianize`)."""

    x: Floats
    z: Floats
    slope: Floats

    def at(self, x: Floats) -> tuple[Floats, Floats]:
        """z and log dz/dx. In NumPy, because there are many curves of few rows."""
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
        """Nearly the same curve with knots at these values; None where `Gaussianize` allows none as close.

        `spread`: knots that are too close, such as at a sharp edge, are moved outwards, from the middle on.
        """
        own = Curve(*_spread(self.x, self.z, self.slope)) if spread else self
        try:
            x = Gaussianize(own.x[None], own.z, own.slope[None]).forward(latent[:, None])[0][:, 0]
            slope = np.exp(own.at(x)[1])
            if spread:
                x, _, slope = _spread(x, latent, slope)
            Gaussianize(x[None], latent, slope[None])
        except ValueError:
            return None
        return Curve(x, latent, slope)

    def is_longer(self, latent: Floats) -> bool:
        """Whether the curve has knots beyond these."""
        return bool(self.z[0] < latent[0] or self.z[-1] > latent[-1])

    def mirrored(self) -> Curve:
        """The curve of the column with the opposite sign."""
        return Curve(-self.x[::-1], -self.z[::-1], self.slope[::-1])


def _spread(x: Floats, latent: Floats, slope: Floats) -> tuple[Floats, Floats, Floats]:
    """Knots as far apart as `Gaussianize` requires, and slopes of their chords where they moved.

    The ends keep their slopes, because these are those of the tails: a spike's would throw all rows beyond far out.
    """
    moved, middle, least = x.copy(), x.size // 2, SPREAD * (x[-1] - x[0])
    for i in range(middle + 1, x.size):
        moved[i] = max(x[i], moved[i - 1] + least)
    for i in range(middle - 1, -1, -1):
        moved[i] = min(x[i], moved[i + 1] - least)
    return moved, latent, np.where((moved == x) | np.isin(latent, latent[[0, -1]]), slope, np.gradient(latent, moved))


def looked_for(asked: bool | None, interior: Interior, held: int | None, steps: int) -> bool:
    """Whether a fit searches for marginal maps. An error where they are required and impossible.

    `held`: rows held out; None where cross-validation replaces them.
    """
    if asked is False:
        return False
    refused = ""
    if not interior.is_fresh:
        has_curves = any(isinstance(link, Gaussianize) for link in interior.links)
        refused = "" if has_curves else "a flow that does not end in a fresh Standardize"
    elif not interior.is_over_a_bell:
        refused = "a base with edges, modes or tails of its own"
    elif held is not None and held < LEAST_HELD_OUT:
        refused = f"{held} held-out rows, fewer than {LEAST_HELD_OUT}"
    if asked and refused:
        raise ValueError(f"gaussianize: expected False or 'auto' with {refused}, got True")
    return not refused and interior.is_fresh and (bool(asked) or steps >= TRIED)


def gaussianizing(
    source: ArrayRows,
    mean: Floats,
    std: Floats,
    clock: Clock,
    progress: bool = False,
    linear: Sequence[Transform] = (),
) -> tuple[Gaussianize, ...]:
    """Links from latent to standardised data, from training rows; none where no column gains, or no time is left.

    `linear`: links between them and the standardised data.
    """
    size = min(source.size, ROWS, max(NUMBERS // mean.size, FEWEST))
    if size < LEAST_ROWS:
        return ()
    data, rows = source.some(size)
    z = behind((_arrays.on_host(data.unbounded(rows)) - mean) / std, linear)
    weights = None if data.weights is None else _arrays.on_host(data.weights[rows]).astype(np.float64)
    return of_sample(Sample(z, weights), circles_of(data.support), clock, progress=progress)


def gain(
    tried: Run,
    other: Run,
    held_out: HeldOut,
    has_tails: bool = False,
    progress: bool = False,
    steps: int = STEPS,
    what: str = "try marginals",
) -> bool:
    """Whether a fit begins with curves, after the same number of steps of two fits: with them, and without them.

    Rows are judged in pairs, by the difference of each row's two losses and its standard error: a smaller difference
    depends on the seed more than on the table. Curves stay unless rows lose by them by more than one error (the rule of
    Breiman et al. 1984).

    `has_tails`: whether curves have long tails. Then rows have to lose clearly, because a mean over rows of which few
    are far out hardly shows the losses of rows further out.
    """
    lowest = [_Judged(), _Judged()]
    epochs, weights = -(-steps // tried.plan.batches), held_out.weights()
    share, allowed = weights / weights.sum(), CLEARLY if has_tails else 1.0
    with _progress.bar(2 * epochs, what, "epoch", progress, leave=False) as shown:
        for _ in range(epochs):
            now = []
            for run in (tried, other):
                passed = run.one_pass()
                now.append(_Judged.of(run, held_out, share) if math.isfinite(passed) else _Judged())
                if run.clock.ran_out:
                    return _stays(lowest[0], lowest[1], share, allowed)
                shown.update()
            lowest = [min(pair, key=lambda judged: judged.loss) for pair in zip(lowest, now, strict=True)]
    return _stays(lowest[0], lowest[1], share, allowed)


@dataclass(frozen=True)
class _Judged:
    """The loss of a fit on held-out rows, and that of each row; None where one is not finite."""

    loss: float = math.inf
    each: Floats | None = None

    @classmethod
    def of(cls, run: Run, held_out: HeldOut, share: Floats) -> _Judged:
        each = -held_out.log_probs(run.flow, run.current())
        return cls(float((each * share).sum()), each) if np.isfinite(each).all() else cls()


def _stays(tried: _Judged, other: _Judged, share: Floats, allowed: float) -> bool:
    """Whether the mean loss of rows by the first fit is at most this multiple of its standard error."""
    if tried.each is None or other.each is None:
        return tried.each is not None
    loses = tried.each - other.each
    return bool(loses.any()) and _mean_beyond(loses, share, allowed) <= 0.0


def of_sample(
    sample: Sample,
    circles: Sequence[int] = (),
    clock: Clock | None = None,
    long: bool = True,
    *,
    progress: bool = False,
) -> tuple[Gaussianize, ...]:
    """The links of `links_of`, for rows in memory; columns that lie on a circle stay unchanged.

    One `Gaussianize`, or two where rows of a column are crowded: the second, at the data's side, spreads these.
    `long`: with power-law tails, where a column clearly has one.
    """
    size, share = sample.size(), sample.shares()
    if not size >= LEAST_ROWS:
        return ()
    end = _NORMAL.inv_cdf(1.0 - TAIL / size)
    latent, features = np.linspace(-end, end, KNOTS), sample.rows.shape[1]
    columns = {c: Column.of(sample.rows[:, c], share) for c in range(features) if c not in circles}
    spreading, crowded = _spreading(columns, latent, features)
    if spreading:
        rows = spreading[0].inverse(sample.rows)[0]
        columns |= {c: Column.of(rows[:, c], share) for c in crowded}
    if long and any(column.is_clearly_long for column in columns.values()):
        further = _long_tails.beyond(end)
        all_of_it = np.concatenate([-further[::-1], latent, further])
        for closest in CLOSEST:
            last = closest == CLOSEST[-1]
            own: dict[str, Any] = {"or_straight": last, "crowded": crowded, "progress": progress}
            found = _of_columns(columns, latent, all_of_it, closest, features, clock, **own)
            if found is not None:
                return (*found, *spreading) if found else ()
    found = _of_columns(columns, latent, latent, None, features, clock, crowded=crowded, progress=progress)
    return (*found, *spreading) if found else ()


def _spreading(
    columns: dict[int, Column], latent: Floats, features: int
) -> tuple[tuple[Gaussianize] | tuple[()], list[int]]:
    """The map of columns with crowded rows to the scale of asinh, and a mask of these columns.

    In very skewed columns most rows lie closer together than `Gaussianize` allows knots beside those far out.
    """
    u = np.linspace(-REACH, REACH, KNOTS)
    data, slopes, crowded = np.tile(u, (features, 1)), np.ones((features, u.size)), []
    for c, column in columns.items():
        curve = _curve(column, latent, COUNTS[0])
        if curve is None or np.diff(curve.x).min() > CROWDED * (curve.x[-1] - curve.x[0]):
            continue
        below = np.cumsum(column.share) / column.share.sum()
        low, middle, high = column.x[np.searchsorted(below, [0.25, 0.5, 0.75])]
        unit = min(high - middle, middle - low)
        if unit > 0:
            data[c], slopes[c] = middle + unit * np.sinh(u), 1.0 / (unit * np.cosh(u))
            crowded.append(c)
    return ((Gaussianize(data, u, slopes),) if crowded else ()), crowded


def _of_columns(
    columns: dict[int, Column],
    inner: Floats,
    latent: Floats,
    closest: float | None,
    features: int,
    clock: Clock | None,
    *,
    or_straight: bool = False,
    crowded: Sequence[int] = (),
    progress: bool = False,
) -> tuple[Gaussianize] | tuple[()] | None:
    """Curves with knots at some latent values; None where knots beyond the inner ones are impossible, or none gains.

    `or_straight`: a column without room for its long tails has straight ones, beside others that have theirs.
    `crowded`: columns that are not standardised any more, so that they have a line where they have no curve.
    """
    data, slopes = np.tile(latent, (features, 1)), np.ones((features, latent.size))
    for c in crowded:
        mean, variance = columns[c].moments
        data[c], slopes[c] = mean + math.sqrt(variance) * latent, 1.0 / math.sqrt(variance)
    any_gains, is_wide, any_long = bool(crowded), latent.size > inner.size, False
    for c, column in _progress.each(columns.items(), "marginals", "column", progress):
        if clock is not None and not clock.has(0.0):
            return ()
        if (curve := _chosen(column, inner, closest)) is None:
            continue
        placed = curve.placed(latent)
        if placed is None and is_wide and or_straight:
            curve = _chosen(column, inner, None) or curve
            placed = curve.placed(latent, spread=True)
        if placed is None:
            if is_wide:
                return None
            if (placed := curve.placed(latent, spread=True)) is None:
                continue
        data[c], slopes[c], any_gains = placed.x, placed.slope, True
        any_long |= column.is_clearly_long and curve.is_longer(inner)
    if is_wide and not any_long:
        return None
    try:
        return (Gaussianize(data, latent, slopes),) if any_gains else ()
    except ValueError:
        return None if is_wide else ()


def has_long_tails(found: Sequence[Gaussianize]) -> bool:
    """Whether some column has power-law tails, or is so skewed that its rows had to be spread."""
    return len(found) > 1 or any(curve.latent.size > KNOTS for curve in found)


def _chosen(column: Column, latent: Floats, closest: float | None) -> Curve | None:
    """The curve of a column by which rows gain most; None if they do not clearly gain.

    `closest`: not None for long tails, which it has unless rows gain more by straight ones, by a standard error.
    """
    best, gain, each = 0, 0.0, np.zeros(0)
    clearly = 0.0 if closest is not None and column.is_clearly_long else CLEARLY  # one row may have all of the gain
    parts = [(column.where(column.fold != fold), column.where(column.fold == fold)) for fold in range(FOLDS)]
    share = np.concatenate([unseen.share for _, unseen in parts])
    share = share / share.sum()
    for count in COUNTS:
        found = gains_of(parts, partial(_curve, latent=latent, count=count, closest=closest))
        if found is not None and (mean := _mean_beyond(found, share, clearly)) > gain:
            best, gain, each = count, mean, found
    if not best:
        return None
    straight = None if closest is None else gains_of(parts, partial(_curve, latent=latent, count=best))
    if straight is not None and _mean_beyond(straight - each, share, 1.0) > 0.0:
        closest = None
    return _curve(column, latent, best, closest)


def gains_of(parts: Sequence[tuple[Column, Column]], made: Callable[[Column], Curve | None]) -> Floats | None:
    """Nats that each row gains by a curve `made` of the other folds' rows over a normal density; None without one."""
    gains = []
    for seen, unseen in parts:
        if (curve := made(seen)) is None:
            return None
        z, log_slope = curve.at(unseen.x)
        gains.append(log_slope - 0.5 * np.square(z) - _normal(unseen.x, seen))
    each = np.concatenate(gains)
    return each if np.isfinite(each).all() else None


def _mean_beyond(each: Floats, share: Floats, errors: float) -> float:
    """The weighted mean where it exceeds this multiple of its standard error; else minus infinity."""
    mean = float((share * each).sum())
    error = float(np.sqrt(np.square(share * (each - mean)).sum()))
    return mean if mean > errors * error else -math.inf


def _normal(x: Floats, seen: Column) -> Floats:
    """The log density of N(mean, variance) of the rows seen, without the constant."""
    mean, variance = seen.moments
    density: Floats = -0.5 * np.square(x - mean) / variance - 0.5 * np.log(variance)
    return density


def _curve(column: Column, latent: Floats, count: int, closest: float | None = None) -> Curve | None:
    """The map of a number of a column's quantiles to those of N(0, 1); None where rows repeat values.

    `closest`: not None for knots beyond the quantiles where a tail follows a power law.
    """
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
    curve = Curve(knots, ends, slopes)
    if closest is None:
        return curve
    room = min(_long_tails.WIDEST * float(knots[-1] - knots[0]), float(np.diff(knots).min()) / closest)
    lower, upper = column.tails
    return _lengthened(_lengthened(curve, upper, room).mirrored(), lower, room).mirrored()


def _lengthened(curve: Curve, tail: LongTail | None, room: float) -> Curve:
    """The curve with a long tail at its upper end, if there is one; further knots lie within `room`."""
    further = None if tail is None else tail.knots(float(curve.x[-1]), float(curve.z[-1]), room)
    if further is None:
        return curve
    distance, z, slope = further
    parts = (curve.x[:-1], curve.x[-1] + distance), (curve.z[:-1], z), (curve.slope[:-1], slope)
    return Curve(*(np.concatenate(part) for part in parts))


def _slopes(gaps: Floats, rises: Floats) -> Floats:
    """Slopes at the knots without overshoot: harmonic means of chords (Fritsch and Butland 1984).

    At the ends it is the slope of the last chord.
    """
    chords = rises / gaps
    inner = (
        3
        * (gaps[:-1] + gaps[1:])
        / ((2 * gaps[1:] + gaps[:-1]) / chords[:-1] + (gaps[1:] + 2 * gaps[:-1]) / chords[1:])
    )
    return np.concatenate([chords[:1], inner, chords[-1:]])


def _tail(beyond: Floats, end: float, share: Floats, otherwise: float) -> float:
    """The slope of a straight tail: the most likely one for the rows beyond its knot.

    They become z = end + slope · beyond, and have log densities log slope - z² / 2. Heavy tails make it small, so that
    a row far out costs its own density, and not more.
    """
    is_beyond = (beyond > 0) & (share > 0)
    if not is_beyond.any():
        return otherwise
    d, weight = beyond[is_beyond], share[is_beyond]
    total, first, second = float(weight.sum()), float((weight * d).sum()), float((weight * d * d).sum())
    half = 0.5 * end * first  # the root of slope² second + slope end first = total
    return total / (half + math.sqrt(half * half + total * second))
