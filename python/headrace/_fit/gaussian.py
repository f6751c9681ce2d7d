"""The Gaussian that a fit starts from where rows are few, as fixed links at the data end of a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._fit.rows import CHUNK, Data, Part
from headrace.transforms.fixed import Standardize
from headrace.transforms.rotation import Rotation
from headrace.transforms.support import Support
from headrace.transforms.transform import Transform

if TYPE_CHECKING:
    from headrace._interior import Trainable

__all__ = ["decorrelating", "has_correlations", "links_of", "quietened"]

Floats = NDArray[np.float64]

MOST_FEATURES = 64
SHARES = (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)  # of the identity in a covariance
FOLDS = 5
QUIET = 0.1  # what is left of the networks' last weights, so that the flow is that Gaussian within some 1e-4 nats


def decorrelating(data: Data, part: Part, mean: Floats, std: Floats) -> tuple[Transform, ...]:
    """Links from latent to standardised data that give standard normal rows the covariance of the training rows.

    They are the symmetric root of the covariance, which moves the coordinates least. The covariance is mixed with the
    identity by a share that is chosen by cross-validation. None where that is all of it.
    """
    if not has_correlations(std.size, part.size, data.support):
        return ()
    data, part = data.standing_for(part)
    return links_of(*_second_moments(data, part, mean, std))


def has_correlations(features: int, rows: int, support: Support | None) -> bool:
    """Whether they are looked for: a circle has none with a line."""
    circles = support is not None and any(support.periodic)
    return 2 <= features <= MOST_FEATURES and rows >= 2 * FOLDS and not circles


def links_of(moments: Floats, weight: Floats) -> tuple[Transform, ...]:
    """See `decorrelating`; of second moments of standardised rows, a matrix for each fold, and the folds' weights."""
    n = moments.shape[1]
    gains = np.zeros(len(SHARES))
    for fold in range(FOLDS):
        rest = weight.sum() - weight[fold]
        if not rest > 0:
            return ()
        values, vectors = np.linalg.eigh((moments.sum(axis=0) - moments[fold]) / rest)
        seen = np.einsum("ij,ik,kj->j", vectors, moments[fold], vectors)
        for i, share in enumerate(SHARES):
            variance = (1 - share) * np.maximum(values, 0.0) + share
            with np.errstate(divide="ignore", invalid="ignore"):
                gain = -0.5 * (weight[fold] * np.log(variance) + seen / variance).sum()
            gains[i] += gain if np.isfinite(gain) else -np.inf
    share = SHARES[int(np.argmax(gains))]
    if share == 1.0:
        return ()
    values, vectors = np.linalg.eigh(moments.sum(axis=0) / weight.sum())
    root = np.sqrt((1 - share) * np.maximum(values, 0.0) + share)
    if not root.min() > 1e-6:
        return ()
    return Rotation(vectors.T), Standardize(np.zeros(n), root), Rotation(vectors)


def _second_moments(data: Data, part: Part, mean: Floats, std: Floats) -> tuple[Floats, Floats]:
    """Of standardised rows, a matrix for each fold, and the folds' weights. At most `CHUNK` rows stand for all."""
    asarray = _arrays.library(data.x).asarray
    places = np.arange(min(part.size, CHUNK), dtype=np.int64) * part.size // min(part.size, CHUNK)
    rows = asarray(part.at(places))
    z = (_arrays.on_host(data.unbounded(rows)) - mean) / std
    share = np.ones(len(z)) if data.weights is None else _arrays.on_host(data.weights[rows]).astype(np.float64)
    folds = [slice(fold, None, FOLDS) for fold in range(FOLDS)]
    # Not a matrix product, whose order of summation would depend on the threads of the BLAS.
    moments = [np.einsum("ni,nj->ij", z[f] * share[f, None], z[f]) for f in folds]
    return np.stack(moments), np.array([share[f].sum() for f in folds])


def quietened(flow: Trainable, parameters: NDArray[Any]) -> NDArray[Any]:
    """Parameters of a flow, on the host, with the last weights of each network shrunk."""
    vector, start = parameters.copy(), 0
    for block in flow._interior.blocks():
        part = slice(start, start + block.size)
        named = block.named(vector[part])
        layers = [name for name in named if name.endswith(".weight")]
        if layers:
            named[layers[-1]] = QUIET * named[layers[-1]]
            vector[part] = block.pack_named(named)
        start = part.stop
    return vector
