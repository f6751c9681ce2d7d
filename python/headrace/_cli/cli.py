"""The command line: ``headrace info | fit | score | diagnose | sample | export | bench | demo``.

Results go to the standard output, progress, notes and errors to the standard error. With ``--json`` the standard output
is one JSON object; numbers that are not finite are null. Exit codes: 0; 1 for an error, reported in one line; 2 for a
wrong command line; 130 after Ctrl-C; 141 where the reader of the output went away. Ctrl-C during a fit saves the best
weights so far, or nothing if none are better than fresh ones; during scores the scores so far. It still ends with 130.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import headrace as hr
from headrace._boxes import UNIFORM
from headrace._cli import commands, diagnose, export, fitting, offered, parts, tables, use
from headrace._output import NO_ROOM, printable
from headrace.flows import DEFAULT

__all__ = ["main"]

FAILED, USAGE, PIPE_CLOSED = 1, 2, 141


def _argument(convert: Callable[[str], Any], holds: Callable[[Any], bool], expected: str) -> Callable[[str], Any]:
    """A type of argparse: conversion of a text, with checks."""

    def read(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not holds(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return read


def _integer(least: int, bits: int = 63) -> Callable[[str], Any]:
    return _argument(int, lambda n: least <= n < 2**bits, f"an integer of at least {least} and below 2^{bits}")


_share = _argument(float, lambda share: 0.0 <= share < 1.0, "a share from 0 and below 1")
_rate = _argument(float, lambda rate: 0.0 < rate < math.inf, "a number above 0")
_number = _argument(float, math.isfinite, "a finite number")
_sizes = _argument(
    lambda text: tuple(map(int, text.split(","))), lambda sizes: min(sizes) > 0, "integers above 0 with commas between"
)
_delimiter = _argument(
    lambda text: {"tab": "\t", "space": " "}.get(text, text),
    lambda mark: len(mark) == 1 and mark not in '"\r\n#',
    "one character, tab or space",
)


_EPOCHS = re.compile("([1-9][0-9]{0,8} )?epochs?")


def _seconds_or_epochs(text: str) -> float | str:
    return text if "epoch" in text else float(text)


_interval = _argument(
    _seconds_or_epochs,
    lambda every: _EPOCHS.fullmatch(every) is not None if isinstance(every, str) else 0 <= every < math.inf,
    "seconds, epoch, or as '10 epochs'",
)
_KINDS = {"integer": _integer(0), "size": _integer(1), "positive": _rate, "interval": _interval, "text": str}
"""Types of options that are arguments of `Flow.fit`."""


def _file(suffixes: Sequence[str]) -> Callable[[str], Any]:
    """A path; "-" only if listed among the suffixes."""
    return _argument(
        str,
        lambda text: (text if text == commands.STANDARD else Path(text).suffix.lower()) in suffixes,
        f"a file that ends in {', '.join(suffixes)}",
    )


def _or_folder(read: Callable[[str], Any], is_one: Callable[[str], bool] = os.path.isdir) -> Callable[[str], Any]:
    """An argument of `read`, or a folder."""
    return lambda text: text if is_one(text) else read(text)


_base = _argument(str, lambda name: name == UNIFORM, f"{UNIFORM}, beside --bounds of both ends of each feature")
_READERS: dict[str, Any] = {
    "int": _integer(1),
    "float": _number,
    "str": str,
    "Sequence[int]": _sizes,
    "Base | str": _base,
}


class _Include(argparse.Action):
    """Print the folder of the header, on one line however long it is, and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(hr.include())
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    """The parser, long because it names every option of every command once, in the order of their help."""
    parser = argparse.ArgumentParser(
        prog="headrace",
        description="Normalising flows: fit, score and sample densities of tables.",
        epilog="Exit codes: 0; 1 an error, told in one line; 2 a wrong command line; 130 Ctrl-C; 141 output closed.",
    )
    parser.add_argument("--version", action="version", version=f"headrace {hr.__version__}")
    parser.add_argument("--include", action=_Include, nargs=0, help="print the folder of headrace.hpp and exit")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], help: str, epilog: str = "") -> Any:
        sub = subparsers.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=epilog)
        sub.set_defaults(run=run, usage=sub.error)
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.add_argument("--threads", type=_integer(1), metavar="N", help="by default all cores")
        sub.add_argument("--quiet", action="store_true", help="no progress and notes on the standard error")
        return sub

    command("info", commands.info, "print version, instruction set, threads, CUDA or why not")

    sub = command(
        "fit",
        fitting.fit,
        "fit a flow to the rows of a table and save it",
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
    sub.add_argument("--flow", choices=tuple(offered.FLOWS), help=f"the kind of flow ({DEFAULT})")
    sub.add_argument(
        "--auto",
        action="store_true",
        help="try flows of several kinds and sizes for --time-budget (60) seconds, and save the best",
    )
    sub.add_argument("--weights", metavar="COLUMN", help="column with weights of the rows")
    sub.add_argument(
        "--buffer", type=_integer(1), metavar="ROWS", help="that are held in memory, at most (as 256 MiB hold)"
    )
    sub.add_argument(
        "--bounds",
        metavar="COLUMN=LOW:HIGH,...",
        help="numbers between which features lie: age=0:,share=0:1 for age above 0, and share in between",
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
        help="noise for features whose values repeat; auto: as wide as the smallest gap between them",
    )
    sub.add_argument(
        "--missing",
        choices=("refuse", "drop"),
        default="refuse",
        help="what to do with rows that miss a number (refuse)",
    )
    sub.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    for name, option in offered.FIT.items():
        flag = "--" + name.replace("_", "-")
        sub.add_argument(flag, type=_KINDS[option.kind], metavar=option.metavar, help=option.help)
    sub.add_argument("--validation", type=_share, metavar="SHARE", help="of rows to hold out (0.1)")
    sub.add_argument("--ensemble", type=_integer(1), metavar="N", help="fit so many flows, and save their mixture")
    sub.add_argument("--seed", type=_integer(0), default=0, metavar="N", help="of weights, rows held out, order (0)")
    _add_settings(sub)

    sub = command(
        "score",
        use.score,
        "write the log density of each row of a table, in nats",
        "With --json the densities are written only with --output. With a folder as --output, as scores/, each table "
        "has a file of its own, and the same command goes on where it was stopped. With a file as --output Ctrl-C "
        "keeps the scores that are done, as scores.partial.csv beside scores.csv, and the same command goes on.",
    )
    sub.add_argument("flow", metavar="FLOW", help="what `headrace fit` or Flow.save wrote; - for the standard input")
    _add_data(sub, several=True)
    _add_output(sub, folder=True)
    formats = tuple(suffix[1:] for suffix in tables.WRITTEN)
    sub.add_argument("--format", choices=formats, help="of the files in a folder; by default that of each table")

    sub = command(
        "diagnose",
        diagnose.diagnose,
        "look at a flow with rows that it was not fitted to, and say what speaks against it",
        "Ctrl-C ends with the tests done so far; the exit code is 130 then.",
    )
    sub.add_argument("flow", metavar="FLOW", help="what `headrace fit` or Flow.save wrote; - for the standard input")
    _add_data(sub)
    sub.add_argument("--weights", metavar="COLUMN", help="column with weights of the rows")
    sub.add_argument(
        "--training", type=_file(tables.READ), metavar="TABLE", help="the rows that were fitted: were they memorised?"
    )
    sub.add_argument(
        "-o",
        "--output",
        type=_file(diagnose.WRITTEN),
        metavar="REPORT",
        help="a page, or a picture: " + ", ".join(diagnose.WRITTEN),
    )
    sub.add_argument("--seed", type=_integer(0), default=0, metavar="N", help="of what is drawn (0)")

    sub = command("sample", use.sample, "draw rows from a flow")
    sub.add_argument("flow", metavar="FLOW", help="what `headrace fit` or Flow.save wrote; - for the standard input")
    sub.add_argument("-n", "--rows", type=_integer(0), required=True, metavar="N", help="how many")
    sub.add_argument("--seed", type=_integer(0, bits=64), metavar="N", help="by default another one each time")
    sub.add_argument(
        "--first-row",
        type=_integer(0),
        metavar="K",
        help="number of the first row in the endless sample of the seed, to draw it in parts",
    )
    sub.add_argument("--context-row", type=_number, nargs="+", metavar="X", help="the context of all rows")
    _add_output(sub)

    sub = command("export", export.export, "write a flow as a graph of ONNX, for other runtimes")
    sub.add_argument("flow", metavar="FLOW", help="what `headrace fit` or Flow.save wrote; - for the standard input")
    sub.add_argument("-o", "--output", type=_file([".onnx"]), required=True, metavar="GRAPH", help="as flow.onnx")
    sub.add_argument("--verb", choices=export.VERBS, default="log_prob", help="what the graph computes (log_prob)")

    sub = command("bench", commands.bench, "time a dozen workloads, beside what this machine can do at most")
    sub.add_argument("--quick", action="store_true", help="a few seconds instead of twenty")

    sub = command("demo", commands.demo, "fit the Hertzsprung-Russell diagram of 60,000 stars, compare and draw it")
    sub.add_argument("-o", "--output", type=_file([".png", ".pdf", ".svg"]), metavar="PICTURE", help="hr_diagram.png")
    sub.add_argument("--epochs", type=_integer(1), metavar="N", help="of each flow (50)")
    sub.add_argument("--seed", type=_integer(0), default=0, metavar="N")
    return parser


def _add_settings(sub: argparse.ArgumentParser) -> None:
    """An option for each argument of the flows' constructors, so that a new argument is a new option."""
    group = sub.add_argument_group("settings of the flow", "which flows take each, and its default there")
    for name, setting in offered.settings().items():
        if name in offered.FIT:
            continue
        option = f"--{name.replace('_', '-')}"
        if setting.kind == "bool":
            group.add_argument(option, action=argparse.BooleanOptionalAction, default=None, help=setting.help)
        else:
            group.add_argument(
                option,
                type=_integer(0) if name == "steps" else _READERS[setting.kind],
                metavar={"int": "N", "Sequence[int]": "N,N"}.get(setting.kind, "X"),
                help=setting.help,
            )


def _add_data(sub: argparse.ArgumentParser, several: bool = False) -> None:
    read, kinds = _file((*tables.READ, "-")), ", ".join(tables.READ)
    if several:
        what = f"tables with the same columns: {kinds}, folders of these, - text from the standard input"
        sub.add_argument("data", metavar="DATA", nargs="+", type=_or_folder(read), help=what)
    else:
        what = f"a table: {kinds}, - text from the standard input"
        sub.add_argument("data", metavar="DATA", type=read, help=what)
    group = sub.add_argument_group("the table", "COLUMNS are names, numbers from 0 or ranges: mass,radius or 0,3:6")
    group.add_argument("--columns", metavar="COLUMNS", help="the features; by default all that are nothing else")
    group.add_argument("--context", metavar="COLUMNS", help="what the density is conditioned on")
    group.add_argument("--array", metavar="NAME", help="which array of an .npz file")
    group.add_argument("--delimiter", type=_delimiter, metavar="CHAR", help="of text; also tab, space")
    group.add_argument("--header", choices=tables.HEADERS, default="auto", help="whether text begins with names")


def _add_output(sub: argparse.ArgumentParser, folder: bool = False) -> None:
    read, kinds = _file((*tables.WRITTEN, "-")), ", ".join(tables.WRITTEN)
    sub.add_argument(
        "-o",
        "--output",
        type=_or_folder(read, parts.is_folder) if folder else read,
        metavar="OUT",
        help=f"{kinds}{', a folder/' if folder else ''}; - or nothing: .csv to the standard output",
    )


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        print(f"headrace: warning: {_one_line(message)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)  # warnings of headrace
        warnings.showwarning = show
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    try:
        arguments = _parser().parse_args(argv)
        if arguments.run in (use.score, use.sample) and arguments.output == commands.STANDARD:
            arguments.output = None
        if arguments.threads:
            hr.set_num_threads(arguments.threads)
        with _warnings_in_one_line():
            code: int = arguments.run(arguments)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse has printed the reason
        return stop.code if isinstance(stop.code, int) else USAGE
    except KeyboardInterrupt as interrupt:
        print(": ".join(["headrace: interrupted", *map(_one_line, interrupt.args)]), file=sys.stderr)
        return commands.INTERRUPTED
    except BrokenPipeError:
        _give_up_output()
        return PIPE_CLOSED
    except (ValueError, TypeError, OSError, ImportError, MemoryError, OverflowError, RuntimeError) as error:
        print(f"headrace: error: {_one_line(error)}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:  # usually a full disk, which the message names
            _give_up_output()
        return FAILED
    return code


def _give_up_output() -> None:
    """Discard output that cannot be written, because Python would report it again when it closes the stream."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(message: object) -> str:
    if isinstance(message, OSError) and message.strerror:
        name = message.filename or ("standard output" if message.errno in NO_ROOM else None)
        if name is not None:
            return printable(f"{name}: {message.strerror}")
    return printable(" ".join(str(message).split())) or type(message).__name__
