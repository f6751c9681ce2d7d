"""Columns of classes in a search: a network computes their probabilities, and the search is for the other columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._fit.clock import Clock
from headrace._tables.discrete import Discrete
from headrace._tables.head import Head
from headrace._tables.mixed import MixedDensity
from headrace.choosing.sample import Sample

OF_CLASSES = 0.2  # the largest share of the time for fits of class probabilities


def apart(
    sample: Sample, classes: Sequence[Discrete], unseen: Sequence[NDArray[Any]], seed: int, dtype: Any, clock: Clock
) -> tuple[MixedDensity, Sample]:
    """Fit a density of the class columns to all rows; return it, and the rows of the other columns with classes as
    context.

    Args:
        sample: Rows with codes in the class columns.
        classes: The columns with classes.
        unseen: Indices of the rows in each part; a network fitted to all other rows computes the log probabilities of a
            part's classes.
        seed: The seed of fresh weights and of the held-out rows.
        dtype: The dtype of the network.
        clock: The time budget of the search.
    """

    def fitted(rows: Sample) -> Head:
        head = Head.fresh(classes, len(rows), rows.context, seed, dtype)
        head.fit(head.opened(rows.x)[1], rows.context, rows.weights, seed, clock.share(share))
        return head

    share = OF_CLASSES / (len(unseen) + 1)
    known = np.zeros(len(sample))
    for out in unseen:
        rows, rest = sample.take(out), sample.take(np.setdiff1d(np.arange(len(sample)), out))
        head = fitted(rest)
        known[out] = head.of_rows(rows.x, *head.opened(rows.x), rows.context)
    taken = {one.column for one in classes}
    numbers = [i for i in range(sample.features) if i not in taken]
    density = MixedDensity(fitted(sample), None, numbers)
    given = density.given(density.head.opened(sample.x)[1], sample.context)
    return density, replace(sample, x=np.ascontiguousarray(sample.x[:, numbers]), context=given, known=known)
