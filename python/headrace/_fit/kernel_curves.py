"""Marginal curves of few rows: from densities of normal kernels (Parzen 1962), whose width unseen rows choose.

Between nine quantiles of a hundred rows lie too few of them for a curve through these; a density of kernels has as much
detail as its width allows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from statistics import NormalDist

import numpy as np

from headrace._base.types import Floats
from headrace._fit import marginals as _marginals
from headrace._fit.marginals import Column, Curve
from headrace._flow.transforms.gaussianize import Gaussianize

_NORMAL = NormalDist()

LEAST_ROWS = 40
WIDTHS = (0.4, 0.6, 0.9, 1.4, 2.2)  # of kernels, in units of deviation / rows^(1/5)
KNOTS = 17
TAIL, SHARE = 10.0, 0.05  # rows beyond the outermost knots, at most, and their share
CELLS = 512  # of the grid of a density
CLEARLY = 1.0  # standard errors by which unseen rows must gain
DISTINCT = 0.9  # share of values that differ, at least: a column that repeats its values has no density


def curves_of(rows: Floats, share: Floats, circles: Sequence[int] = ()) -> tuple[Gaussianize, ...]:
    """Curves of standardised columns in which unseen rows gain by them; none where no column does."""
    return _kept_curves(rows.tobytes(), rows.shape, share.tobytes(), tuple(circles))


@lru_cache(maxsize=16)
def _kept_curves(
    bytes_: bytes, shape: tuple[int, ...], shares: bytes, circles: tuple[int, ...]
) -> tuple[Gaussianize, ...]:
    """Kept, because cross-validation uses the curves of each fold again and again."""
    rows, share = np.frombuffer(bytes_).reshape(shape), np.frombuffer(shares)
    size = float(share.sum() ** 2 / np.square(share).sum())
    if size < LEAST_ROWS:
        return ()
    end = -_NORMAL.inv_cdf(min(TAIL / size, SHARE))
    latent, features = np.linspace(-end, end, KNOTS), rows.shape[1]
    data, slopes, any_gains = np.tile(latent, (features, 1)), np.ones((features, KNOTS)), False
    for c in range(features):
        column = Column.of(rows[:, c], share / share.max())
        if c in circles or np.unique(column.x).size < DISTINCT * column.x.size:
            continue
        if (curve := _chosen(column, latent)) is not None:
            data[c], slopes[c], any_gains = curve.x, curve.slope, True
    return (Gaussianize(data, latent, slopes),) if any_gains else ()


def _chosen(column: Column, latent: Floats) -> Curve | None:
    """The curve of a column by which rows that it has not seen gain most over a normal density."""
    parts = [(column.where(column.fold != fold), column.where(column.fold == fold)) for fold in range(_marginals.FOLDS)]
    share = np.concatenate([unseen.share for _, unseen in parts])
    best, most = None, 0.0
    for width in WIDTHS:
        each = _marginals.gains_of(parts, partial(_curve, latent=latent, width=width))
        if each is not None and (mean := _marginals._mean_beyond(each, share / share.sum(), CLEARLY)) > most:
            best, most = width, mean
    if best is None:
        return None
    curve = _curve(column, latent, best)
    return None if curve is None else curve.placed(latent, spread=True)


def _curve(column: Column, latent: Floats, width: float) -> Curve | None:
    """The map to N(0, 1) of a density of kernels."""
    x, share = column.x, column.share
    total = float(share.sum())
    size = total**2 / float(np.square(share).sum())
    h = width * math.sqrt(column.moments[1]) * size**-0.2
    if not h > 0:
        return None
    low, high = x[0] - 4.0 * h, x[-1] + 4.0 * h
    step = (high - low) / (CELLS - 1)
    reach = math.ceil(4.0 * h / step)
    if reach < 2:  # narrower than a cell: rows far out
        return None
    place = (x - low) / step
    first = np.minimum(place.astype(np.int64), CELLS - 2)
    mass = np.bincount(first, share * (first + 1 - place), CELLS) + np.bincount(
        first + 1, share * (place - first), CELLS
    )
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) * step / h))
    density = np.convolve(mass, kernel / kernel.sum(), "same") / (total * step)
    below = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1])) * step])
    below, grid = below / below[-1], low + step * np.arange(CELLS)
    rises = np.concatenate([[True], np.diff(below) > 0])
    knots = np.interp([_NORMAL.cdf(z) for z in latent], below[rises], grid[rises])
    heights = np.interp(knots, grid, density)
    if not (np.diff(knots) > 0).all() or not (heights > 0).all():
        return None
    slopes = heights / np.array([_NORMAL.pdf(z) for z in latent])
    slopes[0] = _marginals._tail(knots[0] - x, -latent[0], share, slopes[0])
    slopes[-1] = _marginals._tail(x - knots[-1], latent[-1], share, slopes[-1])
    return Curve(knots, latent, slopes)
