"""The radial transform (eq. 30-31), with one set of parameters ``[center, alpha, beta]`` or one for each row."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .positive import positive


def split(params):
    """``center`` (rows or 1, features), and the positive ``alpha`` and ``alpha + beta`` (rows or 1,)."""
    params = np.atleast_2d(np.asarray(params, np.float64))
    return params[:, :-2], positive(params[:, -2]), positive(params[:, -1])


@dataclass(frozen=True)
class Radial:
    params: Any

    def forward(self, z, context=None):
        """``x = z + beta h (z - center)``, ``det = (1 + beta h)^(D - 1) (1 + beta h + beta h' r)``, ``h = 1 / (alpha + r)``."""
        center, alpha, end = split(self.params)
        z = np.asarray(z, np.float64)
        r = np.linalg.norm(z - center, axis=1)
        stretch = (end + r) / (alpha + r)  # 1 + beta h
        along = (end * alpha + 2.0 * alpha * r + r * r) / (alpha + r) ** 2  # 1 + beta h + beta h' r
        value = center + (z - center) * stretch[:, None]
        return value, (z.shape[1] - 1) * np.log(stretch) + np.log(along)

    def inverse(self, x, context=None):
        """By bisection for the distance ``r`` of ``z``: that of ``x`` is ``r (end + r) / (alpha + r)``."""
        center, alpha, end = split(self.params)
        x = np.asarray(x, np.float64)
        distance = np.linalg.norm(x - center, axis=1)
        low, high = np.zeros(len(x)), distance * (1.0 + alpha / end) + 1e-300
        for _ in range(1100):
            middle = low + (high - low) / 2.0
            above = middle * ((end + middle) / (alpha + middle)) > distance
            low, high = np.where(above, low, middle), np.where(above, middle, high)
            if (np.nextafter(low, np.inf) >= high).all():
                break
        z = center + (x - center) * ((alpha + low) / (end + low))[:, None]
        return z, -self.forward(z)[1]
