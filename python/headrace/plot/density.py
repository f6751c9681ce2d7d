"""Pictures of densities of one or two columns: marginals, or slices with fixed values of all other columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.pictures import BAND, BLUE, GREY, ORANGE
from headrace._base.rng import Rng, takes_rng
from headrace._base.types import Floats
from headrace._fit.ensemble import Ensemble
from headrace._flow.flow import Flow
from headrace.plot import _planes as planes
from headrace.plot._source import Drawn, PlottedRows, columns_of, density_of, label, names_of, require, row_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


LINE, PLANE = 400, 120  # the numbers of cells along the axis of a curve, and along each axis of a plane
MOST_PANELS = 24
DECADES = 4.0  # the decades of density that colours show
SHARES = (0.5, 0.9)
POINTS = 500  # the most rows that a plane shows
LOOKS = 6  # the most evaluations of a slice, which improve the ends of axes
SEEN = 1e-3  # lower values than this share of a slice's highest density count as invisible


@dataclass(frozen=True)
class Panel:
    """A density of one or two columns on a grid of cells."""

    columns: tuple[int, ...]
    edges: tuple[Floats, ...]
    """The edges of the cells, for each column."""
    value: Floats
    """The density in the middle of each cell, shape (cells,), or (cells of the second column, cells of the first)."""
    kind: str
    """How the density was computed: "exact", "drawn" or "slice"."""
    floor: float = 0.0
    """For a density of draws, the density of one draw in a cell: lower values are invisible."""

    @property
    def middles(self) -> tuple[Floats, ...]:
        """The middles of the cells along each column's axis."""
        return tuple(0.5 * (edge[1:] + edge[:-1]) for edge in self.edges)


@takes_rng
def density(
    flow: Any,
    x: Any = None,
    context: Any = None,
    *,
    columns: Any = None,
    at: Any = None,
    names: Sequence[str] | None = None,
    draws: int = 50_000,
    seed: int = 0,
    rng: Rng = None,
) -> Figure:
    """Draw densities of single columns and of pairs of columns: marginals, or slices through a row.

    The marginal of all columns, or of columns that depend on no others (`Flow.marginal`), is exact. Any other marginal
    is a smoothed density of draws, as its panel's title shows.

    Args:
        flow: A flow, an ensemble, a fitted `FlowDensity`, or the path of a file.
        x: Rows to show beside marginals, shape (rows, features), or None.
        context: For a conditional density: one row, shape (context,).
        columns: A list of panels, each a column or a pair of columns, by number or name: ``[0, "mass", ("mass",
            "age")]``. By default each column, and for two columns also the pair.
        at: A row, shape (features,): each panel shows the conditional density of its columns if all other columns have
            this row's values, on axes around this density. None for marginals.
        names: As in `corner`.
        draws: The number of draws, for marginals without a formula and for the ends of axes.
        seed: The seed of the draws.
        rng: A generator or seed in place of `seed`; see `Flow.sample`.

    Returns:
        A matplotlib ``Figure``.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: an argument is not as expected.

    >>> import numpy as np, headrace as hr
    >>> figure = hr.plot.density(hr.MAF(2), draws=1000)
    >>> [axis.get_title("left") for axis in figure.axes[:3]]
    ['of 1,000 draws', 'of 1,000 draws', 'exact']
    """
    require()
    source = density_of(flow)
    row = row_of(context, source.flow.context)
    n = check.integer("draws", draws, least=1)
    key = check.integer("seed", seed, most=2**63 - 1)
    name = names_of(source.flow.features, names, x, source.columns.kept_names)
    wanted = _panels(columns, name)
    table = None if x is None else source.rows(x)
    drawn = source.sample(n, row, key)
    held = None if at is None else _held(at, source.flow.features)
    found = [panel(source, chosen, drawn, row, at=held, table=table) for chosen in wanted]
    return _draw(found, name, None if held is not None else table, len(drawn), key)


def _panels(columns: Any, names: tuple[str, ...]) -> list[tuple[int, ...]]:
    if columns is None:
        wanted: list[tuple[int, ...]] = [(i,) for i in range(len(names))]
        wanted += [(0, 1)] if len(names) == 2 else []
        if len(wanted) > MOST_PANELS:
            raise ValueError(f"columns: expected at most {MOST_PANELS}, got {len(wanted)}; choose some by columns=")
        return wanted
    if isinstance(columns, (str, int, np.integer)):
        columns = [columns]
    wanted = [tuple(columns_of(one if isinstance(one, (tuple, list)) else [one], names)) for one in columns]
    if not 0 < len(wanted) <= MOST_PANELS or any(len(one) > 2 for one in wanted):
        raise ValueError(f"columns: expected 1 to {MOST_PANELS} columns or pairs of them, got {columns!r}")
    return wanted


def _held(at: Any, features: int) -> Floats:
    row = np.asarray(at, np.float64)
    if row.shape != (features,) or not np.isfinite(row).all():
        raise ValueError(f"at: expected one row of {features} finite numbers, got shape {row.shape}")
    return row


def panel(
    source: Drawn,
    columns: tuple[int, ...],
    drawn: NDArray[Any],
    context: NDArray[Any] | None,
    *,
    at: Floats | None = None,
    table: PlottedRows | None = None,
    ends: Sequence[tuple[float, float]] | None = None,
) -> Panel:
    """The density of one or two columns, on a grid around the draws, or between `ends`."""
    found = ends
    if found is None:
        others = [None if table is None else table.x[:, i] for i in columns]
        found = [planes.range_of(drawn[:, i], other) for i, other in zip(columns, others, strict=True)]
    if at is not None:
        return _slice(source, columns, found, context, at, ends is None)
    edges, grid, shape = _grid(found)
    if (exact := _marginal(source.flow, columns)) is not None:
        own = context if exact.context else None
        order = np.argsort(columns) if len(columns) == source.flow.features else np.arange(len(columns))
        value = np.exp(np.asarray(exact.log_prob(np.ascontiguousarray(grid[:, order]), own), np.float64))
        return Panel(columns, edges, np.where(np.isfinite(value), value, 0.0).reshape(shape), "exact")
    coarse, value = _drawn(drawn[:, columns], edges)
    one = 1.0 / (len(drawn) * np.prod([edge[1] - edge[0] for edge in coarse]))
    return Panel(columns, coarse, value, "drawn", float(one))


def _grid(ends: Sequence[tuple[float, float]]) -> tuple[tuple[Floats, ...], NDArray[np.float64], tuple[int, ...]]:
    """The edges of cells, the middles of cells as rows, and the shape of an array with a value for each cell."""
    edges = tuple(np.linspace(*end, (LINE if len(ends) == 1 else PLANE) + 1) for end in ends)
    middles = [0.5 * (edge[1:] + edge[:-1]) for edge in edges]
    grid = np.stack(np.meshgrid(*middles), axis=-1).reshape(-1, len(edges))
    return edges, grid, tuple(len(middle) for middle in reversed(middles))


def _slice(source: Drawn, columns: tuple[int, ...], ends: Any, context: Any, at: Floats, zoom: bool) -> Panel:
    """The density given all other columns, fixed by `at`. `zoom`: whether axes are fitted to this density."""
    for look in range(LOOKS if zoom else 1):
        edges, grid, shape = _grid(ends)
        rows = np.tile(at, (len(grid), 1))
        rows[:, columns] = grid
        value = _conditional(source.flow.log_prob(rows, context), shape, edges)
        closer = [_closer(edge, value.sum(axis=i) if value.ndim == 2 else value) for i, edge in enumerate(edges)]
        if look == LOOKS - 1 or all(one is None for one in closer):
            break
        ends = [end if one is None else one for end, one in zip(ends, closer, strict=True)]
    return Panel(columns, edges, value, "slice")


def _closer(edges: Floats, value: Floats) -> tuple[float, float] | None:
    """Better ends of an axis, or None: closer ends if a curve covers few cells, wider ones if a curve is cut."""
    seen = np.flatnonzero(value > SEEN * value.max())
    if not seen.size:
        return None
    first, last, cells = int(seen[0]), int(seen[-1]), len(value)
    width = float(edges[-1] - edges[0])
    if first == 0 or last == cells - 1:
        low, high = float(edges[0]), float(edges[-1])
        return low - 0.5 * width * (first == 0), high + 0.5 * width * (last == cells - 1)
    if last - first + 1 >= cells // 3:
        return None
    room = 0.25 * float(edges[last + 1] - edges[first])
    return float(edges[first]) - room, float(edges[last + 1]) + room


def _marginal(flow: Any, columns: tuple[int, ...]) -> Any:
    """The marginal flow of the columns `columns`; None if there is no exact marginal."""
    if len(columns) == flow.features:
        return flow if isinstance(flow, (Flow, Ensemble)) else None  # probabilities of labels are not a density
    try:
        return flow.marginal(columns) if isinstance(flow, Flow) else None
    except ValueError:  # because the columns depend on other columns
        return None


def _conditional(log_prob: NDArray[Any], shape: tuple[int, ...], edges: tuple[Floats, ...]) -> Floats:
    """A slice of a joint density, normalised to a conditional density on the grid."""
    joint = np.asarray(log_prob, np.float64).reshape(shape)
    joint = np.where(np.isnan(joint), -np.inf, joint)
    if not joint.max() > -np.inf:
        return np.zeros(shape)
    value = np.exp(joint - joint.max())
    cells = np.diff(edges[0]) if len(edges) == 1 else np.outer(np.diff(edges[1]), np.diff(edges[0]))
    return np.asarray(value / (value * cells).sum())


def _drawn(drawn: NDArray[Any], edges: tuple[Floats, ...]) -> tuple[tuple[Floats, ...], Floats]:
    """A density of draws in cells, smoothed by about one cell; the number of draws determines the size of cells."""
    columns = drawn.shape[1]
    cells = int(np.clip(len(drawn) ** (1 / 3) * 3, 20, 120 if columns == 1 else 64))
    coarse = tuple(np.linspace(edge[0], edge[-1], cells + 1) for edge in edges)
    if columns == 1:
        return coarse, planes.smoothed(planes.histogram(drawn[:, 0], coarse[0]), 1.3)
    return coarse, planes.plane(drawn[:, 0], drawn[:, 1], (coarse[0], coarse[1]))


def _draw(panels: list[Panel], names: tuple[str, ...], table: PlottedRows | None, drawn: int, seed: int) -> Figure:
    from headrace.plot import _figure

    titles = {"exact": "exact", "drawn": f"of {drawn:,} draws", "slice": "given the others"}
    with _figure.styled():
        figure, axes = _figure.grid(len(panels), most=4 if len(panels) > 4 else len(panels))
        for axis, one in zip(axes, panels, strict=True):
            if (shown := draw_panel(axis, one, names, table)) is not None:
                if table is not None:
                    x, y = table.some(POINTS, seed)[:, one.columns].T
                    axis.scatter(x, y, s=3, color="white", alpha=0.6, linewidths=0, rasterized=True)
                name_colours(figure, shown, axis)
            kind = "exact" if len(one.columns) == len(names) and one.kind == "slice" else one.kind  # no column is fixed
            axis.set_title(titles[kind], fontsize=9, color=GREY)
    return figure


def draw_panel(
    axis: Any, one: Panel, names: tuple[str, ...], table: PlottedRows | None = None, highest: float = 0.0
) -> Any:
    """Draw a panel; return the mesh if it has two columns. `highest`: the top of a common scale of densities, or 0."""
    if len(one.columns) == 2:
        return _draw_plane(axis, one, names, float(np.log10(highest)) if highest > 0 else None)
    _draw_curve(axis, one, names, table, 1.06 * highest if highest > 0 else None)
    return None


def name_colours(figure: Any, shown: Any, axes: Any) -> Any:
    """Draw a colour bar beside the axes."""
    return figure.colorbar(shown, ax=axes, label="log$_{10}$ density", extend="min", pad=0.02)


def _draw_curve(axis: Any, one: Panel, names: tuple[str, ...], table: PlottedRows | None, top: float | None) -> None:
    """Draw a density of one column, in front of a histogram of rows."""
    from headrace.plot._figure import limit_ticks

    ends = float(one.edges[0][0]), float(one.edges[0][-1])
    if table is not None:
        rows = table.x[:, one.columns[0]]
        if len(rows) > 1:
            edges = planes.edges_of(ends, int(np.clip(np.sqrt(len(rows)), 8, 40)), rows)
            axis.stairs(planes.histogram(rows, edges, table.weights), edges, fill=True, color=BAND)
        else:
            axis.vlines(rows, 0.0, 0.12, color=BLUE, linewidth=1.4, transform=axis.get_xaxis_transform())
    axis.plot(one.middles[0], one.value, color=ORANGE, linewidth=1.6)
    axis.set(xlim=ends, ylim=(0.0, top), xlabel=label(names[one.columns[0]]), ylabel="density")
    limit_ticks(axis, 4, 3)


def _draw_plane(axis: Any, one: Panel, names: tuple[str, ...], top: float | None) -> Any:
    """Draw a density of two columns in colours, with contours that contain half and nine tenths of the mass."""
    from headrace.plot._figure import limit_ticks

    with np.errstate(divide="ignore"):
        logs = np.log10(one.value)
    finite = logs[np.isfinite(logs)]
    high = float(finite.max()) if top is None and finite.size else 0.0 if top is None else top
    low = min(max(high - DECADES, float(np.log10(one.floor))), high - 1.0) if one.floor else high - DECADES
    heights = np.maximum(np.where(np.isfinite(logs), logs, -np.inf), high - 10 * DECADES)
    shown = axis.pcolormesh(*one.edges, heights, cmap="viridis", vmin=low, vmax=high, rasterized=True)
    if levels := planes.levels_of(one.value, SHARES):
        axis.contour(*one.middles, one.value, levels=levels, colors="white", linewidths=0.9)
    a, b = one.columns
    axis.set(xlabel=label(names[a]), ylabel=label(names[b]))
    axis.set(xlim=(one.edges[0][0], one.edges[0][-1]), ylim=(one.edges[1][0], one.edges[1][-1]))
    limit_ticks(axis, 4, 4)
    return shown
