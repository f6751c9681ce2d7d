"""Rows of context for the samples of a fit: none, one for all, or drawn from a table or by the user's function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._base import arguments as check
from headrace._fit.given_rows import Data
from headrace._fit.source import ArrayRows
from headrace._flow.flow import Flow

Rng = np.random.Generator

SCALED = 8192  # rows of a function of contexts from which the standardisation is computed


@dataclass(frozen=True)
class Contexts:
    """The contexts of samples. At most one of the three is given; without any the flow reads no context."""

    one: NDArray[Any] | None = None  # (1, context), for all samples
    table: NDArray[Any] | None = None  # (rows, context), drawn from with replacement
    draw: Callable[[int, Rng], Any] | None = None  # rows, generator -> (rows, context), not yet checked
    columns: int = 0
    repeats: int = 1  # samples in a row that share one

    @property
    def vary(self) -> bool:
        """Whether samples have contexts of their own."""
        return self.table is not None or self.draw is not None

    def __call__(self, rows: int, rng: Rng) -> NDArray[Any] | None:
        """Contexts of `rows` samples, (rows, context), or (1, context) for all, or None."""
        if not self.vary:
            return self.one
        fresh = self._rows(-(-rows // self.repeats), rng)
        return fresh if self.repeats == 1 else fresh.repeat(self.repeats, axis=0)[:rows]

    def repeated(self, repeats: int) -> Contexts:
        """Contexts with `repeats` successive samples for each row."""
        return replace(self, repeats=repeats)

    def some(self, most: int, rng: Rng) -> NDArray[Any]:
        """The whole table, or `most` rows if it has more, each once, or as many of the function's."""
        if self.table is None:
            return self._rows(most, rng)
        if len(self.table) <= most:
            return self.table
        return self.table[rng.choice(len(self.table), most, replace=False)]

    def standardize(self, flow: Flow, rng: Rng) -> None:
        """Let a flow standardise its context by these, unless it standardises it already."""
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
    """The argument `context`, checked."""
    columns = flow.context
    if columns == 0:
        if context is not None:
            raise ValueError(f"context: expected None, as the flow reads no context, got {check.kind_of(context)}")
        return Contexts()
    expected = (
        f"context: expected one row, shape ({columns},), a table, shape (rows, {columns}), or a function of "
        "(rows, generator) that draws one, as the flow reads context"
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
