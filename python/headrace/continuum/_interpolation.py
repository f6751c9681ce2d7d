"""Cubic splines through values on a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline, RectBivariateSpline

from headrace._base.types import Floats

_WRAPPED = 8  # cells: the influence of values beyond a spline's end falls by a factor of 3.7 a cell


class Interpolant:
    """A cubic spline in one or two dimensions; beyond its last nodes it goes on along the tangent."""

    def __init__(self, nodes: tuple[Floats, ...], values: Floats) -> None:
        """`nodes`: ascending, an array for each axis; `values`: one at each of their combinations."""
        self._low = np.array([axis[0] for axis in nodes])
        self._high = np.array([axis[-1] for axis in nodes])
        self._spline: Any
        if len(nodes) == 1:
            self._spline = CubicSpline(nodes[0], values)
        else:
            self._spline = RectBivariateSpline(*nodes, values, s=0)

    def __call__(self, points: Floats) -> Floats:
        """Values at points (rows, dimensions), shape (rows,)."""
        inside = np.clip(points, self._low, self._high)
        value = self._inside(inside, None)
        beyond = points - inside
        for axis in range(points.shape[1]):
            if beyond[:, axis].any():
                value = value + beyond[:, axis] * self._inside(inside, axis)
        return value

    def derivative(self, points: Floats, axis: int) -> Floats:
        """The derivative along an axis, shape (rows,)."""
        return self._inside(np.clip(points, self._low, self._high), axis)

    def _inside(self, points: Floats, axis: int | None) -> Floats:
        if points.shape[1] == 1:
            result = self._spline(points[:, 0], nu=0 if axis is None else 1)
        else:
            result = self._spline.ev(points[:, 0], points[:, 1], dx=int(axis == 0), dy=int(axis == 1))
        return np.asarray(result, np.float64)


def wrapped(nodes: Floats, values: Floats, axis: int, length: float) -> tuple[Floats, Floats]:
    """Nodes of a periodic axis and the values there, repeated at both ends."""
    n = min(_WRAPPED, len(nodes))
    nodes = np.concatenate([nodes[-n:] - length, nodes, nodes[:n] + length])
    ends = np.take(values, range(-n, 0), axis), np.take(values, range(n), axis)
    return nodes, np.concatenate([ends[0], values, ends[1]], axis)
