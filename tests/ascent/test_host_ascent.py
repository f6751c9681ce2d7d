"""The compiled ascent by kinks: its choices, log-likelihoods and terms of eq. 23, against the formulas in NumPy."""

import numpy as np
import pytest

import ascent_judge
import cases
import headrace as hr
from ascent_cases import FINE, far_from_normal, places_of, plan_of
from headrace._core import cpu

POINTS = {"float32": cpu.PointsF32, "float64": cpu.PointsF64}
ASCENTS = {"float32": cpu.AscentF32, "float64": cpu.AscentF64}


def summed(parts):
    """Of one process."""
    return parts.sum(axis=0)


def ascended(x, weights, held_out, anchors, plan, precision=1.0, neighbours=50.0, rule="newton", finish=True):
    """The ascent after all kinks of a plan, and its points."""
    dtype = x.dtype.name
    points = POINTS[dtype](x, weights, False)
    others = [] if held_out is None else [POINTS[dtype](held_out, None, False)]
    share = neighbours / (2.0 * len(x))
    parts = [points], cpu.PointsF64(anchors.astype(float), None), others
    ascent = ASCENTS[dtype](*parts, precision, share, rule, len(plan), [True], [True] * len(others), summed)
    for turn, rows, drawn in plan:
        ascent.kink(np.concatenate([np.ravel(b) for b in turn.blocks]), *places_of(turn), list(rows), list(drawn))
    if finish:
        ascent.finish()
    return ascent, points


@pytest.mark.parametrize(
    ("features", "size", "each", "weighted", "rule", "precision"),
    [
        (1, 1, 1, False, "newton", 1.0),
        (2, 2, 2, True, "newton", 1.0),
        (5, 5, 1, False, "gradient", 1.0),
        (10, 10, 4, True, "newton", 2.5),
        (33, 8, 1, False, "newton", 1.0),
        (70, 32, 2, True, "gradient", 0.5),
    ],
)
def test_an_ascent_is_that_of_the_formulas(features, size, each, weighted, rule, precision, dtype):
    """Rows fill some tiles and part of one; numbers are bounded as on a device (`test_cuda_ascent.FINE`)."""
    x, held_out = far_from_normal(1300, features, dtype), far_from_normal(150, features, dtype, "held out")
    anchors = x[:100]
    weights = cases.rng("weights").uniform(0.0, 2.0, 1300).astype(dtype) if weighted else None
    plan = plan_of(features, 8, each, size, len(anchors))
    total = 1300.0 if weights is None else float(weights.sum(dtype=float))
    judge = ascent_judge.Ascent(
        ascent_judge.Points(x, weights, dtype),
        ascent_judge.Points(anchors.astype(float), None, "float64"),
        ascent_judge.Points(held_out, None, dtype),
        *(total, 150.0, precision, 50.0 / 2600.0, rule, len(plan)),
    )
    for turn, rows, drawn in plan:
        judge.kink(np.concatenate([np.ravel(b) for b in turn.blocks]), *places_of(turn), rows, drawn)
    judge.finish()
    ascent, points = ascended(x, weights, held_out, anchors, plan, precision, 50.0, rule)
    close = {"rtol": FINE[dtype], "atol": FINE[dtype]}
    # Newton's step is ill-conditioned where a kink is wide: a and c may give way to each other.
    loose = {"float32": 5e-3, "float64": 1e-6}[dtype]
    np.testing.assert_allclose(ascent.kinks(), judge.kinks(), rtol=loose, atol=loose)
    found = ascent.log_likelihoods()
    assert found.shape == (9, 4)
    np.testing.assert_allclose(found[:, :2], judge.log_likelihoods(), **close)
    np.testing.assert_allclose(found[:, 2:], judge.log_likelihoods(), **close)  # so few rows are all checked
    np.testing.assert_allclose(ascent.terms(), judge.terms(), **close)
    np.testing.assert_allclose(points.values(), judge.points.values(), **close)


def test_checked_rows_are_some_of_many(dtype):
    """Their log-likelihood is that of an ascent by the same kinks of these rows alone."""
    x = far_from_normal(60_000, 2, dtype)
    plan = plan_of(2, 3, 1, 2, 50)
    ascent, points = ascended(x, None, None, x[:50], plan)
    rows = points.checked_rows()
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
            ascent, points = ascended(x, weights, x[:9000], x[:50], plan_of(5, 3, 1, 5, 50))
            results.append((ascent.kinks(), ascent.log_likelihoods(), ascent.terms(), points.values()))
    finally:
        hr.set_num_threads(threads)
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            cases.assert_same_bits(got, want)


def test_wrong_arguments_are_refused():
    x = far_from_normal(60, 3, "float64")
    points, anchors = cpu.PointsF64(x, None, False), cpu.PointsF64(x[:5], None)
    last = 1.0, 0.1, "newton", 2, [True], [], summed
    ascent = cpu.AscentF64([points], anchors, [], *last)
    right = (np.eye(3), [3], [0, 1, 2], [0, -1, 4], [0.0] * 3)
    for place, wrong, message in (
        (0, np.eye(2), "matrix: expected"),
        (1, [1, 2], "matrix: expected"),
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
    ascent.finish()
    with pytest.raises(ValueError, match="finish: expected once"):
        ascent.finish()
    two, empty = cpu.PointsF64(x[:, :2], None, False), cpu.PointsF64(x[:0], None, False)
    for arguments, message in (
        (([points], two, [], *last), "expected the features of the anchors"),
        (([points], anchors, [], 1.0, 0.1, "newton", -1, [True], [], summed), "most: expected"),
        (([points], anchors, [], 1.0, 0.1, "new", 2, [True], [], summed), "rule: expected newton or gradient"),
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
