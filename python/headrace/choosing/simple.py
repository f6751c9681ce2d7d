"""Densities without training, as flows: the Gaussian of rows, and a kernel density."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace._fit.gaussian import decorrelating
from headrace._fit.given_rows import Data
from headrace._fit.source import ArrayRows
from headrace._fit.starts.kernels import KernelDensity
from headrace._flow.flow import Flow
from headrace._flow.periodic import base_of_circles, wrapped
from headrace._flow.tails import NormalMixture
from headrace._flow.transforms.elementwise import Elementwise
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.linear import Linear
from headrace._flow.transforms.masked import Coupling, MaskedAutoregressive
from headrace._flow.transforms.on_columns import OnColumns
from headrace._flow.transforms.support import Support, circles_of
from headrace._flow.transforms.transform import Transform
from headrace.choosing.sample import Sample

MOST_POINTS = 2000  # kernels


def gaussian(sample: Sample, support: Support | None, dtype: Any, *, say: bool = False) -> Flow:
    """The Gaussian of the rows, off their support; correlations are shrunk where rows are few."""
    rows, circles = ArrayRows(Data(sample.x, None, sample.weights, (), support)), circles_of(support)
    mean, std = rows.moments(say=say)
    mean[circles], std[circles] = 0.0, 1.0
    ends: list[Transform] = [Standardize(mean, std), *([] if support is None else [support])]
    if not circles:
        return Flow([*decorrelating(rows, mean, std), *ends], dtype=dtype)
    line = [c for c in range(mean.size) if c not in circles]
    links: list[Transform] = []
    if line:
        own = ArrayRows(Data(rows.data.unbounded(slice(None))[:, line], None, sample.weights))
        links = [_among(link, line, mean.size) for link in decorrelating(own, mean[line], std[line])]
    return Flow([*links, *ends], base_of_circles(None, mean.size, circles), dtype=dtype)


def _among(link: Transform, line: Sequence[int], features: int) -> Transform:
    """A link of some columns among all."""
    if not isinstance(link, Standardize):
        return OnColumns(link, line, features)
    mean, std = np.zeros(features), np.ones(features)
    mean[line], std[line] = link.mean, link.std
    return Standardize(mean, std)


def linear_gaussian(features: int, context: int, support: Support | None, dtype: Any) -> Flow:
    """A normal density to be fitted, with a mean that is linear in the context."""
    circles = circles_of(support)
    line = [c for c in range(features) if c not in circles]
    ends: list[Transform] = [Standardize(np.zeros(features), np.ones(features))]
    ends += [] if support is None else [support]
    if not line:  # the uniform density stays uniform, but takes the context
        shift = Coupling(features, [], (), map="additive", context=context, dtype=dtype)
        return Flow([wrapped(features, circles), shift, *ends], base_of_circles(None, features, circles), dtype=dtype)
    own: list[Transform] = [
        Elementwise(len(line), map="affine", dtype=dtype),
        MaskedAutoregressive(len(line), (), map="additive", context=context, dtype=dtype),
    ]
    if not circles:
        return Flow([*own, *ends], dtype=dtype)
    moved = [OnColumns(t, line, features) for t in own]
    return Flow([*moved, *ends], base_of_circles(None, features, circles), dtype=dtype)


def kernels(sample: Sample, support: Support | None, dtype: Any, seed: int) -> Flow | None:
    """Normal kernels with the covariance of the rows, at most 2000 of them; None where the rows lie in a plane.

    None also where columns are periodic, because a normal kernel ends at no seam.
    """
    if circles_of(support):
        return None
    x = sample.x if support is None else support.inverse(sample.x.astype(np.float64))[0]
    points, share = np.asarray(x, np.float64), sample.weights
    if len(points) > MOST_POINTS:
        chosen = np.random.default_rng([seed, 0x6B6465]).choice(len(points), MOST_POINTS, replace=False)
        points, share = points[chosen], None if share is None else share[chosen]
    if len(points) < 3:
        return None
    try:
        found = KernelDensity.of(points, share)
        linear = Linear.from_matrix(found.factor, found.centre, dtype=dtype)
    except (np.linalg.LinAlgError, ValueError):  # a plane, to the dtype's precision
        return None
    own: dict[str, Any] = {"loc": found.white, "scale": found.bandwidth, "weights": found.weights}
    base = NormalMixture(points.shape[1], len(points), **own, trainable=False)
    return Flow([linear, *([] if support is None else [support])], base, dtype=dtype)
