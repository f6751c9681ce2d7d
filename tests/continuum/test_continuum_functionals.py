"""The likelihood L of eq. 6 and its derivatives, eq. 7 and 11, against differences of L."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import headrace as hr
from evolving import barenblatt, mixture, normal, ones

Grid, evolve = hr.continuum.Grid, hr.continuum.evolve
BIMODAL = mixture(normal(-1.0, variance=0.5), normal(1.0, variance=0.5))
BLOBS = mixture(normal(-1.0, 0.5, variance=0.6), normal(0.8, -0.3, variance=0.8))


def line(n=200, times=(0.0, 0.5, 1.0), mass=1.0):
    return evolve(lambda x: mass * BIMODAL(x), normal(0.0), Grid((-3.0, 3.0), n), times)


def plane(n=48, times=(0.0, 0.5, 1.0)):
    return evolve(BLOBS, normal(0.0, 0.0), Grid([(-3.5, 3.5), (-3.0, 3.0)], n), times)


def entropy(evolution):
    """The entropy, minus the integral of rho log rho."""
    rho = evolution.rho[0]
    return -(rho * np.log(rho)).sum() * evolution.grid.volume


def mass(evolution):
    return evolution.rho[0].sum() * evolution.grid.volume


@pytest.mark.parametrize("make", [line, plane])
def test_the_likelihood_is_the_integral_of_rho_times_the_log_of_the_estimate(make):
    evolution = make()
    x, rho = evolution.grid.points, evolution.rho[0].ravel()
    want = np.log(evolution.estimate(x)) @ rho * evolution.grid.volume
    assert_allclose(evolution.log_likelihood(), want, rtol=1e-12)
    assert (np.diff(evolution.log_likelihood()) > 0.0).all()


@pytest.mark.parametrize(
    ("evolution", "limit"),
    # The errors in space of particles and grid were 5.4e-6, 1.0e-5 and 6.4e-5.
    [(line, 2e-5), (lambda: line(mass=2.5), 4e-5), (plane, 2e-4)],
    ids=["line", "another mass", "plane"],
)
def test_the_missing_likelihood_is_the_gap(evolution, limit):
    """A map changes no relative entropy: L is the integral of rho log rho, less the gap times the mass."""
    made = evolution()
    assert_allclose(made.log_likelihood(), -entropy(made) - made.gap * mass(made), atol=limit)


def test_where_rho_is_zero_nothing_is_added():
    made = evolve(lambda x: barenblatt(x, 1.0), ones, Grid((-6.0, 6.0), 100), [1.0, 1.5])
    assert np.isfinite(made.log_likelihood()).all()
    uniform = mass(made) / 12.0
    assert_allclose(made.log_likelihood()[0], mass(made) * np.log(uniform), rtol=1e-12)  # rho~_0 is mu


@pytest.mark.parametrize(("make", "limit"), [(line, 5e-4), (plane, 5e-3)])
def test_its_rate_is_its_derivative_in_time(make, limit):
    """By eq. 11, dL/dt is the integral of |u|^2. Relative errors were 8e-5 on the line, and 2.6e-3 in the plane."""
    d = 5e-3
    evolution = make(times=(0.0, 0.5 - d, 0.5, 0.5 + d))
    likelihood = evolution.log_likelihood()
    assert_allclose(evolution.log_likelihood_rate[2], (likelihood[3] - likelihood[1]) / (2.0 * d), rtol=limit)
    x = evolution.grid.points
    square = (evolution.velocity(0.5, x) ** 2).sum() * evolution.grid.volume
    # The sum is over velocities at centres of cells instead of faces; the error was 8e-6.
    assert_allclose(evolution.log_likelihood_rate[2], square, rtol=1e-4)


def test_the_derivative_by_the_map():
    """Eq. 7 is compared with differences of L in phi + s w, whose Jacobian is J + s w', at each of the times."""
    evolution = line(400)
    x, h = evolution.grid.points, evolution.grid.spacing[0]
    positions, log_jacobians = evolution.carry(x)
    derivative = evolution.log_likelihood_derivative(x)
    assert derivative.shape == (3, 400, 1)
    for centre, width in ((0.3, 0.6), (1.0, 0.4), (-0.7, 0.3)):
        w = np.exp(-((x[:, 0] - centre) ** 2) / (2.0 * width**2))
        slope = -(x[:, 0] - centre) / width**2 * w
        for t in range(3):

            def likelihood(s, t=t, w=w, slope=slope):
                moved, jacobian = positions[t, :, 0] + s * w, np.exp(log_jacobians[t]) + s * slope
                return (BIMODAL(x) * (np.log(jacobian) - moved**2 / 2.0)).sum() * h

            directional = (likelihood(1e-4) - likelihood(-1e-4)) / 2e-4
            assert_allclose(
                directional, (w * derivative[t, :, 0]).sum() * h, atol=3e-5
            )  # the error of the discretisation was 1.1e-5


def test_the_derivative_by_a_motion_of_rho():
    """If rho_t is moved by s v, the gap falls by s times the integral of v u, divided by the mass."""
    evolution = line(400, (0.0, 0.3))
    grid = evolution.grid
    z, h = grid.points[:, 0], grid.spacing[0]
    for centre in (-0.8, 0.4):
        v = np.exp(-((z - centre) ** 2))
        flux = np.gradient(evolution.rho[-1] * v, h)  # moving rho by s v changes it by -s d(rho v)/dz

        def gap(s, flux=flux):
            return evolve(evolution.rho[-1] - s * flux, evolution.mu, grid, [0.0, 1e-3]).gap[0]

        fall = -(gap(1e-4) - gap(-1e-4)) / 2e-4 * mass(evolution)
        want = (v * evolution.velocity(0.3, grid.points)[:, 0]).sum() * h
        assert_allclose(fall, want, rtol=1e-3)


def test_along_a_direction():
    rho = mixture(normal(-0.8, 0.4, variance=0.5), normal(0.8, -0.4, variance=0.5))
    grid = Grid([(-5.0, 5.0), (-5.0, 5.0)], 48)
    evolution = evolve(rho, normal(0.0, 0.0), grid, [0.0, 0.5, 1.0], directions=[0.0, 0.7])
    assert_allclose(
        evolution.log_likelihood(), -entropy(evolution) - evolution.gap * mass(evolution), atol=1e-4
    )  # the error was 3.5e-5


def test_rows_of_the_derivative_that_are_not_finite():
    evolution = line(50)
    derivative = evolution.log_likelihood_derivative(np.array([[0.0], [np.nan]]))
    assert np.isfinite(derivative[:, 0]).all()
    assert np.isnan(derivative[:, 1]).all()
    assert evolution.log_likelihood_derivative(np.empty((0, 1))).shape == (3, 0, 1)
