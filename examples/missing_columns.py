"""Missing columns: four of a shower's ten values, drawn from their density given the other six (data/README.md).

A flow whose transforms share one order of columns is fitted to gamma rays of the MAGIC telescope. The last four columns
of held-out rows are removed, and drawn again from their exact density given the first six, `Flow.given`. The example
prints the mean log density of the removed values, beside that of a Gaussian, and the share of removed values in the
central 90 % of the draws for their row.

    python examples/missing_columns.py [--epochs N] [--time-budget 60] [--draws 200] \
        [--seed 0] [--output missing_columns.png]

`--output` draws the values of a few rows, and needs matplotlib.
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

DATA = Path(__file__).parent / "data" / "magic.npz"
KNOWN = 6  # known columns
HELD_OUT = 2000  # rows held out
SHOWN = 4
MISSING = ("asymmetry", "third moment across", "angle", "distance")

Rows = NDArray[Any]


def load_gammas() -> Rows:
    """Gammas, shape (12332, 10); the columns are ordered so that the first ones are known: size, concentration and the
    third moment along the shower."""
    with np.load(DATA) as file:
        gammas: Rows = file["gamma"].T
    return gammas[:, [0, 1, 2, 3, 4, 6, 5, 7, 8, 9]]


def gaussian_log_prob(train: Rows, known: Rows, missing: Rows) -> Rows:
    """The log density of the missing columns given the others, if all were normal: around a line, with one
    covariance."""
    mean, covariance = train.mean(axis=0, dtype="f8"), np.cov(train.T)
    gain = np.linalg.solve(covariance[:KNOWN, :KNOWN], covariance[:KNOWN, KNOWN:]).T
    left = covariance[KNOWN:, KNOWN:] - gain @ covariance[:KNOWN, KNOWN:]
    away = missing - mean[KNOWN:] - (known - mean[:KNOWN]) @ gain.T
    square = (away * np.linalg.solve(left, away.T).T).sum(axis=1)
    return np.asarray(-0.5 * (square + np.linalg.slogdet(2.0 * np.pi * left)[1]))


def draw(path: Path, draws: Rows, missing: Rows) -> None:
    """Draw samples of two missing columns for a few rows, with the removed values."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.4), layout="constrained")
    for i, axis in enumerate(figure.subplots(1, SHOWN, sharex=True, sharey=True)):
        axis.plot(*draws[:, i, 2:].T, ".", markersize=3, color="tab:blue", alpha=0.5, label="drawn")
        axis.plot(*missing[i, 2:], "*", markersize=14, color="tab:red", label="taken away")
        axis.set(title=f"shower {i}", xlabel=MISSING[2])
    figure.axes[0].set_ylabel(MISSING[3])
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the flow predicts the missing values worse than a Gaussian."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, help="as `fit` chooses by default")
    parser.add_argument("--time-budget", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--draws", type=int, default=200, help="of each row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    gammas = load_gammas()
    order = np.random.default_rng(options.seed).permutation(len(gammas))
    train, held_out = gammas[order[HELD_OUT:]], gammas[order[:HELD_OUT]]
    known, missing = held_out[:, :KNOWN], held_out[:, KNOWN:]
    flow = hr.NSF(10, transforms=3, link="none", seed=options.seed)
    flow.fit(train, epochs=options.epochs, time_budget=options.time_budget, seed=options.seed)

    rest = flow.given(known)
    reached = {"flow": rest.log_prob(missing), "Gaussian": gaussian_log_prob(train, known, missing)}
    print(f"{len(held_out)} held-out gammas, {KNOWN} columns known, {missing.shape[1]} missing:")
    for name, log_prob in reached.items():
        print(f"  {name:8}  mean log density of what is missing {log_prob.mean(dtype='f8'):.3f}")
    draws = rest.sample(options.draws, seed=options.seed)
    low, high = np.quantile(draws, (0.05, 0.95), axis=0)
    inside = ((low <= missing) & (missing <= high)).mean(axis=0)
    for name, share in zip(MISSING, inside, strict=True):
        print(f"  {name}: in the central 90 % of {options.draws} draws in {share:.1%} of rows")
    if options.output:
        draw(options.output, draws, missing)
    return 0 if reached["flow"].mean() > reached["Gaussian"].mean() else 1


if __name__ == "__main__":
    sys.exit(main())
