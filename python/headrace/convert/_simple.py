"""Transforms without a network, made from attributes of other libraries' transforms."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace._flow.bases import Base, Normal, StandardNormal
from headrace.convert._parts import Layers, Numbers, Place, numbers
from headrace.transforms import ActNorm, Inverse, Linear, Permutation, Planar, Standardize, Transform


def permutation(place: Place, order: Any) -> Transform:
    """The permutation of a part whose call returns ``y[i] = x[order[i]]``."""
    indices = [int(i) for i in numbers(order)]
    return Permutation(indices if place.way == "to_data" else np.argsort(indices).tolist())


def affine(place: Place, scale: Numbers, shift: Numbers, *, is_trained: bool) -> Transform:
    """The affine map of a part whose call returns ``y = scale * x + shift``; only trained values become parameters."""
    if not (np.isfinite(scale) & (scale != 0) & np.isfinite(shift)).all():
        raise ValueError(f"{place.path}: expected finite scales other than 0 and finite shifts, got others")
    if (scale < 0).any():
        return linear(place, np.diag(scale), shift)
    if not is_trained:
        return Standardize(shift, scale) if place.way == "to_data" else Standardize(-shift / scale, 1.0 / scale)
    norm = ActNorm(len(scale), dtype="float64")._started_at(shift, scale)
    return norm if place.way == "to_data" else Inverse(norm)


def linear(place: Place, matrix: Numbers, shift: Numbers) -> Transform:
    """The linear map of a part whose call returns ``y = matrix @ x + shift``."""
    try:
        transform = Linear.from_matrix(matrix, shift, dtype="float64")
    except ValueError as error:
        raise ValueError(f"{place.path}: {error}") from None
    return transform if place.way == "to_data" else Inverse(transform)


_LEAST = 1e-3  # the least 1 + w'û of `headrace.transforms.Planar`, which is 1e-3 + softplus(a + c), and 1 at a = 0


def planar(place: Place, w: Numbers, moved: Numbers, b: float, slope: float | None) -> Transform:
    """The planar map of a part whose call returns ``y = x + moved * h(w @ x + b)``, h = tanh or a leaky ReLU.

    `headrace.transforms.Planar` computes û from u; `planar` chooses u so that û is `moved`.
    """
    along = float(w @ moved)
    if not (w.any() and 1.0 + along > _LEAST):
        raise ValueError(f"{place.path}: expected w other than 0 and 1 + w'u above {_LEAST}, got 1 + w'u = {1 + along}")
    if slope is not None and not 0.0 < slope < 1.0:
        raise place.differs("negative_slope", "a slope between 0 and 1", slope)
    raw = softplus_inverse(1.0 + along - _LEAST) - softplus_inverse(1.0 - _LEAST)
    options: dict[str, Any] = {} if slope is None else {"nonlinearity": "leaky_relu", "negative_slope": slope}
    transform = Planar(w.size, dtype="float64", **options)
    for name, value in (("w", w), ("u", moved + (raw - along) * w / (w @ w)), ("b", np.array([b]))):
        transform.set_parameter(name, value)
    return transform if place.way == "to_data" else Inverse(transform)


def softplus_inverse(y: float) -> float:
    """The inverse of softplus at y."""
    return y + float(np.log(-np.expm1(-y)))


def table(place: Place, features: int, active: Any, raw: Numbers, **settings: Any) -> Transform:
    """A map of the coordinates `active` with constant parameters `raw`, (active, values); all others pass unchanged."""
    chosen = [int(i) for i in active]
    passive = [i for i in range(features) if i not in chosen]
    layers = Layers()
    nothing = np.zeros((raw.size, len(passive)))
    layers.outputs(nothing, raw.reshape(-1), nothing)
    return layers.coupling(place, features, passive, **settings)


def normal(loc: Numbers, scale: Numbers, *, is_trained: bool) -> Base:
    """The normal base with the mean `loc` and the standard deviation `scale`."""
    if not is_trained and not loc.any() and (scale == 1).all():
        return StandardNormal(loc.size)
    return Normal(loc.size, loc, scale, trainable=is_trained)
