"""Densities, samples and both directions of sequences against the reference, in both precisions."""

import numpy as np
import pytest

import cases
import headrace as hr
import sequence_cases
from pairs import pairwise

# name -> (options of the network, steps). Most widths fill no vector, one fills one, and each option occurs at least
# once.
NETWORKS = {
    "plain": ({}, 70),
    "one layer": ({"dilations": [1], "layers": None}, 9),
    "four taps": ({"kernel": 4, "dilations": [3, 1, 9], "layers": None}, 90),
    "whole vectors": ({"channels": 16, "skip": 16, "kernel": 2}, 70),
    "wide": ({"channels": 37, "skip": 21, "kernel": 2, "layers": 3}, 40),
    "wide skip": ({"channels": 4, "skip": 40, "layers": 2}, 40),
    "three values": ({"features": 3, "layers": 3}, 40),
    "context": ({"context": 5}, 40),
    "covariates at every step": ({"covariates": 4}, 40),
    "covariates in frames": ({"covariates": 3, "hop": 7, "context": 2}, 60),
    "longer than any dilation": ({"layers": 9, "kernel": 2, "channels": 5}, 280),
}
MAPS = {
    "logistic_mixture": {"bins": 6},
    "affine": {"map": "affine"},
    "affine by exp": {"map": "affine", "scale": "exp"},
    "rq_spline": {"map": "rq_spline", "bins": 5, "bound": 8.0},
}


def depth_of(flow):
    """The number of successive products and gates in a network, plus 24 for a map, such as a mixture or a spline."""
    layers = max(sum(name.endswith("out.weight") for name in t.named_parameters()) for t in flow.transforms[:-1])
    return 3 * layers + 24


@pairwise(name=list(NETWORKS), map=list(MAPS), reads=cases.READS, dtype=cases.DTYPES)
def test_both_directions_and_densities(name, map, reads, dtype, tmp_path):
    options, steps = NETWORKS[name]
    more = {"transforms": 2} if reads == "latent" else {}
    flow = sequence_cases.wavenet(name, map, dtype=dtype, reads=reads, **options, **MAPS[map], **more)
    judge = sequence_cases.judge_of(flow, tmp_path)
    rows = 3
    z = 0.7 * cases.rng("z", name).standard_normal((rows, steps, flow.features)).astype(dtype)
    context = sequence_cases.context_of(flow, rows)
    covariates = sequence_cases.covariates_of(flow, rows, steps)
    x, log_det = flow.to_data(z, context, covariates)
    back, log_det_back = flow.to_latent(x, context, covariates)
    # The values of the sequential direction are tested by the parallel direction, because each step accumulates the
    # errors of earlier steps.
    ways = [(z, x, log_det, judge.to_data), (x, back, log_det_back, judge.to_latent)]
    for (given, value, log, verb), (_, _, _, way_back) in zip(ways, ways[::-1], strict=True):
        is_parallel = (verb == judge.to_latent) == (reads == "data")
        want, want_log = verb(given, context, covariates) if is_parallel else way_back(value, context, covariates)
        got, sign = (value, 1.0) if is_parallel else (given, -1.0)
        scale = np.exp(np.abs(want_log).max()) if not is_parallel else 1.0  # the factor by which errors of a value grow
        cases.assert_close(got, want, magnitude=scale * np.abs(want).max(), depth=depth_of(flow))
        magnitude = np.sqrt(steps) * np.maximum(np.abs(want_log).max(), 1.0)
        cases.assert_close(log, sign * want_log.sum(axis=1), magnitude=scale * magnitude, depth=depth_of(flow))
    got = flow.log_prob_steps(x, context, covariates)
    if reads == "data":
        want = judge.log_prob_steps(x, context, covariates)
    else:
        want = judge.base.log_prob(back.reshape(-1, flow.features)).reshape(rows, steps)
        want = want - judge.to_data(back, context, covariates)[1]
    cases.assert_close(got, want, magnitude=np.abs(want).max(), depth=depth_of(flow))
    total = flow.log_prob(x, context, covariates)
    assert total.dtype == np.dtype(dtype)
    cases.assert_close(total, got.astype(np.float64).sum(axis=1), magnitude=magnitude)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_a_chain_of_both_readings_and_transforms_of_rows(dtype, tmp_path):
    flow = sequence_cases.chain(dtype)
    judge = sequence_cases.judge_of(flow, tmp_path)
    x = 5.0 + sequence_cases.sequences(4, 30, 2, dtype)
    context, covariates = sequence_cases.context_of(flow, 4), sequence_cases.covariates_of(flow, 4, 30)
    want = judge.log_prob_steps(x, context, covariates)
    cases.assert_close(flow.log_prob_steps(x, context, covariates), want, magnitude=np.abs(want).max(), depth=40)
    assert flow.field == 2 + 5 + 4 + 9


@pytest.mark.costly
def test_log_densities_sum_to_one_over_a_step():
    """The conditional density p(x_t | x_<t) integrates to one over x_t, and its mean is that of samples."""
    flow = sequence_cases.wavenet("integral", map="affine", base=hr.Logistic(1))
    past = sequence_cases.sequences(1, 20)[0]
    rest = flow.given(past)
    grid = np.linspace(-300.0, 300.0, 600_001)
    density = np.exp(rest.log_prob(grid[:, None, None]))
    assert abs(density.sum() * (grid[1] - grid[0]) - 1.0) < 1e-6
    drawn = rest.sample(20_000, steps=1, seed=0)[:, 0, 0]
    mean, variance = ((density * power).sum() * (grid[1] - grid[0]) for power in (grid, grid**2))
    assert abs(drawn.mean() - mean) < 4.0 * np.sqrt((variance - mean**2) / len(drawn))


def test_one_sequence_many_axes_lists_and_lengths():
    flow = sequence_cases.wavenet("shapes", context=2)
    x, context = sequence_cases.sequences(6, 50), cases.rows(6, 2, "float64", "c")
    whole, steps = flow.log_prob(x, context), flow.log_prob_steps(x, context)
    assert flow.log_prob(x[0], context[0]).shape == ()
    cases.assert_same_bits(flow.log_prob(x[0], context[0])[None], whole[:1])
    cases.assert_same_bits(flow.log_prob(x.reshape(2, 3, 50, 1), context.reshape(2, 3, 2)), whole.reshape(2, 3))
    one = flow.log_prob(x, context[0])
    cases.assert_same_bits(one, flow.log_prob(x, np.tile(context[:1], (6, 1))))
    lengths = [50, 1, 17, 50, 3, 49]
    parts = [row[:n] for row, n in zip(x, lengths, strict=True)]
    listed = flow.log_prob_steps(parts, context)
    for got, want, n in zip(listed, steps, lengths, strict=True):
        cases.assert_same_bits(got, want[:n])
    padded = np.where(np.arange(50)[None, :, None] < np.array(lengths)[:, None, None], x, np.nan)
    cases.assert_same_bits(flow.log_prob(padded, context, lengths=lengths), flow.log_prob(parts, context))
    ends = flow.log_prob_steps(padded, context, lengths=lengths)
    assert all((row[n:] == 0).all() for row, n in zip(ends, lengths, strict=True))
    z, log_det = flow.to_latent(parts, context)
    back, _ = flow.to_data(z, context)
    assert [len(one) for one in back] == lengths
    assert log_det.shape == (6,)
    for got, want in zip(back, parts, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-9)


def test_lists_have_covariates_of_their_own():
    flow = sequence_cases.wavenet("lists", covariates=2, hop=5)
    x, frames = sequence_cases.sequences(3, 40), sequence_cases.covariates_of(flow, 3, 40)
    lengths = [40, 12, 26]
    parts = [row[:n] for row, n in zip(x, lengths, strict=True)]
    own = [f[: -(-n // 5)] for f, n in zip(frames, lengths, strict=True)]
    got = flow.log_prob(parts, None, own)
    for i, one in enumerate(parts):  # the last frame of each sequence is held, whatever the other sequences are
        cases.assert_same_bits(got[i : i + 1], flow.log_prob(one[None], None, own[i]))


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_other_frameworks_give_the_same_bits(dtype):
    torch = pytest.importorskip("torch")
    flow = sequence_cases.wavenet("torch", dtype=dtype)
    x = sequence_cases.sequences(3, 20, 1, dtype)
    got = flow.log_prob(torch.tensor(x))
    assert isinstance(got, torch.Tensor)
    cases.assert_same_bits(got.numpy(), flow.log_prob(x))
    strided = torch.tensor(np.repeat(x, 2, axis=1))[:, ::2]
    cases.assert_same_bits(flow.log_prob_steps(strided).numpy(), flow.log_prob_steps(x))


def test_parameters_are_one_vector_of_named_arrays_without_padding():
    flow = sequence_cases.wavenet("vector")
    vector, names = flow.parameters, flow.named_parameters()
    assert flow.n_parameters == sum(array.size for array in names.values())
    assert np.count_nonzero(vector) <= flow.n_parameters
    flow.parameters = np.ones_like(vector)
    assert np.count_nonzero(flow.parameters) == flow.n_parameters  # padding stays zero
    assert all((array == 1).all() for array in flow.named_parameters().values())
    x = sequence_cases.sequences(2, 30)
    ones = flow.log_prob(x)
    flow.parameters = vector
    cases.assert_same_bits(flow.log_prob(x, parameters=np.ones_like(vector)), ones)
    assert (flow.log_prob(x) != ones).all()
    name = "transforms.0.layers.1.gate.weight"
    flow.set_parameter(name, np.zeros((18, 9, 3)))
    assert not flow.named_parameters()[name].any()
    part = flow.transforms[0]
    np.testing.assert_array_equal(part.named_parameters()["layers.1.gate.weight"], 0)
    again = hr.SequenceFlow(flow.transforms, flow.base)
    cases.assert_same_bits(again.log_prob(x), flow.log_prob(x))


def test_copies_have_parameters_of_their_own():
    import copy

    flow = sequence_cases.wavenet("copies")
    x = sequence_cases.sequences(2, 30)
    before, other = flow.log_prob(x), copy.deepcopy(flow)
    other.parameters = 0.5 * other.parameters
    cases.assert_same_bits(flow.log_prob(x), before)
    assert (other.log_prob(x) != before).all()
    narrow = flow.astype("float32")
    assert narrow.log_prob(x).dtype == np.float32
    cases.assert_close(narrow.log_prob(x), before, magnitude=30.0, depth=40)
    cases.assert_same_bits(flow.to("cpu").log_prob(x), before)


def test_fresh_networks_start_near_the_base_and_depend_on_the_seed():
    flow = hr.WaveNet(seed=1)
    x = flow.sample(16, steps=2000, seed=0)
    assert 0.5 < x.std() < 5.0
    assert abs(x.mean()) < 0.5
    assert not np.array_equal(flow.parameters, hr.WaveNet(seed=2).parameters)
    np.testing.assert_array_equal(flow.parameters, hr.WaveNet(seed=1).parameters)
