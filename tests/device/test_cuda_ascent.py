"""An ascent by kinks that stays on the device, against the same loop in NumPy."""

import numpy as np
import pytest

import ascent_judge
import cases
from ascent_cases import FINE, far_from_normal, places_of, plan_of
from points_cases import points_of, weights_of


def judge(x, weights, held_out, anchors, plan, precision, neighbours, rule, dtype):
    """Kinks (count, n, 5), log-likelihoods (count + 1, 2) without constants, and where the points end."""
    points, others = ascent_judge.Points(x, weights, dtype), ascent_judge.Points(held_out, None, dtype)
    total = float(len(x)) if weights is None else float(weights.sum(dtype=float))
    ascent = ascent_judge.Ascent(
        *(points, ascent_judge.Points(anchors, None, "float64"), others, total, float(len(held_out))),
        *(precision, neighbours / (2.0 * len(x)), rule, len(plan)),
    )
    for turn, rows, drawn in plan:
        ascent.kink(np.concatenate([np.ravel(b) for b in turn.blocks]), *places_of(turn), rows, drawn)
    ascent.finish()
    return ascent.kinks(), ascent.log_likelihoods(), points.values()


class Ascent:
    """An ascent on a device with the arguments of `judge`."""

    def __init__(self, device, x, weights, held_out, anchors, most, precision=1.0, neighbours=50.0, rule="newton"):
        dtype = x.dtype.name
        self.device = device
        self.points = points_of(device, x, weights, dtype)
        self.anchors = points_of(device, anchors, None, "float64")
        self.held_out = None if held_out is None else points_of(device, held_out, None, dtype)
        kind = {"float32": device.module.AscentF32, "float64": device.module.AscentF64}[dtype]
        total = float(len(x)) if weights is None else float(weights.sum(dtype=float))
        others, n_others = (None, 1.0) if held_out is None else (self.held_out.points, float(len(held_out)))
        self.ascent = kind(
            *(self.points.points, self.anchors.points, others, total, n_others, precision),
            *(neighbours / (2.0 * len(x)), rule, most, device.stream),
        )

    def kink(self, turn, rows, drawn):
        numbers = np.concatenate([np.ravel(b) for b in turn.blocks])
        self.ascent.kink(numbers, *places_of(turn), rows, drawn, self.device.stream)

    def run(self, plan):
        for kink in plan:
            self.kink(*kink)
        self.ascent.finish(self.device.stream)
        stream = self.device.stream
        return self.ascent.kinks(stream), self.ascent.log_likelihoods(stream), self.points.values()


@pytest.mark.long
@pytest.mark.parametrize(
    ("features", "size", "each", "weighted", "rule", "precision"),
    [
        (1, 1, 1, False, "newton", 1.0),
        (2, 2, 2, True, "newton", 1.0),
        (5, 5, 1, False, "gradient", 1.0),
        (10, 10, 4, True, "newton", 2.5),
        (33, 8, 1, False, "newton", 1.0),
        (70, 32, 2, False, "newton", 1.0),
        (70, 70, 1, True, "gradient", 0.5),
        (64, 64, 1, False, "newton", 1.0),  # the widest tiles
    ],
)
def test_an_ascent_is_that_of_the_formulas(device, features, size, each, weighted, rule, precision, dtype):
    check(device, features, size, each, weighted, rule, precision, dtype)


@pytest.mark.long
def test_an_ascent_of_more_features_than_a_block_has_threads(device, dtype):
    check(device, 130, 8, 1, False, "newton", 1.0, dtype)


def check(device, features, size, each, weighted, rule, precision, dtype):
    """Compares an ascent with that of the formulas."""
    x, held_out = far_from_normal(300, features, dtype), far_from_normal(150, features, dtype, "held out")
    anchors, weights = x[:100].astype(float), weights_of(300, dtype) if weighted else None
    count = 8 if features < 33 else 4
    plan = plan_of(features, count, each, size, len(anchors))
    want = judge(x, weights, held_out, anchors, plan, precision, 50.0, rule, dtype)
    ascent = Ascent(device, x, weights, held_out, anchors, len(plan), precision, 50.0, rule)
    kinks, likelihoods, values = ascent.run(plan)
    assert kinks.shape == (count, features, 5)
    assert likelihoods.shape == (count + 1, 2)
    # Newton's step is ill-conditioned where a kink is wide: a and c may give way to each other.
    loose = {"float32": 5e-3, "float64": 1e-6}[dtype]
    np.testing.assert_allclose(kinks, want[0], rtol=loose, atol=loose)
    np.testing.assert_allclose(likelihoods, want[1], rtol=FINE[dtype], atol=FINE[dtype])
    np.testing.assert_allclose(values, want[2], rtol=FINE[dtype], atol=FINE[dtype])
    assert likelihoods[-1, 0] > likelihoods[0, 0] + 0.01
    if rule == "newton":
        assert (np.diff(likelihoods[:, 0]) >= -1e-6).all()


def test_without_held_out_points_their_log_likelihood_is_nan(device, dtype):
    x = far_from_normal(300, 3, dtype)
    plan = plan_of(3, 3, 1, 3, 50)
    _, with_others, _ = Ascent(device, x, None, x[:40], x[:50].astype(float), 3).run(plan)
    _, without, _ = Ascent(device, x, None, None, x[:50].astype(float), 3).run(plan)
    cases.assert_same_bits(without[:, 0], with_others[:, 0])
    assert np.isnan(without[:, 1]).all()


def test_an_ascent_can_be_read_before_it_ends(device, dtype):
    x = far_from_normal(300, 3, dtype)
    plan = plan_of(3, 4, 1, 3, 50)
    kinks, likelihoods, _ = Ascent(device, x, None, None, x[:50].astype(float), 4).run(plan)
    read = Ascent(device, x, None, None, x[:50].astype(float), 9)
    assert read.ascent.kinks(device.stream).shape == (0, 3, 5)
    for k, kink in enumerate(plan, start=1):
        read.kink(*kink)
        cases.assert_same_bits(read.ascent.kinks(device.stream), kinks[:k])
        cases.assert_same_bits(read.ascent.log_likelihoods(device.stream), likelihoods[:k])


def test_the_same_bits_in_any_order_of_threads(device, dtype):
    x, plan = far_from_normal(600, 10, dtype), plan_of(10, 3, 2, 10, 50)

    def run():
        return Ascent(device, x, weights_of(600, dtype), x[:70], x[:50].astype(float), 3).run(plan)

    first, *others = device.in_each_order(run, every=True)
    for other in others:
        for got, want in zip(other, first, strict=True):
            cases.assert_same_bits(got, want)


def test_at_the_optimum_nothing_moves(device):
    """All rows at 0 leave nothing to gain along the kink's slope that rounding would not undo; numbers stay finite."""
    x = np.zeros((64, 2), "f8")
    kinks, likelihoods, values = Ascent(device, x, None, None, x[:5], 3).run(plan_of(2, 3, 1, 2, 5))
    for found in (kinks, likelihoods[:, 0], values):
        assert np.isfinite(found).all()
    assert (np.diff(likelihoods[:, 0]) >= 0).all()


def test_sums_that_are_not_finite_move_nothing(device, dtype):
    x = far_from_normal(60, 3, dtype)
    x[7, 1] = np.nan
    plan = [(turn, [-1] * 3, drawn) for turn, _, drawn in plan_of(3, 2, 1, 3, 5)]
    kinks, likelihoods, values = Ascent(device, x, None, None, x[:5].astype(float), 2).run(plan)
    np.testing.assert_array_equal(kinks[:, :, :3], np.broadcast_to([1.0, 0.0, 0.0], (2, 3, 3)))
    assert np.isnan(likelihoods[:, 0]).all()
    assert np.isfinite(np.delete(values, 7, axis=0)).all()


def test_wrong_arguments_are_refused(device):
    x = far_from_normal(60, 3, "float32")
    ascent = Ascent(device, x, None, None, x[:5].astype(float), 2)
    turn, rows, drawn = np.eye(3), [0, -1, 4], [0.0] * 3
    right = (turn, [3], [0, 1, 2], rows, drawn, device.stream)
    for place, wrong, message in (
        (0, np.eye(2), "matrix: expected"),
        (1, [1, 2], "matrix: expected"),
        (1, [], "matrix: expected"),
        (2, [0, 1], "order: expected"),
        (2, [0, 1, 1], "order: expected"),
        (3, [0, 1], "rows, drawn: expected"),
        (3, [0, 1, 5], "rows: expected rows of the anchors"),
        (4, [0.0] * 4, "rows, drawn: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            ascent.ascent.kink(*right[:place], wrong, *right[place + 1 :])
    ascent.ascent.kink(*right)
    ascent.ascent.kink(*right)
    with pytest.raises(ValueError, match="kink: expected no more"):
        ascent.ascent.kink(*right)
    ascent.ascent.finish(device.stream)
    with pytest.raises(ValueError, match="finish: expected once"):
        ascent.ascent.finish(device.stream)
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


# --- what only the emulation can show ---------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [3, 100])
def test_no_step_waits(emu, features):
    """Whatever there is to upload: with 100 features the numbers of a turn are 80 KB."""
    x, plan = far_from_normal(300, features, "float32"), plan_of(features, 3, 1, features, 50)
    ascent = Ascent(emu, x, None, x[:40], x[:50].astype(float), 3)
    ascent.kink(*plan[0])  # takes the memory that it needs
    emu.module.log()
    for kink in plan[1:]:
        ascent.kink(*kink)
    ascent.ascent.finish(emu.stream)
    assert {call for call, _ in emu.module.log()} == {
        *("launch", "copy to device", "cudaEventRecord", "cudaStreamWaitEvent")
    }
