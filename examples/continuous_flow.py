"""The flow in continuous time: a known density becomes the standard normal one, along the equation of dual ascent.

Three normal densities in a ring flow to the standard normal density, once with the full velocity field and once along
one random direction after another. The density is a table on a grid, its velocity carries particles, and the map that
carries them gives the density estimate J(x) mu(phi(x)), which tends to the initial density. Curves show the distance
that remains: KL(rho_t || mu), the log-likelihood that the estimate lacks, and KL(mu || rho_t) with its slope by the
equation. The first curve is compared with the log-likelihood that a fit to a sample lacks after each of its steps
(`hr.DualAscentFlow.notes`), which begins with the normal density of the sample's mean and deviations.

    python examples/continuous_flow.py [--cells 96] [--time 12] [--directions 24] [--seed 0] [--output flow.png]

`--output` draws densities, particles and curves and needs matplotlib.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr

ROWS, STEPS = 5000, 200  # rows and steps of the fit to a sample
REACH = 6.0  # half the width of the box
ANGLES = (0.2, 2.3, 4.4)
CENTRES = 1.5 * np.array([(np.cos(a), np.sin(a)) for a in ANGLES])
VARIANCE = 0.5


def rho(points: NDArray[Any]) -> NDArray[Any]:
    """The initial density at points."""
    squares = ((points[:, None, :] - CENTRES) ** 2).sum(axis=2)
    return np.asarray(np.exp(-squares / (2.0 * VARIANCE)).mean(axis=1) / (2.0 * np.pi * VARIANCE))


def mu(points: NDArray[Any]) -> NDArray[Any]:
    """The target density at points; its scale does not matter."""
    return np.asarray(np.exp(-(points**2).sum(axis=1) / 2.0))


def sample(n: int, rng: np.random.Generator) -> NDArray[Any]:
    """Random points (n, 2) from rho."""
    return np.asarray(CENTRES[rng.integers(len(CENTRES), size=n)] + VARIANCE**0.5 * rng.standard_normal((n, 2)))


def from_a_sample(rows: NDArray[Any], x: NDArray[Any], seed: int) -> NDArray[np.float64]:
    """The nats that the estimates of a fit to rows lack after each of its steps, at other points x."""
    ascent = hr.DualAscentFlow.notes(steps=STEPS, seed=seed, dtype="float64").fit(rows, progress=False)
    truth = np.log(rho(x)).mean()
    return np.array([truth - ascent[:t].log_prob(x).mean() for t in range(len(ascent) + 1)])


def draw(path: Path, runs: dict[str, hr.continuum.Evolution], lacks: NDArray[Any], x: NDArray[Any]) -> bool:
    """Draw densities with particles, estimates, and curves; return False where matplotlib is missing."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        return False
    evolution = runs["all directions at once"]
    grid, shown = evolution.grid, np.linspace(0, len(evolution.times) - 1, 4).astype(int)
    positions, _ = evolution.carry(x)
    estimate = evolution.estimate(grid.points).reshape(-1, *grid.cells)
    figure, axes = plt.subplots(2, 5, figsize=(16, 6.5), constrained_layout=True)
    top = float(evolution.rho.max())
    for column, k in enumerate(shown):
        for axis, values, title in (
            (axes[0, column], evolution.rho, "ρ"),
            (axes[1, column], estimate, "estimate of ρ"),
        ):
            axis.pcolormesh(*grid.edges, values[k].T, cmap="Blues", vmin=0.0, vmax=top, rasterized=True)
            axis.set(title=f"{title}, t = {evolution.times[k]:.3g}", xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
        axes[0, column].plot(*positions[k].T, ".", color="tab:orange", markersize=2)
    for name, run in runs.items():
        axes[0, 4].plot(run.times, run.gap, label=name)
        axes[1, 4].plot(run.times, run.kl, label=name)
    shares = np.linspace(0.0, evolution.times[-1], len(lacks))
    axes[0, 4].plot(shares, lacks, "--", color="black", label=f"fit to a sample: {len(lacks) - 1} steps")
    for k in range(0, len(evolution.times), 3):  # the right-hand side of eq. 14, as short tangents
        t = evolution.times[k] + np.array([-0.4, 0.4])
        axes[1, 4].plot(t, evolution.kl[k] + evolution.kl_rate[k] * (t - t.mean()), color="black", linewidth=1)
    axes[0, 4].set(title="KL(ρₜ ‖ μ)  [nats]", xlabel="t")
    axes[1, 4].set(title="KL(μ ‖ ρₜ)  [nats], slopes of eq. 14", xlabel="t")
    axes[0, 4].legend()
    figure.savefig(path, dpi=130)
    return True


def main() -> int:
    """Run the example; the exit status is 1 if a property of the evolution does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cells", type=int, default=96)
    parser.add_argument("--time", type=float, default=12.0)
    parser.add_argument("--directions", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    rng = np.random.default_rng(arguments.seed)
    grid = hr.continuum.Grid([(-REACH, REACH), (-REACH, REACH)], arguments.cells)
    times = np.linspace(0.0, arguments.time, arguments.directions + 1)
    angles = rng.uniform(0.0, np.pi, arguments.directions)
    runs = {
        "all directions at once": hr.continuum.evolve(rho, mu, grid, times),
        "one random direction at a time": hr.continuum.evolve(rho, mu, grid, times, angles),
    }

    x = sample(4000, rng)
    x = x[(np.abs(x) < REACH).all(axis=1)]
    sound = True
    for name, run in runs.items():
        mass = run.rho.sum(axis=(1, 2)) * grid.volume
        lacks = np.log(rho(x)) - np.log(run.estimate(x)[-1])
        error = lacks.std() / len(x) ** 0.5
        sound &= bool((np.diff(run.gap) < 0.0).all())
        print(f"{name}: {run!r}")
        print(f"  KL(rho_t || mu) {run.gap[0]:.4f} to {run.gap[-1]:.4f}, by points {lacks.mean():.4f} ± {error:.4f}")
        print(f"  KL(mu || rho_t) {run.kl[0]:.4f} to {run.kl[-1]:.4f}")
        print(f"  mass changed by {np.abs(mass / mass[0] - 1.0).max():.1e}")
    lacks = from_a_sample(sample(ROWS, rng), x, arguments.seed)
    sound &= bool(lacks[-1] < lacks[0])
    print(f"a fit to {ROWS} rows lacks {lacks[0]:.4f} to {lacks[-1]:.4f} after {len(lacks) - 1} steps")
    if arguments.output:
        drawn = draw(arguments.output, runs, lacks, x[:500])
        print(f"picture: {arguments.output}" if drawn else "picture: skipped, because matplotlib is not installed")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
