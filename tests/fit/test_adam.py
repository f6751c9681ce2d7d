"""Adam against plain NumPy: torch's AdamW formula, decay, clipping, and padding that stays zero."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import headrace as hr
from adam_cases import SETTINGS, STEPS, adamw, flow_of, matrices, numbers_that_count, random_gradients


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("learning_rate", [1e-3, 0.1])
def test_steps_match_the_formula(name, learning_rate, dtype):
    flow, settings = flow_of(dtype), SETTINGS[name]
    gradients = random_gradients(flow)
    decay = settings.get("weight_decay", 0.0) * matrices(flow)  # biases and means, which may be large, have no decay
    history = adamw(flow.parameters, gradients, [learning_rate] * STEPS, **{**settings, "weight_decay": decay})
    adam = hr.Adam(flow, learning_rate, **settings)
    for gradient, want in zip(gradients, history, strict=True):
        norm = adam.step(gradient)
        assert_allclose(norm, np.linalg.norm(gradient.astype(float)), rtol=1e-5)  # the norm before clipping
        # Allowed errors are relative to STEPS learning rates and to the parameter. PyTorch's clipping adds 1e-6 to
        # the gradient's norm, which here changes a step by at most 1e-6 of its size.
        allowed = (1e-5 if dtype == "float32" else 1e-6 if settings.get("clip") else 1e-12) * STEPS * learning_rate
        allowed += (1e-6 if dtype == "float32" else 1e-14) * np.abs(want)
        assert (np.abs(flow.parameters - want) <= allowed).all()


def test_the_defaults_are_those_of_torch(dtype):
    flow = flow_of(dtype)
    other, gradients = copy.copy(flow), random_gradients(flow)
    one = hr.Adam(flow)
    two = hr.Adam(other, 1e-3, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.0, clip=None)
    for gradient in gradients:
        one.step(gradient)
        two.step(gradient)
    cases.assert_same_bits(flow.parameters, other.parameters)


def test_the_learning_rate_can_be_changed_between_steps(dtype):
    flow = flow_of(dtype)
    gradients, rates = random_gradients(flow), np.linspace(1e-2, 1e-4, STEPS)
    history = adamw(flow.parameters, gradients, rates)
    adam = hr.Adam(flow, 5.0)
    for gradient, rate, want in zip(gradients, rates, history, strict=True):
        adam.learning_rate = rate
        assert adam.learning_rate == rate
        adam.step(gradient)
        assert_allclose(flow.parameters, want, rtol=1e-6, atol=1e-6 if dtype == "float32" else 1e-13)


def test_the_first_step_is_the_sign_of_the_gradient_times_the_learning_rate(dtype):
    flow = flow_of(dtype)
    before, (gradient,) = flow.parameters.astype(float), random_gradients(flow, 1)
    hr.Adam(flow, 0.01).step(gradient)
    want = -0.01 * gradient / (np.abs(gradient.astype(float)) + 1e-8)
    assert_allclose(flow.parameters - before, want, atol=1e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
def test_padding_and_masked_weights_stay_zero(weight_decay, dtype):
    """Padding and masked weights stay zero for any gradient and any number of steps."""
    flow = flow_of(dtype)
    adam, counts = hr.Adam(flow, 0.1, weight_decay=weight_decay), numbers_that_count(flow)
    assert not counts.all()
    for _ in range(STEPS):
        adam.step(np.ones_like(flow.parameters))
        assert not flow.parameters[~counts].any()
    assert flow.parameters[counts].all()


def test_steps_of_real_gradients_lower_the_loss(dtype):
    flow = flow_of(dtype)
    x, context = 2.0 + cases.rows(200, 4, dtype), cases.rows(200, 1, dtype, "context")
    adam, losses = hr.Adam(flow, 0.02, clip=10.0), []
    for _ in range(60):
        nll, gradient = flow.nll_and_grad(x, context)
        losses.append(nll)
        adam.step(gradient)
    assert losses[-1] < losses[0] - 1.0


@pytest.mark.parametrize("clip", [None, 2.0])
def test_the_same_bits_for_any_number_of_threads(clip, dtype, set_threads):
    results = []
    for threads in (1, 2, 3, 5):
        set_threads(threads)
        flow = hr.MAF(9, transforms=2, hidden=(101, 70), dtype=dtype)
        adam = hr.Adam(flow, 0.01, clip=clip)
        norms = [adam.step(gradient) for gradient in random_gradients(flow, 3)]
        results.append((norms, flow.parameters))
    for norms, parameters in results[1:]:
        assert norms == results[0][0]
        cases.assert_same_bits(parameters, results[0][1])


def test_the_gradient_is_read_in_any_strides_and_not_changed(dtype):
    flow = flow_of(dtype)
    other, (gradient,) = copy.copy(flow), random_gradients(flow, 1)
    hr.Adam(flow, clip=1.0).step(gradient)
    strided = np.repeat(gradient, 2)[::2]
    strided.flags.writeable = False
    hr.Adam(other, clip=1.0).step(strided)
    cases.assert_same_bits(other.parameters, flow.parameters)
    cases.assert_same_bits(strided, gradient)


BAD_SETTINGS = {
    "no flow": (lambda flow: hr.Adam("flow"), ["flow", "str|'flow'"]),
    "a learning rate below zero": (lambda flow: hr.Adam(flow, -1.0), ["learning_rate", "-1"]),
    "a learning rate of NaN": (lambda flow: hr.Adam(flow, float("nan")), ["learning_rate", "nan"]),
    "a learning rate of a string": (lambda flow: hr.Adam(flow, "fast"), ["learning_rate", "fast|str"]),
    "one beta": (lambda flow: hr.Adam(flow, betas=(0.9,)), ["betas"]),
    "a beta of one": (lambda flow: hr.Adam(flow, betas=(0.9, 1.0)), ["betas", r"\b1"]),
    "a beta below zero": (lambda flow: hr.Adam(flow, betas=(-0.1, 0.9)), ["betas", r"-0\.1"]),
    "an epsilon below zero": (lambda flow: hr.Adam(flow, epsilon=-1e-8), ["epsilon", "-1e-08"]),
    "a decay below zero": (lambda flow: hr.Adam(flow, weight_decay=-0.5), ["weight_decay", r"-0\.5"]),
    "a clip of zero": (lambda flow: hr.Adam(flow, clip=0.0), ["clip", r"\b0"]),
    "a clip of NaN": (lambda flow: hr.Adam(flow, clip=float("nan")), ["clip", "nan"]),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_settings_are_refused(name):
    call, words = BAD_SETTINGS[name]
    with pytest.raises((TypeError, ValueError)) as error:
        call(flow_of("float32"))
    cases.assert_says(error, *words)


def test_bad_gradients_are_refused_and_change_nothing():
    flow = flow_of("float32")
    adam, kept, size = hr.Adam(flow), flow.parameters, flow.parameters.size
    for bad, words in [
        (np.zeros(size + 1, "f4"), [rf"\b{size}\b", rf"\b{size + 1}\b"]),
        (np.zeros((1, size), "f4"), [rf"\b{size}\b"]),
        (np.zeros(size, int), ["int64"]),
        ([0.0] * size, ["list"]),
        (None, ["None"]),
    ]:
        with pytest.raises((TypeError, ValueError)) as error:
            adam.step(bad)
        cases.assert_says(error, r"\bgrad", *words)
    cases.assert_same_bits(flow.parameters, kept)


def test_the_running_mean_follows_the_parameters(dtype):
    flow, decay = flow_of(dtype), 0.7
    adam = hr.Adam(flow, 0.05, average=decay)
    want = flow.parameters.astype(float)
    for t, gradient in enumerate(random_gradients(flow, 20), start=1):
        adam.step(gradient)
        want += (1.0 - min(decay, (1.0 + t) / (10.0 + t))) * (flow.parameters - want)
    assert_allclose(adam.averaged, want, rtol=0.0, atol=1e-5 if dtype == "float32" else 1e-13)
    with pytest.raises(ValueError, match="average"):
        _ = hr.Adam(flow).averaged


def test_a_huge_entry_does_not_make_the_norm_infinite():
    flow = flow_of("float32")
    gradient = np.zeros_like(flow.parameters)
    gradient[np.flatnonzero(numbers_that_count(flow))[0]] = 1e20
    before = flow.parameters
    assert_allclose(hr.Adam(flow, 1e-3, clip=1.0).step(gradient), 1e20, rtol=1e-6)
    assert np.abs(flow.parameters - before).max() > 0


def test_an_epsilon_that_underflows_causes_no_division_by_zero():
    flow = flow_of("float32")
    before = flow.parameters
    hr.Adam(flow, 1e-3, epsilon=1e-50).step(np.zeros_like(before))
    cases.assert_same_bits(flow.parameters, before)
