"""Ranks of columns, distances to a point and log densities among draws with the same context.

A row and its draws are exchangeable under the right conditional density, so that any statistic that is computed from
each of them in the same way has a uniform rank, exactly.

- Statistics of a single column: simulation-based calibration. S. Talts and others, *Validating Bayesian inference
  algorithms with simulation-based calibration*, arXiv:1804.06788, 2018.
- Distances to a random point (TARP), which detect errors that regions of highest density miss: a density that ignores
  its context has right regions on average. P. Lemos and others, *Sampling-based accuracy testing of posterior
  estimators for general inference*, ICML 2023.
- Log densities: the rank of a row's log density among log densities of draws gives the share of the smallest region of
highest density that contains the row. For
  conditional densities J. Hermans and others, *A trust crisis in simulation-based inference?*, Transactions on Machine
  Learning Research, 2022.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats
from headrace.diagnosis import distributions as of
from headrace.diagnosis.findings import Finding, least_of
from headrace.diagnosis.judged_rows import Looked, stream

DRAWS, MOST_ROWS = 99, 2000
BLOCK = 1 << 20  # the most values that are drawn at a time


def coverage(flow: Any, rows: Looked, log_prob: Floats, seed: int) -> tuple[Finding, Floats]:
    """The test of coverage, and for each of at most `MOST_ROWS` rows the smallest region of highest density around it.

    A region is described by its probability, a value between 0 and 1 that is uniform under the right density.
    """
    rng = stream(seed, 5)
    index = rows.some(MOST_ROWS, rng)
    less, equal = np.zeros(index.size), np.zeros(index.size)
    step = max(BLOCK // (DRAWS * rows.x.shape[1]), 1)
    for begin in range(0, index.size, step):
        part = index[begin : begin + step]
        context = rows.context_of(part)
        draws = (DRAWS, part.size) if context is None else (DRAWS,)  # DRAWS for each row of the context
        x = flow.sample(draws, context, seed=rng, dtype="float64")
        densities = flow.log_prob(x, context)
        less[begin : begin + step] = (densities < log_prob[part]).sum(axis=0)
        equal[begin : begin + step] = (densities == log_prob[part]).sum(axis=0)
    # Equal log densities are ordered at random, and a rank becomes a uniform value in an interval of 1 / (DRAWS + 1).
    rank = (less + rng.random(index.size) * (equal + 1.0)) / (DRAWS + 1.0)
    region = 1.0 - rank
    return Finding("coverage", *_of_regions("regions of highest density", region, rank)), region


def calibration(flow: Any, rows: Looked, seed: int) -> tuple[list[Finding], Floats, Floats]:
    """Two tests, and for at most `MOST_ROWS` rows the ranks, as shares, of columns and of the distance to a point.

    Ranks of columns have the shape (rows, features), and ranks of distances (rows,). Each rank becomes a uniform value
    in an interval of length 1 / (DRAWS + 1).
    """
    assert rows.context is not None
    rng = stream(seed, 9)
    index = rows.some(MOST_ROWS, rng)
    points = _points(rows.context[index], rows.x.shape[1], rng)
    places = np.empty((index.size, rows.x.shape[1]))
    near = np.empty(index.size)
    step = max(BLOCK // (DRAWS * rows.x.shape[1]), 1)
    for begin in range(0, index.size, step):
        part = index[begin : begin + step]
        drawn = np.asarray(flow.sample((DRAWS,), rows.context[part], seed=rng, dtype="float64"))
        every = np.concatenate([rows.x[None, part].astype(np.float64), drawn])
        places[begin : begin + step] = _rank(every, rng)
        near[begin : begin + step] = _rank(_distances(every, points[begin : begin + step]), rng)
    of_points = Finding("distance to random points", *_of_regions("balls around random points", near, 1.0 - near))
    return [_of_columns(places, rows.names), of_points], places, near


def _points(context: NDArray[Any], features: int, rng: np.random.Generator) -> Floats:
    """A point for each row, in standard deviations of the row's draws: a random function of the context.

    A point must not depend on the row, and must depend on the context, or a density that ignores its context would
    pass.
    """
    ranks = np.argsort(np.argsort(context, axis=0, kind="stable"), axis=0) / max(len(context) - 1, 1) - 0.5
    turn = rng.standard_normal((context.shape[1], features)) / np.sqrt(context.shape[1])
    return np.asarray(4.0 * ranks @ turn + rng.standard_normal((len(context), features)))


def _distances(every: Floats, points: Floats) -> Floats:
    """Squared distances of rows and their draws `every`, (1 + draws, rows, features), to each row's point.

    Each column is standardised by a row and its draws together, so that the row and the draws stay exchangeable.
    """
    middle, spread = every.mean(axis=0), every.std(axis=0)
    return np.asarray(np.square((every - middle) / np.where(spread > 0, spread, 1.0) - points).sum(axis=2))


def _rank(every: Floats, rng: np.random.Generator) -> Floats:
    """The rank of the first value among all values, divided by their number; equal values are ordered at random."""
    less, equal = (every[1:] < every[0]).sum(axis=0), (every[1:] == every[0]).sum(axis=0)
    return np.asarray((less + rng.random(less.shape) * (equal + 1.0)) / len(every))


def _of_columns(places: Floats, names: tuple[str, ...]) -> Finding:
    p = of.anderson_darling_tail(of.anderson_darling(places, 1.0 - places), len(places))
    worst = int(p.argmin())
    below, inside = float((places[:, worst] < 0.5).mean()), float((np.abs(places[:, worst] - 0.5) <= 0.25).mean())
    where = f"in {below:.1%} of the rows, and in their middle half in {inside:.1%}, where 50 % are expected"
    sentence = f"column {names[worst]} lies below the middle of draws with the same context {where}"
    return Finding("ranks among draws", least_of(float(p[worst]), p.size), p.size, sentence)


def _of_regions(what: str, claimed: Floats, rest: Floats) -> tuple[float, int, str]:
    """The p-value, count and sentence of a test that `claimed`, the probabilities of rows' regions, are uniform.

    `rest`: 1 - `claimed`.
    """
    p = of.anderson_darling_tail(of.anderson_darling(claimed[:, None], rest[:, None]), len(claimed))
    half, most = float((claimed <= 0.5).mean()), float((claimed <= 0.9).mean())
    return float(p[0]), 1, f"{what} that claim 50 % and 90 % of the rows hold {half:.1%} and {most:.1%}"
