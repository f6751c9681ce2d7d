"""Periodic columns of an ascent: each circle is cut where its rows are rarest, and mapped to the line.

Rotations mix all columns, so that no circle can stay one. The density is that of an interval with both ends at a cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._flow.transforms.support import Support, circles_of

BINS, WINDOW = 256, 16  # bins of a circle, and how many of them are averaged for few rows
OVERLAP = {4: 2.0**-16, 8: 2.0**-36}  # of both ends, in radii, by the dtype's size in bytes


def counted(support: Support, x: NDArray[np.floating]) -> NDArray[np.int64]:
    """Rows in each bin of each periodic column, shape (columns, bins)."""
    circles = circles_of(support)
    if not circles:
        return np.empty((0, BINS), np.int64)
    alone = Support(None, [support.periodic[c] for c in circles])
    turns = (np.asarray(alone.inverse(np.asarray(_arrays.on_host(x[:, circles]), np.float64))[0]) + 1.0) / 2.0
    turns = turns[np.isfinite(turns).all(axis=1)]  # a fit refuses other rows with an error
    places = np.minimum((BINS * turns).astype(np.int64), BINS - 1)
    return np.array([np.bincount(column, minlength=BINS) for column in places.T], np.int64).reshape(len(circles), BINS)


def cut_open(support: Support, counts: NDArray[np.int64], dtype: np.dtype[np.floating]) -> tuple[Support, ...]:
    """The map of unbounded values to a support with circles, from latent to data; counts: see `counted`.

    Both ends overlap by less than the density can resolve in the dtype, so that
    no row lies on an end.
    """
    if not any(support.periodic):
        return (support,)
    n = len(support.periodic)
    inside: list[tuple[float, float] | None] = [None] * n
    cut: list[tuple[float, float] | None] = [None] * n
    reach = 1.0 + OVERLAP[np.dtype(dtype).itemsize]
    for own, c in zip(counts, circles_of(support), strict=True):
        inside[c] = (-reach, reach)
        middle = _rarest(own) + 1.0
        cut[c] = (middle - 1.0, middle + 1.0)
    return Support(inside), Support([None] * n, cut), support


def _rarest(counts: NDArray[np.int64]) -> float:
    """The point on [-1, 1) with the fewest rows: the middle of the longest run of the emptiest windows."""
    around = np.concatenate([counts, counts[: WINDOW - 1]])
    windows = np.convolve(around, np.ones(WINDOW, np.int64), "valid")  # the window of bins i, ..., i + WINDOW - 1
    empty = windows == windows.min()
    if empty.all():
        return -1.0
    start = int(np.argmin(empty))  # a fuller window, which no run of empty ones contains
    best, run, end = 0, 0, 0
    for i in range(start, start + BINS + 1):
        run = run + 1 if empty[i % BINS] else 0
        if run > best:
            best, end = run, i
    middle = end - (best - 1) / 2.0 + WINDOW / 2.0
    return float((2.0 * middle / BINS) % 2.0 - 1.0)


def off(ends: Sequence[Support], x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows as unbounded values, on their own device."""
    z = x.astype(np.float64)
    for end in reversed(ends):
        z = end.inverse(z)[0]
    return z
