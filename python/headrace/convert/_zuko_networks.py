"""Networks of zuko's transforms."""

from __future__ import annotations

from typing import Any

from headrace.convert._parts import Layers, Place, activation_of, class_of, numbers


def network_of(hyper: Any, place: Place, reads: int) -> Layers:
    """The layers of an MLP of zuko, masked or not, with or without residual blocks."""
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
    """Add a residual block, x + W2 σ(W1 x + b1) + b2, behind a layer without activation."""
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
