"""The hidden layers of a conditioner: width, activation, skip connections and use of the context of each layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from headrace._base import arguments as check
from headrace._base.public import public
from headrace._core.settings import ACTIVATIONS, MOST_COLUMNS

_JOINS = ("add", "gate")


def checked_activation(name: str, value: Any) -> str:
    """The checked name of an activation; None stands for the identity."""
    return check.choice(name, "identity" if value is None else value, ACTIVATIONS)


@public()
@dataclass(frozen=True, repr=False)
class Layer:
    """A hidden layer: activation(sum), where sum = W · values below + b, joined by the context, + another layer's sum.

    Attributes:
        units: The number of units.
        activation: A name as in `MaskedAutoregressive`; None for the identity.
        adds: The index, from 0, of the earlier hidden layer whose sums are added to this layer's, unit by unit: both
            layers have the same width, and no other layer adds the same earlier layer. None: no layer is added.
        context: How a product of the context alone, with its own weights and biases, joins this layer's product before
            another layer is added: "add" adds ``context_activation`` of the context's product, "gate" multiplies by
            the same value. None: the context is not used.
        context_activation: By default the identity for "add", and "sigmoid" for "gate".
        dropout: The share of the layer's values that `Flow.fit` omits at random in each step, for each row; the
            remaining values are divided by the kept share (Srivastava and others 2014). The share is
            also used by `accelerate(dropout="keep")`.
    """

    units: int
    activation: str | None = "relu"
    adds: int | None = None
    context: str | None = None
    context_activation: str | None = None
    dropout: float = 0.0

    def __repr__(self) -> str:
        """The units, the activation and the fields that differ from their defaults."""
        more = "".join(
            f", {name}={getattr(self, name)!r}"
            for name in ("adds", "context", "context_activation")
            if getattr(self, name) is not None
        )
        more += f", dropout={self.dropout:g}" if self.dropout else ""
        return f"Layer({self.units}, {self.activation!r}{more})"

    def __post_init__(self) -> None:
        """Check all fields; an error names the wrong field."""

        def keep(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)  # sets a field of a frozen dataclass

        keep("units", check.integer("units", self.units, least=1, most=MOST_COLUMNS))
        keep("activation", checked_activation("activation", self.activation))
        keep("dropout", check.number("dropout", self.dropout, least=0.0, below=1.0))
        if self.adds is not None:
            keep("adds", check.integer("adds", self.adds))
        if self.context is None:
            if self.context_activation is not None:
                raise ValueError(f"context_activation: expected None without context, got {self.context_activation!r}")
            return
        keep("context", check.choice("context", self.context, _JOINS))
        default = "sigmoid" if self.context == "gate" and self.context_activation is None else self.context_activation
        keep("context_activation", checked_activation("context_activation", default))


@public()
@dataclass(frozen=True, repr=False)
class Network:
    """Hidden layers of a network, from the first to the last, without the output layer.

    `MaskedAutoregressive`, `Coupling` and the named flows take a `Network` in place of widths as ``hidden``;
    ``from_dense`` takes a `Network` as ``network``. Both directions cost one pass for any connections, because a unit's
    degree also bounds the degrees of units that are added to it.

    Args:
        layers: The `Layer` objects.

    >>> import numpy as np, headrace as hr
    >>> network = hr.Network.residual((32, 32), activation="silu")
    >>> [(layer.units, layer.activation, layer.adds) for layer in network]
    [(32, 'silu', None), (32, 'silu', None), (32, 'silu', 0), (32, 'silu', None), (32, 'identity', 2)]
    >>> flow = hr.MAF(3, hidden=network)
    >>> x, log_prob = flow.sample_and_log_prob(100, seed=0)
    >>> bool(np.allclose(flow.log_prob(x), log_prob, atol=1e-4))
    True
    """

    layers: tuple[Layer, ...]

    def __init__(self, layers: Sequence[Layer]) -> None:
        if isinstance(layers, (str, bytes)) or not hasattr(layers, "__iter__"):
            raise TypeError(f"layers: expected a list of Layer objects, got {check.kind_of(layers)}")
        given, added = tuple(layers), set[int]()
        for i, layer in enumerate(given):
            if not isinstance(layer, Layer):
                raise TypeError(f"layers[{i}]: expected a Layer, got {check.kind_of(layer)}")
            if layer.adds is None:
                continue
            if layer.adds >= i or given[layer.adds].units != layer.units:
                raise ValueError(
                    f"layers[{i}].adds: expected an earlier hidden layer of {layer.units} units, got {layer.adds}"
                )
            if layer.adds in added:
                raise ValueError(f"layers[{i}].adds: expected a layer that no other one adds, got {layer.adds}")
            added.add(layer.adds)
        object.__setattr__(self, "layers", given)

    def __repr__(self) -> str:
        """The class name and the layers."""
        return f"Network({list(self.layers)!r})"

    def __len__(self) -> int:
        """The number of hidden layers."""
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        """Iterate over the hidden layers."""
        return iter(self.layers)

    @classmethod
    def plain(cls, hidden: Sequence[int], activation: str | None = "relu", dropout: float = 0.0) -> Network:
        """A network of equal layers, one after another.

        Args:
            hidden: The units of each layer.
            activation, dropout: The settings of all layers.
        """
        sizes = check.integers("hidden", hidden, least=1, most=MOST_COLUMNS)
        return cls([Layer(units, activation, dropout=dropout) for units in sizes])

    @classmethod
    def residual(
        cls,
        hidden: Sequence[int],
        activation: str | None = "relu",
        *,
        pre_activation: bool = True,
        context: str | None = None,
        context_activation: str | None = None,
        dropout: float = 0.0,
    ) -> Network:
        """A first layer, then a residual block for each entry of ``hidden``; a layer precedes each change of width.

        Args:
            hidden: The units of each block.
            activation: The activation of all layers.
            pre_activation: Whether blocks are h + W2 σ(W1 σ(h)) (He, Zhang, Ren, Sun 2016), as in nflows; otherwise
                they are h + W2 σ(W1 h), without activations outside of blocks, as in zuko.
            context, context_activation: How the context joins the second product of each block; see `Layer`.
            dropout: The dropout of the first layer of each block, as in nflows.
        """
        layers: list[Layer] = []
        outside = activation if pre_activation else None
        sizes = check.integers("hidden", hidden, least=1, most=MOST_COLUMNS)
        for units in sizes:
            if not layers or layers[-1].units != units:
                layers.append(Layer(units, outside))
            end = Layer(units, outside, len(layers) - 1, context, context_activation)
            layers += [Layer(units, activation, dropout=dropout), end]
        if layers:  # the outputs read the sums of the last block without an activation
            layers[-1] = Layer(layers[-1].units, None, layers[-1].adds, context, context_activation)
        return cls(layers)

    @property
    def units(self) -> tuple[int, ...]:
        """The number of units of each hidden layer."""
        return tuple(layer.units for layer in self.layers)

    @property
    def common_activation(self) -> str | None:
        """The activation of all layers, if these differ only in width and have no other settings; otherwise None."""
        first = self.layers[0].activation if self.layers else "relu"
        is_plain = all(layer == Layer(layer.units, first) for layer in self.layers)
        return first if is_plain else None

    @property
    def joined(self) -> tuple[int, ...]:
        """The indices of the layers that a product of the context joins."""
        return tuple(i for i, layer in enumerate(self.layers) if layer.context is not None)

    def header(self) -> list[dict[str, Any]]:
        """The network in JSON types, without fields that are None and without dropouts of 0."""
        return [
            {key: value for key, value in asdict(layer).items() if value is not None and (key, value) != ("dropout", 0)}
            for layer in self.layers
        ]

    @classmethod
    def from_header(cls, rows: Any) -> Network:
        """The network that a file's header describes."""
        if not isinstance(rows, list):
            raise TypeError(f"network: expected a list, got {check.kind_of(rows)}")
        known = {one.name for one in fields(Layer)}
        layers = []
        for i, row in enumerate(rows):
            if not isinstance(row, dict) or not {"units", "activation"} <= row.keys() <= known:
                raise ValueError(f"network[{i}]: expected units, activation and others of {sorted(known)}, got {row!r}")
            layers.append(Layer(**row))
        return cls(layers)

    def core_layers(self, core: Any) -> list[Any]:
        """The hidden layers as the argument ``hidden`` of `MaskedOptions` of a compiled module."""
        return [
            core.HiddenOptions(
                layer.activation,
                -1 if layer.adds is None else layer.adds,
                layer.context or "",
                layer.context_activation or "",
                layer.dropout,
            )
            for layer in self.layers
        ]
