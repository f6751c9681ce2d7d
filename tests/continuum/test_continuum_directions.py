"""The function ``hr.continuum.evolve`` along one direction after another (the notes' 2.4)."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import headrace as hr
from evolving import between, masses, normal, three
from headrace.continuum._directions import _shift

Grid, evolve = hr.continuum.Grid, hr.continuum.evolve
ANGLES = np.random.default_rng(4).uniform(0.0, np.pi, 12)


def random_run(n, directions=ANGLES):
    rho, mu, grid = three(n)
    return evolve(rho, mu, grid, np.linspace(0.0, 6.0, len(directions) + 1), directions)


def peaked(points):
    """A product density that is not normal."""
    return np.exp(-(points[:, 1] ** 2) / 2.0) / np.cosh(2.0 * points[:, 0])


def skewed(points):
    """Two normal densities side by side, which are no product."""
    return normal(0.5, 0.4, variance=0.5)(points) + 0.5 * normal(-0.6, -0.3, variance=0.6)(points)


def test_kl_falls_along_random_directions():
    """The gap KL(rho_t || mu) falls for any directions; in this run KL(mu || rho_t) also falls."""
    evolution = random_run(64)
    assert (np.diff(evolution.gap) < 0.0).all()
    assert (np.diff(evolution.kl) < 0.0).all()
    assert (evolution.gap_rate < 0.0).all()
    assert evolution.gap[-1] < 0.4 * evolution.gap[0]
    assert evolution.kl[-1] < 0.4 * evolution.kl[0]
    assert (evolution.rho > 0.0).all()
    assert len(evolution.marginals) == 12


def test_mass_is_held_to_the_error_of_its_sum():
    """Measured errors are 8.2e-5 with 48 cells an axis, and 4.7e-6 with 96."""
    errors = [np.abs(masses(run) / masses(run)[0] - 1.0).max() for run in (random_run(48), random_run(96))]
    assert errors[0] < 2e-4
    assert errors[1] < 1e-5


def test_unit_vectors_are_angles():
    vectors = np.stack([np.cos(ANGLES[:2]), np.sin(ANGLES[:2])], axis=1)
    assert_allclose(random_run(24, vectors).rho, random_run(24, ANGLES[:2]).rho, rtol=1e-10)
    # Opposite directions have the same evolution.
    assert_allclose(random_run(24, -vectors).rho, random_run(24, ANGLES[:2]).rho, rtol=1e-6)


def test_evolution_along_an_axis_is_that_in_one_dimension():
    """If a density is a product of a density of x and one of y, the factor along the axis evolves as in one dimension,
    and the other factor does not change."""
    grid = Grid([(-5.0, 5.0), (-6.0, 6.0)], (80, 60))
    x_part, y_part = normal(0.6, variance=0.6), normal(-0.2, variance=1.5)
    times = [0.0, 0.4, 1.0]
    for axis, angle in ((0, 0.0), (1, np.pi / 2.0)):
        own = (x_part, y_part)[axis]
        line = Grid(grid.box[axis], max(grid.cells))
        alone = evolve(own, normal(0.0), line, times)
        both = evolve(lambda p: x_part(p[:, :1]) * y_part(p[:, 1:]), normal(0.0, 0.0), grid, times, np.full(2, angle))
        marginal = both.rho.sum(axis=2 - axis) * grid.spacing[1 - axis]
        across = both.rho.sum(axis=1 + axis) * grid.spacing[axis]
        want = np.stack([between(line, rho, grid.axes[axis][1:-1, None]) for rho in alone.rho])
        # The errors of both grids are of the order of the spacing squared (0.016); the largest difference was 5e-4 of
        # 0.5.
        assert_allclose(marginal[:, 1:-1], want, atol=1e-3)
        assert_allclose(across, np.broadcast_to(across[0], across.shape), rtol=1e-3, atol=1e-9)
        z = np.array([[0.3, 1.0], [-1.0, 0.5]])
        speed = both.velocity(0.2, z)
        assert_allclose(speed[:, axis], alone.velocity(0.2, z[:, [axis]])[:, 0], atol=1e-3)
        assert_array_equal(speed[:, 1 - axis], 0.0)


@pytest.mark.parametrize(
    ("mu", "angles"), [(normal(0.0, 0.0), ANGLES[:5]), (peaked, np.array([0.0, np.pi / 2.0, 0.0]))]
)
def test_coordinates_across_a_direction_do_not_change(mu, angles):
    """By eq. 19, KL(rho || mu) less that of the marginals is equal at both ends of a direction."""
    grid = Grid([(-6.0, 6.0), (-6.0, 6.0)], 96)
    evolution = evolve(skewed, mu, grid, np.linspace(0.0, 2.0, len(angles) + 1), angles)
    for k, marginal in enumerate(evolution.marginals):
        gap = evolution.gap[k : k + 2]
        assert gap[1] < gap[0] - 1e-3
        # The marginal's KL has the scheme's error, of the order of the spacing squared: 2.1e-5 here, 1e-4 at twice the
        # spacing.
        assert_allclose(np.diff(gap - marginal.gap), 0.0, atol=4e-5)
        assert_allclose(marginal.times, evolution.times[k : k + 2])
        assert_allclose(evolution.gap_rate[k], marginal.gap_rate[0])


def test_densities_rest_where_their_marginal_is_the_target_s():
    """The density mu rests in every direction; a density with the target's marginal along one axis rests in that
    direction alone."""
    grid = Grid([(-5.0, 5.0), (-5.0, 5.0)], 40)
    still = evolve(peaked, peaked, grid, [0.0, 1.0, 10.0], [0.0, np.pi / 2.0])
    assert_array_equal(still.rho, np.broadcast_to(still.rho[0], still.rho.shape))
    still = evolve(normal(0.0, 0.0), normal(0.0, 0.0), grid, [0.0, 1.0, 10.0], ANGLES[:2])
    assert_array_equal(still.rho, np.broadcast_to(still.rho[0], still.rho.shape))
    assert_array_equal(still.velocity(0.5, grid.points), 0.0)

    def tilted(points):
        """A density of standard normal x, and of y about a wave in x."""
        x, y = points.T
        return np.exp(-(x**2) / 2.0 - 2.0 * (y - 0.8 * np.sin(1.5 * x)) ** 2)

    stopped = evolve(tilted, normal(0.0, 0.0), grid, [0.0, 1.0, 2.0], [0.0, np.pi / 2.0])
    assert_allclose(stopped.velocity(0.5, grid.points), 0.0, atol=1e-9)  # a sum over y replaces an integral
    assert_allclose(stopped.rho[1], stopped.rho[0], rtol=1e-6)
    assert stopped.gap[0] - stopped.gap[1] < 1e-8
    assert stopped.gap[1] - stopped.gap[2] > 0.04


def test_many_stages_reach_the_target_along_the_axes_of_a_product():
    """A product density reaches the target along the axes, without other directions."""
    grid = Grid([(-4.0, 4.0), (-4.0, 4.0)], 48)
    rho = lambda p: normal(0.4, variance=0.7)(p[:, :1]) * normal(-0.5, variance=0.8)(p[:, 1:])  # noqa: E731
    evolution = evolve(rho, normal(0.0, 0.0), grid, np.linspace(0.0, 40.0, 9), np.tile([0.0, np.pi / 2.0], 4))
    assert (np.diff(evolution.gap) < 0.0).all()
    assert evolution.gap[-1] < 0.03 * evolution.gap[0]


def test_particles_and_estimates():
    """Particles carry the density of the grid (eq. 8), and the estimate satisfies rho~ / rho_0 = mu / rho_t at phi."""
    evolution = random_run(96)
    rho = three()[0]
    x = np.random.default_rng(1).uniform(-3.0, 3.0, (200, 2))
    positions, log_jacobians = evolution.carry(x)
    for k in (1, 6, 12):
        carried = np.exp(log_jacobians[k]) * between(evolution.grid, evolution.rho[k], positions[k])
        # The spline on the grid has an error of 4e-4.
        assert_allclose(carried, rho(x), rtol=0.0, atol=1e-3 * rho(x).max())
    x = evolution.grid.points
    estimate, weight = evolution.estimate(x), evolution.rho[0].ravel()
    lacks = (weight * (np.log(weight) - np.log(estimate))).sum(axis=1) / weight.sum()
    assert_allclose(lacks, evolution.gap, atol=5e-6)  # the two sums for one integral differed by 1.7e-6
    d = 1e-4
    x = np.random.default_rng(2).uniform(-2.0, 2.0, (50, 2))
    columns = [(evolution.carry(x + e)[0][-1] - evolution.carry(x - e)[0][-1]) / (2.0 * d) for e in d * np.eye(2)]
    want = np.linalg.slogdet(np.stack(columns, axis=-1))[1]
    assert_allclose(evolution.carry(x)[1][-1], want, atol=1e-7)  # the largest error was 5e-9


def test_rates_are_derivatives():
    rho, mu, grid = three(96)
    d = 0.01
    evolution = evolve(rho, mu, grid, [0.0, 0.3 - d, 0.3, 0.3 + d], np.full(3, 0.7))
    # The error was 1.8e-3.
    assert_allclose((evolution.gap[3] - evolution.gap[1]) / (2.0 * d), evolution.gap_rate[2], rtol=4e-3)
    # The error was 4.3e-3.
    assert_allclose((evolution.kl[3] - evolution.kl[1]) / (2.0 * d), evolution.kl_rate[2], rtol=0.01)
    # The last time has the rates of the direction that ends there, even if the evolution goes on afterwards.
    for end in ([0.0, 0.3], [0.0, 0.3, 0.6]):
        last = evolve(rho, mu, grid, end, np.full(len(end) - 1, 0.7))
        assert_allclose([last.kl_rate[1], last.gap_rate[1]], [evolution.kl_rate[2], evolution.gap_rate[2]], rtol=2e-3)
    assert_allclose(evolution.kl_rate[3], evolution.kl_rate[2], rtol=0.02)


def test_kl_of_the_target_may_rise():
    """Only KL(rho || mu) must fall along a direction.

    In this example rho / mu falls in x for y > 0, where the ratio is large, and rises fast for y < 0: the mean over y
    falls, so that points move up; but KL(mu || rho) follows the mean of log(rho / mu), which rises.
    """

    def rho(points):
        x, y = points.T
        above = 1.0 / (1.0 + np.exp(-4.0 * y))
        return normal(0.0, 0.0)(points) * (above * np.exp(-0.2 * x) + 0.02 * (1.0 - above) * np.exp(x))

    grid = Grid([(-6.0, 6.0), (-6.0, 6.0)], 64)
    evolution = evolve(rho, normal(0.0, 0.0), grid, [0.0, 0.05, 0.1], [0.0, 0.0])
    assert (evolution.kl_rate > 0.0).all()
    assert (np.diff(evolution.kl) > 0.0).all()
    assert (np.diff(evolution.gap) < 0.0).all()


def test_at_a_change_of_directions_the_later_one_acts():
    evolution = evolve(
        skewed, normal(0.0, 0.0), Grid([(-6.0, 6.0), (-6.0, 6.0)], 32), [0.0, 0.5, 1.0], [0.0, np.pi / 2]
    )
    z = np.array([[1.0, 0.5]])
    for t, still in ((0.0, 1), (0.49, 1), (0.5, 0), (1.0, 0)):
        speed = evolution.velocity(t, z)[0]
        assert speed[still] == 0.0
        assert speed[1 - still] != 0.0


def test_maps_of_directions_increase_across_fronts():
    """A density that ends before the target does moves behind a front: slopes jump from 1 to a thousand in a cell."""
    grid = Grid([(-6.0, 6.0), (-5.0, 5.0)], (48, 40))
    evolution = evolve(normal(0.5, -0.3, variance=0.3), peaked, grid, [0.0, 2.0, 40.0, 100.0], [0.0, 0.0, np.pi / 2.0])
    assert (evolution.rho >= 0.0).all()
    assert np.isfinite(evolution.rho).all()
    x = np.stack([np.linspace(-6.0, 6.0, 2001), np.zeros(2001)], axis=1)
    positions, log_jacobians = evolution.carry(x)
    assert (np.diff(positions[..., 0], axis=1) > 0.0).all()
    assert np.isfinite(log_jacobians).all()


def test_slopes_that_would_fold_a_map_are_cut():
    nodes, values = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 0.1, 1.9, 2.0])
    spline = _shift(nodes, values, np.array([0.1, 3.0, 0.01, 5.0]))
    s = np.linspace(0.0, 3.0, 301)
    assert (spline(s, nu=1) > -1.0).all()
    assert_allclose(spline(nodes) + nodes, values, atol=1e-15)
    assert_allclose(spline(nodes[[0, 2]], nu=1) + 1.0, [0.1, 0.01], atol=1e-15)


def test_directions_that_are_no_product_are_refused():
    """Eq. 18 requires a product of densities along and across the direction."""
    grid = Grid([(-6.0, 6.0), (-6.0, 6.0)], 48)
    times = [0.0, 0.1, 0.2]
    evolve(skewed, peaked, grid, times, [0.0, np.pi / 2.0])
    stretched = lambda p: np.exp(-(p[:, 0] ** 2) - p[:, 1] ** 2 / 2.0)  # noqa: E731
    evolve(skewed, stretched, grid, times, [0.0, -np.pi])
    for mu in (peaked, stretched, peaked(grid.points).reshape(grid.cells)):
        with pytest.raises(ValueError, match=r"directions: .* product .* \(eq. 18\), got \(0.9552, 0.296\) at index 1"):
            evolve(skewed, mu, grid, times, [0.0, 0.3005])
    correlated = lambda p: np.exp(-(p**2).sum(axis=1) / 2.0 - 0.3 * p[:, 0] * p[:, 1])  # noqa: E731
    evolve(skewed, correlated, grid, times, [np.pi / 4.0, -np.pi / 4.0])  # the product axes of this density
    with pytest.raises(ValueError, match="product"):
        evolve(skewed, correlated, grid, times, [np.pi / 4.0, 0.0])
    with pytest.raises(ValueError, match="product"):
        evolve(skewed, skewed, grid, times, [0.0, 0.0])
