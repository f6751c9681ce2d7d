"""Derivatives of the maps by themselves: ``headrace.ops.coupling_vjp`` against differences of the reference."""

import numpy as np
import pytest

import cases
import headrace as hr
import map_cases
import reference
from cores import every_core
from map_cases import assert_gradients, differences, every_map_and_scale
from map_cases import gradient_batch as batch

SHAPES = [(0, 3), (1, 1), (1, 7), (5, 17), (9, 8), (97, 5), (130, 3)]
OF_DEVICES = [(0, 3), (3, 0), (1, 1), (2, 2), (31, 3), (33, 5), (9, 33)]
every_direction = pytest.mark.parametrize("direction", map_cases.JUDGES)
every_map = pytest.mark.parametrize("map", reference.MAPS)


@every_core(
    shape={"cpu": SHAPES, "device": OF_DEVICES},
    map__scale=map_cases.MAPS_AND_SCALES,
    direction=map_cases.JUDGES,
    together=("map__scale", "direction"),
)
def test_gradients_match_differences(core, direction, map, scale, shape):
    values, params, *cotangents = batch(*shape, map)
    got = hr.ops.coupling_vjp(values, params, *cotangents, map, direction=direction, scale=scale, slope=1e-2)
    assert all(gradient.dtype == np.float64 for gradient in got)
    step = map_cases.step_of(map)
    assert_gradients(got, differences(direction, values, params, cotangents, map, step, scale=scale, slope=1e-2))


@every_core(
    bins={"cpu": [2, 3, 5, 64], "device": [2, 3, 11, 64]},
    bound=[0.7, 5.0, 40.0],
    direction=map_cases.JUDGES,
)
def test_gradients_of_a_spline_match_differences_for_every_number_of_bins(core, direction, bins, bound):
    values, params, *cotangents = batch(40, 2, "rq_spline", bins=bins)
    values *= bound / 4.0
    got = hr.ops.coupling_vjp(values, params, *cotangents, "rq_spline", direction=direction, bound=bound)
    step = reference.STEP * bound / bins  # the step is relative to the size of a bin
    assert_gradients(got, differences(direction, values, params, cotangents, "rq_spline", step, bound=bound))


@every_direction
@every_map_and_scale
def test_float32_gradients_match_those_of_float64(core, direction, map, scale):
    narrow = batch(97, 5, map, "float32")
    wide = [array.astype(float) for array in narrow]
    keywords = {"direction": direction, "scale": scale}
    got = hr.ops.coupling_vjp(*narrow, map, **keywords)
    want = hr.ops.coupling_vjp(*wide, map, **keywords)
    assert all(gradient.dtype == np.float32 for gradient in got)
    # A spline divides by the widths of its bins and then by their slopes, of which some are small.
    assert_gradients(got, want, allowed=cases.tolerance("float32", map_cases.depth_of(map, 8)))


def test_defaults_are_affine_forward_and_softly_clamped(dtype):
    arrays = batch(20, 6, "affine", dtype)
    want = hr.ops.coupling_vjp(*arrays, "affine", direction="forward", scale="soft_clamp", slope=1e-3, bound=5.0)
    for got, expected in zip(hr.ops.coupling_vjp(*arrays), want, strict=True):
        cases.assert_same_bits(got, expected)


def test_the_additive_map_has_known_gradients(dtype):
    values, params, grad_value, grad_log_det = batch(30, 4, "additive", dtype)
    for direction, sign in (("forward", 1), ("inverse", -1)):
        of_values, of_params = hr.ops.coupling_vjp(
            values, params, grad_value, grad_log_det, "additive", direction=direction
        )
        cases.assert_same_bits(of_values, grad_value)
        np.testing.assert_array_equal(of_params[..., 0], sign * grad_value)


@every_direction
def test_outside_its_interval_a_spline_is_the_identity(direction, dtype):
    """Parameters have no gradient outside of the interval of a spline, for any value."""
    values, params, grad_value, grad_log_det = batch(30, 4, "rq_spline", dtype)
    values[:] = np.where(np.arange(4) % 2, 1e30, -5.5)
    of_values, of_params = hr.ops.coupling_vjp(
        values, params, grad_value, grad_log_det, "rq_spline", direction=direction
    )
    cases.assert_same_bits(of_values, grad_value)
    assert not of_params.any()


@every_direction
@pytest.mark.parametrize("bins", [2, 8, 64])
def test_extreme_splines_have_finite_gradients(direction, bins, dtype):
    """Raw parameters are from zero to 1e30 with both signs, and values are on the knots, near them and at the ends."""
    generator = cases.rng("extreme", bins)
    raw = np.concatenate([s * generator.standard_normal((40, 3 * bins - 1)) for s in (0.0, 1e-30, 1.0, 30.0, 1e30)])
    knots = reference.spline_knots(raw.astype(dtype))[direction == "inverse"].astype(dtype)
    ends = np.nextafter(np.array([5.0, 5.0, -5.0, -5.0], dtype), np.array([5.0, 0.0, -5.0, 0.0], dtype))
    values = np.hstack([knots, np.nextafter(knots, 9.0), np.nextafter(knots, -9.0), np.tile(ends, (len(raw), 1))])
    values = np.ascontiguousarray(values, dtype)
    params = np.ascontiguousarray(np.broadcast_to(raw[:, None], (*values.shape, raw.shape[1])), dtype)
    ones = np.ones_like(values), np.ones(len(values), dtype)
    for gradient in hr.ops.coupling_vjp(values, params, *ones, "rq_spline", direction=direction):
        assert np.isfinite(gradient).all()


@every_direction
@every_map
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_out_receives_the_same_bits(direction, map, shape, dtype):
    values, params, *cotangents = batch(*shape, map, dtype)
    want = hr.ops.coupling_vjp(values, params, *cotangents, map, direction=direction)
    out = np.full_like(values, 7), np.full_like(params, 7)
    got = hr.ops.coupling_vjp(values, params, *cotangents, map, direction=direction, out=out)
    for result, given, expected in zip(got, out, want, strict=True):
        assert result is given
        cases.assert_same_bits(given, expected)


@every_core(
    map=reference.MAPS,
    where=range(4),
    shape=[(1, 1), (9, 5), (97, 17)],
    direction=map_cases.JUDGES,
    dtype=cases.DTYPES,
    product=("cpu",),
)
def test_a_poisoned_row_does_not_change_the_others(core, direction, map, where, shape, dtype):
    arrays = batch(*shape, map, dtype)
    want = hr.ops.coupling_vjp(*arrays, map, direction=direction)
    row = shape[0] // 2
    arrays[where][row] = np.nan
    got = hr.ops.coupling_vjp(*arrays, map, direction=direction)
    others = np.arange(shape[0]) != row
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(result[others], expected[others])
    if where == 2:
        assert np.isnan(got[0][row]).all()


@every_direction
@every_map
def test_gradients_have_the_same_bits_for_any_number_of_threads(direction, map, dtype, set_threads):
    arrays = batch(3000, 5, map, dtype)
    set_threads(1)
    want = hr.ops.coupling_vjp(*arrays, map, direction=direction)
    for threads in (2, 3, 5):
        set_threads(threads)
        for got, expected in zip(hr.ops.coupling_vjp(*arrays, map, direction=direction), want, strict=True):
            cases.assert_same_bits(got, expected)


def test_inputs_are_not_changed(dtype):
    arrays = batch(50, 7, "affine", dtype)
    kept = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    hr.ops.coupling_vjp(*arrays)
    for array, before in zip(arrays, kept, strict=True):
        cases.assert_same_bits(array, before)


def strict_errors():
    values, params, grad_value, grad_log_det = batch(4, 3, "affine", "float32")
    names = ("value", "params", "grad_value", "grad_log_det")
    arrays = dict(zip(names, (values, params, grad_value, grad_log_det), strict=True))
    read_only = params.copy()
    read_only.flags.writeable = False
    errors = {}
    for name, array in arrays.items():
        shape = str(array.shape).replace("(", r"\(").replace(")", r"\)")
        errors |= {
            f"{name} of a list": ({name: array.tolist()}, [name, "list"]),
            f"{name} of integers": ({name: array.astype(int)}, [name, "int64"]),
            f"{name} with an axis more": ({name: array[None]}, [name, r"\(1, "]),
        }
        if name != "value":
            errors |= {
                f"{name} of another dtype": ({name: array.astype("f8")}, [name, "float32", "float64"]),
                f"{name} with a row too few": ({name: array[:3]}, [name, shape, r"\(3,"]),
                f"{name} with a step": ({name: np.repeat(array, 2, axis=0)[::2]}, [name, "contiguous"]),
            }
    return errors | {
        "an unknown direction": ({"direction": "up"}, ["direction", "forward", "inverse", "up"]),
        "an unknown map": ({"map": "cubic"}, ["map", "affine", "cubic"]),
        "an unknown scale": ({"scale": "relu"}, ["scale", "soft_clamp", "relu"]),
        "a slope of zero": ({"slope": 0.0}, ["slope", "0"]),
        "a bound of zero": ({"bound": 0.0}, ["bound", "0"]),
        "params of no spline": ({"map": "rq_spline"}, ["params", r"\(4, 3, 2\)"]),
        "out of one array": ({"out": np.empty((4, 3), "f4")}, ["out"]),
        "out of another shape": ({"out": (np.empty((5, 3), "f4"), params.copy())}, ["out", r"\(5, 3\)"]),
        "out of another dtype": ({"out": (np.empty((4, 3)), params.copy())}, ["out", "float32", "float64"]),
        "out that cannot be written": ({"out": (values.copy(), read_only)}, ["out"]),
    }


@every_direction
@pytest.mark.parametrize("name", strict_errors())
def test_wrong_arrays_are_refused(direction, name):
    arguments, words = strict_errors()[name]
    arrays = dict(zip(("value", "params", "grad_value", "grad_log_det"), batch(4, 3, "affine", "float32"), strict=True))
    with pytest.raises((TypeError, ValueError)) as error:
        hr.ops.coupling_vjp(**(arrays | {"direction": direction} | arguments))
    cases.assert_says(error, *words)
