"""Densities whose evolutions under the equation of `hr.continuum` are known, shared by its tests."""

import numpy as np
from scipy.interpolate import RegularGridInterpolator

import headrace as hr


def normal(*mean, variance=1.0):
    """A normal density as a function of points, with one mean for each dimension and equal variances."""
    norm = (2.0 * np.pi * variance) ** (-0.5 * len(mean))
    return lambda points: norm * np.exp(-((points - np.array(mean)) ** 2).sum(axis=1) / (2.0 * variance))


def mixture(*parts):
    """A mixture of densities with equal weights, as a function of points."""
    return lambda points: np.mean([part(points) for part in parts], axis=0)


def barenblatt(points, t):
    """The exact solution for constant mu that starts from a point mass: a paraboloid with a sharp front."""
    d = points.shape[1]
    beta = 1.0 / (d + 2)
    square = (points**2).sum(axis=1)
    return t ** (-d * beta) * np.maximum(1.0 - square * t ** (-2.0 * beta) / (2.0 * (d + 2)), 0.0)


def weighted_barenblatt(points, t):
    """The exact solution for mu = x on x > 0, from a point mass at 0."""
    x = points[:, 0]
    return x * t ** (-2.0 / 3.0) * np.maximum(1.0 - x * t ** (-1.0 / 3.0) / 3.0, 0.0)


def ones(points):
    return np.ones(len(points))


def l1(evolution, want):
    """The L1 distance of an evolution's last density from a function of points."""
    grid = evolution.grid
    return float(np.abs(evolution.rho[-1].ravel() - want(grid.points)).sum()) * grid.volume


def masses(evolution):
    return evolution.rho.reshape(len(evolution.times), -1).sum(axis=1) * evolution.grid.volume


def between(grid, values, points):
    """Values between the points of a grid, by SciPy's cubic spline through the logarithms of positive values."""
    return np.exp(RegularGridInterpolator(grid.axes, np.log(values), method="cubic")(points))


def three(n=48):
    """A mixture of three normal densities, the standard normal density as its limit, and a grid for both."""
    grid = hr.continuum.Grid([(-6.0, 6.0), (-6.0, 6.0)], n)
    parts = [normal(1.5 * np.cos(a), 1.5 * np.sin(a), variance=0.6) for a in (0.2, 2.3, 4.4)]
    return mixture(*parts), normal(0.0, 0.0), grid
