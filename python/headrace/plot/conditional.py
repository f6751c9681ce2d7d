"""Pictures of a conditional density for several values of one column of the context: a panel for each value."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.output import replacing
from headrace._base.rng import Rng, takes_rng
from headrace.plot import _planes as planes
from headrace.plot._source import columns_of, density_of, label, names_of, require
from headrace.plot.density import Panel, draw_panel, name_colours, panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES, MOST_FRAMES = 6, 24
SECOND = 6  # the number of frames in one second of an animation


@takes_rng
def conditional(
    flow: Any,
    context: Any,
    column: int | str = 0,
    values: int | Sequence[float] = FRAMES,
    *,
    columns: Any = None,
    names: Sequence[str] | None = None,
    context_names: Sequence[str] | None = None,
    draws: int = 20_000,
    seed: int = 0,
    rng: Rng = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw how a density changes with its context: a panel for each value of one column, all with the same axes.

    Args:
        flow: A conditional density: a flow, an ensemble, a fitted `FlowDensity`, or the path of a file.
        context: Rows of context, shape (rows, context): `column` goes from its 5 % to its 95 % quantile, and other
            columns have their medians. A single row, shape (context,), requires `values` as a sequence.
        column: The column of the context that changes, by number or name.
        values: The number of panels, or a sequence of the column's values.
        columns: One or two columns of the density, by number or name; by default the first two.
        names, context_names: The names of the density's columns and of the context's columns; by default those of the
            `FlowDensity` or file.
        draws: The number of draws for each panel, for marginals without a formula and for the ends of axes.
        seed: The seed of the draws.
        rng: A generator or seed in place of `seed`; see `Flow.sample`.
        path: The path of a .gif file, to which the panels are also written as an animation, forth and back.

    Returns:
        A matplotlib ``Figure``, with a panel for each value.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: an argument is not as expected, or the density takes no context.

    >>> import numpy as np, headrace as hr
    >>> figure = hr.plot.conditional(hr.MAF(1, context=2), np.zeros(2), values=[-1.0, 1.0], draws=500)
    >>> [axis.get_title("left") for axis in figure.axes]
    ['context 0 = -1', 'context 0 = 1']
    """
    require()
    if path is not None and not os.fspath(path).lower().endswith(".gif"):
        raise ValueError(f"path: expected a file that ends in .gif, got {os.fspath(path)!r}")
    source = density_of(flow)
    contexts = source.flow.context
    if not contexts:
        raise ValueError("flow: expected a density with context, got one without")
    n = check.integer("draws", draws, least=1)
    key = check.integer("seed", seed, most=2**63 - 1)
    name = names_of(source.flow.features, names, None, source.columns.kept_names)
    chosen = tuple(columns_of(range(min(2, source.flow.features)) if columns is None else columns, name))
    if len(chosen) > 2:
        raise ValueError(f"columns: expected one column or two, got {len(chosen)}")
    known = source.columns.context_names or tuple(f"context {i}" for i in range(contexts))
    labels = names_of(contexts, context_names, context, known if len(known) == contexts else None)
    swept = columns_of([column], labels, "column")[0]
    row, sweep = _sweep(context, contexts, swept, values)
    rows = np.tile(row, (len(sweep), 1))
    rows[:, swept] = sweep
    drawn = [source.sample(n, one, key) for one in rows]
    ends = [planes.range_of(*(one[:, i] for one in drawn)) for i in chosen]
    found = [panel(source, chosen, one, own, ends=ends) for one, own in zip(drawn, rows, strict=True)]
    titles = [f"{label(labels[swept], 20, 1)} = {_short(value)}" for value in sweep]
    if path is not None:
        _animate(found, name, titles, os.fspath(path))
    return _draw(found, name, titles)


def _sweep(context: Any, contexts: int, swept: int, values: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """A row with the values of columns that do not change, and the values of the column that changes."""
    table = np.asarray(context, np.float64)
    table = table[None] if table.ndim < 2 else table
    if table.ndim != 2 or table.shape[1] != contexts or not len(table) or not np.isfinite(table).all():
        expected = f"finite rows of {contexts} numbers, (rows, {contexts}) or ({contexts},)"
        raise ValueError(f"context: expected {expected}, got shape {np.shape(context)}")
    if np.iterable(values):
        sweep = np.asarray(values, np.float64)
        if sweep.ndim != 1 or not 0 < sweep.size <= MOST_FRAMES or not np.isfinite(sweep).all():
            raise ValueError(f"values: expected 1 to {MOST_FRAMES} finite numbers, got shape {sweep.shape}")
    else:
        frames = check.integer("values", values, least=1, most=MOST_FRAMES)
        low, high = np.quantile(table[:, swept], [0.05, 0.95])
        if not high > low and frames > 1:
            expected = "a sequence of numbers, as this column of the context has one value alone"
            raise ValueError(f"values: expected {expected}, got {frames}")
        sweep = np.linspace(low, high, frames)
    return np.median(table, axis=0), sweep


def _short(value: float) -> str:
    """The text of a value: three digits; between 1000 and a million, an integer.

    >>> _short(-5034.2), _short(0.01234), _short(2.5e9)
    ('-5034', '0.0123', '2.5e+09')
    """
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def _draw(panels: list[Panel], names: tuple[str, ...], titles: list[str]) -> Figure:
    from headrace.plot import _figure

    highest = max(float(one.value.max()) for one in panels)
    with _figure.styled():
        most = 3 if len(panels) in (3, 6, 9) else 4
        figure, axes = _figure.grid(len(panels), 2.9, 2.5, most=most)
        columns = min(len(panels), most)
        for i, (axis, one, title) in enumerate(zip(axes, panels, titles, strict=True)):
            shown = draw_panel(axis, one, names, highest=highest)
            axis.set_title(title, fontsize=10)
            if i % columns:
                axis.set_ylabel("")
                axis.tick_params(labelleft=False)
            if i + columns < len(panels):
                axis.set_xlabel("")
                axis.tick_params(labelbottom=False)
        if shown is not None:
            name_colours(figure, shown, axes)
    return figure


def _animate(panels: list[Panel], names: tuple[str, ...], titles: list[str], path: str) -> None:
    """Write an animation of the panels, forth and back, in which all panels have the same axes and colours."""
    from matplotlib.animation import FuncAnimation, PillowWriter

    from headrace.plot import _figure

    highest = max(float(one.value.max()) for one in panels)
    order = [*range(len(panels)), *range(len(panels) - 2, 0, -1)]
    with _figure.styled(), tempfile.TemporaryDirectory() as folder:
        figure, axes = _figure.grid(1, 4.4, 3.6)
        axis, bars = axes[0], list[Any]()

        def draw(i: int) -> tuple[()]:
            axis.clear()
            shown = draw_panel(axis, panels[i], names, highest=highest)
            if shown is not None and not bars:  # one colour bar, because all panels have the same colours
                bars.append(name_colours(figure, shown, axis))
            axis.set_title(titles[i], fontsize=10)
            return ()

        frames = FuncAnimation(figure, draw, frames=order, init_func=lambda: (), blit=False)
        drawn = os.path.join(folder, "frames.gif")
        frames.save(drawn, writer=PillowWriter(fps=SECOND), dpi=110)
        with open(drawn, "rb") as own, replacing(path) as stream:
            stream.write(own.read())
