"""The core's chains over time and their streams, without the classes of Python: arguments, and states that are in
use."""

import threading

import numpy as np
import pytest

import cases
import sequence_cases
from headrace._core import cpu

STEPS = 24


def swapped(x):
    return x.astype(x.dtype.newbyteorder())


def unaligned(x):
    copy = np.ndarray(x.shape, x.dtype, bytearray(x.nbytes + 1), 1)
    copy[...] = x
    return copy


FORMS = {
    "contiguous": lambda x: x,
    "Fortran": np.asfortranarray,
    "every second step": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "backwards": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "swapped bytes": swapped,
    "unaligned": unaligned,
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("given", cases.DTYPES)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_steps_are_pushed_in_any_form(form, given, dtype):
    flow = sequence_cases.wavenet("forms", features=2, dtype=dtype)
    x = sequence_cases.sequences(3, STEPS, 2, given)
    stream = flow.stream(3)
    parts = [stream.push(FORMS[form](x[:, at : at + n])) for at, n in ((0, 1), (1, 1), (2, STEPS - 2))]
    cases.assert_same_bits(np.concatenate(parts, axis=1), flow.log_prob_steps(x))


REFUSED = {
    "a mask": (lambda x: np.ma.masked_array(x), TypeError, "x: expected a NumPy array, got a masked array"),
    "a list": (lambda x: x.tolist(), TypeError, "x"),
    "integers": (lambda x: x.astype(int), TypeError, "x: expected dtype float32 or float64, got int64"),
    "no steps": (lambda x: x[:, :0], ValueError, "x: expected at least one step"),
    "other rows": (lambda x: x[:1], ValueError, r"x: expected shape \(2, steps, 1\), got \(1, 5, 1\)"),
    "other features": (lambda x: np.repeat(x, 2, axis=2), ValueError, "x: expected shape"),
    "NaN": (lambda x: np.where(np.arange(5)[:, None] == 3, np.nan, x), ValueError, "got .nan. at step 3 of sequence 0"),
    "beyond float32": (lambda x: x + 1e39, ValueError, "x: expected numbers that float32 holds, got .1e[+]39"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_push_leaves_the_stream_unchanged(name):
    change, error, message = REFUSED[name]
    flow = sequence_cases.wavenet("refused", dtype="float32")
    x = sequence_cases.sequences(2, STEPS, 1, "float64")
    stream = flow.stream(2)
    first = stream.push(x[:, :10])
    with pytest.raises(error, match=message):
        stream.push(change(x[:, 10:15]))
    assert stream.position == 10
    cases.assert_same_bits(np.concatenate([first, stream.push(x[:, 10:])], axis=1), flow.log_prob_steps(x))


@pytest.mark.parametrize(
    ("steps", "seed", "error", "message"),
    [
        (0, 1, ValueError, "steps: expected an integer of at least 1, got 0"),
        (2**40, 1, ValueError, "steps: expected at most 2.32 with those before, got 1099511627786"),
        (2**70, 1, ValueError, "steps: expected at most 2.32"),
        (1.5, 1, TypeError, "steps: expected an integer"),
        (1, -1, ValueError, "seed"),
        (1, 2**64, ValueError, "seed"),
        (1, "a", TypeError, "seed"),
    ],
)
def test_a_refused_pull_leaves_the_stream_unchanged(steps, seed, error, message):
    flow = sequence_cases.wavenet("refused", dtype="float32")
    stream, other = flow.stream(), flow.stream()
    first = stream.pull(10, 3)
    with pytest.raises(error, match=message):
        stream.pull(steps, seed)
    assert stream.position == 10
    both = np.concatenate([first, stream.pull(np.int64(4), np.uint8(3))], axis=1)
    cases.assert_same_bits(both, other.pull(14, seed=3))


def parts_of(flow, rows=2):
    program = flow._program
    return program.core, program.vector.core, program.states(rows)


def test_weights_and_states_belong_to_their_chain():
    one, other = (sequence_cases.wavenet("whose", channels=n, dtype="float32") for n in (8, 12))
    chain, weights, state = parts_of(one)
    _, foreign_weights, foreign_state = parts_of(other)
    x = np.zeros((2, 3, 1), "float32")
    for own, past, message in (
        (foreign_weights, state, "weights: expected those of this chain"),
        (weights, foreign_state, "state: expected one of this chain"),
        (weights, one._program.states(3), "state: expected one of as many rows as are given"),
    ):
        with pytest.raises(ValueError, match=message):
            chain.run(own, True, x, None, None, past)
    with pytest.raises(ValueError, match="weights: expected those of this chain"):
        one._program._stream(chain, foreign_weights, state, None)
    with pytest.raises(ValueError, match="state: expected one of this chain"):
        one._program._stream(chain, weights, foreign_state, None)
    with pytest.raises(ValueError, match="parameters: the vector has the wrong size"):
        chain.weights(np.zeros(5, "float32"), [own.of_core() for own in one._program.vector.filters.values()])
    with pytest.raises(ValueError, match="filters: expected one for each linear prediction"):
        chain.weights(one.parameters, [])


def test_inputs_of_a_chain_have_its_shapes():
    flow = sequence_cases.wavenet("shapes", context=2, covariates=1, hop=3, dtype="float32")
    chain, weights, state = parts_of(flow)
    x, context, frames = np.zeros((2, 7, 1), "float32"), np.zeros((2, 2), "float32"), np.zeros((2, 3, 1), "float32")
    chain.run(weights, True, x, context, frames, state)
    for change, message in (
        ({"context": None}, "context: expected if and only if"),
        ({"context": context[:1]}, "context: expected a contiguous"),
        ({"context": context.astype("float64")}, "context: expected a contiguous"),
        ({"frames": None}, "covariates: expected if and only if"),
        ({"frames": frames[:1]}, "covariates: expected a contiguous"),
        ({"frames": frames[:, :2].copy()}, "covariates: expected a frame for every hop"),
        ({"given": x[0]}, "given: expected an array"),
        ({"given": x.astype("int32")}, "given: expected an array"),
        ({"given": np.zeros((2, 7, 2), "float32")}, "given: expected an array"),
    ):
        with pytest.raises(ValueError, match=message):
            chain.run(
                **{"weights": weights, "inverse": True, "given": x, "context": context, "frames": frames} | change,
                state=None,
            )
    # Frames of covariates have to begin at the position of the stream's state.
    with pytest.raises(ValueError, match="covariates: expected a frame for every hop"):
        chain.run(weights, True, x, context, frames, state)


def test_calls_of_a_chain_return_its_shapes():
    flow = sequence_cases.wavenet("whole", context=2, covariates=1, hop=3, dtype="float32")
    chain, weights, _ = parts_of(flow)
    context, frames = np.zeros((2, 2), "float32"), [np.zeros((3, 1), "float32")] * 2
    x = [np.zeros((7, 1), "float32"), np.zeros((5, 1), "float32")]
    lengths = np.array([7, 5])
    given = cpu.GivenSequences("x", x, 1, lengths)
    steps = [np.empty(7, "float32"), np.empty(5, "float32")]
    own = {"weights": weights, "inverse": True, "given": given, "context": context, "frames": frames}
    chain.scores(**own, steps=steps)
    chain.back(**own, is_density=True, by_rows=np.ones(2), parameters=np.zeros(flow.parameters.size))
    other = cpu.GivenSequences("x", x[:1], 1, lengths[:1])
    for name, changed, message in (
        ("scores", {"context": None}, "context: expected if and only if"),
        ("scores", {"context": np.zeros((3, 2), "float32")}, "context: expected one row for each"),
        ("scores", {"context": context.astype("float64")}, "context: expected a contiguous"),
        ("scores", {"frames": None}, "covariates: expected if and only if"),
        ("scores", {"frames": frames * 2}, "covariates: expected some of each"),
        ("scores", {"frames": [frames[0][:2]]}, "covariates: expected a frame for every hop"),
        ("scores", {"steps": steps[::-1]}, "results: expected contiguous arrays"),
        ("scores", {"steps": [steps[0]]}, "results: expected contiguous arrays"),
        ("scores", {"steps": [one.astype("float64") for one in steps]}, "results: expected contiguous arrays"),
        ("scores", {"totals": np.zeros(3)}, "totals: expected"),
        ("scores", {"inverse": False}, "is_density: expected a chain with a base"),
        ("scores", {"state": flow._program.states(1)}, "state: expected one of this chain"),
        (
            "scores",
            {"given": cpu.GivenSequences("x", [np.zeros((7, 2))], 2, lengths[:1])},
            "given: expected the features",
        ),
        ("back", {"by_rows": np.ones(3)}, "by_rows: expected float64"),
        ("back", {"by_rows": None}, "is_density: expected cotangents of log densities"),
        ("back", {"by_values": given}, "is_density: expected cotangents of log densities"),
        ("back", {"by_steps": other}, "by_steps, by_values: expected the lengths"),
        ("back", {"parameters": np.zeros(3)}, "parameters: expected float64"),
        ("back", {"of_context": np.zeros((1, 2))}, "of_context: expected float64"),
        ("back", {"of_frames": [np.zeros((3, 1))]}, "of_frames: expected a list of float64 arrays"),
        ("back", {"std": np.ones(3)}, "std: expected float64"),
    ):
        more = {"is_density": True, "by_rows": np.ones(2)} if name == "back" else {}
        with pytest.raises(ValueError, match=message):
            getattr(chain, name)(**own | more | changed)
    with pytest.raises(ValueError, match="x: expected a contiguous"):
        chain.sample(weights, 1, context, frames, np.zeros((2, 3, 1)))
    for arrays, counted in (
        ([x[0]], lengths),
        (x, np.array([7, 6])),
        (x, np.array([7, 0])),
        (np.zeros((2, 7)), lengths),
    ):
        with pytest.raises(ValueError, match=r"lengths: expected|arrays: expected"):
            cpu.GivenSequences("x", arrays, 1, counted)


def test_a_stream_is_for_one_call_at_a_time():
    flow = sequence_cases.wavenet("turns", channels=32, layers=10, dtype="float32")
    stream, wanted = flow.stream(), flow.sample(1, 4 * 4000, seed=1)
    refusals, parts = [], []

    def pull():
        try:
            parts.append(stream.pull(4000, 1))
        except ValueError as error:
            refusals.append(str(error))

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stream.position == 4000 * len(parts)
    assert all("another call has it" in refusal for refusal in refusals)
    parts.sort(key=lambda part: int(np.argmin(np.abs(wanted[0, ::4000, 0] - part[0, 0, 0]))))
    cases.assert_same_bits(np.concatenate(parts, axis=1), wanted[:, : stream.position])
