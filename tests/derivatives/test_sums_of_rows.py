"""Gradients of weights are sums over rows, right to the last digits of float32 for any number of rows."""

import numpy as np
import pytest

import cases
import gradients
import headrace as hr
from cuda_twins import Twin

# The last digit of a float32 of size one.
UNIT = 2.0**-23


def flow_of(dtype):
    """A flow whose gradient by the shift is minus the row, because all raw parameters are 0."""
    return hr.Flow([hr.transforms.Elementwise(2, map="affine", dtype=dtype)], hr.StandardNormal(2))


def equal_rows(n):
    """Return equal rows: sums of 128 and of 2^15 rows are float32 values, and a sum of 2^16 rows is not."""
    return np.broadcast_to(np.array([1.0 + 2.0**-16, -1.0 - 2.0**-15], np.float32), (n, 2))


def shifts(library, gradient):
    """Return the gradient by both shifts."""
    return gradients.dense_gradient(library, gradient)[0][:, 0]


@pytest.mark.parametrize("n", [8192, 8193, 2**15, 2**16 + 37, 2**18, 2**20 + 1])
def test_equal_rows_add_up(n, set_threads):
    flow, rows = flow_of("float32"), equal_rows(n)
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        results.append(flow.log_prob_vjp(rows, np.ones(n, "float32"))[1])
    cases.assert_same_bits(results[0], results[1])
    cases.assert_same_bits(results[0], results[2])
    np.testing.assert_allclose(shifts(flow, results[0]), -n * rows[0].astype(float), rtol=UNIT)


@pytest.mark.long
@pytest.mark.parametrize("n", [2**16 + 37])
def test_equal_rows_add_up_on_a_device(n, device):
    flow, rows = flow_of("float32"), equal_rows(n)
    twin = Twin(device, flow)
    (gradient,) = twin.log_prob_vjp(np.ascontiguousarray(rows), np.ones(n, "float32"), wrt=("parameters",))
    np.testing.assert_allclose(shifts(flow, gradient), -n * rows[0].astype(float), rtol=UNIT)


@pytest.mark.parametrize("n", [300_000])
def test_chains_of_many_rows(n):
    """Gradients of affine, planar and radial maps are within a few units of float64, where sums are not near 0."""
    single = hr.Flow(
        [hr.transforms.Elementwise(2, map="affine"), hr.transforms.Planar(2), hr.transforms.Radial(2)],
        hr.StandardNormal(2),
    )
    double = single.astype("float64")
    rows = np.tile(np.array([[3.0, -1.0]], "float32"), (n, 1))
    got, want = single.nll_and_grad(rows)[1], double.nll_and_grad(rows)[1]
    summed_in_float32 = single.nll_and_grad(rows[:8192])[1]  # 8192 rows are summed in float32
    assert np.abs(summed_in_float32 - want).max() <= 2e-6 * np.abs(want).max()
    assert np.abs(got - want).max() <= 2e-6 * np.abs(want).max()


def test_the_gradient_of_masked_networks_is_that_of_parts_summed_in_float64():
    flow = cases.randomise(hr.MAF(5, transforms=2, hidden=(40, 30)), 0.2)
    rows = cases.rows(30_000, 5, "float32")
    got = flow.log_prob_vjp(rows, np.ones(len(rows), "float32"))[1]
    want = 0.0
    for begin in range(0, len(rows), 8192):
        part = rows[begin : begin + 8192]
        want = want + flow.log_prob_vjp(part, np.ones(len(part), "float32"))[1].astype("float64")
    np.testing.assert_array_equal(got, want.astype("float32"))
