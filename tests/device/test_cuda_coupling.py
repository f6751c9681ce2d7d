"""The coupling kernels on the device: errors of threads and addresses, and refusals.

Values and gradients are tested in tests/maps/test_maps.py and tests/derivatives/test_coupling_backward.py.
"""

import numpy as np
import pytest

import cases
import headrace as hr
import map_cases
import reference
from cuda_arrays import unaligned
from pairs import pairwise

DIRECTIONS = ("forward", "inverse")
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)
every_small_shape = pairwise(
    map=reference.MAPS, shape=[(2, 2), (33, 5), (70, 9), (2, 2100)], direction=DIRECTIONS, dtype=cases.DTYPES
)


def run(device, direction, values, params, map="affine", *, scale="soft_clamp", slope=1e-3, bound=5.0, place=None):
    """The results ``(value, log_det)`` with the shapes of headrace.ops. ``place`` is a function that puts an array on
    the device."""
    put = place or device.array
    bins = reference.MAPS[map].bins(params.shape[-1])
    x, p = put(values), put(params)
    value = put(np.full_like(values, np.nan))
    log_det = put(np.full(len(values), np.nan, values.dtype))
    device.module.coupling(
        *(map, scale, slope, bound, bins, direction == "inverse"),
        *(device.tuple(array) for array in (x, p, value, log_det)),
        device=device.index,
        stream=device.stream,
    )
    return device.numpy(value).copy(), device.numpy(log_det).copy()


def run_backward(device, direction, arrays, map="affine", *, scale="soft_clamp", slope=1e-3, bound=5.0, place=None):
    """The gradients ``(grad_input, grad_params)`` of the coupling kernel."""
    put = place or device.array
    bins = reference.MAPS[map].bins(arrays[1].shape[-1])
    results = [put(np.full_like(array, np.nan)) for array in arrays[:2]]
    given = [put(array) for array in arrays]
    device.module.coupling_backward(
        *(map, scale, slope, bound, bins, direction == "inverse"),
        *(device.tuple(array) for array in (*given, *results)),
        device=device.index,
        stream=device.stream,
    )
    return tuple(device.numpy(result).copy() for result in results)


def assert_same(got, want):
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(result, expected)


def shifts(device, dtype):
    """Functions that put arrays on the device, each of which leaves some arrays without alignment to 16 bytes."""
    yield lambda values: unaligned(device, values)
    for odd in range(4):
        count = iter(range(100))
        yield lambda values, odd=odd, count=count: unaligned(device, values, int(next(count) % 4 == odd))
    if np.dtype(dtype).itemsize == 4:
        yield lambda values: unaligned(device, values, 2)
        yield lambda values: unaligned(device, values, 3)


# --- values ---------------------------------------------------------------------------------------------------------


@every_small_shape
def test_addresses_do_not_matter(device, direction, map, shape, dtype):
    values, params = map_cases.batch(*shape, map, dtype)
    want = run(device, direction, values, params, map)
    for place in shifts(device, dtype):
        assert_same(run(device, direction, values, params, map, place=place), want)


@every_small_shape
def test_the_order_of_threads_does_not_matter(emu, direction, map, shape, dtype):
    values, params = map_cases.batch(*shape, map, dtype)
    arrays = map_cases.gradient_batch(*shape, map, dtype)
    first, *others = emu.in_each_order(
        lambda: (*run(emu, direction, values, params, map), *run_backward(emu, direction, arrays, map)), every=True
    )
    for other in others:
        assert_same(other, first)


@pairwise(map=reference.MAPS, shape=[(300, 5), (70, 65), (5, 2100)], direction=DIRECTIONS, dtype=cases.DTYPES)
def test_a_rows_result_does_not_depend_on_its_companions(device, direction, map, shape, dtype):
    values, params = map_cases.batch(*shape, map, dtype)
    want = run(device, direction, values, params, map)
    for part in (slice(0, 1), slice(1, 3), slice(3, None)):
        assert_same(run(device, direction, values[part], params[part], map), [whole[part] for whole in want])


# --- gradients ------------------------------------------------------------------------------------------------------


@every_direction
@pytest.mark.parametrize("map", ["additive", "affine"])
def test_gradients_of_several_blocks_are_those_of_one(device, direction, map):
    """A thread computes 16 bytes of values, so that 2700 elements are two blocks and part of a third."""
    arrays = [array.astype("float32") for array in map_cases.gradient_batch(300, 9, map)]
    want = run_backward(device, direction, arrays, map)
    for part in (slice(0, 100), slice(100, 213), slice(213, None)):
        got = run_backward(device, direction, [np.ascontiguousarray(array[part]) for array in arrays], map)
        assert_same(got, [whole[part] for whole in want])


@every_direction
@map_cases.every_map_and_scale
def test_gradients_of_long_rows_are_those_of_the_cpu(device, direction, map, scale):
    """Gradients of 2,049 columns equal the CPU's, which other tests compare with differences of fewer columns:
    differences evaluate the reference once a column."""
    arrays = map_cases.gradient_batch(2, 2049, map)
    got = run_backward(device, direction, arrays, map, scale=scale, slope=1e-2)
    want = hr.ops.coupling_vjp(*arrays, map, direction=direction, scale=scale, slope=1e-2)
    map_cases.assert_gradients(got, want)


@every_small_shape
def test_addresses_do_not_matter_to_gradients(device, direction, map, shape, dtype):
    arrays = map_cases.gradient_batch(*shape, map, dtype)
    want = run_backward(device, direction, arrays, map)
    for place in shifts(device, dtype):
        assert_same(run_backward(device, direction, arrays, map, place=place), want)
