"""Arrays in and out: the only file that knows array frameworks (so far NumPy).

Flows and transforms take float32 or float64 in any strides and are never handed a copy; the functional kernels of
`headrace.ops` and every `out=` are strict.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32] | NDArray[np.float64]

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def _numpy(name: str, value: Any) -> NDArray[Any]:
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: expected a NumPy array, got a masked array; call {name}.filled(...) or drop masked rows"
        )
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    hint = ""
    if getattr(value, "requires_grad", False):
        hint = "; it requires a gradient, which would be lost: call .detach().numpy() if none is wanted"
    elif isinstance(value, (list, tuple, int, float)):
        hint = f"; call np.asarray({name}, dtype='float64')"
    elif hasattr(value, "__array__"):
        hint = f"; call np.asarray({name})"
    given = "None" if value is None else kind
    raise TypeError(f"{name}: expected a NumPy array of float32 or float64, got {given}{hint}")


def _floats(name: str, array: NDArray[Any]) -> None:
    if array.dtype not in _FLOATS:
        raise TypeError(
            f"{name}: expected dtype float32 or float64, got {array.dtype}; "
            f"call {name}.astype('float64') if that is meant"
        )


def matrix(name: str, value: Any, columns: int) -> Matrix:
    """`value` itself, checked to be (rows, columns) of float32 or float64."""
    array = _numpy(name, value)
    _floats(name, array)
    if array.ndim != 2 or array.shape[1] != columns:
        raise ValueError(f"{name}: expected shape (rows, {columns}), got {array.shape}")
    return array


def shaped(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """`value` itself, checked to be float32 or float64 of this shape."""
    array = _numpy(name, value)
    _floats(name, array)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array


def context_rows(value: Any, rows: int, columns: int, name: str = "context") -> Matrix | None:
    """Context as (rows, columns), or (1, columns) for all rows; None where the flow takes none."""
    if columns == 0:
        if value is not None:
            raise ValueError(f"{name}: expected None, as this takes no context, got an array")
        return None
    expected = f"{name}: expected shape ({rows}, {columns}), or ({columns},) for all rows"
    if value is None:
        raise ValueError(f"{expected}, got None")
    array = _numpy(name, value)
    _floats(name, array)
    if array.ndim == 1 and array.shape[0] == columns:
        array = array[None, :]
    if array.ndim != 2 or array.shape[1] != columns or array.shape[0] not in (rows, 1):
        raise ValueError(f"{expected}, got {np.shape(value)}")
    return array


def row_weights(name: str, value: Any, rows: int) -> tuple[NDArray[Any] | None, float]:
    """Weights of rows, checked to be finite, not negative and not all zero, and their sum; None: all 1."""
    if value is None:
        return None, float(rows)
    array = shaped(name, value, (rows,))
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if bad.size:
        raise ValueError(f"{name}: expected finite numbers of at least 0, got {array[bad[0]]} at index {bad[0]}")
    total = float(array.sum(dtype=np.float64))
    if rows and not total > 0:
        raise ValueError(f"{name}: expected at least one number above 0, got none")
    return array, total


def weighted_sum(values: NDArray[Any], weights: NDArray[Any] | None) -> float:
    """The sum in float64; not by a dot product, whose order would depend on the threads of the BLAS."""
    if weights is None:
        return float(values.sum(dtype=np.float64))
    return float((values.astype(np.float64) * weights).sum())


def strict(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """`value` itself, checked to have this shape and dtype and to be C-contiguous."""
    array = _numpy(name, value)
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name}: expected a C-contiguous array, got strides {array.strides}")
    if not array.flags.aligned:
        raise ValueError(f"{name}: expected an aligned array, got one at an address that its dtype does not allow")
    return array


def strict_input(name: str, value: Any, ndim: int) -> NDArray[Any]:
    """`value` itself, checked to be C-contiguous float32 or float64 with `ndim` dimensions."""
    array = _numpy(name, value)
    _floats(name, array)
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} dimensions, got shape {array.shape}")
    return strict(name, array, array.shape, array.dtype)


def strict_output(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """`value` itself, checked as `strict` does and to be writable."""
    array = strict(name, value, shape, dtype)
    if not array.flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    return array
