"""Tests whether a classifier can tell rows from draws.

A classifier is trained on one half of the pairs of a row and a draw, and then names the row in each pair of the other
half. Under the right density any classifier's answers are right with a probability of exactly one half. (In
cross-validation, answers would depend on each other, because classifiers of different folds err in the same direction.)

Source: D. Lopez-Paz, M. Oquab, *Revisiting classifier two-sample tests*, ICLR 2017.

A second test compares the distances of draws and of held-out rows to training rows, and detects a density that
memorises rows.
"""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats
from headrace.diagnosis import distributions as of
from headrace.diagnosis.findings import Finding
from headrace.diagnosis.judged_rows import Looked, stream

COMPARED, MOST_POINTS = 5000, 50_000
_TILE = 1 << 22  # the most distances that are computed at a time


def nearer(flow: Any, rows: Looked, seed: int) -> tuple[Finding, float]:
    """The test of memorised rows, and the share of pairs where the draw is nearer to a training row than the row is.

    Under the right density draws and held-out rows are independent of training rows, so that either is nearer with a
    probability of exactly one half. Distances are in standard deviations of the training rows, context included.
    """
    assert rows.training is not None
    rng = stream(seed, 7)
    index = rows.some(COMPARED, rng)
    context = rows.context_of(index)
    drawn = flow.sample(len(index), context, seed=rng, dtype="float64")
    points = joined(rows.training, rows.training_context)
    if len(points) > MOST_POINTS:
        points = points[rng.choice(len(points), MOST_POINTS, replace=False)]
    spread = points.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    centre = points.mean(axis=0)
    both = np.concatenate([joined(drawn, context), joined(rows.x[index], context)])
    of_draw, of_row = np.split(_distances((points - centre) / scale, (both - centre) / scale), 2)
    tied = of_draw == of_row
    near = int((of_draw < of_row).sum() + (rng.random(int(tied.sum())) < 0.5).sum())
    share = near / len(index)
    sentence = f"a draw is nearer to a training row than a row held out is in {share:.1%} of {len(index):,} pairs"
    return Finding("memorised rows", of.binomial_tail(near, len(index)), 1, sentence), share


def copies(rows: Looked) -> tuple[int, bool]:
    """The number of rows of x that equal training rows, and whether this number is too large for new rows.

    New rows equal training rows as often as training rows equal each other, for example in columns with few different
    values.
    """
    if rows.training is None:
        return 0, False
    kind = np.result_type(rows.x, rows.training)
    parts = ((rows.training, rows.training_context), (rows.x, rows.context))
    tables = (np.ascontiguousarray(_both(*part).astype(kind)) for part in parts)
    known, looked = (Counter(row.tobytes() for row in table) for table in tables)
    count_of = sum(count for row, count in looked.items() if row in known)
    by_chance = sum(count for count in known.values() if count > 1) / len(rows.training)
    return count_of, 2.0 * count_of / len(rows.x) > 1.0 + by_chance


def is_training(x: Any, context: Any, training: Any) -> bool:
    """Whether `training` has the same rows and contexts, in the same order, as x and `context`."""
    parts = training if isinstance(training, tuple) else (training,)
    return training is not None and all(map(_same, (x, context), (*parts, None)))


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None or a is b:
        return a is b
    mine, its = np.asarray(a), np.asarray(b)
    return mine.shape == its.shape and bool((mine == its).all())


def _both(x: NDArray[Any], context: NDArray[Any] | None) -> NDArray[Any]:
    return x if context is None else np.concatenate([x, context], axis=1)


def joined(x: NDArray[Any], context: NDArray[Any] | None) -> Floats:
    """Rows with their contexts as further columns, in float64."""
    return np.asarray(_both(x, context), np.float64)


def _distances(points: Floats, rows: Floats) -> Floats:
    """The distance of each row to the nearest point, by SciPy's tree if installed and for at most 16 columns."""
    if points.shape[1] <= 16 and find_spec("scipy") is not None:
        from scipy.spatial import cKDTree

        return np.asarray(cKDTree(points).query(rows)[0])
    squares = np.square(points).sum(axis=1)
    distances = np.empty(len(rows))
    step = max(_TILE // len(points), 1)
    for begin in range(0, len(rows), step):
        part = rows[begin : begin + step]
        nearest = (squares - 2.0 * (part @ points.T)).argmin(axis=1)  # distances follow without cancellation
        distances[begin : begin + step] = np.sqrt(np.square(part - points[nearest]).sum(axis=1))
    return distances


LEAST_ROWS, MOST_ROWS = 40, 10_000
_MOST_TERMS, _MOST_BENT = 600, 10  # the most terms of a logistic model, and the most features with cubic terms
_RIDGE, _STEPS = 1.0, 12


def two_samples(flow: Any, rows: Looked, seed: int) -> tuple[Finding, float, int]:
    """The test of a classifier, the share of pairs in which it recognises the row, and the number of pairs."""
    rng = stream(seed, 6)
    index = rng.permutation(rows.some(MOST_ROWS, rng))
    context = rows.context_of(index)
    drawn = flow.sample(len(index), context, seed=rng, dtype="float64")
    real, made = joined(rows.x[index], context), joined(drawn, context)
    half = len(index) // 2
    learnt = np.concatenate([real[:half], made[:half]])
    truth = np.repeat([1.0, 0.0], half)
    scale = learnt.mean(axis=0), np.maximum(learnt.std(axis=0), of.TINY)
    shown = np.concatenate([real[half:], made[half:]])
    odds = _logistic((learnt - scale[0]) / scale[1], truth, (shown - scale[0]) / scale[1])
    if find_spec("sklearn") is not None:
        odds = odds + _boosted(learnt, truth, shown, int(rng.integers(2**31)))
    of_row, of_draw = np.split(odds, 2)
    shown_pairs = len(index) - half
    tied = of_row == of_draw
    right = int((of_row > of_draw).sum() + (rng.random(int(tied.sum())) < 0.5).sum())
    share = right / shown_pairs
    sentence = f"shown a row and a draw, a classifier knows the row in {share:.1%} of {shown_pairs:,} pairs"
    return Finding("classifier", of.binomial_tail(right, shown_pairs), 1, sentence), share, shown_pairs


def _boosted(learnt: Floats, truth: Floats, shown: Floats, seed: int) -> Floats:
    """The log odds that each row of `shown` is not a draw, by gradient boosted trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # which scikit-learn needs

    model = HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=15, early_stopping=False, random_state=seed)
    # For some thousand rows, several threads are no faster, and wait for each other for minutes if other processes use
    # the cores.
    with threadpool_limits(1, user_api="openmp"):
        odds: Floats = model.fit(learnt, truth).decision_function(shown)
    return odds


def _logistic(learnt: Floats, truth: Floats, shown: Floats) -> Floats:
    """The log odds that each row of `shown` is not a draw, by a logistic model of `_terms` with a small ridge."""
    table, asked = _terms(learnt), _terms(shown)
    slopes = np.zeros(table.shape[1])
    ridge = np.full(slopes.size, _RIDGE)
    for _ in range(_STEPS):
        chance = 1.0 / (1.0 + np.exp(-np.clip(table @ slopes, -30.0, 30.0)))
        curved = (table.T * np.maximum(chance * (1.0 - chance), 1e-6)) @ table + np.diag(ridge)
        step = np.linalg.solve(curved, table.T @ (truth - chance) - ridge * slopes)
        slopes = slopes + step * min(1.0, 2.0 / max(float(np.abs(step).max()), of.TINY))
        if np.abs(step).max() < 1e-6:
            break
    return np.asarray(asked @ slopes)


def _terms(x: Floats) -> Floats:
    """Terms of the model: columns, squares, products of columns and, for few features, of squares and columns."""
    near = np.clip(x, -6.0, 6.0)  # a single far row would determine the model
    features = near.shape[1]
    parts = [np.ones((len(near), 1)), near, np.square(near)]
    if features * (features - 1) // 2 + 2 * features < _MOST_TERMS:
        first, second = np.triu_indices(features, 1)
        parts.append(near[:, first] * near[:, second])
    if features <= _MOST_BENT:
        first, second = np.nonzero(~np.eye(features, dtype=bool))
        parts.append(np.square(near[:, first]) * near[:, second])
    return np.concatenate(parts, axis=1)
