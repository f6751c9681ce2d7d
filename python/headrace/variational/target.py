"""Densities of the user: a callable on NumPy arrays, or a function of PyTorch or JAX and its gradient.

Samples have no context, one context for all samples, or contexts drawn from a table or by the user's function. If
samples have different contexts, the density takes the contexts as its second argument.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._base import arguments as check
from headrace._base.install import install
from headrace._fit.given_rows import Data
from headrace._fit.source import ArrayRows
from headrace._flow.flow import Flow

Rng = np.random.Generator

SCALED = 8192  # the contexts drawn from a function to standardise contexts


@dataclass(frozen=True)
class Contexts:
    """The contexts of samples. At most one of `one`, `table` and `draw` is set; all are None without context."""

    one: NDArray[Any] | None = None  # (1, context), for all samples
    table: NDArray[Any] | None = None  # (rows, context); rows are drawn with replacement
    draw: Callable[[int, Rng], Any] | None = None  # rows, generator -> (rows, context), unchecked
    columns: int = 0
    repeats: int = 1  # the number of successive samples that share a context

    @property
    def vary(self) -> bool:
        """Whether samples have different contexts."""
        return self.table is not None or self.draw is not None

    def __call__(self, rows: int, rng: Rng) -> NDArray[Any] | None:
        """Contexts of `rows` samples, (rows, context), or (1, context) for all samples, or None."""
        if not self.vary:
            return self.one
        fresh = self._rows(-(-rows // self.repeats), rng)
        return fresh if self.repeats == 1 else fresh.repeat(self.repeats, axis=0)[:rows]

    def some(self, most: int, rng: Rng) -> NDArray[Any]:
        """The whole table, or `most` different rows of a larger table, or `most` contexts drawn by the function."""
        if self.table is None:
            return self._rows(most, rng)
        if len(self.table) <= most:
            return self.table
        return self.table[rng.choice(len(self.table), most, replace=False)]

    def standardize(self, flow: Flow, rng: Rng) -> None:
        """Let a flow standardise its context by these contexts, unless the flow already standardises contexts."""
        if self.vary and flow.standardize_context is None:
            rows = self._rows(SCALED, rng) if self.table is None else self.table
            flow._interior.rescale(None, ArrayRows(Data(rows, rows, None)).moments(of_context=True, say=True))

    def _rows(self, rows: int, rng: Rng) -> NDArray[Any]:
        if self.table is not None:
            return self.table[rng.integers(len(self.table), size=rows)]
        assert self.draw is not None
        found = _arrays.shaped("context's result", self.draw(rows, rng), (rows, self.columns))
        _require_finite("context's result", found)
        return found


def contexts_of(flow: Flow, context: Any) -> Contexts:
    """The contexts of the argument `context`, checked."""
    columns = flow.context
    if columns == 0:
        if context is not None:
            raise ValueError(f"context: expected None, because the flow reads no context, got {check.kind_of(context)}")
        return Contexts()
    expected = (
        f"context: expected one row, shape ({columns},), a table, shape (rows, {columns}), or a function of "
        "(rows, generator) that draws one, because the flow reads context"
    )
    if context is None:
        raise ValueError(f"{expected}, got None")
    if callable(context):
        return Contexts(draw=context, columns=columns)
    array = _arrays.Caller().open("context", context, whole=True)
    if array.ndim not in (1, 2) or array.shape[-1] != columns:
        raise ValueError(f"{expected}, got shape {array.shape}")
    if not len(array):
        raise ValueError(f"context: expected at least one row, got shape {array.shape}")
    _require_finite("context", array)
    if array.ndim == 1:
        return Contexts(one=array[None, :], columns=columns)
    return Contexts(table=array, columns=columns)


def _require_finite(name: str, rows: NDArray[Any]) -> None:
    table = np.atleast_2d(rows)
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if bad.size:
        place = f" in row {bad[0]}" if rows.ndim == 2 else ""
        raise ValueError(f"{name}: expected finite numbers, got {table[bad[0]].tolist()}{place}")


Pair = tuple[NDArray[Any], NDArray[Any]]
Of = Callable[..., Pair]  # rows, perhaps contexts -> log densities, gradients by the rows
Target = Callable[[NDArray[Any], "NDArray[Any] | None"], Pair]  # rows, context -> log densities, gradients by the rows

GRADIENTS = ("returned", "torch", "jax")


def target_of(log_density: Any, gradient: Any, dtype: np.dtype[Any], contexts: Contexts) -> Target:
    """A function of rows of dtype `dtype` and their context that calls `log_density` and checks its results."""
    kind = check.choice("gradient", gradient, GRADIENTS)
    if not callable(log_density):
        raise TypeError(f"log_density: expected a function of rows, got {check.kind_of(log_density)}")
    takes_context = _takes_context(log_density, contexts)
    made = {"returned": _of_numpy, "torch": _of_torch}.get(kind)
    of = made(log_density) if made else _of_jax(log_density, dtype)

    def target(x: NDArray[Any], context: NDArray[Any] | None) -> Pair:
        x = x.copy()  # the function may change x in place, or keep it
        if not takes_context:
            return of(x)
        assert context is not None
        own = np.empty((len(x), context.shape[1]), dtype)
        own[:] = context
        return of(x, own)

    return target


def _takes_context(log_density: Any, contexts: Contexts) -> bool:
    """Whether to call the function with contexts: if contexts vary, or if a call with rows alone is impossible."""
    alone, both = _takes(log_density, 1), _takes(log_density, 2)
    if contexts.vary and both:
        return True
    if contexts.vary:
        wanted, reason = "a function of rows and of their contexts", "as each sample has a context of its own"
    elif alone or (both and contexts.one is not None):
        return not alone
    elif contexts.one is not None:
        wanted, reason = "a function of rows", "or of rows and of their contexts"
    else:
        wanted, reason = "a function of rows alone", "because the flow reads no context"
    raise TypeError(f"log_density: expected {wanted}, {reason}, got one of {inspect.signature(log_density)}")


def _takes(function: Any, arguments: int) -> bool:
    """Whether a function can be called with `arguments` arguments; True for an unknown signature."""
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:  # some built-in functions have no signature
        return True
    return True


def _of_numpy(log_density: Any) -> Of:
    def of(x: NDArray[Any], *context: NDArray[Any]) -> Pair:
        rows, columns = x.shape  # read before the function can change x
        given = log_density(x, *context)
        if not isinstance(given, tuple) or len(given) != 2:
            size = f" of {len(given)}" if isinstance(given, tuple) else ""
            raise TypeError(
                "log_density: expected a tuple (log densities, their gradients) of arrays, got "
                f"{check.kind_of(given)}{size}; with gradient='torch' or 'jax' a function may give the former alone"
            )
        value = _arrays.shaped("log_density's first result", given[0], (rows,))
        return value, _arrays.shaped("log_density's second result", given[1], (rows, columns))

    return of


def _of_torch(log_density: Any) -> Of:
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"gradient='torch': needs PyTorch; {install('torch')}") from error

    def of(x: NDArray[Any], *context: NDArray[Any]) -> Pair:
        rows = torch.from_numpy(x).requires_grad_()
        with torch.enable_grad():
            value = log_density(rows, *map(torch.from_numpy, context))
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"log_density: expected it to give a torch.Tensor, got {check.kind_of(value)}")
            if tuple(value.shape) != x.shape[:1]:
                raise ValueError(f"log_density: expected it to give shape {x.shape[:1]}, got {tuple(value.shape)}")
            if not value.requires_grad:
                raise ValueError("log_density: expected a tensor that depends on the rows by torch, got one without")
            (slope,) = torch.autograd.grad(value.sum(), rows)
        return value.detach().cpu().numpy(), slope.numpy()

    return of


def _of_jax(log_density: Any, dtype: np.dtype[Any]) -> Of:
    try:
        import jax
    except ImportError as error:
        raise ImportError(f"gradient='jax': needs JAX; {install('jax')}") from error
    if dtype == np.float64 and not jax.config.jax_enable_x64:
        raise ValueError(
            "gradient: expected JAX with 64-bit numbers for a flow of float64, got JAX without; call "
            'jax.config.update("jax_enable_x64", True), or flow.astype("float32")'
        )

    def total(x: Any, *context: Any) -> tuple[Any, Any]:
        value = log_density(x, *context)
        if np.shape(value) != x.shape[:1]:
            raise ValueError(f"log_density: expected it to give shape {x.shape[:1]}, got {np.shape(value)}")
        return value.sum(), value

    both = jax.jit(jax.value_and_grad(total, has_aux=True))

    def of(x: NDArray[Any], *context: NDArray[Any]) -> Pair:
        (_, value), slope = both(x, *context)
        return np.asarray(value), np.asarray(slope)

    return of
