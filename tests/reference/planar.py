"""The planar transform (eq. 28-29), with one set of parameters ``[w, u, b]`` or one for each row."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .positive import LEAST, excess
from .vector import bisect, parameters

BENDS = {  # each function h, and its slope
    "tanh": (lambda v, _: np.tanh(v), lambda v, _: np.cosh(np.minimum(np.abs(v), 300.0)) ** -2.0),
    "leaky_relu": (lambda v, slope: np.where(v > 0, v, slope * v), lambda v, slope: np.where(v > 0, 1.0, slope)),
}


def moved_u(w, u):
    """The vector ``u`` moved along ``w`` until ``w.u`` is above -1, and the new ``w.u``; for ``w = 0``, ``u``
    itself."""
    along = (w * u).sum(axis=1)
    length = np.linalg.norm(w, axis=1)
    moved = excess(along)
    unit = np.divide(w, length[:, None], out=np.zeros_like(w), where=length[:, None] > 0)
    across = u - unit * (unit * u).sum(axis=1)[:, None]
    across = across - unit * (unit * across).sum(axis=1)[:, None]  # subtracts the rounding error
    return across + unit * np.divide(moved, length, out=np.zeros_like(moved), where=length > 0)[:, None], moved


@dataclass(frozen=True)
class Planar:
    params: Any  # an array, or a network of the context
    nonlinearity: str = "tanh"
    negative_slope: float = 0.2

    def forward(self, z, context=None):
        """The value ``x = z + u h(w.z + b)`` and the logarithm of ``det = 1 + h'(w.z + b) w.u``."""
        z = np.asarray(z, np.float64)
        w, u, b, along = self._split(z, context)
        v = (z * w).sum(axis=1) + b
        return z + u * self._bend(v)[:, None], self._log_det(v, along)

    def inverse(self, x, context=None):
        """The inverse by bisection for ``v = w.z + b``, because ``w.x + b = v + (w.u) h(v)`` grows with ``v``, with a
        slope above LEAST."""
        x = np.asarray(x, np.float64)
        w, u, b, along = self._split(x, context)
        target = (x * w).sum(axis=1) + b
        reach = np.abs(target) / LEAST + np.abs(along) + 1.0
        v = bisect(lambda v: v + along * self._bend(v), target, reach)
        return x - u * self._bend(v)[:, None], -self._log_det(v, along)

    def _split(self, rows, context):
        params, features = parameters(self.params, len(rows), context), rows.shape[1]
        w, b = params[:, :features], params[:, 2 * features]
        u, along = moved_u(w, params[:, features : 2 * features])
        return w, u, b, along

    def _bend(self, v):
        return BENDS[self.nonlinearity][0](v, self.negative_slope)

    def _log_det(self, v, along):
        return np.log1p(BENDS[self.nonlinearity][1](v, self.negative_slope) * along)
