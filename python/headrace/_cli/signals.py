"""Commands with signals: WAV files, the note about signals in a flow's file, ``fit``, ``score`` and ``sample``."""

from __future__ import annotations

import json
import math
import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from headrace._base import progress as _progress
from headrace._cli import bounds, fitting, screen, writing
from headrace._cli.beside import Beside, Names
from headrace._cli.commands import _check_output, _load_any
from headrace._cli.flow_options import FIT, SIGNALS
from headrace._cli.kept_scores import Folder, Scores, digest
from headrace._cli.screen import OK, counted, duration, refuse_options, say, usage
from headrace._flow.fit_arguments import Arguments
from headrace.rows import _files as tables
from headrace.rows import _waves as waves
from headrace.rows._waves import BITS, SUFFIX, Wave
from headrace.sequences.fit import SequenceFit
from headrace.sequences.quantised import has_cells

STEP = 1  # spacing of integers
STEPS_AT_ONCE = 4096  # steps of a sampled signal between two updates of the progress bar
OF_TABLES = (
    *("columns", "array", "delimiter", "header", "weights", "training", "buffer", "periodic"),
    *("discrete", "spread", "missing", "ensemble", "keep", "held_out", "rows", "first_row", "auto"),
)
"""Options that only tables have."""


def found(arguments: Namespace) -> list[str] | None:
    """The WAV files in the arguments' paths, folders and patterns; None for tables. Refuses unsuitable options."""
    signals = [path for path in arguments.data if _is_signal(path)]
    if not signals:
        why = "tables do not take it, because it is of signals; leave it out"
        refuse_options(arguments, ("covariates", "steps"), why)
        return None
    if unlike := [path for path in arguments.data if path not in signals]:
        raise ValueError(f"DATA: expected signals ({SUFFIX}) or tables, got both, {signals[0]} and {unlike[0]}")
    refuse_options_of_tables(arguments)
    return tables.files_of(signals, (SUFFIX,), name="DATA")


def _is_signal(path: str) -> bool:
    """Whether a path is a WAV file, or a folder of WAV files without tables."""
    if os.path.isdir(path):
        return bool(tables.inside(path, (SUFFIX,))) and not tables.inside(path, tables.READ)
    return tables.suffix_of(path) == SUFFIX


def refuse_options_of_tables(arguments: Namespace) -> None:
    """Exit with an error if the command line has options about rows and columns."""
    refuse_options(arguments, OF_TABLES, "signals do not take it, because it is of tables; leave it out")


# ---- the note --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signal:
    """A note in a flow's file about the signals of the fit (docs/files.md)."""

    rate: int
    """Steps in a second."""
    bits: int = BITS
    """Bits of an integer."""
    step: int = STEP
    """The gap between two neighbouring values, in units of the flow."""
    context: Names = None
    """Names of the context's columns, if these have names."""
    covariates: Names = None

    def notes(self) -> dict[str, str]:
        """The note in JSON, as an entry of a file's notes."""
        entries = {name: value for name, value in asdict(self).items() if value is not None}
        return {"signal": json.dumps(entries, separators=(",", ":"))}

    @classmethod
    def of_notes(cls, notes: dict[str, str]) -> Signal | None:
        """The note about signals among a file's notes; None without a valid one."""
        try:
            recorded = json.loads(notes["signal"])
            names = {name: tuple(map(str, recorded[name])) for name in ("context", "covariates") if name in recorded}
            signal = cls(int(recorded["rate"]), int(recorded["bits"]), int(recorded["step"]), **names)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None
        return signal if signal.rate >= 1 and (signal.bits, signal.step) == (BITS, STEP) else None


def signal_of(path: str, flow: Any, notes: dict[str, str]) -> Signal:
    """The note about signals in a flow's file; raises an error for a flow of rows, or if there is no note."""
    if not isinstance(flow, hr.SequenceFlow):
        raise TypeError(f"{path}: expected a flow of signals, got a {type(flow).__name__}, which takes tables")
    signal = Signal.of_notes(notes)
    if signal is None:
        raise ValueError(f"{path}: expected a file with the rate of its signals, as headrace fit writes it, got none")
    return signal


def bits_of(log_prob: float, features: int) -> float:
    """The bits that an ideal coder needs for each value, from the log density of a step in nats."""
    return -log_prob / math.log(2.0) / features


# ---- fit -------------------------------------------------------------------------------------------------------------


def fit(arguments: Namespace) -> int:
    """Fit a flow to signals, print its held-out likelihood, and save it; `fitting.fit` handles tables."""
    files = found(arguments)
    return fitting.fit(arguments) if files is None else _fit(arguments, files)


def _fit(arguments: Namespace, files: Sequence[str]) -> int:
    arguments.flow = arguments.flow or next(iter(SIGNALS))
    if arguments.flow not in SIGNALS:
        usage(arguments, f"argument --flow: expected {' or '.join(SIGNALS)} for signals, got {arguments.flow}")
    kind = SIGNALS[arguments.flow]
    options = fitting._options(arguments, kind)
    fitting._check_files(arguments, options, files)
    settings = {name: value for name, value in options.items() if name not in FIT}
    with fitting._nothing_saved(arguments.output):
        signals = waves.read_all(files)
        near = Beside.of(arguments, files)
        settings |= {option: near.columns(option) for option in ("context", "covariates")}
        if arguments.bounds:
            settings["bounds"] = _bounds(arguments.bounds, signals[0])
        flow = kind.make(signals[0].channels, seed=arguments.seed, dtype=arguments.dtype, **settings)
        share = fitting.VALIDATION if arguments.validation is None else arguments.validation
        keywords: dict[str, Any] = {"validation": share, "seed": arguments.seed, "progress": not arguments.quiet}
        keywords |= {name: options[name] for name in FIT if name in options}
        values = [each.values for each in signals]
        if not arguments.quiet and keywords.get("time_budget") is None:
            screen.tell(_foreseen(flow, values, near, keywords))
        history = flow.fit(values, **near.arguments(), quantised=STEP, **keywords)
        fitting._refuse_failed([history])
    signal = Signal(signals[0].rate, context=near.context_names, covariates=near.covariate_names)
    fitting._save(arguments.output, flow, signal.notes())
    return _report(arguments, flow, signals, history)


def _bounds(text: str, wave: Wave) -> list[Any]:
    """The bounds of each channel, or None, from a list such as ``0=-0.5:,1=:99.5`` with indices of channels."""
    table: Any = SimpleNamespace(path=wave.path, names=None, n_columns=wave.channels, label="channel {}".format)
    ends, _ = bounds.read(table, range(wave.channels), text, None)
    return [ends.get(i) for i in range(wave.channels)]


def _foreseen(flow: Any, values: Sequence[Any], near: Beside, keywords: dict[str, Any]) -> str:
    """A message about the longest time that the fit may take."""
    fit = SequenceFit(flow, hr.training.History(), Arguments(**keywords), None, STEP)
    plan, seconds = fit.foreseen(values, **near.arguments())
    most = plan.epochs * plan.batches * seconds
    shown = f"{most / 60:,.0f} min" if most >= 120 else duration(most)
    return (
        f"at most {counted(plan.epochs, 'epoch')} of {counted(plan.batches, 'step')}, together {shown} at this "
        "speed, fewer where held-out steps gain no more; Ctrl-C keeps the best, --time-budget sets an end"
    )


def _report(arguments: Namespace, flow: Any, signals: Sequence[Wave], history: hr.training.History) -> int:
    outcome = fitting._outcome(history)
    rate, steps = signals[0].rate, sum(len(signal.values) for signal in signals)
    reached = -history.best_loss if math.isfinite(history.best_loss) else math.nan
    report = {"file": arguments.output, "flow": arguments.flow, "signals": len(signals), "steps": steps, "rate": rate}
    report |= {"channels": flow.features, "field": flow.field, "judged_by": history.judged_by, "seed": arguments.seed}
    report |= {"log_likelihood": reached, "bits": bits_of(reached, flow.features), **outcome}
    judges = history.judged_by.replace("training rows", "steps to fit")
    channels = f", {flow.features} channels" if flow.features > 1 else ""
    read = f"{counted(len(signals), 'signal')}, {counted(steps, 'step')} at {rate:,} Hz{channels}"
    score = f"{arguments.flow} {reached:.4f}, {report['bits']:.3f} bits a value"
    work = f"{fitting._work(outcome)}; saved to {arguments.output}"
    return fitting.ended(arguments, report, [read, f"mean log-likelihood of {judges}, nats a step: {score}", work])


# ---- score -----------------------------------------------------------------------------------------------------------


def score(arguments: Namespace, files: Sequence[str], to_folder: bool) -> int:
    """Write the log density of each signal, or with --steps that of each step."""
    if to_folder and not arguments.steps:
        usage(arguments, "argument --output: with a folder give --steps as well, or the name of a file for one table")
    if arguments.steps and len(files) > 1 and not to_folder:
        usage(arguments, f"argument --steps: give a folder/ as --output, because there are {len(files):,} signals")
    flow, notes = _load_any(arguments.flow)
    signal, scored = signal_of(arguments.flow, flow, notes), []
    near = Beside.of_flow(arguments, files, signal, flow)
    folder = Folder(arguments.output, files, arguments.format) if to_folder else None
    if folder is not None:
        load(arguments, files[0], signal, flow)  # raises an error for an unsuitable file before the folder is made
        inputs = {"flow": digest(hr.to_bytes(flow, signal.notes()))}
        paths = {f"--{name}": getattr(arguments, name) for name in ("context", "covariates")}
        folder.open(inputs | {name: path for name, path in paths.items() if path is not None})
    log_prob = np.zeros(0, flow.dtype)
    for i, file in enumerate(_progress.each(files, "score", "signal", not arguments.quiet and len(files) > 1)):
        if folder is not None and os.path.exists(folder.place(file)):
            log_prob = np.concatenate([*folder.written(file, flow.dtype)])
        else:
            values = load(arguments, file, signal, flow).values
            if has_cells(flow):
                log_prob = flow.log_prob_steps(values, **near.arguments(i), quantised=STEP)
            else:  # log densities of values, because probabilities of integers have no closed form
                log_prob = flow.log_prob_steps(values.astype(np.float64), **near.arguments(i))
            if folder is not None:
                folder.write(file, ["log_prob"], iter([log_prob]))
        scored.append((file, log_prob))
    totals = np.array([densities.sum(dtype=np.float64) for _, densities in scored])
    if folder is None and (arguments.output or not arguments.json):
        values = log_prob if arguments.steps else totals
        writing.write_table(arguments.output, values, ["log_prob"] if arguments.output else None)
    _print_scores(arguments, signal, flow, scored)
    return OK


def load(arguments: Namespace, file: str, signal: Signal, flow: Any) -> Wave:
    """The signal in a WAV file; raises an error for another rate or number of channels than the flow's."""
    loaded = waves.read(file)
    waves.check_like(loaded, signal.rate, flow.features, arguments.flow)
    return loaded


def _print_scores(arguments: Namespace, signal: Signal, flow: Any, scored: Sequence[tuple[str, NDArray[Any]]]) -> None:
    every = Scores()
    for _, log_prob in scored:
        every.add(log_prob)
    mean = every.report()["log_likelihood"]
    signals = [{"file": file, "steps": len(log), "log_prob": float(log.sum(dtype=np.float64))} for file, log in scored]
    report = {"file": arguments.output, "signals": signals, "steps": every.rows, "rate": signal.rate}
    report |= {"not_finite": every.rows - every.finite, "log_likelihood": mean, "bits": bits_of(mean, flow.features)}
    of = f"{counted(len(scored), 'signal')}, {counted(every.rows, 'step')}"
    summary = f"{of}: mean log density {mean:.4f} nats a step, {report['bits']:.3f} bits a value"
    if report["not_finite"]:
        summary += f"; left out, because their log density is not finite: {report['not_finite']:,}"
    say(arguments, report, [summary], apart=True)


# ---- sample ----------------------------------------------------------------------------------------------------------


def sample(arguments: Namespace, flow: Any, notes: dict[str, str]) -> int:
    """Draw a signal, or steps that continue a given signal, and write it as a WAV file."""
    signal = signal_of(arguments.flow, flow, notes)
    refuse_options_of_tables(arguments)
    steps = _steps_to_draw(arguments, signal)
    before = [] if arguments.prefix is None else [arguments.prefix]
    if arguments.output is None or tables.suffix_of(arguments.output) != SUFFIX:
        named = "nothing" if arguments.output is None else arguments.output
        usage(arguments, f"argument --output: expected a {SUFFIX} file, because the flow is of signals, got {named}")
    _check_output(arguments, arguments.flow, *before)
    near = Beside.of_flow(arguments, [arguments.output], signal, flow).arguments(0)
    prefix = load(arguments, arguments.prefix, signal, flow).values if before else np.zeros((0, flow.features), "i2")
    seed = int.from_bytes(os.urandom(4), "little") if arguments.seed is None else arguments.seed
    clipped = 0  # values beyond 16 bits

    def parts() -> Iterator[NDArray[np.int16]]:
        nonlocal clipped
        stream = flow.stream(**near)
        stream._check(len(prefix) + steps)
        if len(prefix):
            stream.push(prefix[None].astype(np.float64))
            yield prefix
        with _progress.bar(steps, "sample", "step", not arguments.quiet, unit_scale=True, leave=False) as shown:
            for begin in range(0, steps, STEPS_AT_ONCE):
                some = min(STEPS_AT_ONCE, steps - begin)
                values, beyond = waves.rounded(stream.pull(some, seed=seed)[0])
                clipped += beyond
                yield values
                shown.update(some)

    waves.write(arguments.output, signal.rate, flow.features, len(prefix) + steps, parts())
    report = {"file": arguments.output, "steps": steps, "steps_before": len(prefix), "seconds": steps / signal.rate}
    report |= {"rate": signal.rate, "channels": flow.features, "clipped": clipped, "seed": seed}
    after = f" after the {len(prefix):,} of {arguments.prefix}" if before else ""
    lines = [f"{counted(steps, 'step')}{after} at {signal.rate:,} Hz, seed {seed}, saved to {arguments.output}"]
    if clipped:
        lines.append(f"clipped, because they lay beyond {BITS} bits: {clipped:,} of {steps * flow.features:,} values")
    say(arguments, report, lines)
    return OK


def _steps_to_draw(arguments: Namespace, signal: Signal) -> int:
    if (arguments.steps is None) == (arguments.seconds is None):
        got = "none" if arguments.steps is None else "both"
        usage(arguments, f"arguments --steps, --seconds: expected one of them for signals, got {got}")
    if arguments.steps is not None:
        return int(arguments.steps)
    steps = round(float(arguments.seconds) * signal.rate)
    if steps < 1:
        raise ValueError(f"--seconds: expected at least one step at {signal.rate:,} Hz, got {arguments.seconds:g}")
    return steps
