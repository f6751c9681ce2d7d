"""Rows beside samples, two columns at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace import _arguments as check
from headrace._arrays.frames import names_of as names_of_frame
from headrace._pictures import BAND, BLUE, INK, ORANGE
from headrace.plot import _planes as planes
from headrace.plot._source import Drawn, Table, columns_of, density_of, in_order, label, names_of, require, rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["corner"]

MOST_COLUMNS = 20
FEW = 25  # rows below which each is a mark of its own, and nothing is counted
SHARES = (0.5, 0.9)  # of the samples, that contours hold


def corner(
    flow: Any,
    x: Any = None,
    context: Any = None,
    *,
    weights: Any = None,
    columns: Any = None,
    names: Sequence[str] | None = None,
    draws: int = 20_000,
    points: int = 2_000,
    labels: tuple[str, str] = ("rows", "samples"),
    seed: int = 0,
) -> Figure:
    """Draw all pairs of columns: rows as points, and contours of a density's samples; marginals on the diagonal.

    Contours hold 50 % and 90 % of the samples. Axes have the data's own units.

    Args:
        flow: A flow, an ensemble, a fitted `FlowDensity`, the path of a file, or rows of its own, shape (rows,
            features): then contours are those of the rows.
        x: Rows to compare with, shape (rows, features), or None.
        context: For a conditional density: (context,) for all draws; with x, or for draws alone, (rows, context), of
            which each draw takes one at random.
        weights: Shape (rows,): of x. Points are drawn by them.
        columns: Which to draw, by number or name; by default all, of which there may be 20.
        names: Of all columns; by default those of the frame x, or those that a `FlowDensity` or a file knows.
        draws: How many are drawn.
        points: How many rows are shown as points, at most.
        labels: What the legend calls x and the draws.
        seed: Of the draws, and of the choice of points.

    Returns:
        A matplotlib ``Figure``.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: an argument is not as expected, or rows are not finite.

    >>> import numpy as np, headrace as hr
    >>> figure = hr.plot.corner(hr.MAF(3), np.zeros((5, 3)), names=["a", "b", "c"], draws=100)
    >>> [axis.get_xlabel() for axis in figure.axes[-3:]]
    ['a', 'b', 'c']
    """
    require()
    n = check.integer("draws", draws, least=1)
    most = check.integer("points", points, least=1)
    key = check.integer("seed", seed, most=2**63 - 1)
    drawn, table, known = _both(flow, x, context, weights, n, key)
    name = names_of(drawn.shape[1], names, x if x is not None else flow, known)
    chosen = columns_of(columns, name)
    if len(chosen) > MOST_COLUMNS:
        raise ValueError(f"columns: expected at most {MOST_COLUMNS}, got {len(chosen)}; choose some by columns=")
    told = [label(name[i], _room(len(chosen))) for i in chosen]
    shown = None if table is None else table.some(most, key)[:, chosen]
    whole = None if table is None else (table.x[:, chosen], table.weights)
    return _draw(drawn[:, chosen], shown, whole, told, labels)


def _both(
    flow: Any, x: Any, context: Any, weights: Any, n: int, seed: int
) -> tuple[NDArray[Any], Table | None, tuple[str, ...] | None]:
    """Draws, or what is given in their place; rows; and names that are known."""
    if not (isinstance(flow, (str, bytes)) or hasattr(flow, "__fspath__")) and _is_rows(flow):
        if context is not None:
            raise ValueError("context: expected None, as no density is given, got an array")
        drawn = rows_of(flow, None).x
        first = names_of_frame(flow, drawn.shape[1])
        known = None if first is None else tuple(first)
        table = None if x is None else rows_of(in_order(x, known), drawn.shape[1], weights=weights)
        return drawn, table, known
    source: Drawn = density_of(flow)
    contexts = source.flow.context
    rng = np.random.default_rng([seed, 0x636F726E])
    if x is None:
        given = None if context is None else np.asarray(context, np.float64)
        table = None
        if weights is not None:
            raise ValueError("weights: expected None without x, got an array")
    else:
        table = source.given(x, contexts, context, weights)
        given = None if table.context is None else table.context
    if given is not None and given.ndim == 2:
        share = None if table is None or table.weights is None else table.weights / table.weights.sum()
        given = given[0] if len(given) == 1 else given[rng.choice(len(given), n, p=share)]
    drawn = source.sample(n, given, seed)
    if not len(drawn):
        raise ValueError("flow: expected a density with finite draws, got none in its sample")
    if source.table is not None:
        return source.table.back(drawn), table, source.all_names
    return drawn, table, source.names


def _is_rows(flow: Any) -> bool:
    return not hasattr(flow, "flow_") and not hasattr(flow, "log_prob") and (
        hasattr(flow, "__array__") or hasattr(flow, "columns") or isinstance(flow, (list, tuple))
    )  # fmt: skip


def _side(columns: int) -> float:
    """Of a panel, in inches."""
    return 3.4 if columns == 1 else max(1.25, 2.3 - 0.12 * columns)


def _room(columns: int) -> int:
    """How many letters fit beside a panel."""
    return int(_side(columns) / (0.072 if columns > 4 else 0.085))


def _draw(
    drawn: NDArray[Any],
    shown: NDArray[Any] | None,
    whole: tuple[NDArray[Any], NDArray[Any] | None] | None,
    names: list[str],
    labels: tuple[str, str],
) -> Figure:
    from headrace.plot import _figure

    n = len(names)
    side = _side(n)
    ends = [planes.range_of(drawn[:, i], None if shown is None else shown[:, i]) for i in range(n)]
    if whole is not None:
        ends = [planes.range_of(drawn[:, i], whole[0][:, i]) for i in range(n)]
    with _figure.styled():
        left, right, low, high = 0.9, 0.15, 0.8, 0.15 if n > 2 else 0.45  # margins, in inches
        size = side * n + left + right, side * n + low + high
        figure = _figure.Picture(figsize=size)  # by hand: a layout of fifty panels takes seconds
        figure.subplots_adjust(
            left / size[0], low / size[1], 1.0 - right / size[0], 1.0 - high / size[1], wspace=0.1, hspace=0.1
        )
        places = figure.add_gridspec(n, n)
        axes: dict[tuple[int, int], Any] = {}
        for i in range(n):
            for j in range(i + 1):
                below = axes[j, j] if i > j else None
                beside = axes[i, 0] if 0 < j < i else None
                axis = figure.add_subplot(places[i, j], sharex=below, sharey=beside)
                axes[i, j] = axis
                if i == j:
                    _alone(axis, drawn[:, i], whole, i, ends[i])
                else:
                    _pair(axis, drawn[:, [j, i]], None if shown is None else shown[:, [j, i]], (ends[j], ends[i]))
                _label(axis, i, j, names)
                axis.set_xlim(*ends[j])
        _legend(figure, axes, n, labels, whole is not None, len(drawn))
    return figure


def _alone(
    axis: Any,
    drawn: NDArray[Any],
    whole: tuple[NDArray[Any], NDArray[Any] | None] | None,
    i: int,
    ends: tuple[float, float],
) -> None:
    """One column: rows as a filled histogram, draws as a line; few of either as marks."""
    rows, weights = (None, None) if whole is None else (whole[0][:, i], whole[1])
    many = len(drawn) >= FEW
    edges = planes.edges_of(ends, 40 if many else 15, rows, drawn if many else None)
    if rows is not None and len(rows) >= FEW:
        axis.stairs(planes.histogram(rows, edges, weights), edges, fill=True, color=BAND, edgecolor=BLUE, linewidth=0.8)
    elif rows is not None:
        axis.vlines(rows, 0.0, 0.12, color=BLUE, linewidth=1.2, transform=axis.get_xaxis_transform())
    if many:
        axis.stairs(planes.histogram(drawn, edges), edges, color=ORANGE, linewidth=1.4)
        axis.set_ylim(bottom=0.0)
    else:
        axis.vlines(drawn, 0.0, 0.12, color=ORANGE, linewidth=1.2, transform=axis.get_xaxis_transform())
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)


def _pair(
    axis: Any, drawn: NDArray[Any], shown: NDArray[Any] | None, ends: tuple[tuple[float, float], tuple[float, float]]
) -> None:
    """Two columns: rows as points, and contours of the draws over them."""
    if shown is not None:
        size = 3.0 if len(shown) > 300 else 8.0 if len(shown) > 30 else 16.0
        axis.scatter(
            *shown.T, s=size, color=BLUE, alpha=0.35 if len(shown) > 300 else 0.8, linewidths=0, rasterized=True
        )
    bins = int(np.clip(np.sqrt(len(drawn)) / 2.2, 12, 64))
    edges = tuple(np.linspace(*end, bins + 1) for end in ends)
    density = planes.plane(drawn[:, 0], drawn[:, 1], (edges[0], edges[1]))
    levels = planes.levels_of(density, SHARES) if len(drawn) >= FEW else []
    if levels:
        middles = [0.5 * (edge[1:] + edge[:-1]) for edge in edges]
        axis.contour(*middles, density, levels=levels, colors=ORANGE, linewidths=[1.0, 1.5][-len(levels) :])
    if not levels or shown is None:
        few = drawn[: 2000 if levels else 500]
        axis.scatter(
            *few.T, s=2.0 if levels else 10.0, color=ORANGE, alpha=0.25 if levels else 0.8, linewidths=0, zorder=0
        )
    axis.set_ylim(*ends[1])


def _label(axis: Any, i: int, j: int, names: list[str]) -> None:
    """Names at the left and below; numbers there alone."""
    from headrace.plot._figure import few_ticks

    n = len(names)
    few_ticks(axis, 3 if n > 4 else 4, None if i == j else 4, prune="both" if n > 1 else None)
    if i == n - 1:
        axis.set_xlabel(names[j], fontsize=8 if n > 4 else 10)
        if n > 4:
            axis.tick_params(axis="x", labelsize=8)
    else:
        axis.tick_params(labelbottom=False)
        axis.xaxis.offsetText.set_visible(False)
    if i != j and j == 0:
        axis.set_ylabel(names[i], fontsize=8 if n > 4 else 10)
        if n > 4:
            axis.tick_params(axis="y", labelsize=8)
    elif i != j:
        axis.tick_params(labelleft=False)
        axis.yaxis.offsetText.set_visible(False)


def _legend(figure: Any, axes: Any, n: int, labels: tuple[str, str], with_rows: bool, drawn: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    if with_rows:
        handles.append(Patch(facecolor=BAND, edgecolor=BLUE, label=labels[0]))
    holding = " and ".join(f"{100 * share:g}" for share in SHARES)
    told = labels[1] if n == 1 or drawn < FEW else f"{labels[1]}; contours hold {holding} %"
    handles.append(Line2D([], [], color=ORANGE, linewidth=1.5, label=told))
    figure.legend(handles=handles, loc="upper right", frameon=False, labelcolor=INK, ncols=1 if n > 2 else 2)
