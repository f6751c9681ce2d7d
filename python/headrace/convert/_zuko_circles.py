"""Circular flows of zuko (NCSF): shifts by half a period and splines, with networks that read angles.

A transform maps each angle x to f(s(x)), where s(x) = x ± π within [-π, π), and f is a spline of [-π, π] onto itself.
The network reads x and not s(x), and no linear layer converts x to s(x). Each level of coordinates becomes a separate
coupling, which does not shift the coordinates that the network reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.convert._parts import Layers, Place, numbers
from headrace.convert._simple import table
from headrace.convert._zuko_networks import network_of
from headrace.transforms import Standardize, Support, Transform

CIRCULAR = "CircularRQSTransform"  # the name of zuko's function


def on_circles(chain: list[Transform], features: int) -> list[Transform]:
    """Transforms of [-1, 1) as transforms of angles: a scale before the chain, and periodic columns behind it."""
    ends = [(-math.pi, math.pi)] * features
    return [Standardize(np.zeros(features), np.full(features, 1.0 / math.pi)), *chain, Support(None, ends)]


def circular(t: Any, place: Place, features: int, *, bins: int, slope: float) -> list[Transform]:
    """The transforms for a circular transform of zuko, from latent to data, for angles in units of π."""
    if place.way == "to_data":
        raise place.unknown(t, "a circular transform that is not inverted", "invert the flow that is trained instead")
    settings = {"map": "rq_spline", "bins": bins, "slope": slope, "bound": 1.0}
    if not hasattr(t, "hyper"):  # the transform has one feature and no context
        raw = np.concatenate([numbers(part).reshape(features, -1) for part in t.phi], axis=1)
        every = list(range(features))
        return [table(place, features, every, raw, **settings), *_half_a_period(features, every)]
    chain: list[Transform] = []
    for passive, active, layers in _levels(t, place, features, 3 * bins - 1):
        layers.weights[0][:, : len(passive)] *= math.pi  # the network reads angles
        chain += [layers.coupling(place, features, passive, **settings), *_half_a_period(features, active)]
    return chain


def _half_a_period(features: int, active: list[int]) -> list[Transform]:
    """The shift of some coordinates of [-1, 1) by half a period, which is its own inverse."""
    wrap = Support(None, [(-1.0, 1.0) if i in active else None for i in range(features)])
    mean = np.array([1.0 if i in active else 0.0 for i in range(features)])
    return [wrap, Standardize(mean, np.ones(features)), wrap]


def _levels(t: Any, place: Place, features: int, count: int) -> Iterator[tuple[list[int], list[int], Layers]]:
    """Yield passive and active coordinates of each level, from the first level on, and the level's part of the network.

    `count`: the number of outputs for a coordinate.
    """
    inner = place.at("hyper")
    if hasattr(t, "mask"):
        passive = np.flatnonzero(numbers(t.mask))
        active = np.setdiff1d(np.arange(features), passive)
        yield passive.tolist(), active.tolist(), network_of(t.hyper, inner, passive.size)
        return
    is_masked = hasattr(t, "passes")  # without passes, the network of one feature reads only the context
    level = np.zeros(features, np.int64)
    if is_masked:
        level = _level_of(network_of(t.hyper, inner, features), features, count)
    for number in range(int(level.max()) + 1):
        layers = network_of(t.hyper, inner, features if is_masked else 0)
        unmoved, active = np.flatnonzero(level != number), np.flatnonzero(level == number)
        if is_masked:
            read = np.concatenate([unmoved, np.arange(features, features + layers.context)])
            layers.weights[0], layers.masks[0] = layers.weights[0][:, read], layers.masks[0][:, read]
        rows = (active[:, None] * count + np.arange(count)).ravel()
        layers.weights[-1], layers.masks[-1] = layers.weights[-1][rows], layers.masks[-1][rows]
        layers.biases[-1] = layers.biases[-1][rows]
        yield unmoved.tolist(), active.tolist(), layers


def _level_of(layers: Layers, features: int, count: int) -> NDArray[np.int64]:
    """Levels of coordinates, from masks: one above the highest level that a coordinate's outputs read; 0 if none."""
    reach: list[Any] = []
    for mask, layer in zip(layers.masks, [*layers.layers, None], strict=True):
        seen = mask.astype(float) @ reach[-1] if reach else mask[:, :features].astype(float)
        if layer is not None and layer.adds is not None:
            seen = seen + reach[layer.adds]
        reach.append(np.minimum(seen, 1.0))
    reads = reach[-1].reshape(features, count, features).any(axis=1)
    level = np.zeros(features, np.int64)
    for _ in range(features):
        level = np.array([max((level[j] + 1 for j in np.flatnonzero(reads[i])), default=0) for i in range(features)])
    return level
