"""The flow in one direction after another (section 2.4 of the notes), in two dimensions.

Along a unit vector theta a point moves by u(s) theta, where s is the point's coordinate in that direction and
u = -mu_s d(rho_s / mu_s)/ds is the velocity (eq. 10) of the one-dimensional flow of rho's marginal. If mu is a product
of a density of s and a density of the coordinate across, this motion is the steepest ascent of the likelihood among all
motions along theta that depend only on s.

The motion in each direction is therefore a one-dimensional evolution, whose map moves s and leaves the coordinate
across unchanged. The density at any time is the initial density at the image of a point under the inverse maps, times
their derivatives: for any number of directions, this density is positive, keeps its mass to the error of a sum over
cells, and is never averaged on a grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from headrace._base import arguments as check
from headrace._base.types import Floats
from headrace.continuum._densities import Density
from headrace.continuum.evolution import Evolution
from headrace.continuum.grid import Grid

_MIXED = 1e-3  # a mixed derivative of log mu up to this share of the largest second derivative counts as 0
_NODES = 4  # the number of nodes of a direction's map in each cell, on which later results depend
_EDGE = 1e-3  # the largest allowed density at walls, relative to the maximum, for oblique directions


@dataclass
class Frame:
    """Coordinates along and across a direction, which are 0 in the box's middle, and a grid for each coordinate."""

    theta: Floats
    middle: Floats
    along: Grid
    across: Grid

    @classmethod
    def of(cls, grid: Grid, theta: Floats) -> Frame:
        """The frame of a direction, as wide as the box's inscribed ellipse; an axis' frame has the box's limits."""
        half = (grid.box[:, 1] - grid.box[:, 0]) / 2.0
        normal = np.array([-theta[1], theta[0]])
        reach, cells = [float(np.hypot(*(half * v))) for v in (theta, normal)], max(grid.cells)
        return cls(theta, grid.box.mean(axis=1), *(Grid((-r, r), cells) for r in reach))

    def coordinate(self, points: Floats) -> Floats:
        """The coordinate of points along the direction, shape (rows,)."""
        return (points - self.middle) @ self.theta

    def points(self) -> Floats:
        """The points at all pairs of the two grids' centres; the coordinate across varies fastest."""
        s, p = np.meshgrid(self.along.axes[0], self.across.axes[0], indexing="ij")
        normal = np.array([-self.theta[1], self.theta[0]])
        return self.middle + s.reshape(-1, 1) * self.theta + p.reshape(-1, 1) * normal


class Stage:
    """The motion in one direction for an interval of time: the marginal's evolution, and its map both ways in time."""

    def __init__(self, frame: Frame, evolution: Evolution) -> None:
        """`evolution`: the marginal's evolution on `frame.along`, with both ends of the interval as times."""
        self.frame, self.evolution = frame, evolution
        low, high = frame.along.box[0]
        nodes = np.linspace(low, high, _NODES * frame.along.cells[0] + 1)
        positions, log_jacobians = evolution.carry(nodes[:, None])
        moved, slopes = positions[-1, :, 0], np.exp(log_jacobians[-1])
        if not (np.diff(moved) > 0.0).all():
            raise RuntimeError("directions: particles met on the grid of a direction; more cells or shorter times help")
        self._to = _shift(nodes, moved, slopes)
        self._back = _shift(moved, nodes, 1.0 / slopes)

    def forward(self, points: Floats) -> tuple[Floats, Floats]:
        """The positions, at the end of the interval, of points at the beginning, and the log-Jacobian."""
        return self._moved(points, self._to)

    def inverse(self, points: Floats) -> tuple[Floats, Floats]:
        """The positions, at the beginning of the interval, of points at the end, and the inverse's log-Jacobian."""
        return self._moved(points, self._back)

    def _moved(self, points: Floats, spline: Any) -> tuple[Floats, Floats]:
        s = self.frame.coordinate(points)
        # Points beyond the frame do not move, because the walls of the marginal's flow do not move.
        inside = np.abs(s) <= self.frame.along.box[0, 1]
        shift, slope = (np.where(inside, spline(s, nu=k), 0.0) for k in (0, 1))
        return points + shift[:, None] * self.frame.theta, np.log1p(slope)

    def velocity(self, t: float, points: Floats) -> Floats:
        """The velocity of points (rows, 2) at the time t."""
        s = self.frame.coordinate(points)
        low, high = self.frame.along.box[0]
        inside = (s >= low) & (s <= high)
        speed = np.zeros((len(points), 1))
        speed[inside] = self.evolution.velocity(t, s[inside, None])
        return speed * self.frame.theta


def _shift(nodes: Floats, values: Floats, slopes: Floats) -> CubicHermiteSpline:
    """A spline of the displacement of an increasing map, exactly 0 where the map is the identity.

    The spline is of fourth order, because the map's slopes are known; slopes are limited where a cubic would fold.
    """
    secants = np.diff(values) / np.diff(nodes)
    # A cubic is increasing if its slopes at both ends are below three times the secant.
    steepest = 2.5 * np.minimum(np.append(secants, secants[-1]), np.insert(secants, 0, secants[0]))
    return CubicHermiteSpline(nodes, values - nodes, np.minimum(slopes, steepest) - 1.0)


class Stages:
    """The motion in one direction after another, with one direction between two consecutive times."""

    def __init__(self, times: Floats, stages: list[Stage]) -> None:
        """`stages`: one stage between each pair of consecutive times."""
        self._times, self._stages = times, stages

    def velocity(self, t: float, points: Floats) -> Floats:
        """The velocity of points at the time t; when directions change, the velocity of the later direction."""
        k = min(int(np.searchsorted(self._times, t, side="right")) - 1, len(self._stages) - 1)
        return self._stages[k].velocity(t, points)

    def carry(self, points: Floats) -> tuple[Floats, Floats]:
        """Positions (times, rows, d) of points that start at the first time, and log-Jacobians (times, rows)."""
        positions, log_jacobians = [points], [np.zeros(len(points))]
        for stage in self._stages:
            moved, log_jacobian = stage.forward(positions[-1])
            positions.append(moved)
            log_jacobians.append(log_jacobians[-1] + log_jacobian)
        return np.stack(positions), np.stack(log_jacobians)


def log_density(rho: Density, stages: list[Stage], points: Floats) -> Floats:
    """The logarithm, at points, of the density that rho has after these stages."""
    total = np.zeros(len(points))
    for stage in reversed(stages):
        points, log_jacobian = stage.inverse(points)
        total += log_jacobian
    return total + rho.log_at(points)


def rates(grid: Grid, rho: Floats, mu: Floats, stages: list[Stage]) -> tuple[Floats, Floats]:
    """d/dt of KL(mu || rho) and KL(rho || mu) at each time, for the direction of the next interval, or of the last one.

    The first rate is the integral of mu u theta.grad(log(rho / mu)), by differences of logarithms at the cells'
    centres. The first rate may be positive: u follows the mean of rho / mu across theta, and not the mean of its
    logarithm.
    """
    forward, backward = [], []
    for k, density in enumerate(rho):
        stage, end = (stages[k], 0) if k < len(stages) else (stages[-1], -1)
        time = stage.evolution.times[end]
        with np.errstate(divide="ignore", invalid="ignore"):
            log = np.where(mu > 0.0, np.log(density) - np.log(mu), 0.0).reshape(grid.cells)
            slope = np.stack(list(np.gradient(log, *grid.axes)), axis=-1).reshape(-1, 2)
            flow = np.sum(stage.velocity(time, grid.points) * slope, axis=1)
        forward.append(np.sum(mu * flow) / np.sum(mu))
        backward.append(stage.evolution.gap_rate[end])
    return np.array(forward), np.array(backward)


def unit_vectors(directions: Any, count: int) -> Floats:
    """Unit vectors (count, 2) from directions that are angles or vectors."""
    wanted = f"angles, shape ({count},), or unit vectors, shape ({count}, 2): one for each step from a time to the next"
    given = check.real_array("directions", directions, wanted)
    if given.shape not in ((count,), (count, 2)):
        raise ValueError(f"directions: expected {wanted}, got shape {given.shape}")
    vectors = given.astype(np.float64)
    if not np.isfinite(vectors).all():
        raise ValueError("directions: expected finite numbers, got some that are not")
    if vectors.ndim == 1:
        vectors = np.stack([np.cos(vectors), np.sin(vectors)], axis=1)
    length = np.hypot(*vectors.T)
    bad = np.flatnonzero(np.abs(length - 1.0) > 1e-6)
    if bad.size:
        raise ValueError(f"directions: expected unit vectors, got one of length {length[bad[0]]:g} at index {bad[0]}")
    vectors /= length[:, None]
    vectors[np.abs(vectors) < 1e-12] = 0.0  # NumPy's cosine of a right angle is not exactly 0
    return vectors


def check_product(grid: Grid, mu: Density, rho: Density, vectors: Floats) -> None:
    """Refuse directions in which mu is no product, and oblique directions for densities that do not vanish at walls."""
    log = mu.log
    (hx, hy), inner = grid.spacing, (slice(1, -1), slice(1, -1))
    xx = (log[2:, 1:-1] - 2.0 * log[inner] + log[:-2, 1:-1]) / hx**2
    yy = (log[1:-1, 2:] - 2.0 * log[inner] + log[1:-1, :-2]) / hy**2
    xy = (log[2:, 2:] - log[2:, :-2] - log[:-2, 2:] + log[:-2, :-2]) / (4.0 * hx * hy)
    largest = max(float(np.abs(part).max()) for part in (xx, yy, xy))
    rounding = 16.0 * np.finfo(float).eps * float(np.abs(log).max()) / min(hx, hy) ** 2
    for k, (c, s) in enumerate(vectors):
        mixed = float(np.abs(s * c * (yy - xx) + (c * c - s * s) * xy).max())
        if mixed > _MIXED * largest + rounding:
            raise ValueError(
                f"directions: expected mu to be a product of a density along each direction and one across it "
                f"(eq. 18), got ({c:.4g}, {s:.4g}) at index {k}; of products over the axes, only "
                f"normal densities with equal variances are products in rotated directions"
            )
        if s != 0.0 and c != 0.0:
            for name, density in (("mu", mu), ("rho", rho)):
                edges = [density.log[[0, -1], :].max(), density.log[:, [0, -1]].max()]
                if max(edges) > density.log.max() + np.log(_EDGE):
                    raise ValueError(
                        f"{name}: expected at most {_EDGE:g} of its largest value at the walls, as directions turn "
                        f"against them, got {np.exp(max(edges) - density.log.max()):.2g}; a larger box helps"
                    )
