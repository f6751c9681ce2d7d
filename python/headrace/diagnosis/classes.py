"""Discrete columns in a diagnosis: classes as further latent coordinates, and rows as inputs of a classifier.

The probabilities of classes, given the earlier columns, divide the unit interval. A uniform value within the part of a
row's class is uniform in the unit interval under the right density, and the score of the value is one more latent
coordinate.

Source: P. K. Dunn, G. K. Smyth, *Randomized quantile residuals*, Journal of Computational and Graphical Statistics 5,
1996.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats
from headrace._tables.discrete import Discrete
from headrace._tables.mixed import MixedDensity
from headrace.diagnosis.distributions import TINY
from headrace.diagnosis.findings import SHARES, Finding, least_of
from headrace.diagnosis.judged_rows import Looked, opened, stream
from headrace.diagnosis.latent import quantile
from headrace.diagnosis.likelihood import Likelihood, weighted_mean


@dataclass(frozen=True)
class Classes:
    """The discrete columns of a density, and all rows, including rows in which some numbers are missing."""

    density: MixedDensity
    rows: Looked
    """Rows as numbers, with the context of the density."""
    exists: NDArray[np.bool_]
    """The rows in which all numbers exist; all rows if no column has numbers."""
    log_prob: Floats
    """Log probabilities of the classes of each row."""
    scores: Floats
    """The scores of classes, shape (rows, discrete columns); not finite for a row of probability 0."""
    names: tuple[str, ...]
    """The names of the discrete columns, some of which are also numeric."""
    shares: tuple[tuple[Floats, str], ...]
    """For each discrete column, p-values of its values' shares of rows, and a description of the most extreme one."""

    @classmethod
    def of(
        cls,
        density: MixedDensity,
        rows: Sequence[Any],
        names: Sequence[str],
        context_names: Sequence[str] | None,
        labels: Sequence[Sequence[str]],
        seed: int,
    ) -> Classes:
        """`rows`: x, context and weights; `labels`: labels of each column's codes, empty for a column of numbers."""
        x, context, weights = rows
        head, numbers = density.head, density.as_numbers(x)
        looked = opened(numbers.shape[1], density.context, numbers, context, weights, None, None, seed, context_names)
        codes, inputs = head.opened(x)
        log_prob = head.of_rows(x, codes, inputs, looked.context)
        lower, upper = head.tails(codes, inputs, looked.context, stream(seed, 11).random(codes.shape))
        scores = np.where(np.isfinite(log_prob)[:, None], quantile(lower, upper), np.nan)
        each = head.log_probs(inputs[looked.index], looked.context_of(looked.index))
        shares = [
            _shares(column, codes[looked.index, i], np.exp(each[i]), names[column.column], labels[column.column])
            for i, column in enumerate(head.columns)
        ]
        called = tuple(names[column.column] + " (frequent or missing values)" * column.rest for column in head.columns)
        exists = density.exists(codes) if density.continuous else np.ones(len(x), bool)
        return cls(density, looked, exists, log_prob, scores, called, tuple(shares))

    def sample(self, n: int, context: Any, *, seed: Any, dtype: Any) -> Floats:
        """Draws of all columns, as numbers that a classifier can take."""
        return self.density.as_numbers(self.density.sample(n, context, seed=seed, dtype=dtype))

    def likelihood(self) -> Likelihood:
        """The mean log probability of the classes."""
        mean, error = weighted_mean(self.log_prob, self.rows.weights)
        return Likelihood("probabilities", mean, error, len(self.log_prob), np.nan, np.nan)

    def test(self) -> Finding:
        """A test of whether discrete values have the expected shares of rows, by Bernstein's inequality."""
        least = int(np.argmin([p.min() for p, _ in self.shares]))
        p, sentence = self.shares[least]
        looked = sum(share.size for share, _ in self.shares)
        return Finding(SHARES, least_of(float(p.min()), looked), looked, sentence)

    def beside(self, scores: Floats, good: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]]:
        """For all rows, scores of numeric columns followed by scores of classes, and a mask of the rows with a density.

        A row with missing numbers gets standard normal draws as scores of numeric columns, which are right under any
        density.

        Args:
            scores: Scores of numeric columns for the rows in which all numbers exist.
            good: A mask of the rows of `scores` that have a density.
        """
        every = stream(0, 12).standard_normal((len(self.exists), scores.shape[1]))
        every[self.exists] = scores
        has_density = np.asarray(np.isfinite(self.scores).all(axis=1))
        has_density[self.exists] &= good
        return np.concatenate([every, self.scores], axis=1), has_density

    def conditions(self, features: int) -> tuple[NDArray[Any], NDArray[np.bool_], tuple[str, ...]]:
        """The conditions, which are context and discrete values of each row; a mask of the coordinates to test against
        each condition; and names.

        `features`: the number of numeric coordinates, which precede coordinates of classes and are tested against all
        conditions.
        """
        head, context = self.density.head, self.rows.context
        values = self.rows.x[:, len(self.density.continuous) :]
        level = [i for i, part in enumerate(head.parts) for _ in range(part.start, part.stop)]
        before = np.array([-1] * self.density.context + [level[i] for i in head.given])
        after = np.concatenate([np.full(features, len(head.columns)), np.arange(len(head.columns))])
        names = (*self.rows.context_names, *(self.names[level[i]] for i in head.given))
        return values if context is None else np.concatenate([context, values], axis=1), before[:, None] < after, names


def _shares(
    column: Discrete, codes: NDArray[np.intp], expected: Floats, name: str, labels: Sequence[str]
) -> tuple[Floats, str]:
    """The p-value of the number of rows of each class, and a text about the class with the least p-value.

    `expected`: the probabilities of the classes in each row.
    """
    counts, mean = np.bincount(codes + 1, minlength=column.classes + 1)[1:], expected.sum(axis=0)
    away, spread = np.abs(counts - mean), (expected * (1.0 - expected)).sum(axis=0)
    p = np.minimum(2.0 * np.exp(-0.5 * np.square(away) / (spread + away / 3.0 + TINY)), 1.0)
    worst = int(p.argmin())
    values = ["a missing value" if v != v else labels[int(v)] if labels else f"{v:g}" for v in column.values]
    called = [*values, "another number"][worst]
    share, right = (f"{part[worst] / len(codes):.1%}" for part in (counts, mean))
    return p, f"column {name}, where {called} is the value of {share} of the rows in place of {right}"
