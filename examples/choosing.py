"""Choosing a density: flows of several kinds within half a minute, a table of all, and the best beside the rows.

The rows are made-up planets: a period, a radius with a gap between two kinds, and an eccentricity from 0 to 1 that is
small where the period is short. `hr.auto` tries flows, an ascent, a Gaussian and a kernel density, judges all of them
by rows held out from every fit, and reports whether a simple density is as good. `hr.plot.corner` draws the best
density.

    python examples/choosing.py [--rows 4000] [--seconds 20] [--output choosing.png]

`--output` draws the picture, and needs matplotlib.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr

NAMES = ("log period [days]", "log radius [Earths]", "eccentricity")
BOUNDS = (None, None, (0.0, 1.0))


def draw_planets(n: int, rng: np.random.Generator) -> NDArray[Any]:
    """Rows of planets, with three columns."""
    large = rng.random(n) < 0.45
    period = np.where(large, 1.4, 0.8) + np.where(large, 0.5, 0.35) * rng.standard_normal(n)
    radius = np.where(large, 0.4, 0.13) + 0.05 * rng.standard_normal(n) - 0.05 * (period - 1.0)
    typical = 0.02 + 0.3 / (1.0 + np.exp(-4.0 * (period - 1.3)))
    return np.stack([period, radius, rng.beta(2.0, 2.0 / typical)], axis=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if no density is better than a Gaussian."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    x = draw_planets(options.rows, np.random.default_rng(options.seed))
    choice = hr.auto(x, options.seconds, bounds=BOUNDS, names=NAMES, seed=options.seed)
    print(choice)
    if options.output:
        figure = hr.plot.corner(choice.flow, x, names=NAMES, labels=("rows", choice.name))
        figure.savefig(options.output, dpi=130)
        print(f"picture: {options.output}")
    gaussian = next(one for one in choice.table if one.name == "Gaussian")
    return 0 if gaussian.behind > 2 * gaussian.behind_error else 1


if __name__ == "__main__":
    sys.exit(main())
