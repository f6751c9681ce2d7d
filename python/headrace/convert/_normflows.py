"""Flows of normflows, whose calls map latent rows to data, except in wrappers that invert a transform."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from headrace._flow.flow import Flow
from headrace._flow.transforms.transform import Transform
from headrace.convert._bases import BaseAndMaps, box, mixture
from headrace.convert._nflows import conditional_normal, coupling_transform, spline
from headrace.convert._normflows_files import stand_of
from headrace.convert._parts import (
    CIRCULAR_FLOW,
    OTHER_BASE,
    OTHER_FLOW,
    Converter,
    Layers,
    Numbers,
    Place,
    class_of,
    numbers,
)
from headrace.convert._residual import masked_network, modules_of, plain_network
from headrace.convert._scales import LEAST_SLOPE
from headrace.convert._simple import affine, linear, normal, permutation, planar
from headrace.convert._state_dicts import finished_file, is_file, without_files
from headrace.convert._torch import finished, opened, tensors_of


def from_normflows(model: Any, *, verify: Any = True, **not_recorded: Any) -> Flow:
    """A trained flow of normflows as a `headrace.Flow` with the same density, in the same dtype.

    Parts may be affine and rational-quadratic autoregressive and coupling flows, masked affine flows (RealNVP, NICE),
    permutations, LU and other linear maps, and activation normalisation; and `Reverse` of all of these. A
    `MaskedAffineAutoregressive` of normflows reads the latent side, like an IAF. Bases may be `DiagGaussian`,
    `Uniform`, `GaussianMixture` and `ConditionalDiagGaussian`, and with `verify` any base that has a `context_encoder`
    and the formula of `ConditionalDiagGaussian`.

    Args:
        model: A `normflows.NormalizingFlow` or `ConditionalNormalizingFlow`, or its `state_dict`.
        verify: Whether to compare log densities of some rows with the model's. For a `state_dict`, ``(x, log_prob)`` or
            ``(x, log_prob, context)`` computed by normflows, or False.
        **not_recorded: Settings that a `state_dict` does not record, for a `state_dict` alone: `activation`, `bound`
            (tail_bound), `scale_map` and `split_mode` of `AffineCouplingBlock`. A last flow without tensors (`Permute`
            by "swap") and a function of an MLP's outputs are not in a `state_dict`, but `verify` detects them.

    Raises:
        TypeError: `model` is not a flow of normflows, or has parameters of several dtypes.
        NotImplementedError: a part has no counterpart in headrace; the message has its class and path.
        ValueError: an activation normalisation has seen no rows; log densities differ by more than rounding; or a layer
            is in training mode and computes other values in evaluation mode (batch norm, dropout).
    """
    place = Place("model", "to_data")
    if is_file(model):
        stand = stand_of(model, not_recorded, place)
        return finished_file(place, model, verify, lambda: flow_of(stand, place))
    without_files(not_recorded)
    copied = opened(model, "a flow of normflows", "flows", "q0")
    if class_of(model)[1] == "MultiscaleFlow":
        raise place.unknown(model, "a NormalizingFlow or ConditionalNormalizingFlow of vectors", OTHER_FLOW)
    lost = _lost_constant(copied.q0)

    def log_prob(x: Any, context: Any) -> Any:
        return (copied.log_prob(x) if context is None else copied.log_prob(x, context)) + lost

    return finished(place, _tensors(model), lambda: flow_of(copied, place, verify), log_prob if verify else None)


def flow_of(model: Any, place: Place, is_compared: bool = False) -> Flow:
    """The flow in float64; `is_compared`: whether the caller compares the flow with the model."""
    base, maps = _base(model.q0, place.at("q0"), is_compared)
    parts = [_chain(part, place.at("flows").at(i), base.features) for i, part in enumerate(model.flows)]
    return Flow([*maps, *(t for part in parts for t in part)], base)


def _base(base: Any, place: Place, is_compared: bool) -> BaseAndMaps:
    kind = class_of(base)
    if is_compared and hasattr(base, "context_encoder") and np.ndim(getattr(base, "shape", 0)) == 1:
        kind = ("normflows", "ConditionalDiagGaussian")  # a base of any class: `verify` tests the formula
    if kind == ("normflows", "GaussianMixture"):
        is_trained = any(p.requires_grad for p in base.parameters())
        loc, log_scale, logits = (numbers(a)[0] for a in (base.loc, base.log_scale, base.weight_scores))
        return mixture(logits, loc, np.exp(log_scale), is_trained=is_trained)
    if kind == ("normflows", "Uniform") and len(base.shape) == 1:
        low, high = (np.broadcast_to(numbers(a), base.shape).copy() for a in (base.low, base.high))
        return box(place, low, high)
    if kind == ("normflows", "ConditionalDiagGaussian") and len(base.shape) == 1:
        layers = _mlp(base.context_encoder, place.at("context_encoder"), 0)
        return conditional_normal(layers, place, base.shape[0])
    if kind != ("normflows", "DiagGaussian") or len(base.shape) != 1:
        expected = "a DiagGaussian, ConditionalDiagGaussian, GaussianMixture or Uniform of one dimension"
        raise place.unknown(base, expected, OTHER_BASE)
    if base.temperature is not None:
        raise place.differs("temperature", "None", base.temperature)
    is_trained = any(p.requires_grad for p in base.parameters())
    return normal(numbers(base.loc).ravel(), np.exp(numbers(base.log_scale).ravel()), is_trained=is_trained), []


def _tensors(model: Any) -> list[Any]:
    """The tensors that determine a model's dtype, without those of a GaussianMixture, which are always float64."""
    if class_of(model.q0) == ("normflows", "GaussianMixture") and (tensors := tensors_of(model.flows)):
        return tensors
    return tensors_of(model)


def _lost_constant(base: Any) -> float:
    """The rounding error in the log density of normflows' Uniform, in the dtype of its ends, float32 by default."""
    if class_of(base) != ("normflows", "Uniform"):
        return 0.0
    widths = np.broadcast_to(numbers(base.high) - numbers(base.low), base.shape)
    return float(-np.log(widths).sum() - numbers(base.log_prob_val).item())


def _chain(t: Any, place: Place, features: int) -> list[Transform]:
    """The transforms of a part, from latent to data."""

    def instead(kind: str) -> str:
        return CIRCULAR_FLOW if kind.startswith("Circular") else OTHER_FLOW

    return place.converted(t, features, ("normflows",), CONVERTERS, instead)


def _composite(t: Any, place: Place, features: int) -> list[Transform]:
    return place.ordered([_chain(part, place.at("_flows").at(i), features) for i, part in enumerate(t._flows)])


def _permute(t: Any, place: Place, features: int) -> list[Transform]:
    if t.mode == "shuffle":
        return [permutation(place, t.perm)]
    half = features // 2
    return [permutation(place, np.r_[half:features, :half])]


def _constant(t: Any, place: Place, features: int) -> list[Transform]:
    if hasattr(t, "data_dep_init_done") and not bool(t.data_dep_init_done):
        raise ValueError(f"{place.path}: expected one that has been started by its first rows, got a fresh one")
    is_trained = any(p.requires_grad for p in t.parameters())
    return [affine(place, np.exp(numbers(t.s).ravel()), numbers(t.t).ravel(), is_trained=is_trained)]


def _invertible(t: Any, place: Place, features: int) -> list[Transform]:
    """The linear map of a part whose inverse multiplies rows from the right by a matrix W."""
    matrix = numbers(t._assemble_W() if t.use_lu else t.W).T
    return [linear(place.turned(), matrix, np.zeros(features))]


def _lu(t: Any, place: Place, features: int) -> list[Transform]:
    """The transforms of a part that, from data to latent, permutes and then multiplies by the matrix L U."""
    place = place.turned()
    parts = [[permutation(place, t.permutation._permutation)]]
    parts.append([linear(place, numbers(t.linear.weight()), numbers(t.linear.bias))])
    return place.ordered(parts)


def _masked_affine(t: Any, place: Place, features: int) -> list[Transform]:
    layers = masked_network(t.autoregressive_net, place.at("autoregressive_net"), context_activation=False)
    return [layers.autoregressive(place, map="affine", scale="sigmoid", slope=1e-3, outputs=("scale", "shift"))]


def _masked_spline(t: Any, place: Place, features: int) -> list[Transform]:
    place = place.at("mprqat").turned()
    layers = masked_network(t.mprqat.autoregressive_net, place.at("autoregressive_net"), context_activation=False)
    return [layers.autoregressive(place, **spline(t.mprqat, place))]


def _coupled_spline(t: Any, place: Place, features: int) -> list[Transform]:
    place = place.at("prqct").turned()
    return coupling_transform(t.prqct, place, features, **spline(t.prqct, place))


def _mlp(net: Any, place: Place, inputs: int) -> Layers:
    if class_of(net) == ("normflows", "MLP"):
        return plain_network(net.net, place.at("net"), inputs)
    if (modules := modules_of(net, inputs)) is not None:
        return plain_network(modules, place, inputs)
    instead = "use normflows' MLP, or a module that holds one torch.nn.Sequential and calls nothing else"
    raise place.unknown(net, "an MLP without a function of its outputs", instead)


def _block(t: Any, place: Place, features: int) -> list[Transform]:
    """The transforms of a block: a split in two halves, an affine coupling of the halves, and their merge."""
    split, inner, _ = t.flows
    place = place.at("flows").at(1)
    halves = np.array_split(np.arange(features), [(features + 1) // 2])
    if split.mode not in ("channel", "channel_inv"):
        raise place.differs("split_mode", "'channel' or 'channel_inv'", split.mode)
    passive = halves[0] if split.mode == "channel" else halves[1]
    layers = _mlp(inner.param_map, place.at("param_map"), len(passive))
    if not inner.scale:
        return [layers.coupling(place, features, passive, map="additive")]
    if inner.scale_map == "exp":
        return [layers.coupling(place, features, passive, map="affine", scale="exp")]
    scale: dict[str, Any] = {"map": "affine", "scale": "sigmoid", "slope": LEAST_SLOPE}
    if inner.scale_map == "sigmoid_inv":
        return [layers.coupling(place, features, passive, **scale)]
    if inner.scale_map != "sigmoid":
        raise place.differs("scale_map", "'exp', 'sigmoid' or 'sigmoid_inv'", inner.scale_map)
    # y = x / σ + t: an inverted coupling without a shift, and a coupling with a shift alone
    moves = _mlp(inner.param_map, place.at("param_map"), len(passive))
    is_shift = np.arange(2 * (features - len(passive))) % 2 == 0
    layers.scale_outputs(np.where(is_shift, 0.0, 1.0))
    weight, bias, mask = moves.weights.pop(), moves.biases.pop(), moves.masks.pop()
    moves.outputs(weight[is_shift], bias[is_shift], mask[is_shift])
    without_shift = layers.coupling(place.turned(), features, passive, **scale)
    parts = [[without_shift], [moves.coupling(place, features, passive, map="additive")]]
    return place.ordered(parts)


def _masked_flow(t: Any, place: Place, features: int) -> list[Transform]:
    """The coupling b z + (1 - b) (z exp(s(b z)) + t(b z)), whose networks s and t become one network of blocks."""
    kept = numbers(t.b).ravel()
    if not np.isin(kept, (0.0, 1.0)).all():
        raise place.differs("b", "a mask of 0 and 1", kept.tolist())
    passive, active = np.flatnonzero(kept == 1), np.flatnonzero(kept == 0)
    if not len(active):
        return []
    nets = {name: _full_network(getattr(t, name), place.at(name), features) for name in ("t", "s")}
    trained = {name: net for name, net in nets.items() if net is not None}
    if not trained:
        return []
    for net in trained.values():
        net.weights[0], net.masks[0] = net.weights[0][:, passive], net.masks[0][:, passive]
        net.weights[-1], net.biases[-1] = net.weights[-1][active], net.biases[-1][active]
        net.masks[-1] = net.masks[-1][active]
    if list(trained) == ["t"]:
        return [trained["t"].coupling(place, features, passive, map="additive")]
    layers = _beside(trained, place, len(active))
    return [layers.coupling(place, features, passive, map="affine", scale="exp", layout="blocked")]


def _full_network(net: Any, place: Place, features: int) -> Layers | None:
    """The layers of a network of all coordinates; None for a function that returns zeros."""
    if class_of(net)[0] == "builtins" and getattr(net, "__name__", "") == "zeros_like":
        return None
    return _mlp(net, place, features)


def _beside(nets: dict[str, Layers], place: Place, active: int) -> Layers:
    """The networks of shifts and scales as one network, with rows of zeros for missing shifts."""
    both = [nets[name] for name in ("t", "s") if name in nets]
    if len({tuple((layer.activation, layer.dropout) for layer in net.layers) for net in both}) != 1:
        raise place.differs("s", "a network of as many layers and the same activations and dropout as t", nets)
    layers = Layers()
    for i, same in enumerate(both[0].layers):
        weights, biases = ([getattr(net, name)[i] for net in both] for name in ("weights", "biases"))
        weight, bias, mask = _diagonal(weights, biases, is_first=i == 0)
        layers.hidden(weight, bias, mask, activation=str(same.activation))
        layers.layers[-1] = replace(layers.layers[-1], dropout=same.dropout)
    is_first = not layers.layers
    weight, bias, mask = _diagonal([net.weights[-1] for net in both], [net.biases[-1] for net in both], is_first)
    if len(both) == 1:
        weight, mask = (np.vstack([np.zeros_like(a), a]) for a in (weight, mask))
        bias = np.concatenate([np.zeros(active), bias])
    layers.outputs(weight, bias, mask)
    return layers


def _diagonal(weights: list[Numbers], biases: list[Numbers], is_first: bool) -> tuple[Numbers, Numbers, Numbers]:
    """One layer made of a layer of each network: first layers share their inputs, later layers have separate inputs."""
    if is_first:
        weight = np.vstack(weights)
        return weight, np.concatenate(biases), np.ones_like(weight)
    shape = np.sum([w.shape for w in weights], axis=0)
    weight, mask = np.zeros(shape), np.zeros(shape)
    row = column = 0
    for block in weights:
        at = slice(row, row + block.shape[0]), slice(column, column + block.shape[1])
        weight[at], mask[at] = block, 1.0
        row, column = at[0].stop, at[1].stop
    return weight, np.concatenate(biases), mask


def _planar(t: Any, place: Place, features: int) -> list[Transform]:
    if t.act != "leaky_relu" and place.way == "to_data":
        raise place.differs("act", "'leaky_relu', or a Reverse of it, whose density normflows has", t.act)
    w, u = numbers(t.w).ravel(), numbers(t.u).ravel()
    along = float(w @ u)
    moved = u + (np.logaddexp(0.0, along) - 1.0 - along) * w / (w @ w)
    slope = None
    if t.act == "leaky_relu":  # normflows' inverse computes (slope - 1) + 1 in float32, whatever the model's dtype
        slope = float(np.float32(t.h.negative_slope - 1.0) + np.float32(1.0))
    return [planar(place, w, moved, float(numbers(t.b).item()), slope)]


CONVERTERS: dict[str, Converter] = {
    "Planar": _planar,
    "Composite": _composite,
    "Reverse": lambda t, place, features: _chain(t.flow, place.at("flow").turned(), features),
    "Permute": _permute,
    "AffineConstFlow": _constant,
    "ActNorm": _constant,
    "InvertibleAffine": _invertible,
    "LULinearPermute": _lu,
    "MaskedAffineAutoregressive": _masked_affine,
    "AutoregressiveRationalQuadraticSpline": _masked_spline,
    "CoupledRationalQuadraticSpline": _coupled_spline,
    "AffineCouplingBlock": _block,
    "MaskedAffineFlow": _masked_flow,
}
