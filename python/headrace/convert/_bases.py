"""Base densities of other libraries as bases of headrace, each with maps that precede the transforms."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace import Base, NormalMixture, StudentT, Uniform
from headrace._flow.transforms.transform import Transform
from headrace.convert._parts import OTHER_BASE, Numbers, Place, class_of, numbers
from headrace.convert._simple import affine, linear, normal

BaseAndMaps = tuple[Base, list[Transform]]  # maps in latent → data order


def box(place: Place, low: Numbers, high: Numbers) -> BaseAndMaps:
    """A uniform base, and a map of each column to the interval from `low` to `high`, if necessary."""
    if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
        raise ValueError(f"{place.path}: expected finite lower ends below finite upper ends, got others")
    base = Uniform(low.size)
    if (low == -1).all() and (high == 1).all():
        return base, []
    return base, [affine(Place("", "to_data"), 0.5 * (high - low), 0.5 * (low + high), is_trained=False)]


def student(place: Place, df: Numbers, loc: Numbers, scale: Numbers, *, is_trained: bool) -> BaseAndMaps:
    """A base of Student's t distribution, and an affine map for location and scale, if necessary."""
    base = StudentT(df.size, df, trainable=is_trained)
    if not is_trained and not loc.any() and (scale == 1).all():
        return base, []
    return base, [affine(Place(place.path, "to_data"), scale, loc, is_trained=is_trained)]


def mixture(logits: Numbers, loc: Numbers, scale: Numbers, *, is_trained: bool) -> BaseAndMaps:
    """A base of a mixture of normals, with weights softmax(`logits`); `logits`: (K,), `loc` and `scale`: (K, D)."""
    weights = np.exp(logits - logits.max())
    scale = np.broadcast_to(scale, loc.shape)
    components, features = loc.shape
    return NormalMixture(features, components, loc=loc, scale=scale, weights=weights, trainable=is_trained), []


TORCH = "a normal, uniform or Student's t distribution, or a mixture of diagonal normal ones"


def of_torch(made: Any, place: Place, *, is_trained: bool) -> BaseAndMaps:
    """The base and maps for a distribution of rows from `torch.distributions` or zuko.

    `made` is a MultivariateNormal, a Mixture of zuko, or an `Independent` of a Normal, Uniform or StudentT or a
    subclass.
    """
    package, kind = class_of(made)
    if (package, kind) == ("torch", "MultivariateNormal") and made.loc.ndim == 1:
        base = normal(np.zeros(made.loc.shape[0]), np.ones(made.loc.shape[0]), is_trained=False)
        return base, [linear(Place(place.path, "to_data"), numbers(made.scale_tril), numbers(made.loc))]
    if (package, kind) == ("zuko", "Mixture"):
        return _mixture(made, place, is_trained=is_trained)
    if kind in ("Independent", "DiagNormal", "BoxUniform") and getattr(made, "reinterpreted_batch_ndims", 1) == 1:
        dist = made.base_dist
        inner = class_of(dist)
        if inner == ("torch", "Normal") and dist.loc.ndim == 1:
            return normal(numbers(dist.loc), numbers(dist.scale), is_trained=is_trained), []
        if inner == ("torch", "Uniform") and dist.low.ndim == 1:
            return box(place, numbers(dist.low), numbers(dist.high))
        if inner == ("torch", "StudentT") and dist.df.ndim == 1:
            return student(place, *(numbers(a) for a in (dist.df, dist.loc, dist.scale)), is_trained=is_trained)
        made = dist
    raise place.unknown(made, TORCH, OTHER_BASE)


def _mixture(made: Any, place: Place, *, is_trained: bool) -> BaseAndMaps:
    inner = made.base
    if class_of(inner) != ("zuko", "DiagNormal") or inner.base_dist.loc.ndim != 2:
        expected = "normal components without correlations, as by covariance_type='diagonal'"
        raise place.at("base").unknown(inner, expected, OTHER_BASE)
    normals = inner.base_dist
    return mixture(numbers(made.logits), numbers(normals.loc), numbers(normals.scale), is_trained=is_trained)
