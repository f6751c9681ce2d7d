"""The share of misfits of known size that `headrace.diagnose` finds.

    python -m bench.quality.power [--seeds N] [--rows N ...]

Densities are exact, and rows come from other densities, which differ in one respect. The program prints the share of
the seeds for which the overall p-value is at most 0.05, with its binomial standard error; in the row "none", the share
is that of right densities that are called wrong. The classifier is the logistic model alone, so that the shares do not
depend on whether scikit-learn is installed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

import headrace as hr
from headrace._base.types import Floats

Misfit = Callable[[np.random.Generator, int], tuple[Floats, Floats | None]]

LEVEL = 0.05
FEATURES = 4
ROWS = (250, 500, 1000, 2000)
MODE = 3.0  # standard deviations between the modes


def _normal(rng: np.random.Generator, rows: int) -> Floats:
    return rng.standard_normal((rows, FEATURES))


def _none(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats | None]:
    return _normal(rng, rows), None


def _scale(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats | None]:
    return _normal(rng, rows) * np.array([1.0, 1.0, 1.1, 1.0]), None


def _correlation(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats | None]:
    x = _normal(rng, rows)
    x[:, 3] = 0.2 * x[:, 1] + np.sqrt(0.96) * x[:, 3]
    return x, None


def _mode(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats | None]:
    x = _normal(rng, rows)
    x[rng.random(rows) < 0.05, 0] += MODE
    return x, None


def _context(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats | None]:
    x, context = _normal(rng, rows), rng.standard_normal((rows, 2))
    x[:, 1] = 0.2 * context[:, 1] + np.sqrt(0.96) * x[:, 1]
    return x, context


MISFITS: dict[str, Misfit] = {
    "none": _none,
    "a scale that is 10 % too small": _scale,
    "a correlation of 0.2 left out": _correlation,
    "a mode of 5 % left out, 3 σ away": _mode,
    "a correlation of 0.2 with the context left out": _context,
}


def density(contexts: int) -> hr.Flow:
    """A flow of independent normal columns, for any context."""
    if not contexts:
        return hr.Flow([hr.transforms.Standardize(np.zeros(FEATURES), np.ones(FEATURES))], dtype="float64")
    flow = hr.RealNVP(FEATURES, context=contexts, transforms=1, hidden=(4,), dtype="float64")
    flow.parameters = np.zeros(flow.parameters.size)
    return flow


def found(misfit: str, rows: int, seeds: int) -> int:
    """The number of seeds for which the density is rejected."""
    count = 0
    # The size of a misfit changes no p-value, and would take most of the time.
    no_sizes = mock.patch("headrace.diagnosis.run.missing_nats", return_value=(np.nan, np.nan))
    with mock.patch("headrace.diagnosis.classifier.find_spec", return_value=None), no_sizes:
        for seed in range(seeds):
            rng = np.random.default_rng([seed, rows, list(MISFITS).index(misfit)])
            x, context = MISFITS[misfit](rng, rows)
            flow = density(0 if context is None else context.shape[1])
            count += hr.diagnose(flow, x, context, seed=seed, progress=False).p_value <= LEVEL
    return count


def cell(count: int, seeds: int) -> str:
    """A share with its standard error; for a share of 0 or 1, the bound where this result has probability 1/20."""
    share = count / seeds
    if count in (0, seeds):
        bound = 1.0 - LEVEL ** (1.0 / seeds)
        return f"> {1.0 - bound:.1%}" if count else f"< {bound:.1%}"
    return f"{share:.1%} ± {np.sqrt(share * (1.0 - share) / seeds):.1%}"


def main(arguments: Any = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    given = parser.parse_args(arguments)
    print(f"| misfit ({given.seeds} seeds) | " + " | ".join(f"{n:,} rows" for n in given.rows) + " |")
    print("| --- |" + " --- |" * len(given.rows))
    for misfit in MISFITS:
        cells = [cell(found(misfit, n, given.seeds), given.seeds) for n in given.rows]
        print(f"| {misfit} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
