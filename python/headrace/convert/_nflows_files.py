"""Objects in place of nflows' modules, made from a `state_dict` of nflows or glasflow, for `_nflows.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from headrace.convert._parts import Numbers, Place, numbers
from headrace.convert._state_dicts import Node, Stand, UnrecordedSettings, linear, listed, tree_of

NOT_RECORDED = {
    "activation": "nflows has ReLU by default, and sbi's MAF tanh: activation='relu'",
    "bound": "nflows calls it tail_bound: 1.0, in sbi 3.0",
    "min_bin": "nflows has 1e-3 for min_bin_width and min_bin_height",
    "slope": "nflows has 1e-3 for min_derivative",
    "scale_activation": "affine couplings of nflows 0.14 have lambda a: torch.sigmoid(a + 2) + 1e-3",
    "eps": "nflows has 1e-3 for LULinear and SVDLinear",
    "batch_norm_eps": "nflows has 1e-5 for its BatchNorm between transforms",
}

BLOCK_EPS = 1e-3  # the eps of batch norms in blocks, which nflows fixes
MAF_EPS = 1e-3  # the least scale of an autoregressive transform, which nflows fixes


def stand_of(
    state: Node, settings: Node, place: Place, known: Mapping[str, str] = NOT_RECORDED, library: str = "nflows"
) -> Stand:
    """A `Stand` that represents a flow; `known`: hints about defaults of settings that a `state_dict` lacks."""
    unrecorded, tree = UnrecordedSettings(settings, known, library), tree_of(state)
    if "_transform" not in tree or not set(tree) <= {"_transform", "_distribution", "_embedding_net"}:
        raise TypeError(f"model: expected a state_dict of a flow of nflows or glasflow, got one with {sorted(tree)}")
    inner = place.at("_transform")
    features = _features(tree["_transform"])
    if not features:
        raise NotImplementedError("model._transform: expected parts that tell the number of features, got none")
    base = tree.get("_distribution", {})
    if set(base) == {"mean_", "log_std_"}:
        distribution = Stand("nflows", "DiagonalNormal", **base)
    elif set(base) <= {"_log_z"}:
        distribution = Stand("nflows", "StandardNormal", _shape=(features,))
    else:
        raise NotImplementedError(f"model._distribution: expected a normal density, got one with {sorted(base)}")
    net = Stand("a state_dict", "embedding net") if tree.get("_embedding_net") else None
    transform = _transform(tree["_transform"], unrecorded, inner)
    return Stand("nflows", "Flow", _transform=transform, _distribution=distribution, _embedding_net=net)


def _features(node: Node) -> int:
    """The number of features, from the first part that determines this number; 0 without such a part."""
    if "autoregressive_net" in node:
        return int(node["autoregressive_net"]["initial_layer"]["weight"].shape[1])
    if "transform_net" in node:
        return len(node["identity_features"]) + len(node["transform_features"])
    if "q_vectors" in node:
        return int(node["q_vectors"].shape[1])
    for name in ("_permutation", "bias", "running_mean", "log_scale"):
        if name in node:
            return len(node[name])
    return next((n for part in node.values() if isinstance(part, dict) and (n := _features(part))), 0)


def _transform(node: Node, unrecorded: UnrecordedSettings, place: Place) -> Stand:
    for needed, make in _KINDS:
        if needed <= set(node):
            return make(node, unrecorded, place)
    raise NotImplementedError(f"{place.path}: expected a transform that is known, got one with {sorted(node)}")


def _composite(node: Node, unrecorded: UnrecordedSettings, place: Place) -> Stand:
    inner = place.at("_transforms")
    parts = [_transform(part, unrecorded, inner.at(i)) for i, part in enumerate(listed(node["_transforms"], inner))]
    return Stand("nflows", "CompositeTransform", _transforms=parts)


def _inverse(node: Node, unrecorded: UnrecordedSettings, place: Place) -> Stand:
    inner = _transform(node["_transform"], unrecorded, place.at("_transform"))
    return Stand("nflows", "InverseTransform", _transform=inner)


def spline(count: int, unrecorded: UnrecordedSettings, place: Place) -> dict[str, Any]:
    """The attributes of a transform with splines whose network has `count` outputs for each feature."""
    bins, rest = divmod(count + 1, 3)
    if rest or bins < 2:
        raise place.refused(f"3 K - 1 outputs a feature, as linear tails have, got {count}")
    least = dict.fromkeys(("min_bin_width", "min_bin_height"), float(unrecorded.take("min_bin")))
    ends = {"tails": "linear", "tail_bound": float(unrecorded.take("bound"))}
    return {"num_bins": bins, **least, **ends, "min_derivative": float(unrecorded.take("slope"))}


def made(node: Node, unrecorded: UnrecordedSettings, place: Place) -> tuple[Stand, int]:
    """A `Stand` that represents a MADE, and the number of the MADE's outputs for each feature."""
    features = int(node["initial_layer"]["weight"].shape[1])
    return _network("MADE", node, unrecorded, place), _outputs(node, features, place)


def _outputs(net: Node, features: int, place: Place) -> int:
    """The number of outputs of a network for each feature."""
    count, rest = divmod(int(net["final_layer"]["weight"].shape[0]), features)
    if rest:
        raise place.refused(f"as many outputs for each feature, got {count} and {rest} more")
    return count


def _masked(node: Node, unrecorded: UnrecordedSettings, place: Place) -> Stand:
    net, count = made(node["autoregressive_net"], unrecorded, place.at("autoregressive_net"))
    if count == 2:
        # In nflows the formula of the scale is fixed; in glasflow's copy of nflows it is an argument.
        scale = {"scale_activation": unrecorded.take("scale_activation")} if unrecorded.library == "glasflow" else {}
        return Stand("nflows", "MaskedAffineAutoregressiveTransform", autoregressive_net=net, _epsilon=MAF_EPS, **scale)
    name = "MaskedPiecewiseRationalQuadraticAutoregressiveTransform"
    return Stand("nflows", name, autoregressive_net=net, **spline(count, unrecorded, place))


def coupling(node: Node, unrecorded: UnrecordedSettings, place: Place) -> Stand:
    """A `Stand` that represents a coupling with a ResidualNet."""
    net, sides = node["transform_net"], {name: node[name] for name in ("identity_features", "transform_features")}
    if "initial_layer" not in net:
        raise NotImplementedError(f"{place.path}.transform_net: expected a ResidualNet, got one with {sorted(net)}")
    count = _outputs(net, len(node["transform_features"]), place)
    inputs, units = int(net["initial_layer"]["weight"].shape[1]), int(net["initial_layer"]["weight"].shape[0])
    context = inputs - len(node["identity_features"])
    sizes = {"context_features": context or None, "hidden_features": units}
    residual = _network("ResidualNet", net, unrecorded, place.at("transform_net"), **sizes)
    parts: dict[str, Any] = {"transform_net": residual, "unconditional_transform": None, **sides}
    if count == 1:
        return Stand("nflows", "AdditiveCouplingTransform", **parts)
    if count == 2:
        return Stand("nflows", "AffineCouplingTransform", scale_activation=unrecorded.take("scale_activation"), **parts)
    settings = spline(count, unrecorded, place)
    parts |= settings
    if (kept := node.get("unconditional_transform")) is not None:
        parts["unconditional_transform"] = Stand("nflows", "PiecewiseRationalQuadraticCDF", **kept, **settings)
    return Stand("nflows", "PiecewiseRationalQuadraticCouplingTransform", **parts)


def _network(name: str, node: Node, unrecorded: UnrecordedSettings, place: Place, **sizes: int | None) -> Stand:
    """A `Stand` that represents a MADE or a ResidualNet."""
    activation = unrecorded.take("activation")
    blocks = [_block(part, activation, place) for part in listed(node.get("blocks", {}), place.at("blocks"))]
    ends = {end: linear("nflows", node[end]) for end in ("initial_layer", "final_layer")}
    context = {"context_layer": linear("torch", node["context_layer"])} if "context_layer" in node else {}
    return Stand("nflows", name, blocks=blocks, activation=activation, **ends, **context, **sizes)


def _block(node: Node, activation: Any, place: Place) -> Stand:
    if "linear" in node:
        norm = _block_norm(node["batch_norm"]) if "batch_norm" in node else None
        parts = {"linear": linear("nflows", node["linear"]), "batch_norm": norm}
        return Stand("nflows", "MaskedFeedforwardBlock", activation=activation, **parts)
    layers = [linear("nflows", node["linear_layers"][str(i)]) for i in range(2)]
    more: dict[str, Any] = {}
    if "batch_norm_layers" in node:
        more["batch_norm_layers"] = [_block_norm(node["batch_norm_layers"][str(i)]) for i in range(2)]
    if "context_layer" in node:
        more["context_layer"] = linear("torch", node["context_layer"])
    masked = "mask" in node["linear_layers"]["0"]
    name = "MaskedResidualBlock" if masked else "ResidualBlock"
    return Stand("nflows", name, linear_layers=layers, activation=activation, **more)


def _block_norm(node: Node) -> Stand:
    weight, bias = node.get("weight"), node.get("bias")
    moments = {"running_mean": node["running_mean"], "running_var": node["running_var"]}
    return Stand("torch", "BatchNorm1d", weight=weight, bias=bias, eps=BLOCK_EPS, **moments)


def _softplus(a: Any) -> Numbers:
    return np.asarray(np.logaddexp(0.0, numbers(a)))


def _batch_norm(node: Node, unrecorded: UnrecordedSettings, place: Place) -> Stand:
    eps = float(unrecorded.take("batch_norm_eps"))
    parts = {name: node[name] for name in ("running_mean", "running_var", "bias")}
    return Stand("nflows", "BatchNorm", weight=_softplus(node["unconstrained_weight"]) + eps, eps=eps, **parts)


def lu_matrix(node: Node, eps: float) -> Numbers:
    """The matrix of an LULinear."""
    n = len(node["bias"])
    lower, upper = np.eye(n), np.diag(_softplus(node["unconstrained_upper_diag"]) + eps)
    lower[np.tril_indices(n, -1)] = numbers(node["lower_entries"])
    upper[np.triu_indices(n, 1)] = numbers(node["upper_entries"])
    return lower @ upper


def _lu(node: Node, unrecorded: UnrecordedSettings, place: Place) -> Stand:
    return Stand("nflows", "LULinear", matrix=lu_matrix(node, float(unrecorded.take("eps"))), bias=node["bias"])


def _reflections(node: Node) -> Numbers:
    """The matrix of a sequence of Householder reflections."""
    vectors = numbers(node["q_vectors"])
    rows = np.eye(vectors.shape[1])
    for q in vectors:
        rows = rows - np.outer(rows @ q, 2.0 / (q @ q) * q)
    return np.ascontiguousarray(rows.T)  # a row is the image of a unit vector


def _householder(node: Node, unrecorded: UnrecordedSettings, place: Place) -> Stand:
    matrix = _reflections(node)
    return Stand("nflows", "NaiveLinear", matrix=matrix, bias=np.zeros(len(matrix)))


def _svd(node: Node, unrecorded: UnrecordedSettings, place: Place) -> Stand:
    diagonal = _softplus(node["unconstrained_diagonal"]) + float(unrecorded.take("eps"))
    matrix = _reflections(node["orthogonal_1"]) @ (diagonal[:, None] * _reflections(node["orthogonal_2"]))
    return Stand("nflows", "SVDLinear", matrix=matrix, bias=node["bias"])


def _qr(node: Node, unrecorded: UnrecordedSettings, place: Place) -> Stand:
    upper = np.diag(np.exp(numbers(node["log_upper_diag"])))
    upper[np.triu_indices(len(upper), 1)] = numbers(node["upper_entries"])
    return Stand("nflows", "QRLinear", matrix=_reflections(node["orthogonal"]) @ upper, bias=node["bias"])


def _naive(node: Node, unrecorded: UnrecordedSettings, place: Place) -> Stand:
    return Stand("nflows", "NaiveLinear", matrix=numbers(node["_weight"]), bias=node["bias"])


def _same(name: str, **more: Any) -> Callable[[Node, UnrecordedSettings, Place], Stand]:
    return lambda node, unrecorded, place: Stand("nflows", name, **node, **more)


_KINDS: list[tuple[set[str], Callable[[Node, UnrecordedSettings, Place], Stand]]] = [
    ({"_transforms"}, _composite),
    ({"_transform"}, _inverse),
    ({"autoregressive_net"}, _masked),
    ({"transform_net"}, coupling),
    ({"_permutation"}, _same("Permutation", _dim=1)),
    ({"_shift", "_scale"}, _same("PointwiseAffineTransform")),
    ({"lower_entries", "upper_entries"}, _lu),
    ({"unconstrained_diagonal"}, _svd),
    ({"log_upper_diag"}, _qr),
    ({"_weight", "bias"}, _naive),
    ({"q_vectors"}, _householder),
    ({"running_mean", "unconstrained_weight"}, _batch_norm),
    ({"initialized", "log_scale", "shift"}, _same("ActNorm")),
]
