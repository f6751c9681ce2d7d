"""Boosting and a forest of scikit-learn whose predictions for a training row are from trees that have not
seen the row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.special import ndtr
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor

from headrace._base.types import Floats

FOLDS, TREES, LEAF = 5, 100, 5
BOOSTING = {"max_iter": 100, "learning_rate": 0.08, "max_leaf_nodes": 15, "early_stopping": False}
LEAST_VARIANCE = 1e-6  # the least variance of a residual, in units of the response's variance
LEVELS = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)  # the levels of the forest's quantiles
BANDWIDTHS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.6)  # bandwidths that are tried, in deviations of the response
FAR = 9.0  # kernels have no mass beyond this many bandwidths
BLOCK = 512  # rows whose dense weights are in memory at a time


class Boosting:
    """Means and log scales of responses by gradient boosting; those of a training row are from a model without its
    fold.
    """

    def __init__(self, x: NDArray[Any], y: Floats, weights: Any, rng: np.random.Generator) -> None:
        """Fit a model for each fold to the other folds, because residuals of a model's own rows are too small for a
        scale.
        """
        fold, seed = rng.permutation(len(y)) % FOLDS, int(rng.integers(2**31))

        def out_of_fold(target: Floats) -> tuple[list[Any], Floats]:
            models, predictions = [], np.empty(len(y))
            for k in range(FOLDS):
                part = fold != k
                model = HistGradientBoostingRegressor(**BOOSTING, random_state=seed)
                models.append(model.fit(x[part], target[part], None if weights is None else weights[part]))
                predictions[~part] = model.predict(x[~part])
            return models, predictions

        every = [out_of_fold(response) for response in y.T]
        for response, (_, mean) in zip(y.T, list(every), strict=True):
            every.append(out_of_fold(np.log(np.square(response - mean) + LEAST_VARIANCE * response.var())))
        self.models, predictions = zip(*every, strict=True)
        self.factors = np.repeat([1.0, 0.5], y.shape[1])  # the log of a scale is half the log of a variance
        self.training = np.stack(predictions, axis=1) * self.factors
        """The means and log scales of training rows, each from the model that left out the fold of the row."""

    def features(self, x: NDArray[Any]) -> Floats:
        """The means and log scales for new rows, averaged over the models of all folds."""
        means = [np.mean([model.predict(x) for model in models], axis=0) for models in self.models]
        return np.stack(means, axis=1) * self.factors


class Forest:
    """A random forest as weights of training rows (Meinshausen 2006); for a training row only trees without the row
    count.
    """

    def __init__(self, x: NDArray[Any], y: Floats, weights: Any, seed: int) -> None:
        self.model = RandomForestRegressor(TREES, min_samples_leaf=LEAF, random_state=seed)
        self.model.fit(x, y if y.shape[1] > 1 else y[:, 0], weights)
        self.y, n = y, len(y)
        counts = np.stack([np.bincount(rows, minlength=n) for rows in self.model.estimators_samples_], axis=1)
        leaves = self._leaves(x)
        members = scipy.sparse.csr_matrix((counts.ravel().astype(float), leaves.indices, leaves.indptr), leaves.shape)
        sums = np.asarray(members.sum(axis=0)).ravel()
        self.members = (members @ scipy.sparse.diags(1.0 / np.maximum(sums, 1.0))).T.tocsr()
        self.order = np.argsort(y, axis=0, kind="stable")
        out = (counts == 0).astype(float)
        out[out.sum(axis=1) == 0.0] = 1.0
        out = out / out.sum(axis=1, keepdims=True)
        self.training = scipy.sparse.csr_matrix((out.ravel(), leaves.indices, leaves.indptr), leaves.shape)
        self.width = 0.0

    def _leaves(self, x: NDArray[Any]) -> Any:
        """A sparse matrix, shape (rows, leaves of all trees), with 1 / TREES at the leaves of each row."""
        leaves, sizes = self.model.apply(x), [tree.tree_.node_count for tree in self.model.estimators_]
        starts = np.cumsum([0, *sizes])
        shape = len(x), starts[-1]
        ones, ends = np.full(leaves.size, 1.0 / TREES), np.arange(0, leaves.size + 1, TREES)
        return scipy.sparse.csr_matrix((ones, (leaves + starts[:-1]).ravel(), ends), shape)

    def weights(self, x: NDArray[Any]) -> Any:
        """The weights of the training rows for new rows, as a sparse matrix (new rows, training rows)."""
        return self._leaves(x) @ self.members

    def quantiles(self, leaves: Any) -> Floats:
        """Quantiles of each response, shape (rows, levels · responses); `leaves`: a result of `_leaves`, or
        `training`.
        """
        quantiles = np.empty((leaves.shape[0], len(LEVELS), self.y.shape[1]))
        for start in range(0, len(quantiles), BLOCK):
            dense = (leaves[start : start + BLOCK] @ self.members).toarray()
            for j in range(self.y.shape[1]):
                below = np.cumsum(dense[:, self.order[:, j]], axis=1)
                for k, level in enumerate(LEVELS):
                    at = np.minimum((below < level * below[:, -1:]).sum(axis=1), len(self.y) - 1)
                    quantiles[start : start + BLOCK, k, j] = self.y[self.order[at, j], j]
        return quantiles.reshape(len(quantiles), -1)

    def features(self, x: NDArray[Any]) -> Floats:
        """The forest's quantiles for new rows."""
        return self.quantiles(self._leaves(x))

    def choose(self, rows: NDArray[np.intp]) -> Floats:
        """Choose the kernel width with the largest log density of some training rows, by trees without these rows;
        return their log densities.
        """
        weights, scale = self.training[rows] @ self.members, float(self.y.std()) or 1.0
        each = [Kernels(self.y[:, 0], width * scale, weights).log_prob(self.y[rows]) for width in BANDWIDTHS]
        best = int(np.argmax([values.mean() for values in each]))
        self.width = BANDWIDTHS[best] * scale
        return each[best]

    def law(self, x: NDArray[Any]) -> Kernels:
        """The conditional density of the response for new rows, for models of one response."""
        return Kernels(self.y[:, 0], self.width, self.weights(x))


@dataclass(frozen=True)
class Kernels:
    """The density of one response for some rows: a normal kernel at the response of each training row, with
    its weight.
    """

    y: Floats
    """The responses of the training rows."""
    width: float
    weights: Any
    """The weights of the training rows, sparse, shape (rows, training rows)."""

    def _rows(self) -> Iterator[tuple[Floats, Floats]]:
        """For each row, the nonzero weights of training rows, and the responses of these training rows."""
        for a, b in pairwise(self.weights.indptr):
            yield self.weights.data[a:b], self.y[self.weights.indices[a:b]]

    def log_prob(self, y: Floats) -> Floats:
        """The log density at the response of each row; y has the shape (rows, 1)."""
        terms = (np.log(w) - 0.5 * np.square((y[i] - at) / self.width) for i, (w, at) in enumerate(self._rows()))
        sums = np.array([np.logaddexp.reduce(term) for term in terms])
        return np.asarray(sums - np.log(self.width) - 0.5 * np.log(2.0 * np.pi))

    def cdf(self, y: Floats) -> Floats:
        """The distribution function at the response of each row; y has the shape (rows,)."""
        return np.array([w @ ndtr((y[i] - at) / self.width) for i, (w, at) in enumerate(self._rows())])

    def mean(self) -> Floats:
        """The mean of each row's density."""
        return np.asarray(self.weights @ self.y)

    def around(self, level: float) -> tuple[Floats, Floats]:
        """A value below and a value above all quantiles of each row."""
        far, every = FAR * self.width, [at for _, at in self._rows()]
        return np.array([at.min() - far for at in every]), np.array([at.max() + far for at in every])

    def sample(self, n: int, rng: np.random.Generator, seed: int) -> Floats:
        """Draws for each row from the generator `rng`, shape (rows, n, 1)."""
        draws = rng.standard_normal((self.weights.shape[0], n)) * self.width
        for i, (share, at) in enumerate(self._rows()):
            draws[i] += rng.choice(at, n, p=share / share.sum())
        return draws[:, :, None]
