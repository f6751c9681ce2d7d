"""Objects in place of normflows' modules, made from a `state_dict` of normflows, for `_normflows.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from headrace.convert._nflows_files import coupling, lu_matrix, made, spline
from headrace.convert._parts import Place, numbers
from headrace.convert._state_dicts import Node, Stand, UnrecordedSettings, linear, listed, tree_of

NOT_RECORDED = {
    "activation": "normflows has ReLU by default, and MLP a LeakyReLU of slope 0, which is one: activation='relu'",
    "bound": "normflows calls it tail_bound: 3.0",
    "scale_map": "normflows has scale_map='exp' for AffineCouplingBlock",
    "split_mode": "normflows has split_mode='channel' for AffineCouplingBlock",
}

# Settings that the layers of normflows fix.
_FIXED = {"min_bin": 1e-3, "slope": 1e-3, "eps": 1e-3}


def stand_of(state: Mapping[str, Any], settings: Mapping[str, Any], place: Place) -> Stand:
    """The object for a flow."""
    UnrecordedSettings(settings, NOT_RECORDED)  # raises an error for unknown settings
    unrecorded = UnrecordedSettings({**settings, **_FIXED}, {**NOT_RECORDED, **dict.fromkeys(_FIXED, "")})
    tree = tree_of({key: value for key, value in state.items() if not key.startswith("p.")})  # p: a target density
    if set(tree) != {"q0", "flows"}:
        raise TypeError(f"model: expected a state_dict of a flow of normflows, got one with {sorted(tree)}")
    if set(tree["q0"]) != {"loc", "log_scale"}:
        raise NotImplementedError(f"model.q0: expected loc and log_scale of a normal density, got {sorted(tree['q0'])}")
    shape = tuple(tree["q0"]["loc"].shape[1:])
    base = Stand("normflows", "DiagGaussian", shape=shape, temperature=None, **tree["q0"])
    flows = place.at("flows")
    features = int(np.prod(shape))
    parts = [_flow(node, unrecorded, flows.at(i), features) for i, node in enumerate(listed(tree["flows"], flows))]
    return Stand("normflows", "NormalizingFlow", q0=base, flows=parts)


def _flow(node: Node, unrecorded: UnrecordedSettings, place: Place, features: int) -> Stand:
    for needed, optional, make in _KINDS:
        if needed <= set(node) <= needed | optional:
            return make(node, unrecorded, place, features)
    raise NotImplementedError(f"{place.path}: expected a flow that is known, got one with {sorted(node)}")


def _same(name: str, **more: Any) -> Callable[[Node, UnrecordedSettings, Place, int], Stand]:
    return lambda node, unrecorded, place, features: Stand("normflows", name, **node, **more)


def _composite(node: Node, unrecorded: UnrecordedSettings, place: Place, features: int) -> Stand:
    flows = place.at("_flows")
    parts = [_flow(part, unrecorded, flows.at(i), features) for i, part in enumerate(listed(node["_flows"], flows))]
    return Stand("normflows", "Composite", _flows=parts)


def _reverse(node: Node, unrecorded: UnrecordedSettings, place: Place, features: int) -> Stand:
    return Stand("normflows", "Reverse", flow=_flow(node["flow"], unrecorded, place.at("flow"), features))


def _invertible(node: Node, unrecorded: UnrecordedSettings, place: Place, features: int) -> Stand:
    if "W" in node:
        return Stand("normflows", "InvertibleAffine", use_lu=False, W=node["W"])
    lower = np.tril(numbers(node["L"]), -1) + np.eye(features)
    upper = np.triu(numbers(node["U"]), 1) + np.diag(numbers(node["sign_S"]) * np.exp(numbers(node["log_S"])))
    return Stand("normflows", "InvertibleAffine", use_lu=False, W=numbers(node["P"]) @ lower @ upper)


def _lu(node: Node, unrecorded: UnrecordedSettings, place: Place, features: int) -> Stand:
    matrix = lu_matrix(node["linear"], unrecorded.take("eps"))
    lu = Stand("normflows", "_LULinear", weight=lambda: matrix, bias=node["linear"]["bias"])
    return Stand("normflows", "LULinearPermute", permutation=Stand("normflows", "_", **node["permutation"]), linear=lu)


def _masked_affine(node: Node, unrecorded: UnrecordedSettings, place: Place, features: int) -> Stand:
    net, count = made(node["autoregressive_net"], unrecorded, place.at("autoregressive_net"))
    if count != 2:
        raise NotImplementedError(f"{place.path}: expected 2 outputs for each feature, got {count}")
    return Stand("normflows", "MaskedAffineAutoregressive", autoregressive_net=net)


def _masked_spline(node: Node, unrecorded: UnrecordedSettings, place: Place, features: int) -> Stand:
    place = place.at("mprqat")
    net, count = made(node["mprqat"]["autoregressive_net"], unrecorded, place.at("autoregressive_net"))
    spline_of = Stand("normflows", "_", autoregressive_net=net, **spline(count, unrecorded, place))
    return Stand("normflows", "AutoregressiveRationalQuadraticSpline", mprqat=spline_of)


def _coupled_spline(node: Node, unrecorded: UnrecordedSettings, place: Place, features: int) -> Stand:
    coupled = coupling(node["prqct"], unrecorded, place.at("prqct"))
    return Stand("normflows", "CoupledRationalQuadraticSpline", prqct=coupled)


def _net(node: Node, unrecorded: UnrecordedSettings, place: Place) -> Stand:
    """A `Stand` that represents layers or an MLP; an index without tensors after a linear layer is an activation."""
    inner, place = (node["net"], place.at("net")) if "net" in node else (node, place)
    if not all(name.isdigit() and isinstance(part, dict) and "weight" in part for name, part in inner.items()):
        raise NotImplementedError(f"{place.path}: expected linear layers alone, got {sorted(inner)}")
    modules: list[Any] = []
    for i in range(max(map(int, inner)) + 1):
        if str(i) in inner:
            modules.append(linear("torch", inner[str(i)]))
        elif isinstance(modules[-1], Stand):
            modules.append(unrecorded.take("activation"))  # a second missing part may be a dropout, which does nothing
    sequence = Stand("torch", "Sequential", modules)
    return Stand("normflows", "MLP", net=sequence) if "net" in node else sequence


def _size(net: Stand, end: int) -> int:
    modules = list(net.net if hasattr(net, "net") else net)
    return int(modules[end].weight.shape[0 if end else 1])


def _block(node: Node, unrecorded: UnrecordedSettings, place: Place, features: int) -> Stand:
    place = place.at("flows").at(1).at("param_map")
    net = _net(node["flows"]["1"]["param_map"], unrecorded, place)
    inputs, outputs = _size(net, 0), _size(net, -1)
    modes = {(features + 1) // 2: "channel", features // 2: "channel_inv"}
    if inputs not in modes or outputs not in (features - inputs, 2 * (features - inputs)):
        raise place.refused(f"inputs of half of {features} features, outputs for the rest, got {inputs} and {outputs}")
    mode = unrecorded.take("split_mode") if features % 2 == 0 else modes[inputs]
    has_scale = outputs == 2 * (features - inputs)
    scale_map = unrecorded.take("scale_map") if has_scale else "exp"
    inner = Stand("normflows", "AffineCoupling", param_map=net, scale=has_scale, scale_map=scale_map)
    split = Stand("normflows", "Split", mode=mode)
    return Stand("normflows", "AffineCouplingBlock", flows=[split, inner, split])


def _masked_flow(node: Node, unrecorded: UnrecordedSettings, place: Place, features: int) -> Stand:
    nothing = Stand("builtins", "builtin_function_or_method", __name__="zeros_like")
    nets = {name: _net(node[name], unrecorded, place.at(name)) if name in node else nothing for name in ("s", "t")}
    return Stand("normflows", "MaskedAffineFlow", b=node["b"], **nets)


# For each kind of flow, the required names of tensors and parts, and the optional names: kinds share some names.
_KINDS: list[tuple[set[str], set[str], Callable[[Node, UnrecordedSettings, Place, int], Stand]]] = [
    ({"_flows"}, set(), _composite),
    ({"flow"}, set(), _reverse),
    ({"mprqat"}, set(), _masked_spline),
    ({"prqct"}, set(), _coupled_spline),
    ({"autoregressive_net"}, set(), _masked_affine),
    ({"permutation", "linear"}, set(), _lu),
    ({"perm", "inv_perm"}, set(), _same("Permute", mode="shuffle")),
    ({"W"}, set(), _invertible),
    ({"P", "L", "U", "sign_S", "log_S", "eye"}, set(), _invertible),
    ({"s", "t", "data_dep_init_done"}, set(), _same("ActNorm")),
    ({"s", "t"}, set(), _same("AffineConstFlow")),
    ({"b"}, {"s", "t"}, _masked_flow),
    ({"flows"}, set(), _block),
]
