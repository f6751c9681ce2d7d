"""Flows of zuko. Its calls go from data to latent."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np

from headrace.convert._bases import BaseAndMaps, of_torch
from headrace.convert._parts import (
    CIRCULAR_FLOW,
    OTHER_FLOW,
    Layers,
    Place,
    activation_of,
    class_of,
    dtype_of,
    numbers,
)
from headrace.convert._simple import affine, linear, permutation, table
from headrace.convert._stands import finished_file, is_file, without_files
from headrace.convert._to_zuko import Inverted
from headrace.convert._torch import finished, opened, tensors_of
from headrace.convert._zuko_files import stand_of
from headrace.flow import Flow
from headrace.transforms.gaussianize import Gaussianize
from headrace.transforms.inverse import Inverse
from headrace.transforms.transform import Transform

__all__ = ["flow_of", "from_zuko"]

CONTEXT_INSTEAD = "a base of headrace is the same for all contexts: train hr.NSF with context="
MAPS = {"MonotonicAffineTransform": "affine", "AdditiveTransform": "additive", "MonotonicRQSTransform": "rq_spline"}


def from_zuko(
    model: Any,
    *,
    verify: Any = True,
    activation: Any = None,
    slope: float | None = None,
    bound: float | None = None,
) -> Flow:
    """A trained flow of zuko (1.0 or newer) as a `headrace.Flow` with the same density, in the same dtype.

    MAF, NSF (autoregressive, and coupling by ``passes=2``), NICE and RealNVP with any activation that headrace has, any
    order and adjacency, ``residual=True``, context; inverses of transforms (IAF); fixed affine maps, permutations,
    rotations and LU maps between them. Bases: normal, uniform and Student's t distributions, and a `GMM` of components
    without correlations. Slopes and bounds are those that the installed zuko computes with: weights that were trained
    with zuko 1.1 to 1.4 had a slope of 1e-4, which later versions do not record.

    Args:
        model: A `zuko.flows.Flow`, or the `state_dict` of a MAF, NSF, NICE or RealNVP.
        verify: Whether to compare log densities of some rows with the model's. A `state_dict` has none: for it, ``(x,
            log_prob)`` or ``(x, log_prob, context)``, which zuko has computed, or False.
        activation, slope, bound: Only of a `state_dict`, which does not record them: there they have to be given where
            they matter. An activation by its name in headrace, or as a module or function.

    Raises:
        TypeError: no such flow, or parameters of several dtypes.
        NotImplementedError: a part that headrace does not have; its class and its place are named.
        ValueError: log densities that differ by more than rounding; a layer in
            training mode that computes otherwise in evaluation (batch norm, dropout, an act norm without a start).
    """
    place = Place("model", "to_latent")
    given = {"activation": activation, "slope": slope, "bound": bound}
    if is_file(model):
        stand = stand_of(model, given, place)
        return finished_file(place, model, verify, lambda: flow_of(stand, place))
    without_files(given)
    copied = opened("model", model)
    if not (hasattr(copied, "transform") and hasattr(copied, "base")):
        raise TypeError(f"model: expected a flow of zuko, got {type(model).__name__}")
    dtype = dtype_of(place, tensors_of(model))

    def log_prob(x: Any, context: Any) -> Any:
        return copied(context).log_prob(x)

    return finished(place, dtype, lambda: flow_of(copied, place), log_prob if verify else None)


def flow_of(model: Any, place: Place) -> Flow:
    """The flow in float64, not compared."""
    base, maps = _base(model.base, place.at("base"))
    return Flow([*maps, *_chain(model.transform, place.at("transform"), base.features)], base)


def _base(base: Any, place: Place) -> BaseAndMaps:
    kind = class_of(base)[1]
    if kind == "GMM" and hasattr(base, "hyper"):
        raise place.unknown(base, "a base without a context", CONTEXT_INSTEAD)
    if kind not in ("UnconditionalDistribution", "Unconditional", "GMM"):
        raise place.unknown(base, "an unconditional base or a GMM", CONTEXT_INSTEAD)
    is_trained = any(p.requires_grad for p in base.parameters())
    return of_torch(base(), place, is_trained=is_trained)


def _chain(t: Any, place: Place, features: int) -> list[Transform]:
    """From latent to data."""
    kind = class_of(t)[1]
    if kind == "LazyComposedTransform":
        parts = [_chain(part, place.at("transforms").at(i), features) for i, part in enumerate(t.transforms)]
        return [one for part in (parts[::-1] if place.way == "to_latent" else parts) for one in part]
    if kind == "LazyInverse":
        return _chain(t.transform, place.at("transform").turned(), features)
    if kind == "MaskedAutoregressiveTransform":
        return [_network(t.hyper, place.at("hyper"), t, features).autoregressive(place, **_map(t, place))]
    if kind == "GeneralCouplingTransform":
        passive = np.flatnonzero(numbers(t.mask))
        layers = _network(t.hyper, place.at("hyper"), t, len(passive))
        return [layers.coupling(place, features, passive, **_map(t, place))]
    if kind == "ElementWiseTransform":
        return [_elementwise(t, place, features)]
    if kind in ("UnconditionalTransform", "Unconditional"):
        return _fixed(t(), place, features, any(p.requires_grad for p in t.parameters()))
    raise place.unknown(t, "a masked autoregressive, coupling, elementwise or unconditional transform", OTHER_FLOW)


def _elementwise(t: Any, place: Place, features: int) -> Transform:
    """Elementwise transforms of one feature, the form of zuko's autoregressive and coupling transforms in that case."""
    settings = _map(t, place)
    if hasattr(t, "hyper"):
        return _network(t.hyper, place.at("hyper"), t, 0).coupling(place, features, [], **settings)
    raw = np.concatenate([numbers(part).reshape(features, -1) for part in t.phi], axis=1)
    return table(place, features, range(features), raw, **settings)


def _fixed(t: Any, place: Place, features: int, is_trained: bool) -> list[Transform]:
    """A transform of torch.distributions or zuko with fixed values."""
    import torch

    package, kind = class_of(t)
    if kind == "IdentityTransform":
        return []
    if (package, kind) == ("torch", "AffineTransform"):
        scale, shift = (np.broadcast_to(numbers(a), (features,)).copy() for a in (t.scale, t.loc))
        return [affine(place, scale, shift, is_trained=is_trained)]
    if (package, kind) == ("zuko", "PermutationTransform"):
        return [permutation(place, t.order)]
    if (package, kind) in (("zuko", "RotationTransform"), ("zuko", "LULinearTransform")):
        matrix = numbers(t(torch.eye(features, dtype=torch.float64))).T  # rows are images of unit vectors
        return [linear(place, matrix, np.zeros(features))]
    if (package, kind) == ("headrace", "Marginal"):  # as to_zuko makes it
        own = Gaussianize.of_file(t.header["bound"], {name: numbers(tensor) for name, tensor in t.params.items()})
        return [own if place.way == "to_latent" else Inverse(own)]
    if (package, kind) == ("torch", "IndependentTransform"):
        return _fixed(t.base_transform, place, features, is_trained)
    if (package, kind) in (("zuko", "ComposedTransform"), ("torch", "ComposeTransform")):
        parts = t.transforms if package == "zuko" else t.parts
        inner = [_fixed(part, place.at("transforms").at(i), features, is_trained) for i, part in enumerate(parts)]
        return [one for part in (inner[::-1] if place.way == "to_latent" else inner) for one in part]
    raise place.unknown(t, "an affine map, a permutation, a rotation or an LU map", OTHER_FLOW)


def _map(t: Any, place: Place) -> dict[str, Any]:
    """The map of a transform's `univariate`, and its settings: from keywords, or its own defaults."""
    if hasattr(t, "settings"):  # of a file
        of_file: dict[str, Any] = t.settings
        return of_file
    function: Any = t.univariate
    given: dict[str, Any] = {}
    if is_inverted := isinstance(function, Inverted):
        function = function.univariate
    while isinstance(function, functools.partial):
        if function.args:
            raise place.differs("univariate", "keywords alone", function)
        given = {**function.keywords, **given}
        function = function.func
    name = getattr(function, "__name__", type(function).__name__)
    if name not in MAPS or getattr(function, "__module__", "") != "zuko.transforms":
        instead = CIRCULAR_FLOW if name == "CircularRQSTransform" else OTHER_FLOW
        raise place.differs("univariate", f"one of zuko's {', '.join(MAPS)}", function, instead)
    options = {key: p.default for key, p in inspect.signature(function).parameters.items()} | given
    if extra := set(given) - {"slope", "bound"}:
        raise place.differs("univariate", "slope and bound alone", sorted(extra))
    settings: dict[str, Any] = {"map": MAPS[name]} | ({"formula": place.turned().way} if is_inverted else {})
    if MAPS[name] != "additive":
        settings["slope"] = float(options["slope"])
    if MAPS[name] == "rq_spline":
        bins, *others = [int(np.prod(shape)) for shape in t.shapes]
        if others != [bins, bins - 1]:
            raise place.differs("shapes", "K widths, K heights and K - 1 derivatives", t.shapes)
        settings.update(bins=bins, bound=float(options["bound"]))
    elif [int(np.prod(shape)) for shape in t.shapes] != [1] * len(t.shapes):
        raise place.differs("shapes", "one number of each", t.shapes)
    return settings


def _network(hyper: Any, place: Place, t: Any, reads: int) -> Layers:
    """The layers of an MLP, masked or not, with residual blocks or without."""
    modules = list(hyper)
    first = modules[0]
    layers = Layers(int(first.weight.shape[-1]) - reads)
    for i, module in enumerate(modules[:-1]):
        package, kind = class_of(module)
        if package == "zuko" and kind in ("Linear", "MaskedLinear"):
            layers.hidden(*_linear(module, place.at(i)))
        elif (package, kind) == ("zuko", "Residual"):
            _block(layers, list(module), place.at(i))
        elif (package, kind) == ("zuko", "LayerNorm"):
            raise place.at(i).unknown(module, "layers without normalisation over units")
        else:
            if i == 0 or layers.layers[-1].activation != "identity":
                raise place.at(i).unknown(module, "a linear layer before each activation")
            layers.activate(activation_of(place.at(i), module))
    if class_of(modules[-1])[1] not in ("Linear", "MaskedLinear"):
        raise place.at(len(modules) - 1).unknown(modules[-1], "a linear layer at the end")
    layers.outputs(*_linear(modules[-1], place.at(len(modules) - 1)))
    return layers


def _block(layers: Layers, parts: list[Any], place: Place) -> None:
    """x + W2 σ(W1 x + b1) + b2, behind a layer without activation."""
    if len(parts) != 3 or layers.layers[-1].activation != "identity":
        raise place.unknown(parts[-1], "a linear layer, an activation and a linear layer, behind a linear layer")
    before = len(layers.layers) - 1
    layers.hidden(*_linear(parts[0], place.at(0)), activation=activation_of(place.at(1), parts[1]))
    layers.hidden(*_linear(parts[2], place.at(2)), adds=before)


def _linear(module: Any, place: Place) -> tuple[Any, Any, Any]:
    if class_of(module) not in (("zuko", "Linear"), ("zuko", "MaskedLinear")):
        raise place.unknown(module, "zuko's Linear or MaskedLinear")
    weight = numbers(module.weight)
    if weight.ndim != 2:
        raise place.differs("stack", "None", module)
    return weight, None if module.bias is None else numbers(module.bias), getattr(module, "mask", None)
