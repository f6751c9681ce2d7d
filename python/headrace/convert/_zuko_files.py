"""Objects in place of zuko's modules, made from a `state_dict` of zuko, for `_zuko.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace.convert._parts import Place, activation_of, numbers
from headrace.convert._state_dicts import Stand, UnrecordedSettings, linear, listed, tree_of

NOT_RECORDED = {
    "activation": "zuko has ReLU by default: activation='relu'",
    "slope": "zuko has slope=1e-3 in 1.0 and from 1.5 on, and 1e-4 from 1.1 to 1.4",
    "bound": "zuko's splines have bound=5.0",
}


def stand_of(state: Mapping[str, Any], settings: Mapping[str, Any], place: Place) -> Stand:
    """The object for a flow."""
    unrecorded, tree = UnrecordedSettings(settings, NOT_RECORDED), tree_of(state)
    if set(tree) != {"transform", "base"} or "transforms" not in tree["transform"]:
        raise TypeError(f"model: expected a state_dict of a flow of zuko, got one with {sorted(tree)}")
    base = tree["base"]
    names = ("loc", "scale") if "loc" in base else ("_0", "_1")  # up to zuko 1.5, _0 and _1
    if set(base) != set(names):
        raise NotImplementedError(f"model.base: expected loc and scale of a normal density, got {sorted(base)}")
    normal = Stand("zuko", "DiagNormal", base_dist=Stand("torch", "Normal", loc=base[names[0]], scale=base[names[1]]))
    inner = place.at("transform").at("transforms")
    features = int(base[names[0]].shape[-1])
    nodes = listed(tree["transform"]["transforms"], inner)
    parts = [_transform(node, unrecorded, inner.at(i), features) for i, node in enumerate(nodes)]
    transform = Stand("zuko", "LazyComposedTransform", transforms=parts)
    return Stand("zuko", "Flow", transform=transform, base=Stand("zuko", "UnconditionalDistribution", [normal]))


def _transform(node: Any, unrecorded: UnrecordedSettings, place: Place, features: int) -> Stand:
    names = set(node) if isinstance(node, dict) else set()
    if names == {"order", "hyper"} or names == {"hyper"}:  # a transform made from an adjacency matrix has no order
        hyper = _hyper(node["hyper"], unrecorded, place.at("hyper"))
        if not hasattr(hyper[0], "mask"):
            raise NotImplementedError(f"{place.path}: expected masks, got none, as of a transform of one feature")
        settings = _settings(int(hyper[-1].weight.shape[0]), features, unrecorded, place)
        return Stand("zuko", "MaskedAutoregressiveTransform", hyper=hyper, settings=settings)
    if names == {"mask", "hyper"}:
        hyper = _hyper(node["hyper"], unrecorded, place.at("hyper"))
        active = features - int(np.count_nonzero(numbers(node["mask"])))
        settings = _settings(int(hyper[-1].weight.shape[0]), active, unrecorded, place)
        return Stand("zuko", "GeneralCouplingTransform", hyper=hyper, mask=node["mask"], settings=settings)
    if names in ({"loc", "scale"}, {"_0", "_1"}):
        loc, scale = (node[name] for name in sorted(names))
        return Stand("zuko", "UnconditionalTransform", [Stand("torch", "AffineTransform", loc=loc, scale=scale)])
    raise place.refused(f"a masked autoregressive, coupling or affine transform, got one with {sorted(names)}")


def _settings(rows: int, active: int, unrecorded: UnrecordedSettings, place: Place) -> dict[str, Any]:
    """The settings of a map, which is recognised by the number of parameters."""
    count, rest = divmod(rows, active)
    if rest or (count > 2 and (count + 1) % 3) or count < 1:
        raise place.at("hyper").refused(f"1, 2 or 3 K - 1 outputs a feature, got {rows / active:g}")
    if count == 1:
        return {"map": "additive"}
    if count == 2:
        return {"map": "affine", "slope": float(unrecorded.take("slope"))}
    spline = {"bins": (count + 1) // 3, "bound": float(unrecorded.take("bound"))}
    return {"map": "rq_spline", "slope": float(unrecorded.take("slope")), **spline}


def _hyper(node: Mapping[str, Any], unrecorded: UnrecordedSettings, place: Place) -> list[Any]:
    """The linear layers and blocks of a network; an index without tensors is an activation between two layers."""
    indices = sorted(int(name) for name in node)
    modules: list[Any] = []
    for i in range(indices[-1] + 1):
        part = node.get(str(i))
        if part is None:
            modules.append(activation_of(place.at(i), unrecorded.take("activation")))
        elif "weight" in part:
            modules.append(linear("zuko", part))
        else:
            inner = [linear("zuko", part["0"]), unrecorded.take("activation"), linear("zuko", part["2"])]
            modules.append(Stand("zuko", "Residual", inner))
    return modules
