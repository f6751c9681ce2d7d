"""Few rows: a flow of thirty rows, or of three hundred, with and without the care that `fit` takes.

A flow has thousands of weights. Trained for long on few rows, a flow memorises the rows, and gives new rows a density
that is lower by whole nats. Without `epochs`, `fit` chooses the length of training by rows held out, and keeps the
Gaussian of the rows where no flow is better. The true densities are known: a normal density, for which a Gaussian is
the best model, and a bent one. For each number of rows the example compares three fits: the Gaussian, a flow trained
for 200 epochs whatever the rows, and a flow with the choices of `fit`. The example prints the loss of each fit in the
mean log-likelihood of new rows, in nats: medians of several tables.

    python examples/few_rows.py [--tables 3] [--rows 30 100 300 1000] [--output few_rows.png]

`--output` draws the losses, and needs matplotlib. The exit status is 0 if the choices of `fit` gain with the fewest
rows of each density, and if its flow is better than the Gaussian with the most rows of the bent density.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr

FEATURES, NEW, EPOCHS, BEND = 3, 5000, 200, 1.0

Rows = NDArray[Any]


def normal(n: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Correlated normal rows, and their log densities."""
    z = rng.standard_normal((n, FEATURES))
    log_prob = -0.5 * np.square(z).sum(axis=1) - 0.5 * FEATURES * np.log(2.0 * np.pi)
    return z @ (np.eye(FEATURES) + 0.5 * np.tri(FEATURES, k=-1)).T, log_prob


def bent(n: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Rows in which each coordinate is moved by the square of the previous one, which keeps volumes."""
    x, log_prob = normal(n, rng)
    for i in range(FEATURES - 1, 0, -1):
        x[:, i] += BEND * x[:, i - 1] ** 2
    return x, log_prob


def gaussian_log_prob(x: Rows, new: Rows) -> Rows:
    """Log densities of new rows under the Gaussian of x."""
    mean, root = x.mean(axis=0), np.linalg.cholesky(np.cov(x.T))
    z = np.linalg.solve(root, (new - mean).T)
    log_prob: Rows = (
        -0.5 * np.square(z).sum(axis=0) - np.log(np.diag(root)).sum() - 0.5 * FEATURES * np.log(2.0 * np.pi)
    )
    return log_prob


def flow_log_prob(x: Rows, new: Rows, epochs: int | None, seed: int) -> Rows:
    """Log densities of new rows under a flow that was fitted to x."""
    flow = hr.NSF(FEATURES, transforms=2, hidden=(32, 32), dtype="float64", seed=seed)
    held_out = 0.1 if epochs is None else None
    flow.fit(x, epochs=epochs, validation=held_out, seed=seed, progress=False)
    log_prob: Rows = flow.log_prob(new)
    return log_prob


FITS: dict[str, Callable[[Rows, Rows, int], Rows]] = {
    "the Gaussian": lambda x, new, seed: gaussian_log_prob(x, new),
    f"a flow, {EPOCHS} epochs": lambda x, new, seed: flow_log_prob(x, new, EPOCHS, seed),
    "a flow, as fit chooses": lambda x, new, seed: flow_log_prob(x, new, None, seed),
}
DENSITIES = {"normal rows": normal, "bent rows": bent}


def draw(path: Path, counts: list[int], losses: dict[str, dict[str, list[float]]]) -> None:
    """Draw the losses by the number of rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, len(losses))
    for axes, (density, of_fits) in zip(panels, losses.items(), strict=True):
        for colour, mark, (name, lost) in zip(("#000000", "#d55e00", "#0072b2"), "sxo", of_fits.items(), strict=True):
            axes.plot(counts, np.maximum(lost, 1e-3), marker=mark, color=colour, label=name)
        axes.set(title=density, xlabel="rows", ylabel="lost, nats a row", xscale="log", yscale="log")
    panels[0].legend()
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    """Fit, print and draw; return 0 if the choices of `fit` gain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[30, 100, 300, 1000])
    parser.add_argument("--tables", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(argv)

    losses: dict[str, dict[str, list[float]]] = {}
    for density, rows_of in DENSITIES.items():
        print(f"{density}: lost of the mean log-likelihood of {NEW} new rows, nats")
        print(" " * 24 + "".join(f"{n:>9} rows" for n in arguments.rows))
        losses[density] = {}
        for name, fitted in FITS.items():
            lost = []
            for n in arguments.rows:
                of_tables = []
                for table in range(arguments.tables):
                    rng = np.random.default_rng([arguments.seed, table, n])
                    (x, _), (new, truth) = rows_of(n, rng), rows_of(NEW, rng)
                    of_tables.append(float(np.mean(truth - fitted(x, new, table))))
                lost.append(float(np.median(of_tables)))
            losses[density][name] = lost
            print(f"  {name:22}" + "".join(f"{value:14.3f}" for value in lost))
    if arguments.output:
        draw(arguments.output, arguments.rows, losses)
    plain, long, careful = (np.array([of[name] for of in losses.values()]) for name in FITS)
    return 0 if (careful[:, 0] < long[:, 0]).all() and careful[-1, -1] < plain[-1, -1] - 0.1 else 1


if __name__ == "__main__":
    sys.exit(main())
