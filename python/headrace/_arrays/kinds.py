"""Types of arrays in signatures: the kind of array that goes in comes out."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np

__all__ = ["A", "AnyArray", "AnyFrame", "S"]


class AnyArray(Protocol):
    """An array of NumPy, PyTorch, JAX or CuPy."""

    @property
    def shape(self) -> Any:
        """Its length along each axis."""

    @property
    def dtype(self) -> Any:
        """The type of its numbers."""


class AnyFrame(Protocol):
    """A table of pandas, polars or PyArrow, which is read and answered in NumPy arrays."""

    @property
    def columns(self) -> Any:
        """Its columns, or their names."""


A = TypeVar("A", bound=AnyArray)
S = TypeVar("S", bound=np.generic)
