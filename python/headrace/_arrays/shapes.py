"""Shapes of a call's arrays, which have any leading dimensions, and a context that is broadcast against the rows.

The core takes rows as matrices. This module converts arrays with any leading dimensions to matrices, and gives results
and gradients the leading dimensions back. Only arrays that broadcasting repeats in more than one dimension are copied.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays.caller import Caller, Matrix
from headrace._base import arguments as check
from headrace._base import array_errors as errors

Shape = tuple[int, ...]

_MOST_NUMBERS = 2**59  # the most float64 values in an array whose bytes a signed 64-bit integer can count


class Rows:
    """The input of one call: rows and context as matrices for the core, and the original shapes of both."""

    __slots__ = ("array", "batch", "context", "context_given", "context_shape", "rows", "shape")

    def __init__(
        self,
        array: Matrix | None,
        rows: int,
        batch: Shape,
        shape: Shape,
        context: Matrix | None = None,
        context_shape: Shape = (),
        context_given: Shape = (),
    ) -> None:
        self.array = array  # the rows, shape (rows, features); None for a sample
        self.rows = rows
        self.batch = batch  # the shape of a result that has one value for each row
        self.shape = shape  # the original shape of the array of rows
        self.context = context  # the context, shape (rows, columns), or (1, columns) for all rows
        self.context_shape = context_shape  # the context's original shape, with columns as the last axis
        self.context_given = context_given  # the context's shape in the caller's array


def opened(caller: Caller, name: str, value: Any, context: Any, features: int, columns: int, raw: bool = False) -> Rows:
    """The checked rows and context of a call; with `raw`, rows keep their byte order and width."""
    array: Any = caller.open(name, value, raw, True)
    shape = array.shape
    if not shape or shape[-1] != features:
        raise errors.wrong_shape(name, f"(rows, {features}), ({features},) or (..., {features})", shape)
    if columns == 0:
        if context is not None:
            raise errors.takes_no_context()
        if len(shape) == 2:
            return Rows(array, shape[0], shape[:1], shape)
        rows, batch = math.prod(shape[:-1]), shape[:-1]
        return Rows(_matrix(caller, array, batch), rows, batch, shape)
    table, original = _context(caller, context, columns, shape[:-1])
    if len(shape) == 2 and table.ndim == 2 and table.shape[0] == shape[0]:
        return Rows(array, shape[0], shape[:1], shape, table, table.shape, original)
    try:
        batch = np.broadcast_shapes(shape[:-1], table.shape[:-1])
    except ValueError:
        expected = f"{errors.context_shape(columns, shape[:-1])}, or one that broadcasts"
        raise errors.wrong_shape("context", expected, original) from None
    rows = math.prod(batch)
    return Rows(
        _matrix(caller, array, batch), rows, batch, shape, _context_matrix(caller, table, batch), table.shape, original
    )


def drawn(caller: Caller, n: Any, context: Any, features: int, columns: int) -> Rows:
    """The rows of a call that draws n samples, or samples of the shape n for each row of the context."""
    if type(n) is not int and np.iterable(n) and not isinstance(n, (str, bytes)):
        batch: Shape = check.integers("n", n)
        table = None
        if columns or context is not None:
            table, original = _context(caller, context, columns)
            batch = (*batch, *table.shape[:-1])
    else:
        batch, table = (check.integer("n", n),), None
        if columns or context is not None:
            table, original = _context(caller, context, columns, batch)
            if table.ndim > 2 or (table.ndim == 2 and table.shape[0] not in (1, batch[0])):
                advice = f"for {batch[0]} draws for each row of the context call sample(({batch[0]},), context)"
                raise errors.wrong_shape("context", errors.context_shape(columns, batch), original, advice)
    rows, shape = math.prod(batch), (*batch, features)
    if max(rows, 0, *batch) * features > _MOST_NUMBERS:
        raise ValueError(f"n: expected at most {_MOST_NUMBERS} numbers in a sample, got shape {shape}")
    if table is None:
        return Rows(None, rows, batch, shape)
    return Rows(None, rows, batch, shape, _context_matrix(caller, table, batch), table.shape, original)


def flat(array: Any, rows: int, columns: int | None = None) -> Any:
    """A view of a contiguous result with a single axis of rows; None stays None."""
    if array is None or array.ndim == (1 if columns is None else 2):
        return array
    return array.reshape(rows) if columns is None else array.reshape(rows, columns)


def summed(array: NDArray[Any], batch: Shape, shape: Shape) -> NDArray[Any]:
    """The sums, in float64, over the axes along which an array of shape `shape` was repeated to (*batch, columns)."""
    array = array.reshape(*batch, shape[-1])
    added = len(batch) + 1 - len(shape)
    axes = [*range(added), *(added + i for i, n in enumerate(shape[:-1]) if n != batch[added + i])]
    total: NDArray[Any] = array.sum(axis=tuple(axes), dtype=np.float64)
    return total.reshape(shape)


def _context(caller: Caller, value: Any, columns: int, batch: Shape | None = None) -> tuple[Any, Shape]:
    """The checked context with columns as its last axis, and the shape of the caller's array."""
    if columns == 0:
        raise errors.takes_no_context()
    if value is None:
        raise errors.wrong_shape("context", errors.context_shape(columns, batch), "None")
    array: Any = caller.open("context", value, whole=True)
    shape = array.shape
    if columns == 1 and not shape:  # a scalar is the context of all rows
        array = array.reshape(1)
    elif columns == 1 and len(shape) == 1 and shape != (1,):
        array = array[:, None]
    if not array.shape or array.shape[-1] != columns:
        advice = errors.labels_advice("context", getattr(value, "dtype", ""))
        raise errors.wrong_shape("context", errors.context_shape(columns, batch), shape, advice)
    return array, shape


def _matrix(caller: Caller, array: Any, batch: Shape) -> Any:
    """The matrix (rows, columns) of an array that is broadcast to (*batch, columns)."""
    columns = array.shape[-1]
    if array.shape[:-1] == batch and len(batch) == 1:
        return array
    with caller.queue():
        if array.shape[:-1] != batch:
            array = np.broadcast_to(array, (*batch, columns))
        return array.reshape(math.prod(batch), columns)


def _context_matrix(caller: Caller, array: Any, batch: Shape) -> Any:
    shape = array.shape
    if len(shape) == 2 and shape[0] == 1:
        return array
    if math.prod(shape[:-1]) == 1:
        with caller.queue():
            return array.reshape(1, array.shape[-1])  # one context for all rows
    return _matrix(caller, array, batch)
