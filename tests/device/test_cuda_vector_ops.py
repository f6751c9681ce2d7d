"""Planar and radial maps on the device: errors of threads and addresses, and refusals.

The values and gradients are tested in tests/vector/test_vector_ops.py.
"""

import numpy as np
import pytest

import cases
import gradients
import vector_cases
from cuda_arrays import unaligned
from pairs import pairwise
from vector_cases import batch, call, run_backward, settings_of

# A shape whose rows do not fit shared memory.
LONG = (6, 7000)
DIRECTIONS = ("forward", "inverse")
every_variant = pytest.mark.parametrize("variant", vector_cases.VARIANTS)
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)
per_row_or_not = pytest.mark.parametrize("per_row", [False, True])
OF_A_KERNEL = {"variant": vector_cases.VARIANTS, "direction": DIRECTIONS, "per_row": [False, True]}
every_other_shape = pairwise(shape=[(2, 1), (300, 5), (70, 33), (10, 300), LONG], **OF_A_KERNEL, dtype=cases.DTYPES)


def run(device, variant, direction, values, params, *, place=None):
    """The results ``(value, log_det)`` with the shapes of headrace.ops. ``place`` is a function that puts an array on
    the device, or "in place"."""
    put = place if callable(place) else device.array
    x, p = put(values), put(params)
    value = x if place == "in place" else put(np.full_like(values, np.nan))
    log_det = put(np.full(len(values), np.nan, values.dtype))
    device.module.vector_map(
        *(*settings_of(variant), direction == "inverse"),
        *(device.tuple(array) for array in (x, p, value, log_det)),
        device=device.index,
        stream=device.stream,
    )
    return device.numpy(value).copy(), device.numpy(log_det).copy()


def assert_same(got, want):
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(result, expected)


def assert_gradients(got, want, *, per_row, allowed):
    gradients.assert_rows_near(got[0], want[0], allowed)
    if per_row:
        gradients.assert_rows_near(got[1], want[1], allowed)
    else:
        gradients.assert_near(got[1], want[1], allowed)


# --- values ---------------------------------------------------------------------------------------------------------


@every_other_shape
def test_addresses_do_not_matter(device, variant, direction, shape, per_row, dtype):
    values, params, *_ = arrays = batch(variant, *shape, dtype, per_row=per_row)
    want = run(device, variant, direction, values, params)
    want_back = run_backward(device, variant, direction, arrays)
    for by in range(1, 4 if dtype == "float32" else 2):

        def place(values, by=by):
            return unaligned(device, values, by)

        assert_same(run(device, variant, direction, values, params, place=place), want)
        assert_same(run_backward(device, variant, direction, arrays, place=place), want_back)


@every_other_shape
def test_the_value_may_replace_the_input(device, variant, direction, shape, per_row, dtype):
    values, params, *_ = batch(variant, *shape, dtype, per_row=per_row)
    want = run(device, variant, direction, values, params)
    assert_same(run(device, variant, direction, values, params, place="in place"), want)


@every_other_shape
def test_the_order_of_threads_does_not_matter(emu, variant, direction, shape, per_row, dtype):
    values, params, *_ = arrays = batch(variant, *shape, dtype, per_row=per_row)
    first, *others = emu.in_each_order(
        lambda: (*run(emu, variant, direction, values, params), *run_backward(emu, variant, direction, arrays)),
        every=True,
    )
    for other in others:
        assert_same(other, first)


@every_other_shape
def test_a_rows_result_does_not_depend_on_its_companions(device, variant, direction, shape, per_row, dtype):
    values, params, *cotangents = batch(variant, *shape, dtype, per_row=per_row)
    want = run(device, variant, direction, values, params)
    want_back = run_backward(device, variant, direction, (values, params, *cotangents))
    for part in (slice(0, 1), slice(1, 3), slice(1, None)):
        own = params[part] if per_row else params
        got = run(device, variant, direction, values[part], own)
        assert_same(got, [whole[part] for whole in want])
        back = run_backward(device, variant, direction, (values[part], own, *(array[part] for array in cotangents)))
        assert_same(back[: 1 + per_row], [whole[part] for whole in want_back[: 1 + per_row]])


@pairwise(shape=[(1, 1), (70, 33), (10, 300), LONG], **OF_A_KERNEL, dtype=cases.DTYPES)
def test_a_poisoned_row_does_not_change_the_others(device, variant, direction, per_row, shape, dtype):
    arrays = batch(variant, *shape, dtype, per_row=per_row)
    row = shape[0] // 2
    others = np.arange(shape[0]) != row

    def results(kernel):
        """The results by row: all results of the kernel except the last, if that is the gradient of shared
        parameters."""
        return (*kernel[0], *kernel[1]) if per_row else (*kernel[0], kernel[1][0])

    def on_device(arrays):
        return run(device, variant, direction, *arrays[:2]), run_backward(device, variant, direction, arrays)

    want = on_device(arrays)
    for where in (0, 1, 2, 3) if per_row else (0, 2, 3):
        bad = [array.copy() for array in arrays]
        bad[where][row] = np.nan
        got = on_device(bad)
        assert_same([r[others] for r in results(got)], [r[others] for r in results(want)])
        cpu = call(variant, direction, *bad[:2]), call(variant, "vjp", *bad, direction=direction)
        for result, expected in zip((*got[0], *got[1]), (*cpu[0], *cpu[1]), strict=True):
            np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
        assert np.isnan(got[0][0][row]).all() or where > 1


# --- gradients ------------------------------------------------------------------------------------------------------


@pairwise(shape=[(700, 3), (40, 100), (9, 300), (5, 1100), LONG], **OF_A_KERNEL, dtype=cases.DTYPES)
def test_gradients_of_many_rows_or_features_are_those_of_the_cpu(device, variant, direction, shape, per_row, dtype):
    """Gradients are compared with the CPU's, which agree with differences: the comparison has more digits than
    differences have."""
    arrays = batch(variant, *shape, dtype, per_row=per_row)
    got = run_backward(device, variant, direction, arrays)
    want = call(variant, "vjp", *(array.astype(float) for array in arrays), direction=direction)
    assert_gradients(got, want, per_row=per_row, allowed=cases.tolerance(dtype, 64))


@every_variant
@every_direction
def test_shared_parameters_of_no_rows_have_gradients_of_zero(device, variant, direction, dtype):
    arrays = batch(variant, 0, 3, dtype, per_row=False)
    by_value, by_params = run_backward(device, variant, direction, arrays)
    assert by_value.shape == (0, 3)
    assert not by_params.any()


def test_shared_parameters_are_summed_in_float64(device):
    """The gradients of rows cancel, so that sums in float32 would lose all digits of the last row's gradient."""
    features, rows = 2, 1000
    values = np.zeros((rows, features), "f4")
    params = vector_cases.raw("planar", features, "f4")
    grad_value = np.zeros_like(values)
    grad_value[:-1:2], grad_value[1:-1:2], grad_value[-1] = 1e7, -1e7, 1e-3
    grad_value[-2] = 0.0
    arrays = values, params, grad_value, np.zeros(rows, "f4")
    got = run_backward(device, "planar", "forward", arrays)[1]
    want = run_backward(
        device, "planar", "forward", [array[-1:] if array is not params else params for array in arrays]
    )
    np.testing.assert_allclose(got, want[1], rtol=1e-4)
