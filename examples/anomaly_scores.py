"""Anomaly scores: events that differ from the gamma rays of the MAGIC telescope (data/README.md).

The telescope records showers of gamma rays among those of hadrons; these data are simulated. A flow is fitted to gammas
only, and an event's score is its negative log density, which is high for an event that is improbable as a gamma. The
example prints the area under the ROC curve (AUC: the probability that a hadron scores higher than a gamma that was held
out), and the share of hadrons that are rejected where 90 % of these gammas are kept; and both values for a Gaussian,
whose score is the Mahalanobis distance.

    python examples/anomaly_scores.py [--epochs N] [--time-budget 60] [--seed 0] [--output anomaly_scores.png]

`--output` draws scores and ROC curves and needs matplotlib.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr

DATA = Path(__file__).parent / "data" / "magic.npz"
HELD_OUT = 2000  # gammas to score
KEPT = 0.9  # the share of held-out gammas that is kept


def load_events() -> tuple[NDArray[Any], NDArray[Any]]:
    """Gammas and hadrons, shapes (12332, 10) and (6688, 10); in the file columns are rows, which compress better."""
    with np.load(DATA) as file:
        return file["gamma"].T, file["hadron"].T


def mahalanobis(train: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    """Squared distances from the mean of `train` in units of its covariance: a Gaussian's score."""
    away = x - train.mean(axis=0, dtype="float64")
    return np.asarray(np.einsum("ij,jk,ik->i", away, np.linalg.inv(np.cov(train.T)), away))


def area(gamma: NDArray[Any], hadron: NDArray[Any]) -> float:
    """The probability that a hadron scores higher than a gamma; equal scores count half."""
    ordered = np.sort(gamma)
    below, not_above = (np.searchsorted(ordered, hadron, side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * len(gamma)))


def draw(path: Path, scores: dict[str, tuple[NDArray[Any], NDArray[Any]]]) -> None:
    """Draw histograms of the scores, and ROC curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    *histograms, curves = figure.subplots(1, len(scores) + 1)
    for axis, (name, (gamma, hadron)) in zip(histograms, scores.items(), strict=True):
        low, high = np.quantile(np.concatenate([gamma, hadron]), (0.0, 0.95))
        for values, label, colour in ((gamma, "gammas", "tab:blue"), (hadron, "hadrons", "tab:red")):
            bins = np.linspace(low, high, 60)
            axis.hist(np.clip(values, low, high), bins=bins, density=True, alpha=0.5, color=colour, label=label)
        axis.set(title=f"score of the {name}", xlabel="score (the highest in the last bin)", yticks=[])
        axis.legend(frameon=False)
    share = np.linspace(0.0, 1.0, 501)
    for name, (gamma, hadron) in scores.items():
        rejected = [(hadron > threshold).mean() for threshold in np.quantile(gamma, 1.0 - share)]
        curves.plot(share, rejected, label=f"{name}: AUC {area(gamma, hadron):.3f}")
    curves.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle="--")
    curves.set(title="ROC", xlabel="gammas rejected", ylabel="hadrons rejected")
    curves.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the flow does not separate better than a Gaussian."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, help="as `fit` chooses by default")
    parser.add_argument("--time-budget", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    gammas, hadrons = load_events()
    order = np.random.default_rng(options.seed).permutation(len(gammas))
    train, held_out = gammas[order[HELD_OUT:]], gammas[order[:HELD_OUT]]
    flow = hr.MAF(features=10, seed=options.seed)
    start = time.perf_counter()
    flow.fit(train, epochs=options.epochs, time_budget=options.time_budget, seed=options.seed)
    print(f"{len(train)} gammas fitted in {time.perf_counter() - start:.1f} s")

    scores = {
        "flow": (-flow.log_prob(held_out), -flow.log_prob(hadrons)),
        "Gaussian": (mahalanobis(train, held_out), mahalanobis(train, hadrons)),
    }
    areas = {}
    print(f"{len(held_out)} held-out gammas against {len(hadrons)} hadrons:")
    for name, (gamma, hadron) in scores.items():
        areas[name] = area(gamma, hadron)
        rejected = float((hadron > np.quantile(gamma, KEPT)).mean())
        print(
            f"  {name:8}  AUC {areas[name]:.3f}   hadrons rejected where {KEPT:.0%} of gammas are kept: {rejected:.1%}"
        )

    if options.output:
        draw(options.output, scores)
    return 0 if areas["flow"] > areas["Gaussian"] else 1


if __name__ == "__main__":
    sys.exit(main())
