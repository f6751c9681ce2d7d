"""Flows of flowjax: bijections map latent rows to data, and the ready-made flows invert their bijections."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace import Flow, Logistic, StudentT
from headrace._base import arguments as check
from headrace._flow.transforms.transform import Transform
from headrace.convert._bases import BaseAndMaps, box, mixture
from headrace.convert._flowjax_columns import ELEMENTWISE, INSTEAD, columns_of, is_frozen, paramax_unwrap, stages
from headrace.convert._flowjax_files import Head, flow_of, is_arrays, leaves_of
from headrace.convert._parts import (
    OTHER_BASE,
    OTHER_FLOW,
    Converter,
    Layers,
    Numbers,
    Place,
    activation_of,
    class_of,
    dtype_of,
    numbers,
)
from headrace.convert._scales import scale_of
from headrace.convert._simple import linear, normal, permutation, planar
from headrace.convert._state_dicts import finished_file, without_files
from headrace.convert._training import refuse_training
from headrace.convert._verify import verify as compare

_BASES = "StandardNormal, Normal, MultivariateNormal, Uniform, Logistic, StudentT, Cauchy or a VmapMixture of Normal"


def from_flowjax(model: Any, *, verify: Any = True, **not_recorded: Any) -> Flow:
    """A trained flow of flowjax as a `headrace.Flow` with the same density, in the same dtype.

    Parts may be `masked_autoregressive_flow` and `coupling_flow` with affine or rational-quadratic splines, a condition
    or none, inverted or not; affine and triangular maps, permutations, `Chain`, `Scan` and `Invert`; and `Sigmoid`,
    `Exp` and `Tanh`, also for single columns by `Stack` and `Concatenate`, which become a `Support`. The base
    distribution may be another flow.

    Args:
        model: A `flowjax.distributions.Transformed`; or the arrays of a `masked_autoregressive_flow` or a
            `coupling_flow` without the model: the path of a file of `equinox.tree_serialise_leaves`, or a list of
            arrays in the order of the model's leaves.
            Models of flowjax 18 or newer convert, and arrays of flowjax 14 to 17 with affine transformers.
        verify: Whether to compare log densities of some rows with the model's. For arrays alone, ``(x, log_prob)`` or
            ``(x, log_prob, context)`` computed by flowjax, or False.
        **not_recorded: For arrays alone, the arguments that made the model: `activation`, `transformer` ("affine", the
            arguments of the `RationalQuadraticSpline` as a dict, or the bijection) and `invert`.

    Raises:
        TypeError: `model` is not a flow of flowjax, or has parameters of several dtypes.
        NotImplementedError: a part has no counterpart in headrace; the message has its class and path.
        ValueError: log densities differ by more than rounding; or a layer is in training mode and computes other values
            in evaluation mode (batch norm, dropout, an act norm that is not initialised).
    """
    place = Place("model", "to_data")
    if is_arrays(model):
        leaves = leaves_of(model)
        state = {str(i): leaf for i, leaf in enumerate(leaves)}
        return finished_file(place, state, verify, lambda: flow_of(leaves, not_recorded, place, _head, _call))
    without_files(not_recorded)
    if class_of(model)[0] != "flowjax" or not (hasattr(model, "base_dist") and hasattr(model, "bijection")):
        raise TypeError(f"model: expected a flow of flowjax, got {check.kind_of(model)}")
    import equinox
    import jax
    import jax.numpy as jnp

    layers, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=lambda node: hasattr(node, "inference"))
    refuse_training(((jax.tree_util.keystr(path), layer) for path, layer in layers))
    leaves = [leaf for leaf in jax.tree_util.tree_leaves(model) if isinstance(leaf, jax.Array)]
    dtype = dtype_of(place, leaves)
    with jax.enable_x64(True):
        wide = jax.tree_util.tree_map(
            lambda a: jnp.asarray(a, "float64") if isinstance(a, jax.Array) and a.dtype == "float32" else a, model
        )
        base, maps = _base(wide.base_dist, place.at("base_dist"))
        flow = Flow([*maps, *_chain(wide.bijection, place.at("bijection"), base.features)], base)
        if verify:
            compiled = equinox.filter_jit(lambda model, x, context: model.log_prob(x, context))  # once for all calls
            compare(flow, lambda x, context: numbers(compiled(wide, x, context)))
    return flow if dtype == "float64" else flow.astype(dtype)


def _call(function: Any, x: Numbers) -> Any:
    """Call a function of JAX in float64; if a module has a copy for each unit, call the first copy."""
    import equinox
    import jax
    import jax.numpy as jnp

    if isinstance(function, equinox.Module):
        arrays, rest = equinox.partition(function, equinox.is_array)
        first = jax.tree_util.tree_map(lambda a: a[0], arrays)
        same = jax.tree_util.tree_map(lambda a, b: bool((a == b).all()), arrays, first)
        if not all(jax.tree_util.tree_leaves(same)):
            raise ValueError("one activation for all units")
        function = equinox.combine(first, rest)
    return function(jnp.asarray(x))


def _base(base: Any, place: Place) -> BaseAndMaps:
    """The base and maps of a distribution, which in most flows of flowjax is itself a transformed distribution."""
    package, kind = class_of(base)
    if package != "flowjax":
        raise place.unknown(base, _BASES)
    if len(base.shape) != 1:
        raise place.differs("shape", "one dimension", base.shape)
    n = int(base.shape[0])
    if kind == "StandardNormal":
        return normal(np.zeros(n), np.ones(n), is_trained=False), []
    if kind == "Normal":
        affine = paramax_unwrap(base.bijection)
        return normal(numbers(affine.loc), numbers(affine.scale), is_trained=not is_frozen(base.bijection)), []
    if kind in ("_StandardUniform", "_StandardLogistic"):
        return box(place, np.zeros(n), np.ones(n)) if kind == "_StandardUniform" else (Logistic(n), [])
    if kind in ("_StandardStudentT", "_StandardCauchy"):
        is_trained = kind == "_StandardStudentT" and class_of(base.df)[1] != "NonTrainable"
        df = np.ones(n) if kind == "_StandardCauchy" else numbers(paramax_unwrap(base.df))
        return StudentT(n, df, trainable=is_trained), []
    if kind == "VmapMixture" and class_of(base.dist) == ("flowjax", "Normal"):
        affine, logits = paramax_unwrap(base.dist.bijection), numbers(paramax_unwrap(base.log_normalized_weights))
        is_trained = not is_frozen(base.dist.bijection)
        return mixture(logits, numbers(affine.loc), numbers(affine.scale), is_trained=is_trained)
    if hasattr(base, "base_dist") and hasattr(base, "bijection"):
        inner, maps = _base(base.base_dist, place.at("base_dist"))
        return inner, [*maps, *_chain(base.bijection, place.at("bijection"), n)]
    raise place.unknown(base, _BASES, OTHER_BASE)


def _chain(t: Any, place: Place, features: int) -> list[Transform]:
    """The transforms of a bijection, from latent to data."""
    if class_of(t) == ("paramax", "NonTrainable"):
        return _chain(t.tree, place.at("tree"), features)
    return place.converted(t, features, ("flowjax",), CONVERTERS, lambda kind: INSTEAD.get(kind, OTHER_FLOW))


def _all(t: Any, place: Place, features: int) -> list[Transform]:
    return place.ordered([_chain(part, place.at("bijections").at(i), features) for i, part in enumerate(t.bijections)])


def _scan(t: Any, place: Place, features: int) -> list[Transform]:
    """The transforms of layers whose arrays are stacked along a first axis."""
    import equinox
    import jax

    arrays, rest = equinox.partition(t.bijection, equinox.is_array)
    count = len(jax.tree_util.tree_leaves(arrays)[0])
    layers = [equinox.combine(jax.tree_util.tree_map(lambda a, i=i: a[i], arrays), rest) for i in range(count)]
    return place.ordered([_chain(part, place.at("bijection").at(i), features) for i, part in enumerate(layers)])


def _triangular(t: Any, place: Place, features: int) -> list[Transform]:
    affine = paramax_unwrap(t)
    return [linear(place, numbers(affine.triangular), numbers(affine.loc))]


def _network(mlp: Any, place: Place, inputs: int) -> Layers:
    """The layers of an MLP, whose weights may be masked by `jnp.where`."""
    import jax.numpy as jnp
    import paramax

    if class_of(mlp) != ("equinox", "MLP"):
        raise place.unknown(mlp, "equinox's MLP")
    if activation_of(place.at("final_activation"), mlp.final_activation, _call) != "identity":
        raise place.differs("final_activation", "none", mlp.final_activation)
    activation = activation_of(place.at("activation"), mlp.activation, _call) if len(mlp.layers) > 1 else "identity"
    layers = Layers(int(mlp.in_size) - inputs)
    for i, layer in enumerate(mlp.layers):
        inner, mask = place.at("layers").at(i), None
        if class_of(layer.weight) == ("paramax", "Parameterize"):
            if layer.weight.fn is not jnp.where or len(layer.weight.args) != 3:
                raise inner.differs("weight", "jnp.where of a mask, or an array", layer.weight)
            mask = layer.weight.args[0]
        bias = None if layer.bias is None else numbers(paramax.unwrap(layer.bias))
        weight = numbers(paramax.unwrap(layer.weight))
        if i < len(mlp.layers) - 1:
            layers.hidden(weight, bias, mask, activation=activation)
        else:
            layers.outputs(weight, bias, mask)
    return layers


def _head(made: Any, place: Place) -> Head:
    """The settings of a transformer's map, and the offsets that flowjax adds to raw parameters."""
    package, kind = class_of(made)
    if (package, kind) == ("flowjax", "Affine"):
        scale = made.scale
        if class_of(scale) != ("paramax", "Parameterize") or len(scale.args) != 1 or scale.kwargs:
            raise place.differs("scale", "a function of one array", scale)
        settings, bend = scale_of(place.at("scale").at("fn"), scale.fn, _call)
        if bend is not None:
            raise place.differs("scale", "a function that is not cut off", scale.fn)
        return {"map": "affine", **settings}, np.array([float(made.loc), float(scale.args[0])])
    if (package, kind) == ("flowjax", "RationalQuadraticSpline"):
        low, high = (float(end) for end in made.interval)
        if made.x_pos.min_width != made.y_pos.min_width:
            raise place.differs("y_pos", "the least width of x_pos", made.y_pos.min_width)
        settings, bend = scale_of(place.at("derivatives").at("fn"), made.derivatives.fn, _call)
        if settings["scale"] != "softplus" or bend is not None:
            raise place.differs("derivatives", "softplus(a) + c", made.derivatives.fn)
        least = float(made.x_pos.min_width) / (high - low)
        spline = {"map": "rq_spline_flowjax", "bins": int(made.knots) + 1, "bound": (low, high)}
        spline |= {"min_bin": least, "slope": settings["slope"]}
        parts = (made.x_pos.arr, made.y_pos.arr, made.derivatives.args[0])
        return spline, np.concatenate([numbers(part) for part in parts])
    raise place.unknown(made, "flowjax's Affine or RationalQuadraticSpline")


def _settings_of(layers: Layers, constructor: Any, place: Place, active: int) -> dict[str, Any]:
    """The settings of a map. The offsets that flowjax adds to outputs are added to the last layer's biases."""
    count = len(layers.biases[-1]) // active
    import jax.numpy as jnp

    settings, start = _head(constructor(jnp.zeros(count)), place.at("transformer_constructor"))
    if len(start) != count:
        raise place.differs("transformer_constructor", f"{len(start)} parameters", count)
    layers.biases[-1] = layers.biases[-1] + np.tile(start, active)
    return settings


def _masked(t: Any, place: Place, features: int) -> list[Transform]:
    layers = _network(t.masked_autoregressive_mlp, place.at("masked_autoregressive_mlp"), features)
    return [layers.autoregressive(place, **_settings_of(layers, t.transformer_constructor, place, features))]


def _coupling(t: Any, place: Place, features: int) -> list[Transform]:
    passive = range(t.untransformed_dim)
    layers = _network(t.conditioner, place.at("conditioner"), len(passive))
    settings = _settings_of(layers, t.transformer_constructor, place, features - len(passive))
    return [layers.coupling(place, features, passive, **settings)]


def _planar(t: Any, place: Place, features: int) -> list[Transform]:
    if t.conditioner is not None:
        raise place.at("conditioner").unknown(t.conditioner, "none", "train hr.transforms.Planar with context=")
    if t.negative_slope is None and place.way == "to_data":
        raise place.differs("negative_slope", "a number, or an inverted flow, whose density flowjax has", None)
    formula = t.get_planar()
    slope = None if t.negative_slope is None else float(t.negative_slope)
    w, moved = numbers(formula.weight), numbers(formula.get_act_scale())
    return [planar(place, w, moved, float(formula.bias), slope)]


CONVERTERS: dict[str, Converter] = {
    "Planar": _planar,
    "Chain": _all,
    "Scan": _scan,
    "Invert": lambda t, place, features: _chain(t.bijection, place.at("bijection").turned(), features),
    "Identity": lambda t, place, features: [],
    **dict.fromkeys(ELEMENTWISE - {"Identity"}, lambda t, place, n: stages(columns_of(t, place, n), place)),
    "TriangularAffine": _triangular,
    "Permute": lambda t, place, features: [permutation(place, t.permutation[0])],
    "Flip": lambda t, place, features: [permutation(place, np.arange(features)[::-1])],
    "MaskedAutoregressive": _masked,
    "Coupling": _coupling,
}
