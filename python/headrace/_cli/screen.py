"""Output on a terminal: tables, help and bars, by rich where it is installed, and otherwise plainly.

Output that goes to a file or a pipe is plain. Nothing is wider than the terminal, or than the environment's COLUMNS.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from headrace._base import progress as _progress
from headrace._base.layout import Block, Grid, lines_of, width, wrapped
from headrace._base.output import printable


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
    lines = wrapped(text, rest="  ") if sys.stderr.isatty() else [text]
    print("\n".join(lines) or text, file=sys.stderr)


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


# ---- bars ------------------------------------------------------------------------------------------------------------


@contextmanager
def bars() -> Iterator[None]:
    """Inside the block the bars of all calls are rich's, if a terminal shows them; else they are tqdm's."""
    terminal = console(sys.stderr) if _progress.watched() else None
    if terminal is None:
        yield
        return
    shown = _Bars(terminal)
    try:
        with _progress.sent_to(shown.hear):
            yield
    finally:
        shown.stop()


class _Bars:
    """Bars of rich, from the messages of `headrace._base.progress`."""

    def __init__(self, terminal: Any) -> None:
        self._terminal = terminal
        self._live: Any = None
        self._tasks: dict[int, Any] = {}  # of the open bars, by their index

    def hear(self, message: dict[str, Any]) -> None:
        """Draw the state of a bar."""
        made, bar = message["made"], message["bar"]
        if self._live is None:
            self._live = self._begun()
        if bar not in self._tasks:
            self._tasks[bar] = self._live.add_task(made["desc"], total=made["total"], done="", postfix="")
        done = _done(message["n"], made["total"], made["unit"])
        self._live.update(self._tasks[bar], completed=message["n"], done=done, postfix=message["postfix"])
        self._live.refresh()
        if message["closed"]:
            task = self._tasks.pop(bar)
            if not made.get("leave", True):
                self._live.remove_task(task)
            if not self._tasks:
                self.stop()

    def stop(self) -> None:
        """Leave the bars that stay on the screen."""
        if self._live is not None:
            self._live.live.transient = not self._live.tasks
            self._live.stop()
            self._live, self._tasks = None, {}

    def _begun(self) -> Any:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        postfix = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        live = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[done]}", markup=False, table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[postfix]}", markup=False, table_column=postfix),
            console=self._terminal,
            auto_refresh=False,
            expand=True,
        )
        live.start()
        return live


def _done(n: float, total: float | None, unit: str) -> str:
    """The amount done, of how much."""
    if unit == "s":
        return f"{n:.0f} of {total:.0f} s"
    return f"{n:,.0f} {unit}s" if total is None else f"{n:,.0f} of {total:,.0f} {unit}s"
