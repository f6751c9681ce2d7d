"""Forecasts: quantiles, intervals and scores of the steps after a prefix, against the exact law of an
autoregression."""

from statistics import NormalDist

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import headrace as hr
import sequence_cases

MEMORY, DEVIATION = 0.8, 2.0
NORMAL = NormalDist()
LEVELS = (0.05, 0.3, 0.5, 0.9)


def autoregression():
    network = hr.CausalConvolution(channels=1, dilations=[1], map="affine", dtype="float64")
    for name, array in network.named_parameters().items():
        network.set_parameter(name, np.zeros_like(array))
    prediction = hr.LinearPrediction.of_reflections([[MEMORY]], "float64")
    return hr.SequenceFlow([network, prediction, hr.transforms.Standardize([0.0], [DEVIATION])])


def law(last, steps):
    """The means and deviations of steps after x: step k has the mean 0.8^k x and the variance σ² (1 - 0.8^2k)."""
    k = np.arange(1, steps + 1)[:, None]
    return MEMORY**k * last, DEVIATION * np.sqrt(1.0 - MEMORY ** (2 * k))


def test_an_autoregression():
    flow = autoregression()
    x = flow.sample(3, 40, seed=2)
    forecast = flow.given(x).forecast(4, draws=20_000, seed=1)
    mean, deviation = law(x[:, -1, None, :], 4)
    want = np.stack([mean + deviation * NORMAL.inv_cdf(level) for level in LEVELS])
    got = forecast.quantiles(LEVELS)
    assert got.shape == (4, 3, 4, 1)
    assert_allclose(got[:, :, 0], want[:, :, 0], rtol=1e-12)
    assert_allclose(got[:, :, 1:], want[:, :, 1:], atol=0.12)  # the limit is 4 standard errors of outer quantiles
    assert_array_equal(forecast.quantiles(0.3), got[1])
    low, high = forecast.interval(0.9)
    assert_allclose(low, forecast.quantiles(0.05))
    assert_allclose(high, forecast.quantiles(0.95), rtol=1e-12)
    came = flow.sample(3, 44, seed=2)[:, 40:]
    score = (came - mean) / deviation
    cdf, density = np.vectorize(NORMAL.cdf)(score), np.exp(-0.5 * score**2) / np.sqrt(2.0 * np.pi)
    exact = deviation * (score * (2.0 * cdf - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi))
    found = forecast.crps(came)
    assert_allclose(found[:, 0], exact[:, 0], atol=1e-4)
    assert_allclose(found, exact, atol=0.05)
    came[1, 2] = np.nan
    assert_array_equal(np.isnan(forecast.crps(came)), np.isnan(came))
    assert_array_equal(np.nan_to_num(forecast.crps(came)), np.nan_to_num(np.where(np.isnan(came), np.nan, found)))


def test_scores_of_few_draws_have_no_bias():
    flow = autoregression()
    x, came = flow.sample(1, 40, seed=2), np.zeros((1, 2, 1))
    rest = flow.given(x)
    few = [rest.forecast(2, draws=3, seed=seed).crps(came)[0, 1, 0] for seed in range(2000)]
    many = rest.forecast(2, draws=200_000, seed=1).crps(came)[0, 1, 0]
    assert abs(np.mean(few) - many) < 4.0 * np.std(few) / np.sqrt(len(few))


FLOWS = {
    "default": lambda: sequence_cases.wavenet("forecast", layers=3),
    "student": lambda: sequence_cases.wavenet("forecast", reads="latent", map="affine", layers=2, transforms=2),
    "context": lambda: sequence_cases.wavenet("forecast", layers=3, context=2, covariates=2, hop=5),
    "adaptive": lambda: sequence_cases.wavenet("forecast", layers=3, adaptive=True),
    "bounds": lambda: sequence_cases.wavenet("forecast", layers=3, bounds=[(-1.0, None)]),
    "float32": lambda: sequence_cases.wavenet("forecast", layers=3, dtype="float32"),
}


@pytest.mark.parametrize("name", FLOWS)
def test_the_first_step_has_the_levels_as_its_distribution_function(name):
    flow = FLOWS[name]()
    x = sequence_cases.sequences(2, 30, dtype=flow.dtype)
    x = np.abs(x) if name == "bounds" else x
    context, frames = sequence_cases.context_of(flow, 2), sequence_cases.covariates_of(flow, 2, 40)
    forecast = flow.given(x, context, frames).forecast(3, draws=5, seed=0)
    assert "first_step_is_exact=True" in repr(forecast)
    quantiles = forecast.quantiles(LEVELS)
    for level, value in zip(LEVELS, quantiles, strict=True):
        z = flow.to_latent(np.concatenate([x, value[:, :1].astype(x.dtype)], axis=1), context, frames)[0][:, -1, 0]
        reached = 1.0 / (1.0 + np.exp(-z)) if isinstance(flow.base, hr.Logistic) else [NORMAL.cdf(one) for one in z]
        assert_allclose(reached, level, rtol=1e-8 if flow.dtype == np.float64 else 1e-4)


def test_later_steps_have_distributions_by_draws():
    for flow in (
        hr.WaveNet(2, layers=2),
        hr.WaveNet(layers=2, base=hr.StudentT(1)),
        hr.WaveNet(layers=2, inner=hr.NSF(1, context=4, transforms=1)),
    ):
        forecast = flow.given(np.zeros((10, flow.features))).forecast(3, draws=50, seed=0)
        assert "first_step_is_exact=False" in repr(forecast)
        assert_array_equal(forecast.draws, flow.given(np.zeros((10, flow.features))).sample(50, 3, seed=0))
        assert_array_equal(forecast.quantiles([0.2]), np.quantile(forecast.draws, [0.2], axis=0))


def test_refused_arguments_of_forecasts():
    rest = hr.WaveNet(layers=2).given(np.zeros((2, 10, 1)))
    forecast = rest.forecast(3, draws=5)
    with pytest.raises(ValueError, match=r"levels: expected probabilities between 0 and 1, got \[0\.1, 1\]"):
        forecast.quantiles([0.1, 1])
    with pytest.raises(ValueError, match="share: expected"):
        forecast.interval(1.0)
    with pytest.raises(ValueError, match=r"x: expected shape \(2, 3, 1\), got \(3, 1\)"):
        forecast.crps(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="draws: expected"):
        rest.forecast(3, draws=0)
    with pytest.raises(ValueError, match=r"prefix: expected finite numbers, got \[nan\] at step 0 of sequence 0"):
        hr.WaveNet(layers=2).given(np.full((2, 10, 1), np.nan))
