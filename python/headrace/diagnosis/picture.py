"""Pictures of a diagnosis, by matplotlib: six panels in colours that colour-blind readers can distinguish."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.layout import wrapped
from headrace._base.output import printable, replacing
from headrace._base.pictures import BAND, BLUE, GREY, INK, NAMED, NO_MATPLOTLIB, ORANGE, STYLE, can_draw
from headrace.diagnosis import bands
from headrace.diagnosis.distributions import normal_tail
from headrace.diagnosis.findings import LEVEL
from headrace.diagnosis.sizes import COLUMN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from headrace.diagnosis.record import Record

MOST_CURVES = 60  # the most curves of coordinates in a panel
MOST_COLUMNS = 12  # the most columns that a page shows: those in which rows and draws differ most
SMALL = 9  # font size of legends, in points: at least 10 px on a page with three panels in a row
_TIGHT: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.03}
BINS, COARSE_BINS, COARSE_BELOW = 20, 10, 200  # bins of histograms, and bins for fewer rows than COARSE_BELOW


@contextmanager
def figure_of(path: str, height: float) -> Iterator[Any]:
    """A context with a figure 11 inches wide, which is saved to a file at the end of the block."""
    if not can_draw():
        raise ImportError(NO_MATPLOTLIB)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, height), layout="constrained")
        yield figure
        with replacing(path) as stream:
            figure.savefig(stream, format=Path(path).suffix[1:].lower() or "png", dpi=130, **_TIGHT)


def draw(diagnosis: Record, path: str) -> None:
    """Draw all panels of a diagnosis to one file."""
    with figure_of(path, 12) as figure:
        for panel, axis in zip(_PANELS, figure.subplots(3, 2).flat, strict=True):
            panel(axis, diagnosis)
        title = "\n".join(wrapped(diagnosis.verdict, columns=100))
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)


def vector_panels(diagnosis: Record) -> list[str]:
    """An SVG element for each panel, to put into a page."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = []
    with mpl.rc_context(STYLE):
        for i, panel in enumerate(_PANELS):
            figure = Figure(figsize=(4.3, 3.5), layout="constrained")
            panel(figure.subplots(), diagnosis)
            panels.append(_svg(figure, f"headrace{i}"))
    return panels


def vector_columns(diagnosis: Record) -> tuple[list[str], int]:
    """SVG histograms of held-out rows and draws for at most `MOST_COLUMNS` columns, and the number of other columns."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    held, samples = diagnosis.held, diagnosis.samples
    if held is None or samples is None:
        return [], 0
    chosen = _most_different(held, samples)[:MOST_COLUMNS]
    panels = []
    with mpl.rc_context(STYLE):
        for i in sorted(chosen.tolist()):
            figure = Figure(figsize=(4.3, 2.6), layout="constrained")
            axis = figure.subplots()
            both = np.concatenate([held[:, i], samples[:, i][np.isfinite(samples[:, i])]])
            low, high = (float(end) for end in np.quantile(both, [0.001, 0.999]))
            low, high = (low, high) if high > low else (low - 0.5, low + 0.5)
            edges = np.linspace(low, high, 41)
            for part, style in ((held, {"fill": True, "color": BAND, "edgecolor": BLUE}), (samples, {"color": ORANGE})):
                share = 100.0 * np.histogram(part[:, i], edges)[0] / len(part)
                axis.stairs(share, edges, label="rows held out" if part is held else "draws", **style)
            axis.set(xlabel=_columns_of(diagnosis)[i], ylabel="% of rows", ylim=(0.0, None))
            axis.legend(frameon=False, fontsize=SMALL)
            panels.append(_svg(figure, f"headrace-column{i}"))
    return panels, held.shape[1] - len(panels)


def _most_different(held: NDArray[Any], samples: NDArray[Any]) -> NDArray[np.int64]:
    """The indices of columns, ordered by the Kolmogorov-Smirnov distance of rows and draws, the largest first."""
    away = []
    for a, b in zip(np.sort(held, axis=0).T, np.sort(samples, axis=0).T, strict=True):
        at = np.concatenate([a, b])
        shares = [np.searchsorted(part, at, side="right") / len(part) for part in (a, b)]
        away.append(np.abs(shares[0] - shares[1]).max())
    return np.argsort(-np.asarray(away), kind="stable")


def _svg(figure: Any, salt: str) -> str:
    """A figure as an SVG element; equal figures have equal texts."""
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, **_TIGHT)
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _empty(axis: Axes, title: str, why: str) -> None:
    axis.set(title=title, xticks=[], yticks=[])
    axis.text(0.5, 0.5, why, ha="center", va="center", color=GREY, transform=axis.transAxes)


def _band(axis: Axes, width: NDArray[Any], label: str) -> NDArray[Any]:
    at = np.linspace(0.0, 1.0, bands.POINTS + 1)
    axis.fill_between(at, -width, width, color=BAND, linewidth=0, label=label)
    axis.axhline(0.0, color=GREY, linewidth=0.8)
    return at


def _uniform(axis: Axes, diagnosis: Record, title: str) -> NDArray[Any] | None:
    """Probability integral transforms of latent rows, or None; without latent rows the panel gets a text."""
    if diagnosis.scores is None or not len(diagnosis.scores):
        _empty(axis, title, "a mixture has no latent rows" if diagnosis.kind == "Ensemble" else "no latent rows")
        return None
    return normal_tail(-diagnosis.scores)


def _ranks(axis: Axes, diagnosis: Record) -> None:
    """Draw the distribution function of each latent coordinate minus that of the base."""
    title = "Latent rows: observed minus expected"
    if (uniform := _uniform(axis, diagnosis, title)) is None:
        return
    rows, features = uniform.shape
    at = _band(axis, bands.curve_band(rows, features), "where all curves lie, 95 %")
    away = np.stack([bands.curve(column) for column in uniform.T]) - at
    order = bands.oddest(uniform)  # colours follow this order in all panels
    for i in order[len(NAMED) : MOST_CURVES][::-1]:
        axis.plot(at, away[i], color=GREY, linewidth=0.7, alpha=0.7)
    styles = ("-", "--", "-.")
    for i, colour, style in list(zip(order, NAMED, styles, strict=False))[::-1]:
        axis.plot(at, away[i], color=colour, linewidth=1.6, linestyle=style, label=_coordinate(diagnosis, int(i)))
    axis.set(title=title, xlabel="probability integral transform", ylabel="share", xlim=(0, 1))
    _legend(axis)


def _coordinate(diagnosis: Record, i: int) -> str:
    """The name of a latent coordinate in a legend, made from the column of the coordinate or the most correlated
    column.
    """
    label = diagnosis.labels[i] if i < len(diagnosis.labels) else ""
    if label.startswith(COLUMN):
        return f"column {_short(label.removeprefix(COLUMN))}"
    column = re.search(r"\(mostly columns? (.*)\)$", label)
    return f"coordinate {i}" if column is None else f"{i}, mostly {_short(column[1])}"


def _transforms(axis: Axes, diagnosis: Record) -> None:
    """Draw a histogram of the probability integral transforms of each latent coordinate."""
    title = "Latent rows in bins"
    if (uniform := _uniform(axis, diagnosis, title)) is not None:
        _histograms(axis, uniform, [_coordinate(diagnosis, i) for i in range(uniform.shape[1])])
        axis.set(title=title, xlabel="probability integral transform")


def _calibration(axis: Axes, diagnosis: Record) -> None:
    """Draw histograms of ranks among draws: of columns or, without context, of log densities."""
    if diagnosis.column_ranks is not None and len(diagnosis.column_ranks):
        _histograms(axis, diagnosis.column_ranks, _columns_of(diagnosis))
        axis.set(title="Columns among draws, in bins", xlabel="rank among draws with the same context")
        return
    title = "Log densities among draws, in bins"
    if diagnosis.regions is None or not len(diagnosis.regions):
        _empty(axis, title, "not tested")
        return
    _histograms(axis, diagnosis.regions[:, None], ["rows held out"])
    axis.set(title=title, xlabel="share of draws with a higher density")


def _columns_of(diagnosis: Record) -> list[str]:
    """The names of columns on axes and in legends."""
    plain = list(diagnosis.names) == [str(i) for i in range(len(diagnosis.names))]
    return [f"column {name}" if plain else _short(name) for name in diagnosis.names]


def _short(name: str) -> str:
    text = " ".join(printable(name).split()).replace("$", r"\$")
    return text if len(text) <= 20 else text[:19] + "…"


def _histograms(axis: Axes, uniform: NDArray[Any], names: list[str]) -> None:
    """Draw a histogram for each column and a band for all bins of all columns; colours show extreme columns."""
    rows, count = uniform.shape
    bins = BINS if rows >= COARSE_BELOW else COARSE_BINS
    edges = np.linspace(0.0, 1.0, bins + 1)
    heights = np.stack([np.histogram(column, edges)[0] for column in uniform.T])
    low, high = bands.histogram_band(rows, bins, histograms=count)
    what = "where all bins lie, 95 %"
    axis.fill_between([0.0, 1.0], low, high, color=BAND, linewidth=0, label=what)
    axis.axhline(rows / bins, color=GREY, linewidth=0.8)
    order = bands.oddest(uniform)  # colours follow this order in all panels
    for i in order[len(NAMED) : MOST_CURVES][::-1]:
        axis.stairs(heights[i], edges, baseline=None, color=GREY, linewidth=0.7, alpha=0.7)
    named = (BLUE,) if count == 1 else NAMED
    for i, colour, style in list(zip(order, named, ("-", "--", "-."), strict=False))[::-1]:
        axis.stairs(heights[i], edges, baseline=None, color=colour, linewidth=1.6, linestyle=style, label=names[int(i)])
    top = max(float(heights.max()), float(high))
    axis.set(xlim=(0, 1), ylim=(0, 1.35 * top), ylabel="rows")
    axis.legend(frameon=False, fontsize=SMALL, ncols=2, loc="upper center")


def _coverage(axis: Axes, diagnosis: Record) -> None:
    """Draw the coverage of regions of highest density and, with context, of balls around random points."""
    curves = 1 if diagnosis.point_ranks is None else 2
    title = "Coverage of regions of highest density" if curves == 1 else "Coverage of regions"
    if diagnosis.regions is None or not len(diagnosis.regions):
        _empty(axis, title, "not tested")
        return
    width = bands.curve_band(len(diagnosis.regions), curves)
    at = _band(axis, width, "where the curve lies, 95 %" if curves == 1 else "where both lie, 95 %")
    label = "rows held out" if diagnosis.point_ranks is None else "of highest density"
    axis.plot(at, bands.curve(diagnosis.regions) - at, color=BLUE, linewidth=1.8, label=label)
    if diagnosis.point_ranks is not None:
        away = bands.curve(diagnosis.point_ranks) - at
        axis.plot(at, away, color=ORANGE, linewidth=1.6, linestyle="--", label="around random points")
    axis.set(title=title, xlabel="share that a region claims", ylabel="observed minus claimed share", xlim=(0, 1))
    _legend(axis)


def _legend(axis: Axes) -> None:
    """Add a legend below the curves."""
    low, high = axis.get_ylim()
    most = max(abs(low), abs(high))
    axis.set_ylim(-1.45 * most, most)
    axis.legend(frameon=False, fontsize=SMALL, ncols=2, loc="lower center", handlelength=1.5, columnspacing=1.0)


def _log_densities(axis: Axes, diagnosis: Record) -> None:
    """Draw histograms of the log densities of held-out rows and of draws."""
    title = "Log densities of rows and of draws"
    held = diagnosis.log_prob[np.isfinite(diagnosis.log_prob)]
    drawn = None if diagnosis.drawn is None else diagnosis.drawn[np.isfinite(diagnosis.drawn)]
    if drawn is None or not drawn.size or not held.size:
        _empty(axis, title, "not drawn")
        return
    both = np.concatenate([held, drawn])
    low = min(np.quantile(held, 0.002), np.quantile(drawn, 0.002))
    edges: Any = np.linspace(low, both.max(), 41) if both.max() > low else [low - 0.5, low + 0.5]
    line = {"histtype": "step", "color": BLUE, "linewidth": 1.6, "label": "rows held out"}
    for part, style in ((drawn, {"color": BAND, "label": "draws"}), (held, line)):
        axis.hist(np.maximum(part, low), edges, weights=np.full(part.size, 100.0 / part.size), **style)
    axis.set(title=title, xlabel="log density, nats (the first bin holds all below)", ylabel="% of rows")
    axis.legend(frameon=False, fontsize=SMALL, loc="upper left")


def _p_values(axis: Axes, diagnosis: Record) -> None:
    """Draw the adjusted p-values of all tests, with the threshold of 5 %."""
    title = "Tests, by Holm's method"
    if not diagnosis.tests:
        _empty(axis, title, "nothing was tested")
        return
    tests = sorted(diagnosis.tests, key=lambda test: test.p_value, reverse=True)
    least = 1e-6
    for i, test in enumerate(tests):
        value, colour = max(test.adjusted, least), ORANGE if test.misses else BLUE
        axis.plot([value, 1.0], [i, i], color=colour, linewidth=1.2, alpha=0.6)
        marker = "<" if test.adjusted < least else "X" if test.misses else "o"
        axis.plot(value, i, marker, color=colour, markersize=8, clip_on=False)
    axis.axvline(LEVEL, color=INK, linewidth=0.9, linestyle=":")
    axis.text(0.85 * LEVEL, -0.5, "5 %", ha="right", va="bottom", fontsize=SMALL, color=INK)
    axis.set_xscale("log")
    axis.set_xticks([1e-6, 1e-4, 1e-2, 1.0], ["1e-6", "1e-4", "0.01", "1"])  # exponents would be too small on a page
    axis.set(title=title, xlim=(least / 1.6, 1.5), ylim=(-0.6, len(tests) - 0.4))
    axis.set_xlabel("p-value")
    axis.set_yticks(range(len(tests)), [test.name for test in tests])
    axis.tick_params(axis="y", length=0)
    axis.minorticks_off()


_PANELS = (_log_densities, _ranks, _transforms, _coverage, _calibration, _p_values)


SPREAD = 1.96  # standard deviations that contain 95 % of a normal distribution


def draw_sequences(diagnosis: Any, path: str) -> None:
    """Draw all panels of a `SequenceDiagnosis` to one file."""
    with figure_of(path, 8) as figure:
        first, second, third, fourth = figure.subplots(2, 2).flat
        _shares(first, diagnosis.integral_transform)
        _lags(second, diagnosis.autocorrelation, diagnosis.pairs, "Autocorrelation of latent steps")
        _lags(third, diagnosis.autocorrelation_of_sizes, diagnosis.pairs, "Autocorrelation of their sizes")
        _loudness(fourth, diagnosis.loudness)


def _shares(axis: Axes, counts: NDArray[np.float64]) -> None:
    """Draw the shares of latent steps in cells of equal probability, for each feature."""
    cells = len(counts)
    total = counts.sum(axis=0)
    width = SPREAD * np.sqrt((1.0 - 1.0 / cells) / (cells * total.min()))
    axis.axhspan(1.0 / cells - width, 1.0 / cells + width, color=BAND, label="95 % of independent steps")
    for i, share in enumerate((counts / total).T):
        axis.stairs(share, np.linspace(0.0, 1.0, cells + 1), color=BLUE if i == 0 else GREY)
    axis.set(title="Distribution of latent steps", ylabel="share", ylim=(0, None))
    axis.set_xlabel("probability integral transform")
    axis.legend(frameon=False, loc="lower right")


def _lags(axis: Axes, values: NDArray[np.float64], pairs: NDArray[np.int64], title: str) -> None:
    """Draw correlations by lag, with a band that contains 95 % of those of independent steps."""
    lags = np.arange(1, len(values) + 1)
    width = SPREAD / np.sqrt(np.maximum(pairs, 1))
    axis.fill_between(lags, -width, width, color=BAND, linewidth=0)
    for i, line in enumerate(values.T):
        axis.plot(lags, line, color=BLUE if i == 0 else GREY, marker=".", linewidth=0.8)
    axis.axhline(0.0, color=GREY, linewidth=0.8)
    axis.set(title=title, xlabel="steps between", ylabel="correlation")


def _loudness(axis: Axes, classes: tuple[tuple[float, float, float], ...]) -> None:
    """Draw the mean log density of a step for classes of loudness."""
    names = [f"{low:.2g} to {high:.2g}" for low, high, _ in classes]
    axis.plot(names, [nats for *_, nats in classes], color=BLUE, marker="o", linewidth=0.8)
    axis.set(title="Log density by loudness", ylabel="nats a step")
    axis.set_xlabel("root of the mean square, in standard deviations")
    axis.tick_params(axis="x", labelsize=8)
