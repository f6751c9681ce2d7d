"""Flows of nflows, and of its copy in glasflow, whose transforms map data to latent rows when called."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from headrace._flow.flow import Flow
from headrace._flow.transforms.transform import Transform
from headrace.convert._bases import BaseAndMaps, box
from headrace.convert._embedding import Outside
from headrace.convert._nflows_files import stand_of
from headrace.convert._parts import OTHER_BASE, Converter, Layers, Place, class_of, numbers
from headrace.convert._residual import masked_network, modules_of, plain_network, residual_network
from headrace.convert._scales import scale_of
from headrace.convert._simple import affine, linear, normal, permutation, table
from headrace.convert._state_dicts import finished_file, is_file, without_files
from headrace.convert._torch import finished, opened, tensors_of

_NET_INSTEAD = (
    "use a ResidualNet, or a module that holds one torch.nn.Sequential of linear layers and activations, and whose "
    "forward(inputs, context=None) calls nothing else"
)


def from_nflows(model: Any, *, embedding: str = "inside", verify: Any = True, **not_recorded: Any) -> Flow:
    """A trained flow of nflows as a `headrace.Flow` with the same density, in the same dtype.

    Parts may be affine and rational-quadratic autoregressive and coupling transforms with MADE, ResidualNet or MLP;
    permutations, LU, QR, SVD and naive linear maps, batch and activation normalisation as in evaluation; inverses of
    all of these. Bases may be `StandardNormal`, `DiagonalNormal`, and `ConditionalDiagonalNormal` with an encoder of
    plain layers, which becomes a transform.

    Args:
        model: A `nflows.flows.Flow`, or its `state_dict`.
        embedding: "inside" if the flow's context is the model's context, so that the embedding net may only shift and
            scale; "outside" if the flow's context is the output of the embedding net, which the caller applies.
        verify: Whether to compare log densities of some rows with the model's. For a `state_dict`, ``(x, log_prob)`` or
            ``(x, log_prob, context)`` computed by nflows, or False.
        **not_recorded: Settings that a `state_dict` does not record, for a `state_dict` alone: `activation`, `bound`
            (tail_bound), `min_bin`, `slope` (min_derivative), `scale_activation`, `eps` (LULinear), `batch_norm_eps`.

    Raises:
        TypeError: `model` is not a flow of nflows, or has parameters of several dtypes.
        NotImplementedError: a part has no counterpart in headrace; the message has its class and path.
        ValueError: an embedding net cannot be inside; log densities differ by more than rounding; or a layer is in
            training mode and computes other values in evaluation mode (batch norm, dropout, an act norm that is not
            initialised).
    """
    place = Place("model", "to_latent")
    if is_file(model):
        stand = stand_of(model, not_recorded, place)
        outside = Outside(stand._embedding_net, embedding, place.at("_embedding_net"))
        return finished_file(place, model, verify, lambda: flow_of(stand, place, outside))
    without_files(not_recorded)
    copied = opened(model, "a flow of nflows", "_transform", "_distribution")
    outside = Outside(getattr(copied, "_embedding_net", None), embedding, place.at("_embedding_net"))
    log_prob = density_of(copied, outside) if verify else None
    return finished(place, tensors_of(model), lambda: flow_of(copied, place, outside), log_prob)


def density_of(model: Any, outside: Outside) -> Callable[[Any, Any], Any]:
    """The model as a function from rows and contexts to log densities; if the embedding net stays outside of the flow,
    contexts are outputs of the net.
    """

    def log_prob(x: Any, context: Any) -> Any:
        if not outside.stays:
            return model.log_prob(x, context)
        noise, log_det = model._transform(x, context)
        return model._distribution.log_prob(noise, context) + log_det

    return log_prob


def flow_of(model: Any, place: Place, outside: Outside) -> Flow:
    """The converted flow in float64, not yet compared with the model."""
    base, maps = _base(model._distribution, place.at("_distribution"))
    chain = [*maps, *_chain(model._transform, place.at("_transform"), base.features)]
    return Flow(chain, base, standardize_context=outside.standardize([t.context for t in chain]))


def _base(base: Any, place: Place) -> BaseAndMaps:
    kind = class_of(base)[1]
    if kind in ("StandardNormal", "ConditionalDiagonalNormal") and len(base._shape) != 1:
        raise place.differs("_shape", "one dimension", tuple(base._shape), "flatten the data")
    if kind == "StandardNormal":
        n = int(base._shape[0])
        return normal(np.zeros(n), np.ones(n), is_trained=False), []
    if kind == "DiagonalNormal":
        return normal(numbers(base.mean_).ravel(), np.exp(numbers(base.log_std_).ravel()), is_trained=True), []
    if kind == "ConditionalDiagonalNormal":
        return _conditional_normal(base, place)
    if class_of(base) == ("glasflow", "MultivariateUniform") and base.low.ndim == 1:
        return box(place, numbers(base.low), numbers(base.high))
    expected = "StandardNormal, DiagonalNormal or ConditionalDiagonalNormal of one dimension"
    raise place.unknown(base, expected, OTHER_BASE)


def _conditional_normal(base: Any, place: Place) -> BaseAndMaps:
    """The base and maps of a `ConditionalDiagonalNormal`, with an encoder of plain layers, or without an encoder."""
    n, net, encoder = int(base._shape[0]), base._context_encoder, place.at("_context_encoder")
    if (modules := modules_of(net, 0)) is not None:
        layers = plain_network(modules, encoder, 0)
    elif class_of(net) == ("builtins", "function") and _gives_back(net, 2 * n):
        layers = Layers(2 * n)
        layers.outputs(np.eye(2 * n), None)
    else:
        instead = 'make the encoder the embedding net of the Flow and convert with embedding="outside"'
        expected = "a Linear, a Sequential of linear layers and activations, a module around one, or nothing"
        raise encoder.unknown(net, expected, instead)
    return conditional_normal(layers, place, n)


def conditional_normal(layers: Layers, place: Place, n: int) -> BaseAndMaps:
    """A normal base, and a coupling that reads only the context, for means and log deviations from a network."""
    to_data = Place(place.path, "to_data")
    step = layers.coupling(to_data, n, [], map="affine", scale="exp", layout="blocked")
    return normal(np.zeros(n), np.ones(n), is_trained=False), [step]


def _gives_back(function: Any, columns: int) -> bool:
    import torch

    rows = torch.from_numpy(np.random.default_rng(23).standard_normal((8, columns)))
    try:
        return bool(torch.equal(function(rows), rows))
    except Exception:  # an error of the caller's code shows that the function is not the identity
        return False


def _chain(t: Any, place: Place, features: int) -> list[Transform]:
    """The transforms of a part, from latent to data."""
    return place.converted(t, features, ("nflows", "glasflow"), CONVERTERS)


def _composite(t: Any, place: Place, features: int) -> list[Transform]:
    parts = enumerate(t._transforms)
    return place.ordered([_chain(part, place.at("_transforms").at(i), features) for i, part in parts])


def _permuted(t: Any, place: Place, features: int) -> list[Transform]:
    if t._dim != 1:
        raise place.differs("_dim", "1", t._dim)
    return [permutation(place, t._permutation)]


def _pointwise(t: Any, place: Place, features: int) -> list[Transform]:
    scale, shift = (np.broadcast_to(numbers(a), (features,)).copy() for a in (t._scale, t._shift))
    return [affine(place, scale, shift, is_trained=False)]


def _batch_norm(t: Any, place: Place, features: int) -> list[Transform]:
    factor = numbers(t.weight) / np.sqrt(numbers(t.running_var) + t.eps)
    return [affine(place, factor, numbers(t.bias) - factor * numbers(t.running_mean), is_trained=True)]


def _act_norm(t: Any, place: Place, features: int) -> list[Transform]:
    return [affine(place, np.exp(numbers(t.log_scale)), numbers(t.shift), is_trained=True)]


def _matrix(t: Any, place: Place, features: int) -> list[Transform]:
    """A linear map with the matrix that the part's formula, without its shift, computes from unit vectors."""
    if hasattr(t, "matrix"):  # the part is from a state_dict
        return [linear(place, t.matrix, numbers(t.bias))]
    import torch

    copied = copy.deepcopy(t)
    copied.use_cache(False)
    with torch.no_grad():
        copied.bias.zero_()
        matrix = numbers(copied.forward_no_cache(torch.eye(features, dtype=torch.float64))[0]).T
    return [linear(place, matrix, numbers(t.bias))]


def _orthogonal(t: Any, place: Place, features: int) -> list[Transform]:
    import torch

    with torch.no_grad():
        matrix = numbers(t(torch.eye(features, dtype=torch.float64))[0]).T
    return [linear(place, matrix, np.zeros(features))]


def _masked_affine(t: Any, place: Place, features: int) -> list[Transform]:
    layers = masked_network(t.autoregressive_net, place.at("autoregressive_net"), context_activation=True)
    settings: dict[str, Any] = {"scale": "softplus", "slope": float(t._epsilon)}
    if hasattr(t, "scale_activation"):  # a transform of glasflow
        settings, bend = scale_of(place.at("scale_activation"), t.scale_activation)
        if bend is not None:
            bend(layers, np.arange(2 * features) % 2 == 0)
    return [layers.autoregressive(place, map="affine", outputs=("scale", "shift"), **settings)]


def _masked_spline(t: Any, place: Place, features: int) -> list[Transform]:
    layers = masked_network(t.autoregressive_net, place.at("autoregressive_net"), context_activation=True)
    settings = spline(t, place)
    _divide(layers, t.autoregressive_net, settings)
    return [layers.autoregressive(place, **settings)]


def spline(t: Any, place: Place) -> dict[str, Any]:
    """The settings of a spline, from the attributes of its transform."""
    if t.tails != "linear":
        instead = "train hr.NSF with bounds=[(low, high), ...], or with periodic= for circles"
        raise place.differs("tails", "'linear'", t.tails, instead)
    if t.min_bin_width != t.min_bin_height:
        raise place.differs("min_bin_height", f"{t.min_bin_width}, as min_bin_width", t.min_bin_height)
    if np.size(numbers(t.tail_bound)) != 1:
        raise place.differs("tail_bound", "one number", t.tail_bound)
    settings = {"bound": float(numbers(t.tail_bound).item()), "min_bin": float(t.min_bin_width)}
    bins = getattr(t, "num_bins", None)
    if bins is None:  # a table of parameters
        bins = t.unnormalized_widths.shape[-1]
    return {"map": "rq_spline_nflows", "bins": int(bins), "slope": float(t.min_derivative), **settings}


def _divide(layers: Layers, net: Any, settings: dict[str, Any]) -> None:
    """Divide raw widths and heights by the square root of `hidden_features`, if the network has this attribute."""
    units = getattr(net, "hidden_features", None)
    if units is not None:
        n = 3 * settings["bins"] - 1
        is_size = np.arange(len(layers.biases[-1])) % n < 2 * settings["bins"]
        layers.scale_outputs(np.where(is_size, float(units) ** -0.5, 1.0))


def coupling_network(net: Any, place: Place, passive: int) -> Layers:
    """The layers of a coupling's network."""
    kind = class_of(net)[1]
    if kind == "ResidualNet":
        return residual_network(net, place)
    if class_of(net) == ("sbi", "ContextSplineMap"):
        return plain_network(net.spline_predictor, place.at("spline_predictor"), passive)
    if class_of(net) in (("nflows", "MLP"), ("torch", "Linear")):  # MLP and Linear take no context
        raise place.unknown(net, "a network that takes (inputs, context)", _NET_INSTEAD)
    if (modules := modules_of(net, passive)) is not None:
        return plain_network(modules, place, passive)
    raise place.unknown(net, "a ResidualNet, or an MLP without an activation at its end", _NET_INSTEAD)


def sides(t: Any, place: Place) -> tuple[list[int], list[int]]:
    """The coordinates that pass a coupling unchanged, and the coordinates that it changes."""
    passive, active = ([int(i) for i in numbers(a)] for a in (t.identity_features, t.transform_features))
    if not active:
        raise place.differs("transform_features", "at least one", active)
    return passive, active


def _kept(t: Any, place: Place, features: int, passive: list[int]) -> list[Transform]:
    """A list with the spline of the coordinates that the coupling's network reads; empty without such a spline."""
    inner = t.unconditional_transform
    if inner is None or not passive:
        return []
    place = place.at("unconditional_transform")
    if class_of(inner)[1] != "PiecewiseRationalQuadraticCDF":
        raise place.unknown(inner, "PiecewiseRationalQuadraticCDF")
    names = ("unnormalized_widths", "unnormalized_heights", "unnormalized_derivatives")
    raw = np.concatenate([numbers(getattr(inner, name)).reshape(len(passive), -1) for name in names], axis=1)
    return [table(place, features, passive, raw, **spline(inner, place))]


def coupling_transform(t: Any, place: Place, features: int, **settings: Any) -> list[Transform]:
    passive, active = sides(t, place)
    layers = coupling_network(t.transform_net, place.at("transform_net"), len(passive))
    if settings["map"] == "rq_spline_nflows":
        _divide(layers, t.transform_net, settings)
    elif settings["map"] == "affine" and (bend := settings.pop("bend")) is not None:
        bend(layers, np.arange(2 * len(active)) >= len(active))
    return place.ordered([[layers.coupling(place, features, passive, **settings)], _kept(t, place, features, passive)])


def _affine_coupling(t: Any, place: Place, features: int) -> list[Transform]:
    settings: dict[str, Any] = {"scale": "sigmoid", "slope": 1e-3}
    bend = None
    if hasattr(t, "scale_activation"):  # an attribute of glasflow, and of nflows after 0.14
        settings, bend = scale_of(place.at("scale_activation"), t.scale_activation)
    return coupling_transform(t, place, features, map="affine", layout="blocked", bend=bend, **settings)


CONVERTERS: dict[str, Converter] = {
    "CompositeTransform": _composite,
    "InverseTransform": lambda t, place, features: _chain(t._transform, place.at("_transform").turned(), features),
    "IdentityTransform": lambda t, place, features: [],
    "Permutation": _permuted,
    "RandomPermutation": _permuted,
    "ReversePermutation": _permuted,
    "PointwiseAffineTransform": _pointwise,
    "AffineTransform": _pointwise,
    "AffineScalarTransform": _pointwise,
    "BatchNorm": _batch_norm,
    "ActNorm": _act_norm,
    "LULinear": _matrix,
    "QRLinear": _matrix,
    "SVDLinear": _matrix,
    "NaiveLinear": _matrix,
    "HouseholderSequence": _orthogonal,
    "MaskedAffineAutoregressiveTransform": _masked_affine,
    "MaskedPiecewiseRationalQuadraticAutoregressiveTransform": _masked_spline,
    "AffineCouplingTransform": _affine_coupling,
    "AdditiveCouplingTransform": lambda t, place, n: coupling_transform(t, place, n, map="additive"),
    "PiecewiseRationalQuadraticCouplingTransform": lambda t, place, n: coupling_transform(
        t, place, n, **spline(t, place)
    ),
}
