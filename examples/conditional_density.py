"""Conditional density: the absolute magnitudes of stars given their colour (data/README.md).

A neural spline flow of one feature, whose context is the colour, is fitted to 54,000 stars. The example prints the mean
log-likelihood of stars that were held out, beside those of two Gaussians: one around a straight line, and one for each
of 40 bins of colour. The latent value of a star is its quantile in p(magnitude | colour), expressed as a standard
normal value; therefore the example also counts the stars in the intervals that should hold 50 % and 90 % of them.

    python examples/conditional_density.py [--epochs N] [--time-budget 60] \
        [--seed 0] [--output conditional_density.png]

`--output` draws the density and needs matplotlib.
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

STARS = Path(hr.__file__).parent / "data" / "hr_stars.npz"
BINS = 40
HALF_WIDTHS = {0.5: 0.6744898, 0.9: 1.6448536}  # half widths of a standard normal's intervals that hold these shares
SLICES = (0.3, 0.65, 1.05)  # colours of the cuts through the density


def normal_log_density(distance: NDArray[Any], deviation: Any) -> NDArray[Any]:
    """The log density of a normal at a distance from its mean."""
    return np.asarray(-0.5 * (distance / deviation) ** 2 - np.log(deviation) - 0.5 * np.log(2.0 * np.pi))


def line_log_likelihood(train: NDArray[Any], held_out: NDArray[Any]) -> float:
    """The mean log-likelihood of a normal around the straight line of least squares."""
    line = np.polynomial.Polynomial.fit(train[:, 0], train[:, 1], deg=1)
    deviation = (train[:, 1] - line(train[:, 0])).std()
    return float(normal_log_density(held_out[:, 1] - line(held_out[:, 0]), deviation).mean())


def binned_log_likelihood(train: NDArray[Any], held_out: NDArray[Any]) -> float:
    """The mean log-likelihood of one normal for each bin of colour; the bins hold equally many stars."""
    edges = np.quantile(train[:, 0], np.arange(1, BINS) / BINS)
    bins = np.searchsorted(edges, train[:, 0])
    mean, deviation = np.transpose([(m.mean(), m.std()) for m in (train[bins == b, 1] for b in range(BINS))])
    bins = np.searchsorted(edges, held_out[:, 0])
    return float(normal_log_density(held_out[:, 1] - mean[bins], deviation[bins]).mean())


def draw(path: Path, flow: hr.Flow, stars: NDArray[Any]) -> None:
    """Draw the density for every colour, and a few cuts through it beside the stars near them."""
    from matplotlib.figure import Figure

    colour, magnitude = np.linspace(-0.3, 1.8, 351), np.linspace(-5.0, 12.0, 341)
    context, rows = (a.reshape(-1, 1) for a in np.meshgrid(colour, magnitude))
    density = np.exp(flow.log_prob(rows, context)).reshape(len(magnitude), len(colour))

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    image, *cuts = figure.subplots(1, 1 + len(SLICES), width_ratios=(2.4, *(1,) * len(SLICES)))
    extent = (colour[0], colour[-1], magnitude[-1], magnitude[0])
    image.imshow(np.sqrt(density), extent=extent, aspect="auto", cmap="magma", interpolation="bilinear")
    image.set(
        title="p(magnitude | colour), square root", xlabel="colour B − V  [mag]", ylabel="absolute magnitude  [mag]"
    )
    for axis, value in zip(cuts, SLICES, strict=True):
        image.axvline(value, color="white", linewidth=0.8, linestyle=":")
        near = stars[np.abs(stars[:, 0] - value) < 0.02, 1]
        settings = {"density": True, "orientation": "horizontal", "color": "tab:blue", "alpha": 0.35}
        axis.hist(near, bins=np.arange(-5.0, 12.0, 0.25), label=f"{len(near)} stars", **settings)
        line = np.exp(flow.log_prob(magnitude[:, None], np.array([value])))
        axis.plot(line, magnitude, color="tab:red", linewidth=1.5, label="flow")
        axis.set(title=f"B − V = {value}", ylim=extent[2:], xlabel="density  [1/mag]", yticklabels=[])
        axis.legend(loc="lower right", fontsize="small", frameon=False)
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the flow does not beat both Gaussians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, help="as `fit` chooses by default")
    parser.add_argument("--time-budget", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    with np.load(STARS) as file:
        stars, held_out = file["train"], file["held_out"]
    flow = hr.NSF(features=1, context=1, transforms=2, seed=options.seed)
    start = time.perf_counter()
    flow.fit(
        stars[:, 1:], context=stars[:, :1], epochs=options.epochs, time_budget=options.time_budget, seed=options.seed
    )
    print(f"{len(stars)} stars fitted in {time.perf_counter() - start:.1f} s")

    reached = float(flow.log_prob(held_out[:, 1:], held_out[:, :1]).mean(dtype="float64"))
    line, binned = line_log_likelihood(stars, held_out), binned_log_likelihood(stars, held_out)
    print(f"mean log p(magnitude | colour) of {len(held_out)} held-out stars, nats:")
    print(f"  flow {reached:.3f}   normal around a line {line:.3f}   normals of {BINS} bins {binned:.3f}")

    latent, _ = flow.to_latent(held_out[:, 1:], held_out[:, :1])
    for share, half_width in HALF_WIDTHS.items():
        inside = float((np.abs(latent) < half_width).mean())
        print(f"  the central {share:.0%} interval holds {inside:.1%} of them")

    if options.output:
        draw(options.output, flow, stars)
    return 0 if reached > max(line, binned) else 1


if __name__ == "__main__":
    sys.exit(main())
