"""Arrays of a flow of flowjax as a flow again: in the order of its leaves, equinox's order in files.

The order and the shapes identify the ready-made flow. flowjax makes one of these sizes, and the arrays
take the place of its own.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace.convert._parts import Place
from headrace.convert._state_dicts import UnrecordedSettings

NOT_RECORDED = {
    "activation": "flowjax has nn_activation=jax.nn.relu: activation='relu'",
    "transformer": "flowjax has an affine one: transformer='affine', or the bijection that the flow was made with",
    "invert": "flowjax has invert=True",
}

_ACTIVATIONS = ("relu", "tanh", "elu", "silu", "gelu", "gelu_tanh", "softplus", "leaky_relu", "sigmoid")

Arrays = list[NDArray[Any]]


def is_arrays(model: Any) -> bool:
    """Whether a model is a file of equinox, or a list of arrays."""
    return isinstance(model, (str, os.PathLike, list, tuple))


def leaves_of(model: Any) -> Arrays:
    """The arrays of a file that `equinox.tree_serialise_leaves` wrote, or of a list; single numbers are left out."""
    found: Arrays = []
    if isinstance(model, (str, os.PathLike)):
        with open(model, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            while file.tell() < size:
                found.append(np.load(file, allow_pickle=False))
    else:
        for i, one in enumerate(model):
            if not hasattr(one, "shape"):
                raise TypeError(f"model[{i}]: expected an array, got {check.kind_of(one)}")
            found.append(np.asarray(one))
    return [one for one in found if one.ndim]


def model_of(leaves: Arrays, given: Mapping[str, Any], place: Place) -> Any:
    """The flow of flowjax."""
    import equinox
    import jax

    unrecorded = UnrecordedSettings(given, NOT_RECORDED)
    transformer, activation, invert = (unrecorded.take(name) for name in ("transformer", "activation", "invert"))
    options = {"transformer": _transformer(transformer), "nn_activation": _activation(activation), "invert": invert}
    with jax.enable_x64(any(leaf.dtype == np.float64 for leaf in leaves)):
        for template in _templates(leaves, options, place):
            arrays, rest = equinox.partition(template, lambda leaf: equinox.is_array(leaf) and leaf.ndim > 0)
            flat, tree = jax.tree_util.tree_flatten(arrays)
            if _is_older_spline(leaves, flat, transformer):
                raise NotImplementedError(
                    f"{place.path}: expected splines of flowjax 18 or newer, of 3 knots + 4 parameters, got arrays of "
                    "flowjax 14 to 17, of 3 knots + 2: their first and last bins have half the least width, and their "
                    "slopes at the ends are trained; fit hr.NSF to samples, which takes seconds"
                )
            if [one.shape for one in flat] == [one.shape for one in leaves]:
                filled = [jax.numpy.asarray(one) for one in leaves]
                return equinox.combine(jax.tree_util.tree_unflatten(tree, filled), rest)
    shapes = ", ".join(str(one.shape) for one in leaves)
    raise NotImplementedError(
        f"{place.path}: expected the leaves of flowjax's masked_autoregressive_flow or coupling_flow with this "
        f"transformer, got arrays of shapes {shapes}"
    )


def _is_older_spline(leaves: Arrays, made: Sequence[Any], transformer: Any) -> bool:
    """Whether arrays differ from those of a flow of today in the outputs of their networks alone, as older splines."""
    knots = getattr(transformer, "knots", None)
    if knots is None or len(leaves) != len(made):
        return False
    now, before = 3 * knots + 4, 3 * knots + 2
    differ = [(old.shape, new.shape) for old, new in zip(leaves, made, strict=True) if old.shape != new.shape]
    return bool(differ) and all(
        len(old) == len(new) and old[0] == new[0] and old[2:] == new[2:] and old[1] * now == new[1] * before
        for old, new in differ
    )


def _templates(leaves: Arrays, options: Mapping[str, Any], place: Place) -> Sequence[Any]:
    """Fresh flows of the sizes that the arrays may have."""
    import jax
    from flowjax import flows
    from flowjax.distributions import Normal, StandardNormal

    weights = [one for one in leaves if one.ndim == 3 and one.dtype.kind == "f"]
    if not weights:
        shapes = ", ".join(str(one.shape) for one in leaves)
        raise NotImplementedError(
            f"{place.path}: expected weights (layers, units, inputs), got arrays of shapes {shapes}"
        )
    is_masked = any(one.ndim == 3 and one.dtype.kind == "b" for one in leaves)
    make = flows.masked_autoregressive_flow if is_masked else flows.coupling_flow
    permuted = [one.shape[1] for one in leaves if one.ndim == 2 and one.dtype.kind in "iu"]
    base = [one for one in leaves if one.ndim == 1]
    made = []
    for features in permuted[:1] or [2, 1]:
        context = weights[0].shape[2] - (features if is_masked else features // 2)
        if context < 0 or (features == 1 and not context):
            continue
        density = Normal(jax.numpy.zeros(features)) if base else StandardNormal((features,))
        sizes = {"flow_layers": weights[0].shape[0], "nn_width": weights[0].shape[1], "nn_depth": len(weights) - 1}
        made.append(make(jax.random.key(0), base_dist=density, cond_dim=context or None, **sizes, **options))
    return made


def _transformer(given: Any) -> Any:
    return None if isinstance(given, str) and check.choice("transformer", given, ("affine",)) else given


def _activation(given: Any) -> Any:
    import jax

    if not isinstance(given, str):
        return given
    name = check.choice("activation", given, _ACTIVATIONS)
    if name.startswith("gelu"):
        return functools.partial(jax.nn.gelu, approximate=name == "gelu_tanh")
    return getattr(jax.nn, name)
