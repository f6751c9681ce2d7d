"""Tables that do not fit in memory: streams of the rows that a fit uses, with noise that depends on a row's index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headrace._tables.table import Table, complete
from headrace.rows._stream import Stream


class Present(Stream):
    """The rows of a stream without missing values."""

    def __init__(self, source: Stream) -> None:
        """Wrap a stream without reading it: the number of remaining rows of a part is known after the part is read."""
        self._source = source
        super().__init__(source.buffer, [None] * len(source._sizes))
        self._what = source._what

    def _read(self, part: int) -> Iterator[Any]:
        for block in self._source.read(part):
            good = complete(block.x, block.context, block.weights)
            kept = block if good.all() else block.take(good)
            self._names, self.called, self.kinds = self._source.names, self._source.called, self._source.kinds
            yield kept.x, kept.context, kept.weights

    @property
    def left_out(self) -> int:
        """The number of rows with missing values; all rows are read to count them, unless they have been counted."""
        return self._source.count() - self.count()


class Treated(Stream):
    """The treated rows of a stream: without constant columns, and with noise. The noise depends on a row's index, so
    that it is the same in each pass, for any blocks, and for rows in memory.
    """

    def __init__(self, source: Stream, table: Table) -> None:
        """Wrap a stream, and count its rows if they have not been counted."""
        self._source, self._table = source, table
        source.count()
        super().__init__(source.buffer, source._sizes)
        self._names = tuple(source.names[i] for i in table.kept) if source.names else ()
        self._what = source._what

    def _read(self, part: int) -> Iterator[Any]:
        at = sum(size or 0 for size in self._sizes[:part])
        for block in self._source.read(part):
            yield self._table.spread(block.x, first_row=at), block.context, block.weights
            at += len(block)
