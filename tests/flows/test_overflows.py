"""Finite rows whose values overflow inside a chain give NaN on every path through the core."""

import numpy as np
import pytest

import cases
import headrace as hr
from cuda_twins import Twin

FEATURES = 9
# For a pair (size, factor) the chain multiplies by e^size, so that rows times factor overflow, and divides by e^size.
SIZES = {"float32": (60.0, 1e20), "float64": (600.0, 1e100)}
BATCHES = [(1, 0), (3, 1), (7, 6), (8, 0), (20, 7), (200, 190)]  # the number of rows, and the row that overflows
every_batch = pytest.mark.parametrize(("n", "row"), BATCHES)


def flow_of(dtype):
    size, _ = SIZES[dtype]
    transforms = []
    for log_scale in (size, -size, 0.0):
        dense = cases.made(features=FEATURES, hidden=(18, 15), key=("overflow",)).astype(dtype)
        weights = [0.0 * weight for weight in dense.weights]
        biases = [*dense.biases[:-1], np.tile(np.array([0.0, log_scale], dtype), FEATURES)]
        transforms.append(hr.transforms.MaskedAutoregressive.from_dense(weights, biases, dense.masks, scale="exp"))
    return hr.Flow(transforms, hr.StandardNormal(FEATURES))


def batch(dtype, n, row, columns=slice(None)):
    """Return ordinary rows, and a copy in which the values of one row overflow."""
    clean = cases.rows(n, FEATURES, dtype)
    given = clean.copy()
    given[row, columns] *= SIZES[dtype][1]
    return clean, given


def check(call, dtype, n, row, columns):
    clean, given = batch(dtype, n, row, columns)
    assert np.isfinite(given).all()
    others = np.arange(n) != row
    for got, want in zip(call(given), call(clean), strict=True):
        assert np.isnan(got[row]).all()
        assert np.isfinite(want).all()
        cases.assert_same_bits(got[others], want[others])


def calls_of(library):
    return library.to_data, library.to_latent, lambda x: (library.log_prob(x),)


@every_batch
@pytest.mark.parametrize("columns", [slice(None), slice(0, 1), slice(4, 5), slice(FEATURES - 1, None)])
def test_a_row_that_overflows_is_nan_and_leaves_all_others_alone(n, row, columns, dtype):
    for call in calls_of(flow_of(dtype)):
        check(call, dtype, n, row, columns)


@every_batch
def test_a_row_that_overflows_on_a_device(n, row, dtype, device):
    for call in calls_of(Twin(device, flow_of(dtype))):
        check(call, dtype, n, row, slice(4, 5))


def test_an_overflow_at_the_end_of_a_chain_spoils_its_log_determinant_too(core, dtype):
    """A coordinate that overflows last spoils its row, although no later network reads it and all slopes are finite."""
    check(flow_of(dtype).transforms[1].inverse, dtype, 20, 7, slice(4, 5))


def test_parameters_have_no_gradient_where_a_density_overflows(core, dtype):
    """A row with a finite latent and log-determinant has the log density -inf if the squares of the latent overflow."""
    shift = hr.transforms.MaskedAutoregressive(3, hidden=(), map="additive", dtype=dtype)
    flow = hr.Flow([cases.randomise(shift)], hr.StandardNormal(3))
    x = cases.rows(20, 3, dtype)
    x[7] = {"float32": 1e25, "float64": 1e200}[dtype]
    loss, gradient = flow.nll_and_grad(x)
    assert not np.isfinite(loss)
    assert np.isfinite(flow.to_latent(x)[0]).all()
    assert np.isnan(gradient[flow.parameters != 0]).all()


def check_gradients(vjp, dtype, n, row):
    """The gradient of a row that overflows is NaN, and so is the gradient of the weights, a sum over rows."""
    clean, given = batch(dtype, n, row)
    others, ones = np.arange(n) != row, np.ones(n, dtype)
    by_input, by_weights = vjp(given, ones)
    assert np.isnan(by_input[row]).all()
    assert np.isnan(by_weights).any()
    by_clean_input, by_clean_weights = vjp(clean, ones)
    cases.assert_same_bits(by_input[others], by_clean_input[others])
    assert np.isfinite(by_clean_weights).all()


@every_batch
def test_gradients_of_a_row_that_overflows(n, row, dtype):
    check_gradients(flow_of(dtype).log_prob_vjp, dtype, n, row)


@every_batch
def test_gradients_of_a_row_that_overflows_on_a_device(n, row, dtype, device):
    twin = Twin(device, flow_of(dtype))
    check_gradients(lambda *a: twin.log_prob_vjp(*a, wrt=("inputs", "parameters")), dtype, n, row)


@every_batch
def test_a_row_far_from_everything_has_a_log_prob_of_minus_infinity(n, row, device):
    """The latent of a row far out is finite, and only the logarithm of its density is below all values of the dtype."""
    flow = hr.Flow(flow_of("float32").transforms[2:], hr.StandardNormal(FEATURES))
    _, given = batch("float32", n, row)
    for library in (flow, Twin(device, flow)):
        assert np.isfinite(library.to_latent(given)[0]).all()
        log_prob = library.log_prob(given)
        assert log_prob[row] == -np.inf
        assert np.isfinite(np.delete(log_prob, row)).all()
