"""Grids of equal cells on an interval or a rectangle, and cubic splines through values on a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, RectBivariateSpline

from headrace._base import arguments as check
from headrace._base.public import public
from headrace._base.types import Floats

_LEAST_CELLS = 4  # the number of cell centres that a cubic spline needs
_WIDTHS = 1e-50, 1e50  # limits of a box's width, within which areas and squares of the spacing do not overflow


@public("headrace.continuum")
class Grid:
    """Equal cells on an interval or a rectangle.

    Attributes:
        dimensions: The number of axes, 1 or 2.
        box: The lower and the upper limit of each axis, shape (dimensions, 2).
        cells: The number of cells along each axis, which is the shape of arrays on the grid.
        boundary: "wall" or "periodic".
        spacing: The width of a cell along each axis, shape (dimensions,).
        axes: The centres of the cells along each axis.
        edges: The faces of the cells along each axis, including both ends of the box.
        points: The centres of all cells, shape (cells, dimensions); the last axis varies fastest.

    >>> import headrace as hr
    >>> hr.continuum.Grid((-4, 4), 8)
    Grid([(-4, 4)], (8,), 'wall')
    >>> hr.continuum.Grid([(-4, 4), (0, 1)], (8, 5), boundary="periodic").points.shape
    (40, 2)
    """

    def __init__(self, box: Any, cells: Any, boundary: str = "wall") -> None:
        """Make a grid of equal cells.

        Args:
            box: The limits (low, high), or a pair of limits for a rectangle.
            cells: The number of cells along an axis, at least 4: one number for all axes, or one for each.
            boundary: "wall", through which nothing flows, or "periodic"; all axes have the same kind.
        """
        self.box = _limits(box)
        self.dimensions = len(self.box)
        each = check.integers("cells", cells if np.iterable(cells) else [cells] * self.dimensions, least=_LEAST_CELLS)
        if len(each) != self.dimensions:
            raise ValueError(f"cells: expected {self.dimensions} numbers, one for each axis of the box, got {each}")
        self.cells = each
        self.boundary = check.choice("boundary", boundary, ("wall", "periodic"))
        self.spacing = (self.box[:, 1] - self.box[:, 0]) / each
        self.edges = tuple(np.linspace(low, high, n + 1) for (low, high), n in zip(self.box, each, strict=True))
        self.axes = tuple((faces[:-1] + faces[1:]) / 2.0 for faces in self.edges)
        self.points = np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1).reshape(-1, self.dimensions)
        for array in (self.box, self.spacing, *self.edges, *self.axes, self.points):
            array.flags.writeable = False

    @property
    def volume(self) -> float:
        """The volume of one cell."""
        return float(np.prod(self.spacing))

    def wrap(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points moved into the box: by whole periods if the box is periodic, otherwise to the nearest wall."""
        low, high = self.box.T
        if self.boundary == "periodic":
            return low + np.mod(points - low, high - low)
        return np.clip(points, low, high)

    def __repr__(self) -> str:
        """The arguments of the constructor."""
        box = [(float(f"{low:g}"), float(f"{high:g}")) for low, high in self.box]
        shown = ", ".join(f"({low:g}, {high:g})" for low, high in box)
        return f"Grid([{shown}], {self.cells}, {self.boundary!r})"


def _limits(box: Any) -> NDArray[np.float64]:
    wanted = "(low, high), or two such pairs"
    given = check.real_array("box", box, wanted, f"{type(box).__name__} {box!r}")
    limits = np.array(given, np.float64)
    if limits.shape == (2,):
        limits = limits[None, :]
    if limits.ndim != 2 or limits.shape[1] != 2 or len(limits) not in (1, 2):
        raise ValueError(f"box: expected {wanted} (one or two dimensions), got shape {given.shape}")
    if not np.isfinite(limits).all() or not (limits[:, 0] < limits[:, 1]).all():
        raise ValueError(f"box: expected finite limits with low below high, got {limits.tolist()}")
    least, most = _WIDTHS
    half = limits[:, 1] / 2.0 - limits[:, 0] / 2.0  # low and high are halved because high - low may overflow
    if not ((half >= least / 2.0) & (half <= most / 2.0)).all():
        raise ValueError(f"box: expected limits from {least:g} to {most:g} apart, got {limits.tolist()}")
    return limits


_WRAPPED = 8  # the number of repeated cells: a value's influence on a spline decreases by a factor of 3.7 a cell


class Interpolant:
    """A cubic spline in one or two dimensions; beyond the last nodes, its tangent continues the spline."""

    def __init__(self, nodes: tuple[Floats, ...], values: Floats) -> None:
        """`nodes`: an ascending array for each axis; `values`: a value at each combination of nodes."""
        self._low = np.array([axis[0] for axis in nodes])
        self._high = np.array([axis[-1] for axis in nodes])
        self._spline: Any
        if len(nodes) == 1:
            self._spline = CubicSpline(nodes[0], values)
        else:
            self._spline = RectBivariateSpline(*nodes, values, s=0)

    def __call__(self, points: Floats) -> Floats:
        """The values at points (rows, dimensions), shape (rows,)."""
        inside = np.clip(points, self._low, self._high)
        value = self._inside(inside, None)
        beyond = points - inside
        for axis in range(points.shape[1]):
            if beyond[:, axis].any():
                value = value + beyond[:, axis] * self._inside(inside, axis)
        return value

    def derivative(self, points: Floats, axis: int) -> Floats:
        """The derivative along an axis at points, shape (rows,)."""
        return self._inside(np.clip(points, self._low, self._high), axis)

    def _inside(self, points: Floats, axis: int | None) -> Floats:
        if points.shape[1] == 1:
            result = self._spline(points[:, 0], nu=0 if axis is None else 1)
        else:
            result = self._spline.ev(points[:, 0], points[:, 1], dx=int(axis == 0), dy=int(axis == 1))
        return np.asarray(result, np.float64)


def wrapped(nodes: Floats, values: Floats, axis: int, length: float) -> tuple[Floats, Floats]:
    """The nodes of a periodic axis and the values at the nodes, both extended beyond the ends by repetition."""
    n = min(_WRAPPED, len(nodes))
    nodes = np.concatenate([nodes[-n:] - length, nodes, nodes[:n] + length])
    ends = np.take(values, range(-n, 0), axis), np.take(values, range(n), axis)
    return nodes, np.concatenate([ends[0], values, ends[1]], axis)
