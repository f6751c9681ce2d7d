"""Streams of the C library: pushes, pulls, copies and states have the bits of Python's streams."""

import ctypes

import numpy as np
import pytest

import cases
import headrace as hr
import sequence_cases
from c_library import Refused


def made(library, name, dtype):
    """An example, the example opened by the C library, and the example as a flow, which has streams in Python."""
    module = sequence_cases.IN_CORE[name](dtype)
    return module, library.open(hr.to_bytes(module)), sequence_cases.flow_of(module)


def same(got, want, flow):
    """Check that bits are equal. A prediction in float64 may differ in last bits, because of NumPy's tanh."""
    predicts = any(isinstance(t, hr.LinearPrediction) for t in flow.transforms)
    if predicts and flow.dtype == np.float64:
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)
    else:
        cases.assert_same_bits(got, want)


@pytest.mark.parametrize("rows", [1, 3, 20])
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("name", sequence_cases.IN_CORE)
def test_pushes_are_those_of_python(library, name, dtype, rows):
    module, handle, flow = made(library, name, dtype)
    assert (handle.features, handle.context, handle.dtype) == (flow.features, flow.context, flow.dtype)
    assert (handle.is_sequence, handle.covariates, handle.hop) == (True, flow.covariates, flow.hop)
    assert handle.field == module.field
    assert handle.has_density == isinstance(module, hr.SequenceFlow)
    for own in cases.DTYPES:  # the dtype of the steps
        x, context, frames = sequence_cases.streamed(flow, rows, dtype=own)
        want, stream = flow.stream(rows, context=context, covariates=frames), handle.stream(rows, context, frames)
        for piece in sequence_cases.cut(x):
            scores, z = stream.push(piece, with_latent=True)
            if handle.has_density:
                for got, expected in zip((scores, z), want.push(piece, latent=True), strict=True):
                    same(got, expected, flow)
            elif isinstance(module, hr.CausalConvolution):
                same(z, want.push(piece, latent=True)[1], flow)
        assert stream.position == sum(sequence_cases.PIECES)
        if isinstance(module, hr.LinearPrediction):
            program = module._program
            alone = program.core.run(program.vector.core, True, x, None, None, None)[0]
            same(handle.stream(rows).push(x, with_latent=True)[1], alone, flow)


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("name", sequence_cases.IN_CORE)
def test_pulls_are_those_of_python(library, name, dtype, rows):
    _, handle, flow = made(library, name, dtype)
    x, context, frames = sequence_cases.streamed(flow, rows, 200)
    stream = handle.stream(rows, context, frames)
    if not handle.has_density:
        with pytest.raises(Refused, match="flow: expected a density, got a transform alone") as refused:
            stream.pull(1, 0)
        assert refused.value.code == "NO_SUCH_VERB"
        return
    want = flow.stream(rows, context=context, covariates=frames)
    seed = 2**64 - 3
    parts = [stream.pull(1, seed), stream.pull(70, seed), stream.pull(2, 5)]
    for got, expected in zip(parts, (want.pull(1, seed), want.pull(70, seed), want.pull(2, 5)), strict=True):
        same(got, expected, flow)
    same(np.concatenate(parts[:2], axis=1), flow.sample(rows, 71, context, frames, seed), flow)
    same(stream.push(x[:, :9]), want.push(x[:, :9]), flow)
    wide = stream.copies(2).pull(3, 1, "float64")
    same(wide.astype(flow.dtype), want.copies(2).pull(3, 1), flow)
    np.testing.assert_array_equal(wide, wide.astype(flow.dtype))


@pytest.mark.parametrize("name", ["chain", "mixture", "inner", "bf16"])
def test_a_state_is_exchanged_between_python_and_c(library, name):
    _, handle, flow = made(library, name, "float32")
    x, context, frames = sequence_cases.streamed(flow, 3, 80)
    stream, want = handle.stream(3, context, frames), flow.stream(3, context=context, covariates=frames)
    stream.push(x[:, :41])
    want.push(x[:, :41])
    state = want.state()
    parts = [state[key] for key in state if key.startswith("transforms.")]
    numbers = np.concatenate(parts, axis=1)
    cases.assert_same_bits(stream.state(), numbers)
    again = handle.stream(3, context)
    again.set_state(41, numbers)
    if frames is not None:
        again.extend(frames[:, 41 // flow.hop :])
    assert again.position == 41
    cases.assert_same_bits(again.push(x[:, 41:]), want.push(x[:, 41:]))
    cases.assert_same_bits(again.push(x[:, :0]), np.zeros((3, 0), "float32"))


def test_later_frames_may_be_added_and_old_ones_are_freed(library):
    flow = sequence_cases.wavenet("c frames", covariates=2, hop=4, dtype="float32")
    handle = library.open(hr.to_bytes(flow))
    x, _, frames = sequence_cases.streamed(flow, 2, 80)
    stream = handle.stream(2, covariates=frames[:, :11])
    parts = [stream.push(x[:, :40])]
    with pytest.raises(
        Refused, match="covariates: expected at least 20 frames for 80 steps at 4 steps a frame, got 11"
    ):
        stream.push(x[:, 40:])
    stream.extend(frames[:, 11:15])
    parts += [stream.push(x[:, 40:47]), stream.push(x[:, 47:56])]  # the refused push has not advanced the stream
    stream.extend(frames[:, 15:])
    parts.append(stream.push(x[:, 56:]))
    cases.assert_same_bits(np.concatenate(parts, axis=1), flow.log_prob_steps(x, covariates=frames))
    one = handle.stream(2, covariates=frames[0])
    want = flow.log_prob_steps(x, covariates=frames[0])
    cases.assert_same_bits(one.push(x), want)


def test_steps_may_have_any_strides(library):
    """The test passes columns with gaps in memory, a result in place of the input, and a context in double for a model
    of float."""
    _, handle, flow = made(library, "chain", "float32")
    x, context, frames = sequence_cases.streamed(flow, 2)
    context = context.astype("float64") + 1e-9
    table = np.full((2 * x.shape[1], 5), 99, "float32")
    table[:, 1:5:2] = x.reshape(-1, 2)
    want = flow.stream(2, context=context, covariates=frames).push(x, latent=True)
    stream = handle.stream(2, context, frames)
    stream.call("push", table[:, 1:5:2], table[:, 0], table[:, 1:5:2])
    cases.assert_same_bits(table[:, 0].reshape(2, -1).copy(), want[0])
    cases.assert_same_bits(table[:, 1:5:2].reshape(x.shape).copy(), want[1])
    assert (table[:, 2] == 99).all()


def test_a_long_signal_is_worked_on_in_parts(library):
    flow = sequence_cases.wavenet("c long", layers=2, channels=4, skip=4, dtype="float32")
    x = sequence_cases.sequences(2, 150_000, 1, "float32")
    got = library.open(hr.to_bytes(flow)).stream(2).push(x)
    cases.assert_same_bits(got, flow.log_prob_steps(x))


def test_a_stream_outlives_its_flow_and_copies_their_stream(library):
    flow = sequence_cases.wavenet("c outlives", dtype="float32")
    copies = library.open(hr.to_bytes(flow)).stream().copies(3)
    assert copies.rows == 3
    copies.flow = library.open(hr.to_bytes(flow))  # the class `Stream` of the tests reads the dtype from the flow
    cases.assert_same_bits(copies.pull(5, 0), flow.sample(3, 5, seed=0))


REFUSALS = {
    "no steps": (("push", None, None, None), "BAD_ARGUMENT", "x: expected steps, got NULL"),
    "columns": (("push", np.zeros((4, 2), "f4"), None, None), "BAD_ARGUMENT", "x: expected 1 columns, got 2"),
    "rows": (
        ("push", np.zeros((5, 1), "f4"), None, None),
        "BAD_ARGUMENT",
        "as many steps in each of 2 sequences, got 5",
    ),
    "results": (("push", np.zeros((4, 1), "f4"), np.zeros(3, "f4"), None), "BAD_ARGUMENT", "log_prob: expected 4 rows"),
    "no number": (
        ("push", np.array([[0], [0], [0], [np.nan]], "f4"), None, None),
        "BAD_ARGUMENT",
        "x: expected finite numbers, got a NaN or an infinity at step 1 of sequence 1",
    ),
    "a number beyond float": (
        ("push", np.array([[0], [0], [-1e300], [0]]), None, None),
        "BAD_ARGUMENT",
        "x: expected numbers that float holds, got one beyond at step 0 of sequence 1",
    ),
    "a position near 2^63": (
        ("set_state", 2**63 - 1, None),
        "BAD_ARGUMENT",
        "position: expected at most 2\\^62, got 9",
    ),
    "no place": (("pull", 0, None), "BAD_ARGUMENT", "x: expected memory, got NULL"),
    "covariates": (("extend", 0, np.zeros((1, 1))), "NO_SUCH_VERB", "flow: expected one that takes covariates"),
    "state": (("set_state", 5, np.zeros((2, 3))), "BAD_ARGUMENT", "numbers: expected [0-9]+ columns, got 3"),
    "position": (("set_state", -1, None), "BAD_ARGUMENT", "position: expected at least 0, got -1"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_wrong_arguments_have_a_code_and_a_message(library, name):
    call, code, message = REFUSALS[name]
    flow = sequence_cases.wavenet("c refused", dtype="float32")
    x = sequence_cases.sequences(2, 30, 1, "float32")
    stream = library.open(hr.to_bytes(flow)).stream(2)
    first = stream.push(x[:, :20])
    verb, *arguments = (ctypes.c_int64(one) if isinstance(one, int) else one for one in call)
    with pytest.raises(Refused, match=message) as refused:
        stream.call(verb, *arguments)
    assert refused.value.code == code
    both = np.concatenate([first, stream.push(x[:, 20:])], axis=1)  # the stream is unchanged
    cases.assert_same_bits(both, flow.log_prob_steps(x))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e300])
def test_states_without_numbers_leave_the_stream_unchanged(library, value):
    flow = sequence_cases.wavenet("c bad state", dtype="float32")
    x = sequence_cases.sequences(2, 30, 1, "float32")
    stream = library.open(hr.to_bytes(flow)).stream(2)
    first, state = stream.push(x[:, :20]), stream.state().astype("float64")
    state[1, 3] = value
    with pytest.raises(Refused, match=r"numbers: expected finite numbers .*, got another in row 1, column 3"):
        stream.set_state(20, state)
    cases.assert_same_bits(np.concatenate([first, stream.push(x[:, 20:])], axis=1), flow.log_prob_steps(x))


def test_flows_of_rows_and_of_sequences_name_each_other(library):
    rows, sequences = (
        hr.MAF(2, transforms=1, hidden=(4,)),
        sequence_cases.wavenet("c named", dtype="float32", context=1),
    )
    with pytest.raises(Refused, match="flow: expected one of sequences, got one of rows") as refused:
        library.open(hr.to_bytes(rows)).stream()
    assert refused.value.code == "NO_SUCH_VERB"
    handle = library.open(hr.to_bytes(sequences))
    with pytest.raises(Refused, match="got one of sequences, whose steps go through headrace_stream_open") as refused:
        handle.log_prob(np.zeros((3, 1), "float32"))
    assert refused.value.code == "NO_SUCH_VERB"
    for context, message in (
        (None, "context: expected 1 columns, got NULL"),
        (np.zeros((2, 1)), "context: expected 1 row or 3, got 2"),
        (np.full((1, 1), np.inf), "context: expected finite numbers"),
    ):
        with pytest.raises(Refused, match=message) as refused:
            handle.stream(3, context)
        assert refused.value.code == "BAD_CONTEXT"
    with pytest.raises(Refused, match="rows: expected at least 1 and below 2"):
        handle.stream(0, np.zeros((1, 1)))
    with pytest.raises(Refused, match="n: expected at least 1"):
        handle.stream(3, np.zeros((1, 1))).copies(0)
