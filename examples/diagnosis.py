"""Looking at a fit before trusting it: evidence against a flow that hardly saw the data, and against one that did.

Rows are two moons and a third column that follows a context. One flow is fitted for two epochs, and another with the
default settings; `hr.diagnose` tests both with rows that were held out: tests of latent rows, of coverage, by a
classifier and by distances to the training rows, all judged together. The first report names the faults, and the second
reports no fault, or a small one.

    python examples/diagnosis.py [--rows 6000] [--epochs N] [--output diagnosis.png]

`--output` draws the diagnosis of the first flow, and needs matplotlib.
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

NEW = 2000  # rows held out
SHORT = 2  # epochs of the first fit
NAMES = ("across", "up", "follows")

Rows = NDArray[Any]


def draw_rows(n: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Rows of three columns, and the context of each."""
    angle, side = rng.uniform(0.0, np.pi, n), rng.integers(0, 2, n)
    moon = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (1 - 2 * side)[:, None] + side[:, None] * [1.0, 0.5]
    context = rng.uniform(-1.0, 1.0, (n, 1))
    follows = np.sin(3.0 * context) + (0.2 + 0.2 * context**2) * rng.standard_normal((n, 1))
    return np.concatenate([moon + 0.15 * rng.standard_normal((n, 2)), follows], axis=1), context


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the short fit passes, or if the long one is not better."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--epochs", type=int, help="as `fit` chooses by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    rng = np.random.default_rng(options.seed)
    (x, context), (new, new_context) = draw_rows(options.rows, rng), draw_rows(NEW, rng)
    looks = []
    for epochs in (SHORT, options.epochs):
        flow = hr.NSF(3, context=1, transforms=4, hidden=(64, 64), seed=options.seed)
        history = flow.fit(x, context, epochs=epochs, seed=options.seed)
        look = hr.diagnose(flow, new, new_context, training=(x, context), names=NAMES, seed=options.seed)
        tests = f"{len(look.misses)} of {len(look.tests)} tests speak against it"
        print(f"--- after {history.epochs} epochs: {tests} ---\n{look}\n")
        looks.append(look)
    if options.output:
        looks[0].plot(options.output)
        print(f"picture: {options.output}")
    short, long = looks
    return 0 if short.misses and len(long.misses) < len(short.misses) else 1


if __name__ == "__main__":
    sys.exit(main())
