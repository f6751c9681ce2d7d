"""Functions that several commands share: reading of tables and densities, and checks of output paths."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections import Counter
from contextlib import suppress
from operator import itemgetter
from typing import Any

import headrace as hr
from headrace import files
from headrace._base.output import check_writable, refuse_inputs
from headrace._cli.screen import counted, note
from headrace._fit.streams import rows_bar
from headrace._tables import table as _table
from headrace._tables.density import Columns, TableDensity
from headrace.rows import _files as tables
from headrace.rows._columns import find, select
from headrace.rows._files import STANDARD
from headrace.rows._joined import Columns as ColumnStream
from headrace.rows._source import TEXT, Source
from headrace.rows._stream import Block as RowBlock

Density = hr.Flow | hr.Ensemble | hr.MixedDensity


def _open(arguments: Namespace, path: str | None = None) -> Source:
    how = {"array": arguments.array, "delimiter": arguments.delimiter, "header": arguments.header or "auto"}
    paths = arguments.data if path is None else path
    files = [paths] if isinstance(paths, str) else tables.files_of(paths, name="DATA")
    return tables.open_tables(files, dashes="--", **how)


def _columns(
    source: Source, arguments: Namespace, *, weights: str | None = None, known: Columns | None = None
) -> list[list[int]]:
    """The indices of the columns of features, context and weights. By default the columns are those with the names of
    the fit's columns, or all columns as features if the fit's columns or the table have no names or a name twice.
    """
    names = None if known is None or known.used_names is None else [*known.used_names, *(known.context_names or ())]
    remembered = known if names and source.names and len({*names}) == len(names) else None
    weight = [] if weights is None else select(source, "--weights", weights)
    if len(weight) > 1:
        raise ValueError(f"--weights: expected one column, got {len(weight)}")
    context: list[int] = []
    if arguments.context is not None:
        context = select(source, "--context", arguments.context)
    elif remembered:
        context = [find(source, "--context", name) for name in remembered.context_names or ()]
    taken = {*context, *weight}
    if arguments.columns is not None:
        features = select(source, "--columns", arguments.columns)
    elif remembered:
        features = [find(source, "--columns", name) for name in remembered.used_names or ()]
    elif known is not None and known.taken is not None and (source.names, source.n_columns) == (None, known.taken[1]):
        features = [*known.taken[0]]
    else:
        features = [i for i in range(source.n_columns) if i not in taken]
        usable = [i for i in features if source.kinds[i] != TEXT or i in source.labels]
        if known is None or len(features) != len(known.used.columns):
            features = usable or features
    if len({*features, *taken}) < len(features) + len(context) + len(weight):
        twice = next(i for i in (*features, *weight) if (features + context + weight).count(i) > 1)
        options = "--columns, --context, --weights"
        raise ValueError(f"{options}: expected different columns, got {source.label(twice)} twice")
    if not features:
        raise ValueError(f"{source.path}: expected at least one column of features, got none")
    called = Counter(source.names[i] for i in (*features, *context, *weight)) if source.names else Counter[str]()
    name, count = max(called.items(), key=itemgetter(1), default=("", 0))
    if count > 1:
        got = f"got {name!r} {count} times; --columns chooses others"
        raise ValueError(f"{source.path}: expected different names of columns, {got}")
    return [features, context, weight]


def _whole(arguments: Namespace, stream: ColumnStream) -> RowBlock | None:
    """All rows of a table, read with a progress bar; None if the rows exceed the buffer."""
    with rows_bar(stream.rows, "read", not arguments.quiet) as stream.shown:
        whole = stream.whole()
    stream.shown = None
    return whole


def _load(path: str) -> TableDensity:
    """The density of rows in a file, with the columns that the file's notes describe."""
    return _of_rows(path, *_load_any(path))


def _of_rows(path: str, flow: Any, notes: dict[str, str]) -> TableDensity:
    """The density of rows in a file's contents; raises TypeError for other contents."""
    if isinstance(flow, hr.SequenceFlow):
        got = f"a {type(flow).__name__} of signals; score, diagnose and sample take it, with .wav files"
        raise TypeError(f"{path}: expected a flow of the rows of a table, got {got}")
    if not isinstance(flow, Density):
        raise TypeError(f"{path}: expected a flow, got a {type(flow).__name__}")
    return TableDensity(flow, Columns.of_notes(notes, flow))


def _load_any(path: str) -> tuple[Any, dict[str, str]]:
    """The flow of rows or of signals in a file, and the file's notes."""
    if path == STANDARD:
        return files.contents_of_bytes(sys.stdin.buffer.read())
    if not os.path.exists(path):
        raise FileNotFoundError(f"FLOW: expected a file that `headrace fit` or Flow.save wrote, got no {path}")
    return files.contents(path)


def _check_output(arguments: Namespace, *inputs: str) -> None:
    """Raise, before any work, the errors that would prevent the output."""
    if arguments.output is None or arguments.output == STANDARD:
        return
    refuse_inputs("--output", arguments.output, [path for path in inputs if path != STANDARD])
    check_writable("--output", arguments.output)
    with suppress(OSError):  # there is no such file, or the standard output is no file
        if os.path.samestat(os.stat(arguments.output), os.fstat(sys.stdout.fileno())):  # a report would overwrite it
            raise ValueError(f"--output: expected another file than the standard output, or -, got {arguments.output}")


def _columns_for(
    density: TableDensity, arguments: Namespace, *, data: str | None = None, weights: Any = None
) -> tuple[Source, list[list[int]]]:
    """An open table, and the indices of its columns for a density: features, context and weights."""
    source = _open(arguments, data)
    columns = _columns(source, arguments, weights=weights, known=density.columns)
    table = density.columns.used
    source.missing = table.missing != "refuse"
    source.labels = {i: column.labels for i, column in zip(columns[0], table.columns, strict=False) if column.labels}
    wanted = {"features": len(table.columns), "context": density.context}
    for (kind, count), chosen in zip(wanted.items(), columns, strict=False):
        if len(chosen) != count:
            expected = f"{counted(count, 'column')} of {kind}, as {arguments.flow} has"
            option = "--columns" if kind == "features" else "--context"
            raise ValueError(f"{source.path}: expected {expected}, got {len(chosen)}; choose them with {option}")
    return source, columns


def _rows_for(
    density: TableDensity, arguments: Namespace, data: str | None = None
) -> tuple[tuple[Any, ...], list[str] | None]:
    """All rows of a table, as x, context and weights, and the names of the features."""
    source, columns = _columns_for(density, arguments, data=data, weights=arguments.weights)
    whole = _whole(arguments, ColumnStream(source, columns, sys.maxsize, source.path))
    assert whole is not None
    parts: tuple[Any, ...] = whole.arrays()
    missing = len(whole) - int(_table.complete(*parts).sum())
    if missing and density.columns.table.missing == "drop":
        notice = f"{missing:,} of {len(whole):,} rows miss a number and are left out, as in the fit"
        note(arguments, f"{source.path}: {notice}")
    return parts, None if source.names is None else [source.names[i] for i in columns[0]]
