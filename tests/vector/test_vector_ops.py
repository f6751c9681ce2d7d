"""Planar and radial maps of ``headrace.ops``, with parameters that the caller passes."""

from functools import partial

import numpy as np
import pytest

import cases
import gradients
import headrace as hr
import reference
import vector_cases
from cores import every_core
from pairs import pairwise
from vector_cases import batch, call

DIRECTIONS = ("forward", "inverse")
SHAPES = [(0, 3), (1, 1), (1, 7), (5, 17), (9, 8), (63, 2), (64, 5), (65, 5), (200, 9), (1100, 4)]
# Shapes whose tiles end within a block; with those of LONG, one to thirty-two lanes take a row, and some rows do not
# fit shared memory.
OF_DEVICES = [(0, 3), (1, 1), (1, 7), (5, 17), (31, 3), (64, 5), (300, 2), (65, 33), (40, 100)]
LONG = [(9, 300), (5, 1100), (6, 7000)]
every_variant = pytest.mark.parametrize("variant", vector_cases.VARIANTS)
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)
per_row_or_not = pytest.mark.parametrize("per_row", [False, True])
OF_A_KERNEL = {"variant": vector_cases.VARIANTS, "direction": DIRECTIONS, "per_row": [False, True]}
every_shape_of_each_kernel = pairwise(shape=SHAPES, **OF_A_KERNEL, dtype=cases.DTYPES)


@every_core(shape={"cpu": SHAPES, "device": OF_DEVICES}, **OF_A_KERNEL, dtype=cases.DTYPES)
def test_values_match_the_reference(core, variant, direction, shape, per_row, dtype):
    values, params, *_ = batch(variant, *shape, dtype, per_row=per_row)
    judge = vector_cases.judge(variant, params)
    vector_cases.check(lambda x: call(variant, direction, x, params), getattr(judge, direction), values, dtype)


@every_core(shape=LONG, **OF_A_KERNEL, dtype=cases.DTYPES)
def test_long_rows_match_the_reference(core, variant, direction, shape, per_row, dtype):
    values, params, *_ = batch(variant, *shape, dtype, per_row=per_row)
    got = call(variant, direction, values, params)
    want = getattr(vector_cases.judge(variant, params), direction)(values)
    cases.assert_close(got[0], want[0], magnitude=10.0, depth=2)
    # The determinant of a radial map is a power of one value, which is rounded once.
    cases.assert_close(got[1], want[1], magnitude=shape[1] if variant == "radial" else 1.0, depth=1)


@pairwise(
    variant=vector_cases.VARIANTS,
    direction=DIRECTIONS,
    n=[8, 9, 97, 500],
    dtype=cases.DTYPES,
    together=("variant", "direction", "dtype"),
)
def test_values_are_those_of_the_transform(variant, direction, n, dtype):
    values, params, *_ = batch(variant, n, 6, dtype, per_row=False)
    got = call(variant, direction, values, params)
    want = getattr(vector_cases.transform(variant, params), direction)(values)
    for one, other in zip(got, want, strict=True):
        cases.assert_same_bits(one, other)


@pairwise(shape=SHAPES, variant=vector_cases.VARIANTS, direction=DIRECTIONS, dtype=cases.DTYPES)
def test_a_set_for_each_row_is_one_set_repeated(variant, direction, shape, dtype):
    values, params, *cotangents = batch(variant, *shape, dtype, per_row=False)
    repeated = np.tile(params, (shape[0], 1))
    one, each = (call(variant, direction, values, p) for p in (params, repeated))
    gain = 1e3 if variant == "planar with leaky ReLU" else 50.0
    for got, want in zip(each, one, strict=True):
        cases.assert_close(got, want.astype(float), magnitude=10.0 * gain, depth=1)
    one, each = (call(variant, "vjp", values, p, *cotangents, direction=direction) for p in (params, repeated))
    largest = 1.0 + np.abs(each[1]).sum(axis=0).max(initial=0.0)
    cases.assert_close(each[0], one[0].astype(float), magnitude=10.0 * gain)
    assert np.abs(each[1].sum(axis=0, dtype=float) - one[1]).max() <= cases.tolerance(dtype, 16) * largest


@every_core(
    shape={"cpu": [(1, 1), (3, 2), (9, 5), (70, 3)], "device": [(1, 1), (3, 2), (31, 5), (9, 40), (70, 3)]},
    **OF_A_KERNEL,
    together=OF_A_KERNEL,
)
def test_gradients_match_differences(core, variant, direction, shape, per_row):
    values, params, *cotangents = batch(variant, *shape, "float64", per_row=per_row)
    by_value, by_params = call(variant, "vjp", values, params, *cotangents, direction=direction)

    def results(x, p):
        return getattr(vector_cases.judge(variant, p), direction)(x)

    step = gradients.KINKED_STEP if variant == "planar with leaky ReLU" else gradients.STEP
    each = params if per_row else np.tile(params, (len(values), 1))
    want = reference.row_gradient(results, values, cotangents, step, beside=each)
    gradients.assert_rows_near(by_value, want, 1e-5)
    want = reference.row_gradient(lambda p, x: results(x, p), each, cotangents, step, beside=values)
    if per_row:
        gradients.assert_rows_near(by_params, want, 1e-5)
    else:
        gradients.assert_near(by_params, want.sum(axis=0), 1e-5)


@every_variant
@every_direction
@per_row_or_not
def test_float32_gradients_are_those_of_float64_rounded(variant, direction, per_row):
    narrow = batch(variant, 300, 6, "float32", per_row=per_row)
    got = call(variant, "vjp", *narrow, direction=direction)
    want = call(variant, "vjp", *(array.astype(float) for array in narrow), direction=direction)
    for one, other in zip(got, want, strict=True):
        assert one.dtype == np.float32
        rows = one if one.ndim == 2 else one[None]
        largest = np.abs(np.atleast_2d(other)).max(axis=1)
        error = np.abs(rows - np.atleast_2d(other)).max(axis=1) / np.maximum(largest, 1.0)
        assert error.max() <= cases.tolerance("float32", 64)


@every_variant
@every_direction
@per_row_or_not
def test_results_have_the_same_bits_for_any_threads(variant, direction, per_row, dtype, set_threads):
    values, params, *cotangents = batch(variant, 5000, 5, dtype, per_row=per_row)
    results = []
    for threads in (1, 2, 3, 5):
        set_threads(threads)
        back = call(variant, "vjp", values, params, *cotangents, direction=direction)
        results.append((*call(variant, direction, values, params), *back))
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            cases.assert_same_bits(got, want)


@pytest.mark.optimised  # in other builds, multiply-adds differ
@every_variant
@every_direction
@per_row_or_not
def test_a_rows_result_does_not_depend_on_its_companions(variant, direction, per_row, dtype):
    values, params, *_ = batch(variant, 300, 5, dtype, per_row=per_row)
    want = call(variant, direction, values, params)
    for n, start in ((1, 7), (8, 0), (65, 100), (200, 100)):
        part = slice(start, start + n)
        own = params[part] if per_row else params
        for got, expected in zip(call(variant, direction, values[part], own), want, strict=True):
            cases.assert_same_bits(got, expected[part])


@every_shape_of_each_kernel
def test_out_receives_the_same_bits(variant, direction, shape, per_row, dtype):
    values, params, *cotangents = batch(variant, *shape, dtype, per_row=per_row)
    want = call(variant, direction, values, params)
    for result in (np.full_like(values, 7), values.copy()):
        given = values if (result == 7).any() else result  # the second output is the input array
        out = result, np.full(shape[0], 7, dtype)
        got = call(variant, direction, given, params, out=out)
        assert got is out
        for one, expected in zip(got, want, strict=True):
            cases.assert_same_bits(one, expected)
    want = call(variant, "vjp", values, params, *cotangents, direction=direction)
    out = np.full_like(values, 7), np.full_like(params, 7)
    got = call(variant, "vjp", values, params, *cotangents, direction=direction, out=out)
    assert got is out
    for one, expected in zip(got, want, strict=True):
        cases.assert_same_bits(one, expected)


@every_variant
@per_row_or_not
def test_inputs_are_not_changed(variant, per_row, dtype):
    arrays = batch(variant, 50, 7, dtype, per_row=per_row)
    kept = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    for direction in DIRECTIONS:
        call(variant, direction, *arrays[:2])
        call(variant, "vjp", *arrays, direction=direction)
    for array, before in zip(arrays, kept, strict=True):
        cases.assert_same_bits(array, before)


@every_variant
def test_arrays_of_every_framework(variant, framework, dtype):
    if framework.name == "pandas":
        pytest.skip("a frame of several columns is not C-contiguous")
    arrays = batch(variant, 20, 3, dtype, per_row=True)
    given = [framework.make(array) for array in arrays]
    for name, n in (("forward", 2), ("inverse", 2), ("vjp", 4)):
        for got, want in zip(call(variant, name, *given[:n]), call(variant, name, *arrays[:n]), strict=True):
            assert type(got) is type(given[0])
            cases.assert_same_bits(framework.open(got), want)


# --- refusals -------------------------------------------------------------------------------------------------------


def strict_errors(variant):
    """The errors by name: (arguments that replace valid ones, the message)."""
    values, params, grad_value, grad_log_det = batch(variant, 4, 3, "float32", per_row=True)
    names = ("value", "params", "grad_value", "grad_log_det")
    arrays = dict(zip(names, (values, params, grad_value, grad_log_det), strict=True))
    read_only, n = params.copy(), params.shape[1]
    read_only.flags.writeable = False
    errors = {}
    for name, array in arrays.items():
        errors |= {
            f"{name} of a list": ({name: array.tolist()}, [name, "list"]),
            f"{name} of integers": ({name: array.astype(int)}, [name, "int64"]),
            f"{name} with an axis more": ({name: array[None]}, [name, r"\(1, "]),
        }
        if name != "value":
            errors |= {
                f"{name} of another dtype": ({name: array.astype("f8")}, [name, "float32", "float64"]),
                f"{name} with a row too few": ({name: array[:3]}, [name, r"\(3,"]),
                f"{name} with a step": ({name: np.repeat(array, 2, axis=0)[::2]}, [name, "contiguous"]),
            }
    return errors | {
        "value of no features": ({"value": values[:, :0]}, ["value", "feature", r"\(4, 0\)"]),
        "value of other features": ({"value": np.zeros((4, 4), "f4")}, ["params", rf"\(4, {n}\)"]),
        "one set that is too long": ({"params": np.zeros(n + 1, "f4")}, ["params", rf"\({n},\)", rf"\({n + 1},\)"]),
        "an unknown direction": ({"direction": "up"}, ["direction", "forward", "inverse", "up"]),
        "out of one array": ({"out": np.empty((4, 3), "f4")}, ["out"]),
        "out of another shape": ({"out": (np.empty((5, 3), "f4"), params.copy())}, ["out", r"\(5, 3\)"]),
        "out of another dtype": ({"out": (np.empty((4, 3)), params.copy())}, ["out", "float32", "float64"]),
        "out that cannot be written": ({"out": (values.copy(), read_only)}, ["out"]),
        "out that is an input": ({"value": values, "out": (values, params.copy())}, ["out", "overlap"]),
    }


@every_variant
@pytest.mark.parametrize("name", strict_errors("planar"))
def test_arrays_that_would_need_a_conversion_are_refused(variant, name):
    arguments, words = strict_errors(variant)[name]
    names = ("value", "params", "grad_value", "grad_log_det")
    arrays = dict(zip(names, batch(variant, 4, 3, "float32", per_row=True), strict=True))
    for direction in DIRECTIONS:
        with pytest.raises((TypeError, ValueError)) as error:
            call(variant, "vjp", **({"direction": direction} | arrays | arguments))
        cases.assert_says(error, *words)


def test_errors_name_the_argument():
    for map, count in (("planar", 7), ("radial", 5)):
        for direction in DIRECTIONS:
            run = partial(hr.ops.vector_map, map=map, direction=direction)
            with pytest.raises(ValueError, match=r"value: expected 2 dimensions, got shape \(3,\)"):
                run(np.zeros(3), np.zeros(count))
            with pytest.raises(
                ValueError, match=rf"params: expected shape \({count},\) for all rows or \(4, {count}\)"
            ):
                run(np.zeros((4, 3)), np.zeros(count - 1))
            memory = np.zeros(16)
            values, overlap = memory[:12].reshape(4, 3), memory[4:].reshape(4, 3)
            with pytest.raises(ValueError, match="or value itself"):
                run(values, np.zeros(count), out=(overlap, np.empty(4)))


@pytest.mark.parametrize("name", [*DIRECTIONS, "vjp"])
def test_settings_of_other_maps_are_refused(name):
    arrays = batch("planar", 4, 3, "float32", per_row=False)[: 4 if name == "vjp" else 2]
    for bad, words in [
        ({"map": "spherical"}, ["map", "planar", "radial", "spherical"]),
        ({"map": "radial", "nonlinearity": "tanh"}, ["nonlinearity", "None", "radial", "tanh"]),
        ({"nonlinearity": "relu"}, ["nonlinearity", "tanh", "leaky_relu", "relu"]),
        ({"nonlinearity": ""}, ["nonlinearity", "tanh"]),
        ({"negative_slope": 0.0}, ["negative_slope", r"0\.0"]),
        ({"negative_slope": 1.0}, ["negative_slope", r"1\.0"]),
        ({"negative_slope": "flat"}, ["negative_slope", "str"]),
    ]:
        with pytest.raises((TypeError, ValueError)) as error:
            call("planar", name, *arrays, **bad)
        cases.assert_says(error, *words)
