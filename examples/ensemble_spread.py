"""Where not to trust a density: five flows that saw few rows agree where the rows were, and nowhere else.

Rows come from a known density: a ring with a gap. Five flows are fitted to the same few rows from different seeds, as
one `Ensemble`. The example prints the mean log-likelihood of new rows, of the mixture and of its members, and the
spread, which is the standard deviation of the members' log densities: for new rows, and for points far from all rows.
Far from all rows the log densities are wrong by many nats, and a large spread shows this without the truth.

    python examples/ensemble_spread.py [--rows 500] [--members 5] [--epochs N] [--output ensemble_spread.png]

`--output` draws the truth, the mixture and the spread, and needs matplotlib.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr

RADIUS, WIDTH, GAP = 3.0, 0.3, 1.2  # the ring, and half the angle of the gap at the right
NEW = 5000  # new rows
EDGE = 5.0  # half the width of the picture, and of the square of points

Rows = NDArray[Any]


def draw_rows(n: int, rng: np.random.Generator) -> Rows:
    """Rows on the ring: angles are uniform outside of the gap, and radii normal."""
    angle, radius = rng.uniform(GAP, 2.0 * np.pi - GAP, n), rng.normal(RADIUS, WIDTH, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def true_log_prob(x: Rows) -> Rows:
    """The true log density, -inf in the gap. Radii below 0, ten deviations away, are left out."""
    radius, angle = np.hypot(*x.T), np.abs(np.arctan2(x[:, 1], x[:, 0]))
    log_prob = -0.5 * ((radius - RADIUS) / WIDTH) ** 2 - np.log(WIDTH * np.sqrt(2.0 * np.pi) * radius)
    return np.where(angle > GAP, log_prob - np.log(2.0 * (np.pi - GAP)), -np.inf)


def draw(path: Path, ensemble: hr.Ensemble, x: Rows) -> None:
    """Draw the rows and the truth, the mixture, and the spread."""
    from matplotlib.figure import Figure

    line = np.linspace(-EDGE, EDGE, 200)
    grid = np.stack(np.meshgrid(line, line), axis=-1)
    with np.errstate(divide="ignore"):
        truth = true_log_prob(grid.reshape(-1, 2)).reshape(grid.shape[:2])
    panels = {
        "the truth, and the rows": (np.exp(truth), None, "Blues"),
        "the ensemble's density": (np.exp(ensemble.log_prob(grid)), None, "Blues"),
        "spread of log densities, nats": (ensemble.spread(grid), 3.0, "Reds"),
    }
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    for axis, (title, (values, most, colours)) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        image = axis.imshow(values, origin="lower", extent=(-EDGE, EDGE) * 2, vmin=0.0, vmax=most, cmap=colours)
        axis.set(title=title)
        figure.colorbar(image, ax=axis)
    figure.axes[0].plot(*x.T, "k.", markersize=2)
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the spread does not distinguish points without rows from rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="as `fit` chooses by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    rng = np.random.default_rng(options.seed)
    x, new = draw_rows(options.rows, rng), draw_rows(NEW, rng)
    flows = [hr.NSF(2, transforms=3, seed=options.seed + i) for i in range(options.members)]
    ensemble = hr.Ensemble(flows)
    ensemble.fit(x, epochs=options.epochs, seed=options.seed)

    each = [float(flow.log_prob(new).mean(dtype="f8")) for flow in ensemble]
    print(f"{options.rows} rows; mean log-likelihood of {NEW} new ones, {true_log_prob(new).mean():.3f} by the truth:")
    print(f"  members {np.mean(each):.3f} on average, the best {max(each):.3f}   ensemble {mean(ensemble, new):.3f}")
    places = rng.uniform(-EDGE, EDGE, (NEW, 2))
    with np.errstate(divide="ignore"):
        empty = places[true_log_prob(places) < -12.0]
    near, far = (float(np.median(ensemble.spread(part))) for part in (new, empty))
    print(f"median spread, nats: new rows {near:.2f}   places that no row comes from {far:.2f}")
    if options.output:
        draw(options.output, ensemble, x)
    return 0 if far > 3.0 * near else 1


def mean(density: Any, x: Rows) -> float:
    """The mean log-likelihood."""
    return float(density.log_prob(x).mean(dtype="f8"))


if __name__ == "__main__":
    sys.exit(main())
