"""Whether regions of highest density hold the share of rows that they claim to hold.

The rank of a row's log density among those of rows drawn with its context is uniform under the right density, exactly.

Source: for conditional densities J. Hermans and others, *A trust crisis in simulation-based inference?*, Transactions
on Machine Learning Research, 2022.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace._base.types import Floats
from headrace.diagnosis import distributions as of
from headrace.diagnosis.findings import Finding
from headrace.diagnosis.judged_rows import Looked, stream

DRAWS, MOST_ROWS = 99, 2000
BLOCK = 1 << 20  # values drawn at a time


def coverage(flow: Any, rows: Looked, log_prob: Floats, seed: int) -> tuple[Finding, Floats]:
    """A test of the ranks; and for each of at most `MOST_ROWS` rows the smallest region of highest density it is in.

    A region is given by its share of the density, a number between 0 and 1 that is uniform under the right one.
    """
    rng = stream(seed, 5)
    index = rows.some(MOST_ROWS, rng)
    less, equal = np.zeros(index.size), np.zeros(index.size)
    step = max(BLOCK // (DRAWS * rows.x.shape[1]), 1)
    for begin in range(0, index.size, step):
        part = index[begin : begin + step]
        context = rows.context_of(part)
        if context is None:
            x = flow.sample((DRAWS, part.size), seed=rng, dtype="float64")
        else:
            x = flow.sample((DRAWS,), context, seed=rng, dtype="float64")
        found = flow.log_prob(x, context)
        less[begin : begin + step] = (found < log_prob[part]).sum(axis=0)
        equal[begin : begin + step] = (found == log_prob[part]).sum(axis=0)
    # Equal ones are ordered at random, and a rank becomes any number in its part of the unit interval.
    rank = (less + rng.random(index.size) * (equal + 1.0)) / (DRAWS + 1.0)
    region = 1.0 - rank
    p = of.anderson_darling_tail(of.anderson_darling(rank[:, None], region[:, None]), index.size)
    half, most = float((region <= 0.5).mean()), float((region <= 0.9).mean())
    sentence = f"regions of highest density that claim 50 % and 90 % of the rows hold {half:.1%} and {most:.1%}"
    return Finding("coverage", float(p[0]), 1, sentence), region
