"""Flows of flowtorch 0.8, which is no longer developed, from a `state_dict`: dense autoregressive layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace import Flow, StandardNormal
from headrace._base import arguments as check
from headrace._flow.transforms.transform import Transform
from headrace.convert._parts import Layers, Place, activation_of, numbers
from headrace.convert._scales import by_relus
from headrace.convert._simple import softplus_inverse
from headrace.convert._state_dicts import UnrecordedSettings, finished_file, is_file, listed, tree_of

NOT_RECORDED = {
    "activation": "flowtorch has nonlinearity=torch.nn.ReLU: activation='relu'",
    "bound": "flowtorch has bound=3.0",
    "order": "flowtorch has order='linear', of which headrace has no spline; order='quadratic' is converted",
}
_LOG_SCALES = (-5.0, 3.0)  # the limits of an affine layer's log scales
_LEAST = 1e-3  # the least size of bins and derivatives, which flowtorch fixes


def from_flowtorch(model: Mapping[str, Any], *, verify: Any = True, **not_recorded: Any) -> Flow:
    """A trained flow of flowtorch 0.8 as a `headrace.Flow` with the same density, in the same dtype.

    Parts may be `AffineAutoregressive` with its default limits of scales, and `SplineAutoregressive` of quadratic
    order, alone or composed, with `DenseAutoregressive` networks. The base is assumed to be standard normal, because a
    `state_dict` does not record it.

    Args:
        model: The `state_dict` of a `flowtorch.distributions.Flow` or of its bijector.
        verify: ``(x, log_prob)``, computed by flowtorch, or False.
        **not_recorded: Settings that a `state_dict` lacks: `activation` of networks, and `bound` and `order` of
            splines.

    Raises:
        TypeError: `model` is not a `state_dict`, or has parameters of several dtypes.
        NotImplementedError: a part has no counterpart in headrace; the message has its path.
        ValueError: log densities differ by more than rounding, or a setting is missing.
    """
    if not is_file(model):
        raise TypeError(f"model: expected a state_dict, as model.state_dict() gives it, got {check.kind_of(model)}")
    unrecorded, place = UnrecordedSettings(not_recorded, NOT_RECORDED), Place("model", "to_data")
    return finished_file(place, model, verify, lambda: _flow(tree_of(model), unrecorded, place))


def _flow(tree: Mapping[str, Any], unrecorded: UnrecordedSettings, place: Place) -> Flow:
    if set(tree) == {"bijector"}:
        tree, place = tree["bijector"], place.at("bijector")
    parts = [tree]
    if set(tree) == {"bijectors"}:
        place = place.at("bijectors")
        parts = listed(tree["bijectors"], place)
    chain = [_layer(part, unrecorded, place.at(i)) for i, part in enumerate(parts)]
    return Flow(chain, StandardNormal(chain[0].features))


def _layer(part: Mapping[str, Any], unrecorded: UnrecordedSettings, place: Place) -> Transform:
    net = part.get("_params_fn", {})
    if set(part) != {"_params_fn"} or set(net) != {"layers", "permutation"}:
        names = sorted(net) if set(part) == {"_params_fn"} else sorted(part)
        raise place.refused(f"a DenseAutoregressive, got a part with {names}")
    indices = sorted(map(int, net["layers"]))
    if indices != [*range(0, 2 * len(indices), 2)]:
        raise place.refused(f"masked layers with activations between, and no skip connections, got layers {indices}")
    activation = activation_of(place.at("nonlinearity"), unrecorded.take("activation"))
    layers = Layers()
    *hidden, last = ([net["layers"][str(i)].get(name) for name in ("weight", "bias", "mask")] for i in indices)
    for weight, bias, mask in hidden:
        layers.hidden(numbers(weight), numbers(bias), mask, activation=activation)
    layers.outputs(numbers(last[0]), numbers(last[1]), last[2])
    features = layers.weights[0].shape[1]
    count = len(layers.biases[-1]) // features
    if count == 2:
        _cut_off(layers)
        return layers.autoregressive(place, map="affine", scale="exp")
    if (order := unrecorded.take("order")) != "quadratic" or (count + 1) % 3:
        got = f"{order!r} with {count} outputs a feature"
        raise NotImplementedError(f"{place.path}: expected a spline of order 'quadratic', of 3 K - 1, got {got}")
    bins, bound = (count + 1) // 3, float(unrecorded.take("bound"))
    # In flowtorch derivatives at both ends are 1 - _LEAST, and not 1 as in other libraries.
    ends = np.zeros(count + 2)
    ends[[2 * bins, -1]] = softplus_inverse(1.0 - 2 * _LEAST)
    layers.spread_outputs([*range(2 * bins), -1, *range(2 * bins, count), -1], ends, features)
    settings: dict[str, Any] = {"bins": bins, "bound": bound, "min_bin": _LEAST, "slope": _LEAST}
    return layers.autoregressive(place, map="rq_spline_flowjax", **settings)


def _cut_off(layers: Layers) -> None:
    """Apply the limits of log scales, unless a bounded hidden layer already keeps log scales within the limits."""
    low, high = _LOG_SCALES
    raw, bias, is_scale = layers.weights[-1], layers.biases[-1], np.arange(len(layers.biases[-1])) % 2 == 1
    is_bounded = layers.layers and layers.layers[-1].activation in ("tanh", "sigmoid")
    most = np.abs(raw).sum(axis=1) if is_bounded else np.inf
    if not ((bias - most >= low) & (bias + most <= high))[is_scale].all():
        by_relus([(1.0, -low, 1.0), (1.0, -high, -1.0)], low, layers, is_scale)
