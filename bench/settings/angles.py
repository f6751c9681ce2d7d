"""Periodic columns in every flow: nats that a fit loses against the true density, which is known.

    python -m bench.settings.angles [--seeds 3] [--rows 5000] [--what NAME|NAME] [--flows NAME|NAME]

Each result is the mean over seeds, with the standard deviation, of the true log-likelihood less the reached one, on as
many new rows, in nats: 0 is the best value.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import headrace as hr
from headrace._base.types import Floats

PERIOD = (-np.pi, np.pi)


def von_mises(rng: np.random.Generator, centre: Any, width: Any) -> tuple[Floats, Floats]:
    """Random angles, and the logarithm of their density."""
    drawn = rng.vonmises(centre, width)
    angle = np.mod(drawn + np.pi, 2 * np.pi) - np.pi
    return angle, width * np.cos(angle - centre) - np.log(2 * np.pi * np.i0(width))


def normal(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats]:
    """Random normal values, and the logarithm of their density."""
    x = rng.standard_normal(rows)
    return x, -0.5 * x**2 - 0.5 * np.log(2 * np.pi)


def follows_a_column(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats]:
    """An angle that turns with a column x, is on its seam where x is 0, and narrow where another column is large."""
    x, first = normal(rng, rows)
    y, second = normal(rng, rows)
    angle, third = von_mises(rng, np.pi + 2.0 * x, np.exp(1.0 + y))
    return np.column_stack([angle, x, y]), first + second + third


def follows_an_angle(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats]:
    """An angle that follows another angle, which follows a column."""
    x, first = normal(rng, rows)
    angle, second = von_mises(rng, np.pi + x, 3.0)
    other, third = von_mises(rng, angle, 4.0)
    return np.column_stack([angle, x, other]), first + second + third


def bends_with_an_angle(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats]:
    """An angle whose centre swings and whose width changes as another angle goes around."""
    angle, first = von_mises(rng, np.full(rows, 0.5), 1.0)
    other, second = von_mises(rng, 1.5 * np.sin(angle), np.exp(1.5 + np.cos(angle)))
    return np.column_stack([angle, other]), first + second


def three_angles(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats]:
    """The last of three angles follows the sum of the others."""
    angle, first = von_mises(rng, np.full(rows, 0.5), 1.0)
    other, second = von_mises(rng, np.full(rows, -2.0), 1.0)
    last, third = von_mises(rng, angle + other, 5.0)
    return np.column_stack([angle, other, last]), first + second + third


WHAT: dict[str, tuple[Callable[[np.random.Generator, int], tuple[Floats, Floats]], list[Any]]] = {
    "follows a column": (follows_a_column, [PERIOD, None, None]),
    "follows an angle": (follows_an_angle, [PERIOD, None, PERIOD]),
    "bends with an angle": (bends_with_an_angle, [PERIOD, PERIOD]),
    "three angles": (three_angles, [PERIOD, PERIOD, PERIOD]),
}


def ascent(features: int, periods: Any, seed: int) -> hr.DualAscentFlow:
    """A `DualAscentFlow`, whose fit makes the flow."""
    return hr.DualAscentFlow(periodic=periods, seed=seed)


FLOWS: dict[str, Callable[[int, Any, int], Any]] = {
    "MAF": lambda n, periods, seed: hr.MAF(n, periodic=periods, seed=seed),
    "NSF": lambda n, periods, seed: hr.NSF(n, periodic=periods, seed=seed),
    "NSF of couplings": lambda n, periods, seed: hr.NSF(n, coupling=True, periodic=periods, seed=seed),
    "NSF, angles as numbers": lambda n, periods, seed: hr.NSF(n, seed=seed),
    "DualAscentFlow": ascent,
}


def main() -> None:
    """Print a line for each flow and table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--what", default="|".join(WHAT))
    parser.add_argument("--flows", default="|".join(FLOWS))
    arguments = parser.parse_args()
    for what in arguments.what.split("|"):
        draw, periods = WHAT[what]
        for name in arguments.flows.split("|"):
            lost = []
            for seed in range(arguments.seeds):
                rng = np.random.default_rng([seed, 7])
                (x, _), (test, true) = draw(rng, arguments.rows), draw(rng, arguments.rows)
                made = FLOWS[name](x.shape[1], periods, seed)
                if isinstance(made, hr.DualAscentFlow):
                    made = made.fit(x, progress=False)
                else:
                    made.fit(x, seed=seed, progress=False)
                lost.append(float(true.mean() - made.log_prob(test).mean()))
            print(f"{what:20s} {name:24s} {np.mean(lost):7.3f} ± {np.std(lost):.3f}", flush=True)


if __name__ == "__main__":
    main()
