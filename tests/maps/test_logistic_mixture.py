"""The logit of a mixture of logistic distributions in hard cases: gaps, tails, extreme scales, many components.

The reference computes logarithms and finds roots by bisection. Values agree to some units in the last place, of the
value or of the rounding of its argument multiplied by the steepness, whichever is larger.
"""

import numpy as np
import pytest

import cases
import headrace as hr
import map_cases
import reference
from headrace import ops

NAME = "logistic_mixture"


def parameters(weight, mean, log_scale, rows, dtype):
    """Return equal raw parameters for each row of a coordinate, with the scales of `log_scale` for a slope of 1e-6."""
    clamp = np.log(1e6)
    log_scale = np.asarray(log_scale, float)
    raw = log_scale / (1.0 - np.abs(log_scale) / clamp)
    one = np.concatenate([weight, mean, raw]).astype(dtype)
    return np.ascontiguousarray(np.broadcast_to(one, (rows, 1, one.size)))


HARD = {
    "two components with a wide gap": ([0.0, 0.0], [-500.0, 500.0], [0.0, 0.0]),
    "scales over eight decades": ([0.0, 1.0, -1.0], [0.0, 0.5, -2.0], np.log([1e-5, 1.0, 1e3])),
    "weights over many decades": ([0.0, -60.0, -300.0], [0.0, 3.0, -5.0], [0.0, 1.0, 2.0]),
    "components alike": (np.zeros(64), np.full(64, 0.7), np.full(64, -0.3)),
    "64 components": (np.linspace(-3, 3, 64), np.linspace(-9, 9, 64), np.linspace(-4, 1, 64)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hard", HARD)
def test_hard_mixtures_match_the_reference_in_both_directions(hard, dtype):
    x = np.concatenate([np.linspace(-1e3, 1e3, 401), np.linspace(-12.0, 12.0, 401), [-1e30, -1e5, 1e5, 1e30]])
    x = x[:, None].astype(dtype)
    params = parameters(*HARD[hard], len(x), dtype)
    options = {"slope": 1e-6}
    z, log_det = ops.coupling(x, params, NAME, **options, direction="inverse")
    want_z, want_log_det = reference.coupling_inverse(x, params, NAME, **options)
    steepness = np.exp(np.minimum(want_log_det, 80.0)) * np.abs(x[:, 0]) + np.abs(want_z[:, 0]) + 1.0
    cases.assert_close(z[:, 0], want_z[:, 0], magnitude=steepness, depth=8)
    cases.assert_close(log_det, want_log_det, magnitude=steepness + np.abs(want_log_det), depth=8)
    back, back_log_det = ops.coupling(z, params, NAME, **options)
    want_back, _ = reference.coupling_forward(z, params, NAME, **options)
    flat = np.exp(np.minimum(-want_log_det, 80.0)) * (1.0 + np.abs(want_z[:, 0])) + np.abs(x[:, 0])
    cases.assert_close(back[:, 0], want_back[:, 0], magnitude=flat, depth=8)
    assert np.isfinite(back_log_det).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_in_a_gap_the_density_is_small_and_not_zero(dtype):
    params = parameters([0.0, 0.0], [-500.0, 500.0], [0.0, 0.0], 1, dtype)
    z, log_det = ops.coupling(np.zeros((1, 1), dtype), params, NAME, slope=1e-6, direction="inverse")
    assert z.item() == 0.0
    assert log_det.item() == pytest.approx(np.log(4.0) - 500.0)  # density of the tails over F (1 - F), which is 1 / 4


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_bits_do_not_depend_on_the_other_lanes(direction):
    """An easy root takes no further steps beside hard roots."""
    generator = cases.rng("mixtures")
    params = 3.0 * generator.standard_normal((64, 1, 30)).astype("float32")
    values = generator.standard_normal((64, 1)).astype("float32")
    run = map_cases.KERNELS[direction]
    together = run(values, params, NAME)
    for row in range(0, 64, 7):
        alone = run(values[row : row + 1], params[row : row + 1], NAME)
        cases.assert_same_bits(alone[0][0], together[0][row])
        cases.assert_same_bits(alone[1][0], together[1][row])


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["value", 0, 3, 5])
def test_values_that_are_not_finite_give_nan_in_their_row_alone(direction, bad, where):
    params = cases.rng("bad").standard_normal((20, 1, 6))
    values = cases.rng("bad values").standard_normal((20, 1))
    run = map_cases.KERNELS[direction]
    before = run(values, params, NAME)
    if where == "value":
        values[7] = bad
    else:
        params[7, 0, where] = bad
    after = run(values, params, NAME)
    rest = np.arange(20) != 7
    assert np.isnan(after[0][7]).all()
    assert np.isnan(after[1][7])
    cases.assert_same_bits(after[0][rest], before[0][rest])
    cases.assert_same_bits(after[1][rest], before[1][rest])


def test_a_flow_over_a_logistic_base_has_the_mixture_as_its_density_and_draws_from_it():
    weight, mean = np.array([0.0, 1.0, -0.5]), np.array([-4.0, 0.0, 3.0])
    mixture = hr.transforms.Elementwise(1, map=NAME, bins=3, formula="to_data", dtype="float64")
    mixture.set_parameter("weight", weight[None])
    mixture.set_parameter("mean", mean[None])
    flow = hr.Flow([mixture], base=hr.Logistic(1))
    x = np.linspace(-9.0, 9.0, 181)[:, None]
    u = x - mean
    shares = np.exp(weight) / np.exp(weight).sum()
    np.testing.assert_allclose(np.exp(flow.log_prob(x)), np.exp(-u) / (1 + np.exp(-u)) ** 2 @ shares, rtol=1e-12)
    rows = flow.sample(20_000, seed=1)
    deviation = np.sqrt((shares * (np.pi**2 / 3 + mean**2)).sum() - (shares @ mean) ** 2)
    assert abs(rows.mean() - shares @ mean) < 4.0 * deviation / np.sqrt(20_000)


def test_a_fit_finds_two_peaks():
    """The true density of a bimodal column, which affine maps cannot learn, is 0.35 nats better than a Gaussian."""
    generator = np.random.default_rng(3)
    rows = generator.standard_normal((4000, 1)) * 0.3 + np.where(generator.random((4000, 1)) < 0.4, -1.0, 1.0)
    transform = hr.transforms.MaskedAutoregressive(1, (), map=NAME, bins=4)
    flow = hr.Flow([transform], base=hr.Logistic(1))
    start = generator.standard_normal(flow.parameters.shape)
    flow.parameters = start.astype("float32")  # components begin apart: equal components would stay equal
    flow.fit(rows, epochs=60, learning_rate=2e-2, seed=0, progress=False)
    normal = lambda m: np.exp(-0.5 * ((rows - m) / 0.3) ** 2) / (0.3 * np.sqrt(2 * np.pi))  # noqa: E731
    truth = np.log(0.4 * normal(-1.0) + 0.6 * normal(1.0)).mean()
    assert flow.log_prob(rows).mean() > truth - 0.05
