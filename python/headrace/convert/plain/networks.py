"""Networks: products with masks, sums that are added later, and contexts that join."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .parts import Header, Tensors, below, softplus

__all__ = ["by_coordinate", "layers_of", "levels_of", "network"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "elu": functional.elu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "softplus": softplus,
    "leaky_relu": functional.leaky_relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}


class _Layer(nn.Module):
    """A product with a mask or none, and perhaps a context's that joins it."""

    mask: Tensor | None

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(tensors["weight"]), nn.Parameter(tensors["bias"])
        self.register_buffer("mask", tensors.get("mask"))
        self.context = _Layer(inner) if (inner := below(tensors, "context.")) else None

    def forward(self, value: Tensor) -> Tensor:
        return functional.linear(value, self.weight if self.mask is None else self.weight * self.mask, self.bias)


def layers_of(tensors: Tensors) -> nn.ModuleList:
    """The layers of a network, hidden ones and the last."""
    count = sum(1 for name in tensors if name.startswith("layers.") and name.count(".") == 2 and name.endswith("bias"))
    return nn.ModuleList(_Layer(below(tensors, f"layers.{i}.")) for i in range(count))


def _hidden(header: Header, layers: nn.ModuleList) -> Sequence[Header]:
    return header.get("network") or [{"activation": header["activation"]}] * (len(layers) - 1)


def network(header: Header, layers: nn.ModuleList, value: Tensor, context: Tensor | None) -> Tensor:
    """Outputs; `value` are all columns that the first layer reads."""
    sums: list[Tensor] = []
    for told, layer in zip(_hidden(header, layers), layers, strict=False):
        total = layer(value)
        if (join := told.get("context")) is not None:
            joined = ACTIVATIONS[told["context_activation"]](layer.context(context))
            total = total * joined if join == "gate" else total + joined
        if (adds := told.get("adds")) is not None:
            total = total + sums[adds]
        sums.append(total)
        value = ACTIVATIONS[told["activation"]](total)
    out: Tensor = layers[-1](value)
    return out


def by_coordinate(header: Header, sizes: Sequence[int], out: Tensor, active: int) -> list[Tensor]:
    """Outputs (..., rows) as one tensor (..., active, size) for each name of a parameter."""
    lead = out.shape[:-1]
    if header["layout"] == "interleaved":
        return list(out.reshape(*lead, active, sum(sizes)).split(list(sizes), -1))
    parts = out.split([active * size for size in sizes], -1)
    return [part.reshape(*lead, active, size) for part, size in zip(parts, sizes, strict=True)]


def levels_of(header: Header, layers: nn.ModuleList, sizes: Sequence[int], features: int) -> list[int]:
    """For each coordinate how many passes settle it, by the masks: 1 where it depends on no other."""
    seen = torch.eye(layers[0].weight.shape[1])[:, :features]
    reached: list[Tensor] = []
    adds = [told.get("adds") for told in _hidden(header, layers)]
    for i, layer in enumerate(layers):
        seen = ((layer.mask.float() @ seen) > 0).float()
        added = adds[i] if i < len(adds) else None
        seen = seen if added is None else torch.maximum(seen, reached[added])
        reached.append(seen)
    reads = torch.stack([part.amax(-1) for part in by_coordinate(header, sizes, seen.T, features)]).amax(0).T
    levels = torch.ones(features)
    for _ in range(features):
        before, levels = levels, 1 + (reads * levels).amax(1)
        if torch.equal(before, levels):
            break
    return [int(level) for level in levels.tolist()]
