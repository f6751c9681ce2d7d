"""Simulated bands that contain whole curves and histograms of uniform values with 95 % probability.

Source: T. Säilynoja, P.-C. Bürkner, A. Vehtari, *Graphical test for discrete uniformity and its applications*,
Statistics and Computing 32, 2022: the band is equally wide in standard deviations at all points, and simulated curves
determine the width.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats

POINTS = 100
LEVEL = 0.95
_SIMULATED, _MOST_SIMULATED = 2000, 50_000
_KEY = 0x62616E64  # the seed of all simulations, which are therefore reproducible


def curve(uniform: Floats) -> Floats:
    """The shares of values that are at most 0, 1/100, ..., 1, shape (101,)."""
    counts = np.histogram(uniform, bins=POINTS, range=(0.0, 1.0))[0]
    return np.concatenate([[0.0], np.cumsum(counts) / len(uniform)])


def oddest(uniform: Floats) -> NDArray[np.int64]:
    """The indices of columns, ordered by the distance of their distributions from uniform, the largest first."""
    away = np.stack([curve(column) for column in uniform.T]) - np.linspace(0.0, 1.0, POINTS + 1)
    return np.argsort(-np.abs(away).max(axis=1), kind="stable")


@functools.lru_cache(maxsize=64)
def curve_band(rows: int, curves: int = 1) -> Floats:
    """Half the width, at 0, 1/100, ..., 1, of a band that contains `curves` independent curves, 95 % of the time."""
    at = np.arange(1, POINTS) / POINTS
    unit = np.sqrt(at * (1.0 - at) / rows)
    drawn = np.random.default_rng(_KEY).multinomial(rows, np.full(POINTS, 1.0 / POINTS), _SIMULATED)
    away = np.abs(np.cumsum(drawn, axis=1)[:, :-1] / rows - at) / unit
    width = np.quantile(away.max(axis=1), LEVEL ** (1.0 / curves))
    return np.concatenate([[0.0], width * unit, [0.0]])


@functools.lru_cache(maxsize=64)
def histogram_band(rows: int, bins: int, histograms: int = 1) -> tuple[int, int]:
    """The least and the largest count of a band that contains all bins of all histograms, 95 % of the time.

    Bins have equal width. Because of Bonferroni's correction, histograms may depend on each other, as those of columns
    do.
    """
    simulated = min(max(_SIMULATED, 200 * histograms), _MOST_SIMULATED)
    drawn = np.random.default_rng(_KEY).multinomial(rows, np.full(bins, 1.0 / bins), simulated)
    most = np.abs(drawn - rows / bins).max(axis=1)
    width = np.quantile(most, 1.0 - (1.0 - LEVEL) / histograms, method="higher")
    return max(int(np.ceil(rows / bins - width)), 0), int(np.floor(rows / bins + width))
