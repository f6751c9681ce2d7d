"""The compiled ascent by kinks against the formulas in NumPy: its choices, log-likelihoods and terms of eq. 23."""

import numpy as np
import pytest

import cases
import headrace as hr
from ascent_cases import FINE, HostAscent, ascent_on, far_from_normal, judged, plan_of
from cores import every_core
from headrace._core import cpu
from points_cases import weights_of

SHAPES = [  # features, sizes of blocks, kinks a turn, weights, rule, precision
    *[(1, 1, 1, False, "newton", 1.0), (2, 2, 2, True, "newton", 1.0), (5, 5, 1, False, "gradient", 1.0)],
    *[(10, 10, 4, True, "newton", 2.5), (33, 8, 1, False, "newton", 1.0)],
]
ON_DEVICE = [
    *[(70, 32, 2, False, "newton", 1.0), (70, 70, 1, True, "gradient", 0.5)],
    (64, 64, 1, False, "newton", 1.0),  # tiles have the largest width
]


@every_core(
    product=("cpu", "emu", "gpu"),
    features__size__each__weighted__rule__precision={
        "cpu": [*SHAPES, (70, 32, 2, True, "gradient", 0.5)],
        "device": [*SHAPES, *ON_DEVICE],
    },
    dtype=cases.DTYPES,
)
def test_an_ascent_is_that_of_the_formulas(core, features, size, each, weighted, rule, precision, dtype):
    """A compiled ascent agrees with the formulas for rows that fill several tiles and a part of one tile."""
    check(core, features, size, each, weighted, rule, precision, dtype)


@every_core(product=("cpu", "emu", "gpu"), dtype=cases.DTYPES)
def test_an_ascent_of_more_features_than_a_block_has_threads(core, dtype):
    """Wide rows have a separate test, so that a few cases of each test include both dtypes."""
    check(core, 130, 8, 1, False, "newton", 1.0, dtype)


def check(core, features, size, each, weighted, rule, precision, dtype):
    rows = core.choose(cpu=1300, device=300)
    x, held_out = far_from_normal(rows, features, dtype), far_from_normal(150, features, dtype, "held out")
    anchors, weights = x[:100], weights_of(rows, dtype) if weighted else None
    count = core.choose(cpu=8, device=8 if features < 33 else 4)
    plan = plan_of(features, count, each, size, len(anchors))
    want = judged(x, weights, held_out, anchors, plan, precision, 50.0, rule)
    ascent = ascent_on(core, x, weights, held_out, anchors, len(plan), precision, 50.0, rule)
    kinks, likelihoods, values = ascent.run(plan)
    assert kinks.shape == (count, features, 5)
    assert likelihoods.shape == (count + 1, 2)
    close = {"rtol": FINE[dtype], "atol": FINE[dtype]}
    # Newton's step is ill-conditioned where a kink is wide: one of a and c may grow as the other becomes smaller.
    loose = {"float32": 5e-3, "float64": 1e-6}[dtype]
    np.testing.assert_allclose(kinks, want.kinks(), rtol=loose, atol=loose)
    np.testing.assert_allclose(likelihoods, want.log_likelihoods(), **close)
    np.testing.assert_allclose(values, want.points.values(), **close)
    assert likelihoods[-1, 0] > likelihoods[0, 0] + 0.01
    if rule == "newton":
        assert (np.diff(likelihoods[:, 0]) >= -1e-6).all()
    if core.name == "cpu":
        found = ascent.ascent.log_likelihoods()
        np.testing.assert_allclose(found[:, 2:], want.log_likelihoods(), **close)  # all of so few rows are checked
        np.testing.assert_allclose(ascent.ascent.terms(), want.terms(), **close)


@every_core(product=("cpu", "emu", "gpu"), dtype=cases.DTYPES)
def test_without_held_out_points_their_log_likelihood_is_nan(core, dtype):
    x, plan = far_from_normal(300, 3, dtype), plan_of(3, 3, 1, 3, 50)
    _, with_others, _ = ascent_on(core, x, None, x[:40], x[:50], 3).run(plan)
    _, without, _ = ascent_on(core, x, None, None, x[:50], 3).run(plan)
    cases.assert_same_bits(without[:, 0], with_others[:, 0])
    assert np.isnan(without[:, 1]).all()


@every_core(product=("cpu", "emu", "gpu"), dtype=cases.DTYPES)
def test_an_ascent_can_be_read_before_it_ends(core, dtype):
    x, plan = far_from_normal(300, 3, dtype), plan_of(3, 4, 1, 3, 50)
    kinks, likelihoods, _ = ascent_on(core, x, None, None, x[:50], 4).run(plan)
    read = ascent_on(core, x, None, None, x[:50], 9)
    assert read.found()[0].shape == (0, 3, 5)
    for k, kink in enumerate(plan, start=1):
        read.kink(*kink)
        for found, whole in zip(read.found(), (kinks, likelihoods), strict=True):
            cases.assert_same_bits(found, whole[:k])


@every_core(product=("cpu", "emu", "gpu"))
def test_at_the_optimum_no_row_moves(core):
    """If all rows are 0, no kink gains more than rounding would undo, and values stay finite."""
    x = np.zeros((64, 2), "f8")
    kinks, likelihoods, values = ascent_on(core, x, None, None, x[:5], 3).run(plan_of(2, 3, 1, 2, 5))
    for found in (kinks, likelihoods[:, 0], values):
        assert np.isfinite(found).all()
    assert (np.diff(likelihoods[:, 0]) >= 0).all()


@every_core(product=("cpu", "emu", "gpu"))
def test_wrong_arguments_of_a_kink_are_refused(core):
    x = far_from_normal(60, 3, "float32")
    found = ascent_on(core, x, None, None, x[:5], 2)
    ascent, where = found.ascent, core.choose(cpu=(), device=(getattr(found, "stream", None),))
    right = (np.eye(3), [3], [0, 1, 2], [0, -1, 4], [0.0] * 3, *where)
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
            ascent.kink(*right[:place], wrong, *right[place + 1 :])
    ascent.kink(*right)
    ascent.kink(*right)
    with pytest.raises(ValueError, match="kink: expected no more"):
        ascent.kink(*right)
    ascent.finish(*where)
    with pytest.raises(ValueError, match="finish: expected once"):
        ascent.finish(*where)


# ---- the CPU alone ---------------------------------------------------------------------------------------------------


def test_checked_rows_are_some_of_many(dtype):
    """The log-likelihood of the checked rows is that of an ascent of these rows alone by the same kinks."""
    x = far_from_normal(60_000, 2, dtype)
    plan = plan_of(2, 3, 1, 2, 50)
    host = HostAscent(x, None, None, x[:50], len(plan))
    host.run(plan)
    ascent, rows = host.ascent, host.points.checked_rows()
    assert 0.1 * len(x) < len(rows) < 0.8 * len(x)
    assert rows.min() < 5000
    assert rows.max() > 50_000
    log_jacobian, z = np.zeros(len(rows)), x[rows].astype(float)
    for (turn, _, _), kinks in zip(plan, ascent.kinks(), strict=True):
        a, b, c, center, square = kinks.T
        z = z @ turn.blocks[0].T
        r = np.sqrt(square + (z - center) ** 2)
        log_jacobian += np.log(a + c * (z - center) / r).sum(axis=1)
        z = a * z + b + c * r
    want = (log_jacobian - 0.5 * np.square(z).sum(axis=1)).mean()
    assert ascent.log_likelihoods()[-1, 2] == pytest.approx(want, abs=FINE[dtype])
    assert np.isnan(ascent.log_likelihoods()[:, [1, 3]]).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_the_same_bits_for_any_number_of_threads(weighted, dtype):
    x = far_from_normal(20_000, 5, dtype)
    weights = cases.rng("weights").uniform(0.0, 2.0, 20_000).astype(dtype) if weighted else None
    threads, results = hr.get_num_threads(), []
    try:
        for n in (1, 2, 5):
            hr.set_num_threads(n)
            host = HostAscent(x, weights, x[:9000], x[:50], 3)
            kinks, _, values = host.run(plan_of(5, 3, 1, 5, 50))
            results.append((kinks, host.ascent.log_likelihoods(), host.ascent.terms(), values))
    finally:
        hr.set_num_threads(threads)
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            cases.assert_same_bits(got, want)


def _summed(parts):
    """Add up the parts of a group that has one process."""
    return parts.sum(axis=0)


def test_wrong_arguments_of_an_ascent_on_the_cpu_are_refused():
    x = far_from_normal(60, 3, "float64")
    points, anchors = cpu.PointsF64(x, None, False), cpu.PointsF64(x[:5], None)
    last = 1.0, 0.1, "newton", 2, [True], [], _summed
    two, empty = cpu.PointsF64(x[:, :2], None, False), cpu.PointsF64(x[:0], None, False)
    for arguments, message in (
        (([points], two, [], *last), "expected the features of the anchors"),
        (([points], anchors, [], 1.0, 0.1, "newton", -1, [True], [], _summed), "most: expected"),
        (([points], anchors, [], 1.0, 0.1, "new", 2, [True], [], _summed), "rule: expected newton or gradient"),
        (([points], None, [], *last), "anchors: expected points"),
        (([None], anchors, [], *last), "points, held_out: expected points"),
        (([points] * 2, anchors, [], *last), "checked: expected one for each part"),
        (([points], empty, [], *last), "anchors: expected rows"),
        (([empty], anchors, [], *last), "points: expected rows"),
        (([cpu.PointsF64(x, None)], anchors, [], *last), "keep no log-Jacobian"),
        (([cpu.PointsF64(x, np.zeros(60), False)], anchors, [], *last), "sum is above 0"),
        (([points], anchors, [], *last[:-1], lambda parts: parts[0, :1]), "sum: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            cpu.AscentF64(*arguments)
    with pytest.raises(ValueError, match="log_jacobian: expected points that keep it"):
        points.log_jacobian()
