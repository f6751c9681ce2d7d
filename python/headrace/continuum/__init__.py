"""The flow of a density to a target in continuous time, by the equation that dual ascent discretises.

A density rho moves with the velocity u = -mu grad(rho / mu) (eq. 10), the steepest ascent of the likelihood, and so
drho/dt = div(mu^2 grad((rho / mu)^2 / 2)) (eq. 13), in one or two dimensions and for any positive target mu.
`docs/continuum.md` explains equations, scheme and errors. The module needs SciPy: pip install ".[continuum]".

>>> import headrace as hr
>>> import numpy as np
>>> grid = hr.continuum.Grid((-4.0, 4.0), 64)
>>> evolution = hr.continuum.evolve(
...     lambda x: np.exp(-((x[:, 0] - 1.0) ** 2)), lambda x: np.exp(-(x[:, 0] ** 2) / 2.0), grid, [0.0, 0.5, 1.0]
... )
>>> evolution.rho.shape, bool((np.diff(evolution.kl) < 0.0).all())
((3, 64), True)
>>> positions, log_jacobian = evolution.carry(np.array([[1.0]]))
>>> positions.shape, log_jacobian.shape, evolution.estimate(np.array([[1.0]])).shape
((3, 1, 1), (3, 1), (3, 1))
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace._base import arguments as check
from headrace._base.install import install
from headrace._base.types import Floats

try:
    import scipy  # noqa: F401
except ImportError:
    raise ImportError(f"headrace.continuum needs SciPy, which is missing: {install('continuum')}") from None

from headrace.continuum import _directions
from headrace.continuum._densities import Density
from headrace.continuum._motion import Motion, Scheme
from headrace.continuum.evolution import Evolution
from headrace.continuum.grid import Grid

__all__ = ["Evolution", "Grid", "evolve"]

_LARGEST_RATIO = 1e150  # below this ratio f of rho and mu, f² does not overflow


def evolve(rho: Any, mu: Any, grid: Grid, times: Any, directions: Any = None) -> Evolution:
    """Solve drho/dt = div(mu^2 grad((rho / mu)^2 / 2)) (eq. 13) on a grid.

    Args:
        rho: The density at the first time, not negative, of any mass: an array of shape `grid.cells`; a function of
            points (rows, d) that returns densities (rows,); or an object whose `log_prob` returns log densities, such
            as a `Flow`.
        mu: The target, in one of the forms of `rho`; positive, and of any scale. A target that underflows needs a
            `log_prob`.
        grid: A `Grid` of one or two dimensions.
        times: At least two times, increasing; `rho` is the density at the first time.
        directions: None, or for each step from one time to the next the only direction in which rho moves: angles,
            shape (times - 1,), or unit vectors, shape (times - 1, 2). The velocity is the velocity of rho's marginal in
            the step's direction. Directions need two dimensions, walls, and a mu that is a product in each direction
            (eq. 18). With directions, functions rho and mu are also evaluated at points outside of the box.

    Returns:
        The `Evolution` of the density.
    """
    if not isinstance(grid, Grid):
        raise TypeError(f"grid: expected a Grid, got {'None' if grid is None else type(grid).__name__}")
    when = _increasing(times)
    source, target = Density("rho", rho, grid, zeros=True), Density("mu", mu, grid, zeros=False)
    if directions is None:
        return _free(source, target, grid, when)
    if grid.dimensions != 2 or grid.boundary != "wall":
        raise ValueError(f"directions: expected None, or a grid of two dimensions with walls, got {grid!r}")
    vectors = _directions.unit_vectors(directions, len(when) - 1)
    _directions.check_product(grid, target, source, vectors)
    return _directed(source, target, grid, when, vectors)


def _free(source: Density, target: Density, grid: Grid, times: Floats) -> Evolution:
    rho = source.values if source.values is not None else np.exp(source.log)
    with np.errstate(over="ignore"):
        mass = float(rho.sum())
    if not 0.0 < mass < np.inf:
        raise ValueError(f"rho: expected a sum over the grid that is finite and above 0, got {mass:g}")
    mu, f = _ratio(source, target)
    scale = mass / mu.sum()
    with np.errstate(over="ignore"):
        mu, f = mu * scale, f / scale
    if not (f < _LARGEST_RATIO).all():
        raise ValueError(f"rho: expected at most {_LARGEST_RATIO:g} times mu everywhere, got more; a smaller box helps")
    scheme = Scheme(grid, mu)
    motion = Motion(grid, scheme, f, times)
    return Evolution(
        grid=grid,
        times=times,
        rho=motion.f.reshape(-1, *grid.cells) * mu,
        mu=mu,
        kl_rate=np.array([scheme.kl_rate(f) for f in motion.f]) / (mass * grid.volume),
        gap_rate=np.array([-scheme.speed_squared(f) for f in motion.f]) / (mass * grid.volume),
        target=target,
        mover=motion,
    )


def _ratio(source: Density, target: Density) -> tuple[Floats, Floats]:
    """The target mu, scaled to a largest value of about 1, and the ratio of rho to this mu."""
    with np.errstate(over="ignore"):
        if source.values is None or target.values is None:
            largest = target.log.max()
            return np.exp(target.log - largest), np.exp(source.log - (target.log - largest))
        # The scale is a power of two, so that nothing is rounded: equal densities have the same ratio everywhere.
        mu = np.ldexp(target.values, -np.frexp(target.values.max())[1])
        with np.errstate(divide="ignore", invalid="ignore"):
            f = source.values / mu
        # A quotient of logarithms replaces f where mu is subnormal or 0.
        small = mu < np.finfo(float).tiny
        f[small] = np.exp(source.log - target.log + np.log(target.values.max()) - np.log(mu.max()))[small]
        return mu, f


def _directed(source: Density, target: Density, grid: Grid, times: Floats, vectors: Floats) -> Evolution:
    def densities(points: Floats) -> tuple[Floats, Floats]:
        """The density of rho after all stages so far, and the density of the target on any scale, at points."""
        rho, mu = _directions.log_density(source, stages, points), target.log_at(points)
        return np.exp(rho), np.exp(mu if target.values is not None else mu - target.log.max())

    stages: list[_directions.Stage] = []
    rho, mu = densities(grid.points)
    history = [rho]
    for k, theta in enumerate(vectors):
        frame = _directions.Frame.of(grid, theta)
        # Both densities are summed over the same points across, so that equal densities have equal marginals, bit by
        # bit.
        shape, width = (frame.along.cells[0], -1), frame.across.volume
        rho_s, mu_s = (part.reshape(shape).sum(axis=1) * width for part in densities(frame.points()))
        marginal = evolve(rho_s, mu_s, frame.along, times[k : k + 2])
        stages.append(_directions.Stage(frame, marginal))
        history.append(densities(grid.points)[0])
    kl_rates, gap_rates = _directions.rates(grid, np.stack(history), mu, stages)
    return Evolution(
        grid=grid,
        times=times,
        rho=np.stack(history).reshape(-1, *grid.cells),
        mu=(mu * (rho.sum() / mu.sum())).reshape(grid.cells),
        kl_rate=kl_rates,
        gap_rate=gap_rates,
        target=target,
        mover=_directions.Stages(times, stages),
        marginals=tuple(stage.evolution for stage in stages),
    )


def _increasing(times: Any) -> Floats:
    given = check.real_array("times", times)
    if given.ndim != 1 or given.size < 2:
        raise ValueError(f"times: expected at least two, shape (times,), got shape {given.shape}")
    result = given.astype(np.float64)
    if not np.isfinite(result).all() or not (np.diff(result) > 0.0).all():
        raise ValueError(f"times: expected finite, increasing numbers, got {result.tolist()}")
    return result
