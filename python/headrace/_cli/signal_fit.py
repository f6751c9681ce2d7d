"""``headrace fit`` of signals: a flow of sequences for the integers in WAV files."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import headrace as hr
from headrace._cli import fitting, screen, waves
from headrace._cli.commands import _counted, _duration, _usage
from headrace._cli.flow_options import FIT, SIGNALS
from headrace._cli.signals import STEP, Signal, bits_of, found, refuse_options_of_tables
from headrace._flow.fit_arguments import Arguments
from headrace.sequences.fit import SequenceFit

JUDGES = {"training rows": "steps to fit"}  # in words of signals


def fit(arguments: argparse.Namespace) -> int:
    """Fit a flow to signals, print its held-out likelihood, and save it; tables go to `fitting.fit`."""
    files = found(arguments.data)
    return fitting.fit(arguments) if files is None else _fit(arguments, files)


def _fit(arguments: argparse.Namespace, files: Sequence[str]) -> int:
    refuse_options_of_tables(arguments)
    arguments.flow = arguments.flow or next(iter(SIGNALS))
    if arguments.flow not in SIGNALS:
        _usage(arguments, f"argument --flow: expected {' or '.join(SIGNALS)} for signals, got {arguments.flow}")
    kind = SIGNALS[arguments.flow]
    options = fitting._options(arguments, kind)
    fitting._check_files(arguments, files)
    own = {name: value for name, value in options.items() if name not in FIT}
    with fitting._nothing_saved(arguments.output):
        signals = waves.read_all(files)
        flow = kind.make(signals[0].channels, seed=arguments.seed, dtype=arguments.dtype, **own)
        given: dict[str, Any] = {
            "validation": fitting.VALIDATION if arguments.validation is None else arguments.validation,
            "seed": arguments.seed,
            "progress": not arguments.quiet,
            **{name: options[name] for name in FIT if name in options},
        }
        values = [one.values for one in signals]
        if not arguments.quiet and given.get("time_budget") is None:
            screen.tell(_foreseen(flow, values, given))
        history = flow.fit(values, quantised=STEP, **given)
        fitting._refuse_failed([history])
    fitting._save(arguments.output, flow, Signal(signals[0].rate).notes())
    return _report(arguments, flow, signals, history)


def _foreseen(flow: Any, values: Sequence[Any], given: dict[str, Any]) -> str:
    """How long the fit will take."""
    plan, seconds = SequenceFit(flow, hr.training.History(), Arguments(**given), None, STEP).foreseen(values)
    most = plan.epochs * plan.batches * seconds
    shown = f"{most / 60:,.0f} min" if most >= 120 else _duration(most)
    return (
        f"at most {_counted(plan.epochs, 'epoch')} of {_counted(plan.batches, 'step')}, together {shown} at this "
        "speed, fewer where held-out steps gain no more; Ctrl-C keeps the best, --time-budget sets an end"
    )


def _report(
    arguments: argparse.Namespace, flow: Any, signals: Sequence[waves.Wave], history: hr.training.History
) -> int:
    outcome = fitting._outcome(history)
    rate, steps = signals[0].rate, sum(len(one.values) for one in signals)
    reached = -history.best_loss if math.isfinite(history.best_loss) else math.nan
    report = {
        "file": arguments.output,
        "flow": arguments.flow,
        "signals": len(signals),
        "steps": steps,
        "rate": rate,
        "channels": flow.features,
        "field": flow.field,
        "judged_by": history.judged_by,
        "log_likelihood": reached,
        "bits": bits_of(reached, flow.features),
        **outcome,
        "seed": arguments.seed,
    }
    judges = JUDGES.get(history.judged_by, history.judged_by)
    channels = f", {flow.features} channels" if flow.features > 1 else ""
    lines = [
        f"{_counted(len(signals), 'signal')}, {_counted(steps, 'step')} at {rate:,} Hz{channels}",
        f"mean log-likelihood of {judges}, nats a step: {arguments.flow} {reached:.4f}, "
        f"{report['bits']:.3f} bits a value",
        f"{fitting._work(outcome)}; saved to {arguments.output}",
    ]
    return fitting.ended(arguments, report, lines)
