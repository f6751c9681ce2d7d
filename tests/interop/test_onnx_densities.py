"""Graphs of ONNX of columns with bounds and periods, and of bases with other tails: what the examples leave open."""

import numpy as np
import pytest

import cases
import headrace as hr
from onnx_cases import Session, assert_alike

pytestmark = pytest.mark.programs

BOUNDS = [(0.1, None), (None, 0.7), (1 / 3, 100.1), None]
BASES = {
    "independent": hr.Independent(["normal", "uniform", "logistic", "uniform", "normal", "logistic"]),
    "uniform": hr.Uniform(6),
    "student-t": hr.StudentT(6, [0.01, 1.0, 2.5, 40.0, 1e6, 1e12]),
    "student-t-fixed": hr.StudentT(6, [0.5, 1.0, 2.5, 40.0, 1e6, 1e15], trainable=False),
    "mixture": hr.NormalMixture(6, 3, scale=0.5, seed=1, weights=[1.0, 2.0, 0.5]),
    "mixture-of-one": hr.NormalMixture(6, 1, seed=3),
    "mixture-fixed": hr.NormalMixture(6, 4, scale=0.5, seed=2, weights=[0.0, 2.0, 0.0, 1.0], trainable=False),
}


def test_rows_on_a_bound_or_beyond_have_no_density(tmp_path):
    """Through permutations too, and with a context that is not finite."""
    coupling = hr.Coupling(4, [0], (5,), context=1)
    ends = [hr.Support(BOUNDS), hr.Permutation([2, 0, 3, 1]), hr.Inverse(hr.Permutation([1, 3, 0, 2]))]
    flow = cases.randomise(hr.Flow([coupling, *ends]), 0.3, "bounded")
    y = np.tile(np.array([[1.0, -1.0, 50.0, 0.0]], "f"), (12, 1))
    low, high = np.float32([0.1, 0.0, 1 / 3, 0.0]), np.float32([0.0, 0.7, 100.1, 0.0])
    y[0, 0], y[1, 1], y[2, 2], y[3, 2], y[4, 0], y[5, 2] = low[0], high[1], low[2], high[2], -1.0, 200.0
    y[6, 0], y[7, 2] = np.nextafter(low[0], np.float32(1)), np.nextafter(high[2], np.float32(1))
    y[8, 0], y[8, 3], y[9, 1], y[9, 2], y[10, 3] = -1.0, np.nan, np.inf, 0.0, np.inf
    x = hr.Flow(ends[1:]).to_data(y)[0]
    x[8:11] = y[8:11][:, np.argsort([0, 1, 2, 3])][:, np.argmax(x[11] == y[11][:, None], axis=0)]
    context = np.zeros((12, 1), "f")
    context[5] = np.nan
    with np.errstate(all="ignore"):
        want = flow.log_prob(x, context)
    assert np.isneginf(want[:5]).all()
    assert np.isnan(want[[5, 8, 9, 10]]).all()
    got = Session(flow, "log_prob", tmp_path / "flow.onnx")(x, context)
    np.testing.assert_array_equal(np.isneginf(got), np.isneginf(want))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    for w, g in zip(
        flow.to_latent(x, context), Session(flow, "to_latent", tmp_path / "flow.onnx")(x, context), strict=True
    ):
        np.testing.assert_array_equal(np.isnan(g), np.isnan(w))
        assert np.isnan(g[:6]).all()


def test_no_row_comes_out_on_a_bound(tmp_path):
    support = hr.Support([(0.1, None), (None, 0.7), (1 / 3, 100.1), (1.0, np.nextafter(1.0, 2.0))])
    flow = hr.Flow([support])
    z = np.repeat(np.array([-700.0, -90.0, -30.0, 0.0, 30.0, 80.0], "f")[:, None], 4, axis=1)
    z[0, 1], z[5, 0] = 30.0, 30.0
    with np.errstate(all="ignore"):
        want = flow.to_data(z)
    got = Session(flow, "to_data", tmp_path / "flow.onnx")(z)
    for w, g in zip(want, got, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-6)
    x = got[0][np.isfinite(got[0]).all(axis=1)]
    assert len(x) >= 4
    low, high = np.float32([0.1, 1 / 3]), np.float32([0.7, 100.1])
    assert ((x[:, [0, 2]] > low) & (x[:, [1, 2]] < high)).all()


def test_periods_wrap(tmp_path):
    support = hr.Support([None, None, (0.0, None)], periodic=[(-np.pi, np.pi), (0.0, 24.0), None])
    flow = hr.Flow([support], hr.Uniform(3))
    x = np.array([[0.5, 1.0, 2.0], [-3.0, 0.0, 0.3], [3.1, 24.0, 1.0], [40.0, -30.0, 1.0], [-1e4, 1e4, 1.0]], "f")
    for verb in ("to_latent", "to_data"):
        given = x if verb == "to_latent" else x / 2
        want, got = getattr(flow, verb)(given), Session(flow, verb, tmp_path / "flow.onnx")(given)
        for w, g in zip(want, got, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-6, atol=1e-6)
    got = Session(flow, "log_prob", tmp_path / "flow.onnx")(x)
    np.testing.assert_allclose(got, flow.log_prob(x), rtol=1e-6)


@pytest.mark.parametrize("map", ["rq_spline", "rq_spline_nflows", "rq_spline_free", "rq_spline_flowjax"])
@pytest.mark.parametrize("optimised", [True, False])
def test_no_rounding_leads_off_a_uniform_base(map, optimised, tmp_path):
    """Rows of the whole interval, its ends included, as those that were scaled to it have."""
    chain = [hr.MaskedAutoregressive(2, (8,), map=map, bound=1.0, formula="to_latent", seed=s) for s in range(4)]
    flow = cases.randomise(hr.Flow(chain, hr.Uniform(2)), 0.5, "edges", map)
    rng = cases.rng("edges")
    x = np.tanh(cases.rows(20_000, 2, "float64", "edges")).astype("f4")
    x[:10_000] = (1.0 - 10.0 ** rng.uniform(-9, -2, (10_000, 2))) * rng.choice([-1.0, 1.0], (10_000, 2))
    x[:200] = rng.choice([-1.0, 1.0], (200, 2))
    want = flow.log_prob(x)
    assert np.isfinite(want).all()
    got = Session(flow, "log_prob", tmp_path / "flow.onnx", optimised)(x)
    assert np.isfinite(got).all()
    outside = 2.0 * x[:200]
    for log_prob in (flow.log_prob, Session(flow, "log_prob", tmp_path / "flow.onnx", optimised)):
        assert np.isneginf(log_prob(outside)).all()


@pytest.mark.parametrize("law", ["cauchy", "lognormal", "t3"])
def test_curves_of_heavy_tails_are_as_exact_as_in_float64(law, tmp_path):
    """Knots lie so far apart that float32 has too few digits between the inner ones."""
    rng = cases.rng("heavy tails")
    draws = {
        "cauchy": lambda: rng.standard_cauchy((3000, 2)),
        "lognormal": lambda: np.exp(2.0 * rng.standard_normal((3000, 2))),
        "t3": lambda: rng.standard_t(3, (3000, 2)),
    }
    x = draws[law]().astype("f4")
    flow = hr.NSF(2, transforms=2, hidden=(16,))
    assert flow.fit(x, epochs=2, gaussianize=True, progress=False).gaussianized
    want = flow.astype("float64").log_prob(x.astype(np.float64))
    got = Session(flow, "log_prob", tmp_path / "flow.onnx")(x)
    assert np.abs(got - want).max() < 5e-5  # ten times what was found, and a hundredth of what float32 loses


@pytest.mark.parametrize("name", BASES)
def test_bases_of_every_kind(name, tmp_path):
    flow = hr.Flow([], BASES[name])
    for scale in (0.3, 1.0, 20.0, 1e10, 1e30):
        x = scale * cases.rows(50, 6, "float32", name)
        assert_alike(flow, "log_prob", tmp_path / "flow.onnx", x[:0])
        x[3, 1], x[4] = np.nan, 0.0
        with np.errstate(all="ignore"):
            want = flow.log_prob(x)
        got = Session(flow, "log_prob", tmp_path / "flow.onnx")(x)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_array_equal(np.isneginf(got), np.isneginf(want))
        good = np.isfinite(want)
        np.testing.assert_allclose(got[good], want[good], rtol=4e-6, atol=1e-5)


def test_data_far_from_zero_keep_their_distance_to_a_bound(tmp_path):
    """Bound and mean are both taken away in float64, and nothing is narrowed between."""
    flow = hr.Flow([hr.Standardize([20.0], [1e-6]), hr.Support([(-1e9, None)])])
    x = np.float32(np.exp(20.0) - 1e9) + np.float32(64.0) * np.arange(-8, 8, dtype="f")[:, None]
    want = flow.to_latent(x)[0]
    got = Session(flow, "to_latent", tmp_path / "flow.onnx")(x)[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert np.ptp(want) > 1.0
