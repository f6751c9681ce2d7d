"""Points that a dual ascent carries from data to latent: where they are, and what they have picked up on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Points"]

Floats = NDArray[np.float64]


class Points:
    """Rows on their way, with their log-Jacobians, which start at 0.

    A step takes each coordinate through x + g sqrt(e2 + (x - x0)²), all of them through a linear map, and sums what the
    choice of the next step needs. Sums are taken in float64.

    Args:
        x: Shape (rows, n): where the points start; copied.
        weights: Shape (rows,): what each row counts in the sums; 1 by default.
        dtype: float32 or float64, of positions and log-Jacobians.
    """

    def __init__(self, x: NDArray[Any], weights: NDArray[Any] | None = None, dtype: Any = np.float32) -> None:
        """See the class."""
        self._x = np.array(x, dtype)
        self._log_jacobian = np.zeros(len(self._x), self._x.dtype)
        self._weights = None if weights is None else np.array(weights, np.float64)

    def step(
        self, maps: Floats, log_scale: float, matrix: Floats, bias: Floats, next: Floats | None = None
    ) -> Floats | None:
        """Move all points by the maps, then by ``z = matrix x + bias``.

        Args:
            maps: Shape (n, 3): g, x0 and e2 of each coordinate; \\|g\\| < 1, e2 > 0. Where g is 0 nothing bends.
            log_scale: log \\|det matrix\\|.
            matrix, bias: Shapes (n, n) and (n,).
            next: Shape (n, 2): x0 and e2 of the next step; None for no sums.

        Returns:
            Shape (n, 6): for each coordinate, as it is now, the weighted sums of x, x², r, x r, q and 1 / r², with
            r = sqrt(e2 + (x - x0)²) and q = (x - x0) / r.
        """
        kind = self._x.dtype
        g, center, e2 = (maps[:, i].astype(kind) for i in range(3))
        w = self._x - center
        r = np.sqrt(e2 + w * w)
        self._log_jacobian += np.log1p(g * w / r).sum(axis=1) + kind.type(log_scale)
        self._x = (self._x + g * r) @ matrix.T.astype(kind) + bias.astype(kind)
        if next is None:
            return None
        x = self._x.astype(np.float64)
        w = x - next[:, 0]
        square = next[:, 1] + w * w
        r = np.sqrt(square)
        terms = np.stack([x, x * x, r, x * r, w / r, 1.0 / square], axis=2)
        if self._weights is not None:
            terms *= self._weights[:, None, None]
        sums: Floats = terms.sum(axis=0)
        return sums

    def values(self) -> NDArray[Any]:
        """Where the points are, shape (rows, n)."""
        return self._x

    def log_jacobian(self) -> NDArray[Any]:
        """log \\|det\\| of the way so far, shape (rows,)."""
        return self._log_jacobian
