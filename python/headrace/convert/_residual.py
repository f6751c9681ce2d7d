"""Networks of nflows, normflows and glasflow: masked or not, of plain layers or of residual blocks.

normflows and glasflow have copies of nflows' networks; the copies read the context differently from nflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.convert._parts import Join, Layers, Leaky, Numbers, Place, activation_of, class_of, numbers

# Activations that commute with positive factors, such as relu(k v) = k relu(v).
_HOMOGENEOUS = ("relu", "leaky_relu", "identity")


@dataclass
class _Linear:
    """A linear layer, and a layer of the context whose outputs join it."""

    weight: Numbers
    bias: Numbers
    mask: Any = None
    join: Join | None = None

    def rescaled(self, factor: Numbers, shift: Numbers) -> _Linear:
        """One layer that computes this layer followed by a batch norm with a factor and a shift."""
        join = None if self.join is None else self.join.scaled(factor)
        return _Linear(factor[:, None] * self.weight, factor * self.bias + shift, self.mask, join)

    def reading(self, factor: Numbers, shift: Numbers) -> _Linear:
        """One layer that computes a batch norm, with a factor and a shift, followed by this layer."""
        counts = self.weight if self.mask is None else self.weight * (numbers(self.mask) != 0)
        return _Linear(self.weight * factor, self.bias + counts @ shift, self.mask, self.join)


@dataclass
class _Block:
    """A residual block: h + second(σ(norm1(first(σ(norm0(h))))))."""

    first: _Linear
    second: _Linear
    activation: str
    norms: tuple[tuple[Numbers, Numbers], ...]  # a factor and a shift for each batch norm: two or none
    dropout: Any = None


def _linear(module: Any, place: Place, join: Join | None = None) -> _Linear:
    if class_of(module)[1] not in ("Linear", "MaskedLinear"):
        raise place.unknown(module, "a linear layer")
    weight = numbers(module.weight)
    bias = np.zeros(len(weight)) if module.bias is None else numbers(module.bias)
    return _Linear(weight, bias, getattr(module, "mask", None), join)


def _joined(how: str, module: Any, place: Place, activation: str | None = None) -> Join:
    linear = _linear(module, place)
    if isinstance(activation, Leaky):
        raise place.differs("activation", "one of headrace's for a context", activation, "train without the context")
    return Join(how, linear.weight, linear.bias, activation)


def _norm(module: Any, place: Place) -> tuple[Numbers, Numbers]:
    """The factor and the shift of each unit that a batch norm applies in evaluation mode."""
    if class_of(module) != ("torch", "BatchNorm1d"):
        raise place.unknown(module, "torch's BatchNorm1d")
    if module.running_mean is None:
        raise place.differs("track_running_stats", "True", False)
    factor = 1.0 / np.sqrt(numbers(module.running_var) + module.eps)
    shift = -numbers(module.running_mean) * factor
    if module.weight is not None:
        weight = numbers(module.weight)
        factor, shift = factor * weight, shift * weight + numbers(module.bias)
    return factor, shift


def _blocks_of(net: Any, place: Place, gate: bool) -> list[_Block]:
    blocks = []
    for i, block in enumerate(net.blocks):
        inner = place.at("blocks").at(i)
        if class_of(block)[1] not in ("MaskedResidualBlock", "ResidualBlock"):
            raise inner.unknown(block, "blocks of one kind")
        joins: list[Join | None] = [None, None]
        if hasattr(block, "context_layer"):
            joins[gate] = _joined("gate" if gate else "add", block.context_layer, inner.at("context_layer"))
        parts = [_linear(m, inner.at("linear_layers").at(j), joins[j]) for j, m in enumerate(block.linear_layers)]
        listed = enumerate(getattr(block, "batch_norm_layers", ()))
        norms = [_norm(m, inner.at("batch_norm_layers").at(j)) for j, m in listed]
        activation = activation_of(inner.at("activation"), block.activation)
        blocks.append(_Block(parts[0], parts[1], activation, tuple(norms), getattr(block, "dropout", None)))
    return blocks


def _pre_activated(layers: Layers, first: _Linear, blocks: list[_Block], last: _Linear) -> None:
    """Add a linear layer, residual blocks, and a last linear layer to `layers`."""
    for block in blocks:
        if block.norms:
            block.first = block.first.rescaled(*block.norms[1])
    gated = any(block.second.join is not None for block in blocks)
    normed = [block for block in blocks if block.norms]
    folds = all(block.activation in _HOMOGENEOUS and (block.norms[0][0] > 0).all() for block in normed)
    if folds and not gated:
        last = _folded(first, blocks, last)
    for block in blocks:
        if isinstance(block.activation, Leaky) and not block.norms:  # a Leaky would double units of a sum
            block.norms = ((np.ones_like(first.bias), np.zeros_like(first.bias)),)
    activations = [*("identity" if block.norms else block.activation for block in blocks), "identity"]
    skip = layers.hidden(first.weight, first.bias, first.mask, activation=activations[0], join=first.join)
    for block, activation in zip(blocks, activations[1:], strict=True):
        if block.norms:  # the skip adds sums without normalisation
            factor, shift = block.norms[0]
            layers.hidden(np.diag(factor), shift, np.eye(len(factor)), activation=block.activation)
        one, two = block.first, block.second
        layers.hidden(one.weight, one.bias, one.mask, activation=block.activation, join=one.join, dropout=block.dropout)
        skip = layers.hidden(two.weight, two.bias, two.mask, activation=activation, adds=skip, join=two.join)
    layers.outputs(last.weight, last.bias, last.mask)


def _folded(first: _Linear, blocks: list[_Block], last: _Linear) -> _Linear:
    """Fold the first batch norm of each block: σ(k h + c) = k σ(h + c / k), and the skip has the values h + c / k.

    Shifts move into the biases of layers whose outputs are added, and factors into the weights of the next layers.
    """
    carried = np.zeros(len(first.bias))

    def move(linear: _Linear, shift: Numbers) -> None:
        nonlocal carried
        linear.bias, carried = linear.bias + shift - carried, shift

    before = first
    for block in blocks:
        if block.norms:
            factor, shift = block.norms[0]
            move(before, shift / factor)
            block.first.weight, block.norms = block.first.weight * factor, ()
        else:
            move(before, np.zeros_like(carried))
        before = block.second
    return last.reading(np.ones_like(carried), -carried)


def masked_network(net: Any, place: Place, context_activation: bool) -> Layers:
    """The layers of a MADE; `context_activation`: whether the activation applies to the context, as in nflows."""
    if class_of(net)[1] != "MADE":
        raise place.unknown(net, "a MADE")
    if class_of(getattr(net, "preprocessing", None)) not in (("builtins", "NoneType"), ("torch", "Identity")):
        raise place.at("preprocessing").unknown(net.preprocessing, "no preprocessing")
    has_context = hasattr(net, "context_layer")
    layers = Layers(int(net.context_layer.weight.shape[1]) if has_context else 0)
    first = _linear(net.initial_layer, place.at("initial_layer"))
    last = _linear(net.final_layer, place.at("final_layer"))
    if has_context:
        named = activation_of(place.at("activation"), net.activation) if context_activation else "identity"
        first.join = _joined("add", net.context_layer, place.at("context_layer"), named)
    kinds = {class_of(block)[1] for block in net.blocks}
    if kinds == {"MaskedFeedforwardBlock"}:
        _plain_blocks(layers, net, place, first, context_activation)
        layers.outputs(last.weight, last.bias, last.mask)
    elif kinds <= {"MaskedResidualBlock"} and getattr(net, "use_residual_blocks", True):
        _pre_activated(layers, first, _blocks_of(net, place, gate=not context_activation), last)
    else:
        raise place.at("blocks").unknown(net.blocks, "residual blocks, or feed-forward ones")
    layers.widen()
    return layers


def _plain_blocks(layers: Layers, net: Any, place: Place, first: _Linear, is_activated: bool) -> None:
    """Add the first layer and feed-forward blocks; `is_activated`: whether the first layer has an activation."""
    activation = activation_of(place.at("activation"), net.activation) if is_activated else "identity"
    layers.hidden(first.weight, first.bias, first.mask, activation=activation, join=first.join)
    for i, block in enumerate(net.blocks):
        inner = place.at("blocks").at(i)
        linear = _linear(block.linear, inner.at("linear"))
        if block.batch_norm is not None:
            linear = linear.reading(*_norm(block.batch_norm, inner.at("batch_norm")))
        named = activation_of(inner.at("activation"), block.activation)
        dropout = getattr(block, "dropout", None)
        layers.hidden(linear.weight, linear.bias, linear.mask, activation=named, dropout=dropout)


def residual_network(net: Any, place: Place) -> Layers:
    """The layers of a ResidualNet: the first layer reads inputs and context, and blocks have gates by the context."""
    if class_of(getattr(net, "preprocessing", None)) != ("builtins", "NoneType"):
        raise place.at("preprocessing").unknown(net.preprocessing, "no preprocessing")
    layers = Layers(int(net.context_features or 0))
    first = _linear(net.initial_layer, place.at("initial_layer"))
    last = _linear(net.final_layer, place.at("final_layer"))
    _pre_activated(layers, first, _blocks_of(net, place, gate=True), last)
    return layers


def plain_network(modules: Any, place: Place, inputs: int) -> Layers:
    """The layers of a plain network: linear layers, with an activation after each but the last."""
    modules = [*modules]  # a list, because the container from a state_dict has no indices
    kept = [(i, m) for i, m in enumerate(modules) if class_of(m) not in (("torch", "Dropout"), ("torch", "Identity"))]
    if not kept or class_of(kept[-1][1])[1] != "Linear":
        i, module = kept[-1] if kept else (0, None)
        raise place.at(i).unknown(module, "a linear layer at the end")
    layers = Layers(int(kept[0][1].weight.shape[1]) - inputs)
    for i, module in kept[:-1]:
        if class_of(module)[1] == "Linear":
            linear = _linear(module, place.at(i))
            layers.hidden(linear.weight, linear.bias)
        elif not layers.layers or layers.layers[-1].activation != "identity":
            raise place.at(i).unknown(module, "a linear layer before each activation")
        else:
            layers.activate(activation_of(place.at(i), module))
            layers.drop(modules[i + 1])
    linear = _linear(kept[-1][1], place.at(kept[-1][0]))
    layers.outputs(linear.weight, linear.bias)
    return layers


def modules_of(net: Any, inputs: int) -> Any:
    """The modules of a plain network, also inside a module of the caller's class that does nothing else; or None."""
    return _plain_modules(net) or _wrapped(net, inputs)


def _wrapped(net: Any, inputs: int) -> Any:
    """The modules of a plain network inside a module of the caller's class; or None.

    The outer module must hold one plain network and no other parameters. Random rows show whether the outer module only
    passes inputs, followed by the context if there is one, to the network.
    """
    if not callable(getattr(net, "children", None)) or [*net.parameters(recurse=False), *net.buffers(recurse=False)]:
        return None
    children = list(net.children())
    modules = _plain_modules(children[0]) if len(children) == 1 else None
    first = next((m for m in modules or () if class_of(m) == ("torch", "Linear")), None)
    if first is None or first.in_features < inputs:
        return None
    import torch

    rows = torch.from_numpy(np.random.default_rng(22).standard_normal((16, first.in_features))).to(first.weight)
    parts = [columns for columns in (rows[:, :inputs], rows[:, inputs:]) if columns.shape[1]]
    try:
        with torch.no_grad():
            same = torch.equal(net(*parts), children[0](rows))
    except Exception:  # an error of the caller's code shows that the module does more
        return None
    return modules if same else None


def _plain_modules(net: Any) -> Any:
    """The modules of a Linear, a Sequential, or an MLP of nflows without a last activation; None for others."""
    if class_of(net) == ("torch", "Linear"):
        return [net]
    if class_of(net) == ("torch", "Sequential"):
        return net
    if class_of(net)[1] == "MLP" and hasattr(net, "_input_layer") and not net._activate_output:
        activation = getattr(net, "_activation", None) or net._activation_fn
        inner = [net._input_layer, *net._hidden_layers]
        return [*(m for layer in inner for m in (layer, activation)), net._output_layer]
    return None
