"""Rows with NaN, infinity or huge values, no rows, one row or feature: no call crashes, other rows keep their bits."""

import numpy as np
import pytest

import cases
import headrace as hr
import reference
from pairs import pairwise

FEATURES = 6


def masked(dtype, context, **settings):
    dense = cases.made(features=FEATURES, hidden=(18, 15), context=context).astype(dtype)
    return hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, context=context, **settings)


def coupling(dtype, context, **settings):
    dense = cases.dense_network(3, (18, 15), 3, context).astype(dtype)
    return hr.transforms.Coupling.from_dense(
        *dense.arrays, features=FEATURES, passive=[0, 2, 5], context=context, **settings
    )


def vector(kind, dtype, context, **settings):
    return cases.randomise(kind(FEATURES, context=context, hidden=(18, 15), dtype=dtype, **settings))


TRANSFORMS = {
    "MAF": masked,
    "MAF with tanh": lambda dtype, context: masked(dtype, context, activation="tanh"),
    "IAF": lambda dtype, context: masked(dtype, context, reads="latent", activation="silu"),
    "MAF to latent": lambda dtype, context: masked(dtype, context, formula="to_latent", scale="sigmoid"),
    "IAF to latent": lambda dtype, context: masked(dtype, context, reads="latent", formula="to_latent", scale="exp"),
    "coupling": coupling,
    "coupling with tanh": lambda dtype, context: coupling(dtype, context, activation="tanh", formula="to_latent"),
    "planar": lambda dtype, context: vector(hr.transforms.Planar, dtype, context),
    "planar with leaky ReLU": lambda dtype, context: vector(
        hr.transforms.Planar, dtype, context, nonlinearity="leaky_relu"
    ),
    "radial": lambda dtype, context: vector(hr.transforms.Radial, dtype, context),
    "inverse": lambda dtype, context: hr.transforms.Inverse(masked(dtype, context, activation="softplus")),
}
FLOWS = {"MAF": hr.MAF, "IAF": hr.IAF, "RealNVP": hr.RealNVP, "planar": hr.PlanarFlow, "radial": hr.RadialFlow}
POISONS = [np.nan, np.inf, -np.inf]
SIZES = [(1, 0), (5, 2), (9, 4), (97, 0), (200, 99)]  # the number of rows, and the index of the poisoned row

every_transform = pytest.mark.parametrize("name", TRANSFORMS)
every_flow = pytest.mark.parametrize("name", FLOWS)


def flow_of(name, dtype, context=0):
    return cases.randomise(FLOWS[name](FEATURES, context=context, transforms=2, hidden=(18, 15), dtype=dtype), 0.2)


def check_alone(call, given, row, clean):
    """Check that the rows beside a poisoned row keep their bits, and return the results."""
    others = np.arange(len(given)) != row
    results = call(given)
    for got, want in zip(results, clean, strict=True):
        cases.assert_same_bits(got[others], want[others])
    return results


@pairwise(name=TRANSFORMS, poison=POISONS, column=[0, 3, FEATURES - 1], dtype=cases.DTYPES)
def test_a_poisoned_row_is_nan_and_leaves_all_others_alone(name, poison, column, dtype):
    transform = TRANSFORMS[name](dtype, 0)
    for n, row in SIZES:
        clean = cases.rows(n, FEATURES, dtype)
        given = clean.copy()
        given[row, column] = poison
        for direction in (transform.forward, transform.inverse):
            value, _ = check_alone(direction, given, row, direction(clean))
            assert np.isnan(value[row]).any()


@pairwise(name=TRANSFORMS, poison=POISONS, dtype=cases.DTYPES)
def test_a_poisoned_context_row_is_nan_and_leaves_all_others_alone(name, poison, dtype):
    transform = TRANSFORMS[name](dtype, 2)
    for n, row in SIZES:
        given, clean = cases.rows(n, FEATURES, dtype), cases.rows(n, 2, dtype, "context")
        context = clean.copy()
        context[row, 1] = poison
        for direction in (transform.forward, transform.inverse):
            want = direction(given, clean)
            value, _ = check_alone(lambda c, f=direction, g=given: f(g, c), context, row, want)
            assert np.isnan(value[row]).any()


@pytest.mark.parametrize("verb", ["forward", "inverse"])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_context_that_no_output_sees_is_nan_too(core, verb, poison, dtype):
    """A context is checked before the network, because units that no output sees are not computed."""
    masks = [np.ones((4, 3), bool), np.zeros((4, 4), bool)]
    weights = [mask.astype(dtype) for mask in masks]
    transform = hr.transforms.MaskedAutoregressive.from_dense(
        weights, [np.zeros(4, dtype), np.full(4, 0.1, dtype)], masks, context=1
    )
    given, context = cases.rows(9, 2, dtype), np.ones((9, 1), dtype)
    clean = getattr(transform, verb)(given, context)
    context[4] = poison
    for got, want in zip(getattr(transform, verb)(given, context), clean, strict=True):
        assert np.isnan(got[4]).all()
        cases.assert_same_bits(np.delete(got, 4, axis=0), np.delete(want, 4, axis=0))
    for got in getattr(transform, verb)(given, context[4]):
        assert np.isnan(got).all()


@pairwise(name=FLOWS, poison=POISONS, column=[0, FEATURES - 1], input_dtype=cases.DTYPES, dtype=cases.DTYPES)
def test_a_poisoned_row_has_a_log_prob_of_nan(name, poison, column, input_dtype, dtype):
    flow = flow_of(name, dtype)
    for n, row in SIZES:
        clean = cases.rows(n, FEATURES, input_dtype)
        given = clean.copy()
        given[row, column] = poison
        (log_prob,) = check_alone(lambda x: (flow.log_prob(x),), given, row, (flow.log_prob(clean),))
        assert np.isnan(log_prob[row])
        for direction in (flow.to_data, flow.to_latent):
            value, _ = check_alone(direction, given, row, direction(clean))
            assert np.isnan(value[row]).any()


@pairwise(name=FLOWS, poison=POISONS, dtype=cases.DTYPES)
def test_a_poisoned_context_row_has_a_log_prob_of_nan(name, poison, dtype):
    flow = flow_of(name, dtype, context=2)
    for n, row in SIZES:
        x, clean = cases.rows(n, FEATURES, dtype), cases.rows(n, 2, dtype, "context")
        context = clean.copy()
        context[row, 0] = poison
        want = (flow.log_prob(x, clean),)
        (log_prob,) = check_alone(lambda c, x=x: (flow.log_prob(x, c),), context, row, want)
        assert np.isnan(log_prob[row])
        want = flow.sample_and_log_prob(n, clean, seed=1)
        sample, log_prob = check_alone(lambda c, n=n: flow.sample_and_log_prob(n, c, seed=1), context, row, want)
        assert np.isnan(sample[row]).any()
        assert np.isnan(log_prob[row])


@every_transform
def test_many_poisoned_rows_leave_the_others_alone(name, dtype):
    transform = TRANSFORMS[name](dtype, 0)
    clean = cases.rows(200, FEATURES, dtype)
    given, bad = clean.copy(), cases.rng("bad").random(200) < 0.5
    given[bad] = np.nan
    for direction in (transform.forward, transform.inverse):
        for got, want in zip(direction(given), direction(clean), strict=True):
            cases.assert_same_bits(got[~bad], want[~bad])
        assert np.isnan(direction(given)[0][bad]).any(axis=1).all()


@every_transform
def test_poisoned_rows_do_not_affect_later_calls(name, dtype):
    """Scratch memory is used again, so that values of a poisoned batch must not reach the next batch."""
    transform = TRANSFORMS[name](dtype, 0)
    poison = np.full((200, FEATURES), np.nan, dtype)
    for n in cases.BATCH_SIZES:
        clean = cases.rows(n, FEATURES, dtype)
        for direction in (transform.forward, transform.inverse):
            want = direction(clean)
            direction(poison)
            for got, expected in zip(direction(clean), want, strict=True):
                cases.assert_same_bits(got, expected)
                assert np.isfinite(got).all()


@every_transform
def test_no_rows_give_no_rows(name, dtype):
    transform = TRANSFORMS[name](dtype, 2)
    for direction in (transform.forward, transform.inverse):
        for context in (np.zeros((0, 2), dtype), np.zeros((1, 2), dtype), np.zeros(2, dtype)):
            value, log_det = direction(np.zeros((0, FEATURES), dtype), context)
            assert value.shape == (0, FEATURES)
            assert log_det.shape == (0,)
            assert value.dtype == log_det.dtype == np.dtype(dtype)


@every_flow
def test_no_rows_give_no_rows_in_flows(name, dtype):
    flow = flow_of(name, dtype)
    none = np.zeros((0, FEATURES), dtype)
    assert flow.log_prob(none).shape == (0,)
    assert flow.sample(0, seed=1).shape == (0, FEATURES)
    assert [a.shape for a in flow.sample_and_log_prob(0, seed=1)] == [(0, FEATURES), (0,)]
    assert [a.shape for a in flow.to_data(none)] == [(0, FEATURES), (0,)]
    assert flow.log_prob(none).dtype == flow.sample(0, seed=1).dtype == np.dtype(dtype)


@pairwise(name=FLOWS, context=[0, 1], n=[1, 3, 50], dtype=cases.DTYPES)
def test_one_feature_works(name, context, n, dtype):
    flow = cases.randomise(FLOWS[name](1, context=context, transforms=2, hidden=(6, 6), dtype=dtype))
    x = cases.rows(n, 1, dtype)
    row_context = cases.rows(n, context, dtype, "context") if context else None
    z, log_det = flow.to_latent(x, row_context)
    back, back_log_det = flow.to_data(z, row_context)
    cases.assert_close(back, x, magnitude=10.0)
    cases.assert_close(back_log_det, -log_det)
    want = reference.StandardNormal().log_prob(z.astype(float)) + log_det
    cases.assert_close(flow.log_prob(x, row_context), want)
    assert flow.sample(n, row_context, seed=0).shape == (n, 1)


@pairwise(
    activation=reference.ACTIVATIONS,
    reads__formula=[(r, f) for r in cases.READS for f in cases.FORMULAS],
    dtype=cases.DTYPES,
)
def test_huge_inputs_and_huge_weights_do_not_overflow_a_soft_clamp(activation, reads, formula, dtype):
    """A scale between 1e-3 and 1e3 lets 1e30 grow to 1e33 in a coordinate, and no further."""
    dense = cases.made(features=FEATURES, hidden=(18, 15), gain=1.0).astype(dtype)
    transform = hr.transforms.MaskedAutoregressive.from_dense(
        *dense.arrays, activation=activation, reads=reads, formula=formula, scale="soft_clamp"
    )
    given = cases.hard_rows(FEATURES, dtype)
    for direction in (transform.forward, transform.inverse):
        value, log_det = direction(given)
        assert np.isfinite(value).all()
        assert np.abs(log_det).max() <= FEATURES * np.log(1e3) * 1.0001

    loud = [*dense.weights[:-1], dense.weights[-1] * 1e10]
    loud[-1][0::2] = 0  # no shifts: with huge weights shifts grow, and scales do not
    transform = hr.transforms.MaskedAutoregressive.from_dense(
        loud, dense.biases, dense.masks, activation=activation, reads=reads, formula=formula
    )
    given = cases.rows(60, FEATURES, dtype)
    for direction in (transform.forward, transform.inverse):
        value, log_det = direction(given)
        assert np.isfinite(value).all()
        assert np.abs(log_det).max() <= FEATURES * np.log(1e3) * 1.0001


def test_values_beyond_float32_spoil_their_own_row_only():
    transform = masked("float32", 0)
    clean = cases.rows(60, FEATURES, "float64")
    given = clean.copy()
    given[17, 2] = 1e300
    for direction in (transform.forward, transform.inverse):
        value, _ = check_alone(direction, given, 17, direction(clean))
        assert not np.isfinite(value[17]).all()
