"""Checks of dense layers, from arrays or from a file, for masked transforms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.stored import Stored
from headrace._core.settings import Settings
from headrace._core.structure import Staircase
from headrace._flow.transforms.network import Network


@dataclass(eq=False)
class Dense:
    """The checked layers of `from_dense`; layers that read only the context have separate lists."""

    weights: list[NDArray[Any]]
    biases: list[NDArray[Any]]
    masks: list[NDArray[np.bool_]]
    network: Network | None = None
    context_weights: list[NDArray[Any]] = field(default_factory=list)
    context_biases: list[NDArray[Any]] = field(default_factory=list)


def checked_dense(
    weights: Any,
    biases: Any,
    masks: Any,
    network: Any,
    context_weights: Any,
    context_biases: Any,
    conditioner: Mapping[str, Any],
) -> Dense:
    """The checked arguments of `from_dense`; an error names the wrong argument."""
    dense = _checked_layers(weights, biases, masks)
    if network is not None:
        if not isinstance(network, Network):
            raise TypeError(f"network: expected a Network, got {check.kind_of(network)}")
        if "activation" in conditioner:
            raise TypeError(f"activation: expected none beside network, got {conditioner['activation']!r}")
        if (given := tuple(len(b) for b in dense.biases[:-1])) != network.units:
            raise ValueError(f"network: expected layers of {given} units, as weights have, got {network.units}")
    joined = () if network is None else network.joined
    lists = {"context_weights": [*context_weights], "context_biases": [*context_biases]}
    for name, arrays in lists.items():
        if len(arrays) != len(joined):
            raise ValueError(f"{name}: expected one array for each of {len(joined)} layers, got {len(arrays)}")
        for i, array in enumerate(arrays):
            arrays[i] = opened = _opened(f"{name}[{i}]", array)
            units = len(dense.biases[joined[i]])
            if opened.dtype != dense.weights[0].dtype:
                raise TypeError(f"{name}[{i}]: expected {dense.weights[0].dtype}, as weights are, got {opened.dtype}")
            if opened.shape[:1] != (units,) or opened.ndim != (2 if name == "context_weights" else 1):
                kind = "(units, context)" if name == "context_weights" else "(units,)"
                raise errors.wrong_shape(f"{name}[{i}]", f"{kind} with {units} units", opened.shape)
    dense.network = network
    dense.context_weights, dense.context_biases = lists["context_weights"], lists["context_biases"]
    return dense


def _opened(name: str, array: Any) -> Any:
    """A NumPy view of an array of any library; tensors that require gradients are detached."""
    return Caller().open(name, array.detach() if getattr(array, "requires_grad", False) else array)


def _checked_layers(weights: Any, biases: Any, masks: Any) -> Dense:
    lists: dict[str, list[Any]] = {}
    for name, value in (("weights", weights), ("biases", biases), ("masks", masks)):
        if isinstance(value, (str, bytes, np.ndarray)) or not hasattr(value, "__iter__"):
            raise TypeError(f"{name}: expected a list with one array a layer, got {type(value).__name__}")
        lists[name] = [
            np.asarray(a)
            if name == "masks" or isinstance(a, (list, tuple)) or not _arrays.is_array(a)
            else _opened(f"{name}[{i}]", a)
            for i, a in enumerate(value)
        ]
    counts = {name: len(arrays) for name, arrays in lists.items()}
    if len(set(counts.values())) != 1 or not lists["weights"]:
        raise ValueError(f"weights, biases, masks: expected equally many layers, at least one, got {counts}")
    dtype = lists["weights"][0].dtype
    below = None
    for i, (w, b, m) in enumerate(zip(lists["weights"], lists["biases"], lists["masks"], strict=True)):
        if w.dtype != dtype or b.dtype != dtype or dtype not in (np.float32, np.float64):
            raise TypeError(f"weights[{i}], biases[{i}]: expected float32 or float64 for all, got {w.dtype}, {b.dtype}")
        if w.ndim != 2 or (below is not None and w.shape[1] != below):
            raise errors.wrong_shape(f"weights[{i}]", f"(out, {'in' if below is None else below})", w.shape)
        if b.shape != w.shape[:1]:
            raise errors.wrong_shape(f"biases[{i}]", w.shape[:1], b.shape)
        if m.shape != w.shape:
            raise errors.wrong_shape(f"masks[{i}]", w.shape, m.shape)
        below = w.shape[0]
    return Dense(lists["weights"], lists["biases"], [np.ascontiguousarray(m != 0) for m in lists["masks"]])


def stored_dense(stored: Stored, settings: Settings, reads: int, active: int) -> Dense:
    """The layers of a file, with the settings of the network."""
    network = Network.from_header(stored.take("network")) if stored.has("network") else None
    dense = Dense(*stored.layers(reads + settings.context, active * settings.n_params), network)
    if network is None:
        return dense
    if (given := tuple(len(b) for b in dense.biases[:-1])) != network.units:
        raise ValueError(f"network: expected layers of {given} units, as the tensors have, got {network.units}")
    for i in network.joined:
        units = network.units[i]
        dense.context_weights.append(stored.array(f"layers.{i}.context.weight", (units, settings.context)))
        dense.context_biases.append(stored.array(f"layers.{i}.context.bias", (units,)))
    return dense


def stored_staircase(stored: Stored, settings: Settings, dense: Dense) -> Staircase | None:
    """The levels and degrees in a file; None if the file omits levels and degrees, because masks determine them."""
    levels, degrees = stored.take("levels"), stored.take("degrees")
    if levels is None and degrees is None:
        check_derivable(dense.masks, settings)
        return None
    levels = check.integers("levels", levels, least=1, most=settings.features)
    check.length("levels", levels, settings.features)
    if not isinstance(degrees, list):
        raise TypeError(f"degrees: expected a list with one list a hidden layer, got {type(degrees).__name__}")
    check.length("degrees", degrees, len(dense.biases) - 1)
    units = [check.integers(f"degrees[{i}]", d, most=settings.features) for i, d in enumerate(degrees)]
    for i, (layer, bias) in enumerate(zip(units, dense.biases[:-1], strict=True)):
        check.length(f"degrees[{i}]", layer, bias.size)
    return Staircase(levels, units)


def check_derivable(masks: Sequence[NDArray[np.bool_]], settings: Settings) -> None:
    """Refuse masks if the derivation of levels and degrees would need far more memory than the masks.

    The core stores one bit for each unit and each coordinate that it may read, and a list of all dependences for each
    coordinate.
    """
    reads, active = masks[0].shape[1] - settings.context, masks[-1].shape[0] // settings.n_params
    needed = sum(len(mask) for mask in masks) * reads // 8 + 8 * reads * active
    most = max(2**30, 256 * sum(mask.size for mask in masks))
    if needed > most:
        raise ValueError(f"masks: expected what takes at most {most} bytes to derive a structure from, got {needed}")
