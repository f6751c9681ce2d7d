"""The step of dual ascent on a device: errors that threads, addresses and streams may cause.

The values of a step are tested in tests/ascent/test_points.py.
"""

import numpy as np
import pytest

import cases
from cases import DTYPES
from pairs import pairwise
from points_cases import DevicePoints, a_step, assert_sums, points_of, reference, weights_of


@pytest.mark.parametrize("features", [1, 2, 10, 40])
def test_any_strides_and_either_float_type_are_read(device, features, dtype):
    x = cases.rows(300, features, dtype)
    other = x.astype("float64" if dtype == "float32" else "float32")
    wide = device.array(np.zeros((300, 2 * features + 1), dtype))
    wide[:, 1::2] = device.array(x)  # the view is not aligned to vectors
    columns = device.array(np.ascontiguousarray(x.T)).T
    backwards = device.array(np.ascontiguousarray(x[::-1]))[::-1]
    step = a_step(features)
    results = []
    for array in (device.array(x), columns, wide[:, 1::2], backwards):
        points = DevicePoints(device, array, None, dtype)
        points.step(*step)
        results.append(points.values())
    for result in results[1:]:
        cases.assert_same_bits(result, results[0])
    points = points_of(device, other, None, dtype)
    cases.assert_close(points.values(), other.astype(float), depth=1)


@pairwise(
    rows__features__block=[(1300, 5, None), (700, 10, 3), (300, 70, 32), (140, 70, None)],
    dtype=DTYPES,
    weighted=[False, True],
)
def test_the_same_bits_in_any_order_of_threads(device, rows, features, block, weighted, dtype):
    x = cases.rows(rows, features, dtype)
    weights = weights_of(rows, dtype) if weighted else None

    def run():
        points = points_of(device, x, weights, dtype)
        sums = [points.step(*a_step(features, k, block=block)) for k in range(2)]
        return points.values(), points.squares(), points.log_jacobian(), *sums

    first, *others = device.in_each_order(run, every=True)
    for other in others:
        for got, want in zip(other, first, strict=True):
            cases.assert_same_bits(got, want)


@pytest.mark.parametrize("features", [10, 64, 130])
def test_products_of_small_derivatives_do_not_underflow(device, features, dtype):
    """All maps are as steep as possible, so that products of small derivatives might underflow, and those of large ones
    overflow."""
    x = np.repeat([[1e3], [-1e3]], features, axis=1).astype(dtype)
    points = points_of(device, x, None, dtype)
    maps = np.array([[0.999, 0.0, 1e-6]] * features)
    points.step(maps, 0.0, [np.eye(features)], np.zeros(features))
    want = features * np.log1p(np.array([0.999, -0.999]) * 1e3 / np.sqrt(1e6 + 1e-6))
    # The small derivative, 1e-3, is a difference of values near 1.
    np.testing.assert_allclose(points.log_jacobian(), want, rtol=2e-4 if dtype == "float32" else 1e-11)


def test_lanes_past_the_last_row_do_not_count(device, dtype):
    """The step moves the zeros in lanes past the last row to values whose squares overflow, but sums leave these lanes
    out."""
    far = 1e30 if dtype == "float32" else 1e300
    points = points_of(device, np.full((5, 2), far, dtype), None, dtype)
    maps, next_map = np.array([[0.0, far, 1.0]] * 2), np.array([[0.0, 1.0]] * 2)
    sums = points.step(maps, 0.0, [np.eye(2)], np.full(2, -far), next_map)
    np.testing.assert_array_equal(sums, [[0.0, 0.0, 5.0, 0.0, 0.0, 5.0]] * 2)


def test_wrong_arguments_are_refused(device):
    """The compiled class refuses wrong arguments, even without Python's checks."""
    module, stream = device.module, device.stream
    x, weights = device.array(np.zeros((4, 2), "f4")), device.array(np.zeros(4, "f4"))
    points = module.PointsF32(device.tuple(x), device.tuple(weights), device.index, stream)
    for bad in (
        device.array(np.zeros(4, "f4")),
        device.array(np.zeros((4, 0), "f4")),
        device.array(np.zeros((4, 2), int)),
    ):
        with pytest.raises(ValueError, match="x: expected"):
            module.PointsF32(device.tuple(bad), None, device.index, stream)
    for bad in (device.array(np.zeros(3, "f4")), device.array(np.zeros(4)), device.array(np.zeros(8, "f4"))[::2]):
        with pytest.raises(ValueError, match="weights: expected"):
            module.PointsF32(device.tuple(x), device.tuple(bad), device.index, stream)
    address, shape, strides, dtype = device.tuple(x)
    with pytest.raises(ValueError, match="expected numbers at addresses"):
        module.PointsF32((address + 2, shape, strides, dtype), None, device.index, stream)
    for bad in (device.array(np.zeros((4, 2))), device.array(np.zeros((3, 2), "f4")), x.T):
        with pytest.raises(ValueError, match="out: expected"):
            points.values(device.tuple(bad), stream)
    for bad in (device.array(np.zeros(4, "f4")), device.array(np.zeros(3))):
        for write in (points.squares, points.log_jacobian):
            with pytest.raises(ValueError, match="out: expected"):
                write(device.tuple(bad), stream)
    with pytest.raises(module.CudaError, match="device: invalid device ordinal"):
        module.PointsF32(device.tuple(x), None, 99, stream)


def test_rows_beyond_memory_are_refused(device, dtype):
    kind = {"float32": device.module.PointsF32, "float64": device.module.PointsF64}[dtype]
    number = device.array(np.zeros(1, "f4"))
    with pytest.raises(MemoryError):
        kind((device.tuple(number)[0], (2**61 - 1, 1), (0, 0), "float32"), None, device.index, device.stream)


# --- cases that only the emulation detects ----------------------------------------------------------------------------


def test_more_chunks_than_a_warp_has_lanes_are_added(emu):
    """There are 35 tiles of 64 rows, the last of which has five rows: two warps of a block add, and the second warp has
    three chunks."""
    rows, features = 34 * 64 + 5, 17
    x = cases.rows(rows, features, "float64")
    step = a_step(features)
    points = points_of(emu, x, None, "float64")
    sums = points.step(*step)
    z, _, want = reference(x, None, *step)
    cases.assert_close(points.values(), z, magnitude=4.0)
    assert_sums(sums, want, rows, z, "float64")


@pytest.mark.nightly  # by day, test_tiles_of_one_chunk_follow_each_other sums as many chunks
def test_all_chunks_of_many_rows_are_added(emu):
    """There are more tiles than chunks: float64 and at most two features make tiles of 256 rows."""
    rows = 2048 * 256 + 300
    x = np.zeros((rows, 1))
    x[-1], x[256 * 2048 - 1] = 1.0, 2.0
    points = points_of(emu, x, None, "float64")
    sums = points.step(np.array([[0.0, 0.0, 1.0]]), 0.5, [np.eye(1)], np.zeros(1), np.array([[0.0, 1.0]]))
    want = [3.0, 5.0, rows - 2 + 2**0.5 + 5**0.5, 2**0.5 + 2 * 5**0.5, 2**-0.5 + 2 * 5**-0.5, rows - 2 + 0.5 + 0.2]
    np.testing.assert_allclose(sums[0], want, rtol=1e-12)
    assert (points.log_jacobian() == 0.5).all()


@pytest.mark.long
def test_tiles_of_one_chunk_follow_each_other(emu):
    """Each chunk has two tiles of 64 rows."""
    rows, features = 2048 * 64 + 100, 17
    x, weights = cases.rows(rows, features, "float64"), weights_of(rows, "float64")
    step = a_step(features)
    points = points_of(emu, x, weights, "float64")
    sums = points.step(*step)
    z, log_jacobian, want = reference(x, weights, *step)
    cases.assert_close(points.values(), z, magnitude=4.0)
    assert np.abs(points.log_jacobian() - log_jacobian).max() <= features * cases.tolerance("float64")
    assert_sums(sums, want, rows, z, "float64")


# Calls of the CUDA runtime that do not wait.
QUEUED = {"launch", "copy to device", "cudaEventRecord", "cudaStreamWaitEvent"}


def test_every_value_of_the_points_is_written_before_a_step_reads_it(emu):
    """The constructor also writes the lanes past the last row, because a step reads whole tiles and discards the
    results of these lanes."""
    for features in (3, 10, 70):
        for rows in (1, 40, 600):
            before = emu.module.untouched()
            points = points_of(emu, cases.rows(rows, features, "float32"), weights_of(rows, "float32"), "float32")
            assert emu.module.untouched() == before
            del points


def test_pinned_memory_is_not_used_again_before_it_was_copied(emu):
    step = a_step(30)
    points = points_of(emu, cases.rows(40, 30, "float32"), None, "float32")
    points.step(*step[:4])
    for busy, pieces in ((True, 3), (False, 0)):
        emu.module.set_busy(busy)
        before = len(emu.module.pinned())
        for _ in range(3):
            points.step(*step[:4])
        assert len(emu.module.pinned()) == before + pieces


def test_only_uploads_beyond_the_pinned_memory_wait(emu):
    """The emulation has a mebibyte of pinned memory, which 16 steps of 64 KiB fill."""
    step = a_step(100)
    points = points_of(emu, cases.rows(40, 100, "float32"), None, "float32")
    points.step(*step[:4])
    emu.module.set_busy(True)
    waited = []
    for _ in range(40):
        emu.module.log()
        points.step(*step[:4])
        calls = {call for call, _ in emu.module.log()}
        waited.append("cudaEventSynchronize" in calls)
        assert calls - {"cudaEventSynchronize"} == QUEUED
        assert sum(emu.module.pinned()) <= 1 << 20
    assert 1 <= sum(waited) <= 8


def test_only_steps_with_sums_wait(emu):
    module, step = emu.module, a_step(3)
    points = points_of(emu, cases.rows(40, 3, "float32"), weights_of(40, "float32"), "float32")
    points.step(*step)  # the first step allocates memory
    module.log()
    points.step(*step[:4])
    assert {call for call, _ in module.log()} == QUEUED
    points.step(*step)
    *calls, wait = [call for call, _ in module.log()]
    assert set(calls) == {*QUEUED, "copy to host"}
    assert wait == "cudaStreamSynchronize"


def test_everything_is_queued_on_the_stream_that_was_given(emu):
    emu.stream = 64
    try:
        emu.module.log()
        points = points_of(emu, cases.rows(40, 3, "float32"), weights_of(40, "float32"), "float32")
        points.step(*a_step(3))
        points.values()
        points.squares()
        points.log_jacobian()
        # Only allocations of lasting memory are on the default stream.
        assert {stream for call, stream in emu.module.log() if call in ("launch", "copy", "cudaMemsetAsync")} == {64}
    finally:
        emu.stream = 0


@pytest.mark.parametrize("block", [None, 32])
def test_an_allocation_that_fails_leaves_the_points_unchanged(emu, block):
    x, step = cases.rows(40, 70, "float32"), a_step(70, block=block)
    for missing in (1, 2, 3, 4):
        points = points_of(emu, x, None, "float32")
        emu.module.fail_allocation(missing)
        with pytest.raises(MemoryError, match="device memory"):
            points.step(*step)
        cases.assert_same_bits(points.values(), x)
        points.step(*step)
        judge = points_of(emu, x, None, "float32")
        judge.step(*step)
        cases.assert_same_bits(points.values(), judge.values())
        cases.assert_same_bits(points.log_jacobian(), judge.log_jacobian())
    del points, judge
    assert emu.module.allocated() == 0
