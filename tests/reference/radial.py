"""The radial transform (eq. 30-31), with one set of parameters ``[center, alpha, beta]`` or one for each row."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .positive import positive
from .vector import bisect, parameters


def log_det(features, r, alpha, end):
    """The logarithm of ``(1 + beta h)^(features - 1) (1 + beta h + beta h' r)``, where ``beta = end - alpha``.

    The determinant is a product of sums of positive terms, because ``1 + beta h = (end + r) h`` and ``beta h + beta h'
    r = alpha beta h^2``.
    """
    along = (r * (r + 2.0 * alpha) + alpha * end) / (alpha + r) ** 2
    return (features - 1) * np.log((end + r) / (alpha + r)) + np.log(along)


@dataclass(frozen=True)
class Radial:
    params: Any  # an array, or a network of the context

    def forward(self, z, context=None):
        """The value ``x = z + beta h (z - center)`` with ``h = 1 / (alpha + r)``, where ``r`` is the distance from the
        center."""
        z = np.asarray(z, np.float64)
        center, alpha, end = self._split(z, context)
        r = np.linalg.norm(z - center, axis=1)
        return z + ((end - alpha) / (alpha + r))[:, None] * (z - center), log_det(z.shape[1], r, alpha, end)

    def inverse(self, x, context=None):
        """The inverse by bisection for the distance ``r`` of ``z``: the distance of ``x`` is ``r (end + r) / (alpha +
        r)``."""
        x = np.asarray(x, np.float64)
        center, alpha, end = self._split(x, context)
        distance = np.linalg.norm(x - center, axis=1)
        reach = distance * (1.0 + alpha / end) + np.finfo(float).tiny
        r = np.abs(bisect(lambda r: r * ((end + np.abs(r)) / (alpha + np.abs(r))), distance, reach))
        z = center + (x - center) * ((alpha + r) / (end + r))[:, None]
        return z, -log_det(x.shape[1], r, alpha, end)

    def _split(self, rows, context):
        params = parameters(self.params, len(rows), context)
        return params[:, :-2], positive(params[:, -2]), positive(params[:, -1])
