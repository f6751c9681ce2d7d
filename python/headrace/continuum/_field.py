"""The velocity between the faces of a grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.continuum._interpolation import Interpolant, wrapped
from headrace.continuum.grid import Grid

Array = NDArray[np.float64]


class VelocityField:
    """Cubic splines through the velocities that the scheme has on its faces; 0 at walls for the part across them."""

    def __init__(self, grid: Grid, velocities: list[Array]) -> None:
        """`velocities`: as `Scheme.velocities` gives them."""
        self._parts = [_part(grid, velocity, axis) for axis, velocity in enumerate(velocities)]

    def __call__(self, points: Array) -> Array:
        """Velocities at points of the box, shape (rows, dimensions)."""
        return np.stack([part(points) for part in self._parts], axis=1)

    def divergence(self, points: Array) -> Array:
        """The divergence at each position, shape (rows,)."""
        total: Array = np.sum([part.derivative(points, axis) for axis, part in enumerate(self._parts)], axis=0)
        return total


def _part(grid: Grid, values: Array, across: int) -> Interpolant:
    """One component, known on the faces across one axis and at the centres along the other."""
    nodes = []
    for axis in range(grid.dimensions):
        low, high = grid.box[axis]
        if grid.boundary == "periodic":
            at = grid.edges[axis][1:] if axis == across else grid.axes[axis]
            at, values = wrapped(at, values, axis, high - low)
        elif axis == across:
            at = grid.edges[axis]
            values = np.pad(values, [(1, 1) if k == axis else (0, 0) for k in range(grid.dimensions)])
        else:  # along a wall the velocity need not vanish: continue it by the last two centres
            at = np.concatenate([[low], grid.axes[axis], [high]])
            first, second, late, last = (values.take([i], axis) for i in (0, 1, -2, -1))
            values = np.concatenate([1.5 * first - 0.5 * second, values, 1.5 * last - 0.5 * late], axis)
        nodes.append(at)
    return Interpolant(tuple(nodes), values)
