"""Rational-quadratic splines: the map by itself, in transforms, and the neural spline flow (Durkan et al. 2019)."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cases
import headrace as hr
import map_cases
import reference
from pairs import pairwise

BINS = (2, 5, 64)
OUTPUTS = reference.MAPS["rq_spline"].parameters
KERNELS = map_cases.KERNELS
every_bins = pytest.mark.parametrize("bins", BINS)
every_direction = pytest.mark.parametrize("direction", KERNELS)
every_kind = pytest.mark.parametrize("coupling", [False, True], ids=["autoregressive", "coupling"])


def raw_parameters(n, bins, spread, dtype, *key):
    """Return the raw parameters of n splines, one for each row."""
    return (spread * cases.rng("raw", n, bins, spread, *key).standard_normal((n, 3 * bins - 1))).astype(dtype)


def through(direction, values, raw, **settings):
    """Apply the spline of each row to the row's values; return values and log-derivatives of all elements."""
    dtype, shape = raw.dtype, values.shape
    flat = np.ascontiguousarray(values, dtype).reshape(-1, 1)
    params = np.ascontiguousarray(np.broadcast_to(raw[:, None], (*shape, raw.shape[1]))).reshape(len(flat), 1, -1)
    value, log_derivative = KERNELS[direction](flat, params, "rq_spline", **settings)
    return value.reshape(shape), log_derivative.reshape(shape)


def knots_of(raw, direction, **settings):
    return reference.spline_knots(raw, **settings)[direction == "inverse"]


# --- the map --------------------------------------------------------------------------------------------------------


@pairwise(bins=BINS, direction=KERNELS, bound=[0.3, 5.0, 100.0], dtype=cases.DTYPES)
def test_raw_parameters_of_zero_are_the_identity(bins, direction, bound, dtype):
    values = np.linspace(-1.2 * bound, 1.2 * bound, 501)[None, :].astype(dtype)
    value, log_derivative = through(direction, values, np.zeros((1, 3 * bins - 1), dtype), bound=bound)
    cases.assert_close(value, values.astype(float), magnitude=bound, depth=8)
    cases.assert_close(log_derivative, np.zeros_like(values, float), magnitude=float(bins))


@pairwise(bins=BINS, direction=KERNELS, spread=[0.5, 3.0], dtype=cases.DTYPES)
def test_the_two_directions_undo_each_other(bins, direction, spread, dtype):
    raw = raw_parameters(40, bins, spread, dtype)
    values = np.linspace(-6.0, 6.0, 257).astype(dtype) + np.zeros((40, 1), dtype)
    value, log_derivative = through(direction, values, raw)
    other = "inverse" if direction == "forward" else "forward"
    back, back_log_derivative = through(other, value, raw)
    params = np.broadcast_to(raw[:, None], (*values.shape, raw.shape[1]))
    stretch, bend = cases.spline_magnitudes(value, params, dtype, inverse=other == "inverse")
    # One rounding of the intermediate value counts like a rounding of the knots.
    cases.assert_close(back.ravel(), values.ravel().astype(float), magnitude=stretch.ravel(), depth=16)
    cases.assert_close(
        back_log_derivative.ravel(), -log_derivative.ravel().astype(float), magnitude=bend.ravel(), depth=16
    )


@every_bins
@every_direction
def test_the_log_derivative_is_that_of_differences(bins, direction):
    raw = raw_parameters(30, bins, 1.0, "float64")
    values = np.linspace(-5.5, 5.5, 301) + np.zeros((30, 1))
    step = 1e-6 / bins
    up, down = through(direction, values + step, raw)[0], through(direction, values - step, raw)[0]
    _, log_derivative = through(direction, values, raw)
    assert_allclose(np.exp(log_derivative), (up - down) / (2.0 * step), rtol=1e-5)


@every_bins
@every_direction
@pytest.mark.parametrize("bound", [0.7, 5.0])
def test_value_and_derivative_are_continuous_at_knots_and_at_the_bound(bins, direction, bound):
    """A step of 1e-10 to either side of a knot changes the value by as much, and the log-derivative slightly more."""
    raw = raw_parameters(30, bins, 1.0, "float64")
    knots = knots_of(raw, direction, bound=bound)
    step = 1e-10 * bound
    left, left_log = through(direction, knots - step, raw, bound=bound)
    right, right_log = through(direction, knots + step, raw, bound=bound)
    at, at_log = through(direction, knots, raw, bound=bound)
    assert np.abs(right - left).max() < 1e-7 * bound
    assert np.abs(right_log - left_log).max() < 1e-5
    assert (left <= at).all()
    assert (at <= right).all()
    assert_allclose(at_log, (left_log + right_log) / 2.0, atol=1e-5)
    assert_allclose(at_log[:, [0, -1]], 0.0, atol=1e-12)  # the tails have derivative one
    x, y, _ = reference.spline_knots(raw, bound=bound)
    assert_allclose(at, x if direction == "inverse" else y, atol=1e-12 * bound)


@every_direction
def test_inner_derivatives_are_those_of_the_parameters(direction):
    raw = raw_parameters(30, 5, 2.0, "float64")
    _, log_derivative = through(direction, knots_of(raw, direction)[:, 1:-1], raw)
    want = reference.LOG_SCALES["soft_clamp"](raw[:, 10:], 1e-3)
    assert_allclose(log_derivative, want if direction == "forward" else -want, rtol=1e-9, atol=1e-9)


EXTREMES = [0.0, 1e-30, 1.0, 40.0, 1e4, 1e30]


@every_bins
@every_direction
def test_nan_parameters_give_nan_also_where_the_spline_is_the_identity(bins, direction, dtype):
    raw = np.zeros((3 * bins - 1, 3 * bins - 1), dtype)
    np.fill_diagonal(raw, np.nan)
    values = np.array([[-7.0, 0.3, 7.0]], dtype) + np.zeros((len(raw), 1), dtype)
    for result in through(direction, values, raw):
        assert np.isnan(result).all()


@pairwise(bins=BINS, direction=KERNELS, slope=[1e-2, 1e-3, 1e-5], dtype=cases.DTYPES)
def test_extreme_parameters_and_values_give_no_nan_and_stay_monotone(bins, direction, slope, dtype):
    generator, rows = cases.rng("extremes", bins), 10 if bins > 32 else 40
    signs = generator.choice([-1.0, 1.0], (rows, 3 * bins - 1))
    raw = (signs * generator.choice(EXTREMES, (rows, 3 * bins - 1))).astype(dtype)
    raw[0], raw[1] = 1e30, -1e30
    raw[2, 0], raw[3, 0] = 1e30, -1e30
    inside = np.linspace(-5.0, 5.0, 1001)
    hard = np.array([0.0, 1e-30, 4.999999, 5.0, 5.000001, 7.0, 1e4, 1e30])
    values = np.sort(np.unique(np.concatenate([inside, hard, -hard]).astype(dtype)))
    values = values + np.zeros((rows, 1), dtype)
    value, log_derivative = through(direction, values, raw, slope=slope)
    assert np.isfinite(value).all()
    assert np.isfinite(log_derivative).all()
    outside = np.abs(values) > 5.0
    cases.assert_same_bits(value[outside], values[outside])
    # Where the spline is steep, rounding may decrease a value by as much as its allowed error.
    params = np.broadcast_to(raw[:, None], (*values.shape, raw.shape[1]))
    stretch, _ = cases.spline_magnitudes(values, params, dtype, slope=slope, inverse=direction == "inverse")
    allowed = cases.tolerance(dtype) * np.maximum(stretch[:, 1:], stretch[:, :-1])
    assert (np.diff(value, axis=1) >= -allowed).all()
    # Slopes of bins lie between slope / bins and bins / slope, derivatives at knots between slope and 1 / slope.
    assert np.abs(log_derivative).max() <= 3.0 * np.log(bins / slope) + 1.0


@every_bins
@every_direction
def test_accuracy_beside_knots_of_extreme_slopes(bins, direction):
    """In float64 knots whose derivatives are a thousand or a thousandth are accurate, in steep and in flat bins.

    Near a knot with slope d errors of the inverse are multiplied by d in the other direction, which has to return the
    value.
    """
    raw = raw_parameters(60, bins, 1.0, "float64")
    signs = cases.rng("signs", bins).choice([-1e4, 1e4], (60, bins - 1))
    raw[:, 2 * bins :] = signs
    knots = knots_of(raw, direction)
    gaps = np.diff(knots, axis=1)
    shares = np.array([1e-15, 1e-12, 1e-9, 1e-6, 1e-3])
    values = np.concatenate(
        [knots[:, :-1, None] + gaps[..., None] * shares, knots[:, 1:, None] - gaps[..., None] * shares], axis=2
    )
    values = values.reshape(60, -1)
    value, log_derivative = through(direction, values, raw)
    back, back_log_derivative = through("inverse" if direction == "forward" else "forward", value, raw)
    params = np.broadcast_to(raw[:, None], (*values.shape, raw.shape[1]))
    magnitude = cases.spline_magnitudes(value, params, "float64", inverse=direction == "forward")
    cases.assert_close(back.ravel(), values.ravel(), magnitude=magnitude[0].ravel())
    cases.assert_close(back_log_derivative.ravel(), -log_derivative.ravel(), magnitude=magnitude[1].ravel())


def test_nan_stays_nan_and_infinity_stays_outside(dtype):
    raw = raw_parameters(1, 8, 1.0, dtype)
    values = np.array([[np.nan, np.inf, -np.inf, 1.0]], dtype)
    for direction in KERNELS:
        value, log_derivative = through(direction, values, raw)
        assert np.isnan(value[0, 0])
        assert not np.isfinite(value[0, 1:3]).any()
        assert np.isfinite([value[0, 3], log_derivative[0, 3]]).all()


# --- transforms -----------------------------------------------------------------------------------------------------


@pairwise(bins=[2, 5, 16, 64], bound=[1.5, 5.0], reads=cases.READS, formula=cases.FORMULAS, dtype=cases.DTYPES)
def test_masked_splines_of_any_bins_and_bound_match_the_reference(bins, bound, reads, formula, dtype):
    dense = cases.made(outputs=OUTPUTS, bins=bins, hidden=(12, 10), features=5, context=1).astype(dtype)
    settings = {"map": "rq_spline", "bound": bound, "slope": 1e-2, "reads": reads, "formula": formula}
    library = hr.transforms.MaskedAutoregressive.from_dense(
        *dense.arrays, context=1, activation="tanh", bins=bins, **settings
    )
    judge = reference.MaskedAutoregressive(dense.network("tanh"), **settings)
    for n in (1, 7, 97):
        given, context = 2.0 * cases.rows(n, 5, dtype), cases.rows(n, 1, dtype, "context")
        cases.check_directions(library, judge, given, context, dtype, depth=512 if bins == 64 else 128)


@pairwise(
    bins=[3, 8],
    layout=["interleaved", "blocked"],
    outputs=[OUTPUTS, ("derivative", "width", "height"), ("height", "derivative", "width")],
    kind=["masked", "coupling"],
    dtype=cases.DTYPES,
)
def test_layouts_and_orders_of_outputs_match_the_reference(bins, layout, outputs, kind, dtype):
    """Interleaved outputs go by coordinate, then by name; blocked outputs go by name, then by coordinate."""
    settings = {"map": "rq_spline", "outputs": outputs, "layout": layout}
    if kind == "masked":
        dense = cases.made(features=5, hidden=(12,), outputs=outputs, layout=layout, bins=bins).astype(dtype)
        library = hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, bins=bins, **settings)
        judge = reference.MaskedAutoregressive(dense.network("relu"), **settings)
    else:
        dense = cases.dense_network(2, (12,), 3, outputs=outputs, layout=layout, bins=bins).astype(dtype)
        library = hr.transforms.Coupling.from_dense(*dense.arrays, features=5, passive=[4, 1], bins=bins, **settings)
        judge = reference.Coupling(dense.network("relu"), 5, [4, 1], **settings)
    cases.check_directions(library, judge, cases.rows(33, 5, dtype), None, dtype, depth=128)
    for got, want, mask in zip(library.to_dense()[0], dense.weights, dense.masks, strict=True):
        assert_array_equal(got, np.where(mask, want, 0))


@every_bins
def test_fresh_splines_are_near_the_identity(bins, dtype):
    z = cases.rows(200, 4, dtype)
    for library in (
        hr.transforms.MaskedAutoregressive(4, map="rq_spline", bins=bins, dtype=dtype),
        hr.transforms.Coupling(4, passive=[0, 2], map="rq_spline", bins=bins, dtype=dtype),
    ):
        for direction in (library.forward, library.inverse):
            value, log_det = direction(z)
            assert np.abs(value - z).max() < 0.3
            assert np.abs(log_det).max() < 0.3


# --- neural spline flows --------------------------------------------------------------------------------------------


def spline_flow(features, coupling, dtype, *, bins=8, bound=5.0, context=0, transforms=3, spread=0.3):
    """Return a flow with random parameters, and its reference."""
    flow = hr.NSF(
        features, context, transforms, (16, 16), coupling=coupling, bins=bins, bound=bound, seed=1, dtype=dtype
    )
    cases.randomise(flow, spread)
    settings = {"map": "rq_spline", "formula": "to_latent", "bound": bound}
    judges = []
    for i, transform in enumerate(flow.transforms[:-1]):
        if coupling:
            passive = list(range(i % 2, features, 2)) if features > 1 else []
            judges.append(cases.mirror_coupling(transform, passive, **settings))
        else:
            judges.append(cases.mirror_masked(transform, **settings))
    assert len(judges) == transforms
    assert isinstance(flow.transforms[-1], hr.transforms.Standardize)
    return flow, reference.Flow(judges, reference.StandardNormal())


@pairwise(coupling=[False, True], features=[1, 2, 5], context=[0, 2], dtype=cases.DTYPES)
def test_spline_flows_match_the_reference(coupling, features, context, dtype):
    flow, judge = spline_flow(features, coupling, dtype, context=context)
    assert (flow.features, flow.context, np.dtype(flow.dtype)) == (features, context, np.dtype(dtype))
    for n in (1, 9, 97):
        x = 2.0 * cases.rows(n, features, dtype)
        row_context = cases.rows(n, context, dtype, "context") if context else None
        cases.assert_matches(flow.to_latent(x, row_context), judge.to_latent(x, row_context), x, dtype, depth=256)
        cases.assert_matches(flow.to_data(x, row_context), judge.to_data(x, row_context), x, dtype, depth=256)
        want = judge.log_prob(x, row_context)
        cases.assert_close(flow.log_prob(x, row_context), want, magnitude=10.0, depth=256)
        sample, log_prob = flow.sample_and_log_prob(n, row_context, seed=3)
        z = flow[:0].sample(n, seed=3)
        cases.assert_close(sample, judge.to_data(z, row_context)[0], magnitude=5.0, depth=256)
        cases.assert_close(log_prob, judge.log_prob(sample, row_context), magnitude=10.0, depth=1024)


@pairwise(coupling=[False, True], bins=BINS, bound=[2.0, 5.0], dtype=cases.DTYPES)
def test_spline_flows_of_any_bins_and_bound_match_the_reference(coupling, bins, bound, dtype):
    flow, judge = spline_flow(4, coupling, dtype, bins=bins, bound=bound, transforms=2)
    x = 2.0 * cases.rows(97, 4, dtype)
    depth = 1024 if bins == 64 else 256
    cases.assert_close(flow.log_prob(x), judge.log_prob(x), magnitude=10.0, depth=depth)
    cases.assert_matches(flow.to_data(x), judge.to_data(x), x, dtype, depth=depth)


@every_kind
def test_the_density_of_one_feature_integrates_to_one(coupling):
    flow, _ = spline_flow(1, coupling, "float64", context=1)
    grid = np.linspace(-12.0, 12.0, 60001)[:, None]
    for context in (-1.0, 0.7):
        density = np.exp(flow.log_prob(grid, np.array([context])))
        assert_allclose(density.sum() * 4e-4, 1.0, rtol=1e-6)


def test_coordinates_take_turns():
    for features in (2, 5):
        flow, _ = spline_flow(features, True, "float64", transforms=4)
        z = cases.rows(20, features, "float64")
        for i, transform in enumerate(flow.transforms[:4]):
            kept = (transform.forward(z)[0] == z).all(axis=0)
            assert kept.nonzero()[0].tolist() == list(range(i % 2, features, 2))


def test_fresh_flows_are_near_the_identity_and_the_seed_chooses_them(dtype):
    for coupling in (False, True):
        flow = hr.NSF(6, coupling=coupling, dtype=dtype)
        x = cases.rows(200, 6, dtype)
        z, log_det = flow.to_latent(x)
        assert np.abs(z - x).max() < 0.5
        assert np.abs(log_det).max() < 0.5
        one, same, other = (hr.NSF(6, coupling=coupling, seed=seed).parameters for seed in (5, 5, 6))
        assert_array_equal(one, same)
        assert np.abs(one - other).max() > 1e-3


def test_values_outside_every_interval_stay_where_they_are(dtype):
    """Splines leave values outside of their intervals unchanged, so that tails of the data are those of the base."""
    flow, _ = spline_flow(3, False, dtype)
    x = np.array([[7.0, -9.0, 1e4], [6.0, 6.0, -6.0], [1e30, 1e20, -1e30]], dtype)
    z, log_det = flow.to_latent(x)
    assert_array_equal(z, x)
    assert not log_det.any()


# --- refusals -------------------------------------------------------------------------------------------------------

MAKERS = {
    "masked": lambda **k: hr.transforms.MaskedAutoregressive(3, map="rq_spline", **k),
    "coupling": lambda **k: hr.transforms.Coupling(3, passive=[0], map="rq_spline", **k),
    "NSF": lambda **k: hr.NSF(3, **k),
    "coupling NSF": lambda **k: hr.NSF(3, coupling=True, **k),
}
BAD_SETTINGS = {
    "one bin": ({"bins": 1}, ["bins", r"\b1\b"]),
    "no bins": ({"bins": 0}, ["bins", r"\b0\b"]),
    "too many bins": ({"bins": 65}, ["bins", r"\b64\b", r"\b65\b"]),
    "bins below zero": ({"bins": -8}, ["bins", "-8"]),
    "bins of a fraction": ({"bins": 8.0}, ["bins", r"8\.0|float"]),
    "bins of a string": ({"bins": "8"}, ["bins", "str|'8'"]),
    "a bound of zero": ({"bound": 0.0}, ["bound", r"\b0"]),
    "a bound below zero": ({"bound": -1.0}, ["bound", "-1"]),
    "a bound of NaN": ({"bound": float("nan")}, ["bound", "nan"]),
    "a bound of infinity": ({"bound": float("inf")}, ["bound", "inf"]),
    "a bound of a string": ({"bound": "five"}, ["bound", "five|str"]),
    "a slope of zero": ({"slope": 0.0}, ["slope", r"\b0"]),
    "a slope of one": ({"slope": 1.0}, ["slope", r"\b1"]),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_settings_are_refused(maker, name):
    keywords, words = BAD_SETTINGS[name]
    with pytest.raises((TypeError, ValueError)) as error:
        MAKERS[maker](**keywords)
    cases.assert_says(error, *words)


@pytest.mark.parametrize("bins", [7, 9])
def test_dense_weights_that_do_not_fit_the_number_of_bins_are_refused(bins):
    dense = cases.made(features=3, hidden=(6,), outputs=OUTPUTS, bins=8)
    with pytest.raises(ValueError, match="weights") as error:
        hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, map="rq_spline", bins=bins)
    cases.assert_says(error, rf"\b{3 * (3 * bins - 1)}\b", r"\b69\b")
    with pytest.raises(ValueError, match="outputs") as error:
        hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, map="rq_spline", outputs=("width", "height"))
    cases.assert_says(error, "derivative")
