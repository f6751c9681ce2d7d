"""The coupling kernels on the device: the CPU's cases and tolerances, and what threads may get wrong."""

import numpy as np
import pytest

import cases
import headrace as hr
import map_cases
import reference
from cuda_arrays import unaligned
from headrace import _core
from pairs import pairwise

# Rows around what a warp, a block and a stretch of rows hold, and rows longer than a stretch.
SHAPES = [(0, 3), (3, 0), (1, 1), (2, 2), (31, 3), (33, 5), (100, 33), (1000, 2), (3, 300), (2, 2049), (1, 5000)]
DIRECTIONS = ("forward", "inverse")
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)
every_small_shape = pairwise(
    map=reference.MAPS, shape=[(2, 2), (33, 5), (70, 9), (2, 2100)], direction=DIRECTIONS, dtype=cases.DTYPES
)


def run(device, direction, values, params, map="affine", *, scale="soft_clamp", slope=1e-3, bound=5.0, place=None):
    """``(value, log_det)`` as headrace.ops gives them. ``place`` puts an array on the device, or is "in place"."""
    put = place if callable(place) else device.array
    bins = reference.MAPS[map].bins(params.shape[-1])
    x, p = put(values), put(params)
    value = x if place == "in place" else put(np.full_like(values, np.nan))
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


@pairwise(shape=SHAPES, map__scale=map_cases.MAPS_AND_SCALES, direction=DIRECTIONS, dtype=cases.DTYPES)
def test_values_match_the_reference(device, direction, map, scale, shape, dtype):
    values, params = map_cases.batch(*shape, map, dtype)
    got = run(device, direction, values, params, map, scale=scale, slope=1e-2)
    want = map_cases.JUDGES[direction](values, params, map, scale, 1e-2)
    cases.assert_matches(got, want, values, dtype, depth=map_cases.depth_of(map))


@every_direction
@map_cases.every_hard_map
def test_hard_inputs_match_the_reference(device, direction, map, scale, largest_raw, dtype):
    def kernel(values, params, map, *, scale):
        return run(device, direction, values, params, map, scale=scale)

    map_cases.check_hard_inputs(kernel, map_cases.JUDGES[direction], direction, map, scale, largest_raw, dtype)


@every_direction
@pytest.mark.parametrize("bins", [2, 3, 8, 11, 64])
def test_hard_splines_match_the_reference(device, direction, bins, dtype):
    """Of all sizes: distances in shared memory with and without padding, and blocks of fewer threads."""

    def kernel(values, params, map, *, bound):
        return run(device, direction, values, params, map, bound=bound)

    map_cases.check_hard_splines(kernel, map_cases.JUDGES[direction], direction, bins, 5.0, dtype)


@every_small_shape
def test_addresses_do_not_matter(device, direction, map, shape, dtype):
    values, params = map_cases.batch(*shape, map, dtype)
    want = run(device, direction, values, params, map)
    for place in shifts(device, dtype):
        assert_same(run(device, direction, values, params, map, place=place), want)


@pairwise(shape=SHAPES, map=reference.MAPS, direction=DIRECTIONS, dtype=cases.DTYPES)
def test_the_value_may_replace_the_input(device, direction, map, shape, dtype):
    values, params = map_cases.batch(*shape, map, dtype)
    want = run(device, direction, values, params, map)
    assert_same(run(device, direction, values, params, map, place="in place"), want)


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


@pairwise(
    map=reference.MAPS,
    shape=[(1, 1), (33, 5), (97, 17)],
    direction=DIRECTIONS,
    where=["value", "params"],
    poison=[np.nan, np.inf],
    dtype=cases.DTYPES,
)
def test_a_poisoned_row_leaves_all_others_alone(device, direction, map, where, poison, shape, dtype):
    values, params = map_cases.batch(*shape, map, dtype)
    row, column = shape[0] // 2, shape[1] - 1
    values[row, column] = 0.5  # inside every spline's interval: outside, parameters have no effect
    want = run(device, direction, values, params, map)
    {"value": values, "params": params}[where][row, column] = poison
    got = run(device, direction, values, params, map)
    others = np.arange(shape[0]) != row
    assert_same([result[others] for result in got], [expected[others] for expected in want])
    assert not np.isfinite(got[0][row, column])
    cases.assert_same_bits(got[0][row, :column], want[0][row, :column])
    if np.isnan(poison) and where == "params" and map != "additive":
        assert np.isnan(got[1][row])


# --- gradients ------------------------------------------------------------------------------------------------------


@pairwise(
    shape=[(0, 3), (3, 0), (1, 1), (2, 2), (31, 3), (33, 5), (9, 33), (2, 2049)],
    map__scale=map_cases.MAPS_AND_SCALES,
    direction=DIRECTIONS,
)
def test_gradients_match_differences(device, direction, map, scale, shape):
    values, params, *cotangents = arrays = map_cases.gradient_batch(*shape, map)
    got = run_backward(device, direction, arrays, map, scale=scale, slope=1e-2)
    if shape[1] > 1000:  # differences would take a run of the reference a column
        want = hr.ops.coupling_backward(*arrays, map, direction=direction, scale=scale, slope=1e-2)
    else:
        want = map_cases.differences(direction, values, params, cotangents, map, scale=scale, slope=1e-2)
    map_cases.assert_gradients(got, want)


@every_direction
@pytest.mark.parametrize("bins", [2, 3, 11, 64])
def test_gradients_of_a_spline_match_differences_for_every_number_of_bins(device, direction, bins):
    values, params, *cotangents = arrays = map_cases.gradient_batch(40, 2, "rq_spline", bins=bins)
    got = run_backward(device, direction, arrays, "rq_spline")
    step = reference.STEP * 5.0 / bins  # a bin's size is the scale of what happens in it
    map_cases.assert_gradients(got, map_cases.differences(direction, values, params, cotangents, "rq_spline", step))


@every_direction
@map_cases.every_map_and_scale
def test_float32_gradients_match_those_of_float64(device, direction, map, scale):
    narrow = map_cases.gradient_batch(97, 5, map, "float32")
    got = run_backward(device, direction, narrow, map, scale=scale)
    want = run_backward(device, direction, [array.astype(float) for array in narrow], map, scale=scale)
    # A spline divides by the widths of its bins and then by their slopes, some of them small.
    map_cases.assert_gradients(got, want, allowed=cases.tolerance("float32", map_cases.depth_of(map, 8)))


@every_small_shape
def test_addresses_do_not_matter_to_gradients(device, direction, map, shape, dtype):
    arrays = map_cases.gradient_batch(*shape, map, dtype)
    want = run_backward(device, direction, arrays, map)
    for place in shifts(device, dtype):
        assert_same(run_backward(device, direction, arrays, map, place=place), want)


@pairwise(map=reference.MAPS, where=range(4), shape=[(1, 1), (97, 17)], direction=DIRECTIONS, dtype=cases.DTYPES)
def test_a_poisoned_row_leaves_the_gradients_of_others_alone(device, direction, map, where, shape, dtype):
    arrays = map_cases.gradient_batch(*shape, map, dtype)
    want = run_backward(device, direction, arrays, map)
    row = shape[0] // 2
    arrays[where][row] = np.nan
    got = run_backward(device, direction, arrays, map)
    others = np.arange(shape[0]) != row
    assert_same([result[others] for result in got], [expected[others] for expected in want])
    if where == 2:
        assert np.isnan(got[0][row]).all()


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
        device.module.coupling_backward(*told, device.index, device.stream)
    assert str(by_device.value) == str(by_cpu.value)


def test_the_device_of_the_arrays_is_made_current(device):
    """As it has to be one that there is, a number beyond the last one shows that it is."""
    x, params = device.array(np.zeros((3, 2))), device.array(np.zeros((3, 2, 2)))
    told = [device.tuple(array) for array in (x, params, x, device.empty(3, "f8"))]
    with pytest.raises(device.module.CudaError, match="device: invalid device ordinal"):
        device.module.coupling("affine", "soft_clamp", 1e-3, 5.0, 2, False, *told, 99, device.stream)
    told = [device.tuple(array) for array in (x, params, x, device.empty(3, "f8"), x, params)]
    with pytest.raises(device.module.CudaError, match="device: invalid device ordinal"):
        device.module.coupling_backward("affine", "soft_clamp", 1e-3, 5.0, 2, False, *told, 99, device.stream)


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
                "affine", "soft_clamp", 1e-3, 5.0, 2, False, *told, device.index, device.stream
            )
    address, *rest = device.tuple(arrays[place - 6])
    told = [(address + 1, *rest) if i == place - 6 else device.tuple(array) for i, array in enumerate(arrays)]
    with pytest.raises(ValueError, match="aligned"):
        device.module.coupling_backward("affine", "soft_clamp", 1e-3, 5.0, 2, False, *told, device.index, device.stream)
