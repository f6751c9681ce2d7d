"""The treated rows of a choice, and parts of these rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import frames
from headrace._arrays.caller import Caller
from headrace._base import arguments as check
from headrace._fit.given_rows import open_rows
from headrace._tables.arguments import Treatment
from headrace._tables.density import Columns, library_of
from headrace._tables.preparing import Prepared, prepared, present
from headrace.rows._stream import Block

SHARE = 0.1  # the share of the choosing rows, and of the judging rows
MOST_JUDGED = 5000  # the most choosing rows, and the most judging rows


@dataclass(frozen=True)
class Sample(Block):
    """Treated rows with their context and weights."""

    known: NDArray[np.float64] | None = None
    """For each row the log probability of its classes, which is a part of its log density."""

    @property
    def features(self) -> int:
        """The number of columns."""
        return int(self.x.shape[1])

    @property
    def contexts(self) -> int:
        """The number of context columns."""
        return 0 if self.context is None else int(self.context.shape[1])

    def take(self, index: Any) -> Sample:
        """The sample with only the rows at `index`."""
        parts = (*self.arrays(), self.known)
        return Sample(*(None if part is None else part[index] for part in parts))  # type: ignore[arg-type]

    def log_prob(self, flow: Any) -> NDArray[np.float64]:
        """The log density of each row under a density of the columns without classes, plus the log probability of its
        classes.
        """
        log_prob = np.asarray(flow.log_prob(self.x, self.context), np.float64)
        return log_prob if self.known is None else log_prob + self.known


def opened(x: Any, context: Any, weights: Any, features: int) -> Sample:
    """Check rows as a fit does, and leave out rows that take no part in a fit."""
    columns = 0 if context is None else 1 if np.ndim(context) == 1 else int(np.shape(context)[-1])
    as_rows = np.asarray(context)[:, None] if context is not None and np.ndim(context) == 1 else context
    data = open_rows("", features, columns, Caller(), x, as_rows, weights)
    rows = data.context
    if rows is not None and len(rows) != len(data.x):
        raise ValueError(f"context: expected {len(data.x)} rows, as many as x has, got {len(rows)}")
    kept = data.taking_part()[1]
    sample = Sample(data.x, rows, None if data.weights is None else data.weights.astype(np.float64))
    return sample if kept is None else sample.take(kept)


def of_table(
    x: Any, context: Any, weights: Any, names: Sequence[str] | None, how: Treatment
) -> tuple[Sample, Columns, Prepared]:
    """Treat the rows of a table; return them, the kinds of its columns, and the bounds and periods of the remaining
    columns.
    """
    x, coded = (x, {}) if how.categories is None else frames.coded(x)
    x, texts = frames.without_text(x)
    frames.check_numbers("x", x)
    x = frames.inferred(x)
    kinds, library = frames.kinds_of(x), library_of(x)
    shape = np.shape(x)
    features = int(shape[1]) if len(shape) == 2 else 1
    of_frame = frames.names_of(x, features)
    called = of_frame if names is None else list(check.texts("names", names, features))
    how = replace(how, names=called, texts=[f"column {name!r}" for name in texts], labels=coded)
    labels, caller = frames.labels_of(context), Caller()
    arrays = {"x": x, "context": context, "weights": weights}
    parts = [None if part is None else caller.open(name, part, whole=True) for name, part in arrays.items()]
    if parts[0] is not None and parts[0].ndim == 2 and len(parts[0]):
        fitting = [part if part is not None and len(part) == len(parts[0]) else None for part in parts]
        block = present(Block(parts[0], fitting[1], fitting[2]), how)
        pairs = zip(parts, fitting, block.arrays(), strict=True)
        parts = [part if one is None else kept for part, one, kept in pairs]
    sample = opened(parts[0], parts[1], parts[2], features)
    ready = prepared(sample, kinds, how)
    sample = replace(sample, x=np.ascontiguousarray(ready.rows.x))
    context_names = () if not sample.contexts else labels if labels and len(labels) == sample.contexts else None
    own, given = (None if one is None else tuple(one) for one in (called, of_frame))
    return sample, Columns(ready.table, own, context_names, sample.x.dtype.name, library, given), ready


def parted(sample: Sample, seed: int) -> tuple[Sample, Sample, Sample]:
    """The rows for the fits, the rows by which the search chooses, and the rows that judge the chosen density."""
    fitted, choosing, judging = (sample.take(part) for part in parts(len(sample), seed))
    return fitted, choosing, judging


def parts(rows: int, seed: int) -> list[NDArray[np.int64]]:
    """The row indices of the three samples that `parted` returns."""
    order = np.random.default_rng([seed, 0x6175746F]).permutation(rows)
    size = min(max(round(SHARE * rows), 1), MOST_JUDGED)
    return [np.sort(part) for part in (order[2 * size :], order[size : 2 * size], order[:size])]


def folds(rows: int, count: int, seed: int) -> list[NDArray[np.int64]]:
    """The row indices of each fold of cross-validation; each row is in one fold."""
    order = np.random.default_rng([seed, 0x6175746F]).permutation(rows)
    return [np.sort(order[i::count]) for i in range(count)]
