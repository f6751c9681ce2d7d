"""Missing steps by copies of a stream, with the function of a tutorial, against the exact law of an autoregression."""

import re
from pathlib import Path

import numpy as np
import pytest

import cases
import headrace as hr

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "signal.md"
MEMORY, DEVIATION = 0.8, 2.0


def followed(flow):
    """The function `followed` that the page's code defines, for this flow."""
    code = next(
        block
        for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
        if "def followed(" in block
    )
    namespace = {"np": np, "flow": flow}
    exec(code[: code.index("\n\n\n")], namespace)
    return namespace["followed"]


def test_copies_of_a_stream_take_the_sum_over_missing_steps():
    """For x_t = 0.8 x_{t-1} + e_t, the step k steps later has a normal law of mean 0.8^k x and of variance σ² (1 -
    0.8^2k)."""
    network = hr.CausalConvolution(channels=1, dilations=[1], map="affine")
    for name, array in network.named_parameters().items():
        network.set_parameter(name, np.zeros_like(array))
    prediction = hr.LinearPrediction.of_reflections([[MEMORY]])
    flow = hr.SequenceFlow([network, prediction, hr.transforms.Standardize([0.0], [DEVIATION])])
    x = flow.sample(1, steps=60, seed=4)[0]
    gone = x.copy()
    gone[20:23], gone[40], gone[55:] = np.nan, np.nan, np.nan

    def log_normal(value, mean, variance):
        return -0.5 * (value - mean) ** 2 / variance - 0.5 * np.log(2.0 * np.pi * variance)

    steps = flow.log_prob_steps(x).astype(np.float64)
    exact = steps[:20].sum() + steps[24:40].sum() + steps[42:55].sum()
    for before, after in ((19, 23), (39, 41)):
        memory = MEMORY ** (after - before)
        exact += log_normal(float(x[after, 0]), memory * float(x[before, 0]), DEVIATION**2 * (1.0 - memory**2))
    found, paths = followed(flow)(gone, 4000, seed=1)
    assert found == pytest.approx(exact, abs=0.1)
    cases.assert_same_bits(paths[:, :20], np.repeat(x[None, :20], 4000, axis=0))
    assert np.isfinite(paths).all()
    # A missing step between two known steps has the normal law of a bridge.
    left, right, k = float(x[39, 0]), float(x[41, 0]), 1.0 + MEMORY**2
    middle = paths[:, 40, 0]
    assert middle.mean() == pytest.approx(MEMORY * (left + right) / k, abs=0.1)
    assert middle.std() == pytest.approx(DEVIATION * np.sqrt((1.0 - MEMORY**2) / k), rel=0.1)
