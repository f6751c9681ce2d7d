"""Networks as products of matrices, from a transform's header and arrays (docs/files.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.onnx.graph import Value, highest, where

__all__ = ["ACTIVATIONS", "Arrays", "layers_of", "network", "reads_coordinates"]

Arrays = Mapping[str, NDArray[Any]]
Layers = list[tuple[NDArray[Any], NDArray[Any]]]

_BEYOND = -1e30  # where x meets a factor that is 0 long before: infinity times 0 would be NaN

ACTIVATIONS: dict[str, Callable[[Value], Value]] = {
    "relu": lambda x: x.apply("Relu"),
    "tanh": lambda x: x.apply("Tanh"),
    "elu": lambda x: where(x < 0.0, where(x < 0.0, x, 0.0).exp() - 1.0, x),
    "silu": lambda x: highest(x, _BEYOND) * x.sigmoid(),
    "gelu": lambda x: highest(x, _BEYOND) * (0.5 * ((x * np.sqrt(0.5)).apply("Erf") + 1.0)),
    "softplus": lambda x: x.softplus(),
    "leaky_relu": lambda x: where(x < 0.0, x * 0.01, x),
    "sigmoid": lambda x: x.sigmoid(),
    "identity": lambda x: x,
}


def layers_of(arrays: Arrays, prefix: str) -> Layers:
    """Weights, zero where a mask is false, and biases."""
    layers: Layers = []
    while f"{prefix}layers.{len(layers)}.weight" in arrays:
        name = f"{prefix}layers.{len(layers)}"
        weight, mask = arrays[f"{name}.weight"], arrays.get(f"{name}.mask")
        layers.append((weight if mask is None else np.where(mask, weight, 0), arrays[f"{name}.bias"]))
    return layers


def reads_coordinates(header: Mapping[str, Any], arrays: Arrays, prefix: str, columns: int) -> bool:
    """Whether any output depends on any of the first so many columns, by the masks."""
    seen = np.arange(arrays[f"{prefix}layers.0.weight"].shape[1]) < columns
    reached: list[NDArray[np.bool_]] = []
    adds = [layer.get("adds") for layer in header.get("network", ())]
    for i in range(len(layers_of(arrays, prefix))):
        seen = arrays[f"{prefix}layers.{i}.mask"] @ seen > 0
        if i < len(adds) and adds[i] is not None:
            seen = seen | reached[adds[i]]
        reached.append(seen)
    return bool(seen.any())


def network(
    header: Mapping[str, Any], arrays: Arrays, prefix: str, inputs: Value, context: Value | None, rows: Sequence[int]
) -> Value:
    """The outputs, of which `rows` are wanted in this order. `inputs` are all columns, `context` the last of them."""
    layers, sums = layers_of(arrays, prefix), list[Value]()
    plain = {"activation": header["activation"]}
    hidden = header.get("network") or [plain] * (len(layers) - 1)
    value = inputs
    for i, (layer, (weight, bias)) in enumerate(zip(hidden, layers[:-1], strict=True)):
        total = value.dense(weight, bias)
        if (join := layer.get("context")) is not None:
            assert context is not None
            own = [arrays[f"{prefix}layers.{i}.context.{what}"] for what in ("weight", "bias")]
            joined = ACTIVATIONS[layer["context_activation"]](context.dense(own[0], own[1]))
            total = total * joined if join == "gate" else total + joined
        if (adds := layer.get("adds")) is not None:
            total = total + sums[adds]
        sums.append(total)
        value = ACTIVATIONS[layer["activation"]](total)
    weight, bias = layers[-1]
    order = list(rows)
    return value.dense(weight[order], bias[order])
