"""Linear prediction over time: both directions, stability, gradients, states, and coefficients by Levinson's
recursion."""

import copy

import numpy as np
import pytest

import cases
import headrace as hr
import reference
from headrace.sequences.prediction import levinson

# Tolerances for sums of up to 32 products in another order; the recursion carries their rounding errors to later steps.
TOLERANCES = {"float64": 1e-11, "float32": 3e-5}


def prediction(features, order, dtype="float64", size=1.0):
    t = hr.LinearPrediction(features, order=order, dtype=dtype)
    theta = size * cases.rng("reflection", features, order).standard_normal((features, order)) / np.sqrt(order)
    t.set_parameter("reflection", theta.astype(dtype))
    return t


def flow_of(t):
    """A flow of a transform over time, with a network that is the identity, because a flow of sequences needs one."""
    network = hr.CausalConvolution(t.features, channels=1, dilations=[1], map="affine", dtype=t.dtype)
    network.set_parameter("head.1.weight", np.zeros_like(network.named_parameters()["head.1.weight"]))
    return hr.SequenceFlow([network, t])


@pytest.mark.parametrize(("features", "order", "steps"), [(1, 1, 1), (1, 32, 300), (3, 2, 50), (2, 5, 3), (1, 8, 257)])
def test_both_directions_are_those_of_the_reference(features, order, steps, dtype):
    t, x = prediction(features, order, dtype), cases.rng("x").standard_normal((4, steps, features)).astype(dtype)
    judge = reference.LinearPrediction(t.named_parameters()["reflection"])
    flow = flow_of(t)
    z, log_det = flow.to_latent(x)
    assert z.dtype == dtype
    expected, steps_of = judge.inverse(x)
    np.testing.assert_allclose(z, expected, rtol=0, atol=TOLERANCES[dtype] * np.abs(expected).max())
    np.testing.assert_allclose(log_det, steps_of.sum(axis=1), rtol=TOLERANCES[dtype])
    back, log_det = flow.to_data(x)
    expected, steps_of = judge.forward(x)
    np.testing.assert_allclose(back, expected, rtol=0, atol=TOLERANCES[dtype] * np.abs(expected).max())
    np.testing.assert_allclose(log_det, steps_of.sum(axis=1), rtol=TOLERANCES[dtype])


def test_the_log_determinant_is_that_of_the_jacobian():
    flow = flow_of(prediction(2, 3))
    matrix = np.stack([flow.to_latent(one.reshape(6, 2))[0].reshape(-1) for one in np.eye(12)])
    np.testing.assert_allclose(np.linalg.slogdet(matrix)[1], flow.to_latent(np.zeros((6, 2)))[1], rtol=1e-12)


@pytest.mark.parametrize("size", [0.3, 3.0, 30.0])
def test_the_filter_is_stable_for_any_parameters(size):
    t = prediction(1, 6, size=size)
    poles = np.roots(np.concatenate([[1.0], -t.coefficients[0]]))
    assert (np.abs(poles) < 1.0 + 1e-6).all()


def test_a_residual_of_variance_one_makes_a_process_of_variance_one():
    t = prediction(1, 4)
    impulse = np.zeros((4000, 1))
    impulse[0] = 1.0
    response, _ = flow_of(t).to_data(impulse)
    np.testing.assert_allclose(np.square(response).sum(), 1.0, rtol=1e-9)


def test_bits_do_not_depend_on_parts(dtype):
    flow = hr.WaveNet(2, layers=2, channels=4, prediction=7, dtype=dtype)
    chain = [flow.transforms[0], prediction(2, 7, dtype), flow.transforms[-1]]
    flow = hr.SequenceFlow(chain)
    x = flow.sample(3, steps=300, seed=0)
    steps = flow.log_prob_steps(x)
    np.testing.assert_array_equal(flow.log_prob_steps(x[1:2]), steps[1:2])
    stream = flow.stream(3)
    parts = [stream.push(x[:, a:b]) for a, b in ((0, 3), (3, 4), (4, 200), (200, 300))]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), steps)
    stream = flow.stream(3)
    pulled = [stream.pull(n, seed=0) for n in (3, 1, 196)]
    np.testing.assert_array_equal(np.concatenate(pulled, axis=1), x[:, :200])
    again = flow.stream(state=stream.state())
    np.testing.assert_array_equal(again.pull(100, seed=0), x[:, 200:])
    np.testing.assert_array_equal(stream.copies(2).pull(100, seed=0)[:3], x[:, 200:])


@pytest.mark.parametrize("verb", ["to_latent", "to_data"])
@pytest.mark.parametrize(("features", "order", "steps"), [(1, 4, 30), (2, 3, 20), (1, 9, 5)])
def test_gradients_are_differences(verb, features, order, steps):
    flow = flow_of(prediction(features, order))
    draw = cases.rng("gradient", verb, order)
    given, by_value = draw.standard_normal((2, 3, steps, features))
    by_log_det = draw.standard_normal(3)

    def total(x, parameters):
        value, log_det = getattr(flow, verb)(x, parameters=parameters)
        return float((value * by_value).sum() + (log_det * by_log_det).sum())

    found = getattr(flow, f"{verb}_vjp")(given, by_value, by_log_det)
    h, own = 1e-6, flow.parameters
    for arrays, gradient in zip((given, own), found, strict=True):
        direction = draw.standard_normal(arrays.shape)
        if arrays is own:
            direction[: -features * order] = 0.0  # gradients of the network have separate tests
            ends = [total(given, own + sign * h * direction) for sign in (1, -1)]
        else:
            ends = [total(given + sign * h * direction, own) for sign in (1, -1)]
        # A central difference errs by h² and by its rounding, 1e-16 / h times the sum.
        np.testing.assert_allclose((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-6)


def test_levinson_solves_the_normal_equations():
    x = np.cumsum(cases.rng("levinson").standard_normal(500))
    x -= x.mean()
    r = np.array([(x[lag:] * x[: len(x) - lag]).sum() for lag in range(9)])
    k = levinson(r)
    t = hr.LinearPrediction.of_reflections(k, "float64")
    toeplitz = r[np.abs(np.subtract.outer(np.arange(8), np.arange(8)))]
    np.testing.assert_allclose(t.coefficients[0], np.linalg.solve(toeplitz, r[1:]), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(r[0] * np.prod(1.0 - k**2), r[0] - t.coefficients[0] @ r[1:], rtol=1e-9)
    assert (levinson(np.zeros(5)) == 0).all()  # a constant signal has zero coefficients


def test_a_fit_begins_with_levinson_s_coefficients():
    x = [5.0 + np.cumsum(cases.rng("start", i).standard_normal((300, 2)), axis=0) * [1.0, 50.0] for i in range(4)]
    flow = hr.WaveNet(2, layers=2, channels=4, prediction=3, dtype="float64")
    assert flow.transforms[1].is_identity
    weights = np.array([1.0, 2.0, 1.0, 0.5])
    flow.fit(x, epochs=0, validation=None, weights=weights, progress=False)
    mean, std = flow.transforms[-1].mean, flow.transforms[-1].std
    for c in range(2):
        r = np.zeros(4)
        for w, one in zip(weights, x, strict=True):
            own = (one[:, c] - mean[c]) / std[c]
            r += [w * (own[lag:] * own[: len(own) - lag]).sum() for lag in range(4)]
        toeplitz = r[np.abs(np.subtract.outer(np.arange(3), np.arange(3)))]
        np.testing.assert_allclose(flow.transforms[1].coefficients[c], np.linalg.solve(toeplitz, r[1:]), rtol=1e-8)
    kept = flow.transforms[1].coefficients
    flow.fit([one[::-1] for one in x], epochs=0, validation=None, progress=False)
    assert (flow.transforms[1].coefficients == kept).all()


def test_files_and_copies(tmp_path, dtype):
    t = prediction(2, 5, dtype)
    t.save(tmp_path / "t")
    back = hr.load(tmp_path / "t")
    assert (back.parameters == t.parameters).all()
    assert (back.features, back.order, back.field) == (2, 5, 5)
    assert (copy.copy(t).coefficients == t.coefficients).all()
    assert repr(t) == "LinearPrediction(2, order=5)"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"features": 0}, "features: expected"),
        ({"order": 0}, "order: expected an integer from 1"),
        ({"dtype": "int8"}, "dtype"),
    ],
)
def test_errors(more, message):
    for bad in (1.5, -1.1, np.nan):
        with pytest.raises(ValueError, match="reflections: expected numbers between -1 and 1, got"):
            hr.LinearPrediction.of_reflections([[0.5, bad]])
    with pytest.raises((TypeError, ValueError), match=message):
        hr.LinearPrediction(**more)
    with pytest.raises(ValueError, match="transforms: expected at least one CausalConvolution"):
        hr.SequenceFlow([hr.LinearPrediction()])
