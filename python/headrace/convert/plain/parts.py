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

    def _keep(self, tensors: Tensors, *names: str) -> None:
        for name in names:
            self.register_parameter(name, nn.Parameter(tensors[name]))
