"""Tables beside signals: a row of context for each signal, and covariates over time."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.rows import _files as tables
from headrace.rows._columns import find
from headrace.rows._source import Source

FILE = "file"  # the column of a context table with the names of signals

Names = tuple[str, ...] | None
"""Names of columns; None if a table has no names."""


@dataclass(frozen=True)
class Beside:
    """Contexts and covariates of signals, each None if there are none, and the names of their columns."""

    context: NDArray[Any] | None = None
    covariates: list[NDArray[Any]] | None = None
    context_names: Names = None
    covariate_names: Names = None

    @classmethod
    def of(cls, arguments: Namespace, files: Sequence[str], of: Names = None, over: Names = None) -> Beside:
        """Contexts and covariates from the options. `of`, `over`: the names of columns to read; None for all."""
        rows, names, context, covariates = None, None, arguments.context, arguments.covariates
        if isinstance(context, str):
            rows, names = _contexts(context, files, of)
        elif context is not None:
            rows = np.array([context])
        if covariates is None:
            return cls(rows, None, names)
        paths = _frames(covariates, files)
        frames = [_values(tables.open_table(path, dashes="--"), over) for path in paths]
        for path, (values, called) in zip(paths, frames, strict=True):
            if (values.shape[1], called) != (frames[0][0].shape[1], frames[0][1]):
                raise ValueError(f"--covariates: expected the columns of {paths[0]} in {path}, got others")
        return cls(rows, [values for values, _ in frames], names, frames[0][1])

    @classmethod
    def of_flow(cls, arguments: Namespace, files: Sequence[str], signal: Any, flow: Any) -> Beside:
        """Contexts and covariates for a fitted flow, in columns with the names and the number of the fit's columns."""
        is_given = {name: getattr(arguments, name) is not None for name in ("context", "covariates")}
        for name, is_there in is_given.items():
            if is_there and not getattr(flow, name):
                raise ValueError(f"--{name}: expected none for {arguments.flow}, got {getattr(arguments, name)}")
        beside = cls.of(arguments, files, signal.context, signal.covariates)
        for name, is_there in is_given.items():
            count, columns = getattr(flow, name), beside.columns(name)
            if columns != count:
                plural, got = "s" * (count > 1), columns if is_there else "none"
                raise ValueError(f"--{name}: expected {count} column{plural} for {arguments.flow}, got {got}")
        return beside

    def columns(self, option: str) -> int:
        """The number of columns for the `option` "context" or "covariates"; 0 if the option has no value."""
        array = self.arguments(0)[option]
        return 0 if array is None else int(array.shape[-1])

    def arguments(self, i: int | None = None) -> dict[str, Any]:
        """The keywords `context` and `covariates` of a call for all signals, or for the signal with the index `i`."""
        data = {"context": self.context, "covariates": self.covariates}
        return data if i is None else {name: None if rows is None else rows[i] for name, rows in data.items()}


def _contexts(path: str, files: Sequence[str], names: Names) -> tuple[NDArray[Any], Names]:
    """The rows of a context table whose column "file" has the names of `files`, and the names of the other columns."""
    source = tables.open_table(path, dashes="--")
    place = find(source, "--context", FILE)
    index: dict[str, list[int]] = {}
    for i, text in enumerate(text_of for block in source.texts([place]) for text_of in block[:, 0].tolist()):
        index.setdefault(text, []).append(i)
    chosen = []
    for file in files:
        name = os.path.basename(file)
        rows = [i for key in {file, name, os.path.splitext(name)[0]} for i in index.get(key, [])]
        if len(rows) != 1:
            raise ValueError(f"--context: expected one row of {file} in {path}, by its column {FILE}, got {len(rows)}")
        chosen += rows
    values, called = _values(source, names, place)
    return values[chosen], called


def _frames(place: str, files: Sequence[str]) -> list[str]:
    """The path of each signal's table: in a folder the table with the signal's name, or `place` for a single signal."""
    if not os.path.isdir(place):
        if len(files) != 1:
            raise ValueError(f"--covariates: expected a folder, because there are {len(files):,} signals, got {place}")
        return [place]
    inside = tables.inside(place, tables.READ)
    there = {os.path.basename(path).removesuffix(tables.suffix_of(path)): path for path in inside}
    stems = [os.path.splitext(os.path.basename(file))[0] for file in files]
    for stem, file in zip(stems, files, strict=True):
        if stem not in there:
            raise FileNotFoundError(f"--covariates: expected a table of {file} in {place}, as {stem}.npy, got none")
    return [there[stem] for stem in stems]


def _values(source: Source, names: Names, left_out: int | None = None) -> tuple[NDArray[Any], Names]:
    """Values and names of the columns `names`; if `names` is None, of all columns but `left_out`."""
    columns = [i for i in range(source.n_columns) if i != left_out]
    if names is not None:
        columns = [find(source, "--context" if left_out is not None else "--covariates", name) for name in names]
    try:
        values = source.read(columns)
    except ValueError as error:
        raise ValueError(str(error).partition(";")[0]) from None  # leaves out advice to choose columns
    if not (values.size and np.isfinite(values).all()):
        got = "a NaN or an infinity" if values.size else "none"
        raise ValueError(f"{source.path}: expected finite numbers, got {got}")
    return values, None if source.names is None else tuple(source.names[i] for i in columns)
