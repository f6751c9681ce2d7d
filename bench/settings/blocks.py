"""How fresh residual blocks start: ``python -m bench.settings.blocks [--seeds 3]``.

Three tables that no other report uses, 6000 rows to fit and 2000 new ones: the mean log-likelihood of these, in nats,
under residual MAFs whose blocks end in fresh weights of different sizes, and under one without blocks.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np

import headrace as hr
from headrace._base.types import Floats
from headrace._core import structure

ROWS, NEW, EPOCHS, GAINS = 6000, 2000, 25, (1e-3, 0.1, 0.5, 2**0.5)


def clouds(rows: int, rng: np.random.Generator) -> Floats:
    """A mixture of five correlated Gaussians in six dimensions."""
    centers = 2.0 * np.random.default_rng(0).standard_normal((5, 6))
    roots = 0.4 * np.random.default_rng(1).standard_normal((5, 6, 6))
    chosen = rng.integers(0, 5, rows)
    return centers[chosen] + np.einsum("nij,nj->ni", roots[chosen], rng.standard_normal((rows, 6)))


def helix(rows: int, rng: np.random.Generator) -> Floats:
    """A thin curve in four dimensions."""
    t = rng.uniform(0.0, 12.0, rows)
    curve = np.stack([np.cos(t), np.sin(t), t / 4.0, np.sin(t / 3.0) * np.cos(2.0 * t)], axis=1)
    return curve + 0.05 * rng.standard_normal((rows, 4))


def fan(rows: int, rng: np.random.Generator) -> Floats:
    """Columns whose scale, mean or both depend on others."""
    z = rng.standard_normal((rows, 8))
    scaled, bent = np.exp(0.7 * z[:, :1]) * z[:, 1:4], z[:, 1:2] ** 2 + 0.3 * z[:, 4:5]
    return np.concatenate([z[:, :1], scaled, bent, np.sin(3.0 * z[:, 2:3]) + 0.2 * z[:, 5:6]], axis=1)


TABLES: dict[str, Callable[[int, np.random.Generator], Floats]] = {"clouds": clouds, "helix": helix, "fan": fan}


def fitted(table: Callable[[int, np.random.Generator], Floats], seed: int, hidden: int, residual: bool) -> float:
    """The mean log-likelihood of new rows."""
    x = table(ROWS + NEW, np.random.default_rng(100 + seed))
    flow = hr.MAF(x.shape[1], hidden=(hidden, hidden), residual=residual, seed=seed)
    flow.fit(x[:ROWS], epochs=EPOCHS, progress=False, seed=seed)
    return float(flow.log_prob(x[ROWS:]).mean(dtype=float))


def main() -> None:
    """Print a line for each size of fresh weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    kinds = [(f"blocks of 48, end {gain:.3g}", gain, 48, True) for gain in GAINS] + [("64, plain", 0.0, 64, False)]
    for label, gain, hidden, residual in kinds:
        structure.BLOCK_GAIN = gain
        cells = []
        for name, table in TABLES.items():
            values = [fitted(table, seed, hidden, residual) for seed in seeds]
            cells.append(f"{name} {statistics.mean(values):.3f} ({statistics.pstdev(values):.3f})")
        print(f"{label:22} {'; '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
