"""Recalibration of a fitted flow by maps at the latent end, fitted to rows that the first fit has not seen.

The latent rows of the right density are independent and standard normal. After a fit to few simulations latent rows are
often not normal; a monotone map of each latent coordinate to a normal distribution corrects part of the error, without
a change of the fitted transforms. For scalar predictions: V. Kuleshov and others, *Accurate uncertainties for deep
learning using calibrated regression*, ICML 2018.
"""

from __future__ import annotations

import math
import warnings

import numpy as np

from headrace._arrays.caller import Array, Caller
from headrace._base import arguments as check
from headrace._base.rng import Rng, takes_rng
from headrace._base.types import Floats
from headrace._base.warn import FREQUENT, silent
from headrace._fit.few_rows import clearly_better
from headrace._fit.fit import Fit, finished
from headrace._fit.given_rows import open_rows
from headrace._fit.history import History, whole
from headrace._flow.bases import StandardNormal
from headrace._flow.fit_arguments import Arguments
from headrace._flow.flow import Flow
from headrace._flow.transforms.elementwise import Elementwise
from headrace._flow.transforms.fixed import Standardize
from headrace._tables.table import Column, Table, about_repeats

BINS, FOLDS = 4, 5
LEAST_ROWS = 50


@takes_rng
def recalibrate(
    flow: Flow,
    held_out: Array,
    context: Array | None = None,
    *,
    weights: Array | None = None,
    seed: int = 0,
    rng: Rng = None,
) -> Flow:
    """A recalibrated flow: the given transforms, and further maps of latent coordinates, fitted to held-out rows.

    Each latent coordinate is mapped by a spline of four bins and a scale, after a rotation if coordinates are clearly
    correlated. The maps are kept unless five-fold cross-validation shows a loss of log-likelihood above its standard
    error. Because the maps are the same for all contexts, they correct densities that are too wide or too narrow
    throughout, but not for some contexts alone.

    Args:
        flow: A flow on the CPU with the base `StandardNormal`; it is not changed.
        held_out: At least 50 rows that the fit has not seen, shape (rows, features).
        context: Context of the rows, shape (rows, context), as in `Flow.log_prob`.
        weights: Weights of the rows, at least 0, shape (rows,).
        seed: The seed of the folds and of the fits.
        rng: A generator instead of `seed`; see `Flow.sample`.

    Returns:
        A `Flow` of the maps and the transforms of the given flow, which can be saved; or the given flow itself, if the
        maps are clearly worse.

    Raises:
        TypeError, ValueError: As in `Flow.log_prob`; or the flow has another base, or rows are too few or have latent
            values that are not finite.

    >>> import numpy as np, headrace as hr
    >>> wide = hr.Flow([hr.transforms.Standardize([0.0, 0.0], [2.0, 1.5])])
    >>> x = np.random.default_rng(0).standard_normal((400, 2)).astype("float32")
    >>> repaired = hr.recalibrate(wide, x)
    >>> repaired.sample(10_000, seed=0).std(axis=0).round(1).tolist()
    [1.0, 1.0]
    """
    if not isinstance(flow, Flow):
        raise TypeError(f"flow: expected a flow, got {check.kind_of(flow)}")
    if not isinstance(flow.base, StandardNormal):
        raise ValueError(f"flow: expected the base StandardNormal, got {flow.base!r}")
    key = check.integer("seed", seed, most=2**31 - 1)
    parts = (held_out, context, weights, flow._interior.support)
    rows = open_rows("held_out ", flow.features, flow.context, Caller(), *parts)
    if len(rows.x) < LEAST_ROWS:
        raise ValueError(f"held_out: expected at least {LEAST_ROWS} rows, got {len(rows.x)}")
    for message in about_repeats(rows.x, Table((Column(),) * flow.features), flow._interior.names.features):
        warnings.warn(f"held_out: {message}", RuntimeWarning, stacklevel=2)
    z = flow.to_latent(rows.x, rows.context)[0].astype(np.float64)
    if not (finite := np.isfinite(z).all(axis=1)).all():
        got = f"{np.count_nonzero(~finite)} of {len(z)} without"
        raise ValueError(f"held_out: expected rows with finite latent rows, got {got}")
    share = None if rows.weights is None else np.asarray(rows.weights, np.float64)
    weight = np.ones(len(z)) if share is None else share
    if clearly_better(gains(z, share, key), np.zeros(len(z)), weight):
        return flow
    ends = _fitted(z, share, key).astype(flow.dtype).transforms
    scale = flow.standardize_context
    return Flow([*ends, *flow.transforms], flow.base, dtype=flow.dtype, standardize_context=scale, matmul=flow.matmul)


class _FitOfMap(Fit):
    """A fit without mixtures as the base, because `recalibrate` keeps only transforms of the fitted map."""

    mixes = False


@silent(FREQUENT)  # `recalibrate` has already warned about the rows
def _fitted(z: Floats, weights: Floats | None, seed: int) -> Flow:
    """The correcting map, as a flow whose data are the latent rows z."""
    n = z.shape[1]
    nothing = Standardize(np.zeros(n), np.ones(n))
    flow = Flow([Elementwise(n, map="rq_spline", bins=BINS, dtype="float64"), nothing])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # warnings would be about latent rows
        arguments = Arguments(weights=weights, seed=seed, gaussianize=False, progress=False)
        fit = _FitOfMap(flow, History(), arguments)
        fit.open(z, None)
        whole(finished(flow, fit.history, lambda: fit))
    return flow


def gains(z: Floats, weights: Floats | None, seed: int) -> Floats:
    """The gain of each latent row's log density by a map that was fitted to the other folds."""
    gained = np.empty(len(z))
    fold = np.random.default_rng([seed, 0x7265636C]).permutation(len(z)) % FOLDS
    for k in range(FOLDS):
        fitted = _fitted(z[fold != k], None if weights is None else weights[fold != k], seed)
        out = z[fold == k]
        plain = -0.5 * (np.square(out) + math.log(2.0 * math.pi)).sum(axis=1)
        gained[fold == k] = fitted.log_prob(out) - plain
    return gained
