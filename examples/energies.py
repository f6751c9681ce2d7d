"""The four energies of Rezende and Mohamed (2015), and flows that are fitted to them.

Each flow is fitted to a density e^-U alone, without any sample of it (`hr.fit_to_density`). The integrals of the four
energies are known, so that KL(flow || density) is known, too: it is the free energy plus log Z. The picture has the
densities in the first column and those of the flows beside them, evaluated on a grid, which is possible because planar
and radial flows of headrace have inverses.

    python examples/energies.py [--steps 2000] [--energies U1,U2,U3,U4] [--seed 0] [--output energies.png]

`--output` needs matplotlib.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr

FLOWS: dict[str, Callable[[int], hr.Flow]] = {
    "planar, K = 2": lambda seed: hr.PlanarFlow(2, 2, seed=seed),
    "planar, K = 8": lambda seed: hr.PlanarFlow(2, 8, seed=seed),
    "planar, K = 32": lambda seed: hr.PlanarFlow(2, 32, seed=seed),
    "radial, K = 32": lambda seed: hr.RadialFlow(2, 32, seed=seed),
    "RealNVP": lambda seed: hr.RealNVP(2, activation="silu", seed=seed),
    "IAF": lambda seed: hr.IAF(2, activation="silu", seed=seed),
    "MAF": lambda seed: hr.MAF(2, activation="silu", seed=seed),
    "NSF": lambda seed: hr.NSF(2, activation="silu", seed=seed),
}
GRID = 200


def grid_of(energy: hr.densities.Energy) -> NDArray[np.float32]:
    """Points of the energy's box, shape (GRID², 2)."""
    axes = [np.linspace(low, high, GRID, dtype=np.float32) for low, high in energy.box]
    return np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)


def draw(path: Path, columns: list[str], rows: list[tuple[str, list[NDArray[Any]]]]) -> None:
    """Draw densities as pictures, one row for each energy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.7 * len(columns), 1.85 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, (name, densities) in zip(axes, rows, strict=True):
        for axis, density in zip(line, densities, strict=True):
            axis.imshow(density.reshape(GRID, GRID), origin="lower", cmap="magma", vmin=0.0, vmax=densities[0].max())
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=11)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=9)
    figure.savefig(path, dpi=130)
    print(f"picture: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the best flow for an energy is not within 0.1 nats of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--energies", default="U1,U2,U3,U4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    rows: list[tuple[str, list[NDArray[Any]]]] = []
    close = True
    for name in options.energies.split(","):
        energy = getattr(hr.densities, name)()
        points = grid_of(energy)
        densities = [np.exp(energy.log_density(points) - energy.log_z)]
        print(f"{name}: log Z = {energy.log_z:.4f}")
        best = np.inf
        for label, make in FLOWS.items():
            flow, start = make(options.seed), time.perf_counter()
            fit = hr.fit_to_density(flow, energy, steps=options.steps, seed=options.seed, progress=False)
            assert fit.final is not None
            kl = fit.final.free_energy + energy.log_z
            best = min(best, kl)
            seconds = time.perf_counter() - start
            print(f"  {label:15} KL {kl:7.4f} ± {fit.final.standard_error:.4f}   {seconds:5.1f} s", flush=True)
            densities.append(np.exp(flow.log_prob(points)))
        print(f"  the best is {best:.4f} nats away")
        close = close and best < 0.1
        rows.append((name, densities))
    if options.output:
        draw(options.output, ["density", *FLOWS], rows)
    return 0 if close else 1


if __name__ == "__main__":
    sys.exit(main())
