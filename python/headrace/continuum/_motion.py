"""The equation in space and time, the velocity between the faces of a grid, and particles that move with it.

Space is discretised by finite volumes, for the ratio f = rho / mu of cell averages. Through a face between cells
i and j, at a distance of h, the flow is F = -mu_i mu_j (f_j^2 - f_i^2) / (2 h). With mu_i mu_j for the square of mu on
the face, mu_i df_i/dt = -(differences of F) / h can be divided by mu_i without a quotient:

    df_i/dt = sum over neighbours j of mu_j (f_j^2 - f_i^2) / (2 h^2).

A cell where mu underflows to 0 is therefore harmless, and a constant f stays the same to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from scipy.integrate import solve_ivp

from headrace._base.types import Floats
from headrace.continuum.grid import Grid, Interpolant, wrapped


class Scheme:
    """Rates of change, velocities on faces and entropies for one grid and one target."""

    def __init__(self, grid: Grid, mu: Floats) -> None:
        """`mu`: the target at the cells' centres, shape `grid.cells`, with rho's mass, so that f has the mean 1."""
        self._grid, self._mu = grid, mu.ravel()
        index = np.arange(mu.size).reshape(grid.cells)
        periodic = grid.boundary == "periodic"
        lefts, rights, spacings, self._face_shapes = [], [], [], []
        for axis, (n, h) in enumerate(zip(grid.cells, grid.spacing, strict=True)):
            left = index if periodic else index.take(range(n - 1), axis)
            right = np.roll(index, -1, axis) if periodic else index.take(range(1, n), axis)
            self._face_shapes.append(left.shape)
            lefts.append(left.ravel())
            rights.append(right.ravel())
            spacings.append(np.full(left.size, h))
        self._left, self._right, self._h = np.concatenate(lefts), np.concatenate(rights), np.concatenate(spacings)

        faces, ones = np.arange(len(self._left)), np.ones(len(self._left))
        cells, shape = np.concatenate([self._left, self._right]), (len(faces), mu.size)
        self._difference = sparse.csr_array((np.concatenate([-ones, ones]), (np.tile(faces, 2), cells)), shape)
        given = np.concatenate([self._mu[self._right], -self._mu[self._left]]) / np.tile(2.0 * self._h**2, 2)
        self._divergence = sparse.csr_array((given, (cells, np.tile(faces, 2))), shape[::-1])
        self._laplacian = sparse.csc_array(2.0 * (self._divergence @ self._difference))
        self._face_mu = np.sqrt(self._mu[self._left]) * np.sqrt(self._mu[self._right])

    def rate(self, f: Floats) -> Floats:
        """The rate df/dt as a flat array, like f."""
        return np.asarray(self._divergence @ (self._difference @ (f * f)))

    def jacobian(self, f: Floats) -> sparse.csc_array:
        """The derivative of `rate` by f: a constant matrix whose columns are multiplied by f."""
        matrix = self._laplacian.copy()
        matrix.data *= np.repeat(f, np.diff(matrix.indptr))
        return matrix

    def velocities(self, f: Floats) -> list[Floats]:
        """The velocity u = -mu grad(f) on the faces across each axis, except faces at walls.

        The flow F through a face equals rho u, if rho on the face is the face's mu times the mean of both cells' f.
        """
        speed = -self._face_mu * np.asarray(self._difference @ f) / self._h
        parts = np.split(speed, np.cumsum([np.prod(shape) for shape in self._face_shapes])[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self._face_shapes, strict=True)]

    def speed_squared(self, f: Floats) -> float:
        """The integral of |u|^2 over the box."""
        return sum(float(np.sum(u * u)) for u in self.velocities(f)) * self._grid.volume

    def kl_rate(self, f: Floats) -> float:
        """The scheme's discretisation of -(integral of mu^3 / rho |grad f|^2): d/dt of the sum of -mu log f."""
        left, right = f[self._left], f[self._right]
        squared = (self._face_mu * (right - left) / self._h) ** 2
        moves = squared > 0.0
        # If f is 0 on one side of a face, the sum is infinite, like the integral of the equation.
        with np.errstate(divide="ignore", over="ignore"):
            weight = 0.5 / left[moves] + 0.5 / right[moves]
        return -float(np.sum(squared[moves] * weight)) * self._grid.volume


_RELATIVE = 1e-8  # the tolerance of a step in f and in positions, far below the error in space
_FLOOR = 1e-4  # below this f, in units of its mean, the tolerance is absolute, to save steps at fronts


class Motion:
    """The ratio f = rho / mu at all times from the first to the last, and the velocity field that follows from f."""

    def __init__(self, grid: Grid, scheme: Scheme, f: Floats, times: Floats) -> None:
        """Integrate f from times[0], where f has the shape `grid.cells`, to times[-1]."""
        self._grid, self._scheme, self._times = grid, scheme, times
        # The table of differences of BDF begins with uninitialised memory. The integrator does not use the
        # uninitialised values, but one subtraction reads them, and would warn of infinities and NaN.
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
        # The scheme never lowers the least value of f, and the integrator lowers it only by its tolerance.
        self._least = float(f.min())
        self.f = np.maximum(result.y.T, self._least)

    def field(self, t: float) -> VelocityField:
        """The velocity field at the time t."""
        f = np.maximum(self._solution(t), self._least)
        return VelocityField(self._grid, self._scheme.velocities(f))

    def velocity(self, t: float, points: Floats) -> Floats:
        """The velocity, at the time t, of points of the box."""
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
    """Cubic splines through the scheme's velocities on faces; on a wall, the component across the wall is 0."""

    def __init__(self, grid: Grid, velocities: list[Floats]) -> None:
        """`velocities`: the result of `Scheme.velocities`."""
        self._parts = [_part(grid, velocity, axis) for axis, velocity in enumerate(velocities)]

    def __call__(self, points: Floats) -> Floats:
        """The velocities at points of the box, arrays of shape (rows, dimensions)."""
        return np.stack([part(points) for part in self._parts], axis=1)

    def divergence(self, points: Floats) -> Floats:
        """The divergence of the velocity at points, shape (rows,)."""
        return np.sum([part.derivative(points, axis) for axis, part in enumerate(self._parts)], axis=0)


def _part(grid: Grid, values: Floats, across: int) -> Interpolant:
    """A spline of one component, from values on the faces across an axis, at the centres along the other axis."""
    nodes = []
    for axis in range(grid.dimensions):
        low, high = grid.box[axis]
        if grid.boundary == "periodic":
            at = grid.edges[axis][1:] if axis == across else grid.axes[axis]
            at, values = wrapped(at, values, axis, high - low)
        elif axis == across:
            at = grid.edges[axis]
            values = np.pad(values, [(1, 1) if k == axis else (0, 0) for k in range(grid.dimensions)])
        else:  # velocities along a wall are extrapolated from two centres
            at = np.concatenate([[low], grid.axes[axis], [high]])
            first, second, late, last = (values.take([i], axis) for i in (0, 1, -2, -1))
            values = np.concatenate([1.5 * first - 0.5 * second, values, 1.5 * last - 0.5 * late], axis)
        nodes.append(at)
    return Interpolant(tuple(nodes), values)
