"""The function ``hr.continuum.evolve``: exact solutions, orders of convergence, and conserved sums of the scheme."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import eigh_tridiagonal

import headrace as hr
from evolving import barenblatt, l1, masses, mixture, normal, ones, three, weighted_barenblatt
from headrace.continuum.grid import Interpolant

Grid, evolve = hr.continuum.Grid, hr.continuum.evolve
# A relative limit for sums over some 10^4 cells, added up over 10^3 steps; the largest error was 8e-15.
ROUNDING = 1e-13
BIMODAL = mixture(normal(-1.0, variance=0.5), normal(1.0, variance=0.5))


# --- exact solutions ------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    ("box", "mu", "exact"),
    [((-6.0, 6.0), ones, barenblatt), ((0.0, 12.0), lambda x: x[:, 0], weighted_barenblatt)],
    ids=["constant mu", "mu = x"],
)
def test_exact_solutions_with_a_front_on_a_line(box, mu, exact):
    """Measured L1 errors, with 200 and 800 cells, are 3.8e-4, 3.3e-5 and 4.5e-4, 3.2e-5; masses are 3.3 and 4.5.

    The errors depend on the position of the front in its cell, so that single doublings gain factors from 2 to 6.
    """
    errors = []
    for n in (200, 800):
        evolution = evolve(lambda x: exact(x, 1.0), mu, Grid(box, n), [1.0, 4.0])
        assert (evolution.rho >= 0.0).all()
        assert_allclose(masses(evolution), masses(evolution)[0], rtol=ROUNDING)
        errors.append(l1(evolution, lambda x: exact(x, 4.0)))
    assert errors[1] < 5e-5
    assert errors[1] < errors[0] / 8.0  # order 1.5


def test_the_exact_solution_with_a_front_in_the_plane():
    """Measured L1 errors, with 32 and 64 cells an axis, are 7.7e-2 and 2.2e-2, of a mass of 4 pi."""
    errors = []
    for n in (32, 64):
        grid = Grid([(-5.0, 5.0), (-5.0, 5.0)], n)
        evolution = evolve(lambda x: barenblatt(x, 1.0), ones, grid, [1.0, 4.0])
        assert_allclose(masses(evolution), masses(evolution)[0], rtol=ROUNDING)
        assert_allclose(masses(evolution)[0], 4.0 * np.pi, rtol=2e-3)
        errors.append(l1(evolution, lambda x: barenblatt(x, 4.0)))
    assert errors[1] < 0.03
    assert errors[1] < errors[0] / 2.8  # order 1.5


@pytest.mark.parametrize(("box", "cells", "rate"), [((0.0, 2.0), 128, 19.739), ([(0.0, 2.0), (0.0, 1.0)], 32, 39.478)])
def test_periodic_waves_decay_at_their_rate(box, cells, rate):
    """With mu = 1 / V a wave k decays at the rate |k|^2 / V; on a grid |k|^2 becomes the sum of (2 - 2 cos kh) / h^2,
    the symbol.

    KL is quadratic in the wave, so that KL decays at twice the rate. The wave is 1e-3 high, of which the integrator's
    error of 1e-8 a step is 1e-5; the run takes some twenty steps, and the largest error was 3e-4.
    """
    grid = Grid(box, cells, boundary="periodic")
    k, h, volume, times = 2.0 * np.pi, grid.spacing, 2.0, [0.0, 0.02, 0.04]
    evolution = evolve(lambda x: (1.0 + 1e-3 * np.cos(k * x).prod(axis=1)) / volume, ones, grid, times)
    seen = -np.diff(np.log(evolution.kl)) / np.diff(times) / 2.0
    symbol = ((2.0 - 2.0 * np.cos(k * h)) / h**2).sum() / volume
    assert_allclose(grid.dimensions * k**2 / volume, rate, rtol=3e-5)
    assert_allclose(seen, symbol, rtol=6e-4)
    assert_allclose(seen, rate, rtol=(k * h).max() ** 2 / 12.0 + 6e-4)


@pytest.mark.parametrize(("reach", "known"), [(2, 0.3716), (3, 0.1072), (4, 6.843e-3)])
def test_small_departures_from_a_normal_target_decay_at_the_eigenvalue(reach, known):
    """The rates are eigenvalues of -(mu^2 g')' = rate mu g with walls, for mu normal on [-reach, reach], known to four
    digits."""
    n = 400
    grid = Grid((-reach, reach), n)
    h, mu = grid.spacing[0], normal(0.0)(grid.points)
    mu /= mu.sum() * h
    face = mu[1:] * mu[:-1] / h**2
    diagonal = np.append(face, 0.0) + np.insert(face, 0, 0.0)
    value, vector = eigh_tridiagonal(diagonal / mu, -face / np.sqrt(mu[1:] * mu[:-1]), select="i", select_range=(1, 1))
    # The grid has an error of 1e-4 to 4e-4, and the four known digits have an error of 1e-4 to 5e-4.
    assert_allclose(value[0], known, rtol=1e-3)
    g = vector[:, 0] / np.sqrt(mu)
    times = np.array([0.0, 0.25, 0.5]) / value[0]
    evolution = evolve(mu * (1.0 + 1e-3 * g / np.abs(g).max()), mu, grid, times)
    # Terms with the square of g are up to 1e-3 of the rate; at the first time g has not changed yet.
    assert_allclose(-np.diff(np.log(evolution.kl)) / np.diff(times) / 2.0, value[0], rtol=2e-3)
    assert_allclose(-evolution.kl_rate[0] / evolution.kl[0] / 2.0, value[0], rtol=2e-3)


# --- order ----------------------------------------------------------------------------------------------------------


def test_smooth_solutions_converge_with_the_square_of_the_spacing():
    """Errors against a grid of 800 cells, of rho in L1, of both divergences and of a rate, fall by a factor of 4 if
    the number of cells is doubled.
    """
    runs = {n: evolve(normal(0.5, variance=0.8), normal(0.0), Grid((-4.0, 4.0), n), [0.0, 2.0]) for n in (50, 100, 800)}
    fine = runs.pop(800)
    of_rho, of_kl, of_gap, of_rate = [], [], [], []
    for n, run in runs.items():
        averages = fine.rho[-1].reshape(n, -1).mean(axis=1)
        of_rho.append(np.abs(run.rho[-1] - averages).sum() * run.grid.volume)
        of_kl.append(abs(run.kl[-1] - fine.kl[-1]))
        of_gap.append(abs(run.gap[-1] - fine.gap[-1]))
        of_rate.append(abs(run.kl_rate[-1] - fine.kl_rate[-1]))
    for coarse, half in (of_rho, of_kl, of_gap, of_rate):
        assert 3.6 < coarse / half < 4.4
    assert of_rho[0] < 5e-3


# --- kept weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rho", "mu", "grid"),
    [
        (BIMODAL, normal(0.0), Grid((-4.0, 4.0), 100)),
        (normal(0.0, variance=0.02), normal(0.0), Grid((-4.0, 4.0), 200)),  # f begins at 1e-170
        (ones, mixture(normal(-1.0, variance=0.1), normal(1.0, variance=0.1)), Grid((-3.0, 3.0), 100)),
        (lambda x: 1.0 + 0.9 * np.sin(np.pi * x[:, 0]), ones, Grid((0.0, 2.0), 64, "periodic")),
        (*three()[:2], Grid([(-6.0, 6.0), (-5.0, 5.0)], (40, 32))),
        (normal(0.5, 0.5, variance=0.1), ones, Grid([(0.0, 1.0), (0.0, 1.0)], 24, "periodic")),
    ],
    ids=["bimodal", "narrow", "to two peaks", "periodic", "plane", "torus"],
)
def test_mass_sign_and_entropies(rho, mu, grid):
    evolution = evolve(rho, mu, grid, np.linspace(0.0, 2.0, 21))
    f = (evolution.rho / evolution.mu).reshape(21, -1)
    assert_allclose(masses(evolution), masses(evolution)[0], rtol=ROUNDING)
    assert (evolution.rho > 0.0).all()
    # The least and the largest f approach each other, up to the integrator's 1e-8 a step, relative to 1e-4 or to f.
    slack = 1e-6
    assert (np.diff(f.min(axis=1)) > -slack * np.maximum(f.min(axis=1)[1:], 1e-4)).all()
    assert (np.diff(f.max(axis=1)) < slack * f.max(axis=1)[1:]).all()
    # Near equilibrium KL depends only on the square of an error of 1e-8 in f.
    assert (np.diff(evolution.kl) < 1e-14).all()
    assert (np.diff(evolution.gap) < 1e-14).all()
    assert (np.diff((evolution.mu.ravel() * (f - 1.0) ** 2).sum(axis=1)) < 1e-14 * evolution.mu.sum()).all()
    assert (evolution.kl_rate < 1e-14).all()
    assert (evolution.gap_rate < 1e-14).all()
    assert evolution.kl[-1] < 0.9 * evolution.kl[0]


@pytest.mark.parametrize("scale", [1.0, 4.0, 2.0**-40])
def test_equilibrium_is_kept_to_the_last_bit(scale):
    for grid in (Grid((-8.0, 8.0), 100), Grid([(-3.0, 3.0), (0.0, 2.0)], (20, 15)), Grid((0.0, 1.0), 30, "periodic")):
        mu = np.exp(-(grid.points**2).sum(axis=1) / 2.0).reshape(grid.cells)
        evolution = evolve(scale * mu, mu, grid, [0.0, 1.0, 100.0])
        assert_array_equal(evolution.rho, np.broadcast_to(evolution.rho[0], evolution.rho.shape))
        assert_allclose(evolution.rho[0], scale * mu, rtol=1e-15)
        assert_allclose(evolution.kl, 0.0, atol=1e-28)  # KL is of the order of a squared rounding error
        assert_array_equal(evolution.kl_rate, 0.0)
        assert_array_equal(evolution.velocity(0.5, grid.points), 0.0)


def test_the_scale_of_mu_does_not_matter():
    grid = Grid((-4.0, 4.0), 60)
    want = evolve(BIMODAL, normal(0.0), grid, [0.0, 0.5])
    for scale in (1e-200, 1e-3, 7.0, 1e200):
        got = evolve(BIMODAL, lambda x, scale=scale: scale * normal(0.0)(x), grid, [0.0, 0.5])
        assert_allclose(got.rho, want.rho, rtol=1e-9)  # other roundings lead to other steps in time
        assert_allclose(got.kl, want.kl, rtol=1e-9)
        x = np.array([[0.3], [-2.0]])
        assert_allclose(got.estimate(x), want.estimate(x), rtol=1e-7)
        assert_allclose(masses(got), masses(want), rtol=ROUNDING)


def test_results_do_not_depend_on_unset_memory(monkeypatch):
    """SciPy's integrator subtracts from memory that it has not set; in this test a warning is an error."""
    grid, times = Grid((-4.0, 4.0), 60), [0.0, 0.5]
    want = evolve(BIMODAL, normal(0.0), grid, times)
    empty, given = np.empty, []

    def poisoned(shape, dtype=float, *args, **kwargs):
        array = empty(shape, dtype, *args, **kwargs)
        if array.dtype == np.float64:
            array.view(np.int64)[...] = 0x7FF0000000000001  # a signalling NaN
            given.append(array)
        return array

    monkeypatch.setattr(np, "empty", poisoned)
    got = evolve(BIMODAL, normal(0.0), grid, times)
    assert given
    assert_array_equal(got.rho, want.rho)
    assert_array_equal(got.kl, want.kl)


def test_twice_the_mass_moves_twice_as_fast():
    """The mass matters because drho/dt is quadratic in rho."""
    grid = Grid((-4.0, 4.0), 60)
    once = evolve(BIMODAL, normal(0.0), grid, [0.0, 0.5])
    twice = evolve(lambda x: 2.0 * BIMODAL(x), normal(0.0), grid, [3.0, 3.25])
    assert_allclose(twice.rho, 2.0 * once.rho, rtol=1e-6)
    assert_allclose(twice.kl, once.kl, rtol=1e-6)
    assert_allclose(twice.kl_rate, 2.0 * once.kl_rate, rtol=1e-5)


def test_rates_are_the_derivatives_of_both_divergences():
    """The rate of KL (eq. 14) is the derivative of the scheme's KL; the rate of the gap is its derivative up to the
    spacing squared."""
    for mu, grid in ((normal(0.0), Grid((-4.0, 4.0), 100)), (normal(0.0, 0.0), Grid([(-4.0, 4.0), (-4.0, 4.0)], 40))):
        rho = normal(*(0.5 for _ in range(grid.dimensions)), variance=0.8)
        d = 1e-3
        evolution = evolve(rho, mu, grid, [0.0, 0.5 - d, 0.5, 0.5 + d])
        kl = (evolution.kl[3] - evolution.kl[1]) / (2.0 * d)
        gap = (evolution.gap[3] - evolution.gap[1]) / (2.0 * d)
        assert_allclose(evolution.kl_rate[2], kl, rtol=1e-5)  # the integrator's error, 1e-8 / 1e-3
        assert_allclose(evolution.gap_rate[2], gap, rtol=0.2 * grid.spacing[0] ** 2)


def test_kl_is_infinite_where_rho_is_zero():
    evolution = evolve(lambda x: barenblatt(x, 1.0), ones, Grid((-6.0, 6.0), 60), [1.0, 1.5])
    assert np.isposinf(evolution.kl).all()
    assert np.isneginf(evolution.kl_rate[0])
    assert np.isfinite(evolution.gap).all()
    assert np.isfinite(evolution.gap_rate).all()


# --- forms of densities ---------------------------------------------------------------------------------------------


class Logs:
    """A density with only the method `log_prob`."""

    def __init__(self, variance):
        self.variance = variance

    def log_prob(self, points):
        return -0.5 * ((points**2) / self.variance + np.log(2.0 * np.pi * self.variance)).sum(axis=1)


def test_arrays_functions_and_logarithms_are_the_same_densities():
    grid = Grid([(-3.0, 3.0), (-3.0, 3.0)], (30, 20))
    mu, rho = normal(0.0, 0.0), normal(0.0, 0.0, variance=0.5)
    want = evolve(rho, mu, grid, [0.0, 0.5])
    tables = [d(grid.points).reshape(grid.cells) for d in (rho, mu)]
    x = np.array([[0.1, 0.2], [-2.9, 2.95], [1.0, -2.0]])
    for given in (tables, [tables[0], mu], [rho, tables[1]]):
        got = evolve(*given, grid, [0.0, 0.5])
        assert_array_equal(got.rho, want.rho)
        # A table of logarithms is a spline between its points, and a parabola is a spline.
        assert_allclose(got.estimate(x), want.estimate(x), rtol=1e-9)
    got = evolve(rho, Logs(1.0), grid, [0.0, 0.5])
    assert_allclose(got.rho, want.rho, rtol=1e-7)
    assert_allclose(got.estimate(x), want.estimate(x), rtol=1e-6)
    assert_allclose(evolve(Logs(0.5), mu, grid, [0.0, 0.5]).kl, want.kl, rtol=1e-7)


def test_densities_by_logarithms_may_underflow():
    """At 50 standard deviations the target is e^-1250."""
    evolution = evolve(Logs(0.5), Logs(1.0), Grid((-50.0, 50.0), 1000), [0.0, 1.0, 2.0])
    inner = evolve(Logs(0.5), Logs(1.0), Grid((-8.0, 8.0), 160), [0.0, 1.0, 2.0])
    assert_allclose(masses(evolution), masses(evolution)[0], rtol=ROUNDING)
    assert_allclose(evolution.rho[:, 420:580], inner.rho, rtol=1e-6, atol=1e-12)
    assert (np.diff(evolution.gap) < 0.0).all()
    assert np.isfinite(evolution.estimate(np.array([[-49.0], [0.0]]))).all()


def test_a_large_scale_makes_small_values_no_smaller():
    """The value e^(690 - 800) is a float, though its share of the mass underflows."""
    grid = Grid((-40.0, 40.0), 800)
    got = evolve(normal(0.0, variance=0.5), lambda x: np.exp(690.0 - x[:, 0] ** 2 / 2.0), grid, [0.0, 1.0])
    want = evolve(Logs(0.5), Logs(1.0), grid, [0.0, 1.0])
    assert_allclose(got.rho, want.rho, rtol=1e-6, atol=1e-12)
    assert np.isfinite(got.gap).all()


def test_splines_go_on_along_their_tangents():
    x, y = np.linspace(0.0, 1.0, 9), np.linspace(-1.0, 1.0, 11)
    line, plane = Interpolant((x,), x**3), Interpolant((x, y), x[:, None] ** 2 * y**3)
    assert_allclose(line(np.array([[0.3], [1.5], [-2.0]])), [0.027, 1.0 + 3.0 * 0.5, 0.0], atol=1e-14)
    points = np.array([[0.5, 0.5], [1.5, 0.5], [0.5, -2.0], [2.0, 2.0]])
    assert_allclose(plane(points), [0.03125, 0.25, -0.25 - 0.75, 1.0 + 2.0 + 3.0], atol=1e-13)
    assert_allclose(plane.derivative(points, 0), [0.125, 0.25, -1.0, 2.0], atol=1e-13)


def test_a_flow_is_a_density():
    flow = hr.MAF(features=2, transforms=1, hidden=(8,), seed=0)
    grid = Grid([(-4.0, 4.0), (-4.0, 4.0)], 20)
    evolution = evolve(normal(0.5, 0.5), flow, grid, [0.0, 0.2])
    assert evolution.kl[1] < evolution.kl[0]
    assert evolution.rho.dtype == evolution.estimate(np.zeros((1, 2), np.float32)).dtype == np.float64


# --- the module -----------------------------------------------------------------------------------------------------


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_headrace_imports_no_scipy():
    code = "import sys, headrace; sys.exit(any(name.startswith('scipy') for name in sys.modules))"
    assert run(code).returncode == 0


def test_without_scipy_the_error_names_the_package_to_install():
    code = "import sys; sys.modules['scipy'] = None; import headrace; headrace.continuum"
    result = run(code)
    assert result.returncode == 1
    assert 'pip install ".[continuum]"' in result.stderr.splitlines()[-1]
    assert "no attribute 'nothing'" in run("import headrace; headrace.nothing").stderr
