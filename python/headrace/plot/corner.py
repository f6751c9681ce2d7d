"""Corner plots: rows and samples of a density, in panels of two columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from headrace._arrays.frames import names_of as names_of_frame
from headrace._base import arguments as check
from headrace._base import clients
from headrace._base.pictures import BAND, BLUE, INK, ORANGE
from headrace._base.rng import Rng, takes_rng
from headrace.plot import _planes as planes
from headrace.plot import _source

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_COLUMNS = 20
MARKS_BELOW = 25  # fewer rows than this are drawn as separate marks, and not counted in bins
SHARES = (0.5, 0.9)  # the shares of samples that contours contain


@takes_rng
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
    titles: bool = False,
    truths: Any = None,
    range: Any = None,
    fig: Any = None,
    seed: int = 0,
    rng: Rng = None,
) -> Figure:
    """Draw all pairs of columns: rows as points, and a density's samples as contours; marginals on the diagonal.

    Contours contain 50 % and 90 % of the samples. Axes have the data's units.

    Args:
        flow: A flow, an ensemble, a fitted `FlowDensity`, the path of a file, a posterior of sbi, whose network draws,
            or a result of `accelerate`; or rows, shape (rows, features), which replace the draws.
        x: Rows to compare with, shape (rows, features), or None.
        context: For a conditional density: one row, shape (context,), for all draws, or rows, (rows, context), of x or
            for draws alone: each draw has the context of a random row.
        weights: The weights of x, shape (rows,). Points are chosen with probabilities proportional to the weights.
        columns: The columns to draw, by number or name, at most 20; by default all.
        names: The names of all columns; by default those of the frame x, or of the `FlowDensity` or file.
        draws: The number of draws.
        points: The largest number of rows that are shown as points.
        labels: The names of x and of the draws in the legend.
        titles: Whether each marginal has a title: the median of the draws, and its distances to the quantiles of 84.1 %
            and 15.9 %, so that the smaller distance has two digits.
        truths: Values of all columns, shape (features,), or a dict by name, drawn as lines. None or NaN for a column
            without a value.
        range: The ends of axes: the share of draws and of rows within each axis, such as 0.99, or a pair
            ``(low, high)`` for each column, or a dict of pairs by name. None for a column with automatic ends.
        fig: An empty matplotlib ``Figure`` to draw into, which keeps its size; by default a new figure.
        seed: The seed of the draws and of the choice of points.
        rng: A generator or seed in place of `seed`; see `Flow.sample`.

    Returns:
        A matplotlib ``Figure``, which is `fig` if given.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: an argument is not as expected, or rows are not finite.

    >>> import numpy as np, headrace as hr
    >>> figure = hr.plot.corner(hr.MAF(3), np.zeros((5, 3)), names=["a", "b", "c"], draws=100)
    >>> [axis.get_xlabel() for axis in figure.axes[-3:]]
    ['a', 'b', 'c']
    """
    _source.require()
    n = check.integer("draws", draws, least=1)
    most = check.integer("points", points, least=1)
    key = check.integer("seed", seed, most=2**63 - 1)
    drawn, table, known = _both(flow, x, context, weights, n, key)
    name = _source.names_of(drawn.shape[1], names, x if x is not None else flow, known)
    chosen = _source.columns_of(columns, name)
    if len(chosen) > MOST_COLUMNS:
        raise ValueError(f"columns: expected at most {MOST_COLUMNS}, got {len(chosen)}; choose some by columns=")
    shown = None if table is None else table.some(most, key)[:, chosen]
    whole = None if table is None else _source.PlottedRows(table.x[:, chosen], None, table.weights)
    labelled = [_source.label(name[i], _room(len(chosen))) for i in chosen]
    ends = _ends(range, name, chosen, drawn, None if table is None else table.x)
    frame = Frame(labelled, ends, _truths(truths, name, chosen), titles)
    return _draw(drawn[:, chosen], shown, whole, frame, labels, _empty_figure(fig))


@dataclass(frozen=True)
class Frame:
    """The name, the ends of the axis and the true value of each column of the picture; and whether there are titles."""

    names: list[str]
    ends: list[tuple[float, float]]
    truths: list[float | None]
    titles: bool


def _by_column(argument: str, value: Any, names: tuple[str, ...]) -> list[Any]:
    """A list with an entry for each column, from a sequence or from a dict by name."""
    if isinstance(value, Mapping):
        for name in value:
            if name not in names:
                raise ValueError(f"{argument}: expected names among {', '.join(map(repr, names))}, got {name!r}")
        return [value.get(name) for name in names]
    if isinstance(value, str) or not np.iterable(value):
        raise TypeError(f"{argument}: expected an entry for each column or a dict by name, got {check.kind_of(value)}")
    found = list(value)
    check.length(argument, found, len(names))
    return found


def _truths(truths: Any, names: tuple[str, ...], chosen: list[int]) -> list[float | None]:
    if truths is None:
        return [None] * len(chosen)
    entries = _by_column("truths", truths, names)
    found: list[float | None] = []
    for i in chosen:
        try:
            value = np.nan if entries[i] is None else float(entries[i])
        except (TypeError, ValueError):
            got = f"{type(entries[i]).__name__} {entries[i]!r}"
            raise TypeError(f"truths[{i}]: expected a number or None, got {got}") from None
        found.append(value if np.isfinite(value) else None)
    return found


def _ends(
    wanted: Any, names: tuple[str, ...], chosen: list[int], drawn: NDArray[Any], rows: NDArray[Any] | None
) -> list[tuple[float, float]]:
    """The ends of each axis: those in `wanted`, or the ends of a central share of all values, or of nearly all."""
    share = None
    entries: list[Any] = [None] * len(names)
    if isinstance(wanted, (int, float, np.floating)):
        share = check.number("range", wanted, above=0.0, below=np.nextafter(1.0, 2.0))
    elif wanted is not None:
        entries = _by_column("range", wanted, names)
    found = []
    for i in chosen:
        parts = [drawn[:, i]] if rows is None else [drawn[:, i], rows[:, i]]
        if entries[i] is not None:
            found.append(_pair_of_ends(f"range[{i}]", entries[i]))
        elif share is not None:
            tails = [np.nanquantile(part, [0.5 - share / 2, 0.5 + share / 2]) for part in parts]
            found.append(planes.range_of(np.concatenate(tails)))
        else:
            found.append(planes.range_of(*parts))
    return found


def _pair_of_ends(argument: str, value: Any) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in value)
    except (TypeError, ValueError):
        raise TypeError(f"{argument}: expected a pair (low, high) or None, got {value!r}") from None
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"{argument}: expected finite numbers, the first below the second, got {value!r}")
    return low, high


def _empty_figure(fig: Any) -> Figure | None:
    """The caller's figure, which must be empty, or None."""
    if fig is None:
        return None
    from matplotlib.figure import FigureBase

    if not isinstance(fig, FigureBase):
        raise TypeError(f"fig: expected a matplotlib Figure, got {check.kind_of(fig)}")
    axes: Any = fig.axes
    if axes:
        raise ValueError(f"fig: expected an empty figure, got one with {len(axes)} axes; call fig.clear()")
    return cast("Figure", fig)


def _both(
    flow: Any, x: Any, context: Any, weights: Any, n: int, seed: int
) -> tuple[NDArray[Any], _source.PlottedRows | None, tuple[str, ...] | None]:
    """Return the plotted rows (draws of the density, or given rows), rows to compare with or None, and column names."""
    if not (isinstance(flow, (str, bytes)) or hasattr(flow, "__fspath__")) and _is_rows(flow):
        if context is not None:
            raise ValueError("context: expected None, because no density is given, got an array")
        drawn = _source.rows_of(flow, None).x
        first = names_of_frame(flow, drawn.shape[1])
        known = None if first is None else tuple(first)
        table = None if x is None else _source.rows_of(_source.in_order(x, known), drawn.shape[1], weights=weights)
        return drawn, table, known
    flow, context = clients.opened(flow, context)
    source: _source.Drawn = _source.density_of(flow)
    contexts = source.flow.context
    rng = np.random.default_rng([seed, 0x636F726E])
    if x is None and weights is not None:
        raise ValueError("weights: expected None without x, got an array")
    table = None if x is None else source.given(x, contexts, context, weights)
    given = table.context if table is not None else None if context is None else np.asarray(context, np.float64)
    if given is not None and given.ndim == 2:
        share = None if table is None or table.weights is None else table.weights / table.weights.sum()
        given = given[0] if len(given) == 1 else given[rng.choice(len(given), n, p=share)]
    drawn = source.sample(n, given, seed)
    if source.columns.matter:
        return source.columns.used.back(drawn), table, source.columns.used_names
    return drawn, table, source.columns.kept_names


def _is_rows(flow: Any) -> bool:
    is_table = hasattr(flow, "__array__") or hasattr(flow, "columns") or isinstance(flow, (list, tuple))
    return is_table and not hasattr(flow, "flow_") and not hasattr(flow, "log_prob")


def _side(columns: int) -> float:
    """The side length of a panel, in inches."""
    return 3.4 if columns == 1 else max(1.25, 2.3 - 0.12 * columns)


def _room(columns: int) -> int:
    """The number of letters that fit beside a panel."""
    return int(_side(columns) / (0.072 if columns > 4 else 0.085))


def _draw(
    drawn: NDArray[Any],
    shown: NDArray[Any] | None,
    whole: _source.PlottedRows | None,
    frame: Frame,
    labels: tuple[str, str],
    own: Figure | None,
) -> Figure:
    from headrace.plot import _figure

    n, ends = len(frame.names), frame.ends
    side = _side(n)
    with _figure.styled():
        title = 0.25 if frame.titles else 0.0
        left, right, low, high = 0.9, 0.15, 0.8, title + (0.15 if n > 2 else 0.45)  # the margins, in inches
        # Margins are set without matplotlib's layout engine, which takes seconds for fifty panels.
        figure = own or _figure.Picture(figsize=(side * n + left + right, side * n + low + high))
        across, down = figure.bbox.width / figure.dpi, figure.bbox.height / figure.dpi
        gap = 0.1 if not frame.titles else 0.1 + 0.25 / side
        sides = (left / across, low / down, 1.0 - right / across, 1.0 - high / down)
        figure.subplots_adjust(*sides, wspace=0.1, hspace=gap)
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
                _mark(axis, frame.truths[j], None if i == j else frame.truths[i])
                _label(axis, i, j, frame.names)
                axis.set_xlim(*ends[j])
                if i == j and frame.titles:
                    axis.set_title(summary(drawn[:, i]), fontsize=8 if n > 4 else 10)
        _legend(figure, axes, n, labels, whole is not None, len(drawn))
    return figure


def _alone(axis: Any, drawn: NDArray[Any], whole: _source.PlottedRows | None, i: int, ends: Any) -> None:
    """Draw one column: rows as a filled histogram, draws as a line; a few rows or draws as single marks."""
    rows, weights = (None, None) if whole is None else (whole.x[:, i], whole.weights)
    many = len(drawn) >= MARKS_BELOW
    edges = planes.edges_of(ends, 40 if many else 15, rows, drawn if many else None)
    if rows is not None and len(rows) >= MARKS_BELOW:
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


def _pair(axis: Any, drawn: NDArray[Any], shown: Any, ends: Sequence[tuple[float, float]]) -> None:
    """Draw two columns: rows as points, and contours of the draws above the points."""
    if shown is not None:
        size = 3.0 if len(shown) > 300 else 8.0 if len(shown) > 30 else 16.0
        alpha = 0.35 if len(shown) > 300 else 0.8
        axis.scatter(*shown.T, s=size, color=BLUE, alpha=alpha, linewidths=0, rasterized=True)
    bins = int(np.clip(np.sqrt(len(drawn)) / 2.2, 12, 64))
    edges = tuple(np.linspace(*end, bins + 1) for end in ends)
    density = planes.plane(drawn[:, 0], drawn[:, 1], (edges[0], edges[1]))
    levels = planes.levels_of(density, SHARES) if len(drawn) >= MARKS_BELOW else []
    if levels:
        middles = [0.5 * (edge[1:] + edge[:-1]) for edge in edges]
        axis.contour(*middles, density, levels=levels, colors=ORANGE, linewidths=[1.0, 1.5][-len(levels) :])
    if not levels or shown is None:
        subset = drawn[: 2000 if levels else 500]
        size, alpha = (2.0, 0.25) if levels else (10.0, 0.8)
        axis.scatter(*subset.T, s=size, color=ORANGE, alpha=alpha, linewidths=0, zorder=0)
    axis.set_ylim(*ends[1])


def _mark(axis: Any, across: float | None, up: float | None) -> None:
    """Draw lines at true values, and a mark where two of the lines cross."""
    if across is not None:
        axis.axvline(across, color=INK, linewidth=1.0)
    if up is not None:
        axis.axhline(up, color=INK, linewidth=1.0)
    if across is not None and up is not None:
        axis.plot(across, up, "s", color=INK, markersize=4)


def summary(values: NDArray[Any]) -> str:
    """The median and its distances to the 15.9 % and 84.1 % quantiles, in TeX notation.

    >>> import numpy as np
    >>> summary(np.linspace(10.0, 20.0, 1001))
    '$15.0^{+3.4}_{-3.4}$'
    """
    low, middle, high = np.nanquantile(values, [0.15866, 0.5, 0.84134])
    least = min(high - middle, middle - low)
    if not least > 0:
        return f"${middle:.4g}^{{+{high - middle:.2g}}}_{{-{middle - low:.2g}}}$"
    digits = 1 - int(np.floor(np.log10(least)))
    if digits > 6 or digits < -4:
        power = int(np.floor(np.log10(max(abs(middle), least))))
        unit, digits = 10.0**power, max(digits + power, 0)
        inner = f"{middle / unit:.{digits}f}^{{+{(high - middle) / unit:.{digits}f}}}"
        return rf"$({inner}_{{-{(middle - low) / unit:.{digits}f}}})\times 10^{{{power}}}$"
    shown = max(digits, 0)
    rounded = [float(np.round(one, digits)) for one in (middle, high - middle, middle - low)]
    return f"${rounded[0]:.{shown}f}^{{+{rounded[1]:.{shown}f}}}_{{-{rounded[2]:.{shown}f}}}$"


def _label(axis: Any, i: int, j: int, names: list[str]) -> None:
    """Label the axes of a panel: only panels at the left and at the bottom have names and tick labels."""
    from headrace.plot._figure import limit_ticks

    n = len(names)
    limit_ticks(axis, 3 if n > 4 else 4, None if i == j else 4, prune="both" if n > 1 else None)
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
    text = labels[1] if n == 1 or drawn < MARKS_BELOW else f"{labels[1]}; contours hold {holding} %"
    handles.append(Line2D([], [], color=ORANGE, linewidth=1.5, label=text))
    figure.legend(handles=handles, loc="upper right", frameon=False, labelcolor=INK, ncols=1 if n > 2 else 2)
