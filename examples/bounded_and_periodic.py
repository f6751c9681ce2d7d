"""Columns with ends, columns that go around, and tails heavier than a normal's.

The first table resembles records of weather: the direction of the wind in degrees, the relative humidity, and the speed
of the wind, which is positive. A flow with these supports is fitted, and another that treats all three columns as
unbounded. The second table has heavy tails, to which a flow over a normal base is fitted, and one over Student's t.

    python examples/bounded_and_periodic.py [--epochs N] [--rows 4000] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr

ENOUGH = 0.01  # the least gain of either comparison, in nats a row; a default fit represents marginals well by itself


def weather(rows: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Wind mostly from the north, across the seam of the circle, with dry air at high speeds."""
    speed = rng.gamma(1.5, 4.0, rows)
    humidity = rng.beta(6.0, 1.0 + 0.3 * speed)
    direction = np.degrees(rng.vonmises(0.0, 1.0 + 0.4 * speed)) % 360.0
    return np.column_stack([direction, humidity, speed])


def returns(rows: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Two columns of Student's t with 2.5 degrees of freedom, the second of which follows the first."""
    x = rng.standard_t(2.5, (rows, 2))
    x[:, 1] += 0.5 * x[:, 0]
    return x


def held_out(flow: hr.Flow, x: NDArray[Any], test: NDArray[Any], seed: int, **settings: Any) -> float:
    """The mean log density of rows held out, in nats, of a flow that is fitted here."""
    flow.fit(x, seed=seed, progress=False, **settings)
    return float(flow.log_prob(test).mean())


def main() -> int:
    """Run the example; the exit status is 1 if a flow with supports, or with the tails of the data, is not better."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, help="as `fit` chooses by default")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, gains = np.random.default_rng(arguments.seed), []

    x, test = weather(arguments.rows, rng), weather(arguments.rows, rng)
    settings = {"transforms": 2, "hidden": (32, 32), "coupling": True, "seed": arguments.seed}
    flows = {
        "any numbers": hr.NSF(3, **settings),
        "a circle, a share, a speed": hr.NSF(
            3, **settings, bounds=[None, (0.0, 1.0), (0.0, None)], periodic=[(0.0, 360.0), None, None]
        ),
    }
    print(f"weather, {arguments.rows} rows: held-out nats a row, and samples that no weather has")
    reached = []
    for name, flow in flows.items():
        reached.append(held_out(flow, x, test, arguments.seed, epochs=arguments.epochs))
        drawn = flow.sample(10_000, seed=arguments.seed)
        outside = ((drawn < 0.0) | (drawn >= [360.0, 1.0, np.inf])).any(axis=1).mean()
        print(f"  {name:<28}{reached[-1]:8.3f}   {100 * outside:5.1f} %")
    gains.append(reached[1] - reached[0])
    inner = flows["a circle, a share, a speed"]
    around = inner.log_prob(np.array([[-1e-3, 0.8, 5.0], [359.999, 0.8, 5.0], [1e-3, 0.8, 5.0]]))
    print(f"  log density just west of north, again, and just east: {around[0]:.3f} {around[1]:.3f} {around[2]:.3f}")

    x, test = returns(arguments.rows, rng), returns(arguments.rows, rng)
    print(f"heavy tails, {arguments.rows} rows: held-out nats a row")
    reached = []
    for base in (hr.StandardNormal(2), hr.StudentT(2)):
        tails = hr.MAF(2, transforms=2, hidden=(16,), base=base, seed=arguments.seed)
        reached.append(held_out(tails, x, test, arguments.seed, epochs=arguments.epochs))
        print(f"  {type(base).__name__:<28}{reached[-1]:8.3f}")
    fitted = tails.base
    assert isinstance(fitted, hr.StudentT)
    print(f"  degrees of freedom: {', '.join(f'{df:.2f}' for df in fitted.df)}")
    gains.append(reached[1] - reached[0])
    return 0 if min(gains) > ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
