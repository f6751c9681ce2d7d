"""``headrace diagnose`` of signals: tests of a flow with WAV files that it was not fitted to."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from headrace._cli.commands import OK, _check_output, _load_any, _say, _usage
from headrace._cli.signals import STEP, bits_of, load, refuse_options_of_tables, signal_of
from headrace._pictures import NO_MATPLOTLIB, can_draw
from headrace.diagnosis import diagnose as look


def diagnose(arguments: argparse.Namespace, files: Sequence[str]) -> int:
    """Print the evidence against a density of signals, and draw it."""
    refuse_options_of_tables(arguments)
    if arguments.output is not None:
        if Path(arguments.output).suffix.lower() == ".html":
            _usage(
                arguments,
                f"argument --output: expected a picture, because signals have no page, got {arguments.output}",
            )
        _check_output(arguments, arguments.flow, *files)
        if not can_draw():
            raise ImportError(f"--output: {NO_MATPLOTLIB}")
    flow, notes = _load_any(arguments.flow)
    signal = signal_of(arguments.flow, flow, notes)
    # Integers have cells, and latent values are those of points: noise makes points of them, as in the fit.
    rng = np.random.default_rng(arguments.seed)
    values = [load(arguments, file, signal, flow).values for file in files]
    points = [one + STEP * (rng.random(one.shape) - 0.5) for one in values]
    found = look(flow, points, seed=arguments.seed)
    if arguments.output is not None:
        found.plot(arguments.output)
    report = {
        **found.summary(),
        "signals": list(files),
        "bits": bits_of(found.nats, flow.features),
        "rate": signal.rate,
        "file": arguments.output,
    }
    _say(
        arguments,
        report,
        [*str(found).splitlines(), *([] if arguments.output is None else ["", f"saved to {arguments.output}"])],
    )
    return OK
