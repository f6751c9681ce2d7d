"""Bounds of sequences: prices and counts are unbounded sequences of another flow, mapped step by step."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cases
import headrace as hr
import sequence_cases

BOUNDS = [(0.0, None), (-1.0, 3.0)]


@pytest.fixture(params=cases.DTYPES)
def pair(request):
    """A flow with bounds, and the flow of its unbounded side."""
    options = {"features": 2, "layers": 3, "inner": None, "map": "affine", "dtype": request.param}
    options |= {"standardize": ([0.3, -0.2], [0.7, 1.1])}
    bounded = sequence_cases.wavenet("bounds", bounds=BOUNDS, **options)
    free = sequence_cases.wavenet("bounds", **options)
    return bounded, free


def mapped(y):
    """Both features mapped to their supports, and the logarithms of the slopes, by formulas."""
    a, b = y[..., 0], 1.0 / (1.0 + np.exp(-y[..., 1]))
    return np.stack([np.exp(a), -1.0 + 4.0 * b], axis=-1), a + np.log(4.0 * b * (1.0 - b))


def test_densities_samples_and_gradients_are_those_of_the_unbounded_side(pair):
    bounded, free = pair
    y = sequence_cases.sequences(3, 60, 2)
    x, log_slopes = mapped(y)
    tight = {"rtol": 1e-9, "atol": 1e-9} if bounded.dtype == np.float64 else {"rtol": 2e-4, "atol": 2e-4}
    assert_allclose(bounded.log_prob_steps(x), free.log_prob_steps(y) - log_slopes, **tight)
    assert_allclose(bounded.nll_and_grad(x)[1], free.nll_and_grad(y)[1], **tight)
    drawn = bounded.sample(3, 200, seed=4)
    assert_allclose(drawn, mapped(free.sample(3, 200, seed=4))[0], **tight)
    assert (drawn[..., 0] > 0.0).all()
    assert (np.abs(drawn[..., 1] - 1.0) < 2.0).all()
    stream, parts = bounded.stream(3), np.split(x.astype(bounded.dtype), [1, 2, 30], axis=1)
    pushed = np.concatenate([stream.push(part) for part in parts], axis=1)
    cases.assert_same_bits(pushed, bounded.log_prob_steps(x.astype(bounded.dtype)))


def test_a_step_beyond_its_bounds_has_no_density(pair):
    bounded, _ = pair
    x = mapped(sequence_cases.sequences(2, 30, 2))[0]
    whole = bounded.log_prob_steps(x)
    x[0, 9, 0] = 0.0
    steps = bounded.log_prob_steps(x)
    cases.assert_same_bits(steps[0, :9], whole[0, :9])
    cases.assert_same_bits(steps[1], whole[1])
    assert np.isnan(steps[0, 9])
    assert np.isnan(bounded.stream(2).push(x.astype(bounded.dtype))[0, 9])


def prices(steps, *key):
    noise = cases.rng("prices", *key).standard_normal((steps, 1))
    return 50.0 * np.exp(0.05 * np.cumsum(noise, axis=0))


def test_a_fit_standardises_the_unbounded_side():
    x = [prices(n, n) for n in (700, 450, 90)]  # short sequences are padded behind their end
    flow = hr.WaveNet(layers=4, channels=8, bounds=[(0, None)])
    before = flow.log_prob(x).sum()
    history = flow.fit(x, epochs=3, progress=False)
    logs = np.concatenate([np.log(one[: len(one) - history.held_out.get(i, 0)]) for i, one in enumerate(x)])
    standardize = flow.transforms[-2]
    assert_allclose((standardize.mean, standardize.std), (logs.mean(0), logs.std(0)), rtol=1e-6)
    assert history.stopped == "epochs"
    assert flow.log_prob(x).sum() > before
    again = hr.from_bytes(hr.to_bytes(flow))
    cases.assert_same_bits(again.log_prob(x[0]), flow.log_prob(x[0]))
    # The linear prediction is that of Levinson's recursion on the logarithms.
    free = hr.WaveNet(layers=4, channels=8)
    free.fit([np.log(one) for one in x], epochs=0, progress=False)
    fresh = hr.WaveNet(layers=4, channels=8, bounds=[(0, None)])
    fresh.fit(x, epochs=0, progress=False)
    assert_allclose(fresh.transforms[1].coefficients, free.transforms[1].coefficients, rtol=1e-4, atol=1e-5)


def test_an_adaptive_prediction_behind_bounds():
    flow = hr.WaveNet(layers=4, channels=8, adaptive=True, bounds=[(0, None)])
    history = flow.fit([prices(2000, "adaptive")], epochs=1, progress=False)
    free = hr.WaveNet(layers=4, channels=8, adaptive=True)
    free.fit([np.log(prices(2000, "adaptive"))], epochs=1, progress=False)
    assert np.isfinite(history.best_loss)
    for name in ("floor", "ceiling", "start"):
        assert_allclose(getattr(flow.transforms[1], name), getattr(free.transforms[1], name), rtol=1e-4)


def counts(steps):
    """A sequence of counts whose rate depends on the previous count."""
    rng, x = cases.rng("counts"), np.zeros((steps, 1), "int16")
    for t in range(1, steps):
        x[t] = rng.poisson(0.3 + 0.6 * x[t - 1, 0])
    return x


def test_counts_have_probabilities_that_sum_to_one():
    past, values = counts(30), np.arange(501)
    x = np.concatenate([np.repeat(past[None], len(values), axis=0), values[:, None, None]], axis=1)
    for high in (None, 500.5):
        flow = sequence_cases.wavenet("counts", layers=3, bounds=[(-0.5, high)], standardize=(0.5, 0.8))
        masses = np.exp(flow.log_prob_steps(x, quantised=1)[:, -1])
        if high is not None:
            assert abs(masses.sum() - 1.0) < 1e-12
        grid = 1.0 + np.linspace(-0.5, 0.5, 2001)
        density = np.exp(flow.given(past.astype(float)).log_prob(grid[:, None, None]))
        assert_allclose(masses[1], np.trapezoid(density, grid), rtol=1e-5)
        stream = flow.stream()
        cases.assert_same_bits(stream.push(past[None], quantised=1)[0], flow.log_prob_steps(past, quantised=1))


def test_a_fit_of_counts():
    flow = hr.WaveNet(layers=3, channels=6, bounds=[(-0.5, None)])
    history = flow.fit(counts(1500), quantised=1, epochs=2, progress=False)
    assert np.isfinite(history.best_loss)
    assert (np.round(flow.sample(5, 100, seed=0)) >= 0.0).all()


def test_refused_bounds_of_sequences():
    x = [prices(90, 0), prices(90, 1)]
    x[1][7] = -3.0
    with pytest.raises(ValueError, match=r"\(0\.0, None\), got -3 in feature 0 at step 7 of sequence 1"):
        hr.WaveNet(layers=3, bounds=[(0, None)]).fit(x, progress=False)
    with pytest.raises(ValueError, match=r"got 0 in .*; for counts bounds are half a step out"):
        hr.WaveNet(layers=3, bounds=[(0, None)]).fit(counts(90), quantised=1, progress=False)
    with pytest.raises(ValueError, match="bounds: expected 2 of them"):
        hr.WaveNet(2, bounds=[(0, None)])
    with pytest.raises(ValueError, match="validation x: expected values between their bounds"):
        hr.WaveNet(layers=3, bounds=[(0, None)]).fit(prices(90), validation=-prices(90), progress=False)
