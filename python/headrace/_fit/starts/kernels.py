"""Kernel densities: normal kernels at points, with a common covariance, a multiple of the covariance of the points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats, Self

BANDWIDTHS: tuple[float, ...] = tuple(np.geomspace(0.03, 2.0, 25).tolist())
"""Bandwidths of kernel densities, in units of the points' standard deviation."""

LEFT_OUT = 500  # the most points whose likelihood chooses a bandwidth
_TILE = 16  # rows at a time: their distances from 50,000 points fit into a cache


@dataclass(frozen=True)
class KernelDensity:
    """Normal kernels at points, with the covariance of the points times the square of the bandwidth.

    >>> import numpy as np
    >>> density = KernelDensity.of(np.array([[-1.0], [1.0]]), bandwidth=1.0)  # of variance 1
    >>> density.log_prob(np.array([[0.0]])).round(4).tolist()
    [-1.4189]
    """

    centre: Floats
    """The mean of the points, shape (features,)."""
    factor: Floats
    """The lower Cholesky factor of the covariance of the points: points = centre + factor @ white."""
    white: Floats
    """The points with mean 0 and covariance 1, shape (points, features)."""
    weights: Floats
    """The shares of the kernels, whose sum is 1."""
    bandwidth: float

    @classmethod
    def of(cls, points: NDArray[Any], weights: NDArray[Any] | None = None, bandwidth: float | None = None) -> Self:
        """A kernel density at points, shape (points, features).

        Args:
            points: At least three points if no bandwidth is given.
            weights: Weights of the points; None for equal weights.
            bandwidth: The bandwidth; by default the one of `BANDWIDTHS` with the largest leave-one-out likelihood.

        Raises:
            numpy.linalg.LinAlgError: if the points lie in a plane.
        """
        points = np.asarray(points, np.float64)
        share = np.full(len(points), 1.0 / len(points)) if weights is None else weights / weights.sum()
        centre = share @ points
        spread = np.sqrt(share @ np.square(points - centre))
        if not (spread > 0).all():
            raise np.linalg.LinAlgError("a column is constant")
        scaled = (points - centre) / spread
        factor = np.linalg.cholesky((share[:, None] * scaled).T @ scaled)
        white = np.linalg.solve(factor, scaled.T).T
        chosen = leave_one_out(white, share) if bandwidth is None else bandwidth
        return cls(centre, spread[:, None] * factor, white, share, chosen)

    def log_prob(self, rows: NDArray[Any]) -> Floats:
        """Log density of rows, shape (rows,), in float64; differences of coordinates are rounded to float32."""
        asked: Floats = np.linalg.solve(self.factor, (rows - self.centre).T).T.astype(np.float64)
        log_volume = np.log(np.diag(self.factor)).sum() + 0.5 * self.centre.size * np.log(2 * np.pi)
        return _log_sums(self.white, self.weights, asked, (self.bandwidth,))[0] - log_volume


def leave_one_out(white: Floats, weights: Floats) -> float:
    """The bandwidth with the largest leave-one-out likelihood of the points (Habbema and others, 1974).

    All points are used, and no random choice is made. At most `LEFT_OUT` points, spread over all points, are judged.
    `white`: the points, with covariance 1; `weights`: their weights, with sum 1.
    """
    n = len(white)
    judged = np.unique(np.arange(min(n, LEFT_OUT)) * n // min(n, LEFT_OUT))
    log_prob = _log_sums(white, weights, white[judged], BANDWIDTHS, judged) - np.log1p(-weights[judged])
    mean = np.sum(weights[judged] * log_prob, axis=1, where=weights[judged] > 0)
    return BANDWIDTHS[int(np.argmax(mean))]


def _log_sums(
    white: Floats, weights: Floats, rows: Floats, bandwidths: Sequence[float], left_out: NDArray[np.intp] | None = None
) -> Floats:
    """Logarithms of sums of kernels at each row, shape (bandwidths, rows); a kernel has the volume sqrt(2 pi)^features.

    `left_out`: for each row the index of a point whose kernel is left out.
    """
    points, asked = (np.ascontiguousarray(part.T, np.float32) for part in (white, rows))
    shares = weights.astype(np.float32)
    absent = np.flatnonzero(weights == 0.0)
    sums = np.empty((len(bandwidths), len(rows)))
    for begin in range(0, len(rows), _TILE):
        tile = asked[:, begin : begin + _TILE, None]
        with np.errstate(over="ignore"):  # distances of rows very far out overflow
            distance = sum(np.square(tile[i] - points[i]) for i in range(len(points)))
        distance[:, absent] = np.inf
        if left_out is not None:
            distance[np.arange(len(distance)), left_out[begin : begin + _TILE]] = np.inf
        nearest = distance.min(axis=1)
        away = distance - np.where(np.isfinite(nearest), nearest, 0.0).astype(np.float32)[:, None]
        for i, bandwidth in enumerate(bandwidths):
            scale = -0.5 / bandwidth**2
            with np.errstate(divide="ignore"):
                total = np.log((np.exp(np.float32(scale) * away) * shares).sum(axis=1, dtype=np.float64))
            log_volume = len(points) * np.log(bandwidth)
            sums[i, begin : begin + _TILE] = total + scale * nearest.astype(np.float64) - log_volume
    return sums
