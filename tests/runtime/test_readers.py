"""Readers of files without the core have the core's results."""

import numpy as np
import pytest

import cases
import headrace as hr
import network_cases
import overflow_cases
import reference
from readers import REFUSED, assert_alike

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


@pytest.mark.parametrize("name", network_cases.NETWORKS)
@pytest.mark.parametrize("reads", cases.READS)
def test_networks_of_every_kind(reader, name, reads):
    dense, network, joins = network_cases.made(
        name,
        context=2 if name in network_cases.NEEDS_CONTEXT else 0,
        change=lambda masks, g: cases.kill_units(cases.pin_zeros(masks, g), g),
        dtype=reader.dtype,
    )
    flow = hr.Flow([network_cases.subject(dense, network, joins, reads=reads).library])
    given, context = network_cases.rows_of(dense, 20, reader.dtype)
    parallel = "to_latent" if reads == "data" else "to_data"
    for verb in ("to_latent", "to_data"):
        assert assert_alike(reader, flow, verb, given, context) or reader.name == "zuko" or verb != parallel


@pytest.mark.parametrize("map", reference.MAPS)
@pytest.mark.parametrize("layout", ["interleaved", "blocked"])
@pytest.mark.parametrize("formula", cases.FORMULAS)
def test_every_map_and_order_of_rows(reader, map, layout, formula):
    outputs = reference.MAPS[map].parameters[::-1]
    dense = cases.made(4, (8,), outputs=outputs, layout=layout, bins=5, map=map, gain=0.7).astype(reader.dtype)
    settings = {"bins": 5, "outputs": outputs, "layout": layout, "formula": formula, "bound": 2.0}
    flow = hr.Flow([hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, map=map, **settings)])
    for verb in ("to_latent", "log_prob"):
        is_known = assert_alike(reader, flow, verb, 2.0 * cases.rows(200, 4, reader.dtype, map))
        assert is_known or reader.name == "zuko" or (map in REFUSED and reader.name != "header")


@pytest.mark.parametrize("scale", ["soft_clamp", "exp", "softplus", "sigmoid"])
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_every_scale_and_activation(reader, scale, activation):
    settings = {"scale": scale, "slope": 0.01, "activation": activation, "dtype": reader.dtype}
    t = cases.randomise(hr.transforms.Coupling(4, [2], (7, 6), context=1, **settings))
    alone = hr.transforms.Coupling(4, [], (5,), context=1, dtype=reader.dtype)
    flow = hr.Flow([t, alone, hr.transforms.Elementwise(4, map="affine", dtype=reader.dtype)])
    x, context = cases.rows(50, 4, reader.dtype), cases.rows(50, 1, reader.dtype, "context")
    for verb in ("log_prob", "to_latent", "to_data"):
        assert assert_alike(reader, flow, verb, x, context) or reader.name == "zuko"


def test_networks_without_inputs_and_one_feature(reader):
    """A network that depends on no coordinate is parallel in both directions, for either value of `reads`."""
    alone = hr.transforms.Coupling(3, [], (4,), dtype=reader.dtype)
    for t in (alone, hr.transforms.MaskedAutoregressive(1, (5,), context=2, dtype=reader.dtype)):
        flow = hr.Flow([cases.randomise(t, 0.5)])
        x = cases.rows(9, flow.features, reader.dtype)
        context = cases.rows(9, 2, reader.dtype, "context") if flow.context else None
        for verb in ("log_prob", "to_latent", "to_data"):
            assert assert_alike(reader, flow, verb, x, context)


def test_data_far_from_zero_keep_the_digits_of_their_dtype(whole_reader):
    """The mean is subtracted in float64, so that all digits of the rows' dtype are kept."""
    flow = hr.Flow([hr.transforms.Standardize([123456.7], [0.25])], dtype=whole_reader.dtype)
    x = (123456.7 + 0.25 * np.linspace(-2, 2, 50)).astype(whole_reader.dtype)[:, None]
    got = whole_reader.to_latent(flow, x)[0]
    np.testing.assert_allclose(got, (x.astype(np.float64) - 123456.7) / 0.25, rtol=1e-6, atol=1e-6)


# ---- hard inputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_units_whose_sums_overflow_have_the_results_of_the_core(whole_reader, activation, sign):
    # PyTorch's activation functions may differ where a sum overflows.
    differs = whole_reader.name == "plain" and activation in ("gelu", "gelu_tanh", "silu")
    if whole_reader.dtype == "float32" and not differs:
        overflow_cases.check_units(activation, sign, lambda flow: lambda x: whole_reader.to_latent(flow, x))


@pytest.mark.parametrize("map", [name for name in reference.MAPS if name.startswith("rq_spline")])
def test_parameters_that_overflow_spoil_a_row_outside_of_the_interval_too(whole_reader, map):
    if whole_reader.dtype == "float32" and whole_reader.name != "plain":
        overflow_cases.check_parameters_of_splines(map, lambda flow: lambda x: whole_reader.to_latent(flow, x))


# ---- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [0, 1])
def test_rows_on_a_bound_or_beyond_have_no_density(whole_reader, context):
    """Bounds hold even behind permutations, and with a context that is not finite."""
    dtype = np.dtype(whole_reader.dtype).type
    coupling = hr.transforms.Coupling(4, [0], (5,), context=context, dtype=dtype)
    orders = [2, 0, 3, 1], [1, 3, 0, 2]
    ends = [
        hr.transforms.Support(BOUNDS),
        hr.transforms.Permutation(orders[0]),
        hr.transforms.Inverse(hr.transforms.Permutation(orders[1])),
    ]
    flow = cases.randomise(hr.Flow([coupling, *ends]), 0.3, "bounded")
    y = np.tile(np.array([[1.0, -1.0, 50.0, 0.0]], dtype), (12, 1))
    low, high = np.array([0.1, 0.0, 1 / 3, 0.0], dtype), np.array([0.0, 0.7, 100.1, 0.0], dtype)
    y[0, 0], y[1, 1], y[2, 2], y[3, 2], y[4, 0], y[5, 2] = low[0], high[1], low[2], high[2], -1.0, 200.0
    y[6, 0], y[7, 2] = np.nextafter(low[0], dtype(1)), np.nextafter(high[2], dtype(1))
    y[8, 0], y[8, 3], y[9, 1], y[9, 2], y[10, 3] = -1.0, np.nan, np.inf, 0.0, np.inf
    x = y[:, orders[0]][:, np.argsort(orders[1])]
    given = np.zeros((12, 1), dtype) if context else None
    if context:
        given[5] = np.nan
    with np.errstate(all="ignore"):
        want = flow.log_prob(x, given)
    assert np.isneginf(want[:5]).all()
    assert np.isnan(want[8:11]).all()
    assert np.isnan(want[5]) if context else np.isneginf(want[5])
    got = whole_reader.log_prob(flow, x, given)
    np.testing.assert_array_equal(np.isneginf(got), np.isneginf(want))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    good = np.isfinite(want)
    assert good[[6, 7, 11]].sum() >= 2
    cases.assert_close(got[good], want[good], magnitude=np.square(want[good]).max(), depth=12)
    for w, g in zip(flow.to_latent(x, given), whole_reader.to_latent(flow, x, given), strict=True):
        np.testing.assert_array_equal(np.isnan(g), np.isnan(w))
        assert np.isnan(g[~good]).all()


@pytest.mark.parametrize("map", ["affine", *(name for name in reference.MAPS if name.startswith("rq_spline"))])
def test_no_rounding_leads_off_a_uniform_base(whole_reader, map):
    """Rows cover the whole interval; for splines, which end at the interval's ends, rows include the ends."""
    dtype, rng = whole_reader.dtype, cases.rng("edges")
    if map == "affine":
        flow = hr.RealNVP(2, bounds=[(0.1, 0.7), (-3.0, 5.0)], base="uniform", transforms=4, hidden=(8,), dtype=dtype)
        flow = cases.randomise(flow, 1.0, "edges")
        share = 10.0 ** rng.uniform(-9, -1, (5000, 2))
        x = np.clip(np.array([0.7, 5.0]) - share, [0.1001, -2.9], [0.69999, 4.999999]).astype(dtype)
    else:
        settings = {"map": map, "bound": 1.0, "formula": "to_latent", "dtype": dtype}
        chain = [hr.transforms.MaskedAutoregressive(2, (8,), seed=s, **settings) for s in range(4)]
        flow = cases.randomise(hr.Flow(chain, hr.Uniform(2)), 0.5, "edges", map)
        x = np.tanh(cases.rows(20_000, 2, "float64", "edges")).astype(dtype)
        x[:10_000] = (1.0 - 10.0 ** rng.uniform(-9, -2, (10_000, 2))) * rng.choice([-1.0, 1.0], (10_000, 2))
        x[:200] = rng.choice([-1.0, 1.0], (200, 2))
        outside = 2.0 * x[:200]
        for log_prob in (flow.log_prob, lambda given: whole_reader.log_prob(flow, given)):
            assert np.isneginf(log_prob(outside)).all()
    want, got = flow.log_prob(x), whole_reader.log_prob(flow, x)
    assert np.isfinite(want).all()
    assert np.isfinite(got).all()
    if map == "affine":
        np.testing.assert_allclose(got, want, atol=0.05)  # the map is steep near the edge


def test_no_row_comes_out_on_a_bound(whole_reader):
    dtype = whole_reader.dtype
    support = hr.transforms.Support([(0.1, None), (None, 0.7), (1 / 3, 100.1), (1.0, np.nextafter(1.0, 2.0))])
    flow = hr.Flow([support], dtype=dtype)
    z = np.repeat(np.array([-700.0, -90.0, -30.0, 0.0, 30.0, 80.0], dtype)[:, None], 4, axis=1)
    z[0, 1], z[5, 0] = 30.0, 30.0
    with np.errstate(all="ignore"):
        want, got = flow.to_data(z), whole_reader.to_data(flow, z)
    for w, g in zip(want, got, strict=True):
        np.testing.assert_array_equal(np.isnan(g), np.isnan(w))
    same = np.isfinite(want[0]).all(axis=1)
    np.testing.assert_allclose(got[0][same], want[0][same], rtol=8 * np.finfo(dtype).eps)
    x = got[0][same]
    assert same.sum() >= 4
    low, high = np.array([0.1, 1 / 3], dtype), np.array([0.7, 100.1], dtype)
    assert ((x[:, [0, 2]] > low) & (x[:, [1, 2]] < high)).all()


def test_periods_wrap(whole_reader):
    dtype = whole_reader.dtype
    support = hr.transforms.Support([None, None, (0.0, None)], periodic=[(-np.pi, np.pi), (0.0, 24.0), None])
    flow = hr.Flow([support], hr.Uniform(3), dtype=dtype)
    x = np.array([[0.5, 1.0, 2.0], [-3.0, 0.0, 0.3], [3.1, 24.0, 1.0], [40.0, -30.0, 1.0], [-1e4, 1e4, 1.0]], dtype)
    limit = 1e-6 if dtype == "float32" else 1e-12
    for verb in ("to_latent", "to_data", "log_prob"):
        given = x / 2 if verb == "to_data" else x
        want, got = getattr(flow, verb)(given), getattr(whole_reader, verb)(flow, given)
        for w, g in zip(want, got, strict=True) if verb != "log_prob" else [(want, got)]:
            np.testing.assert_allclose(g, w, rtol=limit, atol=limit)


def test_data_far_from_zero_keep_their_distance_to_a_bound(whole_reader):
    """The bound and the mean are both subtracted in float64, without rounding to float32 in between."""
    flow = hr.Flow(
        [hr.transforms.Standardize([20.0], [1e-6]), hr.transforms.Support([(-1e9, None)])], dtype=whole_reader.dtype
    )
    x = (np.float32(np.exp(20.0) - 1e9) + np.float32(64.0) * np.arange(-8, 8, dtype="f")[:, None]).astype(flow.dtype)
    want, got = flow.to_latent(x)[0], whole_reader.to_latent(flow, x)[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert np.ptp(want) > 1.0


# ---- bases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASES)
def test_bases_of_every_kind(whole_reader, name):
    dtype = whole_reader.dtype
    flow, eps = hr.Flow([], BASES[name], dtype=dtype), np.finfo(dtype).eps
    for scale in (0.3, 1.0, 20.0, 1e10, 1e30):
        x = (scale * cases.rows(50, 6, dtype, name)).astype(dtype)
        assert whole_reader.log_prob(flow, x[:0]).shape == (0,)
        x[3, 1], x[4] = np.nan, 0.0
        with np.errstate(all="ignore"):
            want, got = flow.log_prob(x), whole_reader.log_prob(flow, x)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_array_equal(np.isneginf(got), np.isneginf(want))
        good = np.isfinite(want)
        # Beyond 1e4 sqrt(df) a float32 core computes log(1 + a^2) as 2 log a, which is 1e-8 less.
        np.testing.assert_allclose(got[good], want[good], rtol=64 * eps, atol=max(256 * eps, 1e-8))
