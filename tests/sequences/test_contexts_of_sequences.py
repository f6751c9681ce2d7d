"""Standardised contexts of the networks of sequences."""

import numpy as np
import pytest

import cases
import headrace as hr
import sequence_cases

SCALE = (np.array([2000.0, -3.0]), np.array([0.5, 4.0]))
KINDS = {
    "teacher": {},
    "student": {"reads": "latent", "map": "affine"},
    "inner flow": {"features": 2},
}


def flows(kind, dtype):
    """A flow, and a flow of equal weights whose networks read standardised contexts."""
    plain = sequence_cases.wavenet("scale", kind, layers=3, context=2, dtype=dtype, **KINDS[kind])
    scaled = hr.SequenceFlow(plain.transforms, plain.base, standardize_context=SCALE)
    return plain, scaled


def contexts(dtype, rows=3):
    """The given contexts, in float64, and the standardised ones that the networks read."""
    own = cases.rng("contexts").standard_normal((rows, 2))
    given = SCALE[0] + SCALE[1] * own
    return given, ((given - SCALE[0]) / SCALE[1]).astype(dtype)


def test_gradients_by_a_context_in_any_layout(dtype):
    plain, _ = flows("teacher" if "teacher" in KINDS else next(iter(KINDS)), dtype)
    x = sequence_cases.sequences(3, 30, plain.features, dtype)
    _, given = contexts(dtype)
    for context in (np.asfortranarray(given), given[::-1][::-1], np.broadcast_to(given[0], given.shape)):
        (found,) = plain.log_prob_vjp(x, np.ones(3, dtype), context, wrt="context")
        (want,) = plain.log_prob_vjp(x, np.ones(3, dtype), np.array(context, order="C"), wrt="context")
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_values_and_gradients(kind, dtype, tmp_path):
    plain, scaled = flows(kind, dtype)
    x = sequence_cases.sequences(3, 30, plain.features, dtype)
    given, read = contexts(dtype)
    np.testing.assert_array_equal(scaled.log_prob_steps(x, given), plain.log_prob_steps(x, read))
    for verb in ("to_data", "to_latent"):
        for a, b in zip(getattr(scaled, verb)(x, given), getattr(plain, verb)(x, read), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(scaled.sample(3, 20, given, seed=1), plain.sample(3, 20, read, seed=1))
    kinds = ("inputs", "parameters", "context")
    found = scaled.log_prob_vjp(x, np.ones(3, dtype), given, wrt=kinds)
    want = plain.log_prob_vjp(x, np.ones(3, dtype), read, wrt=kinds)
    for a, b in zip(found[:2], want[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(found[2], want[2] / SCALE[1], rtol=1e-6 if dtype == "float32" else 1e-14)
    if kind != "student":  # a student's density is tested through its parallel direction
        judge = sequence_cases.judge_of(scaled, tmp_path)
        steps = judge.log_prob_steps(x, given)
        cases.assert_close(scaled.log_prob_steps(x, given), steps, magnitude=np.abs(steps).max(), depth=300)


@pytest.mark.parametrize("kind", list(KINDS))
def test_streams_continuations_files_and_copies(kind, tmp_path):
    _, scaled = flows(kind, "float32")
    x = sequence_cases.sequences(3, 30, scaled.features, "float32")
    given, _ = contexts("float32")
    steps = scaled.log_prob_steps(x, given)
    stream = scaled.stream(3, context=given)
    parts = [stream.push(x[:, :11])]
    again = scaled.stream(state=stream.state())
    twice = stream.copies(2).push(np.concatenate([x[:, 11:]] * 2))
    np.testing.assert_array_equal(np.concatenate([*parts, again.push(x[:, 11:])], axis=1), steps)
    np.testing.assert_array_equal(twice, np.concatenate([steps[:, 11:]] * 2))
    rest = scaled.given(x[:, :11], given)
    np.testing.assert_array_equal(rest.log_prob_steps(x[:, 11:]), steps[:, 11:])
    scaled.save(tmp_path / "flow")
    for other in (hr.load(tmp_path / "flow"), scaled.astype("float64").astype("float32")):
        np.testing.assert_array_equal(other.log_prob_steps(x, given), steps)
        for a, b in zip(other.standardize_context, SCALE, strict=True):
            np.testing.assert_array_equal(a, b)


def test_probabilities_of_integers():
    plain = sequence_cases.wavenet("cells", layers=3, context=2)
    scaled = hr.SequenceFlow(plain.transforms, plain.base, standardize_context=SCALE)
    x = np.arange(20)[:, None] % 7
    given, read = contexts("float64", 1)
    np.testing.assert_array_equal(
        scaled.log_prob_steps(x, given[0], quantised=1), plain.log_prob_steps(x, read[0], quantised=1)
    )


def test_arguments_of_standardize_context():
    flow = hr.WaveNet(layers=2, context=2, standardize_context=SCALE)
    np.testing.assert_array_equal(flow.standardize_context[0], SCALE[0])
    assert hr.WaveNet(layers=2, context=2).standardize_context is None
    with pytest.raises(TypeError, match=r"standardize_context: expected a tuple \(mean, std\), got"):
        hr.WaveNet(layers=2, context=2, standardize_context=[1.0])
    with pytest.raises(ValueError, match="standardize_context: expected None, because no transform takes a context"):
        hr.WaveNet(layers=2, standardize_context=SCALE)
    with pytest.raises(ValueError, match=r"standardize_context\[1\]"):
        hr.WaveNet(layers=2, context=2, standardize_context=(SCALE[0], [1.0, 0.0]))
