"""Functions that write tables as .npy, .csv or .parquet, at once or part by part."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from headrace._base.output import replacing, spreadsheet_cell
from headrace._tables.density import TableDensity, called
from headrace.rows._arrow import load_pyarrow

SINGLE, DOUBLE = 9, 17  # significant digits that restore any float32, and any float64
WRITTEN = (".npy", ".csv", ".parquet")


def write_text(path: str, text: str) -> None:
    """Write a text."""
    with replacing(path) as stream:
        stream.write(text.encode())


def write_table(path: str | None, values: NDArray[Any], names: Sequence[str] | None = None, **how: Any) -> None:
    """Write an array (rows, columns), or (rows,) as one column; see `write_parts`."""
    write_parts(path, names, [values], **how)


def write_parts(
    path: str | None,
    names: Sequence[str] | None,
    parts: Iterable[NDArray[Any]],
    instead: Callable[[], str | None] | None = None,
    kinds: Sequence[str] | None = None,
    digits: Sequence[int | None] | None = None,
) -> None:
    """Write a table, (rows, columns) or (rows,), part by part, with one part in memory; all parts have one dtype.

    In .csv, values have enough digits to be restored, or the column's `digits`, and names and texts are escaped so that
    they do no harm in a terminal or a spreadsheet. An .npy file contains the array without names. In .parquet, columns
    whose `kinds` are "integer" or "boolean" have these types. Columns of text have the kind "category" and the `digits`
    None. Without a path the table is written to the standard output, as .csv. `instead`: as in `replacing`.
    """
    if path is None:
        _write_text(sys.stdout, parts, names, digits)
        return
    suffix = Path(path).suffix.lower()
    if suffix == ".npy" and kinds is not None and "category" in kinds:
        raise ValueError(f"{path}: expected .csv or .parquet for columns of text, got .npy")
    with replacing(path, instead) as stream:
        if suffix == ".npy":
            _write_npy(stream, parts)
        elif suffix == ".parquet":
            _write_parquet(path, stream, names, parts, kinds)
        else:
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
            _write_text(text, parts, names, digits)
            text.detach()


def _write_npy(stream: IO[bytes], parts: Iterable[NDArray[Any]]) -> None:
    """Write an array in parts; the header, which has room for any number of rows, is written again at the end."""

    def write_header(like: NDArray[Any], rows: int) -> int:
        described = {"descr": np.lib.format.dtype_to_descr(like.dtype), "fortran_order": False}
        stream.seek(0)
        np.lib.format.write_array_header_1_0(stream, {**described, "shape": (rows, *like.shape[1:])})
        return stream.tell()

    begin, rows = 0, 0
    for part in parts:
        if begin == 0:
            begin = write_header(part, 0)
        stream.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        rows += len(part)
    write_header(part, rows)


def _write_parquet(path: str, stream: IO[bytes], names: Any, parts: Iterable[NDArray[Any]], kinds: Any) -> None:
    tables = (_arrow_table(path, part, names, kinds) for part in parts)
    first = next(tables)
    # Columns have no dictionary, because their values hardly repeat, and look-ups would take longer than compression.
    with load_pyarrow().parquet.ParquetWriter(stream, first.schema, use_dictionary=False) as writer:
        for table in chain([first], tables):
            writer.write_table(table)


def _arrow_table(path: str, values: NDArray[Any], names: Sequence[str] | None, kinds: Sequence[str] | None) -> Any:
    columns = values[:, None] if values.ndim == 1 else values
    labels = list(names or [f"x{i}" for i in range(columns.shape[1])])
    label, count = max(Counter(labels).items(), key=itemgetter(1), default=("", 0))
    if count > 1:
        raise ValueError(f"{path}: expected different names of columns for .parquet, got {label!r} {count} times")
    every = zip(columns.T, kinds or ["float"] * len(labels), strict=True)
    return load_pyarrow().table([np.ascontiguousarray(_typed(*column)) for column in every], names=labels)


def _typed(column: NDArray[Any], kind: str) -> NDArray[Any]:
    """A column of the kind "integer" or "boolean" as int64 or bool; unchanged if it has other values."""
    if kind == "category":
        return column
    column = column.astype(np.float64) if column.dtype == object else column
    if kind == "float" or not ((np.trunc(column) == column) & (np.abs(column) < 2**53)).all():
        return column
    if kind == "boolean":
        return column.astype(np.bool_) if np.isin(column, (0, 1)).all() else column
    return column.astype(np.int64)


def _write_text(
    file: IO[str], parts: Iterable[NDArray[Any]], names: Sequence[str] | None, digits: Sequence[int | None] | None
) -> None:
    if names:
        csv.writer(file, lineterminator="\n").writerow(map(spreadsheet_cell, names))
    for values in parts:
        columns = np.array(values if values.ndim == 2 else values[:, None])
        counts = digits or [SINGLE if columns.dtype == np.float32 else DOUBLE] * columns.shape[1]
        for i, count in enumerate(counts):
            if count is None:
                columns[:, i] = ["" if cell is None else quoted(spreadsheet_cell(cell)) for cell in columns[:, i]]
            elif count == SINGLE and columns.dtype == np.float64:  # nine digits restore float32 values
                columns[:, i] = columns[:, i].astype(np.float32)
        np.savetxt(file, columns, fmt=["%s" if count is None else f"%.{count}g" for count in counts], delimiter=",")


def labelled(values: NDArray[Any], labels: Mapping[int, Sequence[str]]) -> NDArray[Any]:
    """Rows in which `labels`, by column, replace integer codes."""
    if labels:
        values = values.astype(object)
    for i, texts in labels.items():
        values[:, i] = called(values[:, i], texts)
    return values


def quoted(cell: str) -> str:
    """A cell of a .csv file, in quotes if necessary."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([cell])
    return line.getvalue()


def digits_of_samples(density: TableDensity) -> list[int | None]:
    """The significant digits of samples of each used column; None for text, and all digits for integers and constants.

    A float32 flow computes standardised columns to nine digits. A column whose mean is many standard deviations from
    zero, such as a time, needs more digits: as many as the decimal logarithm of the number of deviations.
    """
    table, flow, kept = density.columns.used, density.flow, density.columns.used.kept
    numbers = flow.flow if isinstance(flow, hr.MixedDensity) else flow
    if isinstance(flow, hr.MixedDensity):
        kept = [kept[i] for i in flow.continuous]
    members = numbers.flows if isinstance(numbers, hr.Ensemble) else () if numbers is None else (numbers,)
    digits: list[int | None] = [None if column.labels else DOUBLE for column in table.columns]
    for i, counts in zip(kept, zip(*map(_digits_of, members), strict=True), strict=True):
        if not table.columns[i].is_discrete:
            digits[i] = max(counts)
    return digits


def _digits_of(flow: hr.Flow) -> list[int]:
    """The significant digits of samples of each column of a flow."""
    standardize, support = flow._interior.standardize, flow._interior.support
    if flow.dtype == np.float64 or standardize is None:
        return [DOUBLE] * flow.features
    bounds = [None] * flow.features if support is None else support.bounds
    periodic = [None] * flow.features if support is None else support.periodic
    digits = []
    for i in range(flow.features):
        if (ends := bounds[i] or periodic[i]) is None:
            away, unit = abs(float(standardize.mean[i])), float(standardize.std[i])
        else:
            low, high = ends
            away = max(abs(end) for end in ends if end is not None)
            unit = math.inf if away == 0.0 else 0.0 if low is None or high is None else high - low
        more = math.ceil(math.log10(away / unit)) if away > unit > 0.0 else 0
        digits.append(DOUBLE if unit == 0.0 else min(SINGLE + more, DOUBLE))
    return digits
