"""A sample may be made in parts: rows k to k + n of one endless sample have the bits of a single call."""

import itertools

import numpy as np
import pytest

import cases
import headrace as hr
from pairs import pairwise

FLOWS = {
    "MAF": lambda context: hr.MAF(5, context, 2, (16, 16), base=hr.Normal(5, 0.5, 2.0)),
    "IAF": lambda context: hr.IAF(5, context, 2, (16,), base=hr.Logistic(5)),
    "RealNVP": lambda context: hr.RealNVP(5, context, 2, (16,)),
    "NSF": lambda context: hr.NSF(5, context, 2, (16,)),
    "planar": lambda context: hr.PlanarFlow(5, 3, context, (8,)),
    "base alone": lambda context: hr.Flow([], hr.Logistic(5)),
}


def flow_of(name, context, dtype):
    flow = FLOWS[name](context).astype(dtype)
    return cases.randomise(flow, 0.2) if len(flow) else flow


@pairwise(
    name=FLOWS, dtype=["float32", "float64"], context=[0, 2], first=[0, 1, 7, 8, 63, 64, 1000], n=[0, 1, 5, 8, 70, 513]
)
def test_a_part_has_the_bits_of_the_whole(name, dtype, context, first, n):
    context = 0 if name == "base alone" else context
    flow = flow_of(name, context, dtype)
    conditions = cases.rows(first + n, context, dtype, "context") if context else None
    want, want_log_prob = flow.sample_and_log_prob(first + n, conditions, seed=3, first_row=0)
    if first + n >= 8:
        whole, whole_log_prob = flow.sample_and_log_prob(first + n, conditions, seed=3)
        cases.assert_same_bits(whole, want)
        cases.assert_same_bits(whole_log_prob, want_log_prob)
    own = conditions[first:] if context else None
    got, log_prob = flow.sample_and_log_prob(n, own, seed=3, first_row=first)
    cases.assert_same_bits(got, want[first:])
    cases.assert_same_bits(log_prob, want_log_prob[first:])
    cases.assert_same_bits(flow.sample(n, own, seed=3, first_row=np.int64(first)), want[first:])


@pytest.mark.parametrize("threads", [1, 3])
def test_parts_of_any_size_make_the_whole(threads, set_threads, dtype):
    flow = flow_of("MAF", 2, dtype)
    row = np.array([0.3, -1.0])  # all rows share one context
    want = flow.sample(3000, row, seed=8)
    set_threads(threads)
    edges = [0, 3, 9, 10, 700, 2999, 3000]
    out = np.empty_like(want)
    for begin, end in itertools.pairwise(edges):
        part = out[begin:end]
        assert flow.sample(end - begin, row, seed=8, first_row=begin, out=part) is part
    cases.assert_same_bits(out, want)
    wide = flow.sample(40, row, seed=8, first_row=100, dtype="float64")
    cases.assert_same_bits(wide, flow.sample(140, row, seed=8, dtype="float64")[100:])


def test_rows_of_a_shape_are_counted_in_the_order_of_the_result():
    flow = flow_of("IAF", 2, "float32")
    context = cases.rows(3, 2, "float32", "context")
    want = flow.sample((10,), context, seed=1)
    cases.assert_same_bits(flow.sample((4,), context, seed=1, first_row=6 * 3), want[6:])


def test_values_depend_on_all_bits_of_the_row_index():
    """Rows 2^32 apart have different values, and the last possible rows have finite values."""
    flow = hr.Flow([], hr.StandardNormal(3))
    near, far, last = (flow.sample(20, seed=1, first_row=k) for k in (5, 5 + 2**32, 2**63 - 1 - 20))
    assert not (near == far).any()
    assert not (last == far).any()
    assert np.isfinite(last).all()
    across = flow.sample(20, seed=1, first_row=2**32 - 10)
    cases.assert_same_bits(across[10:], flow.sample(10, seed=1, first_row=2**32))


@pytest.mark.costly
def test_a_dual_ascent_in_parts(dtype):
    x = cases.rows(400, 3, dtype, "ascent")
    flow = hr.DualAscentFlow(steps=5, dtype=dtype).fit(x, progress=False)
    cases.assert_same_bits(flow.sample(30, seed=2, first_row=41), flow.sample(71, seed=2)[41:])


def test_wrong_first_rows_are_refused():
    flow = hr.IAF(3, hidden=(4,), transforms=1)
    for wrong in (-1, 2**63 - 5):
        with pytest.raises(ValueError, match="first_row: expected an integer"):
            flow.sample(5, seed=0, first_row=wrong)
    for wrong in (1.0, True, "1"):
        with pytest.raises(TypeError, match="first_row: expected an integer"):
            flow.sample(5, seed=0, first_row=wrong)
    flow.sample(5, seed=0, first_row=2**63 - 6)
    with pytest.raises(ValueError, match="first_row: expected None beside noise"):
        flow.sample(5, noise=np.zeros((5, 3)), first_row=0)
    with pytest.raises(ValueError, match="first_row: expected at least 0, and at most 2\\^63 - 1"):
        flow._program.sample(5, 0, 2**63 - 5, np.empty((5, 3), np.float32))
    with pytest.raises(ValueError, match="first_row: expected at least 0"):
        flow._program.sample(5, 0, -1, np.empty((5, 3), np.float32))


@pytest.mark.parametrize("first", [1, 33, 2**32 - 7])
def test_parts_on_a_device(device, dtype, first):
    from cuda_twins import Twin

    flow = flow_of("MAF", 0, dtype)
    twin = Twin(device, flow)
    got, log_prob = twin.sample(40, seed=3, first_row=first)
    want, density = flow.sample_and_log_prob(40, seed=3, first_row=first)
    cases.assert_close(got, want, magnitude=10.0, depth=64)
    cases.assert_close(log_prob, density, magnitude=10.0, depth=64)
    if first < 100:
        cases.assert_same_bits(got, twin.sample(40 + first, seed=3)[0][first:])


@pytest.mark.parametrize("base", [hr.StandardNormal, hr.Uniform])
def test_an_ensemble_in_parts(base, dtype):
    flows = [hr.MAF(3, 2, 1, (8,), base=base(3), seed=seed, dtype=dtype) for seed in range(3)]
    ensemble, context = hr.Ensemble([cases.randomise(flow, 0.2) for flow in flows]), np.array([0.1, -0.4])
    want = ensemble.sample(200, context, seed=5)
    edges = [0, 3, 90, 91, 200]
    parts = [ensemble.sample(b - a, context, seed=5, first_row=a) for a, b in itertools.pairwise(edges)]
    cases.assert_same_bits(np.concatenate(parts), want)
    rows = cases.rows(200, 2, dtype, "context")
    got = ensemble.sample(50, rows[150:], seed=5, first_row=150)
    cases.assert_same_bits(got, ensemble.sample(200, rows, seed=5)[150:])
