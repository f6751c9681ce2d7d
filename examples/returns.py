"""Daily returns beside GARCH: a network that is fitted to 4,000 days of the S&P 500.

The classical model of daily returns is a GARCH(1, 1): a day's variance is a weighted sum of the variance and of the
squared return of the day before, and the return has Student's t distribution. A `WaveNet` is also a density of each day
given the days before, but has to learn that dependence. Both models are fitted to the first 4,000 days of 1999 to 2018,
and judged by the log density of the other days, in nats a day.

The prices come from the wheel of the package arch, which `pip download` fetches; where it cannot be fetched, the
returns are simulated by a GARCH process. The fit of the GARCH needs SciPy.

    python examples/returns.py [--made] [--epochs N] [--seeds 3] [--output returns.png]

`--made` takes simulated returns; `--output` draws the returns, and the difference of log densities day by day, and
needs matplotlib.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr

ROOT = Path(__file__).resolve().parents[1]  # the folder of the benchmark that fetches the data
DAYS = 4000  # days to fit


def flow_of(returns: NDArray[Any], days: int, seed: int, **settings: Any) -> NDArray[Any]:
    """Log densities of the days after the first `days`, by a flow that is fitted to the days before."""
    flow = hr.WaveNet(layers=6, channels=8, prediction=4, bins=3, seed=seed)
    flow.fit(returns[:days, None], seed=seed, progress=False, **settings)
    return np.asarray(flow.log_prob_steps(returns[:, None])[days:], np.float64)


def prices() -> NDArray[Any] | None:
    """The closing prices, or None where they cannot be fetched."""
    from bench.sequences.series import text_of

    with tempfile.TemporaryDirectory() as folder:
        text = text_of("returns", Path(folder))
    return None if text is None else np.array([float(line.split(",")[5]) for line in text.splitlines()[1:]])


def made_returns(days: int, seed: int) -> NDArray[Any]:
    """Returns of a GARCH(1, 1) with Student's t of 7 degrees of freedom."""
    rng = np.random.default_rng(seed)
    noise, found, variance = rng.standard_t(7.0, days) * np.sqrt(5.0 / 7.0), np.zeros(days), 1.0
    for t in range(days):
        found[t] = np.sqrt(variance) * noise[t]
        variance = 0.02 + 0.1 * found[t] ** 2 + 0.88 * variance
    return found


def draw(path: Path, returns: NDArray[Any], ahead: NDArray[Any]) -> None:
    """Draw the returns, and the cumulative difference of log densities of the flow and the GARCH."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(returns, linewidth=0.6, color="tab:blue")
    above.set(ylabel="return, %", title="days that no fit has seen")
    below.plot(np.cumsum(ahead), color="tab:red")
    below.axhline(0.0, color="0.7", linewidth=0.8)
    below.set(xlabel="day", ylabel="nats, flow - GARCH, summed")
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the flow is no better than a normal density."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--made", action="store_true", help="made returns")
    parser.add_argument("--epochs", type=int, help="as `fit` chooses by default")
    parser.add_argument("--seeds", type=int, default=3, help="fits of the flow")
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    sys.path.insert(0, str(ROOT))
    from bench.sequences.series import garch_student

    price = None if options.made else prices()
    if price is None:
        returns = made_returns(5030, seed=0)
        print("returns of a made GARCH process" + ("" if options.made else ": the package arch cannot be fetched here"))
    else:
        returns = 100.0 * np.diff(np.log(price))
        print("daily returns of the S&P 500 in percent, 1999 to 2018")
    later = returns[DAYS:]
    mean, std = returns[:DAYS].mean(), returns[:DAYS].std()
    normal = -0.5 * ((later - mean) / std) ** 2 - np.log(std * np.sqrt(2.0 * np.pi))
    garch = garch_student(returns, DAYS)
    flows = [flow_of(returns, DAYS, seed, epochs=options.epochs) for seed in range(options.seeds)]
    print(f"{len(later)} days after the first {DAYS}, nats a day:")
    print(f"  normal density        {normal.mean():.3f}")
    print(f"  GARCH(1, 1), t        {garch.mean():.3f}")
    print(f"  WaveNet, {len(flows)} seeds     {'  '.join(f'{own.mean():.3f}' for own in flows)}")
    ahead = flows[0] - garch
    print(f"the first flow less the GARCH: {ahead.mean():.3f} ± {ahead.std() / np.sqrt(len(ahead)):.3f} nats a day")
    if options.output:
        draw(options.output, later, ahead)
    return 0 if flows[0].mean() > normal.mean() else 1


if __name__ == "__main__":
    sys.exit(main())
