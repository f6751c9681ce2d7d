"""Scores and samples as Dask collections, where every block has the bits of one call for all rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from headrace._arrays.caller import Caller
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.rng import Rng, takes_rng
from headrace._core import LEAST_ROWS
from headrace.dask._bars import computed
from headrace.dask._table import names_of
from headrace.rows._chunks import aligned, checked_array, is_array, is_frame, whole_rows

CHUNK = 1 << 16


def log_prob(flow: Any, x: Any, context: Any = None, *, columns: Any = None, progress: bool = False) -> Any:
    """The log density of each row, lazily: nothing is computed before Dask computes the collection.

    The bits are those of one call of ``flow.log_prob`` with all rows, for any chunks. (For a frame, or an array whose
    chunks have unknown sizes, the bits are those of calls with at least 8 rows.)

    Args:
        flow: A flow, or another object with `log_prob` that can be pickled.
        x: A Dask array, shape (rows, features), or a Dask frame.
        context: A Dask or NumPy array, shape (rows, context), or (context,) for all rows; for a frame, names of its
            columns.
        columns: For a frame, the names of the features; by default all columns that are not context.
        progress: Whether to compute now, on the current client's cluster or in this process, with a bar of the
            completed rows on the standard error, if that is a terminal. With `progress` the result
            has its blocks in memory.

    Returns:
        A Dask array, shape (rows,), in the chunks of x; for a frame a column with the frame's index.
    """
    found = _of_frame(flow, x, context, columns) if is_frame(x) else _of_array(flow, x, context, columns)
    return computed(found) if progress else found


def _of_array(flow: Any, x: Any, context: Any, columns: Any) -> Any:
    x = checked_array(x, columns)
    alone = not math.isnan(x.shape[0]) and x.shape[0] < LEAST_ROWS
    how = {"drop_axis": 1, "dtype": flow.dtype, "meta": np.empty(0, flow.dtype)}
    return _by_blocks(_scores, flow, x, context, alone=alone, **how)


def _of_frame(flow: Any, frame: Any, context: Any, columns: Any) -> Any:
    features, conditions, _ = names_of(frame, columns, context, None)
    shared = context if conditions is None else None
    if shared is not None and not isinstance(shared, np.ndarray):
        raise TypeError(f"context: expected names of columns, got {check.kind_of(context)}")
    names = [*features, *(conditions or [])]
    from dask import dataframe, delayed

    held, score = _held(flow), delayed(_scores_of_frame, pure=True)
    # In older versions of Dask, map_partitions cannot share one flow among blocks.
    parts = [score(part, held, features, conditions, shared) for part in frame[names].to_delayed()]
    return dataframe.from_delayed(parts, meta=("log_prob", flow.dtype), divisions=frame.divisions)


@takes_rng
def sample(
    flow: Any, n: int, seed: int = 0, context: Any = None, *, rng: Rng = None, chunks: int = CHUNK, dtype: Any = None
) -> Any:
    """Draw n rows, lazily: a Dask array, shape (n, features), in chunks of `chunks` rows.

    The array has the bits of ``flow.sample(n, seed=seed, first_row=0)`` for any chunks; each chunk is drawn separately.

    Args:
        flow: A flow, or another object with the same method `sample` that can be pickled.
        n: The number of rows.
        seed: The seed, 0 to 2^64 - 1.
        context: A Dask or NumPy array, shape (n, context), or (context,) for all rows.
        chunks: The number of rows of a chunk.
        dtype: As in `Flow.sample`.
    """
    count, number = check.integer("n", n), check.integer("seed", seed, most=2**64 - 1)
    size = check.integer("chunks", chunks, least=1)
    from dask import array

    kind = np.dtype(flow.dtype if dtype is None else dtype)
    index = array.arange(count, chunks=size, dtype=np.int64)[:, None]  # a block starts at the index of its first draw
    how = {"chunks": (index.chunks[0], (flow.features,)), "dtype": kind, "meta": np.empty((0, 0), kind)}
    return _by_blocks(_drawn, flow, index, context, seed=number, kind=None if dtype is None else kind.name, **how)


def _by_blocks(function: Any, flow: Any, x: Any, context: Any, **how: Any) -> Any:
    """A Dask array whose blocks are `function` of the flow, a block of x, the block's context, and `how`."""
    from dask import array

    rows = _rows_of("context", context, x, flow.context)
    given, shared = ([x], context) if rows is None else ([x, rows], None)
    return array.map_blocks(function, *given, flow=_held(flow), shared=shared, **how)


def _held(flow: Any) -> Any:
    """The flow as a node of the graph, which stores it once for any number of blocks."""
    from dask import delayed

    return delayed(flow, pure=True, traverse=False)


def _rows_of(name: str, context: Any, x: Any, contexts: int) -> Any:
    """The context of each row, in the chunks of x; None without context, or with one context for all rows."""
    if context is None or (not is_array(context) and np.shape(context) == (contexts,)):
        return None
    from dask import array

    rows = context if is_array(context) else array.asarray(context)
    if rows.ndim == 1:
        rows = rows[:, None]
    rows = whole_rows(rows)
    if rows.ndim != 2 or rows.shape[1] != contexts:
        raise errors.wrong_shape(name, f"(rows, {contexts})", context.shape)
    return aligned(name, rows, x)


# ---- on workers ------------------------------------------------------------------------------------------------------


def _scores(x: Any, rows: Any = None, *, flow: Any, shared: Any, alone: bool) -> Any:
    """The log densities of a block; `alone`: whether the whole collection has fewer rows than `LEAST_ROWS`."""
    is_short = 0 < len(x) < LEAST_ROWS and not alone
    if not is_short:
        return flow.log_prob(x, shared if rows is None else rows)
    more = [np.resize(one, (LEAST_ROWS, one.shape[1])) for one in (x, rows) if one is not None]
    return flow.log_prob(more[0], shared if rows is None else more[1])[: len(x)]


def _scores_of_frame(frame: Any, flow: Any, features: list[Any], conditions: list[Any] | None, shared: Any) -> Any:
    import pandas as pd

    x = Caller().open("x", frame[features], whole=True)
    rows = None if conditions is None else Caller().open("context", frame[conditions], whole=True)
    found = _scores(x, rows, flow=flow, shared=shared, alone=False)
    return pd.Series(found, frame.index, name="log_prob")


def _drawn(index: Any, rows: Any = None, *, flow: Any, seed: int, shared: Any, kind: str | None) -> Any:
    first = int(index[0, 0]) if len(index) else 0
    options = {} if kind is None else {"dtype": kind}
    return flow.sample(len(index), shared if rows is None else rows, seed, first_row=first, **options)
