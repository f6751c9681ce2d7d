"""The header headrace.hpp: streams of sequences have the results of Python's, up to rounding, in both precisions."""

import itertools
import json

import numpy as np
import pytest

import cases
import headrace as hr
import hostile_files
import sequence_cases
from runtime_library import ROOT, Refused

pytestmark = pytest.mark.programs

KEPT = sorted((ROOT / "tests" / "files").glob("*/sequences/*.safetensors"))
DEPTH = 40  # the depth of the tolerance for kept files


def made(runtime, name, dtype):
    module = sequence_cases.READ[name](dtype)
    return module, runtime.load_sequences(hr.to_bytes(module), dtype), sequence_cases.flow_of(module)


def close(got, want):
    size = max(1.0, np.square(want).max(initial=0.0))
    cases.assert_close(got.astype(want.dtype), want, magnitude=size, depth=DEPTH)


@pytest.mark.parametrize("name", sequence_cases.READ)
def test_pushes_are_those_of_python(runtime, name, dtype):
    module, loaded, flow = made(runtime, name, dtype)
    assert (loaded.features, loaded.context, loaded.covariates) == (flow.features, flow.context, flow.covariates)
    assert (loaded.hop, loaded.field, loaded.has_density) == (
        flow.hop,
        module.field,
        isinstance(module, hr.SequenceFlow),
    )
    x, context, frames = sequence_cases.streamed(flow, 2)
    if isinstance(module, hr.LinearPrediction):
        program = module._program
        close(loaded.stream(2).push(x)[1], program.core.run(program.vector.core, True, x, None, None, None)[0])
        return
    want = flow.stream(2, context=context, covariates=frames).push(x, latent=True)
    stream = loaded.stream(2, context, frames)
    parts = [stream.push(piece) for piece in np.split(x, np.cumsum(sequence_cases.PIECES)[:-1], axis=1)]
    close(np.concatenate([z for _, z in parts], axis=1), want[1])
    if loaded.has_density:
        close(np.concatenate([scores for scores, _ in parts], axis=1), want[0])
    assert stream.state()[0] == sum(sequence_cases.PIECES)


@pytest.mark.parametrize("name", sequence_cases.READ)
def test_pulls_are_those_of_python(runtime, name, dtype):
    _, loaded, flow = made(runtime, name, dtype)
    _, context, frames = sequence_cases.streamed(flow, 2)
    stream = loaded.stream(2, context, frames)
    if not loaded.has_density:
        with pytest.raises(Refused, match="expected a flow for a sample, got a transform alone"):
            stream.pull(1, 0)
        return
    seed = 2**64 - 3
    drawn = np.concatenate([stream.pull(1, seed), stream.pull(25, seed)], axis=1)
    close(drawn, flow.sample(2, 26, context, frames, seed))
    want = flow.stream(2, context=context, covariates=frames)
    want.pull(26, seed)
    close(stream.copies(3).pull(4, 5), want.copies(3).pull(4, 5))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parents[1].name}/{path.stem}")
def test_files_of_every_version_have_their_recorded_results(runtime, path):
    expected = json.loads(path.with_suffix(".json").read_text())
    dtype = np.dtype(path.stem.split("-")[-1])
    loaded = runtime.load_sequences(path, dtype)
    x, context, frames = (
        None if expected[name] is None else np.array(expected[name], dtype) for name in ("x", "context", "covariates")
    )
    scores, z = loaded.stream(len(x), context, frames).push(x)
    if "prediction" in path.stem:
        assert z.shape == x.shape  # the kept file has a flow with a network beside the prediction
        return
    close(z, np.array(expected["z"], dtype))
    if scores is not None:
        close(scores, np.array(expected["log_prob"], dtype))


@pytest.mark.parametrize("name", ["chain", "mixture", "inner", "bf16"])
def test_states_are_exchanged_between_python_and_the_header(runtime, name, dtype):
    _, loaded, flow = made(runtime, name, dtype)
    x, context, frames = sequence_cases.streamed(flow, 3, 60)
    want = flow.stream(3, context=context, covariates=frames)
    want.push(x[:, :41])
    state = want.state()
    numbers = np.concatenate([state[key] for key in state if key.startswith("transforms.")], axis=1)
    stream = loaded.stream(3, context)
    stream.set_state(41, numbers)
    position, back = stream.state()
    assert position == 41
    np.testing.assert_array_equal(back, numbers)
    if frames is not None:
        with pytest.raises(Refused, match="covariates: expected at least 15 frames for 60 steps at 4 steps a frame"):
            stream.push(x[:, 41:])
        stream.extend(frames[:, 41 // flow.hop :])
    close(stream.push(x[:, 41:])[0], want.push(x[:, 41:]))


def test_frames_may_come_later_and_be_of_all(runtime):
    flow = sequence_cases.wavenet("runtime frames", covariates=2, hop=4)
    loaded = runtime.load_sequences(hr.to_bytes(flow), "float64")
    x, _, frames = sequence_cases.streamed(flow, 2, 80)
    stream = loaded.stream(2, covariates=frames[:, :12])
    parts = [stream.push(x[:, :30])[0]]
    stream.extend(frames[:, 12:])
    parts.append(stream.push(x[:, 30:])[0])
    close(np.concatenate(parts, axis=1), flow.log_prob_steps(x, covariates=frames))
    close(loaded.stream(2, covariates=frames[0]).push(x)[0], flow.log_prob_steps(x, covariates=frames[0]))


def test_a_double_reading_of_floats_has_more_digits(runtime):
    flow = sequence_cases.READ["mixture"]("float32")
    x, _, _ = sequence_cases.streamed(flow, 1, dtype="float64")
    got = runtime.load_sequences(hr.to_bytes(flow), "float64").stream().push(x)[0]
    np.testing.assert_allclose(got, flow.astype("float64").log_prob_steps(x), rtol=1e-10, atol=1e-10)


def test_wrong_arguments_are_named_and_leave_the_stream_unchanged(runtime):
    flow = sequence_cases.wavenet("runtime refused", context=1)
    loaded = runtime.load_sequences(hr.to_bytes(flow), "float64")
    x, context, _ = sequence_cases.streamed(flow, 2, 30)
    stream = loaded.stream(2, context)
    parts = [stream.push(x[:, :20])[0]]
    bad = x[:, :5].copy()
    bad[1, 3] = np.nan
    with pytest.raises(Refused, match=r"x: expected finite numbers, got -?nan at step 3 of row 1"):
        stream.push(bad)
    with pytest.raises(Refused, match="covariates: expected none, because the flow takes none"):
        stream.extend(np.zeros((1, 1)))
    with pytest.raises(Refused, match=r"numbers: expected \d+ values, got 3"):
        stream.set_state(0, np.zeros(3))
    with pytest.raises(Refused, match="numbers: expected finite numbers"):
        stream.set_state(0, np.full_like(stream.state()[1], np.inf))
    with pytest.raises(Refused, match=r"position: expected at most 2\^62"):
        stream.set_state(2**62 + 2**20, stream.state()[1])
    with pytest.raises(Refused, match="n: expected at least 1, got 0"):
        stream.copies(0)
    parts.append(stream.push(x[:, 20:])[0])
    close(np.concatenate(parts, axis=1), flow.log_prob_steps(x, context))
    for given_context, message in (
        (None, "context: expected 1 row or 2, got 0"),
        (np.zeros((3, 1)), "context: expected 1 row or 2, got 3"),
        (np.full((1, 1), np.inf), "context: expected finite numbers"),
    ):
        with pytest.raises(Refused, match=message):
            loaded.stream(2, given_context)


# ---- files -----------------------------------------------------------------------------------------------------------


def test_files_of_rows_and_of_sequences_name_each_other(runtime):
    for module in (hr.WaveNet(layers=2), hr.CausalConvolution(dilations=[1]), hr.LinearPrediction(order=2)):
        message = f"kind: expected a flow or a transform of rows, got {type(module).__name__}, which is of sequences"
        with pytest.raises(Refused, match=message):
            runtime.load(hr.to_bytes(module), "float64")
    with pytest.raises(Refused, match="kind: expected a file of sequences, got one of rows, which Flow reads"):
        runtime.load_sequences(hr.to_bytes(hr.MAF(2)), "float64")


NAMES = ("spline", "chain", "inner", "convolution", "prediction")


@pytest.mark.parametrize("name", NAMES)
def test_headers_with_anything_anywhere_are_read_or_refused_as_in_python(runtime, name):
    data, read = hr.to_bytes(sequence_cases.EXAMPLES[name]("float64")), 0
    for changed in hostile_files.headers_of_sequences(data, 60, "runtime"):
        read += hostile_files.agree_on_sequences(
            changed, lambda given: runtime.load_sequences(given, "float64"), Refused
        )
    assert read > 0


def test_truncated_and_changed_files_are_refused(runtime):
    data = hr.to_bytes(sequence_cases.EXAMPLES["spline"]("float32"))
    for length in itertools.chain(range(0, 200, 17), range(200, len(data), 4999)):
        with pytest.raises(Refused, match=r"^format: "):
            runtime.load_sequences(data[:length], "float32")
    changed = bytearray(data)
    changed[-3] ^= 1
    with pytest.raises(Refused, match="damaged: expected the checksum"):
        runtime.load_sequences(bytes(changed), "float32")


def test_adaptive_predictions_are_refused_by_name(runtime):
    with pytest.raises(Refused, match="AdaptivePrediction is not in this header; the C library has it"):
        runtime.load_sequences(hr.to_bytes(sequence_cases.adaptive("float64")), "float64")
