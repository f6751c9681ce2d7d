"""Rows for a diagnosis, checked, and resampled if they have weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import frames
from headrace._arrays.caller import Caller
from headrace._base import arguments as check
from headrace._fit.given_rows import Data, open_rows


@dataclass(frozen=True)
class Looked:
    """Held-out rows, with context, weights, training rows and names, as NumPy arrays."""

    x: NDArray[Any]
    context: NDArray[Any] | None
    weights: NDArray[np.float64] | None
    index: NDArray[np.int64]
    """The indices of the rows that represent the density: all rows, or with weights a random part."""
    training: NDArray[Any] | None
    training_context: NDArray[Any] | None
    names: tuple[str, ...]
    context_names: tuple[str, ...] = ()
    """Names of the context's columns; indices as texts if there are no names."""

    def some(self, most: int, key: np.random.Generator) -> NDArray[np.int64]:
        """At most `most` random elements of `index`."""
        if self.index.size <= most:
            return self.index
        return np.sort(key.choice(self.index, most, replace=False))

    def context_of(self, index: NDArray[np.int64]) -> NDArray[Any] | None:
        """The context of the rows with the indices `index`."""
        return None if self.context is None else self.context[index]


def stream(seed: int, purpose: int) -> np.random.Generator:
    """A random generator for one `purpose`, so that a test does not depend on whether another test ran."""
    return np.random.default_rng([seed, 0x64696167, purpose])


def opened(
    features: int,
    contexts: int,
    x: Any,
    context: Any,
    weights: Any,
    training: Any,
    names: Sequence[str] | None,
    seed: int,
    context_names: Sequence[str] | None = None,
) -> Looked:
    """The checked rows and the other arguments of `diagnose`.

    A row with a weight is kept for tests with the probability weight / largest weight. Rows that are kept are
    independent rows of the weighted density, so that every p-value is right.
    """
    rows = open_rows("", features, contexts, Caller(), x, context, weights)
    index = np.arange(len(rows.x), dtype=np.int64)
    share = None
    if rows.weights is not None:
        share = rows.weights.astype(np.float64)
        index = np.flatnonzero(stream(seed, 0).random(len(share)) * share.max() < share).astype(np.int64)
    parts = training if isinstance(training, tuple) else (training,)
    if len(parts) > 2:
        raise TypeError(f"training: expected x, or a tuple (x, context), got {len(parts)} arrays")
    of_training = None
    if training is not None:
        of_training = open_rows("training ", features, contexts, Caller(), parts[0], *(*parts[1:], None, None)[:2])
    labels = tuple(name.removeprefix("column ").strip("'") for name in rows.names)
    if names is not None:
        labels = check.texts("names", names, features)
    context_names = frames.names_of(context, contexts) if context_names is None else context_names
    called = tuple(map(str, range(contexts)))
    called = called if context_names is None else check.texts("context_names", context_names, contexts)
    seen, of_seen = (None, None) if of_training is None else (of_training.x, _of_each(of_training))
    return Looked(rows.x, _of_each(rows), share, index, seen, of_seen, labels, called)


def _of_each(rows: Data) -> NDArray[Any] | None:
    """The context of each row; a context that the caller gave for all rows is repeated."""
    context: NDArray[Any] | None = rows.context
    if context is None or len(context) == len(rows.x):
        return context
    return np.repeat(context, len(rows.x), axis=0)
