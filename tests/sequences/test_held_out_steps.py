"""Steps that a fit of sequences holds out: whole recordings, the ends of long recordings, or sequences of the
caller."""

import numpy as np
import pytest

import cases
import headrace as hr
import sequence_cases
from headrace.sequences.crops import Stretch
from sequence_cases import SHORT, autoregression, fitted, opened


def split(lengths, share, seed=0):
    given = opened(sequence_cases.wavenet("split", **SHORT), [np.zeros((n, 1)) for n in lengths])
    return given.split(share, np.random.default_rng(seed))


def test_whole_sequences_are_held_out():
    lengths = [50] * 20 + [5] * 20
    kept, out = split(lengths, 0.1)
    assert sorted(one.sequence for one in kept + out) == list(range(40))
    assert all((one.begin, one.end) == (0, lengths[one.sequence]) for one in kept + out)
    assert 110 <= sum(one.steps for one in out) < 160
    assert split(lengths, 0.1, 1)[1] != out
    assert split(lengths, 0)[1] == []


def test_the_end_of_the_only_sequence_is_held_out():
    assert split([1000], 0.1) == ([Stretch(0, 0, 900)], [Stretch(0, 900, 1000)])
    flow = hr.WaveNet(**SHORT)
    history = fitted(flow, autoregression(1000), epochs=1)
    assert (history.judged_by, history.held_out) == ("held-out steps", {0: 100})
    assert "held_out={0: 100}" in repr(history)
    standardize = flow.transforms[-1]
    np.testing.assert_allclose(standardize.mean[0], autoregression(1000)[:900].mean(), rtol=1e-12)


LENGTHS = {
    "one long and one short": [20_000, 200],
    "one long and nine short": [40_000, *[400] * 9],
    "one long and twelve short": [20_000, *[200] * 12],
    "two alike": [1000, 1000],
    "a step": [4000, 1],
    "steps": [1] * 40,
    "short": [3, 2, 3],
    "all kinds": [5000, 2500, 1200, 600, 300, 150, 75, 30, 10, 5],
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_at_most_a_fifth_of_the_steps_is_held_out(lengths):
    total = sum(lengths)
    for seed in range(10):
        kept, out = split(lengths, 0.1, seed)
        held = sum(one.steps for one in out)
        assert sum(one.steps for one in kept) + held == total
        assert 1 <= held <= 0.2 * total
        assert held >= 0.08 * total
        assert 2 * len(kept) >= len(lengths)
        assert all(one.end == lengths[one.sequence] for one in out)
        trained = {one.sequence: one.end for one in kept}
        assert all(one.begin == trained.get(one.sequence, 0) for one in out)


@pytest.mark.costly
def test_a_long_recording_beside_a_short_one_is_trained_on():
    x = [autoregression(n, "beside") for n in (4000, 40)]
    test, alone, reached = autoregression(10_000, "new"), hr.WaveNet(layers=3, channels=8), []
    fitted(alone, x[0], epochs=5)
    for seed in range(4):
        flow = hr.WaveNet(layers=3, channels=8)
        history = fitted(flow, x, epochs=5, seed=seed)
        assert history.held_out == {0: 400, 1: 4}
        reached.append(flow.log_prob(test) / len(test))
    assert min(reached) > alone.log_prob(test) / len(test) - 0.02


def test_held_out_ends_are_judged_given_their_past():
    x = [autoregression(n, "ends") for n in (600, 500, 40)]
    x[1][450:] += 1e4
    flow = hr.WaveNet(**SHORT, context=1, prediction=4, dtype="float64")
    context = np.array([[1.0], [2.0], [5.0]])
    history = fitted(flow, x, context, epochs=1)
    assert history.held_out == {0: 60, 1: 50, 2: 4}
    kept = [one[: -history.held_out[i]] for i, one in enumerate(x)]
    joined = np.concatenate(kept)
    standardize = flow.transforms[-1]
    np.testing.assert_allclose([standardize.mean[0], standardize.std[0]], [joined.mean(), joined.std()], rtol=1e-12)
    steps = flow.log_prob_steps(x, context)
    ends = np.concatenate([own[len(one) :] for own, one in zip(steps, kept, strict=True)])
    np.testing.assert_allclose(history.best_loss, -ends.mean(), rtol=1e-12)
    other = hr.WaveNet(**SHORT, context=1, prediction=4, dtype="float64")
    fitted(other, kept, context, epochs=0, validation=None)
    fresh = hr.WaveNet(**SHORT, context=1, prediction=4, dtype="float64")
    fitted(fresh, x, context, epochs=0)
    assert (fresh.parameters == other.parameters).all()  # even parameters of the prediction are equal
    np.testing.assert_array_equal(fresh.standardize_context, other.standardize_context)


def test_validation_sequences_of_the_caller():
    flow = hr.WaveNet(**SHORT, context=1, covariates=2, hop=3, dtype="float64")
    x, own = [autoregression(n, "own") for n in (200, 100)], [autoregression(n, "held") for n in (90, 60)]
    frames = [cases.rng("own frames", n).standard_normal((-(-n // 3), 2)) for n in (200, 100, 90, 60)]
    context = cases.rng("own context").standard_normal((4, 1))
    weights = np.array([2.0, 1.0])
    history = fitted(flow, x, context[:2], frames[:2], validation=(own, context[2:], frames[2:], weights))
    steps = flow.log_prob_steps(own, context[2:], frames[2:])
    expected = -(2.0 * steps[0].sum() + steps[1].sum()) / 240
    np.testing.assert_allclose(history.best_loss, expected, rtol=1e-12)
    assert history.judged_by == "held-out sequences"
    plain = hr.WaveNet(**SHORT)
    assert fitted(plain, x, validation=own).judged_by == "held-out sequences"
    assert fitted(plain, x, validation=own[0]).judged_by == "held-out sequences"
    history = fitted(plain, x, validation=None)
    assert history.judged_by == "training rows"
    assert not history.validation_loss
