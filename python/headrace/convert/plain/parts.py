"""What the files of this folder share: names of types, and numbers made of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Header", "Pair", "Tensors", "Transform", "below", "constant", "positive", "softplus"]

Header = Mapping[str, Any]
Tensors = Mapping[str, Tensor]
Pair = tuple[Tensor, Tensor]


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x)."""
    out: Tensor = functional.softplus(x, threshold=40.0)  # PyTorch's own is straight beyond 20, where 2e-9 are missing
    return out


def positive(raw: Tensor) -> Tensor:
    """0.001 + log(1 + e^(a + c)), which is 1 at 0."""
    return softplus(raw + math.log(math.expm1(0.999))) + 1e-3


def below(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """Those whose names start so, without that start."""
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}


def constant(numbers: Any, like: Tensor) -> Tensor:
    """In float64, whatever dtype a module is moved to."""
    return torch.tensor(numbers, dtype=torch.float64, device=like.device)


class Transform(nn.Module):
    """One transform; a call of it with ``to_data`` goes from latent to data."""

    is_wide = False  # whether it takes float64 whatever the flow's dtype

    def __init__(self, header: Header, tensors: Tensors) -> None:
        """From what the file has of it."""
        super().__init__()
        self.header, self.is_flipped = dict(header), False
        self.columns: list[int] | None = None  # which it moves; all of them

    def run(self, value: Tensor, context: Tensor | None, to_data: bool) -> Pair:
        """Rows and log-determinants of one direction; columns that it does not move stay as they are."""
        if self.columns is None:
            out: Pair = self(value, context, to_data != self.is_flipped)
            return out
        moved, log_det = self(value[..., self.columns], context, to_data != self.is_flipped)
        rest = [c for c in range(value.shape[-1]) if c not in set(self.columns)]
        order = [*rest, *self.columns]
        whole = torch.cat([value[..., rest], moved], -1)
        return whole[..., sorted(range(len(order)), key=order.__getitem__)], log_det

    def _keep(self, tensors: Tensors, *names: str) -> None:
        for name in names:
            self.register_parameter(name, nn.Parameter(tensors[name]))
