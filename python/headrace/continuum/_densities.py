"""Densities for `evolve`: arrays on the grid, functions of points, or objects with a `log_prob`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.types import Floats
from headrace.continuum.grid import Grid, Interpolant, wrapped


class Density:
    """A density of any scale and range, at the centres of a grid's cells and at other points.

    Attributes:
        values: The density at the centres, shape `grid.cells`; None if only its logarithm was given.
        log: The logarithm of the density at the centres.
    """

    def __init__(self, name: str, given: Any, grid: Grid, *, zeros: bool) -> None:
        """`given`: an array, a function or an object with `log_prob`; `zeros`: whether the density may be 0."""
        self._name, self._grid, self._zeros = name, grid, zeros
        self._function: Callable[[Floats], Any] | None = None
        self._gives_log = callable(getattr(given, "log_prob", None))
        self._interpolant: Interpolant | None = None
        self.values: Floats | None = None
        if isinstance(given, type):
            raise TypeError(f"{name}: expected an array, a function or an object with log_prob, got {_kind(given)}")
        if self._gives_log:
            self._function = given.log_prob
        elif callable(given):
            self._function = given
        if self._function is not None:
            at_centres = self._call(grid.points).reshape(grid.cells)
        else:
            at_centres = self._checked(_array(name, given, grid.cells))
        if self._gives_log:
            self.log = at_centres
        else:
            self.values, self.log = at_centres, _log(at_centres)
        if not np.isfinite(self.log).any():
            raise ValueError(f"{name}: expected a positive mass on the grid, got 0")

    def log_at(self, points: Floats) -> Floats:
        """The logarithm of the density at points (rows, dimensions), shape (rows,)."""
        if self._function is not None:
            values = self._call(points)
            return values if self._gives_log else _log(values)
        if self._interpolant is None:
            self._interpolant = self._spline()
        return self._interpolant(points)

    def _spline(self) -> Interpolant:
        if not np.isfinite(self.log).all():
            raise ValueError(f"{self._name}: expected positive numbers to interpolate between, got 0; give a function")
        nodes, values = list(self._grid.axes), self.log
        for axis, (low, high) in enumerate(self._grid.box):
            if self._grid.boundary == "periodic":
                nodes[axis], values = wrapped(nodes[axis], values, axis, high - low)
            else:
                nodes[axis], values = _continued(nodes[axis], values, axis)
        return Interpolant(tuple(nodes), values)

    def _call(self, points: Floats) -> Floats:
        assert self._function is not None
        values = _array(f"{self._name}(points)", self._function(points), (len(points),))
        return self._checked(values)

    def _checked(self, values: Floats) -> Floats:
        if self._gives_log:
            bad = ~(np.isfinite(values) | (self._zeros & np.isneginf(values)))
            wanted = "finite logarithms"
        else:
            bad = ~(np.isfinite(values) & ((values > 0.0) | (self._zeros & (values == 0.0))))
            wanted = "finite numbers of at least 0" if self._zeros else "finite numbers above 0"
        if bad.any():
            where = np.argwhere(bad)[0]
            place = int(where[0]) if where.size == 1 else tuple(where.tolist())
            hint = "; where it underflows, give an object with log_prob" if values[tuple(where)] == 0.0 else ""
            raise ValueError(f"{self._name}: expected {wanted}, got {values[tuple(where)]} at index {place}{hint}")
        return values


def _continued(nodes: Floats, values: Floats, axis: int) -> tuple[Floats, Floats]:
    """Values with another node at each end, on the parabola through three nodes, so that splines reach walls."""
    h = nodes[1] - nodes[0]
    a, b, c, z, y, x = (values.take([i], axis) for i in (0, 1, 2, -1, -2, -3))
    ends = 3.0 * a - 3.0 * b + c, 3.0 * z - 3.0 * y + x
    nodes = np.concatenate([[nodes[0] - h], nodes, [nodes[-1] + h]])
    return nodes, np.concatenate([ends[0], values, ends[1]], axis)


def _log(values: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log(values)


def _kind(given: Any) -> str:
    return "None" if given is None else check.kind_of(given)


def _array(name: str, given: Any, shape: tuple[int, ...]) -> Floats:
    array = check.real_array(name, given, got=_kind(given))
    if array.shape != shape:
        raise errors.wrong_shape(name, shape, array.shape)
    return array.astype(np.float64)
