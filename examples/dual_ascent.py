"""Dual ascent: two moons flow to the normal density, step by step.

The nonparametric flow of Tabak and Vanden-Eijnden rotates points by a random matrix and bends each coordinate a little,
so that the likelihood grows, hundreds of times. The picture shows the moving points, the density after several numbers
of steps, and the likelihood of points held out. The picture also shows a few steps with marginal splines, which are
trained together afterwards: the default of `DualAscentFlow`. The density is known, so that the loss against the truth
is known, too.

    python examples/dual_ascent.py [--rows 10000] [--steps 400] [--seed 0] [--output ascent.png]
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

NOISE = 0.1


def moons(u: NDArray[Any]) -> NDArray[Any]:
    """Points on two half circles, for values from 0 to 1."""
    t = np.pi * (2.0 * u % 1.0)
    upper = np.stack([np.cos(t), np.sin(t)], axis=1)
    return np.where(u[:, None] < 0.5, upper, [1.0, 0.5] - upper)


def draw_rows(rows: int, rng: np.random.Generator) -> NDArray[Any]:
    """Random points on the moons, with noise."""
    return moons(rng.random(rows)) + NOISE * rng.standard_normal((rows, 2))


def true_log_prob(x: NDArray[Any], count: int = 1000) -> NDArray[Any]:
    """The true log density: the mean of normal densities all along the moons."""
    centers = moons((np.arange(count) + 0.5) / count)
    parts = []
    for start in range(0, len(x), 500):
        exponent = -np.square(x[start : start + 500, None] - centers).sum(axis=2) / (2.0 * NOISE**2)
        most = exponent.max(axis=1)
        parts.append(most + np.log(np.exp(exponent - most[:, None]).mean(axis=1)))
    log_prob: NDArray[Any] = np.concatenate(parts) - np.log(2.0 * np.pi * NOISE**2)
    return log_prob


def draw(
    path: Path,
    x: NDArray[Any],
    flow: hr.ascent.AscentFlow,
    refined: hr.ascent.AscentFlow,
    history: hr.ascent.AscentHistory,
    best: float,
) -> bool:
    """Draw points and densities over the steps, and the likelihood; return False where matplotlib is missing."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        return False
    steps = [0, len(flow) // 40, len(flow) // 8, len(flow)]
    places: Any = [[0, 1, 2, 3], [4, 5, 6, 7], ["curve", "curve", "refined", "true"]]
    figure: Any
    axes: Any
    figure, axes = plt.subplot_mosaic(places, figsize=(12, 9), constrained_layout=True)
    side_x, side_y = np.linspace(-1.6, 2.6, 200), np.linspace(-1.1, 1.6, 200)
    grid = np.stack(np.meshgrid(side_x, side_y), axis=2).reshape(-1, 2)
    side = x[:, 1] > 0.25  # colours show where points come from
    for i, t in enumerate(steps):
        top, middle = axes[i], axes[4 + i]
        z = flow[:t].to_latent(x)[0]
        for chosen, color in ((side, "tab:blue"), (~side, "tab:orange")):
            top.plot(z[chosen, 0], z[chosen, 1], ".", markersize=2, alpha=0.5, color=color)
        top.set(title=f"points after {t} steps", xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal")
        density = np.exp(flow[:t].log_prob(grid)).reshape(200, 200)
        middle.pcolormesh(side_x, side_y, density, cmap="magma_r", vmin=0.0, vmax=0.7, rasterized=True)
        middle.set(title=f"density after {t} steps")
    curve = axes["curve"]
    curve.plot(history.log_likelihood, label="rows to fit")
    curve.plot(history.validation_log_likelihood, label="held out")
    curve.axhline(best, color="gray", linestyle=":", label="true density")
    curve.set(xlabel="steps", ylabel="mean log-likelihood  [nats]")
    curve.legend(loc="lower right")
    for place, title, values in (
        ("refined", "splines, trained as a whole", refined.log_prob(grid)),
        ("true", "true density", true_log_prob(grid)),
    ):
        density = np.exp(values).reshape(200, 200)
        axes[place].pcolormesh(side_x, side_y, density, cmap="magma_r", vmin=0.0, vmax=0.7, rasterized=True)
        axes[place].set(title=title)
    figure.savefig(path, dpi=120)
    return True


def main() -> int:
    """Run the example; the exit status is 1 if a step lowered the likelihood, or splines were no better."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("ascent.png"))
    arguments = parser.parse_args()

    rng = np.random.default_rng(arguments.seed)
    x, test = draw_rows(arguments.rows, rng), draw_rows(20_000, rng)
    truth = float(true_log_prob(test).mean())
    print(f"two moons: the true density gives {truth:.4f} nats a row; nats lost against it, on rows that took no part:")

    start = time.perf_counter()
    model = hr.DualAscentFlow.notes(steps=arguments.steps, seed=arguments.seed, dtype="float64")
    flow = model.fit(x)
    seconds = time.perf_counter() - start
    for t in sorted({0, len(flow) // 8, len(flow)}):
        print(f"  the notes' algorithm, {t} steps: {truth - flow[:t].log_prob(test).mean():.4f}")
    gains = np.diff(model.history.log_likelihood)
    print(f"  the smallest gain of a step on the rows to fit: {gains.min():.1e}; {seconds:.1f} s")

    start = time.perf_counter()
    refined = hr.DualAscentFlow(seed=arguments.seed).fit(x)
    lost = truth - float(refined.log_prob(test).mean(dtype=np.float64))
    print(f"  {len(refined)} steps of splines, trained as a whole: {lost:.4f}; {time.perf_counter() - start:.1f} s")

    if draw(arguments.output, x[:3000], flow, refined, model.history, truth):
        print(f"picture: {arguments.output}")
    else:
        print("picture: skipped, because matplotlib is not installed (pip install '.[plot]')")
    return 0 if gains.min() > -1e-12 and lost < truth - flow.log_prob(test).mean() else 1


if __name__ == "__main__":
    sys.exit(main())
