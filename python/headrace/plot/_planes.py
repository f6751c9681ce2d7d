"""Computations for pictures: ranges of columns, histograms, smoothed densities, and levels of contours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats

BEYOND = 0.4  # the most room beyond the central 99 % of values, at each end, as a share of their range
MOST_WHOLE = 40  # the most integers for which a histogram has a bin for each


def _present(parts: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
    """The parts without missing values; parts that have no other values are left out."""
    return [values for part in parts if part is not None and (values := part[~np.isnan(part)]).size]


def range_of(*parts: NDArray[Any] | None) -> tuple[float, float]:
    """The ends of an axis that shows the values of all parts except extreme values."""
    given = _present(parts)
    if not given:
        return -1.0, 1.0
    ends = []
    for part in given:
        low, high = (float(end) for end in np.quantile(part, [0.005, 0.995]))
        room = high - low
        ends.append((max(float(part.min()), low - BEYOND * room), min(float(part.max()), high + BEYOND * room)))
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    if not high > low:
        return unit_interval(low, high)
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def unit_interval(low: Any, high: Any) -> tuple[float, float]:
    """Finite limits of an axis, the first below the second."""
    low, high = float(low), float(high)
    if not high > low:
        room = max(abs(low) * 1e-3, 0.5) if np.isfinite(low) else 0.5
        return low - room, high + room
    return low, high


def edges_of(ends: tuple[float, float], bins: int, *parts: NDArray[Any] | None) -> Floats:
    """The edges of equal bins; if the first part has only integers in a short range, an integer is a bin's middle."""
    first = next(iter(_present(parts)), None)
    if first is not None and (np.trunc(first) == first).all():
        low, high = np.floor(max(ends[0], float(first.min()))), np.ceil(min(ends[1], float(first.max())))
        if 1 <= high - low < MOST_WHOLE:
            return np.arange(low - 0.5, high + 1.0)
    return np.linspace(*ends, bins + 1)


def histogram(values: NDArray[Any], edges: Floats, weights: NDArray[Any] | None = None) -> Floats:
    """The density in each bin: the bin's share of all values, also of those beyond the edges, divided by its width."""
    counts = np.histogram(values, edges, weights=weights)[0].astype(np.float64)
    total = float(len(values)) if weights is None else float(weights.sum())
    return np.asarray(counts / (total * np.diff(edges)))


def smoothed(table: Floats, deviation: float) -> Floats:
    """A table smoothed by a normal kernel; `deviation`: the standard deviation, in bins. Values are mirrored at the
    edges, so that the total does not change.
    """
    reach = max(int(np.ceil(4 * deviation)), 1)
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / deviation))
    kernel /= kernel.sum()
    for axis in range(table.ndim):
        padded = np.pad(table, [(reach, reach) if i == axis else (0, 0) for i in range(table.ndim)], mode="symmetric")
        table = np.apply_along_axis(np.convolve, axis, padded, kernel, mode="valid")
    return table


def plane(a: NDArray[Any], b: NDArray[Any], edges: tuple[Floats, Floats], deviation: float = 1.3) -> Floats:
    """A smoothed density of two columns, shape (bins of b, bins of a), as contours need it."""
    counts = np.histogram2d(b, a, bins=(edges[1], edges[0]))[0]
    area = np.outer(np.diff(edges[1]), np.diff(edges[0]))
    return np.asarray(smoothed(counts, deviation) / (len(a) * area))


def levels_of(density: Floats, shares: Sequence[float]) -> list[float]:
    """The densities above which the given shares of the total mass lie, ascending and without repetitions.

    Args:
        density: An array of any shape; values that are not finite count as 0.
        shares: Shares between 0 and 1.
    """
    value = np.where(np.isfinite(density), density, 0.0)
    order = np.argsort(-value, axis=None)
    mass = np.cumsum(value.ravel()[order])
    if not mass.size or not mass[-1] > 0:
        return []
    found = [float(value.ravel()[order[np.searchsorted(mass, share * mass[-1])]]) for share in shares]
    return sorted({level for level in found if 0 < level < value.max()})
