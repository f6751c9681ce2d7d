"""Rare cases in which derivatives were once wrong."""

import numpy as np
import pytest

import cases
import headrace as hr
from headrace._core import cpu


@pytest.mark.parametrize("n", [1, 9, 16, 20])
def test_lanes_past_the_last_row_spoil_no_bias(n):
    """Lanes past the last row have zeros, for which this network overflows: 0 times infinity is NaN."""
    weights = [np.array([[0.0, 0.0], [0.2, 0.0], [0.0, 0.0], [0.2, 0.0]], "f4")]
    masks = [np.array([[0, 0], [0, 0], [1, 0], [1, 0]], bool)]
    biases = [np.array([0.0, 0.0, 0.0, -200.0], "f4")]
    flow = hr.Flow([hr.transforms.MaskedAutoregressive.from_dense(weights, biases, masks, scale="exp")])
    x = (np.array([1000.0, 0.0]) + cases.rows(n, 2, "float64", "beyond")).astype("f4")
    loss, gradient = flow.nll_and_grad(x)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()


def test_a_coordinate_that_is_read_and_passes_through_gets_both_gradients():
    """The core must be right although no present class makes such a transform in the sequential direction."""
    options = cpu.MaskedOptions(
        features=3,
        context=0,
        reads=[0, 1],
        active=[1, 2],
        map="affine",
        variant="soft_clamp",
        slope=1e-3,
        bins=8,
        bound=5.0,
        activation="tanh",
        reads_data=True,
        formula_to_data=True,
    )
    core = cpu.MaskedTransform(options, [1, 2, 3], [[1, 1, 2, 2]])
    program = cpu.ProgramF64(3, 0, "", [cpu.NetworkStep(inverted=False, transform=core)], 0, [], [])
    program.set_weights(cases.rng("both gradients").standard_normal(program.n_weights))
    z = cases.rows(12, 3, "float64", "both gradients")
    cotangent = cases.rows(12, 3, "float64", "cotangent")
    by_row = cases.rng("by row").standard_normal(12)

    def total(rows):
        value, log_det = np.empty_like(rows), np.empty(len(rows))
        program.transform(False, rows, value, log_det)
        return (value * cotangent).sum(axis=1) + log_det * by_row

    got = np.empty_like(z)
    program.gradient(False, False, z, grad_value=cotangent, grad_row=by_row, grad_input=got)
    for column, step in enumerate(1e-6 * np.eye(3)):
        want = (total(z + step) - total(z - step)) / 2e-6
        np.testing.assert_allclose(got[:, column], want, atol=1e-7)


def test_the_density_of_computed_coordinates_has_a_gradient_too():
    """The gradient of the log density of samples by their latent rows includes the term of the log-determinant."""
    flow = cases.randomise(hr.MAF(3, transforms=2, hidden=(8,), activation="tanh", base=hr.Normal(3), dtype="float64"))
    z, weights = cases.rows(20, 3, "float64", "density"), cases.rng("weights").random(20)

    def log_prob(rows, parameters=None):
        out = np.empty(len(rows))
        flow._program.from_noise(rows, log_prob=out, parameters=parameters)
        return out

    by_z, by_parameters = np.empty_like(z), np.empty_like(flow.parameters)
    flow._program.gradient(False, True, z, grad_row=weights, grad_input=by_z, grad_weights=by_parameters)
    for column, step in enumerate(1e-6 * np.eye(3)):
        want = weights * (log_prob(z + step) - log_prob(z - step)) / 2e-6
        np.testing.assert_allclose(by_z[:, column], want, atol=1e-7)
    direction = 1e-6 * cases.rng("direction").standard_normal(by_parameters.size) * (flow.parameters != 0)
    there, back = (log_prob(z, flow.parameters + sign * direction) for sign in (1.0, -1.0))
    np.testing.assert_allclose(by_parameters @ direction, (weights * (there - back)).sum() / 2.0, atol=1e-11)


@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_one_context_row_gets_a_gradient_of_its_shape(n):
    t = cases.randomise(hr.transforms.MaskedAutoregressive(4, (9,), context=3, dtype="float64"))
    z, context = cases.rows(n, 4, "float64"), cases.rng("context").standard_normal(3)
    cotangents = cases.rows(n, 4, "float64", "value"), cases.rng("row").standard_normal(n)
    (alone,) = t.forward_vjp(z, *cotangents, context, wrt=("context",))
    (each,) = t.forward_vjp(z, *cotangents, np.tile(context, (n, 1)), wrt=("context",))
    assert alone.shape == (3,)
    np.testing.assert_allclose(alone, each.sum(axis=0), atol=1e-12)


def test_a_flow_keeps_its_context_scale_when_it_is_taken_apart():
    scale = np.array([2.0, -1.0]), np.array([3.0, 0.5])
    flow = cases.randomise(hr.MAF(3, context=2, transforms=2, hidden=(8,), dtype="float64"))
    same = hr.Flow(flow.transforms, flow.base, standardize_context=scale)
    x, context = cases.rows(20, 3, "float64"), cases.rows(20, 2, "float64", "context")
    want = flow.log_prob(x, (context - scale[0]) / scale[1])
    np.testing.assert_allclose(same.log_prob(x, context), want, atol=1e-12)
    again = hr.Flow(same.transforms, same.base, standardize_context=same.standardize_context)
    cases.assert_same_bits(again.log_prob(x, context), same.log_prob(x, context))
    one = flow.log_prob(x, (context[0] - scale[0]) / scale[1])
    np.testing.assert_allclose(same.log_prob(x, context[0]), one, atol=1e-12)
    assert same[:1].standardize_context is not None
    for bad in (scale[0], (scale[0], -scale[1]), (scale[0][:1], scale[1])):
        with pytest.raises((TypeError, ValueError), match="standardize_context"):
            hr.Flow(flow.transforms, flow.base, standardize_context=bad)


def test_a_slope_too_small_for_a_spline_is_refused():
    with pytest.raises(ValueError, match="slope"):
        hr.NSF(3, slope=1e-9)
    with pytest.raises(ValueError, match="slope"):
        hr.ops.coupling(np.zeros((1, 1)), np.zeros((1, 1, 5)), "rq_spline", slope=1e-9)
