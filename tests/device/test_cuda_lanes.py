"""Every function of the lanes, every map, activation and base, on a device, where each thread has one value.

Expected values are from NumPy in the next wider precision, and from the reference. The bounds in units in the last
place are the bounds in ``cpp/math/lane.hpp``, plus half a unit for the rounding of the expected value.
"""

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cases
import headrace as hr
import map_cases
import reference
from headrace import _core

WIDER = {"float32": np.float64, "float64": np.longdouble}


def inputs(dtype):
    """Values of every size, even the dtype's least and largest, and second arguments for functions of two."""
    generator = cases.rng("lanes", dtype)
    x = generator.standard_normal(1000) * 10.0 ** generator.uniform(-6, 2, 1000)
    tiny, huge = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    ends = [0.0, -0.0, tiny, -tiny, huge, -huge, math.inf, -math.inf, math.nan, 1.0, -1.0, 88.0, -104.0, 0.5, -0.5]
    x = np.concatenate([x, np.array(ends)]).astype(dtype)
    return x, np.round(generator.uniform(-100, 100, len(x))).astype(dtype)


@pytest.fixture
def lanes(device):
    """A device whose module has functions of the lanes; ``_cuda`` has them only if it was built with HEADRACE_TESTS."""
    if not hasattr(device.module, "lane_functions"):
        pytest.skip("_cuda was built without HEADRACE_TESTS")
    return device


def run_lanes(lanes, x, y):
    """The values of each function of the lanes, by the function's name."""
    names = lanes.module.lane_function_names()
    given, beside, out = lanes.array(x), lanes.array(y), lanes.empty((len(names), len(x)), x.dtype)
    lanes.module.lane_functions(lanes.tuple(given), lanes.tuple(beside), lanes.tuple(out), stream=lanes.stream)
    return dict(zip(names, lanes.numpy(out), strict=True))


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def normal_cdf(x):
    return np.array([0.5 * math.erfc(-float(v) / math.sqrt(2)) for v in x], x.dtype)


FUNCTIONS = {  # name: (judge, bound in ulp, the range in which the bound holds)
    "exp": (np.exp, 1.1, (-np.inf, np.inf)),
    "exp_moderate": (np.exp, 1.1, (-87, 87)),
    "expm1": (np.expm1, 2.0, (-np.inf, np.inf)),
    "log": (np.log, 0.9, (0, np.inf)),
    "log1p": (np.log1p, 1.6, (-0.5, 1)),
    "tanh": (np.tanh, 2.7, (-np.inf, np.inf)),
    "sigmoid": (sigmoid, 2.5, (-np.inf, np.inf)),
    "softplus": (softplus, 2.2, (-np.inf, np.inf)),
    "normal_cdf": (normal_cdf, 6.5, (-1, np.inf)),  # below -1, math.erfc of a rounded argument is too inexact
    "sqrt": (np.sqrt, 0.5, (0, np.inf)),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 3.0, (1e-30, 1e30)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_their_stated_accuracy(lanes, dtype, name):
    judge, bound, (low, high) = FUNCTIONS[name]
    x, y = inputs(dtype)
    got = run_lanes(lanes, x, y)[name]
    inside = (x >= low) & (x <= high)
    with np.errstate(all="ignore"):
        want = judge(x[inside].astype(WIDER[dtype]))
        rounded = want.astype(dtype)
        unit = np.spacing(np.nextafter(np.abs(rounded), 0))
    finite = np.isfinite(rounded)
    assert_array_equal(got[inside][~finite], rounded[~finite])
    assert (np.abs(got[inside][finite] - want[finite]) <= (bound + 0.5) * unit[finite]).all()
    assert np.isnan(got[np.isnan(x)]).all()


def test_sine_and_cosine_of_turns(lanes, dtype):
    turns = np.concatenate([np.linspace(0, 1, 257), cases.rng("turns").uniform(0, 1, 500)]).astype(dtype)
    got = run_lanes(lanes, turns, turns)
    angle = 2 * np.arctan2(WIDER[dtype](0), WIDER[dtype](-1)) * turns.astype(WIDER[dtype])
    for name, judge in ("sin_turns", np.sin), ("cos_turns", np.cos):
        assert np.abs(got[name] - judge(angle)).max() <= 3 * np.finfo(dtype).eps


def test_exact_functions_are_exact(lanes, dtype):
    x, y = inputs(dtype)
    got = run_lanes(lanes, x, y)
    ordinary = ~np.isnan(x)
    assert_array_equal(got["abs"], np.abs(x))
    assert_array_equal(got["copy_sign"], np.copysign(x, y))
    assert_array_equal(got["min"][ordinary], np.minimum(x, y)[ordinary])
    assert_array_equal(got["max"][ordinary], np.maximum(x, y)[ordinary])
    assert np.isnan(got["min"][~ordinary]).all()
    assert np.isnan(got["max"][~ordinary]).all()
    assert_array_equal(got["select"], np.where(x > y, np.inf, np.nan))
    assert_array_equal(got["power_of_two"], np.ldexp(np.ones_like(y), y.astype(int)))
    moderate = np.abs(x) < 1e3
    v = x[moderate].astype(WIDER[dtype])
    allowed = 2 * np.finfo(dtype).eps * (1 + 2 * np.abs(v) + 3 * v * v)
    assert (np.abs(got["polynomial"][moderate] - (1 + 2 * v + 3 * v * v)) <= allowed).all()


@pytest.mark.parametrize(("map", "scale"), [(one.name, one.scale) for one in _core.cpu.maps()])
@pytest.mark.parametrize("bins", [2, 8])
def test_maps_match_the_reference(lanes, dtype, map, scale, bins):
    n, slope, bound = 300, 1e-2, 3.0
    values = cases.rows(n, 1, dtype, "lanes", map) * 2
    width = reference.MAPS[map].count(bins)
    params = cases.rng("lanes", map, scale, bins).standard_normal((n, 1, width)).astype(dtype)
    given, beside = lanes.array(values[:, 0]), lanes.array(params[:, 0])
    outs = [lanes.empty(n, dtype) for _ in range(4)]
    lanes.module.map_functions(
        *(map, scale, slope, bound, bins),
        *(lanes.tuple(given), lanes.tuple(beside), *(lanes.tuple(out) for out in outs)),
        stream=lanes.stream,
    )
    forward, inverse, forward_log_det, inverse_log_det = (lanes.numpy(out) for out in outs)
    depth = map_cases.depth_of(map)
    name = scale or "soft_clamp"
    want = reference.coupling_forward(values, params, map, name, slope, bound=bound)
    cases.assert_matches((forward[:, None], forward_log_det), want, values, dtype, depth=depth)
    want = reference.coupling_inverse(values, params, map, name, slope, bound=bound)
    cases.assert_matches((inverse[:, None], inverse_log_det), want, values, dtype, depth=depth)


@pytest.mark.parametrize("name", reference.ACTIVATIONS)
def test_activations_and_their_slopes(lanes, dtype, name):
    judge = reference.ACTIVATIONS[name]
    x = np.concatenate([np.linspace(-6, 6, 401) + 1e-3, [50.0, -50.0, 1e4, -1e4]]).astype(dtype)
    given, out, slope = lanes.array(x), lanes.empty(len(x), dtype), lanes.empty(len(x), dtype)
    index = lanes.module.activations().index(name)
    lanes.module.activation_functions(
        index, lanes.tuple(given), lanes.tuple(out), lanes.tuple(slope), stream=lanes.stream
    )
    exact, step = x.astype(float), 1e-5
    with np.errstate(under="ignore"):
        want, slopes = judge(exact), (judge(exact + step) - judge(exact - step)) / (2 * step)
    eps = 16 * np.finfo(dtype).eps
    assert (np.abs(lanes.numpy(out) - want) <= eps * np.maximum(np.abs(exact), 1)).all()
    assert (np.abs(lanes.numpy(slope) - slopes) <= eps + 1e-7).all()  # differences have errors of 1e-7


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh"])
def test_activations_and_their_slopes_at_infinities(lanes, dtype, name):
    x = np.array([-math.inf, math.inf, np.finfo(dtype).min, np.finfo(dtype).max], dtype)
    given, out, slope = lanes.array(x), lanes.empty(4, dtype), lanes.empty(4, dtype)
    lanes.module.activation_functions(
        lanes.module.activations().index(name),
        lanes.tuple(given),
        lanes.tuple(out),
        lanes.tuple(slope),
        stream=lanes.stream,
    )
    assert_array_equal(lanes.numpy(out), [0.0, math.inf, 0.0, x[3]])
    assert_array_equal(lanes.numpy(slope), [0.0, 1.0, 0.0, 1.0])


@pytest.mark.parametrize("base", ["normal", "logistic"])
@pytest.mark.parametrize("seed", [0, 2**63 + 5])
def test_random_numbers_are_those_of_the_cpu(lanes, dtype, base, seed):
    made = hr.StandardNormal(7) if base == "normal" else hr.Logistic(7)
    flow = hr.Flow(transforms=[hr.transforms.MaskedAutoregressive(7, (4,), dtype=dtype)], base=made)[:0]
    want = flow.sample(203, seed=seed)
    out = lanes.empty(4 * 200, dtype)  # 200 rows of four are two blocks, the second of them partial
    for block in (0, 1):
        lanes.module.random_columns(base == "logistic", seed, 3, block, lanes.tuple(out), stream=lanes.stream)
        got = lanes.numpy(out).reshape(200, 4)
        columns = want[3:, 4 * block : 4 * block + 4]
        cases.assert_close(got[:, : columns.shape[1]], columns)


def test_rows_beyond_32_bits_have_separate_values(lanes):
    outs = [lanes.empty(8, "float64") for _ in range(3)]
    for out, first in zip(outs, (0, 2**32, 2**33), strict=True):
        lanes.module.random_columns(False, 1, first, 0, lanes.tuple(out), stream=lanes.stream)
    found = np.concatenate([lanes.numpy(out) for out in outs])
    assert len(np.unique(found)) == found.size


def test_calls_of_no_values_launch_no_kernel(emu):
    emu.module.log()
    x = emu.empty(0, "float32")
    emu.module.activation_functions(0, emu.tuple(x), emu.tuple(x), emu.tuple(x), stream=0)
    assert emu.module.log() == []
