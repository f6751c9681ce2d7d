"""The commands of the command line and their options, in the order of their help."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import headrace as hr
from headrace._base.moved import ARGUMENTS as RENAMED
from headrace._cli import about, commands, demo, diagnose, export, fitting, report, signal_fit, writing
from headrace._cli import flow_options as offered
from headrace._cli import folder_scores as parts
from headrace._cli import score_and_sample as use
from headrace._cli.choose import SECONDS
from headrace._cli.parser import (
    KINDS,
    Parser,
    delimiter,
    file,
    integer,
    number,
    or_folder,
    rate,
    share,
)
from headrace._cli.waves import SUFFIX as WAVE
from headrace._flow.flows import DEFAULT
from headrace.rows import _files as tables
from headrace.rows._text import HEADERS

COLUMNS = "COLUMNS are names, indices from 0 or ranges: mass,radius or 0,3:6"
FLOW = "a file of a fitted flow; - for the standard input"


class _Include(argparse.Action):
    """Print the folder of the header, on one line however long it is, and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(hr.include())
        parser.exit()


def parser() -> Parser:
    """The parser of all commands."""
    whole = Parser(
        prog="headrace",
        description="Normalising flows: fit, score and sample densities of tables and signals.",
        epilog="Exit codes: 0; 1 an error, in one line; 2 a wrong command line; 130 Ctrl-C; 141 closed output.",
    )
    whole.add_argument("--version", action="version", version=f"headrace {hr.__version__}")
    whole.add_argument("--include", action=_Include, nargs=0, help="print the folder of headrace.hpp and exit")
    subparsers = whole.add_subparsers(title="commands", required=True, metavar="COMMAND", prog="headrace")

    def command(name: str, run: Callable[[argparse.Namespace], int], help: str, epilog: str = "") -> Parser:
        sub: Parser = subparsers.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=epilog)
        sub.set_defaults(run=run, usage=sub.error, refuse=sub.refuse)
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.add_argument("--threads", type=integer(1), metavar="N", help="by default all cores")
        sub.add_argument("--quiet", action="store_true", help="no progress and notes on the standard error")
        return sub

    sub = command("info", about.info, "print version, instruction set, threads, CUDA or why not; or facts about a flow")
    sub.add_argument("flow", metavar="FLOW", nargs="?", help=f"{FLOW}; by default none")
    _add_fit(command)
    _add_report(command)
    _add_score(command)
    _add_diagnose(command)
    _add_sample(command)
    _add_export(command)
    sub = command("bench", commands.bench, "time a dozen workloads, beside what this machine can do at most")
    sub.add_argument("--quick", action="store_true", help="a few seconds instead of twenty")
    sub = command("demo", commands.demo, "fit the Hertzsprung-Russell diagram of 60,000 stars, compare and draw it")
    pictures = [".png", ".pdf", ".svg"]
    sub.add_argument(
        "-o", "--output", type=file(pictures), metavar="PICTURE", help=f"a picture: {', '.join(pictures)} (default: "
        f"{commands.PICTURE})"
    )  # fmt: skip
    sub.add_argument("--epochs", type=integer(1), metavar="N", help=f"of each flow (default: {demo.EPOCHS})")
    sub.add_argument("--seed", type=integer(0), default=0, metavar="N", help="of weights and samples (default: 0)")
    return whole


def _add_fit(command: Callable[..., Parser]) -> None:
    sub = command(
        "fit",
        signal_fit.fit,
        "fit a flow to the rows of a table, or to signals, and save it",
        "Ctrl-C ends a fit and saves the best weights so far, or nothing if none are better than fresh ones; the exit "
        "code is 130 then. With --checkpoint the same command goes on from there. Tables of more rows than the buffer "
        "are read anew in each epoch.",
    )
    _add_data(sub, several=True)
    sub.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FLOW",
        help="the file to write, as flow.safetensors; - for the standard output",
    )
    kinds, of_signals = ", ".join(offered.FLOWS), ", ".join(offered.SIGNALS)
    sub.add_argument(
        "--flow",
        choices=(*offered.FLOWS, *offered.SIGNALS),
        metavar="KIND",
        help=f"the kind of flow: {kinds} (default: {DEFAULT}); of signals: {of_signals}",
    )
    sub.add_argument(
        "--auto",
        action="store_true",
        help=f"try flows of several kinds and sizes for --time-budget ({SECONDS:g}) seconds, and save the best",
    )
    sub.add_argument("--weights", metavar="COLUMN", help="column with weights of the rows")
    sub.add_argument(
        "--buffer",
        type=integer(1),
        metavar="ROWS",
        help="rows that are held in memory, at most (default: as many as 256 MiB hold)",
    )
    sub.add_argument(
        "--keep",
        metavar="FILE",
        help="with --effort high: another file to write, with the mixture of the flows that the saved one learnt from",
    )
    sub.add_argument(
        "--held-out",
        type=file(writing.WRITTEN),
        metavar="TABLE",
        help="another file to write, with a tenth of the rows, which the fit does not see: to diagnose it by",
    )
    _add_columns(sub)
    sub.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        metavar="DTYPE",
        help="of the flow: float32 or float64 (default: float32)",
    )
    sub.add_argument(
        "--ensemble",
        type=integer(1),
        metavar="N",
        help="number of flows to fit; their mixture is saved (default: one flow)",
    )
    sub.add_argument(
        "--seed",
        type=integer(0),
        default=0,
        metavar="N",
        help="of fresh weights, of the rows held out and of their order (default: 0)",
    )
    group = sub.add_argument_group("the fit")
    group.add_argument(
        "--validation",
        type=share,
        metavar="SHARE",
        help=f"the share of rows to hold out (default: {fitting.VALIDATION}; with --auto none, beside its own)",
    )
    for name, option in offered.FIT.items():
        flag, (reader, metavar) = f"--{name.replace('_', '-')}", KINDS[option.kind]
        texts = {flag: offered.fit_help(name).replace("%", "%%")}
        texts |= {f"--{one}": f"the earlier name of {flag}" for one, now in RENAMED.items() if now == name}
        for one, text in texts.items():
            group.add_argument(one, dest=name, type=reader, metavar=metavar, help=text)
    _add_settings(sub)


def _add_report(command: Callable[..., Parser]) -> None:
    sub = command(
        "report",
        report.report,
        "fit a flow to a table, judge it by rows set apart, and write a page about it",
        "Columns of text and identifiers are left out, and rows that miss a value. Beside the page, as stars.html, are "
        "written: the density, stars.safetensors; the rows that judge, stars.held_out.csv; and Python that does the "
        "same, stars.py.",
    )
    sub.set_defaults(parsed=lambda given: parser().parse_args(given))  # for the arguments of its fit
    _add_data(sub, several=True, one_table=True)
    sub.add_argument("--weights", metavar="COLUMN", help="column with weights of the rows")
    sub.add_argument("-o", "--output", type=file([".html"]), required=True, metavar="PAGE", help="as report.html")
    help_text = f"seconds that the fit may take (default: {report.SECONDS:g})"
    sub.add_argument("--time-budget", type=rate, default=report.SECONDS, metavar="S", help=help_text)
    sub.add_argument("--seed", type=integer(0), default=0, metavar="N", help="of the fit and of draws (default: 0)")


def _add_columns(sub: Parser) -> None:
    """Options about the columns of a table to fit."""
    sub.add_argument(
        "--bounds",
        metavar="COLUMN=LOW:HIGH,...",
        help="ends between which features lie: age=0:,share=0:1 for age above 0, and share in between",
    )
    sub.add_argument(
        "--periodic",
        metavar="COLUMN=LOW:HIGH,...",
        help="features that go around, with one period of each: hour=0:24",
    )
    sub.add_argument(
        "--discrete",
        metavar="COLUMNS",
        help="features of whole numbers: spread before the fit, and rounded in samples; by default those of such a "
        "type in .parquet and .npy; none for none",
    )
    sub.add_argument(
        "--spread",
        metavar="COLUMN=WIDTH,...",
        help="noise for features whose values repeat: by default, auto, as wide as the smallest gap between them; none",
    )
    sub.add_argument(
        "--missing",
        choices=("refuse", "drop"),
        default="refuse",
        metavar="HOW",
        help="what to do with rows that miss a value: refuse or drop (default: refuse)",
    )


def _add_settings(sub: Parser) -> None:
    """An option for each argument of the flows' constructors, in a group for those flows that take the same."""
    groups: dict[tuple[str, ...], Any] = {}
    for name, setting in offered.settings().items():
        if name in offered.FIT:
            continue
        takers = setting.takers
        if takers not in groups:
            groups[takers] = sub.add_argument_group(f"settings of {', '.join(takers)}")
        flag, help_text = f"--{name.replace('_', '-')}", setting.help.replace("%", "%%")
        how: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": None}
        if setting.option.kind != "truth":
            how = dict(zip(("type", "metavar"), KINDS[setting.option.kind], strict=True))
        groups[takers].add_argument(flag, help=help_text, **how)


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
    _add_data(sub, several=True)
    sub.add_argument("--steps", action="store_true", help="of a signal: the log density of each step")
    _add_output(sub, folder=True)
    formats = tuple(suffix[1:] for suffix in writing.WRITTEN)
    help_text = f"of the files in a folder: {', '.join(formats)} (default: that of each table)"
    sub.add_argument("--format", choices=formats, metavar="FORMAT", help=help_text)


def _add_diagnose(command: Callable[..., Parser]) -> None:
    sub = command(
        "diagnose",
        diagnose.diagnose,
        "look at a flow with rows, or signals, that it was not fitted to, and say what speaks against it",
        "Ctrl-C ends with the tests done so far; the exit code is 130 then.",
    )
    sub.add_argument("flow", metavar="FLOW", help=FLOW)
    _add_data(sub, several=True, one_table=True)
    sub.add_argument("--weights", metavar="COLUMN", help="column with weights of the rows")
    sub.add_argument(
        "--training",
        type=file(tables.READ, reads=True),
        metavar="TABLE",
        help="the rows that were fitted: were they memorised?",
    )
    sub.add_argument(
        "-o",
        "--output",
        type=file(diagnose.WRITTEN),
        metavar="REPORT",
        help="a page, or a picture: " + ", ".join(diagnose.WRITTEN),
    )
    sub.add_argument("--seed", type=integer(0), default=0, metavar="N", help="of what is drawn (default: 0)")


def _add_sample(command: Callable[..., Parser]) -> None:
    sub = command("sample", use.sample, "draw rows, or a signal, from a flow")
    sub.add_argument("flow", metavar="FLOW", help=FLOW)
    sub.add_argument("-n", "--rows", type=integer(0), metavar="N", help="how many rows")
    sub.add_argument("--seed", type=integer(0, bits=64), metavar="N", help="by default another one each time")
    sub.add_argument(
        "--first-row",
        type=integer(0),
        metavar="K",
        help="index of the first row in the endless sample of the seed, to draw it in parts (default: 0)",
    )
    sub.add_argument("--context-row", type=number, nargs="+", metavar="X", help="the context of all rows")
    _add_output(sub, more=(WAVE,))
    group = sub.add_argument_group("signals")
    group.add_argument("--steps", type=integer(1), metavar="N", help="how many steps")
    group.add_argument("--seconds", type=rate, metavar="S", help="the same in seconds")
    group.add_argument(
        "--continue",
        dest="prefix",
        type=file([WAVE]),
        metavar="WAV",
        help="a signal to go on from; the output has it, and behind it the steps that were drawn",
    )


def _add_export(command: Callable[..., Parser]) -> None:
    sub = command("export", export.export, "write a flow as a graph of ONNX, for other runtimes")
    sub.add_argument("flow", metavar="FLOW", help=FLOW)
    sub.add_argument("-o", "--output", type=file([".onnx"]), required=True, metavar="GRAPH", help="as flow.onnx")
    help_text = f"what the graph computes: {', '.join(export.VERBS)} (default: log_prob)"
    sub.add_argument("--verb", choices=export.VERBS, default="log_prob", metavar="VERB", help=help_text)


def _add_data(sub: Parser, several: bool = False, one_table: bool = False) -> None:
    read, kinds = file((*tables.READ, *[WAVE] * several, "-"), reads=True), tables.READABLE
    if several:
        rows = "a table" if one_table else "tables with the same columns"
        folders = "" if one_table else " folders of these,"
        what = (
            f"{rows}: {kinds},{folders} - text from the standard input; or signals of one rate: {WAVE} of 16-bit PCM, "
        )
        what += "folders of these"
        sub.add_argument("data", metavar="DATA", nargs="+", type=or_folder(read), help=what)
    else:
        sub.add_argument("data", metavar="DATA", type=read, help=f"a table: {kinds}, - text from the standard input")
    group = sub.add_argument_group("the table", COLUMNS)
    group.add_argument("--columns", metavar="COLUMNS", help="the features; by default all that are nothing else")
    group.add_argument("--context", metavar="COLUMNS", help="what the density is conditioned on (default: nothing)")
    group.add_argument("--array", metavar="NAME", help="which array of an .npz file (default: its only one)")
    group.add_argument(
        "--delimiter", type=delimiter, metavar="CHAR", help="of text: a character, tab or space (default: as found)"
    )
    group.add_argument(
        "--header",
        choices=HEADERS,
        default="auto",
        metavar="HOW",
        help="whether text begins with names: auto, yes or no (default: auto, if its first line has no number)",
    )


def _add_output(sub: Parser, folder: bool = False, more: Sequence[str] = ()) -> None:
    """`more`: suffixes beside those of tables."""
    read, kinds = file((*writing.WRITTEN, *more, "-")), ", ".join([*writing.WRITTEN, *more])
    sub.add_argument(
        "-o",
        "--output",
        type=or_folder(read, parts.is_folder) if folder else read,
        metavar="OUT",
        help=f"{kinds}{', a folder/' if folder else ''}; - or nothing: .csv to the standard output",
    )
