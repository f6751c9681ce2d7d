"""Probabilities of integers and other grids: exact masses of cells, which sum to one."""

import numpy as np
import pytest

import cases
import headrace as hr
import sequence_cases


@pytest.fixture(params=cases.DTYPES)
def flow(request):
    return sequence_cases.wavenet("cells", layers=4, dtype=request.param, standardize=(2.0, 5.0))


def mass(log_density, low, high, points=4001):
    """The integral of a density by Simpson's rule."""
    grid = np.linspace(low, high, points)
    weights = np.ones(points)
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    return (np.exp(log_density(grid)) * weights).sum() * (grid[1] - grid[0]) / 3.0


def test_a_cell_has_the_integral_of_the_density(flow):
    past = np.round(5.0 * sequence_cases.sequences(1, 30))[0]
    rest = flow.astype("float64").given(past)
    for value in (-7.0, 0.0, 2.0, 13.0):
        x = np.append(past, [[value]], axis=0)
        got = flow.log_prob_steps(x.astype("int16"), quantised=1)[-1]
        want = mass(lambda grid: rest.log_prob(grid[:, None, None]), value - 0.5, value + 0.5)
        np.testing.assert_allclose(got, np.log(want), atol=1e-8 if flow.dtype == np.float64 else 2e-5)


def test_cells_sum_to_one(flow):
    past = np.round(5.0 * sequence_cases.sequences(1, 30))[0]
    values = np.arange(-4000, 4001)
    x = np.repeat(past[None], len(values), axis=0)
    x = np.concatenate([x, values[:, None, None]], axis=1)
    got = flow.log_prob_steps(x, quantised=1)[:, -1].astype(np.float64)
    assert abs(np.exp(got).sum() - 1.0) < 1e-5
    halves = np.concatenate([x[:1, :-1], np.full((1, 1, 1), 0.5)], axis=1)
    assert np.isfinite(flow.log_prob(halves, quantised=0.5)).all()


def test_far_tails_and_narrow_cells_keep_their_digits(flow):
    wide = flow.astype("float64")
    past = np.zeros((10, 1))
    for value in (1e4, -1e4):  # the mass of the cell is far below the smallest positive value of either precision
        x = np.append(past, [[value]], axis=0)
        got, density = wide.log_prob_steps(x, quantised=1)[-1], wide.log_prob_steps(x)[-1]
        assert np.isfinite(got)
        assert abs(got - density) < 1.0  # the density varies within the cell by a factor below e
    x = sequence_cases.sequences(2, 30)
    narrow = wide.log_prob_steps(x, quantised=1e-6) - np.log(1e-6)
    np.testing.assert_allclose(narrow, wide.log_prob_steps(x), atol=1e-6)


@pytest.mark.parametrize("map", ["affine", "rq_spline"])
def test_every_map_over_the_logistic_base(map):
    flow = sequence_cases.wavenet("maps", map=map, base=hr.Logistic(2), features=2, bins=5, layers=3)
    x = np.round(sequence_cases.sequences(2, 12, 2))
    rest = flow.given(x[:, :-1])
    got = flow.log_prob_steps(x, quantised=1)[0, -1]
    grid = np.linspace(-0.5, 0.5, 201)
    weights = np.ones(201)
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    at = x[:, -1] + np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    density = np.exp(rest.log_prob(at[:, :, None, :]))[:, 0].reshape(201, 201)
    want = weights @ density @ weights * (grid[1] - grid[0]) ** 2 / 9.0
    np.testing.assert_allclose(got, np.log(want), atol=2e-4)  # a spline has kinks in its second derivative


def test_lists_lengths_and_parts(flow):
    x = np.round(5.0 * sequence_cases.sequences(3, 40)).astype("int32")
    steps = flow.log_prob_steps(x, quantised=1)
    cases.assert_same_bits(flow.log_prob_steps([x[0], x[1, :9]], quantised=1)[1], steps[1, :9])
    long = np.tile(x[:2], (1, 3500, 1))  # two sequences are computed in two parts, one sequence in one
    cases.assert_same_bits(flow.log_prob_steps(long, quantised=1)[1], flow.log_prob_steps(long[1], quantised=1))


@pytest.mark.parametrize("rows", [1, 3, 20])
def test_pushes_of_a_stream_have_the_bits_of_whole_sequences(flow, rows):
    x = np.round(5.0 * sequence_cases.sequences(rows, 60)).astype("int16")
    want = flow.log_prob_steps(x, quantised=1)
    densities = flow.log_prob_steps(x.astype("float64"))
    for lengths in ([1, 1, 9, 49], [60], [30, 29, 1]):
        stream, at = flow.stream(rows), 0
        for n in lengths:
            part = x[:, at : at + n]
            cases.assert_same_bits(stream.push(part, quantised=1), want[:, at : at + n])
            at += n
        assert stream.position == 60
    stream = flow.stream(rows)
    stream.push(x[:, :20], quantised=1)
    # A push sees the steps of all earlier pushes, with and without `quantised=`.
    cases.assert_same_bits(stream.push(x[:, 20:40].astype("float64")), densities[:, 20:40])
    cases.assert_same_bits(stream.push(x[:, 40:], quantised=1), want[:, 40:])


def test_pushes_of_cells_that_are_refused(flow):
    stream = flow.stream()
    x = np.zeros((1, 5, 1), "int16")
    with pytest.raises(TypeError, match="x: expected"):
        stream.push(x)
    with pytest.raises(ValueError, match="latent, quantised: expected one of them"):
        stream.push(x, latent=True, quantised=1)
    with pytest.raises(ValueError, match="quantised: expected a number above 0"):
        stream.push(x, quantised=0)
    with pytest.raises(ValueError, match="quantised: expected None but for one CausalConvolution"):
        hr.WaveNet(map="affine", layers=2).stream().push(x, quantised=1)
    with pytest.raises(ValueError, match="quantised: expected a wider step at 1, got 1e-30"):
        stream.push(x + 1.0, quantised=1e-30)
    with pytest.raises(ValueError, match=r"expected a wider step at 4\.61169e\+18, got 1"):
        flow.log_prob(np.full((1, 5, 1), 2**62), quantised=1)
    assert stream.position == 0
    cases.assert_same_bits(stream.push(x, quantised=1), flow.log_prob_steps(x, quantised=1))


OTHERS = {
    "another base": lambda: hr.WaveNet(map="affine", layers=2),
    "a student": lambda: hr.WaveNet(reads="latent", layers=2, transforms=1),
    "two transforms": lambda: hr.WaveNet(transforms=2, layers=2),
    "a mixing of values": lambda: hr.SequenceFlow(
        [hr.CausalConvolution(2, dilations=[1]), hr.transforms.Linear(2)], hr.Logistic(2)
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_flows_without_a_closed_form_are_refused(name):
    flow = OTHERS[name]()
    with pytest.raises(ValueError, match="quantised: expected None but for one CausalConvolution") as error:
        flow.log_prob(np.zeros((1, 5, flow.features)), quantised=1)
    cases.assert_says(error, "one CausalConvolution that reads data", "Logistic", "got 1")


@pytest.mark.parametrize("step", [0.0, -1.0, np.inf, np.nan])
def test_steps_of_no_grid_are_refused(step):
    with pytest.raises(ValueError, match="quantised: expected a number above 0"):
        hr.WaveNet(layers=2).log_prob(np.zeros((1, 5, 1)), quantised=step)


def test_an_interrupted_push_of_cells_leaves_no_wrong_stream(flow, monkeypatch):
    """After an interrupt the links of a flow may be at different steps, so that the stream refuses further calls."""
    stream = flow.stream()
    x = np.round(3.0 * cases.rng("interrupted cells").standard_normal((1, 12, flow.features)))
    stream.push(x, quantised=1)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("headrace.sequences.quantised.Cells.__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.push(x, quantised=1)
    with pytest.raises(ValueError, match="interrupted"):
        stream.push(x, quantised=1)
