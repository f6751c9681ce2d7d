"""Draws from the standard density under a base, by PyTorch's own generators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributions

from headrace._flow.bases import Base, Logistic, Normal, StandardNormal
from headrace._flow.tails import Independent, NormalMixture, StudentT, Uniform


def draw(base: Base, shape: tuple[int, ...], dtype: torch.dtype, device: Any) -> Tensor:
    """Rows of the density that a flow's parameters then move; they themselves depend on no trained parameter.

    Args:
        base: One without trained parameters that determine how values are drawn.
        shape: Shape (..., features).
        dtype: Of the rows. Densities with heavy tails are drawn in float64.
        device: Where.
    """

    def wide(numbers: Any) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64, device=device)

    if isinstance(base, (StandardNormal, Normal)):
        return torch.randn(shape, dtype=dtype, device=device)
    if isinstance(base, (Logistic, Uniform)):
        return _column("logistic" if isinstance(base, Logistic) else "uniform", shape, device).to(dtype)
    if isinstance(base, Independent):
        noise = torch.empty(shape, dtype=torch.float64, device=device)
        for name in dict.fromkeys(base.densities):
            places = [c for c, own in enumerate(base.densities) if own == name]
            noise[..., places] = _column(name, (*shape[:-1], len(places)), device)
        return noise.to(dtype)
    if isinstance(base, StudentT):
        return distributions.StudentT(wide(base.df), validate_args=False).sample(shape[:-1]).to(dtype)
    if isinstance(base, NormalMixture):
        which = distributions.Categorical(wide(base.weights)).sample(shape[:-1])
        normal = torch.randn(shape, dtype=torch.float64, device=device)
        return (wide(base.loc)[which] + wide(base.scale)[which] * normal).to(dtype)
    raise TypeError(f"base: expected one of headrace's own, got {base!r}")


def _column(name: str, shape: tuple[int, ...], device: Any) -> Tensor:
    """Standard draws of a density of `Independent`, in float64."""
    if name == "normal":
        return torch.randn(shape, dtype=torch.float64, device=device)
    uniform = torch.rand(shape, dtype=torch.float64, device=device)
    # it is below 1, and may be 0
    return torch.logit(uniform, eps=2.0**-54) if name == "logistic" else 2.0 * uniform - 1.0
