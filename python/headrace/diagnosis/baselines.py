"""Simple densities to compare a fit with: a Gaussian and a kernel density."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BANDWIDTHS", "choose_bandwidth", "gaussian_log_prob", "kernel_log_prob"]

Array64 = NDArray[np.float64]

BANDWIDTHS: tuple[float, ...] = tuple(np.geomspace(0.03, 2.0, 25).tolist())
"""Bandwidths of kernel densities, in units of the rows' own spread."""

JUDGED = 1000  # rows by which a bandwidth is chosen
_TILE = 16  # rows at a time: with 50,000 points their distances fit into a cache


def gaussian_log_prob(
    points: NDArray[Any],
    rows: NDArray[Any],
    *,
    weights: NDArray[Any] | None = None,
    context: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> Array64:
    """Log density of rows, shape (rows,), under the Gaussian that fits points best, in float64.

    Args:
        points, rows: Shapes (points, features) and (rows, features).
        weights: Of the points.
        context: Of the points and of the rows: the Gaussian's mean is then linear in it.

    Raises:
        numpy.linalg.LinAlgError: the points lie in a plane, or there are too few of them.

    >>> import numpy as np
    >>> gaussian_log_prob(np.array([[-1.0], [1.0]]), np.array([[0.0]])).round(4).tolist()  # -log(2 pi) / 2
    [-0.9189]
    """
    share = np.ones(len(points)) if weights is None else weights.astype(np.float64)
    share = share / share.sum()
    given, asked = (np.empty((len(part), 0)) for part in (points, rows)) if context is None else context
    centre = share @ points.astype(np.float64)
    spread = np.sqrt(share @ np.square(points - centre))
    if not (spread > 0).all():
        raise np.linalg.LinAlgError("a column is constant")
    values = (points - centre) / spread

    middle = share @ given.astype(np.float64)
    width = np.sqrt(share @ np.square(given - middle))
    width = np.where(width > 0, width, 1.0)

    def terms(columns: NDArray[Any]) -> Array64:
        return np.column_stack([np.ones(len(columns)), (columns - middle) / width])

    root = np.sqrt(share)[:, None]
    slopes = np.linalg.lstsq(root * terms(given), root * values, rcond=None)[0]
    rest = values - terms(given) @ slopes
    factor = np.linalg.cholesky((share[:, None] * rest).T @ rest)
    white = np.linalg.solve(factor, ((rows - centre) / spread - terms(asked) @ slopes).T)
    log_volume = np.log(np.diag(factor)).sum() + np.log(spread).sum() + 0.5 * len(factor) * np.log(2 * np.pi)
    result: Array64 = -0.5 * np.square(white).sum(axis=0) - log_volume
    return result


def kernel_log_prob(points: NDArray[Any], rows: NDArray[Any], bandwidth: float) -> Array64:
    """Log density of rows, shape (rows,), under a Gaussian kernel at each point.

    A kernel has the covariance of the points times the square of the bandwidth. Distances are float32; a row far from
    all points has -inf.

    >>> import numpy as np
    >>> kernel_log_prob(np.array([[-1.0], [1.0]]), np.array([[0.0]]), 1.0).round(4).tolist()  # of covariance 2
    [-1.5155]
    """
    result: Array64 = _kernel_log_probs(points, rows, (bandwidth,))[0]
    return result


def _kernel_log_probs(points: NDArray[Any], rows: NDArray[Any], bandwidths: Sequence[float]) -> Array64:
    """Log densities under several bandwidths, shape (bandwidths, rows)."""
    centre = points.mean(axis=0, dtype=np.float64)
    factor = np.linalg.cholesky(np.atleast_2d(np.cov(points.astype(np.float64), rowvar=False)))
    white, asked = (np.linalg.solve(factor, (part - centre).T).astype(np.float32) for part in (points, rows))
    total = np.empty((len(bandwidths), len(rows)))
    for begin in range(0, len(rows), _TILE):
        tile = asked[:, begin : begin + _TILE, None]
        with np.errstate(over="ignore"):  # of rows very far out
            distance = sum(np.square(tile[i] - white[i]) for i in range(len(white)))
            for i, bandwidth in enumerate(bandwidths):
                scale = np.float32(-0.5 / bandwidth**2)
                total[i, begin : begin + _TILE] = np.exp(scale * distance).sum(axis=1, dtype=np.float64)
    log_volume = np.log(np.diag(factor)).sum() + len(factor) * np.log(np.sqrt(2 * np.pi) * np.asarray(bandwidths))
    with np.errstate(divide="ignore"):
        result: Array64 = np.log(total) - np.log(len(points)) - log_volume[:, None]
    return result


def choose_bandwidth(points: NDArray[Any], seed: int = 0) -> float:
    """The bandwidth of `BANDWIDTHS` under which held-out points, `JUDGED` of them but at most half, are likeliest."""
    order = np.random.default_rng(seed).permutation(len(points))
    judged = min(JUDGED, len(points) // 2)
    rows, rest = points[order[:judged]], points[order[judged:]]
    return BANDWIDTHS[int(np.argmax(_kernel_log_probs(rest, rows, BANDWIDTHS).mean(axis=1)))]
