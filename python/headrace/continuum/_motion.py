"""The equation in time, the velocity between the faces of a grid, and the particles that it carries."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from headrace._base.types import Floats
from headrace.continuum._interpolation import Interpolant, wrapped
from headrace.continuum._scheme import Scheme
from headrace.continuum.grid import Grid

_RELATIVE = 1e-8  # error of a step, in f and in positions: far below the error in space of grids that fit in memory
_FLOOR = 1e-4  # of the mean of f: below, the error is absolute, because fronts that run into emptiness cost steps


class Motion:
    """f = rho / mu at all times between the first and the last, and the velocity field that it makes."""

    def __init__(self, grid: Grid, scheme: Scheme, f: Floats, times: Floats) -> None:
        """Integrates from `f` (grid.cells), which holds at times[0], to times[-1]."""
        self._grid, self._scheme, self._times = grid, scheme, times
        # BDF's table of differences begins with the contents of the memory. None of it counts, but one subtraction
        # takes it, and warns where it is no number.
        with np.errstate(invalid="ignore"):
            result = solve_ivp(
                lambda _, y: scheme.rate(y),
                (times[0], times[-1]),
                f.ravel(),
                method="BDF",
                jac=lambda _, y: scheme.jacobian(y),
                t_eval=times,
                dense_output=True,
                rtol=_RELATIVE,
                atol=_RELATIVE * min(max(float(f.min()), _FLOOR), 1.0),
            )
        _finished(result, "the equation")
        self._solution = result.sol
        # The least f never falls under the scheme; under the integrator, by its tolerance.
        self._least = float(f.min())
        self.f = np.maximum(result.y.T, self._least)

    def field(self, t: float) -> VelocityField:
        """The velocity at a time."""
        f = np.maximum(self._solution(t), self._least)
        return VelocityField(self._grid, self._scheme.velocities(f))

    def velocity(self, t: float, points: Floats) -> Floats:
        """The velocity at a time, at points of the box."""
        return self.field(t)(points)

    def carry(self, points: Floats) -> tuple[Floats, Floats]:
        """Positions (times, rows, d) of points that start at times[0], and log-Jacobians (times, rows)."""
        rows, d = points.shape

        def rate(t: float, state: Floats) -> Floats:
            at = self._grid.wrap(state[: rows * d].reshape(rows, d))
            field = self.field(t)
            return np.concatenate([field(at).ravel(), field.divergence(at)])

        length = float(np.min(self._grid.box[:, 1] - self._grid.box[:, 0]))
        result = solve_ivp(
            rate,
            (self._times[0], self._times[-1]),
            np.concatenate([points.ravel(), np.zeros(rows)]),
            t_eval=self._times,
            rtol=_RELATIVE,
            atol=np.concatenate([np.full(rows * d, _RELATIVE * length), np.full(rows, _RELATIVE)]),
        )
        _finished(result, "the particles")
        state = result.y.T
        positions = state[:, : rows * d].reshape(-1, rows, d)
        return self._grid.wrap(positions), state[:, rows * d :]


def _finished(result: Any, what: str) -> None:
    if not result.success:
        raise RuntimeError(f"{what}: SciPy's integrator stopped: {result.message}")


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
