"""Maps through the coupling kernels of ``headrace.ops``, with parameters of networks for each row."""

import numpy as np
import pytest

import cases
import headrace as hr
import map_cases
import reference
from cores import every_core
from map_cases import batch

KERNELS = {direction: (kernel, map_cases.JUDGES[direction]) for direction, kernel in map_cases.KERNELS.items()}
# Shapes of rows and columns around the sizes of vectors and of tiles.
SHAPES = [(0, 3), (1, 1), (1, 7), (2, 16), (5, 17), (9, 8), (33, 33), (97, 5), (300, 64)]
# Shapes have rows around the sizes of a warp, a block and a stretch, rows longer than a stretch, and at the end no
# rows.
OF_DEVICES = [(31, 3), (33, 5), (100, 33), (1000, 2), (3, 300), (2, 2049), (1, 5000), (2, 2), (1, 1), (0, 3), (3, 0)]
EVERY_SHAPE = {"cpu": SHAPES, "device": OF_DEVICES}
every_map = pytest.mark.parametrize("map", reference.MAPS)
every_kernel = pytest.mark.parametrize("direction", KERNELS)
every_scale = pytest.mark.parametrize("scale", reference.LOG_SCALES)


@every_core(
    shape=EVERY_SHAPE,
    map__scale=map_cases.MAPS_AND_SCALES,
    direction=KERNELS,
    dtype=cases.DTYPES,
    product=("cpu",),
    together=("map__scale", "direction", "dtype"),
)
def test_kernels_match_the_reference(core, direction, map, scale, shape, dtype):
    kernel, judge = KERNELS[direction]
    values, params = batch(*shape, map, dtype)
    got = kernel(values, params, map, scale=scale, slope=1e-2)
    cases.assert_matches(got, judge(values, params, map, scale, 1e-2), values, dtype, depth=map_cases.depth_of(map))


@every_kernel
def test_defaults_are_affine_and_softly_clamped(direction, dtype):
    kernel, judge = KERNELS[direction]
    values, params = batch(20, 6, "affine", dtype)
    cases.assert_matches(kernel(values, params), judge(values, params, "affine", "soft_clamp", 1e-3), values, dtype)


@every_kernel
@map_cases.every_hard_map
def test_hard_inputs_match_the_reference(core, direction, map, scale, largest_raw, dtype):
    """Coordinates have different scales: no value overflows, and none loses digits beside a huge neighbour."""
    kernel, judge = KERNELS[direction]
    map_cases.check_hard_inputs(kernel, judge, direction, map, scale, largest_raw, dtype)


@every_core(
    bins=[2, 3, 8, 11, 64], bound=[5.0, 0.5], direction=KERNELS, dtype=cases.DTYPES, product=("cpu",)
)  # on a device, cases cover shared memory with and without padding, and smaller blocks
def test_hard_splines_match_the_reference(core, direction, bins, bound, dtype):
    """Elements have different scales; rows have one coordinate, so that log-derivatives are compared one by one."""
    kernel, judge = KERNELS[direction]
    map_cases.check_hard_splines(kernel, judge, direction, bins, bound, dtype)


@every_kernel
@every_scale
def test_log_det_of_hard_parameters_matches_the_reference(direction, scale, dtype):
    kernel, _ = KERNELS[direction]
    raw = np.array([0.0, 1e-30, 1e-3, 0.5, 3.0, 8.0, 17.0, 40.0, 88.0, 120.0, 1e4, 1e30])
    raw = np.concatenate([raw, -raw]).astype(dtype)[:, None]
    values = np.zeros_like(raw)
    params = np.stack([np.ones_like(raw), raw], axis=2)
    want = reference.LOG_SCALES[scale](raw[:, 0].astype(float), 1e-3)
    cases.assert_close(kernel(values, params, scale=scale)[1], want if direction == "forward" else -want)


@map_cases.every_map_and_scale
def test_the_two_directions_undo_each_other(map, scale, dtype):
    values, params = batch(50, 13, map, dtype)
    x, log_det = hr.ops.coupling(values, params, map, scale=scale)
    z, back = hr.ops.coupling(x, params, map, scale=scale, direction="inverse")
    stretch, bend = map_cases.magnitudes(x, params, map, scale, inverse=True)
    cases.assert_close(z, values, magnitude=stretch.max(axis=1), depth=map_cases.depth_of(map))
    cases.assert_close(back, -log_det, magnitude=bend.sum(axis=1), depth=map_cases.depth_of(map))


@every_kernel
@every_map
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_out_receives_the_same_bits(direction, map, shape, dtype):
    kernel, _ = KERNELS[direction]
    values, params = batch(*shape, map, dtype)
    want = kernel(values, params, map)
    out = np.full_like(values, 7), np.full(len(values), 7, dtype)
    got = kernel(values, params, map, out=out)
    for result, given, expected in zip(got, out, want, strict=True):
        assert result is given
        cases.assert_same_bits(given, expected)


@every_core(
    shape=EVERY_SHAPE,
    map=reference.MAPS,
    direction=KERNELS,
    dtype=cases.DTYPES,
    product=("cpu",),
    together=("map", "direction"),
)
def test_out_may_be_the_input(core, direction, map, shape, dtype):
    kernel, _ = KERNELS[direction]
    values, params = batch(*shape, map, dtype)
    want, want_log_det = kernel(values, params, map)
    log_det = np.empty(len(values), dtype)
    kernel(values, params, map, out=(values, log_det))
    cases.assert_same_bits(values, want)
    cases.assert_same_bits(log_det, want_log_det)


@every_kernel
def test_inputs_are_not_changed(direction, dtype):
    kernel, _ = KERNELS[direction]
    values, params = batch(50, 7, "affine", dtype)
    before = values.copy(), params.copy()
    values.flags.writeable = params.flags.writeable = False
    kernel(values, params)
    cases.assert_same_bits(values, before[0])
    cases.assert_same_bits(params, before[1])


@every_core(
    map=reference.MAPS,
    shape=[(1, 1), (9, 5), (33, 5), (97, 17)],
    poison=[np.nan, np.inf, -np.inf],
    direction=KERNELS,
    where=["value", "params"],
    dtype=cases.DTYPES,
)
def test_a_poisoned_row_leaves_all_others_alone(core, direction, map, where, poison, shape, dtype):
    kernel, _ = KERNELS[direction]
    values, params = batch(*shape, map, dtype)
    row, column = shape[0] // 2, shape[1] - 1
    values[row, column] = 0.5  # parameters have an effect inside of a spline's interval
    want = kernel(values, params, map)
    if where == "value":
        values[row, column] = poison
    else:
        params[row, column] = poison
    got = kernel(values, params, map)
    others = np.arange(shape[0]) != row
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(result[others], expected[others])
    assert not np.isfinite(got[0][row, column])
    cases.assert_same_bits(got[0][row, :column], want[0][row, :column])
    if np.isnan(poison):
        assert np.isnan(got[0][row, column])
        if where == "params" and map != "additive":
            assert np.isnan(got[1][row])


def strict_errors():
    values, params = batch(4, 3, "affine", "float32")
    log_det = np.empty(4, "f4")
    wide_values, wide_params = batch(4, 6, "affine", "float32")
    read_only = np.empty((4, 3), "f4")
    read_only.flags.writeable = False
    return {
        # Each case by its name: first argument, params, keywords, words of the message.
        "a list": (values.tolist(), params, {}, ["list"]),
        "integers": (values.astype(int), params, {}, ["int64"]),
        "half precision": (values.astype("f2"), params, {}, ["float16"]),
        "complex": (values.astype("c8"), params, {}, ["complex64"]),
        "no axis": (np.array(1.0, "f4"), params, {}, [r"\(\)"]),
        "params with more axes than values": (values[0], params, {}, ["params", r"\(3, 2\)", r"\(4, 3, 2\)"]),
        "params of other rows": (
            np.zeros((5, 4, 3), "f4"),
            np.zeros((5, 3, 2), "f4"),
            {},
            ["params", r"\(5, 4, 3, 2\)"],
        ),
        "a step between columns": (wide_values[:, ::2], params, {}, ["contiguous"]),
        "columns first": (np.asfortranarray(values), params, {}, ["contiguous"]),
        "params of another dtype": (values, params.astype("f8"), {}, ["params", "float32", "float64"]),
        "params of two axes": (values, params[:, 0], {}, ["params", r"\(4, 2\)"]),
        "params with too few rows": (values, params[:3], {}, ["params", r"\(4, 3, 2\)", r"\(3, 3, 2\)"]),
        "params with too few columns": (values, wide_params, {}, ["params", r"\(4, 3, 2\)", r"\(4, 6, 2\)"]),
        "params of another map": (values, params, {"map": "additive"}, ["params", r"\(4, 3, 1\)", r"\(4, 3, 2\)"]),
        "params of no bins": (values, params[..., :1].copy(), {"map": "rq_spline"}, ["params", r"\(4, 3, 1\)"]),
        "params of one bin": (values, params, {"map": "rq_spline"}, ["params", r"\(4, 3, 2\)"]),
        "params between two numbers of bins": (
            values,
            np.zeros((4, 3, 24), "f4"),
            {"map": "rq_spline"},
            ["params", "24"],
        ),
        "params of too many bins": (values, np.zeros((4, 3, 194), "f4"), {"map": "rq_spline"}, ["params", "194"]),
        "a bound of zero": (values, np.zeros((4, 3, 23), "f4"), {"map": "rq_spline", "bound": 0.0}, ["bound", "0"]),
        "a bound below zero": (
            values,
            np.zeros((4, 3, 23), "f4"),
            {"map": "rq_spline", "bound": -5.0},
            ["bound", "-5"],
        ),
        "a bound of NaN": (values, params, {"bound": float("nan")}, ["bound", "nan"]),
        "a bound of infinity": (values, params, {"bound": float("inf")}, ["bound", "inf"]),
        "params with a step": (values, wide_params[:, ::2], {}, ["params", "contiguous"]),
        "params of other bins": (
            values,
            np.zeros((4, 3, 23), "f4"),
            {"map": "rq_spline", "bins": 5},
            ["params", r"\(4, 3, 14\)", r"\(4, 3, 23\)"],
        ),
        "one bin": (values, params, {"map": "rq_spline", "bins": 1}, ["bins", "1"]),
        "bins that are no integer": (values, params, {"bins": 2.5}, ["bins", "2.5"]),
        "an unknown map": (values, params, {"map": "spline"}, ["map", "affine", "spline"]),
        "an unknown scale": (values, params, {"scale": "relu"}, ["scale", "soft_clamp", "relu"]),
        "a slope of zero": (values, params, {"slope": 0.0}, ["slope", "0"]),
        "a slope of two": (values, params, {"slope": 2.0}, ["slope", "2"]),
        "a slope that float32 loses": (
            values,
            np.zeros((4, 3, 5), "f4"),
            {"map": "dual_ascent", "slope": 1e-7},
            ["slope"],
        ),
        "out of one array": (values, params, {"out": np.empty((4, 3), "f4")}, ["out"]),
        "out of another dtype": (values, params, {"out": (np.empty((4, 3)), log_det)}, ["out", "float32", "float64"]),
        "out of another shape": (values, params, {"out": (np.empty((5, 3), "f4"), log_det)}, ["out", r"\(5, 3\)"]),
        "out with a step": (values, params, {"out": (np.empty((4, 6), "f4")[:, ::2], log_det)}, ["out", "contiguous"]),
        "out that cannot be written": (values, params, {"out": (read_only, log_det)}, ["out"]),
        "a log_det too short": (values, params, {"out": (values.copy(), log_det[:3])}, ["out", r"\(3,\)", r"\(4,\)"]),
    }


@every_kernel
@pytest.mark.parametrize("name", strict_errors())
def test_arrays_that_would_need_a_conversion_are_refused(direction, name):
    kernel, _ = KERNELS[direction]
    values, params, keywords, words = strict_errors()[name]
    with pytest.raises((TypeError, ValueError)) as error:
        kernel(values, params, **keywords)
    if not any(argument in words for argument in ("params", "map", "scale", "slope", "bound", "bins", "out")):
        words = [r"\bvalue\b", *words]
    cases.assert_says(error, *words)
