"""The Gaussian of a fit's rows: few rows start from it, and other densities are compared with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._base.types import Floats
from headrace._fit.given_rows import Data
from headrace._fit.source import ArrayRows, RowSource
from headrace._fit.starts.gaussian import FOLDS, estimated, links_of, second_moments
from headrace._flow.internals import Trainable
from headrace._flow.transforms.support import circles_of
from headrace._flow.transforms.transform import Transform
from headrace.rows._held_out import CHUNK

Scale = tuple[Floats, Floats]
"""Mean and standard deviation of context columns."""

MOST_FEATURES = 64
QUIET = 0.1  # remaining share of the networks' last weights: the flow is that Gaussian within some 1e-4 nats


def decorrelating(
    source: RowSource,
    mean: Floats,
    std: Floats,
    scale: Scale | None = None,
    dtype: Any = np.float32,
    curves: Sequence[Transform] = (),
) -> tuple[Transform, ...]:
    """Links from latent to standardised data that give standard normal rows the Gaussian of the training rows.

    See `estimated`. `scale`: of the context columns; None without any. `curves`: links between these and the
    standardised data. The fold of a row depends on its index in its part.
    """
    contexts = 0 if scale is None else source.columns(of_context=True)
    contexts = contexts if contexts <= MOST_FEATURES else 0
    n = std.size + contexts
    if n == 1 or std.size > MOST_FEATURES or source.size < 2 * FOLDS or circles_of(source.support):
        return ()  # among others because a circle has no covariance with a line

    def sums() -> Iterator[Floats]:
        for data in source.parts(CHUNK):
            z = joined(data, mean, std, scale if contexts else None, curves)
            moments, weight = second_moments(z, _arrays.on_host(data.shares()))
            yield np.concatenate([moments.ravel(), weight])

    found = source.sum(sums(), np.zeros(FOLDS * (n * n + 1)))
    return links_of(found[:-FOLDS].reshape(FOLDS, n, n), found[-FOLDS:], contexts, dtype)


def joined(data: Data, mean: Floats, std: Floats, scale: Scale | None, curves: Sequence[Transform] = ()) -> Floats:
    """Standardised rows behind `curves`, followed by their standardised contexts if there is a `scale` for these."""
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
    """Log density of rows, shape (rows,), under the Gaussian of points, see `estimated`, in float64.

    Args:
        points, rows: Shapes (points, features) and (rows, features).
        weights: Of the points.
        context: Of the points and of the rows: the Gaussian's mean is then linear in it.

    Raises:
        numpy.linalg.LinAlgError: the points lie in a plane, or there are too few of them.

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
    found = estimated(moments, weight, z.shape[1] - n)
    if found is None or not np.diagonal(moments.sum(axis=0))[:n].all():
        raise np.linalg.LinAlgError("a column is constant, or there are too few points")
    if not found.spread.min() > n * np.finfo(np.float64).eps * found.spread.max():
        raise np.linalg.LinAlgError("the points lie in a plane")
    z = joined(Data(rows, of_rows, None), mean, std, scale)
    white = (z[:, :n] - z[:, n:] @ found.slopes.T) @ found.directions / found.deviations
    log_volume = np.log(found.deviations).sum() + np.log(std).sum() + 0.5 * n * np.log(2 * np.pi)
    result: Floats = -0.5 * np.square(white).sum(axis=1) - log_volume
    return result


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
