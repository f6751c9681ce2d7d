"""Modules of PyTorch as sources of conversions, which use copies in float64 and leave the modules unchanged."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from headrace._base import arguments as check
from headrace._flow.flow import Flow
from headrace.convert._parts import Numbers, Place, dtype_of
from headrace.convert._training import changed_by_training, refuse_training
from headrace.convert._verify import verify


def opened(model: Any, expected: str = "", *attributes: str) -> Any:
    """A copy of a module on the CPU, in evaluation mode and in float64, which represents the values exactly.

    Raises an error if a layer outside of embedding nets is in training mode with a different density, or if the module
    lacks one of `attributes`.
    """
    import torch

    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a module of PyTorch, got {check.kind_of(model)}")
    refuse_training(_layers(model))
    for layer in model.modules():  # removes caches of nflows' linear maps, which cannot be copied
        if hasattr(layer, "cache") and hasattr(layer.cache, "invalidate"):
            layer.cache.invalidate()
    try:
        model = copy.deepcopy(model)
    except Exception as error:
        raise TypeError(f"model: expected a module that can be copied, got {error}") from error
    if not all(hasattr(model, attribute) for attribute in attributes):
        raise TypeError(f"model: expected {expected}, got {type(model).__name__}")
    return model.cpu().double().eval()


def _layers(model: Any) -> list[tuple[str, Any]]:
    """The layers of a module with their paths, without the layers of an embedding net."""
    nets: list[Any] = [getattr(model, attribute, None) for attribute in ("_embedding_net", "embedding_net")]
    outside = {layer for net in nets if hasattr(net, "modules") for layer in net.modules()}
    return [(path and f".{path}", layer) for path, layer in model.named_modules() if layer not in outside]


def keeping_dropout(convert: Callable[..., Flow], model: Any, **options: Any) -> Flow:
    """Convert a model to a flow whose hidden layers have the dropout of the model's layers.

    Raises:
        NotImplementedError: a dropout of the model does not follow the activation of a hidden layer.
    """
    model = copy.deepcopy(model)
    unread: dict[str, Any] = {}
    for path, layer in _layers(model):
        if changed_by_training(layer) == "dropout":
            unread[path] = layer
            layer._kept = partial(unread.pop, path, None)  # an attribute that copies of the layer share
            layer.eval()
    flow = convert(model, **options)
    for path, layer in unread.items():
        raise NotImplementedError(
            f"model{path}: expected a dropout behind the activation of a hidden layer, got {layer!r}; call "
            "model.eval() and train without it"
        )
    return flow


def tensors_of(model: Any) -> list[Any]:
    """The parameters of a model; for a model without parameters, the floating tensors of the model's `state_dict`."""
    return [*model.parameters()] or [t for t in model.state_dict().values() if t.is_floating_point()]


def finished(
    place: Place, tensors: Sequence[Any], make: Callable[[], Flow], log_prob: Callable[[Any, Any], Any] | None
) -> Flow:
    """The flow that `make` returns, compared with `log_prob` in float64, in the dtype of `tensors`."""
    import torch

    flow = make()
    dtype = dtype_of(place, tensors)
    if log_prob is not None:

        def density(x: Numbers, context: Numbers | None) -> Numbers:
            context_tensor = None if context is None else torch.from_numpy(context)
            try:
                with torch.no_grad():
                    result: Numbers = log_prob(torch.from_numpy(x), context_tensor).numpy()
            except RuntimeError as error:
                got = f"an error of the model's own code: {error}; verify=False does without them"
                raise ValueError(f"{place.path}: expected log densities of float64 rows, got {got}") from error
            return result

        verify(flow, density)
    return flow if dtype == "float64" else flow.astype(dtype)
