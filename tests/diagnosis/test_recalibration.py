"""The function `hr.recalibrate`: densities that it repairs or keeps, files, and refusals."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import headrace as hr
from pairs import pairwise

ROWS = 400
LEVELS = np.linspace(0.1, 0.9, 9)


def rows_of(flow, n, seed, context=None):
    return flow.sample(n, context, seed=seed).astype(flow.dtype)


def truth(dtype="float32", context=0):
    t = hr.transforms.MaskedAutoregressive(2, (9,), context=context, dtype=dtype)
    return hr.Flow([cases.randomise(t, 0.3, "truth"), hr.transforms.Standardize([10.0, -300.0], [0.1, 40.0])])


def wider(flow, *factors):
    """The flow on a base whose deviations are multiplied by these factors; the means of the base stay 0."""
    return hr.Flow([hr.transforms.Standardize([0.0, 0.0], factors), *flow.transforms], dtype=flow.dtype)


def miscalibration(flow, x, context=None):
    """The mean over levels of |share of rows in the regions of highest density - level|, by 99 draws a row."""
    drawn = flow.sample((99,), context, seed=5) if context is not None else flow.sample((99, len(x)), seed=5)
    region = 1.0 - (flow.log_prob(drawn, context) < flow.log_prob(x, context)).mean(axis=0)
    return np.abs([(region <= level).mean() - level for level in LEVELS]).mean()


@pairwise(factors=[(1.5, 1.3), (0.7, 0.7)], context=[0, 2], dtype=cases.DTYPES)
def test_a_density_too_wide_or_too_narrow_is_repaired(factors, context, dtype):
    """The miscalibration of 4000 other rows, by ranks among 99 draws, falls to less than half of its value; the truth
    has some 0.01 by chance. The log-likelihood is close to that of the truth: six parameters fitted to 400 rows cost
    6 / 800."""
    right = truth(dtype, context)
    given = cases.rows(ROWS + 4000, 2, dtype, "context") if context else None
    x = rows_of(right, ROWS + 4000, 1, given)
    held, others = (None, None) if given is None else (given[:ROWS], given[ROWS:])
    wrong = wider(right, *factors)
    repaired = hr.recalibrate(wrong, x[:ROWS], held)
    assert repaired is not wrong
    assert repaired.dtype == wrong.dtype
    cases.assert_same_bits(hr.Flow(repaired.transforms[2:]).parameters, wrong.parameters)
    before, after = (miscalibration(flow, x[ROWS:], others) for flow in (wrong, repaired))
    assert before > 0.07
    assert after < 0.5 * before
    lost = (right.log_prob(x[ROWS:], others) - repaired.log_prob(x[ROWS:], others)).mean()
    assert lost < 0.03


@pytest.mark.costly
@pytest.mark.parametrize("seeds", [4, pytest.param(10, marks=pytest.mark.nightly)])
def test_a_right_density_stays_or_loses_little(seeds):
    """Maps that are fitted to noise lose log-likelihood on rows left out, so that most are found to be worse, and are
    rejected. Maps that are kept cost six parameters fitted to 400 rows, 6 / 800, on average; the test takes the mean
    over all seeds.
    """
    right = truth()
    x = rows_of(right, 10_000, 99)
    found = [hr.recalibrate(right, rows_of(right, ROWS, seed), seed=seed) for seed in range(seeds)]
    assert sum(flow is right for flow in found) >= 0.4 * seeds
    lost = np.mean([(right.log_prob(x) - flow.log_prob(x)).mean() for flow in found])
    assert -1e-4 < lost < 0.01


def test_its_density_is_exact():
    """In float64 the density is the product of those of the map and of the flow; directions invert each other."""
    wrong = wider(truth("float64"), 1.6, 1.4)
    repaired = hr.recalibrate(wrong, rows_of(truth("float64"), ROWS, 1))
    x = rows_of(wrong, 50, 2)
    z, log_det = wrong.to_latent(x)
    first = hr.Flow(repaired.transforms[:2])
    assert_allclose(repaired.log_prob(x), first.log_prob(z) + log_det, rtol=1e-12)
    z, _ = repaired.to_latent(x)
    assert_allclose(repaired.to_data(z)[0], x, rtol=1e-9)


@pytest.mark.costly
def test_latent_rows_in_clusters_have_the_density_of_the_map():
    """A fit to so few rows would choose a mixture as its base; the base of the map stays normal."""
    rng = cases.rng("latent clusters")
    x = np.where(rng.random((900, 2)) < 0.5, -2.0, 2.0) + 0.3 * rng.standard_normal((900, 2))
    flow = hr.Flow([hr.transforms.Standardize([0.0, 0.0], [1.0, 1.0])], dtype="float64")
    repaired = hr.recalibrate(flow, x[:ROWS])
    assert type(repaired.base) is hr.StandardNormal
    assert repaired.log_prob(x[ROWS:]).mean() > flow.log_prob(x[ROWS:]).mean() + 2.0


def test_files_seeds_and_rows_of_weight_zero(tmp_path):
    wrong, x = wider(truth(), 1.5, 1.5), rows_of(truth(), ROWS, 1)
    alone, again = (hr.recalibrate(wrong, x, seed=3) for _ in range(2))
    cases.assert_same_bits(alone.parameters, again.parameters)
    alone.save(tmp_path / "repaired.safetensors")
    cases.assert_same_bits(hr.load(tmp_path / "repaired.safetensors").log_prob(x), alone.log_prob(x))
    other = rows_of(wider(truth(), 3.0, 3.0), ROWS, 2)
    repaired = hr.recalibrate(wrong, np.concatenate([x, other]), weights=np.repeat([1.0, 0.0], ROWS))
    assert_allclose(repaired.sample(20_000, seed=1).std(axis=0), alone.sample(20_000, seed=1).std(axis=0), rtol=0.1)


X = np.zeros((60, 2), np.float32)
NOT_FINITE = np.where(np.arange(120).reshape(60, 2) == 7, np.nan, X)
WRONG = {
    "no flow": (lambda: hr.recalibrate("flow", X), TypeError, "flow: expected a flow, got"),
    "another base": (
        lambda: hr.recalibrate(hr.MAF(2, base=hr.Logistic(2)), X),
        ValueError,
        "flow: expected the base StandardNormal, got Logistic",
    ),
    "few rows": (
        lambda: hr.recalibrate(hr.MAF(2), X[:49]),
        ValueError,
        "held_out: expected at least 50 rows, got 49",
    ),
    "another shape": (lambda: hr.recalibrate(hr.MAF(3), X), ValueError, "held_out x: expected"),
    "not finite": (lambda: hr.recalibrate(hr.MAF(2), NOT_FINITE), ValueError, "held_out x: "),
    "no context": (lambda: hr.recalibrate(hr.MAF(2, context=1), X), (TypeError, ValueError), "held_out context"),
    "a seed": (lambda: hr.recalibrate(hr.MAF(2), X, seed=-1), ValueError, "seed"),
}


@pytest.mark.parametrize("name", WRONG)
def test_refused_arguments_of_recalibrate(name):
    call, kind, words = WRONG[name]
    with pytest.raises(kind, match=words):
        call()


def test_held_out_rows_of_one_frequent_value_are_named():
    x = cases.rng("repeats").standard_normal((400, 2))
    x[:100, 1] = 0.25
    with pytest.warns(RuntimeWarning, match="^held_out: one value is frequent in column 1"):
        hr.recalibrate(hr.Flow([hr.transforms.Standardize([0.0, 0.0], [1.0, 1.0])]), x)
