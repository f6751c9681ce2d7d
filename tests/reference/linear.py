"""A linear map by triangular factors: a product with a matrix, and the solution of linear equations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Linear:
    """The map ``x_i = s_i y_order[i] + shift_i`` with ``y = L D U z`` forward; L and U have ones on their diagonals."""

    upper: np.ndarray
    log_diagonal: np.ndarray
    lower: np.ndarray
    shift: np.ndarray
    order: Sequence[int]
    signs: Sequence[int]

    @property
    def matrix(self):
        n = len(self.shift)
        permutation = np.zeros((n, n))
        for i, (j, sign) in enumerate(zip(self.order, self.signs, strict=True)):
            permutation[i, j] = sign
        lower = np.eye(n) + np.tril(np.asarray(self.lower, np.float64), -1)
        upper = np.eye(n) + np.triu(np.asarray(self.upper, np.float64), 1)
        return permutation @ lower @ np.diag(np.exp(np.asarray(self.log_diagonal, np.float64))) @ upper

    def forward(self, z, context=None):
        matrix = self.matrix
        x = np.asarray(z, np.float64) @ matrix.T + self.shift
        return x, np.full(len(x), np.linalg.slogdet(matrix)[1])

    def inverse(self, x, context=None):
        matrix = self.matrix
        z = np.linalg.solve(matrix, (np.asarray(x, np.float64) - self.shift).T).T
        return z, np.full(len(z), -np.linalg.slogdet(matrix)[1])
