"""Types of arrays in signatures, by which static checkers infer the type of results from the arguments."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray


class AnyArray(Protocol):
    """An array of NumPy, PyTorch, JAX or CuPy."""

    @property
    def shape(self) -> Any:
        """The length along each axis."""

    @property
    def dtype(self) -> Any:
        """The type of the elements."""


class AnyFrame(Protocol):
    """A table of pandas, polars or PyArrow; results for a table are NumPy arrays."""

    @property
    def columns(self) -> Any:
        """The columns, or their names."""


A = TypeVar("A", bound=AnyArray)
S = TypeVar("S", bound=np.floating[Any])

Read = NDArray[np.integer[Any]] | NDArray[np.bool_] | list[Any] | tuple[Any, ...] | AnyFrame
"""Integers, truth values, lists and frames, which are converted to NumPy floats."""
