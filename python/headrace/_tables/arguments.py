"""The arguments `discrete`, `jitter` and `missing` of a table, and the resulting kind and noise of each column."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import columns as _columns
from headrace._arrays import frames
from headrace._base import arguments as check
from headrace._flow.transforms.support import Support
from headrace._tables import table as _tables
from headrace._tables.facts import Held, Seen


def learn(
    x: NDArray[Any] | Seen,
    kinds: Sequence[str] | None,
    *,
    discrete: Any,
    jitter: Any,
    missing: str,
    support: Support | None,
    names: Sequence[str] | None,
    x_name: str,
) -> _tables.Table:
    """The kind of each column, and its noise.

    Args:
        x: Rows without missing values, or their statistics.
        kinds: Kinds of the columns by their dtypes, see `frames.kinds_of`.
        discrete, jitter, missing: As of `FlowDensity`.
        support: Of all columns.
        names: Of the columns.
        x_name: The name of x in messages.
    """
    features = x.features if isinstance(x, Seen) else x.shape[1]
    support = support or Support([None] * features)
    seen = x if isinstance(x, Seen) else Held(x, support.bounds)
    kinds = _kinds(discrete, kinds, features, names, x_name)
    ends: dict[str, Any] = {"bounds": support.bounds, "periodic": support.periodic, "names": names, "x_name": x_name}
    widths: list[float | None] = [None] * features
    if isinstance(jitter, dict):
        for i, width in zip(_columns.chosen("jitter", jitter, features, names, x_name), jitter.values(), strict=True):
            if kinds[i] != "float":
                raise ValueError(f"jitter: expected columns that are not whole numbers, got {_columns.label(i, names)}")
            widths[i] = check.number("jitter", width, above=0.0, below=np.inf)
    elif jitter is not None:
        fixed = None if jitter == "auto" else check.number("jitter", jitter, above=0.0, below=np.inf)
        found = _tables.repeating(seen.some, _tables.Table.learn(seen, kinds, widths, **ends))
        for i, gap in zip(found, seen.smallest_gaps(found) if fixed is None else [fixed] * len(found), strict=True):
            widths[i] = gap
    return replace(_tables.Table.learn(seen, kinds, widths, **ends), missing=missing)


def _kinds(
    discrete: Any, seen: Sequence[str] | None, features: int, names: Sequence[str] | None, x_name: str
) -> list[str]:
    """The kind of each column, "float", "integer" or "boolean"."""
    if isinstance(discrete, str) and discrete != "auto":
        raise ValueError(f"discrete: expected 'auto', None or a list of columns, got {discrete!r}")
    kinds = ["float"] * features
    if discrete is None:
        return kinds
    if isinstance(discrete, str):
        return kinds if seen is None else list(seen)
    for i in _columns.chosen("discrete", discrete, features, names, x_name):
        kinds[i] = seen[i] if seen is not None and seen[i] != "float" else "integer"
    return kinds


def library_of(x: Any) -> str | None:
    """The library of a frame."""
    return next((name for name in ("pandas", "polars") if isinstance(x, frames.class_of(name, "DataFrame"))), None)


def as_frame(rows: NDArray[Any], table: _tables.Table, names: Sequence[Any] | None, library: str | None) -> Any:
    """Rows of a table as a frame of the library, of pandas where that is None, with whole numbers as integers."""
    called = [f"x{i}" for i in range(rows.shape[1])] if names is None else names
    dtypes: dict[str, Any] = {"integer": np.int64, "boolean": np.bool_, "float": rows.dtype}
    columns = {
        str(name): rows[:, i].astype(dtypes[one.kind])
        for i, (name, one) in enumerate(zip(called, table.columns, strict=True))
    }
    return importlib.import_module(library or "pandas").DataFrame(columns)
