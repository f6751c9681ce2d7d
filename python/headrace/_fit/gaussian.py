"""The Gaussian of a fit's rows, from which fits of few rows start, and with which other densities are compared.

The Gaussian becomes fixed links of a flow; cross-validation chooses the share of the identity in its covariance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.row_parts import CHUNK
from headrace._base.types import Floats
from headrace._fit.given_rows import Data
from headrace._fit.source import ArrayRows, RowSource
from headrace._flow.flow import Flow
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.masked import Coupling
from headrace._flow.transforms.rotation import Rotation
from headrace._flow.transforms.support import circles_of
from headrace._flow.transforms.transform import Transform

SHARES = (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)  # share of the identity in a covariance
FOLDS = 5
LEAST_ROOT = 1e-6  # least standard deviation of a direction: float32 rounds a standardised row by up to 1e-7
CONSTANT = 1e-4  # the variance that replaces 0 for a constant column


def second_moments(z: Floats, share: Floats) -> tuple[Floats, Floats]:
    """Sums of z zᵀ over the weighted rows of each fold, shape (folds, columns, columns), and of the folds' weights."""
    folds = [slice(fold, None, FOLDS) for fold in range(FOLDS)]
    # `einsum` replaces a matrix product, whose order of summation would depend on the threads of the BLAS.
    moments = [np.einsum("ni,nj->ij", z[f] * share[f, None], z[f]) for f in folds]
    return np.stack(moments), np.array([share[f].sum() for f in folds])


@dataclass(frozen=True)
class Estimate:
    """A Gaussian of standardised rows, whose mean is linear in their contexts."""

    slopes: Floats
    """Slopes of the mean in the contexts, shape (features, contexts)."""
    directions: Floats
    """The eigenvectors of the covariance, as columns."""
    deviations: Floats
    """Standard deviations along `directions`."""
    spread: Floats
    """Eigenvalues of the covariance of the residuals, before the identity is mixed in."""
    is_identity: bool
    """Whether the covariance is the identity."""


def estimated(moments: Floats, weight: Floats, contexts: int = 0) -> Estimate | None:
    """Estimate a Gaussian from the `second_moments` of standardised rows whose last `contexts` columns are contexts.

    The Gaussian's mean is linear in the context, by ridge regression. The covariance of the residuals is mixed with the
    identity. Cross-validation chooses the share of the identity in the regression and in the covariance. A direction
    with a standard deviation below `LEAST_ROOT`, due to nearly collinear columns, gets `LEAST_ROOT`. The result is None
    if all rows are in one fold.
    """
    n = moments.shape[1] - contexts
    moments, still = moments.copy(), np.flatnonzero(np.diagonal(moments.sum(axis=0)) == 0.0)
    moments[:, still, still] = CONSTANT * weight[:, None]
    gains = np.zeros((len(SHARES), len(SHARES)))  # axes: the identity's share in the regression, in the covariance
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
    """The `estimated` Gaussian as links, by the symmetric root of its covariance, which moves coordinates least.

    The result is empty if neither the context nor correlations improve the density.
    """
    gaussian = estimated(moments, weight, contexts)
    if gaussian is None:
        return ()
    n = len(gaussian.deviations)
    shift: tuple[Transform, ...] = ()
    if gaussian.slopes.any():
        settings: dict[str, Any] = {"features": n, "passive": [], "context": contexts, "map": "additive"}
        shift = (Coupling.from_dense([gaussian.slopes.astype(dtype)], [np.zeros(n, dtype)], **settings),)
    if gaussian.is_identity:
        return shift
    vectors = gaussian.directions
    return Rotation(vectors.T), Standardize(np.zeros(n), gaussian.deviations), Rotation(vectors), *shift


def _slopes(moments: Floats, n: int, share: float) -> Floats:
    """Slopes of a ridge regression of the first n columns on the others, shape (n, others)."""
    if share == 1.0 or n == len(moments):
        return np.zeros((n, len(moments) - n))
    values, vectors = np.linalg.eigh(moments[n:, n:])
    turned = (1 - share) * np.einsum("ij,jk->ik", moments[:n, n:], vectors) / _mixed(values, share)
    return np.einsum("ij,kj->ik", turned, vectors)


def _of_residuals(moments: Floats, slopes: Floats) -> Floats:
    """Second moments of the residuals of a regression, from the moments of all columns and the slopes."""
    if not slopes.size:
        return moments
    matrix = np.concatenate([np.eye(len(slopes)), -slopes], axis=1)
    return np.einsum("ik,lk->il", np.einsum("ij,jk->ik", matrix, moments), matrix)


def _mixed(variances: Floats, share: float) -> Floats:
    """Variances, mixed with the variance 1 in the proportion `share`, and at least LEAST_ROOT²."""
    return np.maximum((1 - share) * np.maximum(variances, 0.0) + share, LEAST_ROOT**2)


Scale = tuple[Floats, Floats]
"""Mean and standard deviation of context columns."""

MOST_FEATURES = 64
QUIET = 0.1  # factor of the networks' last weights: the flow is then within 1e-4 nats of the Gaussian


def decorrelating(
    source: RowSource,
    mean: Floats,
    std: Floats,
    scale: Scale | None = None,
    dtype: Any = np.float32,
    curves: Sequence[Transform] = (),
) -> tuple[Transform, ...]:
    """Links, in the order from latent to data, that map standard normal rows to the Gaussian of the training rows.

    `scale`: means and standard deviations of the context columns; None without a context. `curves`: links between the
    result and the standardised data. Row i of each part of `source` is in fold i mod FOLDS.
    """
    contexts = 0 if scale is None else source.columns(of_context=True)
    contexts = contexts if contexts <= MOST_FEATURES else 0
    n = std.size + contexts
    if n == 1 or std.size > MOST_FEATURES or source.size < 2 * FOLDS or circles_of(source.support):
        return ()  # one column, too many columns, too few rows, or angles, which have no covariance

    def sums() -> Iterator[Floats]:
        for data in source.parts(CHUNK):
            z = joined(data, mean, std, scale if contexts else None, curves)
            moments, weight = second_moments(z, _arrays.on_host(data.shares()))
            yield np.concatenate([moments.ravel(), weight])

    sums_of_folds = source.sum(sums(), np.zeros(FOLDS * (n * n + 1)))
    return links_of(sums_of_folds[:-FOLDS].reshape(FOLDS, n, n), sums_of_folds[-FOLDS:], contexts, dtype)


def joined(data: Data, mean: Floats, std: Floats, scale: Scale | None, curves: Sequence[Transform] = ()) -> Floats:
    """Standardised rows on the latent side of `curves`; then the standardised contexts if `scale` is given."""
    z: Floats = (_arrays.on_host(data.unbounded(slice(None))) - mean) / std
    for curve in reversed(curves):
        z = curve.inverse(z)[0]
    if scale is None or data.context is None:
        return z
    context = _arrays.on_host(data.context).astype(np.float64)
    return np.concatenate([z, (context - scale[0]) / scale[1]], axis=1)


def gaussian_log_prob(
    points: NDArray[Any],
    rows: NDArray[Any],
    *,
    weights: NDArray[Any] | None = None,
    context: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> Floats:
    """Log densities of rows under the Gaussian that `estimated` fits to points: shape (rows,), float64.

    Args:
        points, rows: Shapes (points, features) and (rows, features).
        weights: Weights of the points; all 1 by default.
        context: Contexts of the points and of the rows, in which the Gaussian's mean is linear.

    Raises: numpy.linalg.LinAlgError: the points lie in a plane, or there are too few points.

    >>> import numpy as np
    >>> gaussian_log_prob(np.array([[-1.0], [1.0]]), np.array([[0.0]])).round(4).tolist()  # -log(2 pi) / 2
    [-0.9189]
    """
    of_points, of_rows = (None, None) if context is None else context
    source = ArrayRows(Data(points, of_points, weights))
    mean, std = source.moments()
    scale = None if of_points is None else source.moments(of_context=True)
    z = joined(source.data, mean, std, scale)
    moments, weight = second_moments(z, source.data.shares())
    n = std.size
    gaussian = estimated(moments, weight, z.shape[1] - n)
    if gaussian is None or not np.diagonal(moments.sum(axis=0))[:n].all():
        raise np.linalg.LinAlgError("a column is constant, or there are too few points")
    if not gaussian.spread.min() > n * np.finfo(np.float64).eps * gaussian.spread.max():
        raise np.linalg.LinAlgError("the points lie in a plane")
    z = joined(Data(rows, of_rows, None), mean, std, scale)
    white = (z[:, :n] - z[:, n:] @ gaussian.slopes.T) @ gaussian.directions / gaussian.deviations
    log_volume = np.log(gaussian.deviations).sum() + np.log(std).sum() + 0.5 * n * np.log(2 * np.pi)
    return -0.5 * np.square(white).sum(axis=1) - log_volume


def quietened(flow: Flow, parameters: NDArray[Any]) -> NDArray[Any]:
    """A copy of a flow's parameters in which the last weight matrix of each network is multiplied by `QUIET`."""
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
