"""Muon in float64: orthogonal steps for the blocks of a staircase of weights, and AdamW for all other parameters."""

from __future__ import annotations

import numpy as np

STEPS, A, B, C = 5, 3.4445, -4.7750, 2.0315


def orthogonal(x):
    """Five steps of Newton and Schulz, with the coefficients of Jordan 2024, on the whole matrix."""
    x = x / (1.01 * np.linalg.norm(x) + 1e-12)
    for _ in range(STEPS):
        gram = x @ x.T
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x


def staircase(mask):
    """The blocks of a matrix, as indices of rows and columns: rows with equal masks are a block."""
    for inputs in np.unique(mask, axis=0):
        if inputs.any():
            yield np.ix_((mask == inputs).all(axis=1), inputs)


class Muon:
    """The steps of one matrix by Muon."""

    def __init__(self, mask, norm, momentum=0.95):
        self.blocks, self.norm, self.momentum = list(staircase(mask)), norm, momentum
        self.mean = np.zeros(mask.shape)

    def direction(self, gradient):
        """The matrix that the learning rate multiplies."""
        self.mean += (1.0 - self.momentum) * (gradient - self.mean)
        nesterov = (1.0 - self.momentum) * gradient + self.momentum * self.mean
        update = np.zeros_like(self.mean)
        for block in self.blocks:
            update[block] = self.norm * orthogonal(nesterov[block])
        return update
