"""`headrace diagnose`: tests of a density with rows, or signals, that it was not fitted to."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace._cli import signal_diagnose, signals
from headrace._cli.commands import INTERRUPTED, OK, _check_output, _load, _Names, _rows_for, _say, _usage
from headrace._output import refuse_inputs, replacing
from headrace._pictures import NO_MATPLOTLIB, can_draw
from headrace._tables.table import FIT
from headrace.diagnosis import diagnose as look

WRITTEN = (".html", ".png", ".pdf", ".svg")


def diagnose(arguments: argparse.Namespace) -> int:
    """Print the evidence against a density, and write a page or a picture of it."""
    if (waves := signals.found(arguments.data)) is not None:
        return signal_diagnose.diagnose(arguments, waves)
    if len(arguments.data) > 1 or os.path.isdir(arguments.data[0]):
        _usage(arguments, f"argument DATA: expected one table, or signals, got {' '.join(arguments.data)}")
    (arguments.data,) = arguments.data
    output, training_table = arguments.output, arguments.training
    if output is not None:
        inputs = [arguments.flow, arguments.data, *([training_table] if training_table else [])]
        _check_output(arguments, *inputs)
        if Path(output).suffix.lower() != ".html" and not can_draw():
            raise ImportError(f"--output: {NO_MATPLOTLIB}")
    if training_table is not None:
        refuse_inputs("--training", training_table, [arguments.data])
    flow, notes = _load(arguments.flow)
    (x, context, weights), names = _rows_for(flow, notes, arguments, weights=arguments.weights)
    training = None
    if training_table is not None:
        # A column of weights in this table is no feature either.
        of_fit = {"data": training_table, "weights": arguments.weights, "purpose": FIT}
        fitted, given, _ = _rows_for(flow, notes, arguments, **of_fit)[0]
        training = fitted if given is None else (fitted, given)
    noted = _Names.of_notes(notes, flow)
    named: dict[str, Any] = {"names": names, "context_names": None if noted is None else noted.context}
    own = {"seed": arguments.seed, "progress": not arguments.quiet}
    found = look(flow, x, context, weights=weights, training=training, **named, **own)
    found = replace(found, on_the_command_line=True)
    if output is not None:
        if Path(output).suffix.lower() == ".html":
            with replacing(output) as stream:
                stream.write(found.to_html(Path(arguments.data).name).encode())
        else:
            found.plot(output)
    blocks = [*found.blocks(), *([] if output is None else ["", f"saved to {output}"])]
    _say(arguments, {**found.summary(), "file": output}, blocks)
    return INTERRUPTED if found.interrupted else OK
