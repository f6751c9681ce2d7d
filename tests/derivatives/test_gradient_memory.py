"""Every entry of a gradient is written, and includes the scale of the context and the slope of any base."""

import numpy as np
import pytest

import cases
import gradients
import headrace as hr
from headrace._arrays.caller import Caller


@pytest.mark.parametrize("reads", cases.READS)
def test_every_entry_of_a_gradient_is_written(reads, dtype, monkeypatch):
    """Even entries of padding, and of units without a reader, are written, for any old contents of the memory."""
    dense = cases.made(features=8, hidden=(24, 20), context=2, change=cases.kill_units).astype(dtype)
    library = hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays, context=2, reads=reads, activation="tanh")
    given, context = cases.rows(33, 8, dtype), cases.rows(33, 2, dtype, "context")
    want = [gradients.call(library, verb, given, context)["parameters"] for verb in gradients.TRANSFORM_VERBS]
    monkeypatch.setattr(Caller, "empty", lambda self, shape, dtype: np.full(shape, np.nan, dtype))
    for verb, expected in zip(gradients.TRANSFORM_VERBS, want, strict=True):
        cases.assert_same_bits(gradients.call(library, verb, given, context)["parameters"], expected)


def test_the_gradient_by_a_standardised_context_is_that_by_the_context_given():
    x, context = cases.rows(20, 3, "float64"), cases.rows(20, 2, "float64", "context")
    scale = np.array([1.0, -2.0]), np.array([0.5, 30.0])
    flow = hr.Flow(hr.MAF(3, context=2, hidden=(16,)).transforms, standardize_context=scale)
    flow = flow.astype("float64")
    flow.parameters = 0.3 * cases.rng("scaled context").standard_normal(flow.parameters.size)
    (got,) = flow.log_prob_vjp(x, np.ones(20), context, wrt=("context",))
    step = 1e-6 * np.array([0.5, 30.0])
    for column in range(2):
        moved = np.zeros(2)
        moved[column] = step[column]
        want = (flow.log_prob(x, context + moved) - flow.log_prob(x, context - moved)) / (2.0 * step[column])
        np.testing.assert_allclose(got[:, column], want, rtol=1e-6, atol=1e-7)


def test_the_slope_of_the_logistic_base_is_known(dtype):
    """The derivative of -z - 2 log(1 + e^-z) by z is -tanh(z / 2)."""
    x = np.linspace(-8.0, 8.0, 33).astype(dtype)[:, None]
    flow = hr.Flow([hr.transforms.Elementwise(1, map="affine")], hr.Logistic(1)).astype(dtype)
    flow.parameters = np.zeros_like(flow.parameters)
    (got,) = flow.log_prob_vjp(x, np.ones(len(x), dtype), wrt=("inputs",))
    np.testing.assert_allclose(got, -np.tanh(0.5 * x.astype(float)), rtol=1e-5, atol=1e-6)
