"""Flows from the arrays of a flow of flowjax, without flowjax: leaves in the order of equinox's files.

Order and shapes of arrays identify the ready-made flow, and the number of outputs identifies flowjax's version: splines
of flowjax 14 to 17 have 3 knots + 2 parameters, those of flowjax 18 and newer 3 knots + 4.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._flow.bases import StandardNormal
from headrace._flow.flow import Flow
from headrace.convert._parts import ACTIVATIONS, Layers, Numbers, Place, activation_of, numbers
from headrace.convert._simple import normal, permutation, softplus_inverse
from headrace.convert._state_dicts import UnrecordedSettings

NOT_RECORDED = {
    "activation": "flowjax has nn_activation=jax.nn.relu: activation='relu'",
    "transformer": "flowjax has an affine one: transformer='affine'; or the arguments of the spline that the flow was "
    "made with: transformer={'knots': 8, 'interval': 4}",
    "invert": "flowjax has invert=True",
}
_SPLINE = ("knots", "interval", "min_derivative", "min_width", "softmax_adjust")

Arrays = list[NDArray[Any]]
Head = tuple[dict[str, Any], Numbers]
"""The settings of a map, and flowjax' offsets of a network's outputs for a coordinate."""
Reader = Callable[[Any, Place], Head]


def is_arrays(model: Any) -> bool:
    """Whether `model` is the path of a file of equinox, or a list of arrays."""
    return isinstance(model, (str, os.PathLike, list, tuple))


def leaves_of(model: Any) -> Arrays:
    """The arrays of a file that `equinox.tree_serialise_leaves` wrote, or of a list; scalars are left out."""
    leaves: Arrays = []
    if isinstance(model, (str, os.PathLike)):
        with open(model, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            while file.tell() < size:
                leaves.append(np.load(file, allow_pickle=False))
    else:
        for i, leaf in enumerate(model):
            if not hasattr(leaf, "shape"):
                raise TypeError(f"model[{i}]: expected an array, got {check.kind_of(leaf)}")
            leaves.append(np.asarray(leaf))
    return [leaf for leaf in leaves if leaf.ndim]


def flow_of(leaves: Arrays, settings: Mapping[str, Any], place: Place, bijection: Reader, call: Any) -> Flow:
    """The flow in float64. `bijection` reads transformers of flowjax, and `call` calls functions of JAX."""
    unrecorded = UnrecordedSettings(settings, NOT_RECORDED)
    transformer, activation, invert = (unrecorded.take(name) for name in ("transformer", "activation", "invert"))
    activation = activation_of(place.at("activation"), activation, call)
    way = Place(place.path, "to_latent" if invert else "to_data")
    masks: Any
    kinds: Any = ((3, "f"), (2, "f"), (1, "f"), (3, "b"), (2, "iu"))
    weights, biases, base, masks, orders = (
        [leaf for leaf in leaves if leaf.ndim == n and leaf.dtype.kind in kind] for n, kind in kinds
    )
    shapes = ", ".join(str(leaf.shape) for leaf in leaves)
    if not weights:
        raise place.refused(f"weights (layers, units, inputs), got arrays of shapes {shapes}")
    count = len(weights[0])  # the number of transforms
    expected = [*[leaf.shape[:2] for leaf in weights], *[leaf.shape for leaf in orders[:1]] * 2]
    unlike = place.refused(
        f"leaves of a masked_autoregressive_flow or coupling_flow with this transformer, got {shapes}"
    )
    if [leaf.shape for leaf in (*biases, *orders)] != expected or len(base) not in (0, 2) or len(weights) < 2:
        raise unlike
    for features in [orders[0].shape[1]] if orders else [2, 1]:
        sides = range(0 if masks else features // 2)  # coordinates that pass unchanged
        active, columns = features - len(sides), weights[0].shape[2] - (features if masks else len(sides))
        outputs, rest = divmod(weights[-1].shape[1], active)
        head = None if rest or columns < 0 or columns + features == 1 else _head(transformer, outputs, place, bijection)
        if head is not None and masks and [leaf.shape for leaf in masks] != [leaf.shape for leaf in weights]:
            raise unlike
        if head is None or any(leaf.shape != (features,) for leaf in base):
            continue
        chain = []
        for i in range(count):
            layers = Layers(columns)
            arrays = zip(weights, biases, masks or [None] * len(weights), strict=True)
            *hidden, last = ((numbers(w[i]), numbers(b[i]), None if m is None else m[i]) for w, b, m in arrays)
            for weight, bias, mask in hidden:
                layers.hidden(weight, bias, mask, activation=activation)
            layers.outputs(*last)
            layers.biases[-1] = layers.biases[-1] + np.tile(head[1].astype(weights[0].dtype), active)
            if head[0]["map"] == "rq_spline_flowjax17":
                _halve(layers, head[0]["bins"] - 1, active)
            layer = layers.autoregressive(way, **head[0]) if masks else layers.coupling(way, features, sides, **head[0])
            order = [permutation(way, orders[0][i] if orders else [1, 0])] if features > 1 else []
            chain.append(way.ordered([[layer], order]))
        if not base:
            return Flow(way.ordered(chain), StandardNormal(features))
        loc, raw = map(numbers, base)
        return Flow(way.ordered(chain), normal(loc, ACTIVATIONS["softplus"](raw), is_trained=True))
    raise unlike


def _halve(layers: Layers, knots: int, active: int) -> None:
    """Convert outputs for K widths and heights to K + 1 bins, where each end gets half of the first bin."""
    half, k = [-math.log(2.0), *[0.0] * (knots - 1), -math.log(2.0)], knots
    rows = [*range(k), 0, *range(k, 2 * k), k, *range(2 * k, 3 * k + 2)]
    layers.spread_outputs(rows, np.array([*half, *half, *[0.0] * (k + 2)]), active)


def _head(transformer: Any, outputs: int, place: Place, bijection: Reader) -> Head | None:
    """Settings and offsets of a transformer's map if it has `outputs` parameters for a coordinate; else None."""
    if isinstance(transformer, str):
        check.choice("transformer", transformer, ("affine",))
        options = {"map": "affine", "scale": "softplus", "slope": 1e-2}, np.array([0.0, softplus_inverse(1.0 - 1e-2)])
    elif isinstance(transformer, Mapping):
        options = _spline(transformer, outputs)
    else:
        knots = getattr(transformer, "knots", None)
        if knots is not None and outputs == 3 * knots + 2:
            raise ValueError(
                f"transformer: expected the arguments of the spline, such as {{'knots': {knots}, 'interval': 4, "
                "'min_derivative': 1e-3, 'softmax_adjust': 1e-2}, for arrays of flowjax 14 to 17, which have "
                f"3 knots + 2 parameters, got a {type(transformer).__name__} of another version"
            )
        options = bijection(transformer, place.at("transformer"))
    return options if len(options[1]) == outputs else None


def _spline(keywords: Mapping[str, Any], outputs: int) -> Head:
    """The spline with the arguments `keywords` of flowjax, where only knots and interval have no default."""
    if unknown := set(keywords) - set(_SPLINE):
        raise TypeError(f"transformer: expected only {', '.join(_SPLINE)}, got {sorted(unknown)[0]!r}")
    if missing := [name for name in _SPLINE[:2] if name not in keywords]:
        raise ValueError(f"transformer: expected {missing[0]!r}, an argument of flowjax's RationalQuadraticSpline")
    k, interval = check.integer("transformer['knots']", keywords["knots"], least=1), keywords["interval"]
    low, high = (float(end) for end in (interval if np.ndim(interval) else (-interval, interval)))
    slope = float(keywords.get("min_derivative", 1e-3))
    settings = {"bins": k + 1, "bound": (low, high), "slope": slope}
    ends = [softplus_inverse(1.0 - slope)] * (k + 2)
    if outputs == 3 * k + 2:
        adjust = float(keywords.get("softmax_adjust", 1e-2))
        options = {"map": "rq_spline_flowjax17", "min_bin": adjust / k / (1.0 + adjust)}
        return {**options, **settings}, np.array([*[0.0] * 2 * k, *ends])
    options = {"map": "rq_spline_flowjax", "min_bin": float(keywords.get("min_width", 1e-3)) / (high - low)}
    return {**options, **settings}, np.array([*[0.0] * 2 * (k + 1), *ends])
