"""Rows of a choice, and parts of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays.caller import Caller
from headrace._fit.given_rows import open_rows
from headrace._flow.transforms.support import Support

SHARE = 0.1  # share of the rows to choose by, and of those to judge by
MOST_JUDGED = 5000  # the most rows of either


@dataclass(frozen=True)
class Sample:
    """Rows with their context and weights."""

    x: NDArray[Any]
    context: NDArray[Any] | None = None
    weights: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.x)

    @property
    def features(self) -> int:
        """Number of columns."""
        return int(self.x.shape[1])

    @property
    def contexts(self) -> int:
        """Number of columns of context."""
        return 0 if self.context is None else int(self.context.shape[1])

    def take(self, index: NDArray[Any]) -> Sample:
        """Some rows."""
        return Sample(self.x[index], *(None if part is None else part[index] for part in (self.context, self.weights)))

    def log_prob(self, flow: Any) -> NDArray[np.float64]:
        """The log density of each row under a density."""
        return np.asarray(flow.log_prob(self.x, self.context), np.float64)


def opened(x: Any, context: Any, weights: Any, support: Support | None, features: int) -> Sample:
    """Rows, checked as a fit checks them, and those that take part in a fit."""
    columns = 0 if context is None else 1 if np.ndim(context) == 1 else int(np.shape(context)[-1])
    given = np.asarray(context)[:, None] if context is not None and np.ndim(context) == 1 else context
    found = open_rows("", features, columns, Caller(), x, given, weights, support)
    rows = found.context
    if rows is not None and len(rows) != len(found.x):
        raise ValueError(f"context: expected {len(found.x)} rows, as many as x has, got {len(rows)}")
    kept = found.taking_part()[1]
    sample = Sample(found.x, rows, None if found.weights is None else found.weights.astype(np.float64))
    return sample if kept is None else sample.take(kept)


def parted(sample: Sample, seed: int) -> tuple[Sample, Sample, Sample]:
    """Rows to fit, rows to choose by, and rows to judge the choice by, which are used for nothing else."""
    order = np.random.default_rng([seed, 0x6175746F]).permutation(len(sample))
    size = min(max(round(SHARE * len(sample)), 1), MOST_JUDGED)
    parts = order[2 * size :], order[size : 2 * size], order[:size]
    fitted, choosing, judging = (sample.take(np.sort(part)) for part in parts)
    return fitted, choosing, judging


def folds(rows: int, count: int, seed: int) -> list[NDArray[np.int64]]:
    """The rows left out by each fold; each row once."""
    order = np.random.default_rng([seed, 0x6175746F]).permutation(rows)
    return [np.sort(order[i::count]) for i in range(count)]
