"""Divergences of `fit_to_density`: ``python -m bench.quality.variational [--what REGEX] [--fits REGEX] [--seeds 1]``.

The program fits flows to the four energies, and to six coordinates, with the defaults and with one argument changed at
a time, and prints KL(flow ‖ density) in nats, which is known because the densities' integrals are known. The defaults
were chosen on the four energies.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import headrace as hr

Rows = np.ndarray


class Valleys:
    """A normalised density of six coordinates, each near the square of the previous one; no default was chosen on
    it."""

    name, features, log_z = "valleys", 6, 0.0

    def __call__(self, x: Rows) -> tuple[Rows, Rows]:
        """The log densities of rows, and their gradients."""
        x = x.astype(np.float64)
        away = (x[:, 1:] - x[:, :-1] ** 2) / 0.3
        constant = 0.5 * self.features * np.log(2 * np.pi) + (self.features - 1) * np.log(0.3)
        slope = np.zeros_like(x)
        slope[:, 0] = -x[:, 0]
        slope[:, 1:] -= away / 0.3
        slope[:, :-1] += 2 * x[:, :-1] * away / 0.3
        return -0.5 * (x[:, 0] ** 2 + np.square(away).sum(axis=1)) - constant, slope


DENSITIES = (hr.densities.U1, hr.densities.U2, hr.densities.U3, hr.densities.U4, Valleys)
SMOOTH = {"activation": "silu"}
FLOWS: dict[str, Callable[..., hr.Flow]] = {"NSF": hr.NSF, "IAF": hr.IAF, "RealNVP": hr.RealNVP}

# The changed setting -> keywords of the flow, keywords of the fit.
VARIATIONS: dict[str, tuple[dict, dict]] = {
    "defaults, silu": (SMOOTH, {}),
    "relu": ({}, {}),
    "tanh": ({"activation": "tanh"}, {}),
    "plain estimator": (SMOOTH, {"estimator": "plain"}),
    "learning rate x 2.5": (SMOOTH, {"learning_rate": 5e-3}),
    "learning rate / 2.5": (SMOOTH, {"learning_rate": 8e-4}),
    "constant learning rate": (SMOOTH, {"schedule": "constant"}),
    "no running mean": (SMOOTH, {"average": None}),
    "no clipping": (SMOOTH, {"clip": None}),
    "annealing (0.1, 0.5)": (SMOOTH, {"annealing": (0.1, 0.5)}),
    "16,000 steps of 64": (SMOOTH, {"steps": 16_000, "samples": 64}),
    "1500 steps of 128": (SMOOTH, {"steps": 1500, "samples": 128}),
    "1500 steps of 128 by Muon": (SMOOTH, {"steps": 1500, "samples": 128, "optimizer": "muon"}),
    "1000 steps of 1024": (SMOOTH, {"steps": 1000, "samples": 1024}),
}


def kl_of(build: Callable[..., hr.Flow], density: Any, seed: int, flow: dict, fit: dict) -> float:
    """The divergence KL(flow ‖ density) of one fit."""
    features = getattr(density, "features", 2)
    result = hr.fit_to_density(build(features, seed=seed, **flow), density, seed=seed, progress=False, **fit)
    assert result.final is not None
    return result.final.free_energy + density.log_z


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--what", default=".", help="variations whose name matches")
    parser.add_argument("--fits", default=".", help='columns that match, as "U1 RealNVP"')
    parser.add_argument("--seeds", type=int, default=1, help="so many, from 1 on")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)  # the table marks fits that diverged
    every_fit = {f"{density().name} {name}": (density, build) for density in DENSITIES for name, build in FLOWS.items()}
    columns = {label: fit for label, fit in every_fit.items() if re.search(arguments.fits, label)}
    print(f"| changed | {' | '.join(columns)} | median | worst | CPU seconds |")
    print("| --- " * (len(columns) + 4) + "|")
    for label, (flow, fit) in VARIATIONS.items():
        if not re.search(arguments.what, label):
            continue
        start, cells, every = time.process_time(), [], []
        for density, build in columns.values():
            found = [kl_of(build, density(), seed + 1, flow, fit) for seed in range(arguments.seeds)]
            every += found
            cells.append(", ".join(f"{kl:.3f}" for kl in found))
        seconds = time.process_time() - start
        print(
            f"| {label} | {' | '.join(cells)} | {statistics.median(every):.3f} | {max(every):.3f} | {seconds:.0f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
