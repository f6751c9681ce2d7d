"""The compiled step of dual ascent: map, log-Jacobian, affine map and the sums for the next map, in one pass."""

import numpy as np
import pytest

import cases
import headrace as hr
from cores import every_core
from headrace._core import cpu
from headrace.ops._points import Points
from points_cases import a_step, assert_sums, points_on, reference, weights_of

COMPILED = {"float32": cpu.PointsF32, "float64": cpu.PointsF64}
# On the CPU tiles have 512 rows up to 4 features, 192 up to 16, and 96 beyond; sums are kept in lanes for 4608 rows.
ON_CPU = [(0, 3), (1, 1), (7, 2), (513, 4), (193, 5), (4608, 10), (4609, 16), (9973, 7), (97, 17), (300, 50)]
# On a device tiles have 512, 256 or 128 rows (half in float64) up to 10, 16 and more features; sums belong to chunks of
# tiles. From 64 features on, an affine map has several tiles of columns.
ON_DEVICE = [
    *[(0, 3), (1, 1), (31, 2), (33, 3), (513, 4), (257, 8), (1100, 10), (257, 11), (300, 16), (129, 17), (65, 33)],
    *[(257, 50), (31, 57), (33, 64), (130, 65), (131, 130)],
]


@every_core(
    product=("cpu",),
    rows__features={"cpu": ON_CPU, "device": ON_DEVICE},
    weighted=[False, True],
    block={"cpu": [None, 1, 3, 32], "device": [None, 3, 32]},
    dtype=cases.DTYPES,
    together=("weighted", "block", "dtype"),
)
def test_a_step_matches_the_formulas(core, rows, features, weighted, block, dtype):
    x = cases.rows(rows, features, dtype)
    weights = weights_of(rows, dtype) if weighted else None
    points, step = points_on(core, x, weights, dtype), a_step(features, block=block)
    sums = points.step(*step)
    z, log_jacobian, want = reference(x, weights, *step)
    cases.assert_close(points.values(), z, magnitude=4.0)
    assert np.abs(points.log_jacobian() - log_jacobian).max(initial=0.0) <= features * cases.tolerance(dtype)
    squares = np.square(points.values().astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(points.squares(), squares, rtol=1e-13)
    assert_sums(sums, want, rows, z, dtype)


@pytest.mark.parametrize("features", [12, 13, 300])
@pytest.mark.parametrize("bend", [-0.999, 0.999])
def test_logarithms_of_products_that_overflow(bend, features, dtype):
    """Slopes are from 0.001 to 2: the product of 300 slopes is 1e-900 or 1e90, neither of which is a float32."""
    x = cases.rng("far", features).uniform(300.0, 400.0, (70, features)).astype(dtype)
    maps = np.tile([bend, 0.0, 1e-4], (features, 1))
    points = Points(x, None, dtype)
    points.step(maps, 0.25, [np.eye(1)] * features, np.zeros(features))
    # The sum 1 + bend q is rounded where it is 0.001, with a relative error of eps / 0.001.
    want = reference(x, None, maps, 0.25, [np.eye(features)], np.zeros(features), maps[:, 1:])[1]
    assert np.abs(want).max() > 0.6 * features
    assert np.abs(points.log_jacobian() - want).max() <= features * (1e3 if bend < 0 else 1.0) * cases.tolerance(
        dtype, 1
    )


@every_core(
    product=("cpu", "emu", "gpu"),
    features__block={"cpu": [(2, 3), (10, 3)], "device": [(2, None), (10, 3), (70, 32), (70, None)]},
    dtype=cases.DTYPES,
)
def test_steps_follow_each_other(core, features, block, dtype):
    rows = core.choose(cpu=1000, device=200)
    x = cases.rows(rows, features, dtype)
    points, z, total = points_on(core, x, None, dtype), x.astype(float), np.zeros(rows)
    for k in range(20):
        maps, log_scale, blocks, shift, next_map, order = a_step(features, k, block=block)
        blocks = [np.linalg.qr(one)[0] for one in blocks]
        assert points.step(maps, log_scale, blocks, shift, None, order) is None
        z, log_jacobian, _ = reference(z, None, maps, log_scale, blocks, shift, next_map, order)
        total += log_jacobian
    cases.assert_close(points.values(), z, depth=60)
    assert np.abs(points.log_jacobian() - total).max() <= cases.tolerance(dtype, 60) * np.abs(total).max()


@pytest.mark.parametrize("features", [2, 10, 30])
def test_any_strides_and_either_float_type_are_read(features, dtype):
    x = cases.rows(700, features, dtype)
    other = x.astype("float64" if dtype == "float32" else "float32")
    wide = np.zeros((700, 2 * features + 1), dtype)
    wide[:, 1::2] = x
    step = a_step(features)
    results = []
    for array in (x, np.asfortranarray(x), wide[:, 1::2], x[::-1][::-1]):
        points = Points(array, None, dtype)
        points.step(*step)
        results.append(points.values())
    for result in results[1:]:
        cases.assert_same_bits(result, results[0])
    points = Points(other, None, dtype)
    cases.assert_close(points.values(), other.astype(float), depth=1)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_same_bits_for_any_number_of_threads(weighted, dtype):
    x = cases.rows(20_000, 5, dtype)
    weights = cases.rng("weights").uniform(0.0, 2.0, 20_000).astype(dtype) if weighted else None
    threads = hr.get_num_threads()
    results = []
    try:
        for n in (1, 2, 5):
            hr.set_num_threads(n)
            points = Points(x, weights, dtype)
            sums = points.step(*a_step(5))
            results.append((points.values(), points.log_jacobian(), points.squares(), sums))
    finally:
        hr.set_num_threads(threads)
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            cases.assert_same_bits(got, want)


@every_core(product=("cpu", "emu", "gpu"), features={"cpu": [3], "device": [3, 66]}, dtype=cases.DTYPES)
def test_a_row_that_is_not_finite_spoils_only_itself_where_there_are_no_sums(core, features, dtype):
    x = cases.rows(300, features, dtype)
    bad = x.copy()
    bad[17, 1], bad[140, 2] = np.nan, np.inf
    clean, spoiled = points_on(core, x, None, dtype), points_on(core, bad, None, dtype)
    for points in (clean, spoiled):
        points.step(*a_step(features)[:4], None)
    good = ~np.isin(np.arange(300), (17, 140))
    cases.assert_same_bits(spoiled.values()[good], clean.values()[good])
    cases.assert_same_bits(spoiled.log_jacobian()[good], clean.log_jacobian()[good])
    assert np.isnan(spoiled.values()[17]).all()
    assert np.isnan(spoiled.log_jacobian()[[17, 140]]).all()


@every_core(product=("cpu", "emu", "gpu"))
def test_wrong_steps_are_refused(core):
    """The compiled class refuses wrong steps even without the checks in Python."""
    stream = core.choose(cpu=(), device=(getattr(getattr(core, "device", None), "stream", None),))
    points = core.choose(
        cpu=lambda: cpu.PointsF32(np.zeros((4, 2), "f4"), None),
        device=lambda: points_on(core, np.zeros((4, 2), "f4"), np.zeros(4, "f4"), "float32").points,
    )()
    maps, log_scale, (matrix,), shift, next_map, _ = a_step(2)
    right = (maps, log_scale, matrix, shift, next_map, [2], [1, 0], *stream)
    assert points.step(*right).shape == (2, 6)
    for place, wrong in (
        (0, maps[:1]),
        (0, maps[:, :2]),
        (2, matrix[:1]),
        (3, shift[:1]),
        (4, next_map[:1]),
        (5, [1, 1]),  # the matrix has too many elements
        (5, []),
        (5, [-1, 3]),
        (5, [0, 2]),
        (6, [0]),
        (6, [0, 0]),
        (6, [0, 2]),
        (6, [-1, 0]),
    ):
        with pytest.raises(ValueError, match="expected"):
            points.step(*right[:place], wrong, *right[place + 1 :])


def test_wrong_rows_are_refused():
    with pytest.raises(ValueError, match="x: expected"):
        cpu.PointsF32(np.zeros(4, "f4"), None)
    with pytest.raises(ValueError, match="weights: expected"):
        cpu.PointsF32(np.zeros((4, 2), "f4"), np.zeros(3, "f4"))
    with pytest.raises(ValueError, match="weights: expected"):
        cpu.PointsF32(np.zeros((4, 2), "f4"), np.zeros(4, "f8"))


def test_rows_beyond_memory_are_refused(dtype):
    endless = np.broadcast_to(np.float32(0.0), (2**61 - 1, 1))  # as float64 the size in bytes exceeds 64 bits
    with pytest.raises(MemoryError):
        COMPILED[dtype](endless, None)


# --- the functional form ----------------------------------------------------------------------------------------------


def test_the_functional_form_has_the_results_of_the_class(framework, dtype):
    """Results are arrays of the caller's framework, and log-determinants have the dtype of the rows."""
    x, (maps, log_scale, (matrix,), shift, next_map, _) = cases.rows(300, 4, dtype), a_step(4)
    weights = cases.rng("weights").uniform(0.0, 2.0, 300).astype(dtype)
    points = Points(x, weights, dtype)
    sums = points.step(maps, log_scale, [matrix], shift, next_map)
    wrapped = [framework.make(a) for a in (x, maps, matrix, shift, next_map, weights)]
    got = hr.ops.dual_ascent_step(*wrapped[:5], log_scale=log_scale, weights=wrapped[5])
    want = points.values(), points.log_jacobian().astype(dtype), sums
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(framework.open(result), expected)
    assert hr.ops.dual_ascent_step(*wrapped[:4])[2] is None


def test_the_functional_form_takes_blocks(framework, dtype):
    x = cases.rows(300, 7, dtype)
    maps, log_scale, blocks, shift, next_map, order = a_step(7, block=3)
    wrapped = [framework.make(a) for a in (x, maps, shift, next_map)]
    got = hr.ops.dual_ascent_step(
        *wrapped[:2], [framework.make(b) for b in blocks], *wrapped[2:], order=order, log_scale=log_scale
    )
    points = Points(x, None, dtype)
    sums = points.step(maps, log_scale, blocks, shift, next_map, order)
    want = points.values(), points.log_jacobian().astype(dtype), sums
    for result, expected in zip(got, want, strict=True):
        cases.assert_same_bits(framework.open(result), expected)


def test_the_functional_form_leaves_its_input_alone_and_takes_no_rows(dtype):
    x, step = cases.rows(10, 3, dtype), a_step(3)
    before = x.copy()
    maps, log_scale, (matrix,), shift, next_map, _ = step
    hr.ops.dual_ascent_step(x, maps, matrix, shift, next_map, log_scale=log_scale)
    cases.assert_same_bits(x, before)
    moved, log_det, sums = hr.ops.dual_ascent_step(x[:0], maps, matrix, shift, next_map)
    assert moved.shape == (0, 3)
    assert log_det.shape == (0,)
    assert (sums == 0).all()


@pytest.mark.parametrize(
    ("change", "patterns"),
    [
        ({"z": np.zeros(3)}, ["z", r"\(rows, n\)", r"\(3,\)"]),
        ({"z": np.zeros((4, 2), int)}, ["z", "float32 or float64", "int64"]),
        ({"maps": np.zeros((2, 2))}, ["maps", r"\(2, 3\)", r"\(2, 2\)"]),
        ({"maps": np.array([[1.0, 0.0, 1.0]] * 2)}, ["maps", "0.999", r"1\.0"]),
        ({"maps": np.array([[0.1, 0.0, 0.0]] * 2)}, ["maps", "above 0", r"0\.0"]),
        ({"maps": np.array([[0.1, np.nan, 1.0]] * 2)}, ["maps", "finite", "nan"]),
        ({"matrix": np.eye(3)}, ["matrix", r"\(2, 2\)", r"\(3, 3\)"]),
        ({"matrix": np.full((2, 2), np.inf)}, ["matrix", "finite", "inf"]),
        ({"matrix": [np.eye(1), np.full((1, 1), np.nan)]}, [r"matrix\[1\]", "finite", "nan"]),
        ({"matrix": [np.eye(1)] * 3}, ["matrix", "2 rows in all", "3"]),
        ({"matrix": []}, ["matrix", "2 rows in all", "0"]),
        ({"matrix": [np.ones((2, 1))]}, [r"matrix\[0\]", r"\(2, 2\)", r"\(2, 1\)"]),
        ({"matrix": [np.ones(2)]}, [r"matrix\[0\]", r"\(k, k\)", r"\(2,\)"]),
        ({"matrix": [[1.0], [1.0]]}, [r"matrix\[0\]"]),
        ({"order": [0, 0]}, ["order", "exactly once"]),
        ({"order": [0]}, ["order", "exactly once"]),
        ({"shift": np.zeros(3)}, ["shift", r"\(2,\)", r"\(3,\)"]),
        ({"next": np.zeros((2, 3))}, ["next", r"\(2, 2\)", r"\(2, 3\)"]),
        ({"next": np.zeros((2, 2))}, ["next", "above 0", r"0\.0"]),
        ({"weights": np.ones(3)}, ["weights", r"\(4,\)", r"\(3,\)"]),
        ({"weights": np.array([1.0, -1.0, 1.0, 1.0])}, ["weights", "at least 0", "-1"]),
        ({"log_scale": "one"}, ["log_scale", "number", "one"]),
        ({"log_scale": np.inf}, ["log_scale", "inf"]),
    ],
)
def test_the_functional_form_refuses_by_name(change, patterns):
    maps, _, (matrix,), shift, next_map, _ = a_step(2)
    given = {"z": np.zeros((4, 2)), "maps": maps, "matrix": matrix, "shift": shift, "next": next_map} | change
    with pytest.raises((TypeError, ValueError)) as error:
        hr.ops.dual_ascent_step(**given)
    cases.assert_says(error, *patterns)
