"""Flows of zuko, whose transforms map data to latent rows when called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from headrace._flow.flow import Flow
from headrace.convert._bases import BaseAndMaps, of_torch
from headrace.convert._parts import CIRCULAR_FLOW, OTHER_FLOW, Place, class_of, numbers
from headrace.convert._simple import affine, linear, permutation, table
from headrace.convert._state_dicts import finished_file, is_file, without_files
from headrace.convert._to_zuko import Inverted
from headrace.convert._torch import finished, opened, tensors_of
from headrace.convert._zuko_circles import CIRCULAR, circular, on_circles
from headrace.convert._zuko_files import stand_of
from headrace.convert._zuko_networks import network_of
from headrace.transforms import Gaussianize, Inverse, Transform

CONTEXT_INSTEAD = "a base of headrace is the same for all contexts: train hr.NSF with context="
MAPS = {"MonotonicAffineTransform": "affine", "AdditiveTransform": "additive"}
MAPS |= {"MonotonicRQSTransform": "rq_spline", CIRCULAR: CIRCULAR}


def from_zuko(
    model: Any, *, verify: Any = True, activation: Any = None, slope: float | None = None, bound: float | None = None
) -> Flow:
    """A trained flow of zuko (1.0 or newer) as a `headrace.Flow` with the same density, in the same dtype.

    Models may be MAF, NSF and NCSF (autoregressive, and coupling by ``passes=2``), NICE and RealNVP, with activations
    that headrace has, any order and adjacency, ``residual=True`` and context; with inverses of transforms (IAF); and
    with fixed affine maps, permutations, rotations and LU maps in between. Bases may be normal, uniform and Student's t
    distributions, and a `GMM` of components without correlations. Slopes and bounds that a model does not record are
    the defaults of the installed zuko: weights from zuko 1.1 to 1.4 were trained with a slope of 1e-4, which later
    versions do not have.

    The network of an NCSF reads angles that the map shifts, so that each level of coordinates becomes a coupling: a
    pass in either direction runs a network for each level, two with ``passes=2``. Columns of the flow are periodic, and
    thus densities of angles outside of [-π, π) differ from zuko's.

    Args:
        model: A `zuko.flows.Flow`, or the `state_dict` of a MAF, NSF, NICE or RealNVP.
        verify: Whether to compare log densities of some rows with the model's. For a `state_dict`, ``(x, log_prob)`` or
            ``(x, log_prob, context)`` computed by zuko, or False.
        activation, slope, bound: Settings of the model that a `state_dict` does not record, for a `state_dict` alone.
            The activation is a name in headrace, a module or a function.

    Raises:
        TypeError: `model` is not a flow of zuko, or has parameters of several dtypes.
        NotImplementedError: a part has no counterpart in headrace; the message has its class and path.
        ValueError: log densities differ by more than rounding; or a layer is in training mode and computes other values
            in evaluation mode (batch norm, dropout, an act norm that is not initialised).
    """
    place = Place("model", "to_latent")
    settings = {"activation": activation, "slope": slope, "bound": bound}
    if is_file(model):
        stand = stand_of(model, settings, place)
        return finished_file(place, model, verify, lambda: flow_of(stand, place))
    without_files(settings)
    copied = opened(model, "a flow of zuko", "transform", "base")

    def log_prob(x: Any, context: Any) -> Any:
        return copied(context).log_prob(x)

    return finished(place, tensors_of(model), lambda: flow_of(copied, place), log_prob if verify else None)


def flow_of(model: Any, place: Place) -> Flow:
    """The converted flow in float64, not yet compared with the model."""
    base, maps = _base(model.base, place.at("base"))
    chain = _chain(model.transform, place.at("transform"), base.features)
    circles = {_function_of(leaf)[0] == CIRCULAR for leaf in _leaves(model.transform)}
    if circles == {True, False}:
        raise place.at("transform").unknown(model.transform, "circular transforms alone, or none", CIRCULAR_FLOW)
    return Flow([*maps, *(on_circles(chain, base.features) if True in circles else chain)], base)


def _leaves(t: Any) -> Iterator[Any]:
    """Yield the transforms inside of compositions and inverses."""
    kind = class_of(t)[1]
    parts = t.transforms if kind == "LazyComposedTransform" else [t.transform] if kind == "LazyInverse" else None
    if parts is None:
        yield t
    for part in parts or ():
        yield from _leaves(part)


def _base(base: Any, place: Place) -> BaseAndMaps:
    kind = class_of(base)[1]
    if kind == "GMM" and hasattr(base, "hyper"):
        raise place.unknown(base, "a base without a context", CONTEXT_INSTEAD)
    if kind not in ("UnconditionalDistribution", "Unconditional", "GMM"):
        raise place.unknown(base, "an unconditional base or a GMM", CONTEXT_INSTEAD)
    is_trained = any(p.requires_grad for p in base.parameters())
    return of_torch(base(), place, is_trained=is_trained)


def _chain(t: Any, place: Place, features: int) -> list[Transform]:
    """The transforms of a part, from latent to data."""
    if (chain := place.registered(t, features)) is not None:
        return chain
    kind = class_of(t)[1]
    if kind == "LazyComposedTransform":
        parts = [_chain(part, place.at("transforms").at(i), features) for i, part in enumerate(t.transforms)]
        return place.ordered(parts)
    if kind == "LazyInverse":
        return _chain(t.transform, place.at("transform").turned(), features)
    if kind in WITH_A_MAP:
        settings = _map(t, place)
        if settings["map"] == CIRCULAR:
            return circular(t, place, features, bins=settings["bins"], slope=settings["slope"])
        return [WITH_A_MAP[kind](t, place, features, settings)]
    if kind in ("UnconditionalTransform", "Unconditional"):
        return _fixed(t(), place, features, any(p.requires_grad for p in t.parameters()))
    raise place.unknown(t, "a masked autoregressive, coupling, elementwise or unconditional transform", OTHER_FLOW)


def _autoregressive(t: Any, place: Place, features: int, settings: dict[str, Any]) -> Transform:
    return network_of(t.hyper, place.at("hyper"), features).autoregressive(place, **settings)


def _coupling(t: Any, place: Place, features: int, settings: dict[str, Any]) -> Transform:
    passive = np.flatnonzero(numbers(t.mask))
    return network_of(t.hyper, place.at("hyper"), len(passive)).coupling(place, features, passive, **settings)


def _elementwise(t: Any, place: Place, features: int, settings: dict[str, Any]) -> Transform:
    """An elementwise transform, which zuko also uses for autoregressive and coupling transforms of one feature."""
    if hasattr(t, "hyper"):
        return network_of(t.hyper, place.at("hyper"), 0).coupling(place, features, [], **settings)
    raw = np.concatenate([numbers(part).reshape(features, -1) for part in t.phi], axis=1)
    return table(place, features, range(features), raw, **settings)


WITH_A_MAP = {
    "MaskedAutoregressiveTransform": _autoregressive,
    "GeneralCouplingTransform": _coupling,
    "ElementWiseTransform": _elementwise,
}


def _fixed(t: Any, place: Place, features: int, is_trained: bool) -> list[Transform]:
    """The transforms for a transform of torch.distributions or zuko that has no network."""
    import torch

    if (chain := place.registered(t, features)) is not None:
        return chain
    package, kind = class_of(t)
    if kind == "IdentityTransform":
        return []
    if (package, kind) == ("torch", "AffineTransform"):
        scale, shift = (np.broadcast_to(numbers(a), (features,)).copy() for a in (t.scale, t.loc))
        return [affine(place, scale, shift, is_trained=is_trained)]
    if (package, kind) == ("zuko", "PermutationTransform"):
        return [permutation(place, t.order)]
    if (package, kind) in (("zuko", "RotationTransform"), ("zuko", "LULinearTransform")):
        matrix = numbers(t(torch.eye(features, dtype=torch.float64))).T  # the rows of t(eye) are images of unit vectors
        return [linear(place, matrix, np.zeros(features))]
    if (package, kind) == ("headrace", "Marginal"):  # from to_zuko
        curves = Gaussianize.of_file(t.header["bound"], {name: numbers(tensor) for name, tensor in t.params.items()})
        return [curves if place.way == "to_latent" else Inverse(curves)]
    if (package, kind) == ("torch", "IndependentTransform"):
        return _fixed(t.base_transform, place, features, is_trained)
    if (package, kind) in (("zuko", "ComposedTransform"), ("torch", "ComposeTransform")):
        parts = t.transforms if package == "zuko" else t.parts
        inner = [_fixed(part, place.at("transforms").at(i), features, is_trained) for i, part in enumerate(parts)]
        return place.ordered(inner)
    raise place.unknown(t, "an affine map, a permutation, a rotation or an LU map", OTHER_FLOW)


def _function_of(t: Any) -> tuple[str, Any, dict[str, Any]]:
    """The name, function and keywords of a transform's `univariate`; the function is None for a partial with positional
    arguments.
    """
    function: Any = getattr(t, "univariate", None)
    keywords: dict[str, Any] = {}
    if isinstance(function, Inverted):
        function = function.univariate
    while isinstance(function, functools.partial):
        if function.args:
            return "", None, {}
        keywords = {**function.keywords, **keywords}
        function = function.func
    return getattr(function, "__name__", type(function).__name__), function, keywords


def _map(t: Any, place: Place) -> dict[str, Any]:
    """The settings of the map of a transform's `univariate`, from keywords or defaults."""
    if hasattr(t, "settings"):  # from a file
        return t.settings
    is_inverted = isinstance(t.univariate, Inverted)
    name, function, keywords = _function_of(t)
    if function is None:
        raise place.differs("univariate", "keywords alone", t.univariate)
    if name not in MAPS or not getattr(function, "__module__", "").startswith("zuko."):
        raise place.differs("univariate", f"one of zuko's {', '.join(MAPS)}", function, OTHER_FLOW)
    options = {key: p.default for key, p in inspect.signature(function).parameters.items()} | keywords
    if extra := set(keywords) - {"slope", "bound"}:
        raise place.differs("univariate", "slope and bound alone", sorted(extra))
    settings: dict[str, Any] = {"map": MAPS[name]} | ({"formula": place.turned().way} if is_inverted else {})
    if MAPS[name] != "additive":
        settings["slope"] = float(options["slope"])
    if MAPS[name] in ("rq_spline", CIRCULAR):
        bins, *sizes = [int(np.prod(shape)) for shape in t.shapes]
        if sizes != [bins, bins - 1]:
            raise place.differs("shapes", "K widths, K heights and K - 1 derivatives", t.shapes)
        settings.update(bins=bins, **({"bound": float(options["bound"])} if "bound" in options else {}))
    elif [int(np.prod(shape)) for shape in t.shapes] != [1] * len(t.shapes):
        raise place.differs("shapes", "one number of each", t.shapes)
    return settings
