"""The picture of a diagnosis of sequences: four panels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.pictures import BAND, BLUE, GREY
from headrace.diagnosis.picture import figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPREAD = 1.96  # standard deviations that hold 95 % of one value


def draw(diagnosis: Any, path: str) -> None:
    """All panels of a `SequenceDiagnosis` in one file."""
    with figure_of(path, 8) as figure:
        first, second, third, fourth = figure.subplots(2, 2).flat
        _shares(first, diagnosis.integral_transform)
        _lags(second, diagnosis.autocorrelation, diagnosis.pairs, "Autocorrelation of latent steps")
        _lags(third, diagnosis.autocorrelation_of_sizes, diagnosis.pairs, "Autocorrelation of their sizes")
        _loudness(fourth, diagnosis.loudness)


def _shares(axis: Axes, counts: NDArray[np.float64]) -> None:
    """Shares of latent steps in cells that have equal probabilities."""
    cells = len(counts)
    total = counts.sum(axis=0)
    width = SPREAD * np.sqrt((1.0 - 1.0 / cells) / (cells * total.min()))
    axis.axhspan(1.0 / cells - width, 1.0 / cells + width, color=BAND, label="95 % of independent steps")
    for i, share in enumerate((counts / total).T):
        axis.stairs(share, np.linspace(0.0, 1.0, cells + 1), color=BLUE if i == 0 else GREY)
    axis.set(
        title="Distribution of latent steps", xlabel="probability integral transform", ylabel="share", ylim=(0, None)
    )
    axis.legend(frameon=False, loc="lower right")


def _lags(axis: Axes, values: NDArray[np.float64], pairs: NDArray[np.int64], title: str) -> None:
    """Correlations by lag."""
    lags = np.arange(1, len(values) + 1)
    width = SPREAD / np.sqrt(np.maximum(pairs, 1))
    axis.fill_between(lags, -width, width, color=BAND, linewidth=0)
    for i, one in enumerate(values.T):
        axis.plot(lags, one, color=BLUE if i == 0 else GREY, marker=".", linewidth=0.8)
    axis.axhline(0.0, color=GREY, linewidth=0.8)
    axis.set(title=title, xlabel="steps between", ylabel="correlation")


def _loudness(axis: Axes, classes: tuple[tuple[float, float, float], ...]) -> None:
    """Nats a step of quiet and of loud steps."""
    names = [f"{low:.2g} to {high:.2g}" for low, high, _ in classes]
    axis.plot(names, [nats for *_, nats in classes], color=BLUE, marker="o", linewidth=0.8)
    axis.set(
        title="Log density by loudness", xlabel="root of the mean square, in standard deviations", ylabel="nats a step"
    )
    axis.tick_params(axis="x", labelsize=8)
