"""The velocity between the faces of a grid."""

from __future__ import annotations

import numpy as np

from headrace._types import Floats
from headrace.continuum._interpolation import Interpolant, wrapped
from headrace.continuum.grid import Grid


class VelocityField:
    """Cubic splines through the velocities that the scheme has on its faces; 0 at walls for the part across them."""

    def __init__(self, grid: Grid, velocities: list[Floats]) -> None:
        """`velocities`: as `Scheme.velocities` gives them."""
        self._parts = [_part(grid, velocity, axis) for axis, velocity in enumerate(velocities)]

    def __call__(self, points: Floats) -> Floats:
        """Velocities at points of the box, shape (rows, dimensions)."""
        return np.stack([part(points) for part in self._parts], axis=1)

    def divergence(self, points: Floats) -> Floats:
        """The divergence at each position, shape (rows,)."""
        total: Floats = np.sum([part.derivative(points, axis) for axis, part in enumerate(self._parts)], axis=0)
        return total


def _part(grid: Grid, values: Floats, across: int) -> Interpolant:
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
