"""Fit the density of a Hertzsprung-Russell diagram: 54,000 stars of the Hipparcos catalogue (data/README.md).

Fits a neural spline flow with `fit`'s defaults, scores stars that it did not see, draws new ones, and prints what it
reached beside a Gaussian and beside the flow of another library (score_and_sample.py). With matplotlib it also draws
data beside samples, and the losses.

    python examples/fit_density.py [--flow NSF] [--epochs 60] [--seed 0] [--picture hr_fit.png]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr

DATA = Path(__file__).parent / "data"
FLOWS = {"NSF": hr.NSF, "MAF": hr.MAF, "RealNVP": hr.RealNVP}
ENOUGH = -2.1  # nats a star: a Gaussian has -2.8, a fit that went well about -1.95


def gaussian_log_likelihood(train: NDArray[Any], held_out: NDArray[Any]) -> float:
    """The mean log density of rows under the normal density of others."""
    mean, covariance = train.mean(axis=0), np.cov(train.T)
    distance = np.einsum("ij,jk,ik->i", held_out - mean, np.linalg.inv(covariance), held_out - mean)
    log_norm = np.linalg.slogdet(2.0 * np.pi * covariance)[1]
    return float(-0.5 * (distance.mean() + log_norm))


def draw(path: Path, stars: NDArray[Any], samples: NDArray[Any], history: hr.History) -> bool:
    """Data beside samples, and the losses; False where matplotlib is missing."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        return False
    figure, axes = plt.subplots(1, 3, figsize=(13, 5), constrained_layout=True)
    for axis, points, title in zip(axes, (stars, samples), ("held-out stars", "samples"), strict=False):
        axis.plot(points[:, 0], points[:, 1], ".", markersize=1.5, alpha=0.4, color="tab:blue")
        axis.set(title=title, xlabel="B − V  [mag]", xlim=(-0.4, 2.0), ylim=(13, -4))
    axes[0].set_ylabel("absolute magnitude  [mag]")
    axes[2].plot(history.seconds, history.train_loss, label="training")
    axes[2].plot(history.seconds, history.validation_loss, label="held out")
    axes[2].set(title="negative log-likelihood", xlabel="seconds", ylabel="nats a star")
    axes[2].legend()
    figure.savefig(path, dpi=150)
    return True


def main() -> int:
    """Run the example; the exit status is 1 if the fit went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--flow", choices=tuple(FLOWS), default="NSF")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, default=Path("hr_fit.png"))
    arguments = parser.parse_args()

    with np.load(DATA / "hr_stars.npz") as file:
        stars = file["stars"]
    with np.load(DATA / "hr_maf.npz") as file:
        held_out, std, other = file["held_out"], file["std"], file["held_out_log_likelihood_standardised"]
    info = hr.info()
    print(f"headrace {info['version']}, instruction set {info['isa']}, {info['threads']} threads")

    flow = FLOWS[arguments.flow](features=2, seed=arguments.seed)
    start = time.perf_counter()
    history = flow.fit(stars, epochs=arguments.epochs, seed=arguments.seed)
    print(f"{len(stars)} stars, {len(history.train_loss)} epochs in {time.perf_counter() - start:.1f} s: {history!r}")

    # Densities per unit of (B - V, magnitude) become ones in standardised units through the scaling's determinant.
    unit = float(np.log(std).sum())
    reached = float(flow.log_prob(held_out).mean(dtype=np.float64)) + unit
    print(f"mean log-likelihood of {len(held_out)} held-out stars, standardised units:")
    print(
        f"  {arguments.flow} {reached:.4f}   Gaussian {gaussian_log_likelihood(stars, held_out) + unit:.4f}   ", end=""
    )
    print(f"a MAF fitted by another library {float(other):.4f}")

    samples = flow.sample(len(held_out), seed=arguments.seed)
    drawn = draw(arguments.picture, held_out, samples, history)
    print(f"picture: {arguments.picture}" if drawn else "picture: skipped, as matplotlib is not installed")
    return 0 if reached > ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
