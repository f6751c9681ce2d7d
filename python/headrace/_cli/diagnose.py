"""`headrace diagnose`: tests of a density with rows, or signals, to which the density was not fitted."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headrace._base.output import refuse_inputs
from headrace._base.pictures import NO_MATPLOTLIB, can_draw
from headrace._cli import signals
from headrace._cli.beside import Beside
from headrace._cli.commands import _check_output, _load, _load_any, _rows_for
from headrace._cli.screen import INTERRUPTED, OK, say, usage
from headrace._cli.signals import STEP, bits_of, load, signal_of
from headrace._cli.writing import write_text
from headrace._tables.density import TableDensity
from headrace.diagnosis import Diagnosis, diagnose_sequences
from headrace.diagnosis import diagnose as look

WRITTEN = (".html", ".png", ".pdf", ".svg")


def diagnose(arguments: Namespace) -> int:
    """Print the evidence against a density, and write a page or a picture of it."""
    if (waves := signals.found(arguments)) is not None:
        return _signals(arguments, waves)
    if len(arguments.data) > 1 or os.path.isdir(arguments.data[0]):
        usage(arguments, f"argument DATA: expected one table, or signals, got {' '.join(arguments.data)}")
    (arguments.data,) = arguments.data
    output, training_table = arguments.output, arguments.training
    _check(arguments, arguments.data, *([training_table] if training_table else []))
    if training_table is not None:
        refuse_inputs("--training", training_table, [arguments.data])
    density = _load(arguments.flow)
    rows, names = _rows_for(density, arguments)
    training = None
    if training_table is not None:
        fitted, context, _ = _rows_for(density, arguments, training_table)[0]
        training = fitted if context is None else (fitted, context)
    diagnosis = looked(arguments, replace(density, called=arguments.data), rows, training, names)
    if _is_page(output):
        write_text(output, diagnosis.to_html(Path(arguments.data).name))
    elif output is not None:
        diagnosis.plot(output)
    _tell(arguments, diagnosis, {}, diagnosis.blocks())
    return INTERRUPTED if diagnosis.interrupted else OK


def looked(arguments: Namespace, density: TableDensity, rows: Any, training: Any, names: Any) -> Diagnosis:
    """The diagnosis of a density by `rows`, which are x, context and weights."""
    x, context, weights = rows
    of_context = None if density.columns.names is None else list(density.columns.context_names or ())
    keywords = {"weights": weights, "training": training, "names": names, "context_names": of_context}
    diagnosis = look(density, x, context, **keywords, seed=arguments.seed, progress=not arguments.quiet)
    return replace(diagnosis, on_the_command_line=True)


def _is_page(output: str | None) -> bool:
    return output is not None and Path(output).suffix.lower() == ".html"


def _check(arguments: Namespace, *inputs: str) -> None:
    """Raise, before any work, the errors that would prevent the output."""
    if arguments.output is not None:
        _check_output(arguments, arguments.flow, *inputs)
        if not _is_page(arguments.output) and not can_draw():
            raise ImportError(f"--output: {NO_MATPLOTLIB}")


def _tell(arguments: Namespace, diagnosis: Any, entries: dict[str, Any], blocks: Sequence[Any]) -> None:
    saved = [] if arguments.output is None else ["", f"saved to {arguments.output}"]
    say(arguments, {**diagnosis.summary(), **entries, "file": arguments.output}, [*blocks, *saved])


def _signals(arguments: Namespace, files: Sequence[str]) -> int:
    """Print the evidence against a density of signals, and draw a picture."""
    if _is_page(arguments.output):
        usage(arguments, f"argument --output: expected a picture, as signals have no page, got {arguments.output}")
    _check(arguments, *files)
    flow, notes = _load_any(arguments.flow)
    signal = signal_of(arguments.flow, flow, notes)
    # The tests need continuous values: uniform noise of a cell is added to the integers, as in the fit.
    rng = np.random.default_rng(arguments.seed)
    values = [load(arguments, file, signal, flow).values for file in files]
    points = [signal_values + STEP * (rng.random(signal_values.shape) - 0.5) for signal_values in values]
    near = Beside.of_flow(arguments, files, signal, flow).arguments()
    diagnosis = diagnose_sequences(flow, points, **near, seed=arguments.seed)
    if arguments.output is not None:
        diagnosis.plot(arguments.output)
    entries = {"signals": list(files), "bits": bits_of(diagnosis.nats, flow.features), "rate": signal.rate}
    _tell(arguments, diagnosis, entries, str(diagnosis).splitlines())
    return OK
