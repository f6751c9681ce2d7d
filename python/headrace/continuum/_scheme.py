"""The equation in space: finite volumes for the ratio f = rho / mu of cell averages.

Through a face between cells i and j, h apart, flows F = -mu_i mu_j (f_j^2 - f_i^2) / (2 h). With mu_i mu_j for the
square of mu on the face, mu_i df_i/dt = -(differences of F) / h can be divided by mu_i without a quotient:

    df_i/dt = sum over neighbours j of mu_j (f_j^2 - f_i^2) / (2 h^2).

So a cell where mu underflows to 0 does no harm, and constant f is kept to the last bit.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from headrace._base.types import Floats
from headrace.continuum.grid import Grid


class Scheme:
    """Rates of change, velocities on faces and entropies for one grid and one target."""

    def __init__(self, grid: Grid, mu: Floats) -> None:
        """`mu`: at the cells' centres, shape `grid.cells`, of the same mass as rho: f then has the mean 1."""
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
        """df/dt, flat like f."""
        return np.asarray(self._divergence @ (self._difference @ (f * f)))

    def jacobian(self, f: Floats) -> sparse.csc_array:
        """The derivative of `rate`: one constant matrix with its columns multiplied by f."""
        matrix = self._laplacian.copy()
        matrix.data *= np.repeat(f, np.diff(matrix.indptr))
        return matrix

    def velocities(self, f: Floats) -> list[Floats]:
        """u = -mu grad(f) on the faces that lie across each axis, walls left out.

        F = rho u on each face, if rho there is the face's mu times the mean of both f.
        """
        speed = -self._face_mu * np.asarray(self._difference @ f) / self._h
        parts = np.split(speed, np.cumsum([np.prod(shape) for shape in self._face_shapes])[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self._face_shapes, strict=True)]

    def speed_squared(self, f: Floats) -> float:
        """The integral of |u|^2."""
        return sum(float(np.sum(u * u)) for u in self.velocities(f)) * self._grid.volume

    def kl_rate(self, f: Floats) -> float:
        """The scheme's discretisation of -(integral of mu^3 / rho |grad f|^2): d/dt of the sum of -mu log f."""
        left, right = f[self._left], f[self._right]
        squared = (self._face_mu * (right - left) / self._h) ** 2
        moves = squared > 0.0
        # Where one of both is 0, the sum is infinite, like the equation's own.
        with np.errstate(divide="ignore", over="ignore"):
            weight = 0.5 / left[moves] + 0.5 / right[moves]
        return -float(np.sum(squared[moves] * weight)) * self._grid.volume
