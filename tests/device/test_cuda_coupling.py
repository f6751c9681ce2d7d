"""The coupling kernels on the device: what threads and addresses may get wrong, and what is refused.

Values and gradients are judged in tests/maps/test_maps.py and tests/derivatives/test_coupling_backward.py.
"""

import numpy as np
import pytest

import cases
import headrace as hr
import map_cases
import reference
from cuda_arrays import unaligned
from headrace import _core
from pairs import pairwise

DIRECTIONS = ("forward", "inverse")
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)
every_small_shape = pairwise(
    map=reference.MAPS, shape=[(2, 2), (33, 5), (70, 9), (2, 2100)], direction=DIRECTIONS, dtype=cases.DTYPES
)


def run(device, direction, values, params, map="affine", *, scale="soft_clamp", slope=1e-3, bound=5.0, place=None):
    """``(value, log_det)`` as headrace.ops gives them. ``place`` puts an array on the device."""
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
    """``(grad_input, grad_params)``."""
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
    """Ways to put arrays on the device that leave some of them without the alignment of 16 bytes."""
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
    """Of maps whose threads take 16 bytes each: 2700 elements are two blocks, and part of a third."""
    arrays = [array.astype("float32") for array in map_cases.gradient_batch(300, 9, map)]
    want = run_backward(device, direction, arrays, map)
    for part in (slice(0, 100), slice(100, 213), slice(213, None)):
        got = run_backward(device, direction, [np.ascontiguousarray(array[part]) for array in arrays], map)
        assert_same(got, [whole[part] for whole in want])


@every_direction
@map_cases.every_map_and_scale
def test_gradients_of_long_rows_are_those_of_the_cpu(device, direction, map, scale):
    """Differences would take a run of the reference a column; the CPU's were tested by these."""
    arrays = map_cases.gradient_batch(2, 2049, map)
    got = run_backward(device, direction, arrays, map, scale=scale, slope=1e-2)
    want = hr.ops.coupling_backward(*arrays, map, direction=direction, scale=scale, slope=1e-2)
    map_cases.assert_gradients(got, want)


@every_small_shape
def test_addresses_do_not_matter_to_gradients(device, direction, map, shape, dtype):
    arrays = map_cases.gradient_batch(*shape, map, dtype)
    want = run_backward(device, direction, arrays, map)
    for place in shifts(device, dtype):
        assert_same(run_backward(device, direction, arrays, map, place=place), want)


# --- refusals -------------------------------------------------------------------------------------------------------


def refused():
    """What is wrong -> (number of an argument of coupling_backward, what it is instead)."""
    values, params, grad_value, grad_log_det = map_cases.gradient_batch(4, 3, "affine", "float32")
    return {
        "an unknown map": (0, "cubic"),
        "an unknown scale": (1, "relu"),
        "a slope of one": (2, 1.0),
        "a slope of NaN": (2, np.nan),
        "a bound of zero": (3, 0.0),
        "one bin": (4, 1),
        "values of one axis": (6, values[0].copy()),
        "values of fewer rows": (6, values[:3].copy()),
        "params of two axes": (7, params[:, 0].copy()),
        "params of another map": (7, params[..., :1].copy()),
        "grad_value of another shape": (8, grad_value[:, :2].copy()),
        "grad_log_det too short": (9, grad_log_det[:3].copy()),
        "grad_input of another shape": (10, np.empty((3, 4), "f4")),
        "grad_params of another shape": (11, np.empty((4, 3), "f4")),
    }


def arguments_of_backward():
    values, params, grad_value, grad_log_det = map_cases.gradient_batch(4, 3, "affine", "float32")
    arrays = [values, params, grad_value, grad_log_det, np.empty_like(values), np.empty_like(params)]
    return ["affine", "soft_clamp", 1e-3, 5.0, 2, False, *arrays]


@pytest.mark.parametrize("name", refused())
def test_what_the_cpu_refuses_is_refused_with_its_words(device, name):
    place, wrong = refused()[name]
    arguments = arguments_of_backward()
    arguments[place] = wrong
    with pytest.raises(ValueError, match=r"\w") as by_cpu:
        _core.cpu.coupling_backward(*arguments)
    arrays = [device.array(argument) if isinstance(argument, np.ndarray) else argument for argument in arguments]
    told = [argument if i < 6 else device.tuple(argument) for i, argument in enumerate(arrays)]
    with pytest.raises(ValueError, match=r"\w") as by_device:
        device.module.coupling_backward(*told, device=device.index, stream=device.stream)
    assert str(by_device.value) == str(by_cpu.value)


def test_the_device_of_the_arrays_is_made_current(device):
    """As it has to be one that there is, a number beyond the last one shows that it is."""
    x, params = device.array(np.zeros((3, 2))), device.array(np.zeros((3, 2, 2)))
    told = [device.tuple(array) for array in (x, params, x, device.empty(3, "f8"))]
    with pytest.raises(device.module.CudaError, match="device: invalid device ordinal"):
        device.module.coupling("affine", "soft_clamp", 1e-3, 5.0, 2, False, *told, device=99, stream=device.stream)
    told = [device.tuple(array) for array in (x, params, x, device.empty(3, "f8"), x, params)]
    with pytest.raises(device.module.CudaError, match="device: invalid device ordinal"):
        device.module.coupling_backward(
            "affine", "soft_clamp", 1e-3, 5.0, 2, False, *told, device=99, stream=device.stream
        )


@pytest.mark.parametrize("place", range(6, 12))
def test_arrays_of_another_kind_are_refused(device, place):
    arrays = [device.array(argument) for argument in arguments_of_backward()[6:]]
    shape, dtype = arrays[place - 6].shape, arrays[place - 6].dtype
    wrong = {
        "another dtype": device.empty(shape, np.float64),
        "integers": device.empty(shape, np.int64),
        "a step": device.empty((*shape, 2), dtype)[..., 0],
    }
    for bad in wrong.values():
        told = [device.tuple(bad if i == place - 6 else array) for i, array in enumerate(arrays)]
        with pytest.raises(ValueError, match="expected aligned arrays of one dtype in C order"):
            device.module.coupling_backward(
                "affine", "soft_clamp", 1e-3, 5.0, 2, False, *told, device=device.index, stream=device.stream
            )
    address, *rest = device.tuple(arrays[place - 6])
    told = [(address + 1, *rest) if i == place - 6 else device.tuple(array) for i, array in enumerate(arrays)]
    with pytest.raises(ValueError, match="aligned"):
        device.module.coupling_backward(
            "affine", "soft_clamp", 1e-3, 5.0, 2, False, *told, device=device.index, stream=device.stream
        )
