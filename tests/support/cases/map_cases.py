"""Elements and parameters for tests of single maps, and comparisons of their results, shared by the tests of every
device.

Each kernel is called like ``headrace.ops.coupling``.
"""

from functools import partial

import numpy as np
import pytest

import cases
import headrace as hr
import reference
from headrace import _core
from headrace._core.maps import has_min_bin

JUDGES = {"forward": reference.coupling_forward, "inverse": reference.coupling_inverse}
KERNELS = {direction: partial(hr.ops.coupling, direction=direction) for direction in JUDGES}
MAPS_AND_SCALES = [(one.name, one.scale or "exp") for one in _core.cpu.maps()]
"""Every map that is compiled, and every scale where it has one."""
every_map_and_scale = pytest.mark.parametrize(("map", "scale"), MAPS_AND_SCALES)


def every_hard_map(test):
    """Run a test with every map that has a shift, each of its scales, and the largest raw scale for the test."""
    scales = [
        ("soft_clamp", 1e30),
        ("sigmoid", 1e30),
        ("softplus", 1e4),  # a larger raw scale makes scale times value overflow float32
        ("exp", 15.0),
    ]
    for names, sets in (("map", ["affine", "additive"]), (("scale", "largest_raw"), scales)):
        test = pytest.mark.parametrize(names, sets)(test)
    return test


def batch(rows, active, map, dtype):
    values = cases.rows(rows, active, dtype, "values")
    if reference.MAPS[map].has_bins:
        values *= 3  # some values lie outside the interval
    width = reference.MAPS[map].count()
    return values, cases.rng("params", rows, active, map).standard_normal((rows, active, width)).astype(dtype)


def depth_of(map, alone=4):
    """The depth for the tolerance of a map: the depth of an affine map, ``alone``, times the map's relative depth."""
    return alone * reference.MAPS[map].depth


def magnitudes(given, params, map, scale, inverse):
    """The magnitudes to which errors of a map are relative: ``(value, log-derivative)``, two arrays with one
    magnitude for each element.

    All values are below 10 in magnitude. In the value, a rounding error is multiplied by the map's steepness, and
    in the log-derivative by the slope of the log-derivative.
    """
    given, params, options = given.astype(float), params.astype(float), reference.Options(scale)
    step = 1e-6
    _, log_slope = reference.MAPS[map].apply(given, params, options, inverse)
    before, after = (reference.MAPS[map].apply(given + s, params, options, inverse)[1] for s in (-step, step))
    return 10.0 * np.exp(log_slope), 1.0 + 10.0 * np.abs(after - before) / (2.0 * step)


def hard_batch(map, dtype, largest_raw):
    """Every combination of a hard value and hard parameters, with twenty coordinates in a row."""
    tiny = float(np.finfo(dtype).smallest_subnormal) * 5
    magnitudes = [0.0, tiny, 1e-30, 1e-3, 1.0, 20.0, 1e4, 1e30]
    hard = np.array([sign * m for m in magnitudes for sign in (1.0, -1.0)])
    raws = hard[np.abs(hard) <= largest_raw]
    value, shift, raw = (grid.ravel() for grid in np.meshgrid(hard, hard, raws))
    n = len(value) // 20 * 20
    params = np.stack([shift, raw], axis=1)[:n, : reference.MAPS[map].count()]
    return value[:n].reshape(-1, 20).astype(dtype), params.reshape(-1, 20, params.shape[1]).astype(dtype)


def check_hard_inputs(kernel, judge, direction, map, scale, largest_raw, dtype):
    values, params = hard_batch(map, dtype, largest_raw)
    want_value, _ = judge(values, params, map, scale)
    got_value, got_log_det = kernel(values, params, map, scale=scale)
    assert np.isfinite(got_log_det).all()
    magnitude = np.maximum(np.abs(values), np.abs(params[..., 0])).astype(np.float64)
    if direction == "inverse":
        options = reference.Options(scale, 1e-3)
        _, log_scale = reference.MAPS[map].apply(values.astype(float), params.astype(float), options, False)
        magnitude *= np.exp(-log_scale)  # the difference of value and shift is rounded before the division
    cases.assert_close(got_value.reshape(-1), want_value.reshape(-1), magnitude=magnitude.reshape(-1))


def hard_splines(bins, dtype, bound, inverse):
    """Raw parameters from zero to huge, and for each spline values on and beside its knots, huge values and tiny ones.

    All coordinates of a row have the same spline, and different rows have different splines.
    """
    generator = cases.rng("hard splines", bins)
    raw = [np.zeros(3 * bins - 1)]
    for spread in (1e-30, 0.1, 1.0, 3.0, 30.0, 1e4, 1e30):
        raw += list(spread * generator.standard_normal((6, 3 * bins - 1)))
    raw = np.array(raw).astype(dtype)
    x, y, _ = reference.spline_knots(raw, bound=bound)
    knots = (y if inverse else x).astype(dtype)
    middle = (knots[:, 1:] + knots[:, :-1]) / 2
    end = np.array([bound, np.nextafter(np.dtype(dtype).type(bound), 0), 2 * bound, 1e30, 1e-30, 0.0], dtype)
    end = np.tile(np.concatenate([end, -end, [np.finfo(dtype).smallest_subnormal]]).astype(dtype), (len(raw), 1))
    values = np.hstack([knots, np.nextafter(knots, -np.inf), np.nextafter(knots, np.inf), middle, end])
    params = np.ascontiguousarray(np.broadcast_to(raw[:, None], (*values.shape, raw.shape[1])))
    return np.ascontiguousarray(values, dtype), params


def check_hard_splines(kernel, judge, direction, bins, bound, dtype):
    values, params = hard_splines(bins, dtype, bound, direction == "inverse")
    values, params = values.reshape(-1, 1), params.reshape(-1, 1, 3 * bins - 1)
    want = judge(values, params, "rq_spline", bound=bound)
    got = kernel(values, params, "rq_spline", bound=bound)
    magnitudes = cases.spline_magnitudes(values, params, dtype, bound=bound, inverse=direction == "inverse")
    for result, expected, magnitude in zip(got, want, magnitudes, strict=True):
        cases.assert_close(result.reshape(-1), expected.reshape(-1), magnitude=magnitude.reshape(-1), depth=16)
    outside = np.abs(values[:, 0]) > bound
    cases.assert_same_bits(got[0][outside], values[outside])
    assert not got[1][outside].any()
    assert (np.abs(got[0][~outside]) <= bound * (1.0 + cases.tolerance(dtype))).all()


# --- gradients ------------------------------------------------------------------------------------------------------


def gradient_batch(rows, active, map, dtype="float64", bins=8):
    """Values, parameters and cotangents; some values lie outside a spline's interval."""
    values = 3.0 * cases.rows(rows, active, "float64", "values")
    params = cases.rng("params", rows, active, map).standard_normal((rows, active, reference.MAPS[map].count(bins)))
    grad_value = cases.rows(rows, active, "float64", "cotangent")
    grad_log_det = cases.rng("of a row", rows).standard_normal(rows)
    return tuple(array.astype(dtype) for array in (values, params, grad_value, grad_log_det))


def step_of(map):
    """The step of differences: smaller for maps whose bins have a least size, such as a thousandth of the interval."""
    return reference.STEP / 8 if has_min_bin(map) else reference.STEP


def differences(direction, values, params, cotangents, map, step=reference.STEP, **settings):
    """Both gradients by central differences, with errors of some eps^(2/3) = 4e-11 times values and third derivatives.

    Each element is a row by itself, so that all elements can be moved at once: no element changes another's result.
    """
    judge, (of_value, of_log_det) = JUDGES[direction], cotangents
    by = of_value.reshape(-1, 1), np.repeat(of_log_det, values.shape[1])
    v, p = values.reshape(-1, 1), params.reshape(-1, 1, params.shape[2])
    of_values = reference.row_gradient(lambda v, p: judge(v, p, map, **settings), v, by, step, beside=p)
    of_params = reference.row_gradient(lambda p, v: judge(v, p, map, **settings), p, by, step_of(map), beside=v)
    return of_values.reshape(values.shape), of_params.reshape(params.shape)


def assert_gradients(got, want, allowed=1e-6):
    """Compare gradients by each row's error relative to the larger of one and the row's largest gradient; third
    derivatives of these maps reach some thousands.
    """
    for result, expected in zip(got, want, strict=True):
        assert result.shape == expected.shape
        worst = np.abs(result - expected).reshape(len(expected), int(np.prod(expected.shape[1:])))
        largest = np.abs(expected).reshape(worst.shape).max(axis=1, initial=1.0)
        assert (worst.max(axis=1, initial=0.0) <= allowed * largest).all()
