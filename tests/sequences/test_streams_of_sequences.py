"""Streams of sequences: their state as arrays and back, copies, later covariates, and parameters that are kept."""

import numpy as np
import pytest

import cases
import headrace as hr
import sequence_cases


@pytest.fixture
def flow():
    return sequence_cases.wavenet("streams", covariates=2, hop=4, context=1)


def begun(flow, rows=3, steps=60):
    context, frames = sequence_cases.context_of(flow, rows), sequence_cases.covariates_of(flow, rows, 100)
    x = sequence_cases.sequences(rows, 100)
    stream = flow.stream(rows, context=context, covariates=frames)
    stream.push(x[:, :steps])
    return stream, x


def test_a_state_goes_to_arrays_and_back(flow, tmp_path):
    stream, x = begun(flow)
    np.savez(tmp_path / "state.npz", **stream.state())
    with np.load(tmp_path / "state.npz") as file:
        other = flow.stream(state=dict(file))
    assert (other.rows, other.position, repr(other)) == (3, 60, "Stream(rows=3, position=60)")
    cases.assert_same_bits(other.push(x[:, 60:]), stream.push(x[:, 60:]))
    cases.assert_same_bits(other.state()["transforms.0"], stream.state()["transforms.0"])


@pytest.mark.parametrize("rows", [1, 15, 16, 40])
def test_a_state_of_many_rows_is_that_of_each(rows):
    flow = sequence_cases.wavenet("rows", layers=4)
    x = sequence_cases.sequences(rows, 70)
    stream = flow.stream(rows)
    stream.push(x[:, :50])
    state = stream.state()
    for row in {0, rows // 2, rows - 1}:
        own = {name: a if name == "position" else a[row : row + 1] for name, a in state.items()}
        assert own.keys() == {"position", "transforms.0", "transforms.1"}
        cases.assert_same_bits(flow.stream(state=own).push(x[row : row + 1, 50:]), stream_of(flow, x, row))


def stream_of(flow, x, row):
    return flow.log_prob_steps(x[row : row + 1])[:, 50:]


def test_copies_go_on_by_themselves(flow):
    stream, x = begun(flow)
    copies = stream.copies(4)
    assert (copies.rows, copies.position) == (12, 60)
    drawn = copies.pull(20, seed=0)
    assert len(np.unique(drawn[:, 0])) == 12
    scored = stream.push(x[:, 60:80])  # the copies have not advanced this stream
    cases.assert_same_bits(scored, flow.log_prob_steps(x, *given(flow))[:, 60:80])
    fresh, _ = begun(flow)
    own = fresh.copies(2).push(np.concatenate([x[:, 60:80], x[:, 60:80]]))
    cases.assert_same_bits(own[:3], scored)
    cases.assert_same_bits(own[3:], scored)


def given(flow, rows=3):
    return sequence_cases.context_of(flow, rows), sequence_cases.covariates_of(flow, rows, 100)


def test_covariates_may_come_later(flow):
    context, frames = given(flow)
    x = sequence_cases.sequences(3, 100)
    stream = flow.stream(3, context=context, covariates=frames[:, :11])
    parts = [stream.push(x[:, :40])]
    with pytest.raises(ValueError, match="covariates: expected at least 20 frames for 80 steps") as error:
        stream.push(x[:, 40:80])
    cases.assert_says(error, "at 4 steps a frame", "got 11")
    stream.extend(frames[:, 11:])
    parts.append(stream.push(x[:, 40:]))  # the refused push has not advanced the stream
    cases.assert_same_bits(np.concatenate(parts, axis=1), flow.log_prob_steps(x, context, frames))
    cases.assert_same_bits(stream.state()["covariates"], frames)


def test_a_stream_keeps_the_parameters_of_its_start():
    flow = sequence_cases.wavenet("kept")
    x = sequence_cases.sequences(1, 60)
    steps = flow.log_prob_steps(x)
    stream, rest = flow.stream(), flow.given(x[:, :30])
    stream.push(x[:, :30])
    flow.parameters = 0.0 * flow.parameters
    cases.assert_same_bits(stream.push(x[:, 30:]), steps[:, 30:])
    cases.assert_same_bits(rest.log_prob_steps(x[:, 30:]), steps[:, 30:])
    assert (flow.log_prob_steps(x) != steps).any()


def test_latent_values_come_with_a_push():
    flow = sequence_cases.wavenet("latent")
    x = sequence_cases.sequences(2, 40)
    stream = flow.stream(2)
    stream.push(x[:, :10])
    scores, z = stream.push(x[:, 10:], latent=True)
    cases.assert_same_bits(z, flow.to_latent(x)[0][:, 10:])
    cases.assert_same_bits(scores, flow.log_prob_steps(x)[:, 10:])


def test_many_streams_of_one_sample_at_a_time():
    """A particle filter copies one past, pulls one step at a time, and resamples rows of the stream's state."""
    flow = sequence_cases.wavenet("particles", layers=3, prediction=0)
    stream = flow.stream()
    stream.push(sequence_cases.sequences(1, 20))
    particles = stream.copies(40)
    drawn = np.concatenate([particles.pull(1, seed=4) for _ in range(6)], axis=1)
    state = particles.state()
    chosen = np.array([3, 3, 17, 0])
    again = flow.stream(state={"position": state["position"], "transforms.0": state["transforms.0"][chosen]})
    following = again.push(np.zeros((4, 2, 1)))
    first = np.repeat(sequence_cases.sequences(1, 20), 4, axis=0)
    past = np.concatenate([first, drawn[chosen], np.zeros((4, 2, 1))], axis=1)
    cases.assert_same_bits(following, flow.log_prob_steps(past)[:, -2:])


STATES = {
    "no dict": (lambda s: [1], TypeError, ["state: expected a dict that Stream.state gave, got list"]),
    "an array less": (lambda s: {"position": s["position"]}, ValueError, ["state: expected arrays", "got position"]),
    "another dtype": (
        lambda s: s | {"transforms.0": s["transforms.0"].astype("float32")},
        TypeError,
        [r"state\['transforms.0'\]: expected a NumPy array of float64, got float32"],
    ),
    "another size": (
        lambda s: s | {"transforms.0": s["transforms.0"][:, 1:]},
        ValueError,
        [r"state\['transforms.0'\]: expected shape"],
    ),
    "no number": (
        lambda s: s | {"transforms.0": np.full_like(s["transforms.0"], np.nan)},
        ValueError,
        [r"state\['transforms.0'\]: expected finite numbers"],
    ),
    "no rows": (
        lambda s: s | {"transforms.0": np.float64(3.0)},
        TypeError,
        [r"state\['transforms.0'\]: expected a NumPy array"],
    ),
    "a list for the position": (lambda s: s | {"position": [3]}, TypeError, [r"state\['position'\]: expected an int"]),
    "a position near 2^63": (
        lambda s: s | {"position": 2**63 - 1},
        ValueError,
        ["position", "got 9223372036854775807"],
    ),
    "a position before the first": (lambda s: s | {"position": np.array(-1)}, ValueError, ["position", "from 0 to"]),
}


@pytest.mark.parametrize("name", STATES)
def test_arrays_that_are_no_states_are_refused(name):
    change, kind, words = STATES[name]
    flow = sequence_cases.wavenet("bad state", layers=3)
    with pytest.raises(kind) as error:
        flow.stream(state=change(flow.stream().state()))
    cases.assert_says(error, *words)


def test_a_position_may_be_an_integer():
    flow = sequence_cases.wavenet("integer position", layers=3)
    assert flow.stream(state=flow.stream().state() | {"position": 7}).position == 7


def test_values_beyond_the_dtype_leave_the_stream_unchanged():
    flow, x = hr.WaveNet(layers=2, channels=4), np.linspace(-1.0, 1.0, 20)[None, :, None]
    stream = flow.stream()
    first = stream.push(x[:, :10])
    with pytest.raises(ValueError, match=r"x: expected numbers that float32 holds, got \[-1e\+300\] at step 0"):
        stream.push(np.full((1, 3, 1), -1e300))
    assert stream.position == 10
    cases.assert_same_bits(np.concatenate([first, stream.push(x[:, 10:])], axis=1), flow.log_prob_steps(x))


def test_no_pull_goes_beyond_2_to_the_32():
    flow = hr.WaveNet(layers=2, channels=4)
    stream = flow.stream(state=flow.stream().state() | {"position": 2**32 - 2})
    assert stream.pull(2, seed=0).shape == (1, 2, 1)
    with pytest.raises(ValueError, match=r"steps: expected at most 2\^32 with those before, got 4294967297"):
        stream.pull(1, seed=0)


@pytest.mark.costly
@pytest.mark.parametrize("rows", [10**12, 2**31 - 1])
def test_streams_beyond_the_memory_are_refused_at_once(rows):
    """Without the refusal, memory would be allocated until none is left."""
    with pytest.raises((ValueError, MemoryError)):
        hr.WaveNet(layers=20, channels=512).stream(rows)


def test_a_state_is_independent_of_its_stream():
    flow = hr.WaveNet(layers=2, channels=4)
    with pytest.raises(ValueError, match="state: expected None beside rows, context and covariates"):
        flow.stream(2, state=flow.stream().state())
