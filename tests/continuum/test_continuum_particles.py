"""Motion in ``hr.continuum``: velocities, particles, estimates, and the derivatives of the likelihood."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import headrace as hr
from evolving import barenblatt, between, mixture, normal, ones

Grid, evolve = hr.continuum.Grid, hr.continuum.evolve
BIMODAL = mixture(normal(-1.0, variance=0.5), normal(1.0, variance=0.5))
BLOBS = mixture(normal(-1.0, 0.5, variance=0.6), normal(0.8, -0.3, variance=0.8))


def line(n=200, times=(0.0, 0.5, 1.0)):
    return evolve(BIMODAL, normal(0.0), Grid((-3.0, 3.0), n), times)


def plane(n=48, times=(0.0, 0.5, 1.0)):
    return evolve(BLOBS, normal(0.0, 0.0), Grid([(-3.5, 3.5), (-3.0, 3.0)], n), times)


def rows(evolution, count):
    """Points all over the box except its rim, where the interpolation of the test ends."""
    low, high = (evolution.grid.box * 0.95).T
    return low + (high - low) * np.random.default_rng(0).random((count, evolution.grid.dimensions))


# --- velocity -------------------------------------------------------------------------------------------------------


def test_velocity_is_that_of_equation_10():
    """At the first time, u = (mu' / mu) rho - rho' is known in closed form. Errors were 5.8e-5 of 0.3 with 200 cells,
    and a quarter of that with 400.
    """

    def error(n):
        evolution = line(n)
        z = np.linspace(-2.9, 2.9, 301)[:, None]
        d = 1e-5
        want = -z[:, 0] * BIMODAL(z) - (BIMODAL(z + d) - BIMODAL(z - d)) / (2.0 * d)
        return np.abs(evolution.velocity(0.0, z)[:, 0] - want).max()

    assert error(400) < error(200) / 3.7 < 2.5e-5


def test_velocity_in_the_plane_and_on_the_torus():
    z = rows(plane(8), 200)
    d = 1e-5
    steps = d * np.eye(2)
    gradient = np.stack([(BLOBS(z + s) - BLOBS(z - s)) / (2.0 * d) for s in steps], axis=1)
    want = -z * BLOBS(z)[:, None] - gradient
    errors = [np.abs(plane(n, [0.0, 0.01]).velocity(0.0, z) - want).max() for n in (32, 64)]
    assert errors[1] < errors[0] / 3.5
    assert errors[1] < 3e-4  # the velocity reaches 0.12; the error was 2e-4

    grid = Grid([(0.0, 2.0), (0.0, 1.0)], 64, "periodic")
    wave = lambda x: 1.0 + 0.5 * np.sin(np.pi * x[:, 0]) * np.cos(2.0 * np.pi * x[:, 1])  # noqa: E731
    z = np.random.default_rng(0).random((200, 2)) * [2.0, 1.0]
    a, b = np.pi * z[:, 0], 2.0 * np.pi * z[:, 1]
    want = -0.5 * np.pi * np.stack([np.cos(a) * np.cos(b), -2.0 * np.sin(a) * np.sin(b)], axis=1)
    assert_allclose(
        evolve(wave, ones, grid, [0.0, 0.01]).velocity(0.0, z), want, atol=1e-2
    )  # the scheme's error, (2 pi h)^2 / 24 u = 1.3e-3


def test_nothing_flows_through_walls():
    for evolution in (line(), plane()):
        for axis, (low, high) in enumerate(evolution.grid.box):
            for wall in (low, high):
                z = rows(evolution, 50)
                z[:, axis] = wall
                assert_allclose(evolution.velocity(0.3, z)[:, axis], 0.0, atol=1e-15)
                assert_allclose(evolution.carry(z)[0][..., axis], wall, atol=1e-12)


def test_velocity_along_a_wall():
    """Within half a cell of a wall the velocity is continued from the last two centres, also to second order."""
    errors = []
    for n in (24, 48):
        evolution = evolve(BLOBS, normal(0.0, 0.0), Grid([(-3.5, 3.5), (-1.0, 0.5)], n), [0.0, 0.01])
        z = np.stack(np.meshgrid(np.linspace(-2.0, 2.0, 41), [-1.0, 0.5]), axis=-1).reshape(-1, 2)
        d = np.array([[1e-5, 0.0]])
        want = -z[:, 0] * BLOBS(z) - (BLOBS(z + d) - BLOBS(z - d)) / 2e-5
        errors.append(np.abs(evolution.velocity(0.0, z)[:, 0] - want).reshape(-1, 2).max(axis=0))
    assert (errors[1] < errors[0] / 3.0).all()
    assert (errors[1] < 5e-4).all()  # the velocity reaches 0.13


# --- particles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "rho", "sizes", "limit"),
    # Relative errors of the worst row were 3.9e-4 with 100 cells, 1.1e-4 with 200; 2.3e-3 with 32 an axis, 5.9e-4 with
    # 64.
    [(line, BIMODAL, (100, 200), 2e-4), (plane, BLOBS, (32, 64), 1e-3)],
    ids=["line", "plane"],
)
def test_density_carried_by_particles_is_that_of_the_equation(make, rho, sizes, limit):
    """By eq. 8, rho_0(x) = J(x) rho_t(phi_t(x)), with an error that falls as the square of the spacing."""
    errors = []
    for n in sizes:
        evolution = make(n)
        x = rows(evolution, 300)
        positions, log_jacobians = evolution.carry(x)
        carried = [
            np.exp(log_jacobian) * between(evolution.grid, density, z)
            for density, z, log_jacobian in zip(evolution.rho, positions, log_jacobians, strict=True)
        ]
        errors.append(np.abs(np.array(carried) / rho(x) - 1.0).max(axis=1))
    assert (errors[1] < limit).all()
    assert errors[1][-1] < errors[0][-1] / 3.2


def test_density_carried_around_a_torus():
    grid = Grid([(0.0, 2.0), (0.0, 1.0)], 48, "periodic")
    rho = lambda x: 1.0 + 0.5 * np.sin(np.pi * x[:, 0]) * np.cos(2.0 * np.pi * x[:, 1])  # noqa: E731
    evolution = evolve(rho, lambda x: np.exp(0.5 * np.cos(np.pi * x[:, 0])), grid, [0.0, 0.02, 0.05])
    x = np.random.default_rng(1).random((200, 2)) * [2.0, 1.0]
    positions, log_jacobians = evolution.carry(x)
    assert ((positions >= 0.0) & (positions <= [2.0, 1.0])).all()
    moved = np.abs(positions[-1] - x)
    assert (moved > 1.0).any(), "some went around"
    whole = Grid([(-2.0, 4.0), (-1.0, 2.0)], (144, 144))
    got = np.exp(log_jacobians[-1]) * between(whole, np.tile(evolution.rho[-1], (3, 3)), positions[-1])
    assert_allclose(got, rho(x), rtol=2e-3)


def test_particles_may_pass_the_seam_repeatedly():
    """A bump at the end of the box moves like the same bump in the middle: particles pass the end by twenty cells."""
    grid, times = Grid((0.0, 2.0), 128, "periodic"), [0.0, 0.3, 1.0]
    shift = 57.0 * grid.spacing[0]
    bump = lambda x: 0.02 + np.exp(20.0 * np.cos(np.pi * (x[:, 0] - 1.0)) - 20.0)  # noqa: E731
    x = np.linspace(0.9, 1.1, 41)[:, None]
    positions, log_jacobians = evolve(bump, ones, grid, times).carry(x)
    got, got_log = evolve(lambda x: bump(x + shift), ones, grid, times).carry(x - shift)
    assert (positions[-1] - shift < -20.0 * grid.spacing[0]).any()
    assert_allclose(got, grid.wrap(positions - shift), atol=1e-6)  # some hundred steps of 1e-8
    assert_allclose(got_log, log_jacobians, atol=1e-5)


def test_jacobians_are_those_of_the_map():
    d = 1e-4
    for evolution in (line(), plane()):
        x = rows(evolution, 40)
        columns = []
        for step in d * np.eye(evolution.grid.dimensions):
            up, down = evolution.carry(x + step)[0][-1], evolution.carry(x - step)[0][-1]
            columns.append((up - down) / (2.0 * d))
        want = np.linalg.slogdet(np.stack(columns, axis=-1))[1]
        # Particles start 2e-4 apart, and the integrator's errors of 1e-8 of the box, which are nearly equal, cancel in
        # differences: the largest error was 1.4e-6.
        assert_allclose(evolution.carry(x)[1][-1], want, atol=1e-5)


def test_particles_of_an_exact_solution_keep_their_quantile():
    """Barenblatt's solution spreads as t^(1/3): phi_t(x) = x t^(1/3) and J = t^(1/3)."""
    evolution = evolve(lambda x: barenblatt(x, 1.0), ones, Grid((-6.0, 6.0), 800), [1.0, 2.0, 4.0])
    x = np.linspace(-2.0, 2.0, 41)[:, None]  # the front is at 2.45: splines of a velocity that jumps oscillate near it
    positions, log_jacobians = evolution.carry(x)
    stretch = evolution.times ** (1.0 / 3.0)
    assert_allclose(positions, x * stretch[:, None, None], atol=2e-4)  # the error was 6e-5
    assert_allclose(log_jacobians, np.broadcast_to(np.log(stretch)[:, None], (3, 41)), atol=3e-4)


# --- estimates ------------------------------------------------------------------------------------------------------


def test_the_estimate_begins_as_mu_and_tends_to_rho():
    """By eq. 4 and 5, the estimate goes from mu to rho. On a box of three deviations the slowest mode decays at 0.107:
    by t = 60 it is e^-6.4."""
    evolution = line(100, [0.0, 1.0, 10.0, 60.0])
    x = np.linspace(-2.9, 2.9, 59)[:, None]
    estimate = evolution.estimate(x)
    mass = evolution.rho[0].sum() * evolution.grid.volume
    inside = normal(0.0)(evolution.grid.points).sum() * evolution.grid.volume
    assert_allclose(estimate[0], normal(0.0)(x) * mass / inside, rtol=1e-12)
    errors = np.abs(estimate - BIMODAL(x)).max(axis=1)
    assert (np.diff(errors) < 0.0).all()
    assert errors[-1] < 1e-3 * errors[0]


@pytest.mark.parametrize("make", [line, plane])
def test_the_gap_is_the_missing_likelihood_of_the_estimate(make):
    """The mean of log rho / rho~_t is KL(rho_t || mu), and falls at the rate of the integral of |u|^2 (eq. 11)."""
    d = 0.01
    evolution = make(60, [0.0, 0.5 - d, 0.5, 0.5 + d])
    x, volume = evolution.grid.points, evolution.grid.volume
    rho = evolution.rho[0].ravel()
    lacks = (rho * (np.log(rho) - np.log(evolution.estimate(x)))).sum(axis=1) * volume / (rho.sum() * volume)
    h = evolution.grid.spacing.max()
    assert_allclose(lacks, evolution.gap, rtol=0.2 * h**2)
    assert_allclose((lacks[3] - lacks[1]) / (2.0 * d), evolution.gap_rate[2], rtol=0.2 * h**2)


# --- functional derivatives -----------------------------------------------------------------------------------------


def test_the_functional_derivative_at_a_map_that_is_not_the_identity():
    """By eq. 7, dL/dphi(x) = J(x) u(phi(x)), for the sum L over x of rho (log J + log mu(phi)).

    The map phi is that of the flow at t = 0.5, moved by s w(x), so that J becomes J + s w'.
    """
    evolution = line(400, [0.0, 0.5])
    x, h = evolution.grid.points, evolution.grid.spacing[0]
    positions, log_jacobians = evolution.carry(x)
    phi, jacobian = positions[-1, :, 0], np.exp(log_jacobians[-1])
    for centre, width in ((0.3, 0.6), (1.0, 0.4), (-0.7, 0.3)):
        w = np.exp(-((x[:, 0] - centre) ** 2) / (2.0 * width**2))
        slope = -(x[:, 0] - centre) / width**2 * w

        def likelihood(s, w=w, slope=slope):
            moved = phi + s * w
            return (BIMODAL(x) * (np.log(jacobian + s * slope) - moved**2 / 2.0)).sum() * h

        step = 1e-4
        directional = (likelihood(step) - likelihood(-step)) / (2.0 * step)
        speed = evolution.velocity(0.5, phi[:, None])[:, 0]
        nonlocal_derivative, without_jacobian = (w * jacobian * speed).sum() * h, (w * speed).sum() * h
        assert_allclose(directional, nonlocal_derivative, atol=3e-6)  # the error of the discretisation was 1e-6
        assert abs(directional - without_jacobian) > 1e-3  # without the factor J the derivative is wrong


def test_the_local_derivative_is_the_square_of_the_velocity():
    """By eq. 11, the derivative along v(phi_t(x)) is the integral of v u; along u, that of |u|^2, which is not
    negative.

    The integrands in x differ by J: the integral over z of u v is that over x of J u(phi) v(phi).
    """
    evolution = plane(64, [0.0, 2.0])
    x, volume = evolution.grid.points, evolution.grid.volume
    positions, log_jacobians = evolution.carry(x)
    z, rho = positions[-1], BLOBS(x)

    def likelihood(s, v):
        """The likelihood of id + s v after the flow, for a field v, whose derivatives are central differences."""
        d = 1e-4
        inside = np.clip(z, *(evolution.grid.box.T * (1.0 - 1e-3)))
        gradient = np.stack([(v(inside + e) - v(inside - e)) / (2.0 * d) for e in d * np.eye(2)], axis=2)
        log_jacobian = log_jacobians[-1] + np.linalg.slogdet(np.eye(2) + s * gradient)[1]
        return (rho * (log_jacobian - ((z + s * v(z)) ** 2).sum(axis=1) / 2.0)).sum() * volume

    def velocity(points):
        return evolution.velocity(2.0, points)

    def swirl(points):
        return np.stack([points[:, 1], 0.5 - points[:, 0]], axis=1) * np.exp(-(points**2).sum(axis=1, keepdims=True))

    step = 1e-3
    for v in (velocity, swirl):
        directional = (likelihood(step, v) - likelihood(-step, v)) / (2.0 * step)
        over_z = (velocity(x) * v(x)).sum() * volume
        over_x = (np.exp(log_jacobians[-1])[:, None] * velocity(z) * v(z)).sum() * volume
        without_jacobian = (velocity(z) * v(z)).sum() * volume
        assert_allclose([directional, over_x], over_z, rtol=2e-3)  # the grid's error was 4e-4
        assert abs(without_jacobian / over_z - 1.0) > 0.02  # without the factor J the derivative is wrong
        if v is velocity:
            assert directional > 0.0
            assert_allclose(over_z, -evolution.gap_rate[-1] * rho.sum() * volume, rtol=2e-3)


# --- rows -----------------------------------------------------------------------------------------------------------


def test_rows_that_are_not_finite_give_nan_and_no_rows_give_none():
    for evolution in (line(50), plane(16)):
        x = rows(evolution, 5)
        want_positions, want_log = evolution.carry(x)
        for bad in (np.nan, np.inf):
            mixed = np.insert(x, 2, bad, axis=0)
            positions, log_jacobians = evolution.carry(mixed)
            assert_array_equal(np.delete(positions, 2, axis=1), want_positions)
            assert_array_equal(np.delete(log_jacobians, 2, axis=1), want_log)
            estimate, speed = evolution.estimate(mixed), evolution.velocity(0.2, mixed)
            for result in (positions[:, 2], log_jacobians[:, 2], estimate[:, 2], speed[2]):
                assert np.isnan(result).all()
        d = evolution.grid.dimensions
        none = np.empty((0, d))
        assert evolution.carry(none)[0].shape == (3, 0, d)
        assert evolution.carry(none)[1].shape == evolution.estimate(none).shape == (3, 0)
        assert evolution.velocity(0.1, none).shape == (0, d)


def test_single_precision_rows_are_not_converted():
    evolution = line(50)
    x = np.linspace(-2.0, 2.0, 7, dtype=np.float32)[:, None]
    assert_array_equal(evolution.estimate(x), evolution.estimate(x.astype(np.float64)))
    assert evolution.estimate(x).dtype == np.float64
