"""Pictures of latent rows, whose coordinates should be normal and independent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.pictures import BAND, BLUE, ORANGE
from headrace._base.rng import Rng, takes_rng
from headrace._flow.flow import Flow
from headrace.diagnosis import bands
from headrace.diagnosis.distributions import normal_tail
from headrace.diagnosis.latent import scores
from headrace.plot import _planes as planes
from headrace.plot._source import columns_of, density_of, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 5  # the number of coordinates shown by default: those farthest from normal
MOST_SHOWN = 12
SHARES = (0.5, 0.9, 0.99)
POINTS = 3000


@takes_rng
def latent(flow: Any, x: Any, context: Any = None, *, columns: Any = None, seed: int = 0, rng: Rng = None) -> Figure:
    """Draw latent rows, two coordinates at a time, beside the standard normal density that the rows should follow.

    Circles contain 50, 90 and 99 % of a normal density. Latent values under a base that is not normal are mapped to
    normal values with the same probability.

    Args:
        flow: A flow, a fitted `FlowDensity`, or the path of a file; an ensemble has no latent rows.
        x: Rows, shape (rows, features), preferably rows that the fit has not seen.
        context: As in `Flow.log_prob`.
        columns: The latent coordinates to draw, by number; by default the five farthest from normal, in ascending
            order.
        seed: The seed of the choice of points.
        rng: A generator or seed in place of `seed`; see `Flow.sample`.

    Returns:
        A matplotlib ``Figure``.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError, ValueError: an argument is not as expected, the density is an ensemble, or no row has a latent value.

    >>> import numpy as np, headrace as hr
    >>> figure = hr.plot.latent(hr.MAF(2), np.random.default_rng(0).standard_normal((100, 2)))
    >>> [axis.get_xlabel() for axis in figure.axes]
    ['', 'latent 0', 'latent 1']
    """
    require()
    source = density_of(flow)
    if not isinstance(source.flow, Flow):
        raise TypeError("flow: expected a flow, got an ensemble, which has no latent rows; take one of its members")
    key = check.integer("seed", seed, most=2**63 - 1)
    table = source.rows(x, source.flow.context, context)
    z = np.asarray(source.flow.to_latent(table.x, table.context)[0])
    score = scores(source.flow.base, z, key)
    score = score[np.isfinite(score).all(axis=1)]
    if not len(score):
        raise ValueError("x: expected rows with latent ones, got none whose latent numbers are finite")
    names = tuple(f"latent {i}" for i in range(source.flow.features))
    farthest = bands.oddest(normal_tail(-score))[:SHOWN].tolist()
    chosen = sorted(farthest) if columns is None else columns_of(columns, names)
    if len(chosen) > MOST_SHOWN:
        raise ValueError(f"columns: expected at most {MOST_SHOWN}, got {len(chosen)}")
    some = score if len(score) <= POINTS else np.random.default_rng(key).permutation(score)[:POINTS]
    return _draw(score[:, chosen], some[:, chosen], [names[i] for i in chosen])


def _draw(score: NDArray[Any], shown: NDArray[Any], names: list[str]) -> Figure:
    from headrace.plot import _figure

    n = len(names)
    reach = max(4.2, min(float(np.abs(shown).max()) * 1.05, 8.0))
    line = np.linspace(-reach, reach, 300)
    turn = np.linspace(0.0, 2.0 * np.pi, 200)
    with _figure.styled():
        side = 3.2 if n == 1 else 2.0
        figure = _figure.Picture(figsize=(side * n + 0.8, side * n + 0.9), layout="constrained")
        places = figure.add_gridspec(n, n)
        for i in range(n):
            for j in range(i + 1):
                axis = figure.add_subplot(places[i, j])
                axis.set_xlim(-reach, reach)
                if i == j:
                    edges = np.linspace(-reach, reach, int(np.clip(np.sqrt(len(score)), 8, 40)) + 1)
                    clipped = np.clip(score[:, i], -reach, reach)
                    axis.stairs(planes.histogram(clipped, edges), edges, fill=True, color=BAND, edgecolor=BLUE)
                    axis.plot(line, np.exp(-0.5 * line**2) / np.sqrt(2.0 * np.pi), color=ORANGE, linewidth=1.4)
                    axis.set_yticks([])
                    axis.spines["left"].set_visible(False)
                else:
                    points = np.clip(shown[:, [j, i]], -reach, reach)
                    size = 3.0 if len(points) > 300 else 10.0
                    x, y = points.T
                    axis.scatter(x, y, s=size, color=BLUE, alpha=0.4, linewidths=0, rasterized=True)
                    for share in SHARES:
                        radius = np.sqrt(-2.0 * np.log1p(-share))
                        axis.plot(radius * np.cos(turn), radius * np.sin(turn), color=ORANGE, linewidth=1.0)
                    axis.set(ylim=(-reach, reach), aspect="equal")
                _figure.limit_ticks(axis, 4, None if i == j else 4)
                axis.set_xlabel(names[j] if i == n - 1 else "")
                axis.set_ylabel(names[i] if j == 0 and i else "")
                axis.tick_params(labelbottom=i == n - 1, labelleft=j == 0 and i > 0)
        _legend(figure)
    return figure


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    rows = Patch(facecolor=BAND, edgecolor=BLUE, label="rows")
    handles = [rows, Line2D([], [], color=ORANGE, label="standard normal")]
    figure.legend(handles=handles, loc="outside upper right", frameon=False, ncols=2)
