"""The commands of the command line and their options, in the order in which help lists them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import headrace as hr
from headrace._cli import about, bench, demo, diagnose, fitting, report, run, signals, writing
from headrace._cli import flow_options as offered
from headrace._cli import score_and_sample as use
from headrace._cli.kept_scores import is_folder
from headrace._cli.parser import Parser, delimiter, file, integer, number, or_folder, rate, share
from headrace._tables.table import MISSING
from headrace.rows import _files as tables
from headrace.rows._text import HEADERS
from headrace.rows._waves import SUFFIX as WAVE

FLOW = "a file of a fitted flow; - for the standard input"
BRIEF = (
    *("output", "flow", "auto", "time_budget", "effort", "ensemble", "columns", "context", "weights", "bounds"),
    *("discrete", "missing", "epochs", "transforms", "hidden", "checkpoint", "seed", "set"),
)
"""The options of `headrace fit --help`."""
_FLAGS = ("residual", "refine", "companded", "level", "coupling")
_SETTINGS = (
    *("activation", "last-activation", "matmul", "dropout", "slope", "link", "map", "scale", "bound", "nonlinearity"),
    *("negative-slope", "precision", "steps", "rule", "kinks", "neighbours", "directions", "rotations", "bandwidth"),
    *("rate", "copies", "jitter", "channels", "skip", "kernel", "layers", "dilations", "prediction", "patience"),
    *("checkpoint-every", "bins"),
)
_FLOWS = {"maf": "MAF", "iaf": "IAF", "realnvp": "RealNVP", "nsf": "NSF", "planar": "PlanarFlow"}
_FLOWS |= {"radial": "RadialFlow", "dual-ascent": "DualAscentFlow", "wavenet": "WaveNet"}
OLD: dict[str, dict[str, str | dict[str, str]]] = {
    "fit": {
        "--seconds": "--time-budget",
        "--flow": _FLOWS,
        **{f"--{name}": f"--set={name}=true" for name in _FLAGS},
        **{f"--no-{name}": f"--set={name}=false" for name in _FLAGS},
        **{f"--{name}": f"--set={name.replace('-', '_')}=" for name in _SETTINGS},
    },
    "sample": {"--context-row": "--context"},
}
"""Former options of the commands, and former values of options, with their successors."""


class _Include(argparse.Action):
    """Print the folder of the C++ header on one line, however long, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(hr.config.include())
        parser.exit()


def parser() -> Parser:
    """The parser of all commands."""
    whole = Parser(
        prog="headrace",
        description="Normalising flows: fit, score and sample densities of tables and signals.",
        epilog="Exit codes: 0; 1 an error, in one line; 2 a wrong command line; 130 Ctrl-C; 141 closed output.",
    )
    whole.add_argument("--version", action="version", version=f"headrace {hr.__version__}", help="print it and exit")
    whole.add_argument("--include", action=_Include, nargs=0, help="print the folder of headrace.hpp and exit")
    subparsers = whole.add_subparsers(title="commands", required=True, metavar="COMMAND", prog="headrace")
    _add_common(whole, lambda default: default)

    def command(name: str, run: Callable[[argparse.Namespace], int], help: str, epilog: str = "") -> Parser:
        sub: Parser = subparsers.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=epilog)
        sub.set_defaults(run=run, usage=sub.error, refuse=sub.refuse)
        sub.old = OLD.get(name, {})
        return sub

    sub = command("info", about.info, "print version, instruction set, threads, CUDA or why not; or facts about a flow")
    sub.add_argument("flow", metavar="FLOW", nargs="?", help=f"{FLOW}; by default none")
    _add_fit(command)
    _add_report(command)
    _add_score(command)
    _add_diagnose(command)
    _add_sample(command)
    sub = command("export", use.export, "write a flow as a graph of ONNX, for other runtimes")
    sub.add_argument("flow", metavar="FLOW", help=FLOW)
    _add(sub, "-o --output", "GRAPH", "as flow.onnx", type=file([".onnx"]), required=True)
    verbs = f"what the graph computes: {', '.join(use.VERBS)} (default: log_prob)"
    _add(sub, "--verb", "VERB", verbs, choices=use.VERBS, default="log_prob")
    sub = command("bench", bench.bench, "time a dozen workloads, beside what this machine can do at most")
    _add(sub, "--quick", None, "a few seconds instead of twenty", action="store_true")
    sub = command("demo", demo.demo, "fit the Hertzsprung-Russell diagram of 60,000 stars, compare and draw it")
    help_text = f"a picture: {', '.join(diagnose.WRITTEN[1:])} (default: {demo.PICTURE})"
    _add(sub, "-o --output", "PICTURE", help_text, type=file(diagnose.WRITTEN[1:]))
    _add(sub, "--epochs", "N", f"of each flow (default: {demo.EPOCHS})", type=integer(1))
    _add(sub, "--seed", "N", "of weights and samples (default: 0)", type=integer(0), default=0)
    sub = command("run", run.run, "run a script whose flows of zuko, sbi, nflows and normflows are accelerated")
    sub.add_argument("script", metavar="SCRIPT", help="a file of Python")
    _add(sub, "arguments", "ARGUMENTS", "of the script; options of run stand before it", nargs=argparse.REMAINDER)
    for sub in subparsers.choices.values():
        _add_common(sub, lambda default: argparse.SUPPRESS)  # keeps the values of options before the command
    return whole


def _add(to: Any, flags: str, form: str | None, help: str, **how: Any) -> None:
    """Add an option; `form`: the placeholder of its value; None if the option takes no value."""
    to.add_argument(*flags.split(), help=help, **how, **({} if form is None else {"metavar": form}))


def _add_common(sub: Parser, default: Callable[[Any], Any]) -> None:
    """Add the options that every command has, and which may also precede the command."""
    group = sub.add_argument_group("every command")
    _add(group, "--json", None, "print one JSON object", action="store_true", default=default(False))
    _add(group, "--threads", "N", "by default all cores", type=integer(1), default=default(None))
    help_text = "no progress and notes on the standard error"
    _add(group, "--quiet", None, help_text, action="store_true", default=default(False))


def _add_fit(command: Callable[..., Parser]) -> None:
    sub = command(
        "fit",
        signals.fit,
        "fit a flow to the rows of a table, or to signals, and save it",
        "Ctrl-C saves the best weights so far, if any are better than fresh ones; the exit code is 130 then. With "
        "--checkpoint the same command goes on from there.",
    )
    kinds = ", ".join(name for name in offered.FLOWS if name != offered.DEFAULT)
    of_signals = ", ".join(offered.SIGNALS)
    _add_data(sub, "tables of the same columns", " folders of these,")
    _add(sub, "-o --output", "FLOW", "the file to write, as flow.safetensors; - for the standard output", required=True)
    help_text = f"{offered.DEFAULT} (default), {kinds}; of signals {of_signals}"
    _add(sub, "--flow", "KIND", help_text, choices=(*offered.FLOWS, *offered.SIGNALS))
    help_text = f"try many kinds and sizes of flows, and save the best; for --time-budget ({fitting.SECONDS:g}) seconds"
    _add(sub, "--auto", None, help_text, action="store_true")
    _add(sub, "--dtype", "DTYPE", "float32 (default) or float64", choices=("float32", "float64"), default="float32")
    _add(sub, "--ensemble", "N", "fit several flows, and save their mixture", type=integer(1))
    help_text = "with --effort high: another file, for the mixture of the flows that the saved one learnt from"
    _add(sub, "--keep", "FILE", help_text)
    help_text = "another file, for a tenth of the rows, which the fit does not see: to diagnose it by"
    _add(sub, "--held-out", "TABLE", help_text, type=file(writing.WRITTEN))
    help_text = "of all that is drawn (default: 0); of fresh weights, of the rows held out and of their order"
    _add(sub, "--seed", "N", help_text, type=integer(0), default=0)
    group = sub.add_argument_group("the columns")
    _add(group, "--weights", "COLUMN", "weights of the rows")
    _add(group, "--bounds", "COLUMN=LOW:HIGH", "ends of features, as age=0:,share=0:1; of channels 0=-0.5:")
    _add(group, "--periodic", "COLUMN=LOW:HIGH", "features that go around, with one period of each: hour=0:24")
    help_text = "whole numbers, as in samples; by default those of such a type in .parquet and .npy; none for none"
    _add(group, "--discrete", "COLUMNS", help_text)
    help_text = (
        "a probability for each value: auto, of text, truth values, counts with spikes and values that many rows share "
        "(default for a table with text); none, which leaves out text; or columns"
    )
    _add(group, "--categories", "COLUMNS", help_text)
    help_text = "noise for values that repeat: auto, as wide as their smallest gap (default), none, or widths"
    _add(group, "--spread", "COLUMN=WIDTH", help_text)
    help_text = "refuse (default) or drop rows that miss a value, or model them: that it is missing has a probability"
    _add(group, "--missing", "HOW", help_text, choices=MISSING)
    _add(group, "--buffer", "ROWS", "rows in memory at most (default: as many as 256 MiB hold)", type=integer(1))
    group = sub.add_argument_group("the fit")
    help_text = f"share of rows to hold out (default: {fitting.VALIDATION}; with --auto none, beside its own)"
    _add(group, "--validation", "SHARE", help_text, type=share)
    for name in offered.OPTIONS:
        _add(group, f"--{name.replace('_', '-')}", offered.placeholder_of(name), offered.help_of(name))
    help_text = "an argument of Python without an option; --help-all lists them"
    _add(group, "--set", "NAME=VALUE", help_text, action="append", default=[])
    sub.shorten(BRIEF, offered.set_groups())


def _add_report(command: Callable[..., Parser]) -> None:
    sub = command(
        "report",
        report.report,
        "fit a flow to a table, judge it by rows set apart, and write a page about it",
        "Identifiers, text of many values and rows that miss a value are left out. Beside the page, stars.html, are "
        "written: the density, stars.safetensors; the rows that judge, stars.held_out.csv; and Python that does the "
        "same, stars.py.",
    )
    sub.set_defaults(parsed=lambda words: parser().parse_args(words))  # a parser for the fit that the report makes
    _add_data(sub, "a table", "", only=", ".join(report.READ))
    _add(sub, "--weights", "COLUMN", "column with weights of the rows")
    _add(sub, "-o --output", "PAGE", "as report.html", type=file([".html"]), required=True)
    help_text = f"seconds that the fit may take (default: {report.SECONDS:g})"
    _add(sub, "--time-budget", "S", help_text, type=rate, default=report.SECONDS)
    _add(sub, "--seed", "N", "of the fit and of draws (default: 0)", type=integer(0), default=0)


def _add_score(command: Callable[..., Parser]) -> None:
    sub = command(
        "score",
        use.score,
        "write the log density of each row of a table, or of each signal, in nats",
        "With --json the densities are written only with --output. With a folder as --output, as scores/, each table "
        "has a file of its own, and the same command goes on where it was stopped. With a file as --output Ctrl-C "
        "keeps the scores that are done, as scores.partial.csv beside scores.csv, and the same command goes on.",
    )
    sub.add_argument("flow", metavar="FLOW", help=FLOW)
    _add_data(sub, "tables of the same columns", " folders of these,")
    _add(sub, "--steps", None, "of a signal: the log density of each step", action="store_true")
    read, kinds = file((*writing.WRITTEN, "-")), ", ".join(writing.WRITTEN)
    help_text = f"{kinds}, a folder/; - or nothing: .csv to the standard output"
    _add(sub, "-o --output", "OUT", help_text, type=or_folder(read, is_folder))
    formats = tuple(suffix[1:] for suffix in writing.WRITTEN)
    help_text = f"of the files in a folder: {', '.join(formats)} (default: that of each table)"
    _add(sub, "--format", "FORMAT", help_text, choices=formats)


def _add_diagnose(command: Callable[..., Parser]) -> None:
    sub = command(
        "diagnose",
        diagnose.diagnose,
        "look at a flow with rows, or signals, that it was not fitted to, and say what speaks against it",
        "Ctrl-C ends with the tests done so far; the exit code is 130 then.",
    )
    sub.add_argument("flow", metavar="FLOW", help=FLOW)
    _add_data(sub, "a table", "")
    _add(sub, "--weights", "COLUMN", "column with weights of the rows")
    reads = file(tables.READ, reads=True)
    _add(sub, "--training", "TABLE", "the rows that were fitted: were they memorised?", type=reads)
    kinds = ", ".join(diagnose.WRITTEN)
    _add(sub, "-o --output", "REPORT", f"a page, or a picture: {kinds}", type=file(diagnose.WRITTEN))
    _add(sub, "--seed", "N", "of what is drawn (default: 0)", type=integer(0), default=0)


def _add_sample(command: Callable[..., Parser]) -> None:
    sub = command("sample", use.sample, "draw rows, or a signal, from a flow")
    sub.add_argument("flow", metavar="FLOW", help=FLOW)
    _add(sub, "-n --rows", "N", "how many rows", type=integer(0))
    _add(sub, "--seed", "N", "by default another one each time", type=integer(0, bits=64))
    help_text = "index of the first row in the endless sample of the seed, to draw it in parts (default: 0)"
    _add(sub, "--first-row", "K", help_text, type=integer(0))
    _add(sub, "--context", "X", "the context of all rows", type=number, nargs="+")
    written = (*writing.WRITTEN, WAVE)
    help_text = f"{', '.join(written)}; - or nothing: .csv to the standard output"
    _add(sub, "-o --output", "OUT", help_text, type=file((*written, "-")))
    group = sub.add_argument_group("signals")
    _add(group, "--steps", "N", "how many steps", type=integer(1))
    _add(group, "--seconds", "S", "the same in seconds", type=rate)
    help_text = "a signal to go on from; the output has it, and behind it the steps that were drawn"
    _add(group, "--continue", "WAV", help_text, dest="prefix", type=file([WAVE]))
    help_text = "frames over time, from the first step of the output on"
    _add(group, "--covariates", "TABLE", help_text, type=file(tables.READ, reads=True))


def _add_data(sub: Parser, what: str, folders: str, only: str = "") -> None:
    """Add the arguments for data and columns; `only`: the suffixes that a command without signals takes."""
    help_text = f"{tables.READABLE},{folders} - text from the standard input, or signals of one rate: {WAVE} "
    help_text = f"{what}: {only or help_text + 'of 16-bit PCM, folders'}"
    read = or_folder(file((*tables.READ, WAVE, "-"), reads=True))
    sub.add_argument("data", metavar="DATA", nargs="+", type=read, help=help_text)
    group = sub.add_argument_group("the table")
    help_text = "the features: names, or indices from 0, as mass,age or 0,3:6; by default all that are nothing else"
    _add(group, "--columns", "COLUMNS", help_text)
    help_text = "what the density is conditioned on (default: nothing)"
    _add(group, "--context", "COLUMNS", help_text + ("" if only else "; of signals a table with their names as file"))
    if not only:
        help_text = "of signals: what is known over time: a folder with a table by the name of each, or one table"
        _add(group, "--covariates", "FOLDER", help_text)
        _add(group, "--array", "NAME", "which array of an .npz file (default: its only one)")
    _add(group, "--delimiter", "CHAR", "of text: a character, tab or space (default: as found)", type=delimiter)
    help_text = "whether text begins with names: auto, yes or no (default: auto, if its first line has no number)"
    _add(group, "--header", "HOW", help_text, choices=HEADERS)
