"""Output of commands: tables, help and messages, no wider than the terminal or the environment variable COLUMNS."""

from __future__ import annotations

import json
import math
import sys
from argparse import Namespace
from collections.abc import Iterable
from typing import IO, Any, NoReturn

import numpy as np

from headrace._base.layout import Block, lines_of, wrapped
from headrace._base.output import printable
from headrace.rows._files import STANDARD

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130  # exit codes: USAGE is for a wrong command line


def show(blocks: Iterable[Block], file: IO[str]) -> None:
    """Print paragraphs and tables."""
    for line in lines_of(blocks):
        print(printable(line), file=file)


def tell(text: str) -> None:
    """Print a message on the standard error: one line, which is broken between words on a terminal."""
    from tqdm import tqdm

    lines = wrapped(text, rest="  ") if sys.stderr.isatty() else [text]
    tqdm.write("\n".join(lines) or text, file=sys.stderr)  # above the bars


def note(arguments: Namespace, text: str) -> None:
    """Print a note on the standard error, unless --quiet is given."""
    if not arguments.quiet:
        tell(text)


def say(arguments: Namespace, report: dict[str, Any], blocks: Iterable[Block], apart: bool = False) -> None:
    """Print the result, as a JSON object or as text; on the standard error if a flow is written to the standard output.

    `apart`: whether the command without --output or --json prints values, so that the text becomes a note.
    """
    file = sys.stderr if getattr(arguments, "output", None) == STANDARD else sys.stdout
    if arguments.json:
        print(json.dumps(_finite_or_null(report), allow_nan=False), file=file)
    elif apart and not arguments.output:
        note(arguments, " ".join(map(str, blocks)))
    else:
        show(blocks, file)


def _finite_or_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite_or_null(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite_or_null(inner) for inner in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


def duration(seconds: float) -> str:
    """A duration with three significant digits, in s, ms or µs."""
    if seconds < 1e-3:
        return f"{1e6 * seconds:.3g} µs"
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def usage(arguments: Namespace, message: str) -> NoReturn:
    """Exit with an error about the command line."""
    arguments.usage(message)
    raise AssertionError


def refuse_options(arguments: Namespace, names: Iterable[str], why: str) -> None:
    """Exit with an error if the command line has one of the options `names`."""
    for name in names:
        value = getattr(arguments, name, None)
        if not (value is None or value is False or value == []):
            usage(arguments, f"argument --{name.replace('prefix', 'continue').replace('_', '-')}: {why}")


def counted(number: int, what: str) -> str:
    """A count with a noun, such as "3 rows"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
