"""The Hertzsprung-Russell diagram: 54,000 stars, as many drawn from a flow, and the flow's density.

A neural spline flow is fitted to the colour and the absolute magnitude of stars of the Hipparcos catalogue
(data/README.md). The example prints the mean log density of stars that were held out, beside that of a Gaussian.
Another table needs no more than the seven lines of `fitted`. `headrace demo` compares more densities on the command
line.

    python examples/fit_density.py [--epochs 50] [--seed 0] [--output hr_diagram.png]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr

STARS = Path(hr.__file__).parent / "data" / "hr_stars.npz"
COLOUR, MAGNITUDE = (-0.4, 2.0), (12.5, -4.0)  # bright stars have small magnitudes, and are at the top
PIXELS, DRAWN = 400, 20_000
HUES = ["#7f9dff", "#a9bfff", "#dfe5ff", "#fff4e0", "#ffd9a0", "#ffb066", "#ff8040", "#e0502a"]
ENOUGH = 0.7  # nats a star that the flow must gain over the Gaussian; a good fit gains 0.90


def fitted(epochs: int, seed: int) -> tuple[hr.Flow, NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The flow, the stars that it was fitted to, those held out, and as many samples."""
    with np.load(STARS) as file:
        stars, held_out = file["train"], file["held_out"]
    flow = hr.NSF(2, link="linear", seed=seed)  # linear maps between networks prevent streaks along the axes
    flow.fit(stars, epochs=epochs, seed=seed)
    drawn = flow.sample(len(stars), seed=seed)
    print(f"{len(held_out)} stars that were held out: {flow.log_prob(held_out).mean():.3f} nats a star")
    return flow, stars, held_out, drawn


def gaussian_log_prob(stars: NDArray[Any], held_out: NDArray[Any]) -> NDArray[Any]:
    """Log densities of stars held out under the Gaussian of those to fit."""
    covariance = np.cov(stars.T)
    away = held_out - stars.mean(axis=0, dtype=np.float64)
    square = (away * np.linalg.solve(covariance, away.T).T).sum(axis=1)
    return np.asarray(-0.5 * (square + np.linalg.slogdet(2.0 * np.pi * covariance)[1]))


def draw(path: Path, flow: hr.Flow, stars: NDArray[Any], drawn: NDArray[Any]) -> bool:
    """Draw stars, as many samples, and the density; return False where matplotlib is missing."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
        from matplotlib.colors import LinearSegmentedColormap
    except ImportError:
        return False
    figure, axes = plt.subplots(1, 3, figsize=(12, 5), sharex=True, sharey=True, layout="constrained")
    hues = LinearSegmentedColormap.from_list("stars", HUES)
    for axis, points, title in zip(axes, (stars, drawn), ("stars of Hipparcos", "drawn from the flow"), strict=False):
        x, y = points[:DRAWN].T
        axis.set_facecolor("#0b0d18")
        axis.scatter(x, y, c=x, cmap=hues, vmin=-0.3, vmax=1.8, s=1.2, alpha=0.55, linewidths=0)
        axis.set_title(title)
    x, y = (np.linspace(*ends, PIXELS, dtype=np.float32) for ends in (COLOUR, MAGNITUDE))
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    density = flow.log_prob(grid).reshape(PIXELS, PIXELS) / np.log(10.0)
    top = density.max()
    axes[2].pcolormesh(x, y, density, cmap="magma", vmin=top - 3.5, vmax=top, shading="gouraud", rasterized=True)
    axes[2].contour(x, y, density, levels=np.arange(top - 3.0, top, 0.75), colors="white", linewidths=0.6, alpha=0.5)
    axes[2].set_title("density of the flow (logarithm)")
    for axis in axes:
        axis.set(xlim=COLOUR, ylim=MAGNITUDE, xlabel="colour B − V [mag]")
    axes[0].set_ylabel("absolute magnitude [mag]")
    figure.savefig(path, dpi=130)
    return True


def main() -> int:
    """Run the example; the exit status is 1 if the flow gains too little over a Gaussian."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("hr_diagram.png"))
    arguments = parser.parse_args()

    flow, stars, held_out, drawn = fitted(arguments.epochs, arguments.seed)
    gained = float(flow.log_prob(held_out).mean() - gaussian_log_prob(stars, held_out).mean())
    print(f"that is {gained:.3f} nats a star more than a Gaussian has")
    if draw(arguments.output, flow, stars, drawn):
        print(f"picture: {arguments.output}")
    else:
        print("picture: skipped, because matplotlib is not installed (pip install '.[plot]')")
    return 0 if gained > ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
