"""The share of default fits to synthetic tables that pass their diagnosis, and the nats that they lack.

    python -m bench.diagnosis.passes [--first K] [--tables N] [--rows N] [--judged N] [--flow NSF]

Table k has 2 + k mod 5 columns. Each column is a smooth function of the columns before it, plus noise whose scale is
another smooth function of these columns: normal, logistic, skew, of two modes, or Student's with 8 degrees of freedom.
The density is known, so that the nats that a fit lacks are printed beside those that `headrace.diagnose` finds.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

import headrace as hr
from headrace._base.types import Floats

KEY = 0x70617373
NOISES = ("normal", "logistic", "skew", "two modes", "student")


@dataclass(frozen=True)
class Bend:
    """A function of the previous columns, a sum of sines."""

    size: float
    frequency: Floats
    phase: Floats
    weight: Floats

    @classmethod
    def drawn(cls, rng: np.random.Generator, before: int, size: float) -> Bend:
        """Three random sines, slow enough for 3,000 rows."""
        frequency = 0.7 * rng.standard_normal((before, 3))
        return cls(size, frequency, rng.uniform(0.0, 2.0 * math.pi, 3), rng.standard_normal(3) / math.sqrt(3.0))

    def __call__(self, x: Floats) -> Floats:
        """The values of the function, one for each row."""
        return np.asarray(self.size * np.sin(x @ self.frequency + self.phase) @ self.weight)


def _noise(name: str, rng: np.random.Generator, rows: int) -> Floats:
    if name == "normal":
        return rng.standard_normal(rows)
    if name == "logistic":
        return rng.logistic(0.0, 0.55, rows)
    if name == "skew":
        return rng.gumbel(-0.45, 0.78, rows)
    if name == "two modes":
        return np.where(rng.random(rows) < 0.4, -1.0, 0.7) + 0.45 * rng.standard_normal(rows)
    return np.asarray(0.85 * rng.standard_t(8.0, rows))


def _log_noise(name: str, e: Floats) -> Floats:
    if name == "normal":
        return -0.5 * np.square(e) - 0.5 * math.log(2.0 * math.pi)
    if name == "logistic":
        a = np.abs(e) / 0.55
        return np.asarray(-a - 2.0 * np.log1p(np.exp(-a)) - math.log(0.55))
    if name == "skew":
        a = (e + 0.45) / 0.78
        return np.asarray(-a - np.exp(-a) - math.log(0.78))
    if name == "two modes":
        parts = [math.log(w) - 0.5 * np.square((e - m) / 0.45) for w, m in ((0.4, -1.0), (0.6, 0.7))]
        return np.asarray(np.logaddexp(*parts) - math.log(0.45) - 0.5 * math.log(2.0 * math.pi))
    a = e / 0.85
    constant = math.lgamma(4.5) - math.lgamma(4.0) - 0.5 * math.log(8.0 * math.pi) - math.log(0.85)
    return np.asarray(constant - 4.5 * np.log1p(np.square(a) / 8.0))


class Made:
    """Table k: its density, and functions that draw its rows."""

    def __init__(self, k: int) -> None:
        self.rng = np.random.default_rng([KEY, k])
        self.features = 2 + k % 5
        self.noises = [NOISES[i] for i in self.rng.integers(0, len(NOISES), self.features)]
        self.middle = [Bend.drawn(self.rng, i, 1.2) for i in range(self.features)]
        self.log_scale = [Bend.drawn(self.rng, i, 0.4) for i in range(self.features)]

    def rows(self, n: int) -> Floats:
        """New random rows, which differ in each call."""
        x = np.empty((n, 0))
        for name, middle, scale in zip(self.noises, self.middle, self.log_scale, strict=True):
            column = middle(x) + np.exp(scale(x)) * _noise(name, self.rng, n)
            x = np.concatenate([x, column[:, None]], axis=1)
        return x

    def log_prob(self, x: Floats) -> Floats:
        """The true log densities of rows."""
        total = np.zeros(len(x))
        for i, (name, middle, scale) in enumerate(zip(self.noises, self.middle, self.log_scale, strict=True)):
            size = scale(x[:, :i])
            total += _log_noise(name, (x[:, i] - middle(x[:, :i])) * np.exp(-size)) - size
        return total


def one(k: int, rows: int, judged: int, flow: str) -> dict[str, Any]:
    """The results of a fit to table k: its p-value, the nats that it lacks, its CPU seconds and the tests that it
    fails."""
    made = Made(k)
    x, held_out = made.rows(rows), made.rows(judged)
    density = getattr(hr, flow)(made.features, seed=k)
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        density.fit(x, seed=k, progress=False)
    seconds = time.process_time() - began
    diagnosis = hr.diagnose(density, held_out, progress=False)
    lacks = float((made.log_prob(held_out) - diagnosis.log_prob).mean())
    return {
        "table": k,
        "features": made.features,
        "p": diagnosis.p_value,
        "lacks": lacks,
        "seconds": seconds,
        "misses": [f"{one.name} ({one.p_value:.0e}: {one.sentence})" for one in diagnosis.misses],
    }


def main(arguments: Any = None) -> None:
    """Print a line for each table, and the share that passes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--first", type=int, default=0, help="the first table; 0 to 49 are reported, others choose")
    parser.add_argument("--tables", type=int, default=50)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--judged", type=int, default=1000)
    parser.add_argument("--flow", default="NSF")
    given = parser.parse_args(arguments)
    found = []
    for k in range(given.first, given.first + given.tables):
        found.append(one(k, given.rows, given.judged, given.flow))
        print(
            "{table:3d} {features} p {p:8.2g} lacks {lacks:.4f} nats, {seconds:5.1f} CPU s {misses}".format(
                **found[-1]
            ),
            flush=True,
        )
    passed = sum(one["p"] > 0.05 for one in found)
    lacks, seconds = (float(np.mean([one[key] for one in found])) for key in ("lacks", "seconds"))
    print(f"{passed} of {len(found)} pass at 5 %; they lack {lacks:.4f} nats in {seconds:.1f} CPU s, means of tables")


if __name__ == "__main__":
    main()
