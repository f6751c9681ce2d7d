"""``headrace score``, ``headrace sample`` and ``headrace export``, the commands that use a flow in a file."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from headrace._base import progress as _progress
from headrace._base.output import refuse_inputs
from headrace._cli import screen, signals, writing
from headrace._cli.commands import _check_output, _columns_for, _load, _load_any, _of_rows
from headrace._cli.kept_scores import Folder, Kept, Scores, Watch, digest, is_folder, mark
from headrace._cli.screen import INTERRUPTED, OK, counted, note, refuse_options, say, usage
from headrace._tables.density import TableDensity
from headrace.rows import _files as tables
from headrace.rows._files import STANDARD
from headrace.rows._source import Source
from headrace.rows._waves import SUFFIX

VERBS = ("log_prob", "to_latent", "to_data")  # the values of the argument `verb` of `Flow.to_onnx`


def score(arguments: Namespace) -> int:
    """Write the log density of each row, to one output, or to a folder with a file for each table."""
    waves, to_folder = signals.found(arguments), is_folder(arguments.output)
    files = tables.files_of(arguments.data, name="DATA") if waves is None else waves
    if arguments.flow == STANDARD and STANDARD in files:
        usage(arguments, "arguments FLOW, DATA: the standard input can be one of them, got both")
    if arguments.format is not None and not to_folder:
        usage(arguments, "argument --format: give a folder as --output, because the name of a file has its format")
    if not to_folder:
        _check_output(arguments, arguments.flow, *files)
    if waves is not None:
        return signals.score(arguments, waves, to_folder)
    if to_folder:
        return _score_to_folder(arguments, files)
    density = _load(arguments.flow)
    made = _Made(density, *_columns_for(density, arguments), Scores())
    if arguments.output:
        return _score_to_file(arguments, made, files)
    with Watch(patience=1) as watch:
        # There is no bar if scores are printed on a terminal, because the bar would appear between them.
        with_bar = not arguments.quiet and (arguments.json or not sys.stdout.isatty())
        for part in made.watched(made.counted(watch.until(made.densities())), 0, with_bar):
            if not arguments.json:
                writing.write_table(None, part)
    if watch.stopped:
        if not made.scores.rows:
            raise KeyboardInterrupt
        notice = f"these are of the first {counted(made.scores.rows, 'row')}; with -o FILE the same command goes on"
        screen.tell(f"headrace: interrupted: {notice}")
    _print_scores(arguments, made.scores, {"interrupted": watch.stopped}, "")
    return INTERRUPTED if watch.stopped else OK


def _score_to_file(arguments: Namespace, made: _Made, files: Sequence[str]) -> int:
    """Write scores to one file; after Ctrl-C the scores of the finished rows are kept in another file beside it."""
    output = os.path.realpath(arguments.output) if os.path.islink(arguments.output) else arguments.output
    content = getattr(made.source, "content", None)  # the bytes read from the standard input, if any
    marks = [digest(content)] if isinstance(content, bytes) else [mark(file) for file in files]
    kept = Kept(output, {**_inputs(arguments, made.density), "tables": marks})
    inputs = [path for path in (arguments.flow, *files) if path != STANDARD]
    for path in (kept.path, kept.record):
        refuse_inputs("--output", path, inputs)
    kept.open()
    if kept.rows:
        note(arguments, f"going on after {counted(kept.rows, 'row')}, whose scores are in {kept.path}")
    columns = _columns_of(made.density)

    def parts() -> Iterator[NDArray[Any]]:
        yield from kept.parts(len(columns), made.density.flow.dtype)
        yield from made.watched(made.densities(kept.rows), kept.rows, not arguments.quiet)

    def instead() -> str | None:
        """After Ctrl-C the name of the file for kept scores, else None; raises KeyboardInterrupt without new scores."""
        if watch.stopped and made.scores.rows <= kept.rows:
            raise KeyboardInterrupt
        return os.path.basename(kept.path) if watch.stopped else None

    with Watch(patience=2) as watch:
        writing.write_parts(arguments.output, columns, made.counted(watch.until(parts(), least=1)), instead)
        if watch.stopped:
            kept.note(made.scores.rows)
        else:
            kept.remove()
    place = kept.path if watch.stopped else arguments.output
    _print_scores(arguments, made.scores, {"file": place, "interrupted": watch.stopped}, "")
    if watch.stopped:
        done = counted(made.scores.rows, "row")
        notice = f"the scores of the first {done} are kept in {kept.path}; the same command goes on from there"
        screen.tell(f"headrace: interrupted: {notice}")
    return INTERRUPTED if watch.stopped else OK


def _inputs(arguments: Namespace, density: TableDensity) -> dict[str, Any]:
    """The inputs other than tables on which scores depend, by name."""
    table = {name: note for name, note in density.columns.notes().items() if name == "table"}
    inputs = {"flow": digest(hr.to_bytes(density.flow, table))}
    inputs |= {"--columns": str(arguments.columns), "--context": str(arguments.context)}
    for option in ("array", "delimiter", "header"):
        if (value := getattr(arguments, option)) not in (None, "auto"):
            inputs[f"--{option}"] = str(value)
    return inputs


def _score_to_folder(arguments: Namespace, files: Sequence[str]) -> int:
    """Write a file of scores for each table; existing files of scores of the same flow are kept."""
    if STANDARD in files:
        usage(arguments, "argument --output: give a file, as a table from the standard input has no name")
    folder = Folder(arguments.output, files, arguments.format)
    density = _load(arguments.flow)
    inputs = _inputs(arguments, density)
    _columns_for(density, arguments, data=files[0])  # raises an error for unsuitable options before the folder is made
    folder.open(inputs)
    remaining, scores = folder.left(), Scores()
    done = len(files) - len(remaining)
    if done:
        note(arguments, f"{counted(done, 'table')} of {len(files):,} had scores already")
    with _progress.bar(len(files), "score", "table", not arguments.quiet and len(remaining) > 1) as shown:
        for file in files:
            if file in remaining:
                made = _Made(density, *_columns_for(density, arguments, data=file), scores)
                folder.write(file, _columns_of(density), made.counted(made.densities()))
            else:
                for log_prob in folder.written(file, density.flow.dtype):
                    scores.add(log_prob)
            shown.update()
    report = {"tables": len(files), "tables_done_before": done}
    _print_scores(arguments, scores, report, f" in {counted(len(files), 'table')}")
    return OK


def _columns_of(density: TableDensity) -> list[str]:
    """The names of the columns of scores: for an ensemble the second column is the spread of its members."""
    return ["log_prob", *["spread"] * density.has_members]


@dataclass(frozen=True)
class _Made:
    """Log densities of a table's rows, in blocks, so that the table may be larger than the memory."""

    density: TableDensity
    source: Source
    columns: Any
    scores: Scores
    """Statistics of the log densities."""

    def densities(self, skipped: int = 0) -> Iterator[NDArray[Any]]:
        """Yield the log densities of all rows but the first `skipped` rows, which are read, but not yielded."""
        flow, at = self.density.flow, 0
        for block in self.source.blocks([*self.columns[0], *self.columns[1]]):
            first, at = max(skipped - at, 0), at + len(block)
            if first and first >= len(block):
                continue
            x, context = np.split(block, [len(self.columns[0])], axis=1)
            parts = (x, context if flow.context else None)
            scores = self.density.scores(*parts, x_name=self.source.path).astype(flow.dtype)
            if self.density.has_members:
                scores = np.stack([scores, self.density.spread(*parts)], axis=1)
            yield scores[first:]

    def counted(self, parts: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Yield the parts unchanged, after adding each of them to the statistics."""
        for part in parts:
            self.scores.add(part if part.ndim == 1 else part[:, 0])
            yield part

    def watched(self, parts: Iterable[NDArray[Any]], done: int, progress: bool) -> Iterator[NDArray[Any]]:
        """Yield the parts unchanged, with a progress bar of rows, which is cleared because statistics follow."""
        sizes = self.source.pieces()
        total = None if any(size is None for size in sizes) else sum(size for size in sizes if size is not None)
        with _progress.bar(total, "score", "row", progress, unit_scale=True, leave=False, initial=done) as shown:
            for part in parts:
                yield part
                shown.update(len(part))


def _print_scores(arguments: Namespace, scores: Scores, entries: dict[str, Any], where: str) -> None:
    report = {**scores.report(), "file": arguments.output, **entries}
    mean = f"mean log density {report['log_likelihood']:.4f} ± {report['standard_error']:.4f} nats"
    summary = f"{mean}, from {report['least']:.4f} to {report['most']:.4f}"
    if not scores.finite:
        summary = "none has a log density that is finite" if scores.rows else "there is nothing to score"
    elif report["not_finite"]:
        summary += f"; left out, because their log density is not finite: {report['not_finite']:,}"
    say(arguments, report, [f"{counted(scores.rows, 'row')}{where}: {summary}"], apart=True)


def sample(arguments: Namespace) -> int:
    """Draw rows, or a signal."""
    if arguments.rows is None and arguments.steps is None and arguments.seconds is None:
        usage(arguments, "the following arguments are required: -n/--rows, or for signals --steps or --seconds")
    _check_output(arguments, arguments.flow)
    if arguments.first_row is not None and arguments.seed is None:
        usage(arguments, "argument --first-row: give --seed as well, or these rows belong to no other part")
    if arguments.json and not arguments.output:
        usage(arguments, "argument --json: give --output as well, as the rows are not part of the JSON object")
    loaded, notes = _load_any(arguments.flow)
    if isinstance(loaded, hr.SequenceFlow):
        return signals.sample(arguments, loaded, notes)
    density = _of_rows(arguments.flow, loaded, notes)
    flow, why = density.flow, f"expected a flow of signals with it, got {arguments.flow} of rows"
    refuse_options(arguments, ("steps", "seconds", "prefix", "covariates"), why)
    if arguments.output and tables.suffix_of(arguments.output) == SUFFIX:
        written = ", ".join(writing.WRITTEN)
        usage(arguments, f"argument --output: expected {written} for rows, got {arguments.output}")
    numbers = arguments.context or []
    if len(numbers) != flow.context:
        wanted = counted(flow.context, "number") if flow.context else "none"
        raise ValueError(f"--context: expected {wanted}, as {arguments.flow} needs, got {len(numbers)}")
    seed = int.from_bytes(os.urandom(4), "little") if arguments.seed is None else arguments.seed
    conditions, columns = np.array(numbers) if numbers else None, density.columns
    x = density.sample(arguments.rows, conditions, seed=seed, first_row=arguments.first_row)
    kinds = [column.kind for column in columns.used.columns]
    digits = writing.digits_of_samples(density) if x.dtype == np.float64 or "category" in kinds else None
    x = writing.labelled(x, {i: column.labels for i, column in enumerate(columns.used.columns) if column.labels})
    writing.write_table(arguments.output, x, columns.used_names, kinds=kinds, digits=digits)
    if arguments.output or arguments.seed is None:
        report = {"file": arguments.output, "rows": arguments.rows, "features": flow.features, "seed": seed}
        saved = f"{counted(arguments.rows, 'row')}, seed {seed}, saved to {arguments.output}"
        say(arguments, report, [saved if arguments.output else f"seed {seed}"], apart=True)
    return OK


def export(arguments: Namespace) -> int:
    """Write a flow as an ONNX graph."""
    _check_output(arguments, arguments.flow)
    flow = _load(arguments.flow).flow
    if not isinstance(flow, hr.Flow):
        flow.to_onnx(arguments.output)  # refuses
    flow.to_onnx(arguments.output, arguments.verb)
    sizes = {"features": flow.features, "context": flow.context, "bytes": os.path.getsize(arguments.output)}
    report = {"file": arguments.output, "verb": arguments.verb, **sizes}
    say(arguments, report, [f"{arguments.verb} of {flow.features} features saved to {arguments.output}"])
    return OK
