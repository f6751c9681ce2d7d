"""The sizes of planted misfits, from which the limits of the grades of `headrace.diagnose` were chosen.

    python -m bench.diagnosis.grades [--seeds N] [--rows N] [--key K]

Densities are exact, of four independent normal columns. Rows differ from the density in one respect of known size, and
the nats that the density lacks are known: -ln(1 - r²) / 2 of a correlation r, (s² - 1) / 2 - ln s of a spread s, m² / 2
of a shift m. A density should be "very good" where a spread is within 10 %, a shift within a fifth of a deviation and a
correlation that is left out is at most 0.2; "usable" with a spread within 30 %, a shift within 0.45 deviations and a
correlation of at most 0.4 left out; "wrong" beyond. The limits were chosen on the rows of the default key;
other keys give rows that were not used for the choice.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

import headrace as hr
from bench.quality.power import FEATURES, density
from headrace._base.types import Floats

KEY = 0x67726164


def _spread(size: float) -> Callable[[Floats], None]:
    def change(x: Floats) -> None:
        x[:, 2] *= size

    return change


def _shift(size: float) -> Callable[[Floats], None]:
    def change(x: Floats) -> None:
        x[:, 2] += size

    return change


def _correlation(size: float) -> Callable[[Floats], None]:
    def change(x: Floats) -> None:
        x[:, 3] = size * x[:, 1] + np.sqrt(1.0 - size**2) * x[:, 3]

    return change


MISFITS = {
    "none": _shift(0.0),
    **{f"spread {size}": _spread(size) for size in (0.7, 0.9, 1.1, 1.3, 1.6)},
    **{f"shift {size}": _shift(size) for size in (0.1, 0.2, 0.4, 0.8)},
    **{f"correlation {size}": _correlation(size) for size in (0.1, 0.2, 0.4, 0.7)},
}


def main(arguments: Any = None) -> None:
    """Print a line for each misfit: means of sizes, and the number of times that each grade was given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--key", type=int, default=KEY, help="of the rows")
    given = parser.parse_args(arguments)
    flow = density(0)
    print(
        f"| misfit ({given.seeds} seeds, {given.rows:,} rows) | classifier | nats | grades |\n| --- | --- | --- | --- |"
    )
    for i, (name, change) in enumerate(MISFITS.items()):
        sizes, grades = [], Counter[str]()
        for seed in range(given.seeds):
            x = np.random.default_rng([given.key, i, seed]).standard_normal((given.rows, FEATURES))
            change(x)
            found = hr.diagnose(flow, x, seed=seed, progress=False)
            sizes.append((found.size.known, found.size.nats))
            grades[found.grade] += 1
        known, nats = np.mean(sizes, axis=0)
        print(f"| {name} | {known:.1%} | {nats:.3f} | {dict(grades)} |", flush=True)


if __name__ == "__main__":
    main()
