"""``headrace score`` and ``headrace sample``: what a flow in a file is used for."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from headrace import _progress, _table
from headrace._cli import several, tables
from headrace._cli.commands import (
    OK,
    STANDARD,
    Density,
    _check_output,
    _columns_for,
    _counted,
    _load,
    _Names,
    _note,
    _say,
    _usage,
)
from headrace._cli.parts import Folder, is_folder
from headrace._cli.scores import Scores

__all__ = ["sample", "score"]


def score(arguments: argparse.Namespace) -> int:
    """Write the log density of each row, to one place or to a folder with a file for each table."""
    files = several.found(arguments.data)
    if arguments.flow == STANDARD and STANDARD in files:
        _usage(arguments, "arguments FLOW, DATA: the standard input can be one of them, got both")
    if is_folder(arguments.output):
        return _score_to_folder(arguments, files)
    if arguments.format is not None:
        _usage(arguments, "argument --format: give a folder as --output, as the name of a file says its format")
    _check_output(arguments, arguments.flow, *files)
    flow, notes = _load(arguments.flow)
    source, columns = _columns_for(flow, notes, arguments)
    scores = Scores()
    parts = _watched(_densities(flow, notes, source, columns, scores), source, not arguments.quiet)
    if arguments.output:
        tables.write_parts(arguments.output, _columns_of(flow), parts)
    held = [] if arguments.output else list(parts)
    _say_scores(arguments, scores, {}, "")
    if held and not arguments.json:
        tables.write_table(None, np.concatenate(held))
    return OK


def _watched(parts: Iterable[NDArray[Any]], source: tables.Source, progress: bool) -> Iterator[NDArray[Any]]:
    """The same, with a bar of the rows that are done, which goes at the end, as what was found is printed then."""
    sizes = source.pieces()
    total = None if any(size is None for size in sizes) else sum(size for size in sizes if size is not None)
    with _progress.bar(total, "score", "row", progress, unit_scale=True, leave=False) as shown:
        for part in parts:
            yield part
            shown.update(len(part))


def _score_to_folder(arguments: argparse.Namespace, files: Sequence[str]) -> int:
    """A file of scores for each table; those that are there already, of the same flow, are left as they are."""
    if STANDARD in files:
        _usage(arguments, "argument --output: give a file, as a table from the standard input has no name")
    folder = Folder(arguments.output, files, arguments.format and f".{arguments.format}")
    flow, notes = _load(arguments.flow)
    table = {"table": notes["table"]} if "table" in notes else {}  # what scores depend on, beside the flow
    digest = hashlib.blake2b(hr.to_bytes(flow, table), digest_size=16).hexdigest()
    told = {"flow": digest, "--columns": str(arguments.columns), "--context": str(arguments.context)}
    for option, by_default in (("array", None), ("delimiter", None), ("header", "auto")):
        if (value := getattr(arguments, option)) != by_default:
            told[f"--{option}"] = str(value)
    _columns_for(flow, notes, arguments, data=files[0])  # options that fit no table leave no folder behind
    folder.open(told)
    left, scores = folder.left(), Scores()
    done = len(files) - len(left)
    if done:
        _note(arguments, f"{_counted(done, 'table')} of {len(files):,} had scores already")
    with _progress.bar(len(files), "score", "table", not arguments.quiet and len(left) > 1) as shown:
        for file in files:
            if file in left:
                source, columns = _columns_for(flow, notes, arguments, data=file)
                folder.write(file, _columns_of(flow), partial(_densities, flow, notes, source, columns, scores))
            else:
                for log_prob in folder.written(file, flow.dtype):
                    scores.add(log_prob)
            shown.update()
    report = {"tables": len(files), "tables_done_before": done}
    _say_scores(arguments, scores, report, f" in {_counted(len(files), 'table')}")
    return OK


def _columns_of(flow: Density) -> list[str]:
    """Names of the columns of scores: how far the members of an ensemble differ is a second one."""
    return ["log_prob", *["spread"] * isinstance(flow, hr.Ensemble)]


def _densities(
    flow: Density, notes: dict[str, str], source: tables.Source, columns: Any, scores: Scores
) -> Iterator[NDArray[Any]]:
    """Of some rows at a time, so that a table may be larger than the memory."""
    table = _table.kept_in(notes, flow.features)
    width = flow.features if table is None else len(table.columns)
    for block in source.blocks([*columns[0], *columns[1]]):
        x, context = np.split(block, [width], axis=1)
        given = (x, context if flow.context else None)
        if table is None:
            log_prob = flow.log_prob(*given)
        else:
            log_prob = table.log_prob(flow.log_prob, *given, name=source.path).astype(flow.dtype)
            given = (table.without_constants(x), given[1])
        scores.add(log_prob)
        yield np.stack([log_prob, flow.spread(*given)], axis=1) if isinstance(flow, hr.Ensemble) else log_prob


def _say_scores(arguments: argparse.Namespace, scores: Scores, told: dict[str, Any], where: str) -> None:
    report = {**scores.report(), **told, "file": arguments.output}
    summary = (
        f"{_counted(scores.rows, 'row')}{where}: mean log density {report['log_likelihood']:.4f} ± "
        f"{report['standard_error']:.4f} nats, from {report['least']:.4f} to {report['most']:.4f}"
    )
    if report["not_finite"]:
        summary += f"; left out, as their log density is not finite: {report['not_finite']:,}"
    if arguments.output:
        _say(arguments, report, [summary])
    elif arguments.json:
        _say(arguments, report, [])
    else:
        _note(arguments, summary)


def sample(arguments: argparse.Namespace) -> int:
    """Draw rows."""
    _check_output(arguments, arguments.flow)
    if arguments.first_row is not None and arguments.seed is None:
        _usage(arguments, "argument --first-row: give --seed as well, or these rows belong to no other part")
    if arguments.json and not arguments.output:
        _usage(arguments, "argument --json: give --output as well, as the rows are not part of the JSON object")
    flow, notes = _load(arguments.flow)
    given = arguments.context_row or []
    if len(given) != flow.context:
        raise ValueError(f"--context-row: expected {flow.context} numbers, as {arguments.flow} needs, got {len(given)}")
    seed = int.from_bytes(os.urandom(4), "little") if arguments.seed is None else arguments.seed
    # A column far from zero, as a time, needs the digits that its table had.
    dtype = "float64" if notes.get("dtype") == "float64" else None
    conditions = np.array(given) if given else None
    x = flow.sample(arguments.rows, conditions, seed=seed, first_row=arguments.first_row, dtype=dtype)
    names = _Names.of_notes(notes, flow)
    kinds = None
    if (table := _table.kept_in(notes, flow.features)) is not None:
        x, kinds = table.back(x), [one.kind for one in table.columns]
    tables.write_table(arguments.output, x, None if names is None else names.features, kinds)
    if arguments.output:
        report = {"file": arguments.output, "rows": arguments.rows, "features": flow.features, "seed": seed}
        _say(arguments, report, [f"{_counted(arguments.rows, 'row')}, seed {seed}, saved to {arguments.output}"])
    elif arguments.seed is None:
        _note(arguments, f"seed {seed}")
    return OK
