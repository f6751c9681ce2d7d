"""Marginal curves with which a fit starts: they make columns nearly normal, if held-out rows gain likelihood.

With curves, networks learn only how columns depend on each other: edges, skewness and tails of a column take many
units of networks, but few knots of a curve (gains: docs/notes/training.md). Where a column has modes with a gap between
them, networks may do better with the column unchanged: a short trial of fits with and without curves decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np

from headrace._arrays import caller as _arrays
from headrace._base import progress as _progress
from headrace._base.types import Floats
from headrace._fit.bar import FitBar
from headrace._fit.clock import Clock
from headrace._fit.plan import LEAST_HELD_OUT
from headrace._fit.residuals import behind
from headrace._fit.run import HeldOut, Run
from headrace._fit.source import ArrayRows
from headrace._fit.starts import long_tails as _long_tails
from headrace._fit.starts.curves import Column, Curve, best_of, gains_of, lengthened, mean_beyond, of_quantiles
from headrace._flow.internals import Interior
from headrace._flow.transforms.gaussianize import Gaussianize
from headrace._flow.transforms.support import circles_of
from headrace._flow.transforms.transform import Transform

_NORMAL = NormalDist()

ROWS = 1 << 14  # the largest size of the sample of rows
NUMBERS, FEWEST = 1 << 19, 1 << 11  # the most values in the sample of rows; the least size of the sample
LEAST_ROWS = 200
TAIL = 10.0  # number of rows beyond the outermost knots
COUNTS = (9, 17, 33)  # numbers of quantiles to try; the likelihood of unseen rows chooses
KNOTS = COUNTS[-1]
CLOSEST = (4e-6, 2e-5)  # least gap of quantiles over the range with long tails; tried in order
LINKS = 2  # the most links
MOST = KNOTS + 2 * _long_tails.KNOTS  # the largest number of knots, with two long tails
CROWDED = 3e-5  # quantiles closer than this share of the range leave no room for knots between them
REACH = 12.0  # range of asinh knots for crowded columns; with a larger range, knots would be too close
CLEARLY = 2.0  # standard errors of a clear gain or loss
STEPS = 400  # steps of a trial
UNCHANGED = 2.5  # deviations within which columns stay unchanged where only their tails are mapped
LATENT = _long_tails.LongTail(UNCHANGED, 0.1, _NORMAL.cdf(-UNCHANGED) / _NORMAL.pdf(UNCHANGED), True)  # of latents
NO_GAIN = (
    "gaussianize: expected False or 'auto' for rows of which no column gains by a curve (on rows that it has "
    "not seen), or too few of which differ, got True"
)
_ENDS, LONGER = np.arange(3.0, 7.0), 1.25  # latent values; least growth of their gaps in a long tail
_INNER, _OUTER = np.linspace(-UNCHANGED, UNCHANGED, COUNTS[0]), _long_tails.beyond(UNCHANGED)
_FAR = np.concatenate([-_OUTER[::-1], _INNER, _OUTER])  # the knots of curves that change only tails
TRIED = 4000  # only fits of at least this many steps have a trial


@dataclass(frozen=True)
class Sample:
    """Standardised rows that represent the training rows, and their weights, on the host."""

    rows: Floats
    weights: Floats | None

    def shares(self) -> Floats:
        """Relative weights of rows, 1 for the largest."""
        return np.ones(len(self.rows)) if self.weights is None else self.weights / self.weights.max()

    def size(self) -> float:
        """The effective number of rows (Kish 1965)."""
        share = self.shares()
        return float(np.square(share.sum()) / np.square(share).sum())


def looked_for(asked: bool | None, interior: Interior, held: int | None, steps: int) -> bool:
    """Whether a fit searches for marginal curves. Raises ValueError if `asked` requires curves that are impossible.

    `held`: the number of held-out rows; None where cross-validation replaces held-out rows.
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
    source: ArrayRows, mean: Floats, std: Floats, clock: Clock, progress: bool = False, linear: Sequence[Transform] = ()
) -> tuple[Gaussianize, ...]:
    """Fit marginal curves to training rows; return these as links from latent to standardised data; () for none.

    `linear`: links between the marginal curves and the standardised data.
    """
    sample = _sample(source, mean, std, linear)
    return () if sample is None else of_sample(*sample, clock, progress=progress)


def _sample(
    source: ArrayRows, mean: Floats, std: Floats, linear: Sequence[Transform]
) -> tuple[Sample, Sequence[int]] | None:
    """A sample of the training rows, and the indices of columns of angles; None if there are too few rows."""
    size = min(source.size, ROWS, max(NUMBERS // mean.size, FEWEST))
    if size < LEAST_ROWS:
        return None
    data, rows = source.some(size)
    z = behind((_arrays.on_host(data.unbounded(rows)) - mean) / std, linear)
    weights = None if data.weights is None else _arrays.on_host(data.weights[rows]).astype(np.float64)
    return Sample(z, weights), circles_of(data.support)


def tails_alone(
    source: ArrayRows, mean: Floats, std: Floats, linear: Sequence[Transform] = ()
) -> tuple[Gaussianize, ...]:
    """The link that `tails_of` returns, for a sample of the training rows."""
    sample = _sample(source, mean, std, linear)
    return () if sample is None else tails_of(*sample)


def tails_of(sample: Sample, circles: Sequence[int] = ()) -> tuple[Gaussianize, ...]:
    """A link that changes only far values of columns with longer tails than a normal density; () if there are none.

    Splines are straight beyond their bound, so that a row further out than all training rows would cost half the square
    of its distance. Values up to `UNCHANGED` standard deviations stay unchanged.
    """
    curves = list[Curve | None]()
    for c in range(sample.rows.shape[1]):
        column = Column.of(sample.rows[:, c], sample.shares())
        sides = (column.x, column.share), (-column.x[::-1], column.share[::-1])  # the upper and the lower tail
        tails = (_long_tails.tail_of(*side, standard=True) for side in sides)
        curves.append(None if c in circles else _of_tails([tail if tail and tail.is_clear else None for tail in tails]))
    return _linked(curves)


def tails_of_latents(features: int, links: Sequence[Transform] = ()) -> tuple[Gaussianize, ...]:
    """A link for the latent end of a flow whose splines were fitted to few rows.

    Splines that are fitted to few rows follow far training rows, so that five times as many new rows lie beyond four
    deviations as under a normal density (docs/notes/training.md): the link gives the base a longer tail from
    `UNCHANGED` on. A side of a column that has a long tail from `links` gets no second one, because far rows would be
    too likely.
    """
    tails = []
    for sign in (1.0, -1.0):
        x = np.repeat(sign * _ENDS[:, None], features, axis=1)
        for link in links:
            x = link.forward(x)[0]
        gaps = np.abs(np.diff(x, axis=0))
        tails.append([None if is_long else LATENT for is_long in gaps[-1] > LONGER * gaps[0]])
    return _linked([_of_tails(both) for both in zip(*tails, strict=True)])


def _of_tails(tails: Sequence[_long_tails.LongTail | None]) -> Curve | None:
    """A curve that is straight up to `UNCHANGED`, with the given tails above and below; None if no tail is given."""
    curve = Curve(_INNER, _INNER, np.ones(_INNER.size))
    for tail in tails:
        curve = lengthened(curve, tail, math.inf).mirrored()
    return curve.placed(_FAR) if curve.is_longer(_INNER) else None


def _linked(curves: Sequence[Curve | None]) -> tuple[Gaussianize, ...]:
    """A link with a curve from `_of_tails` for each column, the identity for None; () if all curves are None."""
    pairs = [(_FAR, np.ones(_FAR.size)) if curve is None else (curve.x, curve.slope) for curve in curves]
    data, slopes = (np.stack(part) for part in zip(*pairs, strict=True))
    return (Gaussianize(data, _FAR, slopes),) if any(curve is not None for curve in curves) else ()


def gain(
    tried: Run,
    other: Run,
    held_out: HeldOut,
    has_tails: bool = False,
    progress: bool = False,
    steps: int = STEPS,
    what: str = "try marginals",
) -> bool:
    """Whether a fit should begin with curves, by comparison of two fits of `steps` steps, with and without curves.

    Curves stay unless the mean difference of the rows' two losses exceeds its standard error (the one-standard-error
    rule, Breiman et al. 1984), because a smaller difference depends on the seed more than on the table.

    `has_tails`: whether curves have long tails, which only a loss of `CLEARLY` standard errors removes, because a mean
    over rows hardly shows the losses of the few rows that are far out.
    """
    lowest = [_Judged(), _Judged()]
    epochs, weights = -(-steps // tried.plan.batches), held_out.weights()
    share, allowed = weights / weights.sum(), CLEARLY if has_tails else 1.0
    counted = tried.plan.batches if tried.shows_steps else 0
    with closing(FitBar(2 * epochs, Clock(), progress, what, counted, leave=False)) as shown:
        for epoch in range(1, epochs + 1):
            now = []
            for run in (tried, other):
                run.bar = shown
                passed = run.one_pass()
                now.append(_Judged.of(run, held_out, share) if math.isfinite(passed) else _Judged())
                if run.clock.ran_out:
                    return _stays(lowest[0], lowest[1], share, allowed)
                shown.epoch(epoch, {"held out": f"{now[-1].loss:.3f}"})
            lowest = [min(pair, key=lambda judged: judged.loss) for pair in zip(lowest, now, strict=True)]
    return _stays(lowest[0], lowest[1], share, allowed)


@dataclass(frozen=True)
class _Judged:
    """The loss of a fit on held-out rows, and the loss of each row; `each` is None where a loss is not finite."""

    loss: float = math.inf
    each: Floats | None = None

    @classmethod
    def of(cls, run: Run, held_out: HeldOut, share: Floats) -> _Judged:
        each = -held_out.log_probs(run.flow, run.current())
        return cls(float((each * share).sum()), each) if np.isfinite(each).all() else cls()


def _stays(tried: _Judged, other: _Judged, share: Floats, allowed: float) -> bool:
    """Whether the mean excess of the first fit's losses is at most `allowed` times its standard error."""
    if tried.each is None or other.each is None:
        return tried.each is not None
    loses = tried.each - other.each
    return bool(loses.any()) and mean_beyond(loses, share, allowed) <= 0.0


def of_sample(
    sample: Sample,
    circles: Sequence[int] = (),
    clock: Clock | None = None,
    long: bool = True,
    *,
    progress: bool = False,
) -> tuple[Gaussianize, ...]:
    """Fit marginal curves to a sample, and return them as links; columns of angles, `circles`, stay unchanged.

    The result has one `Gaussianize`, or two where rows of a column are crowded: the second one, at the data's side,
    spreads crowded rows. `long`: whether curves of columns that clearly have power-law tails get long tails.
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
            options: dict[str, Any] = {"or_straight": last, "crowded": crowded, "progress": progress}
            curves = _of_columns(columns, latent, all_of_it, closest, features, clock, **options)
            if curves is not None:
                return (*curves, *spreading) if curves else ()
    curves = _of_columns(columns, latent, latent, None, features, clock, crowded=crowded, progress=progress)
    return (*curves, *spreading) if curves else ()


def _spreading(
    columns: dict[int, Column], latent: Floats, features: int
) -> tuple[tuple[Gaussianize] | tuple[()], list[int]]:
    """A link that maps columns with crowded rows to the scale of asinh, and the indices of these columns; () if none.

    In very skewed columns, most rows are closer to each other than knots of `Gaussianize` may be.
    """
    u = np.linspace(-REACH, REACH, KNOTS)
    data, slopes, crowded = np.tile(u, (features, 1)), np.ones((features, u.size)), []
    for c, column in columns.items():
        curve = of_quantiles(column, latent[:: (KNOTS - 1) // (COUNTS[0] - 1)])
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
    """Curves with knots at the values `latent`: () if no column gains or the time is over; None if there is no room for
    the knots beyond `inner`, or no column needs these.

    `or_straight`: whether a column without room for long tails gets straight tails, while others have long tails.
    `crowded`: columns that are no longer standardised, so that a straight line standardises those without a curve.
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


def has_long_tails(curves: Sequence[Gaussianize]) -> bool:
    """Whether a column has long tails, or is so skewed that a second link spreads its rows."""
    return len(curves) > 1 or any(curve.latent.size > KNOTS for curve in curves)


def _chosen(column: Column, latent: Floats, closest: float | None) -> Curve | None:
    """The curve with the largest gain in the likelihood of a column's unseen rows; None if no curve clearly gains.

    `closest`: None for straight tails; else long tails are fitted, unless straight ones gain more by a standard error.
    """
    ends = [latent[:: (KNOTS - 1) // (count - 1)] for count in COUNTS]
    clearly = 0.0 if closest is not None and column.is_clearly_long else CLEARLY  # one row may have the whole gain
    best = best_of(column, [partial(of_quantiles, ends=of, closest=closest) for of in ends], clearly)
    if best is None:
        return None
    straight = None if closest is None else gains_of(column, partial(of_quantiles, ends=ends[best[0]]))
    if straight is not None and mean_beyond(straight - best[1], column.shares(), 1.0) > 0.0:
        closest = None
    return of_quantiles(column, ends[best[0]], closest)
