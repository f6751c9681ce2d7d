"""The ascent by kinks whose points stay on the device; `tests/ascent/test_compiled_ascent.py` compares it with
NumPy."""

import numpy as np
import pytest

import cases
from ascent_cases import DeviceAscent, far_from_normal, plan_of
from points_cases import points_of, weights_of


def test_the_same_bits_in_any_order_of_threads(device, dtype):
    x, plan = far_from_normal(600, 10, dtype), plan_of(10, 3, 2, 10, 50)

    def run():
        return DeviceAscent(device, x, weights_of(600, dtype), x[:70], x[:50], 3).run(plan)

    first, *others = device.in_each_order(run, every=True)
    for other in others:
        for got, want in zip(other, first, strict=True):
            cases.assert_same_bits(got, want)


def test_points_stay_where_sums_are_not_finite(device, dtype):
    x = far_from_normal(60, 3, dtype)
    x[7, 1] = np.nan
    plan = [(turn, [-1] * 3, drawn) for turn, _, drawn in plan_of(3, 2, 1, 3, 5)]
    kinks, likelihoods, values = DeviceAscent(device, x, None, None, x[:5], 2).run(plan)
    np.testing.assert_array_equal(kinks[:, :, :3], np.broadcast_to([1.0, 0.0, 0.0], (2, 3, 3)))
    assert np.isnan(likelihoods[:, 0]).all()
    assert np.isfinite(np.delete(values, 7, axis=0)).all()


def test_wrong_arguments_are_refused(device):
    x = far_from_normal(60, 3, "float32")
    ascent = DeviceAscent(device, x, None, None, x[:5], 2)
    module, stream = device.module, device.stream
    points, other = ascent.points.points, points_of(device, x[:, :2], None, "float64").points
    anchors = ascent.anchors.points
    for arguments, message in (
        ((points, other, None, 60.0, 1.0, 1.0, 0.1, "newton", 2, stream), "expected the features of the points"),
        ((points, anchors, None, 60.0, 1.0, 1.0, 0.1, "newton", -1, stream), "most: expected"),
        ((points, anchors, None, 60.0, 1.0, 1.0, 0.1, "new", 2, stream), "rule: expected newton or gradient"),
        ((points, None, None, 60.0, 1.0, 1.0, 0.1, "newton", 2, stream), "anchors: expected points"),
    ):
        with pytest.raises(ValueError, match=message):
            module.AscentF32(*arguments)
    empty = points_of(device, x[:0], None, "float32").points
    with pytest.raises(ValueError, match="expected rows"):
        module.AscentF32(empty, anchors, None, 1.0, 1.0, 1.0, 0.1, "newton", 2, stream)


def test_points_of_two_devices_are_refused(emu):
    emu.module.set_devices(2)
    x = emu.array(np.zeros((4, 2), "f4"))
    first, second = (emu.module.PointsF32(emu.tuple(x), None, device, emu.stream) for device in (0, 1))
    anchors = emu.module.PointsF64(emu.tuple(x), None, 1, emu.stream)
    for parties in ((first, anchors, None), (second, anchors, first)):
        with pytest.raises(ValueError, match="expected the device of the points"):
            emu.module.AscentF32(*parties, 4.0, 1.0, 1.0, 0.1, "newton", 2, emu.stream)
    emu.module.AscentF32(second, anchors, second, 4.0, 1.0, 1.0, 0.1, "newton", 2, emu.stream)


# --- cases that only the emulation detects ----------------------------------------------------------------------------


@pytest.mark.parametrize("features", [3, 100])
def test_no_step_waits(emu, features):
    """Uploads do not wait, whatever their size: with 100 features the values of a turn are 80 KB."""
    x, plan = far_from_normal(300, features, "float32"), plan_of(features, 3, 1, features, 50)
    ascent = DeviceAscent(emu, x, None, x[:40], x[:50], 3)
    ascent.kink(*plan[0])  # the first kink allocates memory
    emu.module.log()
    for kink in plan[1:]:
        ascent.kink(*kink)
    ascent.ascent.finish(emu.stream)
    assert {call for call, _ in emu.module.log()} == {
        *("launch", "copy to device", "cudaEventRecord", "cudaStreamWaitEvent")
    }
