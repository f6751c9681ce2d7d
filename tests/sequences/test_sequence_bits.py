"""Bits of sequences are equal in both directions, in parts of any length, and for any batch, list and number of
threads."""

import numpy as np
import pytest

import cases
import headrace as hr
import sequence_cases
from headrace._core import cpu
from pairs import pairwise

ROWS, STEPS = 50, 300  # more rows than are computed together, and more steps than a window has


@pytest.fixture(scope="module", params=cases.DTYPES)
def signal(request):
    """A flow, signals, and their log densities step by step.

    The flow has no linear prediction, so that the network reads the samples themselves.
    """
    more = {"layers": 6, "channels": 16, "skip": 16, "kernel": 2, "prediction": 0}
    flow = sequence_cases.wavenet("bits", dtype=request.param, **more)
    x = sequence_cases.sequences(ROWS, STEPS, 1, request.param)
    return flow, x, flow.log_prob_steps(x)


@pytest.mark.parametrize("reads", cases.READS)
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 17, 49])
def test_raw_parameters_have_the_same_bits_in_both_directions(rows, reads, dtype):
    """Outputs of the network that are computed step by step have the bits of outputs for the finished sequence."""
    t = hr.CausalConvolution(2, channels=12, kernel=3, dilations=[1, 2, 16, 40], reads=reads, dtype=dtype)
    sequence_cases.randomise(t, "raw")
    kind = cpu.CausalTransformF32 if dtype == "float32" else cpu.CausalTransformF64
    core = kind(t._structure, reads == "data", **t._settings.map_options())
    weights, shape = t.parameters, (rows, STEPS, 2)
    given = cases.rng("given", rows).standard_normal(shape).astype(dtype)
    value, back = np.empty(shape, dtype), np.empty(shape, dtype)
    log_det, raw, again = np.empty(shape[:2], dtype), np.empty((*shape[:2], 4), dtype), np.empty((*shape[:2], 4), dtype)
    core.sequential(weights, given, value, log_det, raw)
    core.parallel(weights, value, back, log_det, again)
    cases.assert_same_bits(raw, again)
    assert raw.std() > 0.1


def test_pushes_of_any_length(signal):
    flow, x, steps = signal
    for lengths in ([STEPS], [1] * 20 + [STEPS - 20], [7, 240, 1, 1, STEPS - 249], [129, 111, 60]):
        stream, parts, at = flow.stream(ROWS), [], 0
        for n in lengths:
            parts.append(stream.push(x[:, at : at + n]))
            at += n
        assert stream.position == STEPS
        cases.assert_same_bits(np.concatenate(parts, axis=1), steps)


@pytest.mark.parametrize("rows", [1, 2, 15, 16, 33, 48, 49])
def test_any_batch(signal, rows):
    flow, x, steps = signal
    cases.assert_same_bits(flow.log_prob_steps(x[:rows]), steps[:rows])
    cases.assert_same_bits(flow.log_prob(x[:rows]), flow.log_prob(x)[:rows])
    drawn = flow.sample(rows, steps=40, seed=7)
    cases.assert_same_bits(drawn, flow.sample(ROWS, steps=70, seed=7)[:rows, :40])


def test_any_number_of_threads(signal):
    flow, x, steps = signal
    for n in (1, 2, 3):
        with hr.threads(n):
            cases.assert_same_bits(flow.log_prob_steps(x), steps)
            cases.assert_same_bits(flow.log_prob_steps(x[:1]), steps[:1])
            cases.assert_same_bits(flow.sample(5, steps=30, seed=1), flow.sample(5, steps=30, seed=1))


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_long_signals_are_computed_in_parts_with_the_bits_of_one(dtype):
    """A call with one signal computes all steps at once, and a call with three signals computes them in two parts."""
    flow = sequence_cases.wavenet("long", layers=2, channels=4, prediction=3, dtype=dtype)
    x = (
        np.tile(sequence_cases.sequences(3, 1000, 1, dtype), (1, 100, 1))
        + np.linspace(0, 1, 100_000, dtype=dtype)[:, None]
    )
    together = flow.log_prob_steps(x), *flow.to_latent(x), flow.log_prob(x)
    for i, one in enumerate(x):
        apart = flow.log_prob_steps(one), *flow.to_latent(one), flow.log_prob(one)
        for got, want in zip(together, apart, strict=True):
            cases.assert_same_bits(got[i], want)
    drawn = flow.sample(3, steps=90_000, seed=2)
    cases.assert_same_bits(flow.sample(1, steps=90_000, seed=2), drawn[:1])


def test_pulls_of_any_length_are_one_sample(signal):
    flow, *_ = signal
    whole = flow.sample(5, steps=200, seed=3)
    for lengths in ([200], [1, 1, 1, 197], [63, 1, 1, 100, 35]):
        stream = flow.stream(5)
        cases.assert_same_bits(np.concatenate([stream.pull(n, seed=3) for n in lengths], axis=1), whole)


def test_pushes_and_pulls_share_a_past(signal):
    flow, x, _ = signal
    stream = flow.stream(4)
    stream.push(x[:4, :100])
    drawn = stream.pull(50, seed=5)
    after = stream.push(x[:4, 150:200])
    joined = np.concatenate([x[:4, :100], drawn, x[:4, 150:200]], axis=1)
    scored = flow.log_prob_steps(joined)
    cases.assert_same_bits(after, scored[:, 150:])
    again = flow.given(x[:4, :100]).sample((), steps=50, seed=5)
    cases.assert_same_bits(drawn, again)


def test_continuations_are_the_rest_of_the_sample(signal):
    flow, *_ = signal
    whole = flow.sample(6, steps=120, seed=9)
    rest = flow.given(whole[:3, :70])
    cases.assert_same_bits(rest.sample((), steps=50, seed=9), whole[:3, 70:])
    several = rest.sample(2, steps=50, seed=9)  # the second draw takes the noise of the next three sequences
    cases.assert_same_bits(several[0], whole[:3, 70:])
    noise_of_others = flow.given(whole[:3, :70]).sample(2, steps=50, seed=9)[1]
    cases.assert_same_bits(several[1], noise_of_others)
    assert (several[1] != several[0]).all()
    steps = flow.log_prob_steps(whole[:3])
    cases.assert_same_bits(rest.log_prob_steps(whole[:3, 70:]), steps[:, 70:])
    both = np.stack([whole[:3, 70:], several[1]])
    assert rest.log_prob(both).shape == (2, 3)
    cases.assert_same_bits(rest.log_prob_steps(both)[0], steps[:, 70:])
    single = flow.given(whole[0, :70])
    assert (single.shape, single.position) == ((), 70)
    cases.assert_same_bits(single.sample((), steps=50, seed=9), whole[0, 70:])
    assert single.sample((4, 2), steps=5, seed=0).shape == (4, 2, 5, 1)


@pairwise(reads=cases.READS, dtype=cases.DTYPES, covariates=[0, 2], context=[0, 3])
def test_streams_of_every_kind(reads, dtype, covariates, context):
    options = {"map": "affine", "covariates": covariates, "hop": 5 if covariates else 1, "context": context}
    flow = sequence_cases.wavenet("kinds", reads=reads, dtype=dtype, transforms=2, layers=3, **options)
    own, frames = sequence_cases.context_of(flow, 3), sequence_cases.covariates_of(flow, 3, 90)
    x = flow.sample(3, 90, own, frames, seed=1)
    steps = flow.log_prob_steps(x, own, frames)
    stream = flow.stream(3, context=own, covariates=frames)
    parts = [stream.push(x[:, :31]), stream.push(x[:, 31:32]), stream.push(x[:, 32:])]
    cases.assert_same_bits(np.concatenate(parts, axis=1), steps)
    stream = flow.stream(3, context=own, covariates=frames)
    cases.assert_same_bits(np.concatenate([stream.pull(50, seed=1), stream.pull(40, seed=1)], axis=1), x)
    rest = flow.given(x[:, :40], own, frames)
    # The inner one of two transforms reads rounded results of the outer one.
    cases.assert_close(rest.sample((), steps=50, seed=1), x[:, 40:], magnitude=np.abs(x).max(), depth=40)
    cases.assert_same_bits(rest.log_prob_steps(x[:, 40:]), steps[:, 40:])


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_steps_of_several_values_one_by_one(dtype):
    """Steps that are pushed one by one have the bits of whole sequences, although bases and transforms of rows may
    round few rows differently."""
    flow = sequence_cases.chain(dtype)
    wide = hr.SequenceFlow([hr.CausalConvolution(5, channels=4, dilations=[1], dtype=dtype)], hr.Logistic(5))
    for own in (flow, sequence_cases.randomise(wide, "wide")):
        context, frames = sequence_cases.context_of(own, 2), sequence_cases.covariates_of(own, 2, 30)
        x = sequence_cases.sequences(2, 30, own.features, dtype)
        stream = own.stream(2, context=context, covariates=frames)
        parts = [stream.push(x[:, t : t + 1]) for t in range(30)]
        cases.assert_same_bits(np.concatenate(parts, axis=1), own.log_prob_steps(x, context, frames))


def test_values_that_are_not_finite_are_refused_and_such_weights_give_nan():
    flow = sequence_cases.wavenet("nan")
    weights = flow.parameters
    weights[:] = np.nan
    x = sequence_cases.sequences(2, 20)
    assert np.isnan(flow.log_prob(x, parameters=weights)).all()
    assert np.isfinite(flow.log_prob(x)).all()
