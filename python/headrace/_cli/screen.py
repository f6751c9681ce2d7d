"""Output on a terminal: tables and help, by rich where it is installed and otherwise plainly, and messages.

Output that goes to a file or a pipe is plain. Nothing is wider than the terminal, or than the environment's COLUMNS.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable
from typing import IO, Any, NoReturn

import numpy as np

from headrace._base.layout import Block, Grid, lines_of, width, wrapped
from headrace._base.output import printable
from headrace.rows._files import STANDARD

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130  # exit codes: the third of a wrong command line


def console(file: Any) -> Any:
    """rich's console of a terminal; None for files and pipes, and where rich is not installed."""
    if not (file.isatty() or os.environ.get("FORCE_COLOR")):  # no import where it would draw nothing
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    found = Console(file=file, width=width(), highlight=False, soft_wrap=False)
    return found if found.is_terminal else None


def show(blocks: Iterable[Block], file: IO[str]) -> None:
    """Print paragraphs and tables."""
    terminal = console(file)
    for block in blocks:
        if terminal is not None and isinstance(block, Grid) and block.rows and (drawn := _table(block, terminal)):
            terminal.print(drawn)
        else:
            for line in lines_of([block]):
                print(printable(line), file=file)


def tell(text: str) -> None:
    """A message on the standard error: one line, which a terminal breaks between words."""
    from tqdm import tqdm

    lines = wrapped(text, rest="  ") if sys.stderr.isatty() else [text]
    tqdm.write("\n".join(lines) or text, file=sys.stderr)  # above the bars


def _table(grid: Grid, terminal: Any) -> Any:
    """A table of rich; None if the terminal is too narrow for it."""
    from rich import box
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    own: dict[str, Any] = {"pad_edge": bool(grid.indent), "show_edge": False}
    drawn = Table(box=box.SIMPLE_HEAD, show_header=bool(grid.head), header_style="bold", **own)
    for i, name in enumerate(grid.head or grid.rows[0]):
        heading = Text(name if grid.head else "")
        drawn.add_column(heading, justify="right" if i in grid.right else "left", no_wrap=i not in grid.wraps)
    for row in grid.rows:
        drawn.add_row(*(Text(printable(text)) for text in row))
    least = Measurement.get(terminal, terminal.options.update(max_width=10**6), drawn).minimum
    return drawn if least <= terminal.width and grid.widths(terminal.width) is not None else None


# ---- a command's output ----------------------------------------------------------------------------------------------


def note(arguments: argparse.Namespace, text: str) -> None:
    """A note on the standard error, unless --quiet is given."""
    if not arguments.quiet:
        tell(text)


def say(arguments: argparse.Namespace, report: dict[str, Any], blocks: Iterable[Block], apart: bool = False) -> None:
    """Print the result, as one JSON object or as text; if the standard output has a flow, to the standard error.

    `apart`: whether the standard output has values without --output or --json, so that the text is a note.
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
    """Three significant digits in a fitting unit."""
    if seconds < 1e-3:
        return f"{1e6 * seconds:.3g} µs"
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def usage(arguments: argparse.Namespace, message: str) -> NoReturn:
    """End because of a wrong command line."""
    arguments.usage(message)
    raise AssertionError


def counted(number: int, what: str) -> str:
    """A count with its noun, such as "3 rows"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
