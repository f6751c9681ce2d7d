"""The figures into which all pictures are drawn. Other modules import matplotlib only inside functions."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from headrace._base.pictures import STYLE


class Picture(Figure):
    """A figure that notebooks show without ``pyplot``."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=100)
        return stream.getvalue()


@contextmanager
def styled() -> Iterator[None]:
    """A context inside which the style of headrace replaces the user's style of matplotlib."""
    with style.context(["default", STYLE]):
        yield


def grid(panels: int, width: float = 3.6, height: float = 2.9, most: int = 4) -> tuple[Picture, list[Axes]]:
    """A figure with `panels` panels, at most `most` in a row, and the list of the panels."""
    columns = min(panels, most)
    rows = -(-panels // columns)
    figure = Picture(figsize=(max(width * columns, 4.0), height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for spare in axes[panels:]:
        spare.set_axis_off()
    return figure, axes[:panels]


def limit_ticks(axis: Axes, x: int | None = 4, y: int | None = 4, *, prune: str | None = None) -> None:
    """Limit the number of ticks on each axis; None leaves an axis unchanged. `prune`: ends without ticks."""
    for count, one in ((x, axis.xaxis), (y, axis.yaxis)):
        if count is not None:
            one.set_major_locator(MaxNLocator(count, min_n_ticks=2, prune=prune))
