"""Densities that a user brings: a callable on NumPy arrays, or a function of PyTorch or JAX, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import _arguments as check
from headrace._arrays import caller as _arrays

__all__ = ["GRADIENTS", "Target", "target_of"]

Pair = tuple[NDArray[Any], NDArray[Any]]
Target = Callable[[NDArray[Any]], Pair]  # rows -> log densities and their gradients by the rows

GRADIENTS = ("returned", "torch", "jax")


def target_of(log_density: Any, gradient: Any, dtype: np.dtype[Any]) -> Target:
    """`log_density` as a function of rows of this dtype that gives checked values and gradients."""
    kind = check.choice("gradient", gradient, GRADIENTS)
    if not callable(log_density):
        raise TypeError(f"log_density: expected a function of rows, got {check.kind_of(log_density)}")
    if kind == "torch":
        return _of_torch(log_density)
    return _of_jax(log_density, dtype) if kind == "jax" else _of_numpy(log_density)


def _of_numpy(log_density: Any) -> Target:
    def target(x: NDArray[Any]) -> Pair:
        given = log_density(x.copy())  # which may be changed in place, or kept
        if not isinstance(given, tuple) or len(given) != 2:
            size = f" of {len(given)}" if isinstance(given, tuple) else ""
            raise TypeError(
                "log_density: expected a tuple (log densities, their gradients) of arrays, got "
                f"{check.kind_of(given)}{size}; with gradient='torch' or 'jax' a function may give the former alone"
            )
        value = _arrays.shaped("log_density's first result", given[0], x.shape[:1])
        return value, _arrays.shaped("log_density's second result", given[1], x.shape)

    return target


def _of_torch(log_density: Any) -> Target:
    try:
        import torch
    except ImportError as error:
        raise ImportError("gradient='torch': needs PyTorch; pip install 'headrace[torch]'") from error

    def target(x: NDArray[Any]) -> Pair:
        rows = torch.from_numpy(x.copy()).requires_grad_()
        with torch.enable_grad():
            value = log_density(rows)
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"log_density: expected it to give a torch.Tensor, got {check.kind_of(value)}")
            if tuple(value.shape) != x.shape[:1]:
                raise ValueError(f"log_density: expected it to give shape {x.shape[:1]}, got {tuple(value.shape)}")
            if not value.requires_grad:
                raise ValueError("log_density: expected a tensor that depends on the rows by torch, got one without")
            (slope,) = torch.autograd.grad(value.sum(), rows)
        return value.detach().cpu().numpy(), slope.numpy()

    return target


def _of_jax(log_density: Any, dtype: np.dtype[Any]) -> Target:
    try:
        import jax
    except ImportError as error:
        raise ImportError("gradient='jax': needs JAX; pip install 'headrace[jax]'") from error
    if dtype == np.float64 and not jax.config.jax_enable_x64:
        raise ValueError(
            "gradient: expected JAX with 64-bit numbers for a flow of float64, got JAX without; call "
            'jax.config.update("jax_enable_x64", True), or flow.astype("float32")'
        )

    def total(x: Any) -> tuple[Any, Any]:
        value = log_density(x)
        if np.shape(value) != x.shape[:1]:
            raise ValueError(f"log_density: expected it to give shape {x.shape[:1]}, got {np.shape(value)}")
        return value.sum(), value

    both = jax.jit(jax.value_and_grad(total, has_aux=True))

    def target(x: NDArray[Any]) -> Pair:
        (_, value), slope = both(x)
        return np.asarray(value), np.asarray(slope)

    return target
