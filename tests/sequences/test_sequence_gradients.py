"""Gradients of flows of sequences: comparisons with differences of the reference, equal bits, and refusals."""

import copy

import numpy as np
import pytest

import cases
import headrace as hr
import sequence_cases
from pairs import pairwise

# name -> (options, steps). The networks cover windows of 384 positions, whole and partial, dilations beyond a window,
# and widths that fill no vector.
NETWORKS = {
    "plain": ({}, 70),
    "one layer": ({"dilations": [1], "layers": None}, 9),
    "one step": ({}, 1),
    "four taps": ({"kernel": 4, "dilations": [3, 1, 9], "layers": None}, 90),
    "whole vectors": ({"channels": 16, "skip": 32, "kernel": 2}, 400),
    "wide": ({"channels": 37, "skip": 21, "kernel": 2, "layers": 3}, 40),
    "three values": ({"features": 3, "layers": 3}, 40),
    "context": ({"context": 5}, 40),
    "covariates at every step": ({"covariates": 4}, 40),
    "covariates in frames": ({"covariates": 3, "hop": 7, "context": 2}, 790),
    "dilations beyond a window": ({"dilations": [1, 450, 2], "layers": None, "kernel": 3}, 1000),
}
MAPS = {
    "logistic_mixture": {"bins": 6},
    "affine": {"map": "affine"},
    "rq_spline": {"map": "rq_spline", "bins": 5, "bound": 8.0},
    "another base": {"map": "affine", "base": "trained"},
}
ROWS, STEP = 3, 2e-7  # small, because the companding curve bends within 1e-3
# A central difference of step h errs by h² and by its rounding, 1e-16 / h times the sum; a few of thousands of inputs
# of rectifiers lie within h of a kink. In float32, sums over a thousand steps of deep products lose three or four
# digits.
TOLERANCES = {"float64": 3e-6, "float32": 3e-3}


def flow_of(name, map, dtype="float64"):
    options, steps = NETWORKS[name]
    more = dict(MAPS[map])
    if more.pop("base", None):
        more["base"] = hr.Normal(options.get("features", 1), trainable=True)
    return sequence_cases.wavenet(name, map, **(options | more | {"dtype": dtype})), steps


def given(flow, steps, rows=ROWS):
    x = sequence_cases.sequences(rows, steps, flow.features, flow.dtype.name)
    return x, sequence_cases.context_of(flow, rows), sequence_cases.covariates_of(flow, rows, steps)


def kinds_of(flow):
    return ("inputs", "parameters") + ("context",) * bool(flow.context) + ("covariates",) * bool(flow.covariates)


def moved(arrays, kind, direction):
    """The arrays x, context, covariates and parameters, one of which is moved."""
    names = ("inputs", "context", "covariates", "parameters")
    return [a if n != kind else a + direction for a, n in zip(arrays, names, strict=True)]


def judged(flow, folder, arrays, weights):
    """The weighted sum of the reference's log densities of steps."""
    x, context, covariates, parameters = arrays
    own = copy.copy(flow)
    own.parameters = parameters
    judge = sequence_cases.judge_of(own, folder)
    return float((judge.log_prob_steps(x, context, covariates) * weights).sum())


@pairwise(name=list(NETWORKS), map=list(MAPS), dtype=cases.DTYPES)
def test_against_differences_of_the_reference(name, map, dtype, tmp_path):
    flow, steps = flow_of(name, map, dtype)
    x, context, covariates = given(flow, steps)
    draw = cases.rng("gradient", name, map)
    weights = draw.standard_normal((ROWS, steps)).astype(dtype)
    kinds = kinds_of(flow)
    values, gradients = flow.log_prob_vjp(x, weights, context, covariates, wrt=kinds, values=True)
    np.testing.assert_array_equal(values, flow.log_prob_steps(x, context, covariates))
    wide = [None if a is None else a.astype("float64") for a in (x, context, covariates, flow.parameters)]
    judge = flow.astype("float64")
    mask = copy.copy(judge)
    mask.parameters = np.ones(flow.parameters.size)
    for kind, gradient in zip(kinds, gradients, strict=True):
        assert gradient.dtype == dtype
        direction = draw.standard_normal(gradient.shape)
        if kind == "parameters":
            direction *= mask.parameters != 0  # padding stays zero
        difference = 0.0
        for sign in (1.0, -1.0):
            difference += sign * judged(judge, tmp_path, moved(wide, kind, sign * STEP * direction), weights)
        exact = float((gradient.astype("float64") * direction).sum())
        size = np.linalg.norm(gradient.astype("float64")) * max(1.0, np.sqrt(direction.size) / 30)
        assert abs(difference / (2 * STEP) - exact) <= TOLERANCES[dtype] * max(size, 1.0), kind


@pytest.mark.parametrize("reads", cases.READS)
def test_each_value(reads):
    """Gradients by every single value agree with differences, in the parallel direction, for either side read."""
    flow = sequence_cases.wavenet("each", reads=reads, layers=3, channels=5, map="affine", transforms=2, context=2)
    x, context, _ = given(flow, 12, 2)
    draw = cases.rng("each value")
    by_value, by_log_det = draw.standard_normal(x.shape), draw.standard_normal(2)
    run = flow.to_latent if reads == "data" else flow.to_data
    back = flow.to_latent_vjp if reads == "data" else flow.to_data_vjp
    (gradient,) = back(x, by_value, by_log_det, context, wrt="inputs")

    def number(x):
        value, log_det = run(x, context)
        return (value * by_value).sum() + (log_det * by_log_det).sum()

    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += STEP
        down[index] -= STEP
        assert abs((number(up) - number(down)) / (2 * STEP) - gradient[index]) <= 1e-7 * max(1.0, abs(gradient[index]))


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_bits_depend_on_nothing_else(dtype):
    """Bits depend neither on threads nor, for the values of one sequence, on other sequences."""
    flow, _ = flow_of("covariates in frames", "logistic_mixture", dtype)
    x, context, covariates = given(flow, 790, 5)
    kinds, ones = kinds_of(flow), np.ones(5, dtype)
    runs = []
    for threads in (1, 2, 3):
        with hr.threads(threads):
            runs.append(flow.log_prob_vjp(x, ones, context, covariates, wrt=kinds))
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    alone = flow.log_prob_vjp(x[2:3], ones[:1], context[2:3], covariates[2:3], wrt=kinds)
    for kind, a, b in zip(kinds, runs[0], alone, strict=True):
        if kind != "parameters":
            np.testing.assert_array_equal(a[2:3], b)


def test_parts_of_a_long_sequence():
    """A long sequence is computed in parts, and gradients pass from part to part: if the second half has no weight,
    gradients by the first values are those of the first half alone, and a sum has the terms of both halves."""
    flow = sequence_cases.wavenet("parts", layers=12, channels=48, kernel=2, dtype="float64")
    steps = 4000  # a tape of 32 MB has about 2000 steps
    x = sequence_cases.sequences(1, steps)
    first, second = np.zeros((1, steps)), np.zeros((1, steps))
    first[:, : steps // 2], second[:, steps // 2 :] = 1.0, 1.0
    whole = flow.log_prob_vjp(x, first + second)
    halves = [flow.log_prob_vjp(x, own) for own in (first, second)]
    for a, b, c in zip(whole, *halves, strict=True):
        np.testing.assert_allclose(a, b + c, rtol=0, atol=1e-12 * np.abs(a).max())
    short = flow.log_prob_vjp(x[:, : steps // 2], first[:, : steps // 2], wrt="inputs")[0]
    np.testing.assert_array_equal(halves[0][0][:, : steps // 2], short)
    assert not halves[0][0][:, steps // 2 :].any()


def test_lengths_lists_and_crops():
    flow = sequence_cases.wavenet("lengths", layers=3)
    x = sequence_cases.sequences(3, 50)
    lengths = [50, 20, 7]
    padded = x.copy()
    for row, n in zip(padded, lengths, strict=True):
        row[n:] = np.nan
    ones = np.ones(3)
    by_x, by_parameters = flow.log_prob_vjp(padded, ones, lengths=lengths)
    own_x, own_parameters = flow.log_prob_vjp([row[:n] for row, n in zip(x, lengths, strict=True)], ones)
    np.testing.assert_allclose(by_parameters, own_parameters, rtol=0, atol=1e-12 * np.abs(by_parameters).max())
    for row, own, n in zip(by_x, own_x, lengths, strict=True):
        np.testing.assert_array_equal(row[:n], own)
        assert not row[n:].any()
    # The gradient of ten steps needs only a crop of these steps and of the field before them.
    field = flow.field
    weights = np.zeros((3, 50))
    weights[:, 40:] = 1.0
    whole = flow.log_prob_vjp(x, weights, wrt="parameters")[0]
    crop = (
        flow.log_prob_vjp(x[:, 40 - field :], weights[:, 40 - field :], wrt="parameters")[0] if field <= 40 else whole
    )
    np.testing.assert_allclose(crop, whole, rtol=0, atol=1e-9 * np.abs(whole).max())


def test_mean_and_score():
    flow = sequence_cases.wavenet("mean", layers=3, context=2)
    x, context, _ = given(flow, 60)
    nll, gradient, by_context = flow.nll_and_grad(x, context[0], wrt=("parameters", "context"))
    steps = flow.log_prob_steps(x, context[0])
    assert nll == pytest.approx(-steps.mean(), rel=1e-12)
    other = flow.log_prob_vjp(x, np.full((3, 60), -1.0 / steps.size), context[0], wrt=("parameters", "context"))
    np.testing.assert_allclose(gradient, other[0], rtol=0, atol=1e-12 * np.abs(gradient).max())
    assert by_context.shape == (2,)
    log_prob, score = flow.log_prob_and_score(x, context)
    np.testing.assert_array_equal(log_prob, flow.log_prob(x, context))
    np.testing.assert_array_equal(score, flow.log_prob_vjp(x, np.ones(3), context, wrt="inputs")[0])


def test_training_lowers_the_loss():
    flow = hr.WaveNet(layers=4, channels=8, map="affine", seed=0)
    x = sequence_cases.sequences(8, 200, 1, "float32")
    first = flow.nll_and_grad(x)[0]
    for _ in range(30):
        _, gradient = flow.nll_and_grad(x)
        flow.parameters = flow.parameters - 0.02 * gradient / np.linalg.norm(gradient)
    assert flow.nll_and_grad(x)[0] < first - 0.05


def test_refused_arguments_of_gradients():
    flow = sequence_cases.wavenet("refused", layers=2)
    x = sequence_cases.sequences(2, 20)
    with pytest.raises(ValueError, match="grad_x: expected the shape of z, got another one"):
        flow.to_data_vjp(x, x[:, :5], np.ones(2))
    with pytest.raises(ValueError, match=r"grad_log_prob: expected shape \(2,\), or \(2, 20\) for single steps"):
        flow.log_prob_vjp(x, np.ones(3))
    with pytest.raises(ValueError, match="wrt: expected no 'context'"):
        flow.log_prob_vjp(x, np.ones(2), wrt="context")
    with pytest.raises(ValueError, match="weights: expected a positive sum"):
        flow.nll_and_grad(x, weights=np.zeros(2))
    bad = x.copy()
    bad[1, 3] = np.nan
    with pytest.raises(ValueError, match="at step 3 of sequence 1"):
        flow.nll_and_grad(bad)
