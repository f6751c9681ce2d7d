"""headrace.hpp: columns with bounds and periods, bases with other tails, ensembles: what the examples leave open."""

import numpy as np
import pytest

import cases
import file_cases
import headrace as hr

pytestmark = pytest.mark.programs

BOUNDS = [(0.1, None), (None, 0.7), (1 / 3, 100.1), None]
BASES = {
    "independent": hr.Independent(["normal", "uniform", "logistic", "uniform", "normal", "logistic"]),
    "uniform": hr.Uniform(6),
    "student-t": hr.StudentT(6, [0.5, 1.0, 2.5, 40.0, 1e6, 1e12]),
    "student-t-fixed": hr.StudentT(6, [0.5, 1.0, 2.5, 40.0, 1e6, 1e12], trainable=False),
    "mixture": hr.NormalMixture(6, 3, scale=0.5, seed=1, weights=[1.0, 2.0, 0.5]),
    "mixture-fixed": hr.NormalMixture(6, 4, scale=0.5, seed=2, weights=[0.0, 2.0, 0.0, 1.0], trainable=False),
}


def bounded(dtype, context=0):
    """A flow with columns of every kind of bounds at its end."""
    inner = hr.Coupling(4, [0], (5,), context=context, dtype=dtype)
    return cases.randomise(hr.Flow([inner, hr.Support(BOUNDS)], dtype=dtype), 0.3, "bounded")


def hard_rows(dtype):
    """Rows that are inside, next to a bound, on one, beyond, and not finite beside one that is."""
    x = np.tile(np.array([[1.0, -1.0, 50.0, 0.0]], dtype), (12, 1))
    low, high = np.array([0.1, 0.0, 1 / 3, 0.0], dtype), np.array([0.0, 0.7, 100.1, 0.0], dtype)
    x[0, 0], x[1, 1], x[2, 2], x[3, 2] = low[0], high[1], low[2], high[2]
    x[4, 0], x[5, 2] = -1.0, 200.0
    x[6, 0], x[7, 2] = np.nextafter(low[0], dtype(1)), np.nextafter(high[2], dtype(1))
    x[8, 0], x[8, 3] = -1.0, np.nan
    x[9, 1], x[9, 2] = np.inf, 0.0
    x[10, 3] = np.inf
    return x


# ---- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linear", [False, True])
def test_bounds_without_a_network(runtime, linear, dtype):
    """Where all is computed in float64, rows on a bound have no density either."""
    base = hr.Independent(["uniform", "normal"]) if linear else None
    flow = hr.Flow([hr.Support([(0.1, 0.7), (None, 2.0)], linear=linear)], base, dtype=dtype)
    x = np.array([[0.1, 0.0], [0.7, 0.0], [0.5, 2.0], [0.8, 0.0], [0.3, 1.0], [0.11, -3.0]], dtype)
    loaded = runtime.load(hr.to_bytes(flow), dtype)
    got, want = loaded.log_prob(x), flow.log_prob(x)
    assert np.isneginf(want[:4]).all()
    assert np.isneginf(got[:4]).all()
    cases.assert_close(got[4:].astype(dtype), want[4:])
    assert np.isnan(loaded.to_latent(x)[0][:4]).all()


def test_no_rounding_leads_off_a_uniform_base(runtime):
    flow = hr.RealNVP(2, bounds=[(0.1, 0.7), (-3.0, 5.0)], base="uniform", transforms=4, hidden=(8,))
    flow = cases.randomise(flow, 1.0, "edges")
    share = 10.0 ** cases.rng("edges").uniform(-9, -1, (5000, 2))
    x = np.clip(np.array([0.7, 5.0]) - share, [0.1001, -2.9], [0.69999, 4.999999]).astype("f4")
    want, got = flow.log_prob(x), runtime.load(hr.to_bytes(flow), "float32").log_prob(x)
    assert np.isfinite(want).all()
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, want, atol=0.05)  # steep places near the edge


@pytest.mark.parametrize("reordered", [False, True])
@pytest.mark.parametrize("context", [0, 1])
def test_rows_on_a_bound_or_beyond_have_no_density(runtime, context, reordered, dtype):
    flow = bounded(dtype, context)
    if reordered:
        flow = hr.Flow([*flow.transforms, hr.Permutation([0, 1, 2, 3]), hr.Standardize(np.zeros(4), np.ones(4))])
    loaded, x = runtime.load(hr.to_bytes(flow), dtype), hard_rows(np.dtype(dtype).type)
    given = np.zeros((len(x), 1), dtype) if context else None
    if context:
        given[5] = np.nan
    with np.errstate(all="ignore"):
        want = flow.log_prob(x, given)
    got = loaded.log_prob(x, given)
    assert np.isneginf(want[:5]).all()
    assert np.isnan(want[8:11]).all()
    assert np.isnan(want[5]) if context else np.isneginf(want[5])
    np.testing.assert_array_equal(np.isneginf(got), np.isneginf(want))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    good = np.isfinite(want)
    assert good[[6, 7, 11]].sum() >= 2
    cases.assert_close(got[good].astype(dtype), want[good], magnitude=np.square(want[good]).max(), depth=12)
    for w, g in zip(flow.to_latent(x, given), loaded.to_latent(x, given), strict=True):
        np.testing.assert_array_equal(np.isnan(g), np.isnan(w))
        assert np.isnan(g[~good]).all()


def test_a_support_elsewhere_has_nans_alone(runtime, dtype):
    """Where something is done to rows before, a bound is none of theirs."""
    inner = hr.Support([(0.0, None), None])
    ends = [
        hr.Standardize([0.5, 0.0], [2.0, 1.0]),
        hr.ActNorm(2, dtype=dtype),
        hr.Inverse(hr.Support([(-9.0, 5.0), None])),
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


def test_no_row_comes_out_on_a_bound(runtime, dtype):
    support = hr.Support([(0.1, None), (None, 0.7), (1 / 3, 100.1), (1.0, np.nextafter(1.0, 2.0))])
    module = hr.Flow([support], dtype=dtype)
    loaded = runtime.load(hr.to_bytes(module), dtype)
    z = np.repeat(np.array([-700.0, -90.0, -30.0, 0.0, 30.0, 80.0], dtype)[:, None], 4, axis=1)
    z[0, 1], z[5, 0] = 30.0, 30.0
    with np.errstate(all="ignore"):
        want, got = module.to_data(z), loaded.to_data(z)
    for w, g in zip(want, got, strict=True):
        np.testing.assert_array_equal(np.isnan(g), np.isnan(w))
    same = np.isfinite(want[0]).all(axis=1)
    np.testing.assert_allclose(got[0][same], want[0][same], rtol=8 * np.finfo(dtype).eps)
    x = got[0][same].astype(dtype)
    assert same.sum() >= 4
    assert (x[:, 0] > np.array(0.1, dtype)).all()
    assert (x[:, 1] < np.array(0.7, dtype)).all()
    assert ((x[:, 2] > np.array(1 / 3, dtype)) & (x[:, 2] < np.array(100.1, dtype))).all()


def test_periods_wrap(runtime, dtype):
    module = hr.Support(None, periodic=[(-np.pi, np.pi), (0.0, 24.0), None])
    loaded = runtime.load(hr.to_bytes(module), dtype)
    x = np.array([[0.5, 1.0, 2.0], [-3.0, 0.0, 0.0], [3.1, 24.0, 1.0], [40.0, -30.0, 1.0], [1e30, 0.0, 0.0]], dtype)
    with np.errstate(all="ignore"):
        pairs = [(module.inverse(x), loaded.to_latent(x)), (module.forward(x), loaded.to_data(x))]
    for want, got in pairs:
        for w, g in zip(want, got, strict=True):
            np.testing.assert_allclose(g, w, rtol=0, atol=1e-5 if dtype == "float32" else 1e-14)
        assert (np.abs(pairs[0][1][0][:, :2]) <= 1.0).all()


# ---- bases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASES)
def test_bases_have_the_densities_and_samples_of_python(runtime, name, dtype):
    flow = hr.Flow([], BASES[name], dtype=dtype)
    loaded = runtime.load(hr.to_bytes(flow), dtype)
    seed = 2**63 + 12345
    with np.errstate(all="ignore"):
        want = flow.sample(300, seed=seed)
    got, density = loaded.sample(300, 6, seed, dtype=dtype)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    eps = np.finfo(dtype).eps
    # Of angles near a quarter turn and of u near 1 a number has the last digits of a uniform one.
    np.testing.assert_allclose(got, want, rtol=256 * eps, atol=64 * eps)
    np.testing.assert_array_equal(loaded.sample(3, 6, seed, first_row=297, dtype=dtype)[0], got[297:])
    for scale in (0.5, 1.0, 20.0, 1e30):
        x = scale * cases.rows(50, 6, dtype, name)
        x[3, 1], x[4, 0] = np.nan, 0.0
        with np.errstate(all="ignore"):
            want = flow.log_prob(x)
        for given in (loaded.log_prob(x), density):
            assert not np.isposinf(given).any()
        got = loaded.log_prob(x).astype(dtype)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_array_equal(np.isneginf(got), np.isneginf(want))
        good = np.isfinite(want)
        np.testing.assert_allclose(got[good], want[good], rtol=64 * eps, atol=256 * eps)
    good = np.isfinite(density)
    want = flow.log_prob(loaded.sample(300, 6, seed, dtype=dtype)[0].astype(dtype))
    # Far out, beyond 1e4 sqrt(df), the core takes log(1 + a^2) for 2 log a, which is 1e-8 less.
    np.testing.assert_allclose(density[good], want[good], rtol=64 * eps, atol=max(256 * eps, 1e-8))
    assert good.sum() >= 290


# ---- ensembles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 7, 2**32, 2**64 - 1])
@pytest.mark.parametrize("members", [2, 11])
def test_rows_of_an_ensemble_come_from_the_members_that_python_draws(runtime, members, seed, dtype):
    bases = [hr.StandardNormal(2), hr.StudentT(2, 4.0), hr.Normal(2, 3.0, 0.5), hr.NormalMixture(2, 2)]
    flows = [hr.Flow([hr.Standardize([100.0 * i, 0.0], [1.0, 2.0])], bases[i % 4], dtype=dtype) for i in range(members)]
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
