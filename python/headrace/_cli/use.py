"""``headrace score`` and ``headrace sample``: what a flow in a file is used for."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from headrace._cli import tables
from headrace._cli.commands import (
    OK,
    STANDARD,
    _check_output,
    _columns_for,
    _counted,
    _load,
    _Names,
    _note,
    _say,
    _usage,
)
from headrace._cli.scores import Scores

__all__ = ["sample", "score"]


def score(arguments: argparse.Namespace) -> int:
    """Write the log density of each row."""
    _check_output(arguments, arguments.flow, arguments.data)
    if arguments.flow == arguments.data == STANDARD:
        _usage(arguments, "arguments FLOW, DATA: the standard input can be one of them, got both")
    flow, notes = _load(arguments.flow)
    source, columns = _columns_for(flow, notes, arguments)
    scores = Scores()
    spreads = isinstance(flow, hr.Ensemble)  # how far its members differ is a second column

    def densities() -> Iterator[NDArray[Any]]:
        """Of some rows at a time, so that a table may be larger than the memory."""
        for block in source.blocks([*columns[0], *columns[1]]):
            x, context = np.split(block, [flow.features], axis=1)
            given = (x, context if flow.context else None)
            log_prob = flow.log_prob(*given)
            scores.add(log_prob)
            yield np.stack([log_prob, flow.spread(*given)], axis=1) if isinstance(flow, hr.Ensemble) else log_prob

    parts: Iterable[NDArray[Any]] = densities()
    if arguments.output:
        tables.write_parts(arguments.output, ["log_prob", *["spread"] * spreads], parts)
    else:
        parts = list(parts)
    report = {**scores.report(), "file": arguments.output}
    summary = (
        f"{_counted(scores.rows, 'row')}: mean log density {report['log_likelihood']:.4f} ± "
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
        tables.write_table(None, np.concatenate(list(parts)))
    return OK


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
    tables.write_table(arguments.output, x, None if names is None else names.features)
    if arguments.output:
        report = {"file": arguments.output, "rows": arguments.rows, "features": flow.features, "seed": seed}
        _say(arguments, report, [f"{_counted(arguments.rows, 'row')}, seed {seed}, saved to {arguments.output}"])
    elif arguments.seed is None:
        _note(arguments, f"seed {seed}")
    return OK
