"""The Hertzsprung-Russell diagram of 54,000 stars: a Gaussian, a kernel density and two flows side by side.

``headrace demo`` runs this example. Source of the stars: ESA, the Hipparcos-2 catalogue (van Leeuwen 2007), public
domain; rows with parallax / error > 5 and B−V ≠ 0. The columns are the colour B−V, and Hp + 5 log10(parallax / 100
mas), the absolute magnitude in the Hipparcos band.
"""

from __future__ import annotations

import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace import MAF, NSF, Flow, get_num_threads
from headrace._base.layout import Block, Grid
from headrace._base.output import check_writable, replacing
from headrace._base.pictures import NO_MATPLOTLIB, can_draw
from headrace._cli.screen import OK, duration, note, say
from headrace._fit.gaussian import gaussian_log_prob
from headrace._fit.starts.kernels import KernelDensity
from headrace.plot._source import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EPOCHS = 50
PICTURE = "hr_diagram.png"
# The ranges of the picture's axes; bright stars, which have small magnitudes, are at the top.
COLOUR, MAGNITUDE = (-0.4, 2.0), (12.5, -4.0)
PIXELS = 400
DRAWN = 20_000  # stars in a panel


@dataclass(frozen=True)
class Result:
    """The score of a density on held-out stars."""

    name: str
    log_likelihood: float
    """The mean log-likelihood in nats a star, in units of the standard deviations of the stars to fit."""
    standard_error: float
    """The standard error of the mean, from the spread over the held-out stars."""
    seconds: float
    """Seconds to fit and to score."""


def load_stars() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Stars to fit, shape (53916, 2), and stars held out, shape (5993, 2): B−V and absolute magnitude, both in mag.

    >>> [part.shape for part in load_stars()]
    [(53916, 2), (5993, 2)]
    """
    with np.load(Path(__file__).parent.parent / "data" / "hr_stars.npz") as file:
        return file["train"], file["held_out"]


def compare(
    stars: NDArray[Any], held_out: NDArray[Any], *, epochs: int = EPOCHS, seed: int = 0, progress: bool = True
) -> tuple[list[Result], dict[str, Flow], float]:
    """Fit four densities, a Gaussian, a kernel density and two flows, to stars, and score the held-out stars.

    Returns:
        The results, the two flows by name, and the bandwidth of the kernels, in units of the data's spread, chosen
        without the held-out stars.
    """
    unit = float(np.log(stars.std(axis=0, dtype=np.float64)).sum())
    results: list[Result] = []

    def score(name: str, began: float, log_prob: NDArray[Any]) -> None:
        seconds, values = time.perf_counter() - began, log_prob.astype(np.float64) + unit
        error = float(values.std() / np.sqrt(len(values)))
        results.append(Result(name, float(values.mean()), error, seconds))

    flows: dict[str, Flow] = {"MAF": MAF(2, transforms=8, seed=seed), "NSF": NSF(2, link="linear", seed=seed)}
    began = time.perf_counter()
    score("Gaussian", began, gaussian_log_prob(stars, held_out))
    began = time.perf_counter()
    kernels = KernelDensity.of(stars)
    score("kernel density", began, kernels.log_prob(held_out))
    for name, flow in flows.items():
        began = time.perf_counter()
        flow.fit(stars, epochs=epochs, seed=seed, progress=progress)
        score(name, began, np.asarray(flow.log_prob(held_out)))
    return results, flows, kernels.bandwidth


def draw(path: str, stars: NDArray[Any], flows: dict[str, Flow], results: list[Result], seed: int = 0) -> None:
    """Draw a picture of the stars, of equally many samples of each flow, and of the density of the last flow."""
    require()
    from matplotlib import rc_context

    from headrace.plot._figure import Picture

    reached = "   ".join(f"{result.name} {result.log_likelihood:.3f}".replace("-", "−") for result in results)
    with rc_context({"font.size": 11, "axes.titlesize": 12, "axes.titleweight": "bold"}):
        figure = Picture(figsize=(17, 6.2), layout="constrained")
        axes = figure.subplots(1, 4, sharex=True, sharey=True)
        _scatter(axes[0], stars[:DRAWN], f"{min(DRAWN, len(stars)):,} stars of Hipparcos")
        for axis, (name, flow) in zip(axes[1:], flows.items(), strict=False):
            _scatter(axis, flow.sample(min(DRAWN, len(stars)), seed=seed), f"as many drawn from the {name}")
        _density(figure, axes[3], *list(flows.items())[-1])
        for axis in axes:
            axis.set(xlim=COLOUR, ylim=MAGNITUDE, xlabel="colour  B − V  [mag]")
            axis.set_xticks([0.0, 0.5, 1.0, 1.5])
            axis.tick_params(direction="in", top=True, right=True, color="0.6")
        axes[0].set_ylabel("absolute magnitude  $M_{Hp}$  [mag]")
        figure.suptitle(f"Hertzsprung–Russell diagram: held-out log-likelihood, nats a star:   {reached}")
        with replacing(path) as stream:
            figure.savefig(stream, format=Path(path).suffix[1:].lower(), dpi=130)


def _scatter(axis: Axes, points: NDArray[Any], title: str) -> None:
    """Draw stars as points with approximately their colours."""
    from matplotlib.colors import LinearSegmentedColormap

    hues = ["#7f9dff", "#a9bfff", "#dfe5ff", "#fff4e0", "#ffd9a0", "#ffb066", "#ff8040", "#e0502a"]
    colours = LinearSegmentedColormap.from_list("stars", hues)
    axis.set_facecolor("#0b0d18")
    x, y = points.T
    axis.scatter(x, y, c=x, cmap=colours, vmin=-0.3, vmax=1.8, s=1.2, alpha=0.55, linewidths=0)
    axis.set_title(title)


def _density(figure: Any, axis: Axes, name: str, flow: Flow) -> None:
    x, y = (np.linspace(*ends, PIXELS, dtype=np.float32) for ends in (COLOUR, MAGNITUDE))
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    density = flow.log_prob(grid).reshape(PIXELS, PIXELS) / np.log(10.0)
    top = float(density.max())
    shown = axis.pcolormesh(x, y, density, cmap="magma", vmin=top - 3.5, vmax=top, shading="gouraud", rasterized=True)
    levels = np.arange(np.floor(top) - 3, top)
    axis.contour(x, y, density, levels=levels, colors="white", linewidths=0.6, alpha=0.6, linestyles="solid")
    figure.colorbar(shown, ax=axis, label="log$_{10}$ density  [mag$^{-2}$]", extend="min", pad=0.02)
    axis.set_title(f"density of the {name}")


def demo(arguments: Namespace) -> int:
    """Fit the Hertzsprung-Russell diagram, and draw a picture."""
    picture = arguments.output or PICTURE
    check_writable("--output", picture)
    drawable = can_draw()
    if arguments.output and not drawable:
        raise ImportError(f"--output: {NO_MATPLOTLIB}")

    train, held_out = load_stars()
    note(arguments, f"fitting {len(train):,} stars, and scoring {len(held_out):,} others")
    start = time.perf_counter()
    results, flows, bandwidth = compare(
        train, held_out, epochs=arguments.epochs or EPOCHS, seed=arguments.seed, progress=not arguments.quiet
    )
    if drawable:
        draw(picture, train, flows, results, arguments.seed)
    else:
        note(arguments, f"no picture: {NO_MATPLOTLIB}")
    report: dict[str, Any] = {"seed": arguments.seed, "picture": picture if drawable else None}
    of_each = ("log_likelihood", "standard_error", "seconds")
    report |= {key: {fit.name: getattr(fit, key) for fit in results} for key in of_each}
    report |= {"training_rows": len(train), "held_out_rows": len(held_out), "bandwidth": bandwidth}
    rows = [
        (fit.name, f"{fit.log_likelihood:.4f} ± {fit.standard_error:.4f}", duration(fit.seconds)) for fit in results
    ]
    blocks: list[Block] = [
        f"Hertzsprung-Russell diagram: {len(train):,} stars to fit, {len(held_out):,} held out",
        "mean log-likelihood of the stars held out, nats a star, in units of the standard deviations:",
        Grid(("density", "nats a star", "time"), rows, right=(1, 2), indent="  "),
        f"kernel density: Gaussian kernels with the data's covariance, {bandwidth:.3g} times as wide, which is best on "
        "stars kept back from those to fit; ± is the spread over the stars held out, and most of it is common to all",
        *([f"picture: {picture}"] if drawable else []),
        f"{time.perf_counter() - start:.1f} s in all, threads: {get_num_threads()}",
    ]
    say(arguments, report, blocks)
    return OK
