"""Whether draws lie nearer to training rows than rows held out do, a sign of a density that memorises."""

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

MOST_ROWS, MOST_POINTS = 5000, 50_000
_TILE = 1 << 22  # distances at a time


def nearer(flow: Any, rows: Looked, seed: int) -> tuple[Finding, float]:
    """The test, and the share of pairs of a draw and a row in which the draw is nearer to a training row.

    Both are new to the training rows under the right density, so that each is the nearer one as often as a coin has
    heads, exactly. Distances are in standard deviations of the training rows, context included.
    """
    assert rows.training is not None
    rng = stream(seed, 7)
    index = rows.some(MOST_ROWS, rng)
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
    """The number of rows of x that equal training rows in all values, and whether new rows would explain it.

    Of new rows as many are copies as of training rows are copies of others, for example with few different values.
    """
    if rows.training is None:
        return 0, False
    kind = np.result_type(rows.x, rows.training)
    known, own = (
        Counter(row.tobytes() for row in np.ascontiguousarray(_both(*part).astype(kind)))
        for part in ((rows.training, rows.training_context), (rows.x, rows.context))
    )
    found = sum(count for row, count in own.items() if row in known)
    by_chance = sum(count for count in known.values() if count > 1) / len(rows.training)
    return found, 2.0 * found / len(rows.x) > 1.0 + by_chance


def is_training(x: Any, context: Any, training: Any) -> bool:
    """Whether training rows are the same tables as x and its context, in one order."""
    given = training if isinstance(training, tuple) else (training,)
    return training is not None and all(map(_same, (x, context), (*given, None)))


def _same(one: Any, other: Any) -> bool:
    if one is None or other is None or one is other:
        return one is other
    mine, its = np.asarray(one), np.asarray(other)
    return mine.shape == its.shape and bool((mine == its).all())


def _both(x: NDArray[Any], context: NDArray[Any] | None) -> NDArray[Any]:
    return x if context is None else np.concatenate([x, context], axis=1)


def joined(x: NDArray[Any], context: NDArray[Any] | None) -> Floats:
    """Rows with their contexts behind them, in float64."""
    return np.asarray(_both(x, context), np.float64)


def _distances(points: Floats, rows: Floats) -> Floats:
    """Distances to the nearest point: by SciPy's tree if it is installed and useful, else from all pairs."""
    if points.shape[1] <= 16 and find_spec("scipy") is not None:
        from scipy.spatial import cKDTree

        return np.asarray(cKDTree(points).query(rows)[0])
    squares = np.square(points).sum(axis=1)
    found = np.empty(len(rows))
    step = max(_TILE // len(points), 1)
    for begin in range(0, len(rows), step):
        part = rows[begin : begin + step]
        nearest = (squares - 2.0 * (part @ points.T)).argmin(axis=1)  # then without the terms that cancel
        found[begin : begin + step] = np.sqrt(np.square(part - points[nearest]).sum(axis=1))
    return found
