"""The planar transform (eq. 28-29), with one set of parameters ``[w, u, b]`` or one for each row."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .positive import positive

BENDS = {
    "tanh": (np.tanh, lambda v: 1.0 / np.cosh(np.minimum(np.abs(v), 300.0)) ** 2),
    "leaky_relu": (lambda v, slope: np.where(v > 0, v, slope * v), lambda v, slope: np.where(v > 0, 1.0, slope)),
}


def split(params):
    """``w``, ``u``, ``b`` as rows: (rows or 1, features) and (rows or 1,)."""
    params = np.atleast_2d(np.asarray(params, np.float64))
    features = (params.shape[1] - 1) // 2
    return params[:, :features], params[:, features : 2 * features], params[:, -1]


def moved_u(w, u):
    """``u`` moved along ``w`` such that ``1 + w.u`` is positive; where ``w`` is 0 nothing has to move."""
    along = (w * u).sum(axis=1, keepdims=True)
    square = (w * w).sum(axis=1, keepdims=True)
    excess = _excess(along)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(square > 0, u + (excess - along) * w / square, u), excess[:, 0]


def _excess(along):
    """``positive(along) - 1``; by its integral from 0 where the difference would cancel."""
    small = np.abs(along) < 1e-3
    middle = positive(along) - 1.0
    node, weight = np.polynomial.legendre.leggauss(8)
    slope = sum(w * _slope(along * (n + 1) / 2) for n, w in zip(node, weight, strict=True)) / 2
    return np.where(small, along * slope, middle)


def _slope(raw):
    from .positive import SHIFT

    return 1.0 / (1.0 + np.exp(-(raw + SHIFT)))


@dataclass(frozen=True)
class Planar:
    params: Any
    nonlinearity: str = "tanh"
    negative_slope: float = 0.2

    def _bend(self, v):
        value, slope = BENDS[self.nonlinearity]
        more = (self.negative_slope,) if self.nonlinearity == "leaky_relu" else ()
        return value(v, *more), slope(v, *more)

    def forward(self, z, context=None):
        """``x = z + u h(w.z + b)`` and ``log |1 + h' w.u|``."""
        w, u, b = split(self.params)
        u, excess = moved_u(w, u)
        z = np.asarray(z, np.float64)
        value, slope = self._bend((z * w).sum(axis=1) + b)
        return z + u * value[:, None], np.log((1.0 - slope) + slope * (1.0 + excess))

    def inverse(self, x, context=None):
        """By bisection for ``v = w.z + b``: ``v + (w.u) h(v) = w.x + b`` has a left side that grows with ``v``."""
        w, u, b = split(self.params)
        u, excess = moved_u(w, u)
        x = np.asarray(x, np.float64)
        target = (x * w).sum(axis=1) + b
        reach = np.abs(target) * (1.0 + np.abs(excess)) / (1e-3 * self.negative_slope) + np.abs(excess) + 1.0
        low, high = -reach, reach
        for _ in range(1100):
            middle = low + (high - low) / 2.0
            above = middle + excess * self._bend(middle)[0] > target
            low, high = np.where(above, low, middle), np.where(above, middle, high)
            if (np.nextafter(low, np.inf) >= high).all():
                break
        value, slope = self._bend(low)
        return x - u * value[:, None], -np.log((1.0 - slope) + slope * (1.0 + excess))
