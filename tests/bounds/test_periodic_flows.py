"""Periodic columns of every named flow: densities match the reference, integrate to one, and have no seam."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
from safetensors_reader import read

PERIODS = [(-np.pi, np.pi), None, (0.0, 24.0), None]
BOUNDS = [None, (0.0, None), None, None]
CIRCLES, LINE = [0, 2], [1, 3]
LOW, HIGH = np.array([-np.pi, 0.0, 0.0, -np.inf]), np.array([np.pi, np.inf, 24.0, np.inf])
WIDTH = np.array([2 * np.pi, 0.0, 24.0, 0.0])

FLOWS = {
    "MAF": hr.MAF,
    "IAF": hr.IAF,
    "RealNVP": hr.RealNVP,
    "NSF": hr.NSF,
    "NSF of couplings": lambda *sizes, **more: hr.NSF(*sizes, coupling=True, **more),
    "PlanarFlow": hr.PlanarFlow,
    "RadialFlow": hr.RadialFlow,
}
every_flow = pytest.mark.parametrize("name", FLOWS)


def rows(n=400, dtype="float64", *key):
    """Return rows with an angle and an hour on their seams, which depend on other columns and on each other."""
    y = cases.rows(n, 4, "float64", "periodic flows", *key)
    angle = np.pi + 0.4 * y[:, 0] + 0.3 * y[:, 3]
    x = np.column_stack([angle, np.exp(y[:, 1]), 2.0 * y[:, 2] + 3.0 * angle, y[:, 3]])
    for c in CIRCLES:
        x[:, c] = LOW[c] + np.mod(x[:, c] - LOW[c], WIDTH[c])
    return x.astype(dtype)


def fresh(name, dtype="float64", context=0, **more):
    settings = {"transforms": 3, "hidden": (10,), "bounds": BOUNDS, "periodic": PERIODS}
    return FLOWS[name](4, context=context, dtype=dtype, **{**settings, **more})


def unfitted(name, dtype="float64", context=0):
    """Return a flow far from the identity that was not fitted, and that any core can compute."""
    return cases.randomise(fresh(name, dtype, context), 0.3, "unfitted", name)


def moved(name, dtype="float64", context=0, **more):
    """Return a flow far from the identity, with scales set by a fit."""
    flow = fresh(name, dtype, context, **more)
    given = cases.rows(400, context, "float64", "fit context") if context else None
    flow.fit(rows(), given, epochs=1, progress=False)
    return cases.randomise(flow, 0.3, "periodic flows", name)


# --- against the reference --------------------------------------------------------------------------------------------


@every_flow
@pytest.mark.parametrize("context", [0, 2])
def test_densities_are_those_of_the_reference(core, name, context, dtype, tmp_path):
    flow = unfitted(name, dtype, context)
    flow.save(tmp_path / "flow")
    judge, x = read(tmp_path / "flow"), rows(50, dtype, "judged")
    given = cases.rows(50, context, dtype, "context") if context else None
    cases.assert_close(flow.log_prob(x, given), judge.log_prob(x, given), magnitude=40.0, depth=512)
    z, log_det = flow.to_latent(x, given)
    want, want_log_det = judge.to_latent(x, given)
    # Differences on circles are taken around the seam.
    near = np.where([c in CIRCLES for c in range(4)], np.mod(z - want + 1.0, 2.0) - 1.0, z - want)
    cases.assert_close((want + near).astype(dtype), want, magnitude=20.0, depth=512)
    cases.assert_close(log_det, want_log_det, magnitude=40.0, depth=512)


@every_flow
def test_log_determinants_are_those_of_the_jacobian(name):
    """Log-determinants are compared with differences of the flow, away from seams."""
    flow, x = moved(name), rows(30, "float64", "jacobian")
    x[:, 0], x[:, 2] = np.clip(x[:, 0], -3.1, 3.1), np.clip(x[:, 2], 0.1, 23.9)
    z, log_det = flow.to_latent(x)
    step = 1e-6
    columns = []
    for c in range(4):
        ends = [flow.to_latent(x + sign * step * np.eye(4)[c])[0] for sign in (1, -1)]
        change = ends[0] - ends[1]
        change[:, CIRCLES] = np.mod(change[:, CIRCLES] + 1.0, 2.0) - 1.0
        columns.append(change / (2 * step))
    jacobian = np.stack(columns, axis=2)
    assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, rtol=1e-4, atol=1e-4)
    back, other = flow.to_data(z)
    assert_allclose(back, x, rtol=1e-7, atol=1e-7)
    assert_allclose(other, -log_det, rtol=1e-7, atol=1e-7)


@every_flow
def test_the_density_integrates_to_one(name):
    """Trapezoids over a circle and a line, and over two circles, are exact for periodic functions."""
    n = 600
    around = np.linspace(0.0, 1.0, n, endpoint=False)
    line = FLOWS[name](2, transforms=2, hidden=(6,), periodic=[(0.0, 3.0), None], dtype="float64")
    line = cases.randomise(line, 0.25, "whole", name)
    reach = np.linspace(-15.0, 15.0, 3001)
    grid = np.stack(np.meshgrid(3.0 * around[::6], reach, indexing="ij"), axis=-1).reshape(-1, 2)
    assert np.exp(line.log_prob(grid)).sum() * 3.0 * 6 / n * (reach[1] - reach[0]) == pytest.approx(1.0, abs=2e-3)
    torus = FLOWS[name](2, transforms=3, hidden=(6,), periodic=[(0.0, 3.0), (-1.0, 1.0)], dtype="float64")
    torus = cases.randomise(torus, 0.4, "torus", name)
    grid = np.stack(np.meshgrid(3.0 * around, 2.0 * around - 1.0, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(torus.log_prob(grid))
    assert density.std() > 0.2 * density.mean()
    assert density.sum() * 6.0 / n**2 == pytest.approx(1.0, abs=2e-3)


# --- around the circles -----------------------------------------------------------------------------------------------


@every_flow
@pytest.mark.parametrize("column", CIRCLES)
def test_the_density_is_continuous_across_the_seam(name, column):
    """A step of 1e-8 of a period to either side of the seam changes the density little, and its slope little."""
    flow, x = moved(name), rows(40, "float64", "seam")
    step = 1e-8 * WIDTH[column]
    left, seam, right = (x.copy() for _ in range(3))
    left[:, column], seam[:, column], right[:, column] = HIGH[column] - step, LOW[column], LOW[column] + step
    values = [flow.log_prob(each) for each in (left, seam, right)]
    assert np.abs(values[1] - values[0]).max() < 1e-4
    assert np.abs(values[2] - values[1]).max() < 1e-4
    scores = [flow.log_prob_and_score(each)[1][:, column] for each in (left, right)]
    assert_allclose(scores[0], scores[1], rtol=1e-4, atol=1e-4 * np.abs(scores[0]).max())


@every_flow
def test_a_period_more_is_the_same_row(name, dtype):
    flow, x = moved(name, dtype), rows(50, dtype, "more")
    for shift in ([1, 0, 0, 0], [0, 0, -1, 0], [2, 0, 3, 0]):
        there = (x + np.array(shift) * WIDTH).astype(dtype)
        cases.assert_close(flow.log_prob(there), flow.log_prob(x), magnitude=40.0, depth=2048)


@every_flow
def test_samples_lie_in_one_period_and_have_their_density(core, name, dtype):
    flow = unfitted(name, dtype, 1)
    context = cases.rows(300, 1, dtype, "sample context")
    x, log_prob = flow.sample_and_log_prob(300, context, seed=0)
    assert ((x >= LOW.astype(dtype)) & (x < HIGH.astype(dtype))).all()
    assert (x[:, 1] > 0).all()
    cases.assert_close(flow.log_prob(x, context), log_prob, magnitude=60.0, depth=4096)


@every_flow
def test_networks_move_the_other_columns_alone_and_read_no_angle(name):
    flow, x = moved(name), rows(30, "float64", "blind")
    other = x.copy()
    other[:, CIRCLES] = rows(30, "float64", "others")[:, CIRCLES]
    assert_array_equal(flow.to_latent(x)[0][:, LINE], flow.to_latent(other)[0][:, LINE])
    assert np.abs(flow.log_prob(x) - flow.log_prob(other)).max() > 1e-2


# --- other methods of a flow ------------------------------------------------------------------------------------------


@every_flow
def test_some_columns_and_the_others_given_them(name):
    """Columns on a line have a marginal, and angles a conditional; an angle alone depends on columns on the line."""
    flow, x = moved(name), rows(60, "float64", "parts")
    line = flow.marginal(LINE)
    assert line.transforms[-1].bounds == ((0.0, None), None)
    rest = flow.given(x[:, LINE], columns=LINE)
    own = x[:, LINE]
    assert_allclose(line.log_prob(own) + rest.log_prob(x[:, CIRCLES]), flow.log_prob(x), rtol=1e-9)
    drawn = rest.sample(60, seed=0)
    assert ((drawn >= LOW[CIRCLES]) & (drawn < HIGH[CIRCLES])).all()
    with pytest.raises(ValueError, match=r"^columns: expected columns that depend on no others"):
        flow.marginal([0])


@every_flow
def test_files_and_pickles(name, dtype, tmp_path):
    flow, x = moved(name, dtype), rows(20, dtype)
    flow.save(tmp_path / "flow")
    for other in (hr.load(tmp_path / "flow"), pickle.loads(pickle.dumps(flow))):
        cases.assert_same_bits(other.log_prob(x), flow.log_prob(x))
        assert type(other) is type(flow)
        assert other.base.densities == ("uniform", "normal", "uniform", "normal")
        assert other.transforms[-1].periodic == tuple(PERIODS)


@pytest.mark.long
@every_flow
def test_a_fit_is_near_the_truth(name):
    """Fits are near the truth for an angle whose centre depends on a column, and a second angle centred at the
    first.
    """
    rng = cases.rng("von Mises")

    def draw(n):
        x = rng.standard_normal(n)
        angle = rng.vonmises(np.pi + x, 5.0)
        other = np.mod(angle + rng.vonmises(0.0, 5.0, n), 2 * np.pi)
        true = -0.5 * x**2 - 0.5 * np.log(2 * np.pi) + 5.0 * np.cos(angle - np.pi - x) + 5.0 * np.cos(other - angle)
        return np.column_stack([angle, x, other]), true - 2 * np.log(2 * np.pi * np.i0(5.0))

    (x, _), (test, true) = draw(3000), draw(3000)
    periods = [(-np.pi, np.pi), None, (0.0, 2 * np.pi)]
    flow = FLOWS[name](3, transforms=3, hidden=(24,), periodic=periods)
    flow.fit(x, epochs=40, seed=0, progress=False)
    lost = true.mean() - flow.log_prob(test).mean()
    assert lost < 0.15
    standard = flow.transforms[-2]
    assert_array_equal(standard.mean[[0, 2]], 0.0)
    assert_array_equal(standard.std[[0, 2]], 1.0)


@every_flow
def test_marginals_that_are_made_normal_leave_circles_alone(name):
    flow = fresh(name)
    skewed = rows(600)
    skewed[:, 3] = np.exp(skewed[:, 3])  # column 3 is on the line, without a bound
    assert flow.fit(skewed, gaussianize=True, epochs=1, progress=False).gaussianized
    x = rows(40, "float64", "seam")
    there = x + WIDTH * np.array([1, 0, -1, 0])
    assert_allclose(flow.log_prob(there), flow.log_prob(x), rtol=1e-6, atol=1e-6)


@every_flow
def test_flows_of_one_angle_and_of_angles_alone(name):
    for periods in ([(0.0, 1.0)], [(0.0, 1.0)] * 3):
        flow = FLOWS[name](len(periods), transforms=2, hidden=(4,), periodic=periods)
        x = flow.sample(200, seed=0)
        assert ((x >= 0.0) & (x < 1.0)).all()
        assert_allclose(flow.log_prob(x), 0.0, atol=0.2)
    conditional = FLOWS[name](1, context=1, transforms=2, hidden=(4,), periodic=[(0.0, 1.0)], dtype="float64")
    conditional = cases.randomise(conditional, 0.5)
    grid = np.linspace(0.0, 1.0, 2000, endpoint=False)[:, None]
    for value in (-1.0, 2.0):
        assert np.exp(conditional.log_prob(grid, np.array([value]))).mean() == pytest.approx(1.0, abs=1e-3)


def test_a_fresh_flow_is_nearly_even_around_its_circles():
    """Shears are followed by their inverses, and splines begin near the identity, so that a fresh flow is even."""
    flow = hr.MAF(3, hidden=(8,), periodic=[(0.0, 1.0)] * 3, transforms=9)
    assert_allclose(flow.log_prob(flow.sample(300, seed=0)), 0.0, atol=0.3)


def test_a_shear_has_integers_and_keeps_volumes():
    from headrace._flow.flows import _shear

    flow = hr.Flow(_shear(4, [3, 0, 2], 2), dtype="float64")
    x = cases.rows(20, 4, "float64", "shear")
    z, log_det = flow.to_latent(x)
    for c in (0, 2, 3):
        other, _ = flow.to_latent(x + 2.0 * np.eye(4)[c])
        assert_allclose(np.mod(other - z + 1.0, 2.0), 1.0, atol=1e-12)
    assert_allclose(log_det, 0.0, atol=1e-12)
    assert_array_equal(z[:, 1], x[:, 1])
    assert np.abs(np.mod(z - x + 1.0, 2.0) - 1.0).max() > 0.1


def test_bases_with_their_own_tails():
    flow = hr.MAF(2, transforms=1, hidden=(4,), periodic=[None, (0, 1)], base=hr.Independent(["logistic", "uniform"]))
    assert flow.base.densities == ("logistic", "uniform")


def test_columns_that_periodic_ones_need_are_named():
    flow = hr.MAF(3, transforms=1, hidden=(8,), periodic=[(0.0, 1.0), None, None])
    assert flow.marginal([1, 2]).features == 2
    with pytest.raises(ValueError, match=r"^columns: .*; periodic columns depend on all others"):
        flow.marginal([0])
