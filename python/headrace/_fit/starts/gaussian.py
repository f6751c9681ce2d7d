"""The Gaussian of rows, with shares of the identity that cross-validation chooses, as fixed links of a flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace._base.types import Floats
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.masked import Coupling
from headrace._flow.transforms.rotation import Rotation
from headrace._flow.transforms.transform import Transform

SHARES = (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)  # share of the identity in a covariance
FOLDS = 5
LEAST_ROOT = 1e-6  # standard deviation of a direction: float32 rounds a standardised row by up to 1e-7
CONSTANT = 1e-4  # variance of a column that is constant


def second_moments(z: Floats, share: Floats) -> tuple[Floats, Floats]:
    """Weighted second moments of rows, one matrix per fold, and the folds' weights."""
    folds = [slice(fold, None, FOLDS) for fold in range(FOLDS)]
    # Not a matrix product, because its order of summation would depend on the threads of the BLAS.
    moments = [np.einsum("ni,nj->ij", z[f] * share[f, None], z[f]) for f in folds]
    return np.stack(moments), np.array([share[f].sum() for f in folds])


@dataclass(frozen=True)
class Estimate:
    """A Gaussian of standardised rows, whose mean is linear in their contexts."""

    slopes: Floats
    """Of the mean in the contexts, shape (features, contexts)."""
    directions: Floats
    """The eigenvectors of the covariance, as columns."""
    deviations: Floats
    """Standard deviations along them."""
    spread: Floats
    """Eigenvalues of the covariance of the residuals, before the identity is mixed in."""
    is_identity: bool
    """Whether the covariance is the identity."""


def estimated(moments: Floats, weight: Floats, contexts: int = 0) -> Estimate | None:
    """The Gaussian from the `second_moments` of standardised rows, with their contexts in the last columns.

    Its mean is linear in the context: a ridge regression. Its covariance is that of the residuals, mixed with the
    identity. Cross-validation chooses both shares of the identity. A direction with hardly any spread, from nearly
    collinear columns, gets the deviation `LEAST_ROOT`. None where one fold has all rows.
    """
    n = moments.shape[1] - contexts
    moments, still = moments.copy(), np.flatnonzero(np.diagonal(moments.sum(axis=0)) == 0.0)
    moments[:, still, still] = CONSTANT * weight[:, None]
    gains = np.zeros((len(SHARES), len(SHARES)))  # of a share in the regression, and one in the covariance
    gains[:-1] = 0.0 if contexts else -np.inf
    for fold in range(FOLDS):
        rest = weight.sum() - weight[fold]
        if not rest > 0:
            return None
        known = (moments.sum(axis=0) - moments[fold]) / rest
        for ridge in range(0 if contexts else len(SHARES) - 1, len(SHARES)):
            slopes = _slopes(known, n, SHARES[ridge])
            values, vectors = np.linalg.eigh(_of_residuals(known, slopes))
            seen = np.einsum("ij,ik,kj->j", vectors, _of_residuals(moments[fold], slopes), vectors)
            for i, share in enumerate(SHARES):
                variance = _mixed(values, share)
                gains[ridge, i] -= 0.5 * (weight[fold] * np.log(variance) + seen / variance).sum()
    ridge, i = divmod(int(np.argmax(gains)), len(SHARES))
    known = moments.sum(axis=0) / weight.sum()
    slopes = _slopes(known, n, SHARES[ridge])
    values, vectors = np.linalg.eigh(_of_residuals(known, slopes))
    return Estimate(slopes, vectors, np.sqrt(_mixed(values, SHARES[i])), values, SHARES[i] == 1.0)


def links_of(moments: Floats, weight: Floats, contexts: int = 0, dtype: Any = np.float32) -> tuple[Transform, ...]:
    """The links of the `estimated` Gaussian; its covariance as the symmetric root, which moves the coordinates least.

    No links where neither context nor correlations gain.
    """
    found = estimated(moments, weight, contexts)
    if found is None:
        return ()
    n = len(found.deviations)
    shift: tuple[Transform, ...] = ()
    if found.slopes.any():
        own: dict[str, Any] = {"features": n, "passive": [], "context": contexts, "map": "additive"}
        shift = (Coupling.from_dense([found.slopes.astype(dtype)], [np.zeros(n, dtype)], **own),)
    if found.is_identity:
        return shift
    vectors = found.directions
    return Rotation(vectors.T), Standardize(np.zeros(n), found.deviations), Rotation(vectors), *shift


def _slopes(moments: Floats, n: int, share: float) -> Floats:
    """Ridge regression of the first n columns on the others: shape (n, others)."""
    if share == 1.0 or n == len(moments):
        return np.zeros((n, len(moments) - n))
    values, vectors = np.linalg.eigh(moments[n:, n:])
    turned = (1 - share) * np.einsum("ij,jk->ik", moments[:n, n:], vectors) / _mixed(values, share)
    slopes: Floats = np.einsum("ij,kj->ik", turned, vectors)
    return slopes


def _of_residuals(moments: Floats, slopes: Floats) -> Floats:
    """Second moments of the residuals of a regression."""
    if not slopes.size:
        return moments
    left = np.concatenate([np.eye(len(slopes)), -slopes], axis=1)
    found: Floats = np.einsum("ik,lk->il", np.einsum("ij,jk->ik", left, moments), left)
    return found


def _mixed(variances: Floats, share: float) -> Floats:
    """Variances with a share of 1 mixed in, and a lower limit."""
    mixed: Floats = np.maximum((1 - share) * np.maximum(variances, 0.0) + share, LEAST_ROOT**2)
    return mixed
