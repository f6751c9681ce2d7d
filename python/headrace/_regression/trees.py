"""Trees of scikit-learn whose predictions for training rows come from other rows: boosting by folds, a forest."""

from __future__ import annotations

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
LEAST_VARIANCE = 1e-6  # of a residual, in units of the response's
LEVELS = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)  # levels of the forest's quantiles
BANDWIDTHS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.6)  # bandwidths of the forest's density, in deviations of the response
FAR = 9.0  # widths of a kernel beyond which it has no mass
BLOCK = 512  # rows with dense weights at a time


@dataclass
class Boosting:
    """Means and log scales of responses by gradient boosting, each from folds without the row."""

    folds: list[list[tuple[Any, Any]]]
    """For each fold and response the model of the mean, and that of the log of the squared residual."""
    training: Floats
    """Means and log scales of the training rows, out of their folds."""

    @classmethod
    def fit(cls, x: NDArray[Any], y: Floats, weights: Any, rng: np.random.Generator) -> Boosting:
        """Fit the folds: in its own fold a residual is far too small for a scale."""
        n, count = y.shape
        fold = rng.permutation(n) % FOLDS
        seed = int(rng.integers(2**31))
        means, scales = np.empty_like(y), np.empty_like(y)
        models: list[list[tuple[Any, Any]]] = [[] for _ in range(FOLDS)]

        def made(part: NDArray[np.bool_], target: Floats) -> Any:
            own = None if weights is None else weights[part]
            return HistGradientBoostingRegressor(**BOOSTING, random_state=seed).fit(x[part], target[part], own)

        for j in range(count):
            of_mean = [made(fold != k, y[:, j]) for k in range(FOLDS)]
            for k, model in enumerate(of_mean):
                means[fold == k, j] = model.predict(x[fold == k])
            target = np.log(np.square(y[:, j] - means[:, j]) + LEAST_VARIANCE * y[:, j].var())
            for k in range(FOLDS):
                models[k].append((of_mean[k], made(fold != k, target)))
                scales[fold == k, j] = 0.5 * models[k][j][1].predict(x[fold == k])
        return cls(models, np.concatenate([means, scales], axis=1))

    def features(self, x: NDArray[Any]) -> Floats:
        """Means and log scales of new rows: the mean of the folds."""
        found = [
            np.stack([*(mean.predict(x) for mean, _ in fold), *(0.5 * scale.predict(x) for _, scale in fold)], axis=1)
            for fold in self.folds
        ]
        return np.asarray(np.mean(found, axis=0))


class Forest:
    """A random forest as weights of the training rows (Meinshausen 2006): of a training row by trees without it."""

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
        """A row of zeros and ones for each row of x, a one for its leaf of each tree."""
        leaves, sizes = self.model.apply(x), [tree.tree_.node_count for tree in self.model.estimators_]
        starts = np.cumsum([0, *sizes])
        shape = len(x), starts[-1]
        ones, ends = np.full(leaves.size, 1.0 / TREES), np.arange(0, leaves.size + 1, TREES)
        return scipy.sparse.csr_matrix((ones, (leaves + starts[:-1]).ravel(), ends), shape)

    def weights(self, x: NDArray[Any]) -> Any:
        """Weights of the training rows for new rows, sparse."""
        return self._leaves(x) @ self.members

    def quantiles(self, leaves: Any) -> Floats:
        """Quantiles of each response, shape (rows, levels · responses); `leaves`: of rows, or `training`."""
        found = np.empty((leaves.shape[0], len(LEVELS), self.y.shape[1]))
        for start in range(0, len(found), BLOCK):
            dense = (leaves[start : start + BLOCK] @ self.members).toarray()
            for j in range(self.y.shape[1]):
                below = np.cumsum(dense[:, self.order[:, j]], axis=1)
                for k, level in enumerate(LEVELS):
                    at = np.minimum((below < level * below[:, -1:]).sum(axis=1), len(self.y) - 1)
                    found[start : start + BLOCK, k, j] = self.y[self.order[at, j], j]
        return found.reshape(len(found), -1)

    def log_prob(self, weights: Any, y: Floats, width: float | None = None) -> Floats:
        """Log density of one response: a normal kernel on each training row by its weight."""
        width, found = width or self.width, np.empty(len(y))
        for i in range(len(y)):
            part = slice(weights.indptr[i], weights.indptr[i + 1])
            z = (y[i] - self.y[weights.indices[part], 0]) / width
            terms = np.log(weights.data[part]) - 0.5 * np.square(z)
            found[i] = np.logaddexp.reduce(terms) if terms.size else -np.inf
        return np.asarray(found - np.log(width) - 0.5 * np.log(2.0 * np.pi))

    def choose(self, rows: NDArray[np.intp]) -> Floats:
        """Choose the width by rows, by the trees without them; their log densities."""
        weights, scale = self.training[rows] @ self.members, float(self.y.std()) or 1.0
        each = [self.log_prob(weights, self.y[rows, 0], width * scale) for width in BANDWIDTHS]
        best = int(np.argmax([one.mean() for one in each]))
        self.width = BANDWIDTHS[best] * scale
        return each[best]

    def cdf(self, weights: Any, y: Floats) -> Floats:
        """The distribution function of one response."""
        found = np.empty(len(y))
        for i in range(len(y)):
            part = slice(weights.indptr[i], weights.indptr[i + 1])
            found[i] = weights.data[part] @ ndtr((y[i] - self.y[weights.indices[part], 0]) / self.width)
        return found

    def ends(self, weights: Any) -> tuple[Floats, Floats]:
        """Values around all quantiles of rows."""
        parts = [self.y[weights.indices[a:b], 0] for a, b in pairwise(weights.indptr)]
        far = FAR * self.width
        return np.array([one.min() - far for one in parts]), np.array([one.max() + far for one in parts])

    def sample(self, weights: Any, n: int, rng: np.random.Generator) -> Floats:
        """Draws of one response, shape (rows, n)."""
        found = rng.standard_normal((weights.shape[0], n)) * self.width
        for i, (a, b) in enumerate(pairwise(weights.indptr)):
            share = weights.data[a:b]
            found[i] += self.y[rng.choice(weights.indices[a:b], n, p=share / share.sum()), 0]
        return found
