"""Simulation-based inference: a posterior learnt from simulations alone, checked against the exact one.

The simulator draws three parameters θ from a standard normal prior and six measurements x = A θ + noise. A masked
autoregressive flow is fitted to pairs (θ, x), with x as its context, so that it is p(θ | x) for every x at once. The
posterior of a linear-Gaussian simulator is a Gaussian in closed form, so that everything can be checked:

- mean and covariance of samples for one measurement, in units of the exact posterior;
- the Kullback-Leibler divergence from the exact posterior to the flow, averaged over new measurements;
- simulation-based calibration (Talts et al. 2018): among samples of p(θ | x) the true θ has a uniform rank.

    python examples/simulation_based_inference.py [--simulations 50000] [--epochs N] [--time-budget 60] \
        [--seed 0] [--output sbi.png]

`--output` draws samples and ranks and needs matplotlib.
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

PARAMETERS, MEASUREMENTS, NOISE = 3, 6, 0.7
DESIGN = np.random.default_rng(0).standard_normal((MEASUREMENTS, PARAMETERS))  # the matrix A
# The covariance of the posterior, for every x.
COVARIANCE = np.linalg.inv(np.eye(PARAMETERS) + DESIGN.T @ DESIGN / NOISE**2)
GAIN = COVARIANCE @ DESIGN.T / NOISE**2  # the posterior's mean is GAIN x
RANKED, DRAWS, BINS = 2000, 99, 20  # measurements for the calibration, samples for each, bins of ranks
CHI_SQUARED = 43.8  # 1 in 1000 values exceeds this, with BINS - 1 degrees of freedom


def simulate(n: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Parameters (n, 3) from the prior, and measurements (n, 6)."""
    theta = rng.standard_normal((n, PARAMETERS))
    return theta, theta @ DESIGN.T + NOISE * rng.standard_normal((n, MEASUREMENTS))


def exact_log_prob(theta: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    """The log density of the exact posterior."""
    away = theta - x @ GAIN.T
    square = np.einsum("ij,jk,ik->i", away, np.linalg.inv(COVARIANCE), away)
    return np.asarray(-0.5 * (square + np.linalg.slogdet(2.0 * np.pi * COVARIANCE)[1]))


def ranks(flow: hr.Flow, theta: NDArray[Any], x: NDArray[Any], seed: int) -> NDArray[Any]:
    """The number of samples of p(θ | x), out of DRAWS, below the true θ, shape (rows, 3): 0 to DRAWS."""
    samples = flow.sample(len(x) * DRAWS, np.repeat(x, DRAWS, axis=0), seed=seed)
    return np.asarray((samples.reshape(len(x), DRAWS, PARAMETERS) < theta[:, None, :]).sum(axis=1))


def chi_squared(rank: NDArray[Any]) -> float:
    """The chi-squared of one parameter's ranks in equal bins, which is about BINS - 1 for a calibrated posterior."""
    counts = np.bincount(rank * BINS // (DRAWS + 1), minlength=BINS)
    expected = len(rank) / BINS
    return float(((counts - expected) ** 2 / expected).sum())


def draw(path: Path, samples: NDArray[Any], mean: NDArray[Any], truth: NDArray[Any], rank: NDArray[Any]) -> None:
    """Draw samples of one posterior with the exact one's contours, and histograms of ranks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.4), layout="constrained")
    above, below = figure.subplots(2, PARAMETERS, height_ratios=(1.6, 1))
    angle = np.linspace(0.0, 2.0 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    for axis, pair in zip(above, ([0, 1], [0, 2], [1, 2]), strict=True):
        axis.plot(*samples[:4000, pair].T, ".", markersize=2, alpha=0.3, color="tab:blue", label="samples of the flow")
        factor = np.linalg.cholesky(COVARIANCE[np.ix_(pair, pair)])
        for k, share in enumerate((0.5, 0.9, 0.99)):
            ellipse = mean[pair, None] + np.sqrt(-2.0 * np.log(1.0 - share)) * factor @ circle
            axis.plot(*ellipse, color="black", linewidth=1.0, label=None if k else "exact: 50, 90, 99 %")
        axis.plot(*truth[pair], "*", color="tab:red", markersize=11, label="true θ")
        axis.set(xlabel=f"θ{pair[0] + 1}", ylabel=f"θ{pair[1] + 1}")
    above[0].legend(loc="lower left", fontsize="small")
    expected = len(rank) / BINS
    spread = 2.576 * np.sqrt(expected * (1.0 - 1.0 / BINS))
    for j, axis in enumerate(below):
        axis.axhspan(expected - spread, expected + spread, color="0.88", label="99 % of uniform counts")
        axis.hist(rank[:, j], bins=np.arange(BINS + 1) * (DRAWS + 1) / BINS - 0.5, color="tab:blue", alpha=0.6)
        axis.set(xlabel=f"rank of the true θ{j + 1} among {DRAWS} samples", ylim=(0, 1.6 * expected))
    below[0].set_ylabel("simulations")
    below[0].legend(loc="upper left", fontsize="small", frameon=False)
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the posterior differs from the exact one by more than the limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--simulations", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, help="as `fit` chooses by default")
    parser.add_argument("--time-budget", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    rng = np.random.default_rng((1, options.seed))
    theta, x = simulate(options.simulations, rng)
    flow = hr.MAF(features=PARAMETERS, context=MEASUREMENTS, activation="tanh", seed=options.seed)
    start = time.perf_counter()
    flow.fit(theta, context=x, epochs=options.epochs, time_budget=options.time_budget, seed=options.seed)
    print(f"{len(x)} simulations fitted in {time.perf_counter() - start:.1f} s")

    truth, observed = simulate(1, rng)
    mean = GAIN @ observed[0]
    samples = flow.sample(20_000, observed[0], seed=options.seed)
    deviation = np.sqrt(np.diag(COVARIANCE))
    shift = np.abs(samples.mean(axis=0) - mean) / deviation
    stretch = np.linalg.eigvals(np.linalg.solve(COVARIANCE, np.cov(samples.T))).real
    print("the posterior for one measurement, beside the exact one:")
    print(f"  means apart by {shift.max():.3f} standard deviations at most")
    print(f"  variances {stretch.min():.3f} to {stretch.max():.3f} of the exact ones, over all directions")

    theta, x = simulate(20_000, rng)
    difference = exact_log_prob(theta, x) - flow.log_prob(theta, x)
    divergence, error = difference.mean(), difference.std() / np.sqrt(len(x))
    print(f"KL(exact || flow), mean over measurements: {divergence:.4f} ± {error:.4f} nats")

    rank = ranks(flow, theta[:RANKED], x[:RANKED], options.seed)
    uneven = [chi_squared(column) for column in rank.T]
    figures = ", ".join(f"{value:.1f}" for value in uneven)
    print(f"ranks of {RANKED} true parameters in {BINS} bins: χ² {figures}")
    print(f"  (if uniform: about {BINS - 1}, and 1 in 1000 above {CHI_SQUARED})")

    if options.output:
        draw(options.output, samples, mean, truth[0], rank)
    return 0 if shift.max() < 0.25 and divergence < 0.05 and max(uneven) < CHI_SQUARED else 1


if __name__ == "__main__":
    sys.exit(main())
