"""What `fit_to_density` is worth: ``python -m bench.quality.variational [--what REGEX] [--fits REGEX] [--seeds 1]``.

Fits flows to the four energies with the defaults and with one argument changed at a time, and prints KL(flow ‖ density)
in nats, which is known as the energies' integrals are. The defaults were chosen on these four.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import headrace as hr

ENERGIES = (hr.densities.U1, hr.densities.U2, hr.densities.U3, hr.densities.U4)
SMOOTH = {"activation": "silu"}
FLOWS: dict[str, Callable[..., hr.Flow]] = {"NSF": hr.NSF, "IAF": hr.IAF, "RealNVP": hr.RealNVP}

# What is changed -> keywords of the flow, keywords of the fit.
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
    "1000 steps of 1024": (SMOOTH, {"steps": 1000, "samples": 1024}),
}


def kl_of(build: Callable[..., hr.Flow], energy: hr.densities.Energy, seed: int, flow: dict, fit: dict) -> float:
    """KL(flow ‖ density) of one fit."""
    result = hr.fit_to_density(build(2, seed=seed, **flow), energy, seed=seed, progress=False, **fit)
    assert result.final is not None
    return result.final.free_energy + energy.log_z


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--what", default=".", help="variations whose name matches")
    parser.add_argument("--fits", default=".", help='columns that match, as "U1 RealNVP"')
    parser.add_argument("--seeds", type=int, default=1, help="so many, from 1 on")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)  # of fits that diverged: the table shows it
    every_fit = {f"{energy().name} {name}": (energy, build) for energy in ENERGIES for name, build in FLOWS.items()}
    columns = {label: fit for label, fit in every_fit.items() if re.search(arguments.fits, label)}
    print(f"| changed | {' | '.join(columns)} | median | worst | seconds |")
    print("| --- " * (len(columns) + 4) + "|")
    for label, (flow, fit) in VARIATIONS.items():
        if not re.search(arguments.what, label):
            continue
        start, cells, every = time.perf_counter(), [], []
        for energy, build in columns.values():
            found = [kl_of(build, energy(), seed + 1, flow, fit) for seed in range(arguments.seeds)]
            every += found
            cells.append(", ".join(f"{kl:.3f}" for kl in found))
        seconds = time.perf_counter() - start
        print(
            f"| {label} | {' | '.join(cells)} | {statistics.median(every):.3f} | {max(every):.3f} | {seconds:.0f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
