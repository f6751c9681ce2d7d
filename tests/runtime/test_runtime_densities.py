"""The header headrace.hpp: columns with bounds and periods, bases with heavy and light tails, and ensembles, in flows
that are not among the examples."""

import numpy as np
import pytest

import cases
import file_cases
import headrace as hr

pytestmark = pytest.mark.programs

BASES = {
    "independent": hr.Independent(["normal", "uniform", "logistic", "uniform", "normal", "logistic"]),
    "uniform": hr.Uniform(6),
    "student-t": hr.StudentT(6, [0.5, 1.0, 2.5, 40.0, 1e6, 1e12]),
    "student-t-fixed": hr.StudentT(6, [0.5, 1.0, 2.5, 40.0, 1e6, 1e12], trainable=False),
    "mixture": hr.NormalMixture(6, 3, scale=0.5, seed=1, weights=[1.0, 2.0, 0.5]),
    "mixture-fixed": hr.NormalMixture(6, 4, scale=0.5, seed=2, weights=[0.0, 2.0, 0.0, 1.0], trainable=False),
}


@pytest.mark.parametrize("linear", [False, True])
def test_bounds_without_a_network(runtime, linear, dtype):
    """A flow without a network computes in float64, where rows on a bound have no density either."""
    base = hr.Independent(["uniform", "normal"]) if linear else None
    flow = hr.Flow([hr.transforms.Support([(0.1, 0.7), (None, 2.0)], linear=linear)], base, dtype=dtype)
    x = np.array([[0.1, 0.0], [0.7, 0.0], [0.5, 2.0], [0.8, 0.0], [0.3, 1.0], [0.11, -3.0]], dtype)
    loaded = runtime.load(hr.to_bytes(flow), dtype)
    got, want = loaded.log_prob(x), flow.log_prob(x)
    assert np.isneginf(want[:4]).all()
    assert np.isneginf(got[:4]).all()
    cases.assert_close(got[4:].astype(dtype), want[4:])
    assert np.isnan(loaded.to_latent(x)[0][:4]).all()


def test_a_support_elsewhere_has_nans_alone(runtime, dtype):
    """A support that is not at the data end gives NaN beyond its bounds, instead of a density of zero."""
    inner = hr.transforms.Support([(0.0, None), None])
    ends = [
        hr.transforms.Standardize([0.5, 0.0], [2.0, 1.0]),
        hr.transforms.ActNorm(2, dtype=dtype),
        hr.transforms.Inverse(hr.transforms.Support([(-9.0, 5.0), None])),
    ]
    for end in ends:
        flow = hr.Flow([inner, end], dtype=dtype)
        x = np.array([[-3.0, 0.0], [2.0, 0.0], [np.nan, 0.0]], dtype)
        with np.errstate(all="ignore"):
            want = flow.log_prob(x)
        got = runtime.load(hr.to_bytes(flow), dtype).log_prob(x)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        assert np.isnan(got[0]), end
        assert not np.isneginf(got).any()


# ---- bases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASES)
def test_bases_have_the_samples_of_python(runtime, name, dtype):
    flow = hr.Flow([], BASES[name], dtype=dtype)
    loaded = runtime.load(hr.to_bytes(flow), dtype)
    seed = 2**63 + 12345
    with np.errstate(all="ignore"):
        want = flow.sample(300, seed=seed)
    got, density = loaded.sample(300, 6, seed, dtype=dtype)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    eps = np.finfo(dtype).eps
    # Angles near a quarter turn, and u near 1, keep only the last digits of a uniform random value.
    np.testing.assert_allclose(got, want, rtol=256 * eps, atol=64 * eps)
    np.testing.assert_array_equal(loaded.sample(3, 6, seed, first_row=297, dtype=dtype)[0], got[297:])
    assert not np.isposinf(density).any()
    good = np.isfinite(density)
    want = flow.log_prob(loaded.sample(300, 6, seed, dtype=dtype)[0].astype(dtype))
    # For values beyond 1e4 sqrt(df) a float32 core computes log(1 + a^2) as 2 log a, which is 1e-8 less.
    np.testing.assert_allclose(density[good], want[good], rtol=64 * eps, atol=max(256 * eps, 1e-8))
    assert good.sum() >= 290


# ---- ensembles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 7, 2**32, 2**64 - 1])
@pytest.mark.parametrize("members", [2, 11])
def test_rows_of_an_ensemble_come_from_the_members_that_python_draws(runtime, members, seed, dtype):
    bases = [hr.StandardNormal(2), hr.StudentT(2, 4.0), hr.Normal(2, 3.0, 0.5), hr.NormalMixture(2, 2)]
    flows = [
        hr.Flow([hr.transforms.Standardize([100.0 * i, 0.0], [1.0, 2.0])], bases[i % 4], dtype=dtype)
        for i in range(members)
    ]
    ensemble = hr.Ensemble(flows, [0.0, *(1.0 + np.arange(members - 2)), 1 / 3])
    loaded = runtime.load(hr.to_bytes(ensemble), dtype)
    want = ensemble.sample(400, seed=seed)
    got, density = loaded.sample(400, 2, seed)
    cases.assert_close(got.astype(dtype), want, magnitude=1e3 * np.abs(want).max())
    assert np.isfinite(density).all()
    cases.assert_close(density.astype(dtype), ensemble.log_prob(want), magnitude=1e4)
    np.testing.assert_array_equal(loaded.sample(30, 2, seed, first_row=370)[0], got[370:])


def test_an_ensemble_takes_a_context_for_each_row(runtime, dtype):
    ensemble = file_cases.EXAMPLES["ensemble"](dtype)
    loaded = runtime.load(hr.to_bytes(ensemble), dtype)
    context = cases.rows(50, 1, dtype, "context")
    for given in (context, context[:1]):
        want = ensemble.sample(50, given if len(given) > 1 else given[0], seed=3)
        got, density = loaded.sample(50, 2, 3, given)
        cases.assert_close(got.astype(dtype), want, magnitude=1e3)
        cases.assert_close(density.astype(dtype), ensemble.log_prob(want, given), magnitude=1e4)
