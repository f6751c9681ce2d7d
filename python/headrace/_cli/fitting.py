"""`headrace fit`: a flow for the rows of a table, which may be larger than the memory."""

from __future__ import annotations

import math
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from headrace import files
from headrace._arrays.caller import Caller, row_weights
from headrace._arrays.names import Names
from headrace._arrays.row_parts import held_of
from headrace._base.layout import Block as Paragraph
from headrace._base.output import check_writable, refuse_inputs
from headrace._base.stored import MOST_FEATURES
from headrace._base.warn import FREQUENT, silent
from headrace._cli import bounds, screen
from headrace._cli.commands import Density, _check_output, _columns, _open, _whole
from headrace._cli.flow_options import DEFAULT, FIT, FLOWS, OPTIONS, Kind
from headrace._cli.screen import INTERRUPTED, OK, counted, duration, note, refuse_options, say, usage
from headrace._cli.writing import DOUBLE, SINGLE, labelled, write_table
from headrace._fit.clock import Clock
from headrace._fit.gaussian import gaussian_log_prob
from headrace._fit.given_rows import check_finite
from headrace._fit.high_effort import with_effort
from headrace._tables.arguments import Treatment
from headrace._tables.density import Columns
from headrace._tables.mixed_fit import can_gate, fit_table
from headrace._tables.preparing import ON_THE_COMMAND_LINE, Prepared, prepared, present
from headrace._tables.table import Table, ends_of
from headrace.rows import _files as tables
from headrace.rows._columns import select
from headrace.rows._files import STANDARD
from headrace.rows._joined import Columns as ColumnStream
from headrace.rows._source import TEXT, Source
from headrace.rows._stream import Block
from headrace.rows._waves import SUFFIX

SECONDS = 60.0  # default time of --auto
JUDGES = 1 << 16  # the most rows of a long table that --auto and the Gaussian use
VALIDATION = 0.1  # the share of the rows that is held out
APART = 0x61706172  # a key of generators, for the choice of rows for --held-out


def fit(arguments: Namespace) -> int:
    """Fit a flow to a table, print the held-out likelihoods of flow and Gaussian, and save the flow."""
    with _nothing_saved(arguments.output):
        fitted = _fitted(arguments)
    _save(arguments.output, fitted.flow, fitted.notes)
    if fitted.apart is not None:
        fitted.apart.write(arguments.held_out)
    if fitted.members is not None:
        _save(arguments.keep, fitted.members, fitted.notes)
    return fitted.report()


@dataclass(frozen=True)
class _Fitted:
    """A fitted flow that is not saved yet."""

    flow: Density
    notes: dict[str, str]
    report: Callable[[], int]
    """A function that prints the outcome, and returns the exit code."""
    members: Density | None = None
    """The mixture that the flow has learnt, which --keep saves."""
    apart: Apart | None = None


@dataclass(frozen=True)
class Apart:
    """Rows in their original form: those that the fit does not use, not even for choices, and the remaining rows."""

    held: Block
    rest: Block | None
    """The remaining rows; None if the table exceeds the buffer."""
    columns: tuple[list[Any], ...]
    """Names, or indices, of features, context and weights."""
    labels: dict[int, tuple[str, ...]]
    """Labels of features of text."""

    def write(self, path: str) -> None:
        """Write the rows that the fit does not use to a table."""
        parts = [part if part.ndim == 2 else part[:, None] for part in self.held.arrays() if part is not None]
        names = [str(name) for part in self.columns for name in part if isinstance(name, str)]
        values = np.concatenate(parts, axis=1)
        digits = [None if i in self.labels else _digits(column) for i, column in enumerate(values.T)]
        kinds = ["float" if count else "category" for count in digits]
        write_table(path, labelled(values, self.labels), names, digits=digits, kinds=kinds)


def _digits(column: NDArray[Any]) -> int:
    """The number of digits to write: 15 if 15 restore all float64 values, as for values from text; else 9 or 17."""
    short = column.dtype == np.float64 and all(float(f"{value:.15g}") == value for value in column.tolist())
    return 15 if short else SINGLE if column.dtype == np.float32 else DOUBLE


@contextmanager
def _nothing_saved(output: str) -> Iterator[None]:
    """Make Ctrl-C inside the block report that the output is unchanged."""
    try:
        yield
    except KeyboardInterrupt:
        more = f"; {output} is as it was" if output != STANDARD and os.path.exists(output) else ""
        raise KeyboardInterrupt(f"no weights better than fresh ones yet, nothing was saved{more}") from None


def _fitted(arguments: Namespace) -> _Fitted:
    """Fit the flow for the table; returns it with the notes of its file and a function that reports the outcome."""
    if arguments.auto:  # --auto chooses or ignores the options below
        refused = {"flow", "validation", "ensemble", "set", *OPTIONS} - {"time_budget", "effort"}
        refuse_options(arguments, sorted(refused), "--auto does not take it, as it tries flows of its own")
    arguments.flow = arguments.flow or DEFAULT
    if arguments.flow not in FLOWS:
        expected = f"{arguments.flow} is of signals: expected {SUFFIX} files with it, got tables"
        usage(arguments, f"argument --flow: {expected}")
    if arguments.validation is None:
        arguments.validation = 0.0 if arguments.auto else VALIDATION  # --auto holds rows out itself
    kind = FLOWS[arguments.flow]
    options = _options(arguments, kind)
    if arguments.keep is not None and options.get("effort") != "high":
        usage(arguments, "argument --keep: expected --effort high with it, which alone fits several flows for one")
    if arguments.keep == STANDARD:
        usage(arguments, f"argument --keep: expected a file, got {STANDARD}, the standard output")
    inputs = tables.files_of(arguments.data, name="DATA")
    _check_files(arguments, options, inputs)
    source = _open(arguments)
    if _takes_classes(arguments, kind):
        every = range(source.n_columns)
        chosen = every if arguments.columns is None else select(source, "--columns", arguments.columns)
        source.learn_labels([i for i in chosen if source.kinds[i] == TEXT])
    columns = _columns(source, arguments, weights=arguments.weights)
    source.labels = {i: labels for i, labels in source.labels.items() if i in columns[0]}
    for part, what in zip(columns, ("features", "context"), strict=False):
        if len(part) > MOST_FEATURES:
            raise ValueError(f"{source.path}: expected at most {MOST_FEATURES} columns of {what}, got {len(part)}")
    ready = _given(arguments, kind, source, columns, options)
    if columns[1]:
        options["context"] = len(columns[1])
        if not kind.takes_context:
            usage(arguments, f"argument --context: --flow {arguments.flow} does not take it")
    called = source.names
    names, context_names = (None if called is None else tuple(called[i] for i in part) for part in columns[:2])
    some_left = arguments.columns is None and sum(map(len, columns)) < source.n_columns
    taken = (tuple(columns[0]), source.n_columns) if names is None and some_left else None
    used = Columns(ready.table, names, context_names, ready.some.x.dtype.name, taken=taken)
    if arguments.auto:
        return _searched(arguments, options, ready, used)
    kept = Names(used.kept_names, used.context_names or None)
    flow, outcome, members = (_ascend if kind.model else _train)(kind, arguments, options, ready, kept)
    return _Fitted(flow, used.notes(), partial(_report, arguments, flow, ready, outcome), members, ready.apart)


def _check_files(arguments: Namespace, options: dict[str, Any], inputs: Sequence[str]) -> None:
    """Raise, before any work, the errors that would prevent the output or the checkpoint."""
    _check_output(arguments, *inputs)
    kept = {"--checkpoint": options.get("checkpoint"), "--keep": arguments.keep, "--held-out": arguments.held_out}
    for option, path in kept.items():
        if path is not None:
            refuse_inputs(option, path, [other for other in (*inputs, arguments.output) if other != STANDARD])
            if os.path.realpath(path) == os.path.realpath(arguments.output):
                raise ValueError(f"{option}: expected another file than the --output, got {path}")
            check_writable(option, path)


def _save(output: str, flow: Any, notes: dict[str, str]) -> None:
    """Write a flow and its notes to a file, or to the standard output."""
    if output == STANDARD:
        sys.stdout.buffer.write(hr.to_bytes(flow, notes))
        sys.stdout.buffer.flush()
    else:
        files.save(flow, output, notes)


def _options(arguments: Namespace, kind: Kind) -> dict[str, Any]:
    """The values of options for flow and fit; an option that the flow does not take ends the command with an error."""
    named = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    try:
        options = kind.read(arguments.flow, named, arguments.set)
    except (TypeError, ValueError) as error:
        usage(arguments, f"argument {error}")
    options |= with_effort(options.get("effort"), kind.takes.keys() - options.keys())
    if arguments.ensemble is not None and kind.model is not None:
        usage(arguments, f"argument --ensemble: --flow {arguments.flow} does not take it")
    return options


def _report(arguments: Namespace, flow: Density, ready: _Given, outcome: dict[str, Any]) -> int:
    """Print the outcome of a fit, with the likelihood of a Gaussian, and return the exit code."""
    judged = ready.some if ready.held_out is None else ready.held_out
    reached = _mean(judged, flow.log_prob(judged.x, judged.context))
    gaussian = _gaussian(flow, ready.some, judged)
    report = {"file": arguments.output, "flow": arguments.flow, "features": flow.features, "context": flow.context}
    report |= {"training_rows": ready.rows, "held_out_rows": 0 if ready.held_out is None else len(ready.held_out)}
    report |= {"log_likelihood": reached, "gaussian_log_likelihood": gaussian, **outcome, "seed": arguments.seed}
    where = f"of {counted(len(judged), 'row')} {'to fit' if ready.held_out is None else 'held out'}"
    beside = "" if isinstance(flow, hr.MixedDensity) else f"   Gaussian {gaussian:.4f}"
    likelihood = f"mean log-likelihood {where}, nats a row: {arguments.flow} {reached:.4f}{beside}"
    return ended(arguments, report, [likelihood, f"{_work(outcome)}; saved to {arguments.output}"])


def ended(arguments: Namespace, report: dict[str, Any], blocks: Sequence[Paragraph]) -> int:
    """Print the outcome of a fit, or of the search of --auto, and return the exit code."""
    say(arguments, report, blocks)
    if report.get("stopped") == "interrupted":
        screen.tell("headrace: interrupted: the best weights so far were saved")
        return INTERRUPTED
    return INTERRUPTED if report.get("interrupted") else OK


# ---- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Given:
    """The data of a fit."""

    train: Any
    """Rows to fit; a stream if the table exceeds the buffer."""
    held_out: Block | None
    some: Block
    """Rows to fit that are in memory: all of them, or a sample."""
    rows: int
    """The number of rows to fit."""
    table: Table
    """The preprocessing of the table's columns."""
    apart: Apart | None = None

    def to_fit(self) -> dict[str, Any]:
        """The rows as keywords of `fit`: x, context, weights and validation."""
        parts = self.train.arrays() if isinstance(self.train, Block) else (self.train, None, None)
        validation = None if self.held_out is None else self.held_out.arrays()
        return dict(zip(("x", "context", "weights"), parts, strict=True)) | {"validation": validation}


def _given(
    arguments: Namespace, kind: Kind, source: Source, columns: list[list[int]], options: dict[str, Any]
) -> _Given:
    """Checked rows to fit and to hold out. Unused columns are removed from `columns`, and bounds added to `options`."""
    how = _treatment(arguments, source, columns)
    stream = ColumnStream(source, columns, arguments.buffer, source.path)
    source.missing = True
    whole = _whole(arguments, stream)
    if whole is None and source.labels:  # because columns of a stream cannot have classes
        columns[0] = [i for i in columns[0] if i not in source.labels] or columns[0]
        source.labels, how = {}, _treatment(arguments, source, columns)
        stream = ColumnStream(source, columns, arguments.buffer, source.path)
    source.missing = how.missing != "refuse"
    if how.categories is not None and not (arguments.auto or "periodic" in options or how.periodic):
        how = replace(how, gates=can_gate(_made(kind, arguments, options, Names(), [0, 1], 0)))
    if whole is not None:
        _check_others(source, columns, present(whole, how))
    kinds = ["float" if source.kinds[i] == TEXT else source.kinds[i] for i in columns[0]]
    ready = prepared(stream if whole is None else whole, kinds, how, not arguments.quiet)
    if ready.missing:
        total = (len(ready.rows) if isinstance(ready.rows, Block) else ready.rows.count()) + ready.missing
        note(arguments, f"{source.path}: {ready.missing:,} of {total:,} rows miss a number and are left out")
    columns[0] = [columns[0][i] for i in ready.table.places]
    options |= {name: ends for name in ("bounds", "periodic") if (ends := getattr(ready, name)) is not None}
    apart = None
    if arguments.held_out is not None:
        ready, apart = _set_apart(ready, source, columns, arguments.seed)
    table, rows = ready.table.used(), ready.rows
    if isinstance(rows, Block):
        # Noise is added before rows are held out, so that a diagnosis with the same table adds the same noise to each
        # row.
        train, held_out = _split(_taking_part(rows), arguments.validation, arguments.seed)
        return _Given(train, held_out, train, len(train), table, apart)
    rest, held = rows.split(arguments.validation, arguments.seed)
    some = _taking_part(rest.some(arguments.seed, JUDGES))
    return _Given(rest, None if held is None else _taking_part(held), some, rest.count(), table, apart)


def _set_apart(ready: Prepared, source: Source, columns: list[list[int]], seed: int) -> tuple[Prepared, Apart]:
    """The rows without a random tenth, and the tenth in its original form, both without columns that are left out."""
    if len(ready.rows) < 2 if isinstance(ready.rows, Block) else ready.rows.count() < 2:
        raise ValueError(f"--held-out: expected at least two rows, got one in {source.path}")
    called = tuple([i if source.names is None else source.names[i] for i in part] for part in columns)
    places = list(ready.table.places)
    labels = {k: source.labels[i] for k, i in enumerate(columns[0]) if i in source.labels}
    if isinstance(ready.rows, Block):
        order = np.random.default_rng([seed, APART]).permutation(len(ready.rows))
        out, rest = map(np.sort, np.split(order, [max(round(VALIDATION * len(order)), 1)]))
        held, seen = (replace(part, x=part.x[:, places]) for part in (ready.given.take(out), ready.given.take(rest)))
        ready = replace(ready, rows=ready.rows.take(rest), given=ready.given.take(rest))
        return ready, Apart(held, seen, called, labels)
    rest, _ = ready.rows.split(VALIDATION, seed + APART)
    _, held = ready.given.split(VALIDATION, seed + APART)
    return replace(ready, rows=rest), Apart(replace(held, x=held.x[:, places]), None, called, labels)


def _treatment(arguments: Namespace, source: Source, columns: list[list[int]]) -> Treatment:
    """The treatment of columns, from the options for tables."""
    features, discrete = columns[0], arguments.discrete
    ends, periods = bounds.read(source, features, arguments.bounds, arguments.periodic)
    chosen = {column for part in columns for column in part}
    unread = [] if arguments.columns else [i for i in range(source.n_columns) if i not in chosen]
    whole = "auto" if discrete is None else None
    asked, has_own = arguments.categories, source.labels or arguments.missing == "model"
    categories: Any = "auto" if asked == "auto" or (asked is None and has_own) else None
    if asked not in (None, "auto", "none"):
        categories = bounds.places(source, features, "--categories", asked)
    return Treatment(
        whole if discrete in (None, "none") else bounds.places(source, features, "--discrete", discrete),
        bounds.widths(source, features, arguments.spread),
        arguments.missing or "refuse",
        ends or None,
        periods or None,
        None if source.names is None else [source.names[i] for i in features],
        arguments.seed,
        [source.label(i) for i in unread],
        keep=arguments.columns is not None,
        x_name=source.path,
        dashes="--",
        categories=categories,
        gates=False,
        labels={i: source.labels[column] for i, column in enumerate(features) if column in source.labels},
    )


def _takes_classes(arguments: Namespace, kind: Kind) -> bool:
    """Whether columns may have a probability for each value; exits if options contradict each other."""
    fits = {"--keep": arguments.auto or arguments.keep is None, f"--flow {arguments.flow}": not kind.model}
    asked = {"categories": arguments.categories not in (None, "none"), "missing": arguments.missing == "model"}
    option = next((option for option, does in fits.items() if not does), None)
    refusing = {"categories": option, "missing": "--auto" if arguments.auto else option}
    for name, by in refusing.items():
        if by and asked[name]:
            usage(arguments, f"argument --{name}: {by} does not take {getattr(arguments, name)}")
    return option is None and arguments.categories != "none"


def _check_others(source: Source, columns: list[list[int]], rows: Block) -> None:
    """Raise ValueError for context or weights that a fit cannot use, and name the column in the table."""
    if rows.context is not None:
        check_finite(source.path, rows.context, tuple(map(source.label, columns[1])), ON_THE_COMMAND_LINE)
    if rows.weights is not None:
        row_weights(f"{source.path}: {source.label(columns[2][0])}", rows.weights, len(rows), Caller())


def _taking_part(block: Block) -> Block:
    """The rows with a weight above 0, or all rows if no weight is above 0."""
    return block if block.weights is None or not block.weights.any() else block.take(block.weights > 0)


def _split(block: Block, share: float, seed: int) -> tuple[Block, Block | None]:
    """Rows to fit and rows held out, chosen before the fit, so that the Gaussian is fitted to the same rows as the
    flow.
    """
    order = np.random.default_rng(seed).permutation(len(block))
    held = held_of("--validation", share, len(block))
    return (block.take(np.sort(order[held:])), block.take(np.sort(order[:held]))) if held else (block, None)


def _mean(rows: Block, log_prob: NDArray[Any]) -> float:
    """The weighted mean of log densities."""
    return float(np.average(log_prob.astype(np.float64), weights=rows.weights))


# ---- the fit ---------------------------------------------------------------------------------------------------------


def _gaussian(flow: Density, train: Block, judged: Block) -> float:
    """The mean log-likelihood of a Gaussian; NaN for a flow with classes, because probabilities are no densities."""
    pair = None if train.context is None or judged.context is None else (train.context, judged.context)
    with suppress(np.linalg.LinAlgError):  # no Gaussian can be fitted to training rows in a plane
        if not isinstance(flow, hr.MixedDensity):
            return _mean(judged, gaussian_log_prob(train.x, judged.x, weights=train.weights, context=pair))
    return math.nan


@silent(FREQUENT)  # because the warning about the table mentions the options
def _train(
    kind: Kind, arguments: Namespace, options: dict[str, Any], ready: _Given, names: Names
) -> tuple[Density, dict[str, Any], hr.Ensemble | None]:
    """A flow or an ensemble fitted by `Flow.fit`, entries of the report, and the flows from which the flow learnt."""
    of_fit = {name: options[name] for name in FIT if name in options} | {"progress": not arguments.quiet}
    of_fit |= {} if arguments.keep is None else {"keep": True}
    begin, columns = time.perf_counter(), [ready.table.columns[i] for i in ready.table.kept]
    make, validation = partial(_made, kind, arguments, options, names), ready.to_fit()["validation"]
    flow, fitted = fit_table(ready.train, columns, make, arguments.seed, validation=validation, **of_fit)
    if isinstance(flow, hr.MixedDensity):
        flow._names = names
    histories = fitted if isinstance(fitted, list) else [fitted]
    _refuse_failed(histories)
    if arguments.ensemble is None:
        outcome = _outcome(histories[0])
        if histories[0].chosen:  # because the history has the time of only one of several fits
            outcome["seconds"] = time.perf_counter() - begin
        return flow, outcome, histories[0].members
    each = [_outcome(history) for history in histories]
    total: dict[str, Any] = {key: sum(fit[key] for fit in each) for key in ("epochs", "seconds")}
    is_whole = len(each) == arguments.ensemble or not isinstance(fitted, list)  # a single fit if no column is numeric
    stopped = each[-1]["stopped"] if is_whole else "interrupted"
    total |= {"best_epoch": [fit["best_epoch"] for fit in each], "stopped": stopped}
    total["still_falls"] = any(fit["still_falls"] for fit in each)
    return flow, {"members": len(each), **total}, None


def _made(
    kind: Kind, arguments: Namespace, options: dict[str, Any], names: Names, columns: list[int], contexts: int
) -> Any:
    """A fresh flow, or an ensemble of fresh flows, for the columns with the indices `columns`."""
    keywords = {name: value for name, value in options.items() if name not in (*FIT, "context")}
    for name in ("bounds", "periodic"):
        if (ends := ends_of(keywords.pop(name, None), columns)) is not None:
            keywords[name] = ends
    keywords |= {"context": contexts} if contexts else {}
    seeds = range(arguments.seed, arguments.seed + (arguments.ensemble or 1))
    members = [kind.make(len(columns), seed=seed, dtype=arguments.dtype, **keywords) for seed in seeds]
    of_context = names.context if len(names.context or ()) == contexts else None
    for member in members:
        member._interior.name(Names(names.of_columns(columns).features, of_context))
    return members[0] if arguments.ensemble is None else hr.Ensemble(members)


def _refuse_failed(histories: Sequence[hr.training.History]) -> None:
    if any(history.stopped == "non-finite" and history.best_epoch == 0 for history in histories):
        raise RuntimeError("the fit went wrong in its first epoch and nothing was saved; try a smaller --learning-rate")


def _searched(arguments: Namespace, options: dict[str, Any], ready: _Given, columns: Columns) -> _Fitted:
    """The best of the flows that --auto tries within the time budget."""
    from headrace.choosing import run
    from headrace.choosing.result import SIMPLE
    from headrace.choosing.sample import Sample

    looked_at = len(ready.some)
    if looked_at < ready.rows:
        note(arguments, f"--auto looks at {looked_at:,} of {ready.rows:,} rows, drawn evenly from all")
    choice = run.of_treated(
        Sample(ready.some.x, ready.some.context, ready.some.weights),
        columns,
        Clock(options.get("time_budget", SECONDS)),
        bounds=options.get("bounds"),
        periodic=options.get("periodic"),
        dtype=arguments.dtype,
        effort=options.get("effort", "normal"),
        keep=arguments.keep is not None,
        seed=arguments.seed,
        progress=not arguments.quiet,
    )
    tried = (entry for entry in choice.table if entry.name not in SIMPLE)
    if choice.interrupted and all(math.isnan(entry.log_likelihood) for entry in tried):
        raise KeyboardInterrupt  # the result would be a Gaussian, which must not replace a flow's file
    report = {"file": arguments.output, "features": choice.flow.features, "context": choice.flow.context}
    report |= {**choice.summary(), "rows": ready.rows, "rows_looked_at": looked_at}
    blocks = choice.blocks("headrace diagnose FLOW DATA looks at it with rows that it has not seen")
    tell = partial(ended, arguments, report, [*blocks, "", f"saved to {arguments.output}"])
    return _Fitted(choice.flow, columns.notes(), tell, choice.members, ready.apart)


def _ascend(
    kind: Kind, arguments: Namespace, options: dict[str, Any], ready: _Given, names: Names
) -> tuple[hr.Flow, dict[str, Any], None]:
    """A flow fitted by `DualAscentFlow.fit`, entries of the report, and None, because the flow has no members."""
    model: Any = kind.model and kind.model(seed=arguments.seed, dtype=arguments.dtype, **options)
    flow = model.fit(**ready.to_fit(), progress=not arguments.quiet)
    flow._interior.name(names)
    history = model.history
    report = _outcome(history.refinement or hr.training.History())
    report["seconds"] += history.seconds[-1] if history.seconds else 0.0
    if history.refinement is None or history.stopped == "interrupted":
        report["stopped"] = history.stopped
    steps = {"steps": max(len(history.log_likelihood) - 1, 0), "best_step": history.best_step}
    return flow, {**steps, **report}, None


def _outcome(history: hr.training.History) -> dict[str, Any]:
    outcome = {name: getattr(history, name) for name in ("best_epoch", "stopped", "still_falls")}
    outcome |= {"epochs": history.passes, "seconds": history.duration}
    return outcome | ({"chosen": history.chosen} if history.chosen else {})


def _work(outcome: dict[str, Any]) -> str:
    """A description of the fit's work: epochs, time and best weights."""
    time_taken, best = duration(outcome["seconds"]), outcome["best_epoch"]
    if "steps" in outcome:
        steps = f"{counted(outcome['steps'], 'step')}, the best was {outcome['best_step']}"
        return f"{steps}, and {counted(outcome['epochs'], 'epoch')} in {time_taken}"
    falls = ", and held-out rows still gained: more epochs may gain more" if outcome["still_falls"] else ""
    epochs = f"{counted(outcome['epochs'], 'epoch')} in {time_taken}"
    if "members" in outcome:
        return f"{counted(outcome['members'], 'member')}, {epochs}{falls}"
    best_weights = "none better than fresh weights" if best == 0 else f"the best was {best}"
    ended_as = f"; it is {outcome['chosen']}" if outcome.get("chosen") else ""
    return f"{epochs}, {best_weights}{ended_as}{falls}"
