"""Text for a terminal: paragraphs and tables that are at most as wide as the terminal."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDEST = 110  # the most characters of a paragraph's line; longer lines are hard to read
LEAST, MANY = 12, 30  # limits of a wrapping column's least width in characters
GAP = 2  # spaces between two columns


def width() -> int:
    """The width of output in characters: the environment's COLUMNS, the terminal's width, or 80 if both are unknown."""
    return shutil.get_terminal_size().columns


def wrapped(text: str, first: str = "", rest: str = "", columns: int | None = None) -> list[str]:
    """The lines of a text, at most `columns` characters wide; no line breaks within "p = 0.1" or "5 %".

    >>> wrapped("a long text at p = 0.1", columns=15)
    ['a long text at', 'p = 0.1']
    """
    most = min(width(), WIDEST) if columns is None else columns
    whole = re.sub(r"(\bp) ([=<]) |(\d) %", lambda m: f"{m[3]}\xa0%" if m[3] else f"{m[1]}\xa0{m[2]}\xa0", text)
    wrapper = textwrap.TextWrapper(max(most, 1), first, rest, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\xa0", " ") for line in wrapper.wrap(whole)]


@dataclass(frozen=True)
class Item:
    """A paragraph with an indentation."""

    text: str
    first: str = "  "
    """The indentation of the first line."""
    rest: str = "    "
    """The indentation of all other lines."""


@dataclass(frozen=True)
class Grid:
    """A table of texts. In a narrow terminal, texts in wrapping columns wrap, or rows become lists."""

    head: Sequence[str]
    """Names of the columns; empty for a table without a header."""
    rows: Sequence[Sequence[str]]
    right: Sequence[int] = ()
    """The indices of columns that are aligned at the right."""
    wraps: Sequence[int] = ()
    """The indices of columns whose texts may have several lines."""
    indent: str = ""

    def natural(self) -> list[int]:
        """The width of each column without wrapping."""
        every = [*([self.head] if self.head else []), *self.rows]
        return [max(map(len, texts)) for texts in zip(*every, strict=True)]

    def widths(self, columns: int) -> list[int] | None:
        """The width of each column in a terminal of `columns` characters; None if they do not fit."""
        widths = self.natural()
        room = columns - len(self.indent) - GAP * (len(widths) - 1)
        least = {i: min(widths[i], max(LEAST, min(widths[i] // 4, MANY), self._longest_word(i))) for i in self.wraps}
        while sum(widths) > room:
            widest = max(self.wraps, key=lambda i: widths[i] - least[i], default=None)
            if widest is None or widths[widest] <= least[widest]:
                return None
            widths[widest] = max(least[widest], widths[widest] - (sum(widths) - room))
        return widths

    def _longest_word(self, column: int) -> int:
        texts = [row[column] for row in self.rows] + ([self.head[column]] if self.head else [])
        return max((len(word) for text in texts for word in text.split()), default=0)

    def lines(self, columns: int | None = None) -> list[str]:
        """The lines of the table as plain text."""
        most = width() if columns is None else columns
        if not self.rows:
            return []
        if (widths := self.widths(most)) is None:
            return self._listed(most)
        every = [*([self.head] if self.head else []), *self.rows]
        return [line for row in every for line in self._beside(row, widths)]

    def _beside(self, row: Sequence[str], widths: list[int]) -> list[str]:
        cells = [wrapped(text, columns=widths[i]) or [""] if i in self.wraps else [text] for i, text in enumerate(row)]
        rows = []
        for number in range(max(map(len, cells))):
            texts = [lines[number] if number < len(lines) else "" for lines in cells]
            aligned = [
                text.rjust(size) if i in self.right else text.ljust(size)
                for i, (text, size) in enumerate(zip(texts, widths, strict=True))
            ]
            rows.append((self.indent + (GAP * " ").join(aligned)).rstrip())
        return rows

    def _listed(self, columns: int) -> list[str]:
        """The lines of rows as lists: a row's first text, and below it each other text after its column's name."""
        lines = []
        for row in self.rows:
            lines += wrapped(row[0], self.indent, self.indent + "  ", columns)
            for i, text in enumerate(row[1:], 1):
                name = f"{self.head[i]}: " if self.head and self.head[i] else ""
                if text:
                    lines += wrapped(name + " ".join(text.split()), self.indent + "  ", self.indent + "    ", columns)
        return lines


Block = str | Item | Grid
"""A paragraph or an empty line (str), a paragraph with an indentation (Item), or a table (Grid)."""


def lines_of(blocks: Iterable[Block]) -> list[str]:
    """The lines of blocks, which are paragraphs and tables, as plain text."""
    lines: list[str] = []
    for block in blocks:
        if isinstance(block, Grid):
            lines += block.lines()
        elif isinstance(block, Item):
            lines += wrapped(block.text, block.first, block.rest)
        else:
            lines += wrapped(block) or [""]
    return lines
