"""Densities with known evolutions under the equation of `hr.continuum`, shared by its tests."""

import numpy as np
from scipy.interpolate import RegularGridInterpolator

import headrace as hr


def normal(*mean, variance=1.0):
    """A function of points: a normal density with equal variances, in as many dimensions as there are means."""
    norm = (2.0 * np.pi * variance) ** (-0.5 * len(mean))
    return lambda points: norm * np.exp(-((points - np.array(mean)) ** 2).sum(axis=1) / (2.0 * variance))


def mixture(*parts):
    """The mean of densities."""
    return lambda points: np.mean([part(points) for part in parts], axis=0)


def barenblatt(points, t):
    """The exact solution for constant mu from one point of mass: a paraboloid with a sharp front."""
    d = points.shape[1]
    beta = 1.0 / (d + 2)
    square = (points**2).sum(axis=1)
    return t ** (-d * beta) * np.maximum(1.0 - square * t ** (-2.0 * beta) / (2.0 * (d + 2)), 0.0)


def weighted_barenblatt(points, t):
    """The exact solution for mu = x on x > 0."""
    x = points[:, 0]
    return x * t ** (-2.0 / 3.0) * np.maximum(1.0 - x * t ** (-1.0 / 3.0) / 3.0, 0.0)


def ones(points):
    return np.ones(len(points))


def l1(evolution, want):
    """Distance of the last density to a function of points."""
    grid = evolution.grid
    return float(np.abs(evolution.rho[-1].ravel() - want(grid.points)).sum()) * grid.volume


def masses(evolution):
    return evolution.rho.reshape(len(evolution.times), -1).sum(axis=1) * evolution.grid.volume


def between(grid, values, points):
    """Positive values on a grid, between its points: a cubic spline through their logarithms, SciPy's own."""
    return np.exp(RegularGridInterpolator(grid.axes, np.log(values), method="cubic")(points))


def three(n=48):
    """Three normal densities that move to the standard normal density, both at home in a box of 6."""
    grid = hr.continuum.Grid([(-6.0, 6.0), (-6.0, 6.0)], n)
    parts = [normal(1.5 * np.cos(a), 1.5 * np.sin(a), variance=0.6) for a in (0.2, 2.3, 4.4)]
    return mixture(*parts), normal(0.0, 0.0), grid
