"""Arguments of ``hr.continuum``: descriptions of grids, densities and times, and refusals."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate

import headrace as hr
from evolving import normal, ones

Grid, evolve = hr.continuum.Grid, hr.continuum.evolve
LINE = Grid((-3.0, 3.0), 12)
PLANE = Grid([(-6.0, 6.0), (-6.0, 6.0)], (24, 24))
RHO, MU, TIMES = normal(0.5), normal(0.0), [0.0, 0.1, 0.2]
SMALL = evolve(RHO, MU, LINE, TIMES)


def message(text):
    return "^" + re.escape(text)


# --- grids ----------------------------------------------------------------------------------------------------------


def test_a_grid_of_cells():
    grid = Grid([(0, 2), (-1, 1)], (4, 8))
    assert grid.dimensions == 2
    assert grid.cells == (4, 8)
    assert_array_equal(grid.spacing, [0.5, 0.25])
    assert_array_equal(grid.axes[0], [0.25, 0.75, 1.25, 1.75])
    assert_array_equal(grid.edges[0], [0.0, 0.5, 1.0, 1.5, 2.0])
    assert grid.volume == 0.125
    assert_array_equal(grid.points[:2], [[0.25, -0.875], [0.25, -0.625]])
    assert repr(grid) == "Grid([(0, 2), (-1, 1)], (4, 8), 'wall')"
    with pytest.raises(ValueError, match="read-only"):
        grid.points[0] = 0.0


def test_points_are_brought_into_the_box():
    x = np.array([[-3.5], [0.5], [7.0]])
    assert_allclose(LINE.wrap(x), [[-3.0], [0.5], [3.0]])
    assert_allclose(Grid((-3.0, 3.0), 12, boundary="periodic").wrap(x), [[2.5], [0.5], [1.0]])


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((None, 8), TypeError, "box: expected (low, high), or two such pairs, got NoneType None"),
        (("ab", 8), TypeError, "box: expected (low, high), or two such pairs, got str 'ab'"),
        (([(0, 1), (0,)], 8), TypeError, "box: expected (low, high)"),
        ((1.0, 8), ValueError, "box: expected (low, high), or two such pairs (one or two dimensions), got shape ()"),
        (([(0, 1)] * 3, 8), ValueError, "box: expected (low, high), or two such pairs (one or two dimensions), got sh"),
        (((1.0, 1.0), 8), ValueError, "box: expected finite limits with low below high, got [[1.0, 1.0]]"),
        (((2.0, 1.0), 8), ValueError, "box: expected finite limits"),
        (((0.0, np.inf), 8), ValueError, "box: expected finite limits"),
        (((np.nan, 1.0), 8), ValueError, "box: expected finite limits"),
        (((-1.7e308, 1.7e308), 8), ValueError, "box: expected limits from 1e-50 to 1e+50 apart"),
        (((0.0, 1e-60), 8), ValueError, "box: expected limits from 1e-50 to 1e+50 apart, got [[0.0, 1e-60]]"),
        (((0.0, 1.0), 3), ValueError, "cells[0]: expected an integer of at least 4, got 3"),
        (((0.0, 1.0), 8.0), TypeError, "cells[0]: expected an integer, got float 8.0"),
        (((0.0, 1.0), "8"), TypeError, "cells: expected a sequence of integers, got str '8'"),
        (((0.0, 1.0), (8, 8)), ValueError, "cells: expected 1 numbers, one for each axis of the box, got (8, 8)"),
        (((0.0, 1.0), 8, "open"), ValueError, "boundary: expected one of 'wall', 'periodic', got 'open'"),
    ],
)
def test_refused_grids(arguments, error, text):
    with pytest.raises(error, match=message(text)):
        Grid(*arguments)


# --- densities and times --------------------------------------------------------------------------------------------


class Logs:
    def __init__(self, value):
        self.value = value

    def log_prob(self, points):
        return np.full(len(points), self.value)


def table(value, at=3):
    result = np.ones(12)
    result[at] = value
    return result


@pytest.mark.parametrize("name", ["rho", "mu"])
@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (None, TypeError, "{}: expected an array of numbers, got None"),
        ("density", TypeError, "{}: expected an array of numbers, got str"),
        ([[1.0], [1.0, 2.0]], TypeError, "{}: expected an array of numbers, got list"),
        (np.ones(12, complex), TypeError, "{}: expected an array of numbers, got ndarray"),
        (Logs, TypeError, "{}: expected an array, a function or an object with log_prob, got the class Logs"),
        (np.ones(11), ValueError, "{}: expected shape (12,), got (11,)"),
        (np.ones((12, 1)), ValueError, "{}: expected shape (12,), got (12, 1)"),
        (lambda x: np.ones((len(x), 1)), ValueError, "{}(points): expected shape (12,), got (12, 1)"),
        (lambda x: None, TypeError, "{}(points): expected an array of numbers, got None"),
        (table(-1.0), ValueError, "{}: expected finite numbers"),
        (table(np.nan), ValueError, "{}: expected finite numbers"),
        (table(np.inf), ValueError, "{}: expected finite numbers"),
        (lambda x: x[:, 0], ValueError, "{}: expected finite numbers"),
        (Logs(np.nan), ValueError, "{}: expected finite logarithms, got nan at index 0"),
        (Logs(np.inf), ValueError, "{}: expected finite logarithms, got inf at index 0"),
    ],
)
def test_refused_densities(name, given, error, text):
    with pytest.raises(error, match=message(text.format(name))):
        evolve(**{"rho": RHO, "mu": MU, name: given}, grid=LINE, times=TIMES)


@pytest.mark.parametrize(
    ("rho", "mu", "text"),
    [
        (table(-1.0), MU, "rho: expected finite numbers of at least 0, got -1.0 at index 3"),
        (RHO, table(0.0), "mu: expected finite numbers above 0, got 0.0 at index 3; where it underflows, give an obj"),
        (np.zeros(12), MU, "rho: expected a positive mass on the grid, got 0"),
        (Logs(-np.inf), MU, "rho: expected a positive mass on the grid, got 0"),
        (RHO, Logs(-np.inf), "mu: expected finite logarithms, got -inf at index 0"),
        (np.full(12, 1e308), MU, "rho: expected a sum over the grid that is finite and above 0, got inf"),
        (Logs(-800.0), MU, "rho: expected a sum over the grid that is finite and above 0, got 0"),
        (RHO, normal(0.0, variance=0.01), "rho: expected at most 1e+150 times mu everywhere, got more"),
    ],
)
def test_refused_values(rho, mu, text):
    with pytest.raises(ValueError, match=message(text)):
        evolve(rho, mu, LINE, TIMES)


def test_cells_in_the_plane_are_named_by_both_indices():
    values = np.ones((24, 24))
    values[2, 5] = np.nan
    with pytest.raises(ValueError, match=message("mu: expected finite numbers above 0, got nan at index (2, 5)")):
        evolve(ones, values, PLANE, TIMES)


@pytest.mark.parametrize(
    ("times", "error", "text"),
    [
        (None, TypeError, "times: expected an array of numbers, got NoneType"),
        (["now", "then"], TypeError, "times: expected an array of numbers, got list"),
        (1.0, ValueError, "times: expected at least two, shape (times,), got shape ()"),
        ([0.0], ValueError, "times: expected at least two, shape (times,), got shape (1,)"),
        ([], ValueError, "times: expected at least two"),
        ([[0.0, 1.0]], ValueError, "times: expected at least two, shape (times,), got shape (1, 2)"),
        ([0.0, 0.0], ValueError, "times: expected finite, increasing numbers, got [0.0, 0.0]"),
        ([1.0, 0.0], ValueError, "times: expected finite, increasing numbers"),
        ([0.0, np.nan], ValueError, "times: expected finite, increasing numbers"),
        ([0.0, np.inf], ValueError, "times: expected finite, increasing numbers"),
    ],
)
def test_refused_times(times, error, text):
    with pytest.raises(error, match=message(text)):
        evolve(RHO, MU, LINE, times)


def test_refused_grid():
    for grid, kind in ((None, "None"), ((0, 1), "tuple")):
        with pytest.raises(TypeError, match=message(f"grid: expected a Grid, got {kind}")):
            evolve(RHO, MU, grid, TIMES)


def test_arguments_are_not_changed_and_results_cannot_be():
    rho, mu, times = RHO(LINE.points), MU(LINE.points), np.array(TIMES)
    before = [array.copy() for array in (rho, mu, times)]
    evolution = evolve(rho, mu, LINE, times)
    evolution.carry(np.zeros((1, 1)))
    for array, copy in zip((rho, mu, times), before, strict=True):
        assert_array_equal(array, copy)
        assert array.flags.writeable
    for array in (evolution.rho, evolution.mu, evolution.times, evolution.kl, evolution.gap_rate):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


def test_integers_and_single_precision_count_as_numbers():
    evolution = evolve(np.arange(1, 13), np.ones(12, np.float32), Grid((0, 3), 12), [0, 1])
    assert evolution.rho.dtype == np.float64
    assert evolution.kl[1] < evolution.kl[0]


def test_an_integrator_that_fails_raises_an_error(monkeypatch):
    def stops(*_, **__):
        return integrate._ivp.ivp.OdeResult(success=False, message="Required step size is less than spacing.", t=[])

    monkeypatch.setattr("headrace.continuum._motion.solve_ivp", stops)
    with pytest.raises(RuntimeError, match="the equation: SciPy's integrator stopped: Required step size"):
        evolve(RHO, MU, LINE, TIMES)
    with pytest.raises(RuntimeError, match="the particles: SciPy's integrator stopped"):
        SMALL.carry(np.zeros((1, 1)))


# --- evolutions -----------------------------------------------------------------------------------------------------


def test_shapes_and_repr():
    assert SMALL.rho.shape == (3, 12)
    assert SMALL.mu.shape == (12,)
    assert SMALL.kl.shape == SMALL.kl_rate.shape == SMALL.gap.shape == SMALL.gap_rate.shape == (3,)
    assert SMALL.grid is LINE
    assert SMALL.marginals == ()
    text = repr(SMALL)
    assert text.startswith("Evolution(Grid([(-3, 3)], (12,), 'wall'), times 0 to 0.2 (3), kl 0.1")
    evolution = evolve(normal(0.5, 0.5), normal(0.0, 0.0), PLANE, TIMES)
    assert evolution.rho.shape == (3, 24, 24)
    assert evolution.mu.shape == (24, 24)


@pytest.mark.parametrize("call", [SMALL.carry, SMALL.estimate, lambda z: SMALL.velocity(0.1, z)])
@pytest.mark.parametrize(
    ("rows", "error", "text"),
    [
        ([[0.0]], TypeError, "expected"),
        (np.zeros((2, 1), int), TypeError, "expected"),
        (np.zeros(3), ValueError, "expected shape (rows, 1), got (3,)"),
        (np.zeros((3, 2)), ValueError, "expected shape (rows, 1), got (3, 2)"),
        (
            np.array([[0.0], [3.5]]),
            ValueError,
            "expected points of Grid([(-3, 3)], (12,), 'wall'), got [3.5] at index 1",
        ),
    ],
)
def test_refused_rows(call, rows, error, text):
    with pytest.raises(error, match=r"^[xz]: .*" + re.escape(text)):
        call(rows)


@pytest.mark.parametrize(
    ("t", "error", "text"),
    [
        (None, TypeError, "t: expected a number, got NoneType None"),
        (-0.1, ValueError, "t: expected a number from 0 and below inf, got -0.1"),
        (0.3, ValueError, "t: expected a number from 0 to 0.2, got 0.3"),
        (np.nan, ValueError, "t: expected a number from 0"),
    ],
)
def test_refused_moments(t, error, text):
    with pytest.raises(error, match=message(text)):
        SMALL.velocity(t, np.zeros((1, 1)))


def test_single_rows_at_the_edges_of_time_and_box():
    for t in (0.0, 0.2):
        for x in (-3.0, 3.0):
            assert SMALL.velocity(t, np.array([[x]])).shape == (1, 1)
    assert np.isfinite(SMALL.estimate(np.array([[-3.0], [3.0]]))).all()


# --- directions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directions", "error", "text"),
    [
        ("x", TypeError, "directions: expected angles, shape (2,), or unit vectors, shape (2, 2): one for each step"),
        ([None, 1.0], TypeError, "directions: expected angles, shape (2,), or unit vectors"),
        (0.5, ValueError, "directions: expected angles, shape (2,), or unit vectors"),
        ([0.5], ValueError, "directions: expected angles, shape (2,), or unit vectors"),
        (np.zeros((2, 3)), ValueError, "directions: expected angles, shape (2,), or unit vectors"),
        ([0.5, np.nan], ValueError, "directions: expected finite numbers, got some that are not"),
        (
            [(1.0, 0.0), (1.0, 1.0)],
            ValueError,
            "directions: expected unit vectors, got one of length 1.41421 at index 1",
        ),
        ([(0.0, 0.0), (1.0, 0.0)], ValueError, "directions: expected unit vectors, got one of length 0 at index 0"),
    ],
)
def test_refused_directions(directions, error, text):
    with pytest.raises(error, match=message(text)):
        evolve(normal(0.5, 0.5), normal(0.0, 0.0), PLANE, TIMES, directions)


def test_directions_need_two_dimensions_and_walls():
    for grid in (LINE, Grid([(0.0, 1.0)] * 2, 8, "periodic")):
        with pytest.raises(
            ValueError, match=r"^directions: expected None, or a grid of two dimensions with walls, got G"
        ):
            evolve(ones, ones, grid, TIMES, [0.0, 0.0])


def test_rotated_directions_need_densities_that_end_within_the_box():
    small = Grid([(-3.0, 3.0), (-3.0, 3.0)], 24)
    inner = normal(0.0, 0.0, variance=0.3)
    evolve(inner, normal(0.0, 0.0), small, TIMES, [0.0, np.pi / 2.0])
    for rho, mu, name in ((inner, normal(0.0, 0.0), "mu"), (normal(0.0, 0.0), inner, "rho")):
        with pytest.raises(ValueError, match=f"^{name}: expected at most 0.001 of its largest value at the walls"):
            evolve(rho, mu, small, TIMES, [0.0, 0.3])


def test_tables_of_densities_serve_for_directions():
    """Tables are splines of logarithms between and beyond their points: for parabolas, exact up to rounding."""
    rho, mu = normal(0.5, 0.2, variance=0.8), normal(0.0, 0.0)
    want = evolve(rho, mu, PLANE, TIMES, [0.3, 1.2])
    tables = [d(PLANE.points).reshape(PLANE.cells) for d in (rho, mu)]
    got = evolve(*tables, PLANE, TIMES, [0.3, 1.2])
    # Beyond the walls a spline follows its tangent and not the parabola.
    assert_allclose(got.rho, want.rho, rtol=1e-5, atol=1e-9)
    assert_allclose(got.gap, want.gap, rtol=1e-5)
    tables[0][0, 0] = 0.0
    with pytest.raises(
        ValueError, match=r"^rho: expected positive numbers to interpolate between, got 0; give a funct"
    ):
        evolve(*tables, PLANE, TIMES, [0.3, 1.2])


def test_directions_take_rows_that_are_not_finite():
    evolution = evolve(normal(0.5, 0.5), normal(0.0, 0.0), PLANE, TIMES, [0.3, 1.2])
    x = np.array([[0.1, 0.2], [np.nan, 0.0], [-1.0, 5.9]])
    positions, log_jacobians = evolution.carry(x)
    for result in (positions[:, 1], log_jacobians[:, 1], evolution.estimate(x)[:, 1], evolution.velocity(0.1, x)[1]):
        assert np.isnan(result).all()
    assert_array_equal(evolution.carry(x[[0, 2]])[0], positions[:, [0, 2]])
    assert evolution.carry(np.empty((0, 2)))[0].shape == (3, 0, 2)
    assert np.isfinite(evolution.estimate(PLANE.box.T.copy())).all()  # corners are beyond the reach of directions
