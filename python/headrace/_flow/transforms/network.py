"""The network of a conditioner, layer by layer: width, activation, skip connections and use of the context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from headrace._base import arguments as check
from headrace._base.public import public
from headrace._core.settings import ACTIVATIONS, MOST_COLUMNS

_JOINS = ("add", "gate")


def checked_activation(name: str, value: Any) -> str:
    """The name of an activation; None is the identity."""
    return check.choice(name, "identity" if value is None else value, ACTIVATIONS)


@public()
@dataclass(frozen=True, repr=False)
class Layer:
    """A hidden layer: value = activation(sum), sum = (W · value below + b) joined by the context + another layer's sum.

    Attributes:
        units: Number of units.
        activation: As in `MaskedAutoregressive`; None for none.
        adds: The earlier hidden layer, counted from 0, with the sums added to this one's, unit by unit: it is as wide,
            and no other layer adds it. None for none.
        context: A product of only the context, with weights and biases of its own, joins this layer's own product
            before anything is added: "add" adds ``context_activation`` of it, "gate" multiplies by that. None for none.
        context_activation: By default none where it is added, and "sigmoid" where it gates.
        dropout: The share of its values that `Flow.fit` leaves out at random in each step, for each row, dividing the
            others by the share kept (Srivastava and others 2014); `accelerate(dropout="keep")` is the other use.
    """

    units: int
    activation: str | None = "relu"
    adds: int | None = None
    context: str | None = None
    context_activation: str | None = None
    dropout: float = 0.0

    def __repr__(self) -> str:
        """The fields that are not None."""
        more = "".join(
            f", {name}={getattr(self, name)!r}"
            for name in ("adds", "context", "context_activation")
            if getattr(self, name) is not None
        )
        more += f", dropout={self.dropout:g}" if self.dropout else ""
        return f"Layer({self.units}, {self.activation!r}{more})"

    def __post_init__(self) -> None:
        """Check everything, with an error that names the wrong field."""

        def keep(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)  # the way to set a field of a frozen dataclass

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
    """Hidden layers, from the first to the last; the output layer that follows is not given here.

    `MaskedAutoregressive`, `Coupling` and the ready-made flows take one in place of the widths of ``hidden``;
    ``from_dense`` takes one as ``network``. Both directions cost one pass whatever is added: a unit's degree bounds
    its inputs and its summands.

    Args:
        layers: `Layer` objects.

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
        """The layers."""
        return f"Network({list(self.layers)!r})"

    def __len__(self) -> int:
        """Number of hidden layers."""
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        """The layers."""
        return iter(self.layers)

    @classmethod
    def plain(cls, hidden: Sequence[int], activation: str | None = "relu", dropout: float = 0.0) -> Network:
        """One layer after another.

        Args:
            hidden: Units of each.
            activation, dropout: Of all.
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
        """A layer, then a residual block for each entry of ``hidden``; where the width changes another layer between.

        Args:
            hidden: Units of each block.
            activation: Of all.
            pre_activation: Blocks are h + W2 σ(W1 σ(h)) (He, Zhang, Ren, Sun 2016), as nflows has them; else
                h + W2 σ(W1 h), with no activation outside of blocks, as zuko has them.
            context, context_activation: How the context joins the second product of each block, see `Layer`.
            dropout: Of the first layer of each block, as nflows has it.
        """
        layers: list[Layer] = []
        outside = activation if pre_activation else None
        sizes = check.integers("hidden", hidden, least=1, most=MOST_COLUMNS)
        for units in sizes:
            if not layers or layers[-1].units != units:
                layers.append(Layer(units, outside))
            end = Layer(units, outside, len(layers) - 1, context, context_activation)
            layers += [Layer(units, activation, dropout=dropout), end]
        if layers:  # sums of the last block go to the outputs without an activation
            layers[-1] = Layer(layers[-1].units, None, layers[-1].adds, context, context_activation)
        return cls(layers)

    @property
    def units(self) -> tuple[int, ...]:
        """Units of each hidden layer."""
        return tuple(layer.units for layer in self.layers)

    @property
    def common_activation(self) -> str | None:
        """The activation of all layers, if they share one, add nothing and no context joins them; else None."""
        first = self.layers[0].activation if self.layers else "relu"
        is_plain = all(layer == Layer(layer.units, first) for layer in self.layers)
        return first if is_plain else None

    @property
    def joined(self) -> tuple[int, ...]:
        """The layers that a product of the context joins."""
        return tuple(i for i, layer in enumerate(self.layers) if layer.context is not None)

    def header(self) -> list[dict[str, Any]]:
        """The network in JSON's types, without fields that are None or a dropout of 0."""
        return [
            {key: value for key, value in asdict(layer).items() if value is not None and (key, value) != ("dropout", 0)}
            for layer in self.layers
        ]

    @classmethod
    def from_header(cls, rows: Any) -> Network:
        """The network of a file's header."""
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
        """The argument ``hidden`` of `MaskedOptions` of a core."""
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
