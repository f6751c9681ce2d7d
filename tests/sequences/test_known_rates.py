"""Processes whose entropy rate is known: a network of the right weights has this rate, and no network has a better one.

The mean log density of a long sequence is compared with that of the true conditional densities on the same sequence.
The true mean minus the network's mean is a divergence, which is not negative unless the network reads the steps that it
predicts.
"""

import math

import numpy as np
import pytest

import cases
import headrace as hr
import reference

STEPS = 100_000
AR, DEVIATION = (1.7, -0.8), 0.3  # x_t = 1.7 x_{t-1} - 0.8 x_{t-2} + 0.3 e_t
ARCH = (0.4, 0.55)  # the variance of x_t given x_{t-1} is 0.4 + 0.55 x_{t-1}^2
SMALL = 1e-3  # the size of inputs for which tanh is linear up to its cubic term


def raw_scale(log_scale, slope=1e-3):
    """The raw value that the soft clamp maps to this log scale."""
    return log_scale / (1.0 - np.abs(log_scale) / math.log(1.0 / slope))


def normal(x, mean, variance):
    return -0.5 * (x - mean) ** 2 / variance - 0.5 * np.log(2.0 * np.pi * variance)


def autoregression(steps, draw):
    x = np.zeros(steps + 1000)
    noise = DEVIATION * draw.standard_normal(len(x))
    for t in range(2, len(x)):
        x[t] = AR[0] * x[t - 1] + AR[1] * x[t - 2] + noise[t]
    return x[1000:]


def conditional_variance(steps, draw):
    x = np.zeros(steps + 1000)
    noise = draw.standard_normal(len(x))
    for t in range(1, len(x)):
        x[t] = math.sqrt(ARCH[0] + ARCH[1] * x[t - 1] ** 2) * noise[t]
    return x[1000:]


def linear_network(dtype, covariates=0):
    """The autoregression as a network: gates use the linear part of tanh, and the head has one ReLU for each sign."""
    t = hr.CausalConvolution(channels=1, skip=2, dilations=[1], map="affine", covariates=covariates, dtype=dtype)
    arrays = {name: np.zeros_like(array) for name, array in t.named_parameters().items()}
    arrays["input.weight"][0, 0] = AR[::-1]  # the oldest tap comes first
    arrays["layers.0.gate.weight"][0, 0, 1] = SMALL
    arrays["layers.0.out.weight"][:, 0] = [2.0 / SMALL, -2.0 / SMALL]  # an open gate multiplies by a half
    arrays["head.0.weight"][:] = np.eye(2)
    arrays["head.1.weight"][0] = [1.0, -1.0]
    arrays["head.1.bias"][1] = raw_scale(math.log(DEVIATION))
    for name, array in arrays.items():
        t.set_parameter(name, array)
    return t


def squares_network(dtype):
    """A network of random gates of x_{t-1}, whose last layer is fitted to the logarithm of the variance."""
    width, draw = 24, cases.rng("squares")
    t = hr.CausalConvolution(channels=width, dilations=[1], map="affine", dtype=dtype)
    arrays = {name: np.zeros(array.shape) for name, array in t.named_parameters().items()}
    arrays["input.weight"][:, 0, 1] = draw.uniform(0.1, 1.0, width) * draw.choice([-1.0, 1.0], width)
    arrays["input.bias"][:] = draw.uniform(-2.0, 2.0, width)
    arrays["layers.0.gate.weight"][:width, :, 1] = np.eye(width)
    arrays["layers.0.out.weight"][:] = np.eye(width)
    arrays["head.0.weight"][:] = draw.standard_normal((width, width)) / 3.0
    arrays["head.0.bias"][:] = draw.uniform(-0.5, 0.5, width)
    arrays["head.1.weight"] = np.eye(width)
    arrays["head.1.bias"] = np.zeros(width)
    grid = np.linspace(-15.0, 15.0, 3001)
    features = reference.CausalNetwork(arrays, (1,))(np.stack([grid, grid], axis=1)[..., None])[:, 1]
    target = raw_scale(0.5 * np.log(ARCH[0] + ARCH[1] * grid**2))
    weights = 1.0 / (1.0 + grid**2)
    design = np.concatenate([features, np.ones((len(grid), 1))], axis=1) * weights[:, None]
    penalty = 1e-4 * np.eye(width + 1)
    wanted = np.append(target * weights, np.zeros(width + 1))
    found = np.linalg.lstsq(np.concatenate([design, penalty]), wanted, None)[0]
    arrays["head.1.weight"] = np.stack([np.zeros(width), found[:-1]])
    arrays["head.1.bias"] = np.array([0.0, found[-1]])
    for name, array in arrays.items():
        t.set_parameter(name, array.astype(dtype))
    return t


def check_rate(found, true, rate, within):
    """Compare the network's log densities with the true ones, and the mean of the true ones with the negative entropy
    rate."""
    # The factor 3 allows for the dependence between steps.
    assert abs(true.mean() + rate) < 5.0 * true.std() / math.sqrt(len(true)) * 3.0
    difference = true.mean() - found.mean()
    assert difference > -1e-4, f"{-difference:.3g} nats above the rate: the network sees what it predicts"
    assert difference < within, f"{difference:.3g} nats below the rate"


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_an_autoregression(dtype):
    x = autoregression(STEPS, cases.rng("ar"))
    flow = hr.SequenceFlow([linear_network(dtype)])
    found = flow.log_prob_steps(x[:, None].astype(dtype))[2:].astype(np.float64)
    true = normal(x[2:], AR[0] * x[1:-1] + AR[1] * x[:-2], DEVIATION**2)
    check_rate(found, true, 0.5 * math.log(2.0 * math.pi * math.e * DEVIATION**2), within=1e-3)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_a_variance_that_depends_on_the_past(dtype):
    x = conditional_variance(STEPS, cases.rng("arch"))
    flow = hr.SequenceFlow([squares_network(dtype)])
    found = flow.log_prob_steps(x[:, None].astype(dtype))[1:].astype(np.float64)
    variance = ARCH[0] + ARCH[1] * x[:-1] ** 2
    rate = 0.5 * (math.log(2.0 * math.pi * math.e) + np.log(variance).mean())
    check_rate(found, normal(x[1:], 0.0, variance), rate, within=1e-2)


def test_samples_are_the_process():
    """Samples have the mean log density of the process, which is the negative entropy rate, and its
    autocovariances."""
    flow = hr.SequenceFlow([linear_network("float64")])
    x = flow.sample(50, steps=2200, seed=0)[:, 200:]
    rate = 0.5 * math.log(2.0 * math.pi * math.e * DEVIATION**2)
    mean = flow.given(x[:, :2]).log_prob_steps(x[:, 2:]).mean()
    assert abs(mean + rate) < 5.0 * math.sqrt(0.5 / x.size)
    # Yule and Walker: the first autocorrelation is a / (1 - b), and the second is a times the first, plus b.
    first = AR[0] / (1.0 - AR[1])
    variance = DEVIATION**2 / (1.0 - AR[0] * first - AR[1] * (AR[0] * first + AR[1]))
    assert abs(x.var() / variance - 1.0) < 0.1
    assert abs((x[:, 1:] * x[:, :-1]).mean() / (x**2).mean() - first) < 0.01


def test_a_network_that_reads_the_future_is_detected():
    """A copy of the sequence among the covariates is a leak, which the check of the rate detects."""
    x = autoregression(20_000, cases.rng("leak"))
    t = linear_network("float64", covariates=1)
    seen = t.named_parameters()["layers.0.gate.covariates"]
    seen[0, 0] = 0.5 * SMALL  # half of the value of the step that is to be predicted
    t.set_parameter("layers.0.gate.covariates", seen)
    t.set_parameter("input.weight", 0.5 * t.named_parameters()["input.weight"])
    flow = hr.SequenceFlow([t])
    found = flow.log_prob_steps(x[:, None], covariates=x[:, None])[2:]
    true = normal(x[2:], AR[0] * x[1:-1] + AR[1] * x[:-2], DEVIATION**2)
    with pytest.raises(AssertionError, match="nats above the rate: the network sees what it predicts"):
        check_rate(found, true, 0.5 * math.log(2.0 * math.pi * math.e * DEVIATION**2), within=1e-3)
