"""Modes that lie apart: a flow over a normal base leaves bridges between them, one over a mixture does not.

A flow is continuous, and so is its inverse: it cannot tear one clump of latent rows into three. Instead the flow
stretches thin bridges between the clumps of data, in which the true density has no rows. A mixture as base, with a
component near each mode (found by k-means here), makes bridges unnecessary. The rows come from three bent clumps, whose
density is known. The example prints the mean log-likelihood of new rows, in nats, and the share of samples between the
clumps, farther than five deviations from each.

    python examples/separate_modes.py [--rows 3000] [--epochs N] [--seed 0] [--output separate_modes.png]

The example needs scikit-learn. `--output` draws samples of both flows, and needs matplotlib. The exit status is 0 if
the mixture is better by both measures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

import headrace as hr

CENTRES = np.array([[-3.0, -2.0], [3.0, -2.0], [0.0, 3.0]])
SPREAD, BEND = np.array([0.7, 0.25]), 0.6
NEW = 5000  # new rows
EDGE = 5.5  # half the width of the picture
FAR = 5.0  # deviations from every clump

Rows = NDArray[Any]


def draw_rows(n: int, rng: np.random.Generator) -> Rows:
    """Rows of the clumps: normal, and bent upwards by the square of the first coordinate."""
    step = rng.standard_normal((n, 2)) * SPREAD
    step[:, 1] += BEND * step[:, 0] ** 2
    rows: Rows = CENTRES[rng.integers(0, len(CENTRES), n)] + step
    return rows


def steps(x: Rows) -> Rows:
    """Steps from each clump's centre to each row, straightened and in deviations: (rows, clumps, 2)."""
    step: Rows = x[:, None] - CENTRES
    step[..., 1] -= BEND * step[..., 0] ** 2
    step /= SPREAD
    return step


def true_log_prob(x: Rows) -> Rows:
    """The log densities of rows: the map of a clump keeps areas, except for the factor of its deviations."""
    of_clumps = -0.5 * np.square(steps(x)).sum(axis=-1) - np.log(2.0 * np.pi * SPREAD.prod() * len(CENTRES))
    log_prob: Rows = np.logaddexp.reduce(of_clumps, axis=1)
    return log_prob


def share_between(x: Rows) -> float:
    """The share of rows between the clumps: of 100,000 rows of a clump, fewer than one is so far out."""
    return float((np.square(steps(x)).sum(axis=-1).min(axis=1) > FAR**2).mean())


def base_at_modes(x: Rows, components: int, seed: int) -> hr.NormalMixture:
    """A mixture with a component at the centre of each group that k-means finds in the standardised rows."""
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    groups = KMeans(components, n_init=5, random_state=seed).fit(standard)
    inside = standard - groups.cluster_centers_[groups.labels_]
    return hr.NormalMixture(2, components, loc=groups.cluster_centers_, scale=inside.std())


def draw(path: Path, samples: dict[str, Rows]) -> None:
    """Draw the samples side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(samples), 4.2), layout="constrained")
    for axes, (title, rows) in zip(figure.subplots(1, len(samples)), samples.items(), strict=True):
        axes.scatter(*rows.T, s=2, alpha=0.4, linewidths=0, color="#0072b2")
        axes.set(title=title, xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), xticks=[], yticks=[], aspect="equal")
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    """Fit, print and draw; return 0 if the mixture is better."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--epochs", type=int, help="as `fit` chooses by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(argv)

    rng = np.random.default_rng(arguments.seed)
    x, new = draw_rows(arguments.rows, rng), draw_rows(NEW, rng)
    bases = {"a normal base": None, "a base with three modes": base_at_modes(x, len(CENTRES), arguments.seed)}
    samples, reached, between = {"rows": x}, [], []
    print(f"{'':26}{'nats a row':>12}{'between the clumps':>22}")
    print(f"{'truth':26}{true_log_prob(new).mean():12.3f}{100 * share_between(new):20.2f} %")
    for title, base in bases.items():
        flow = hr.MAF(2, transforms=3, hidden=(32, 32), base=base, seed=arguments.seed)
        flow.fit(x, epochs=arguments.epochs, seed=arguments.seed, progress=False)
        samples[title] = flow.sample(len(x), seed=arguments.seed)
        reached.append(float(flow.log_prob(new).mean()))
        between.append(share_between(flow.sample(20_000, seed=arguments.seed + 1)))
        print(f"{title:26}{reached[-1]:12.3f}{100 * between[-1]:20.2f} %")
    if arguments.output:
        draw(arguments.output, samples)
    return 0 if reached[1] > reached[0] and between[1] < between[0] else 1


if __name__ == "__main__":
    sys.exit(main())
