"""Quality of `DualAscentFlow`: ``python -m bench.quality.dual_ascent [--what REGEX] [--method REGEX] [--splits N]``.

Known densities (`--rows`, 10,000 of them) are judged by the nats lost against the truth, tables by the log-likelihood
of held-out rows; both in nats a row, in units of the standard deviations of the rows to fit. Other methods are a
Gaussian, kernels with the Gaussian's covariance (whose width is chosen on a tenth of the rows to fit) and a neural
spline flow with its defaults; and, if named, sinflow, another iterative Gaussianisation, where it is installed (pip
install sinflow). Split s of a table holds out a tenth by seed s; every method also gets the seed s.

Wines: repeated rows are left out, because they would be on both sides, and noise of the values' steps is added
(`bench.quality.datasets`).
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import headrace as hr
from bench.kernels.ascent_speed import speed_of_a_fit
from bench.quality import datasets
from headrace._base.types import Floats
from headrace._cli.demo import load_stars

# ---- known densities -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """A mixture of equal normal densities of one width, whose centers make a curve."""

    centers: Callable[[Floats], Floats]  # centers from values in [0, 1)
    width: float
    count: int  # the number of centers that make the density

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        return self.centers(rng.random(n)) + self.width * rng.standard_normal((n, 2))

    def log_prob(self, x: Floats) -> Floats:
        centers = self.centers((np.arange(self.count) + 0.5) / self.count)
        parts = []
        for start in range(0, len(x), 500):
            away = x[start : start + 500, None] - centers
            exponent = -np.square(away).sum(axis=2) / (2.0 * self.width**2)
            most = exponent.max(axis=1)
            parts.append(most + np.log(np.exp(exponent - most[:, None]).mean(axis=1)))
        return np.concatenate(parts) - np.log(2.0 * np.pi * self.width**2)


def moons(u: Floats) -> Floats:
    """Points of two interlocking half circles."""
    upper, t = u < 0.5, np.pi * (2.0 * u % 1.0)
    x, y = np.cos(t), np.sin(t)
    return np.where(upper[:, None], np.stack([x, y], 1), np.stack([1.0 - x, 0.5 - y], 1))


def ring(u: Floats) -> Floats:
    """Eight points on a circle of radius 2."""
    angle = np.floor(8.0 * u) * np.pi / 4.0
    return 2.0 * np.stack([np.cos(angle), np.sin(angle)], 1)


def spiral(u: Floats) -> Floats:
    """Points of a spiral of three turns at a distance of one, evenly along the curve (except for its very middle)."""
    r = 3.0 * np.sqrt(u)
    return np.stack([r * np.cos(2.0 * np.pi * r), r * np.sin(2.0 * np.pi * r)], 1)


class Banana:
    """The density of x₁ normal, x₂ = x₁² + 0.6 times normal."""

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        x = rng.standard_normal((n, 2))
        return np.stack([x[:, 0], x[:, 0] ** 2 + 0.6 * x[:, 1]], 1)

    def log_prob(self, x: Floats) -> Floats:
        square = x[:, 0] ** 2 + ((x[:, 1] - x[:, 0] ** 2) / 0.6) ** 2
        return -0.5 * square - np.log(2.0 * np.pi * 0.6)


@dataclass(frozen=True)
class Mixture:
    """Equally frequent normal densities in several dimensions, each with a different covariance."""

    means: Floats  # (components, features)
    factors: Floats  # factors of the covariances, (components, features, features)

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        which, noise = rng.integers(len(self.means), size=n), rng.standard_normal((n, self.means.shape[1]))
        return self.means[which] + np.einsum("nij,nj->ni", self.factors[which], noise)

    def log_prob(self, x: Floats) -> Floats:
        parts = []
        for mean, factor in zip(self.means, self.factors, strict=True):
            white = np.linalg.solve(factor, (x - mean).T)
            constant = 0.5 * len(mean) * np.log(2.0 * np.pi) + np.linalg.slogdet(factor)[1] + np.log(len(self.means))
            parts.append(-0.5 * np.square(white).sum(axis=0) - constant)
        total: Floats = np.logaddexp.reduce(parts, axis=0)
        return total


def four_gaussians(features: int) -> Mixture:
    """Four Gaussians at distances of about two; each is narrow in some directions."""
    rng = np.random.default_rng([features, 7])
    means = 1.5 * rng.standard_normal((4, features))
    return Mixture(means, rng.standard_normal((4, features, features)) / np.sqrt(features) + 0.3 * np.eye(features))


def three_gaussians(features: int) -> Mixture:
    """Three Gaussians with covariances of twice as many rows as columns, so that no direction is very narrow."""
    rng = np.random.default_rng([features, 8])
    means, rows = 1.5 * rng.standard_normal((3, features)), rng.standard_normal((3, 2 * features, features))
    return Mixture(means, np.linalg.cholesky(np.einsum("kni,knj->kij", rows, rows) / (2 * features)))


KNOWN: dict[str, Known | Banana | Mixture] = {
    "two moons, noise 0.1": Known(moons, 0.1, 1200),
    "ring of eight, width 0.25": Known(ring, 0.25, 8),
    "banana": Banana(),
    "spiral, noise 0.15": Known(spiral, 0.15, 2000),
}
AIMS = dict(zip(KNOWN, (0.04, 0.03, 0.02, 0.05), strict=True)) | {"stars": -1.94, "magic": -4.7}
KNOWN |= {f"mixture of {features} columns": four_gaussians(features) for features in (3, 4, 5, 6, 8, 10, 16)}
KNOWN["three Gaussians of 5 columns"] = three_gaussians(5)


@dataclass(frozen=True)
class Task:
    """Standardised rows, and the true mean log density of the test rows, or 0 where it is unknown."""

    train: Floats
    test: Floats
    truth: float
    members: list[hr.Flow] = field(default_factory=list)
    """Fits with the defaults from successive seeds, which mixtures of different sizes share."""


def known(name: str, seed: int, rows: int = 10_000) -> Task:
    rng, density = np.random.default_rng([seed, 1]), KNOWN[name]
    train, test = density.sample(rows, rng), density.sample(20_000, rng)
    mean, std = train.mean(0), train.std(0)
    return Task((train - mean) / std, (test - mean) / std, float(density.log_prob(test).mean() + np.log(std).sum()))


def table(name: str, seed: int, folder: Path) -> Task:
    if name == "stars":
        rows = np.concatenate(load_stars()).astype(np.float64)
    elif name == "magic":
        rows = datasets.load(name, folder)
    else:
        rows = datasets.with_noise(np.unique(datasets.load(name, folder), axis=0))
    order, kept = np.random.default_rng(seed).permutation(len(rows)), int(0.9 * len(rows))
    train, test = rows[order[:kept]], rows[order[kept:]]
    mean, std = train.mean(0), train.std(0)
    return Task((train - mean) / std, (test - mean) / std, 0.0)


# ---- methods: each returns the mean log density of the test rows -----------------------------------------------------


def gaussian(task: Task, seed: int) -> float:
    factor = np.linalg.cholesky(np.cov(task.train.T, bias=True))
    white = np.linalg.solve(factor, (task.test - task.train.mean(0)).T)
    constant = 0.5 * len(factor) * np.log(2 * np.pi) + np.log(np.diag(factor)).sum()
    return float(-0.5 * np.square(white).sum(0).mean() - constant)


def kernels(task: Task, seed: int) -> float:
    """A kernel density with at most some 20,000 rows as centers, judged on 3000 rows."""
    order = np.random.default_rng(seed).permutation(len(task.train))
    factor = np.linalg.cholesky(np.cov(task.train.T, bias=True))
    white, test = (np.linalg.solve(factor, rows.T).T for rows in (task.train[order], task.test[:3000]))
    own, centers = white[: len(white) // 10][:2000], white[len(white) // 10 :][:20_000]
    n = centers.shape[1]

    def mean_log(rows: Floats, width: float) -> float:
        parts = []
        for start in range(0, len(rows), 250):
            some = rows[start : start + 250]
            square = np.square(some).sum(1)[:, None] + np.square(centers).sum(1) - 2.0 * some @ centers.T
            exponent = -0.5 * square / width**2
            most = exponent.max(axis=1)
            parts.append(most + np.log(np.exp(exponent - most[:, None]).mean(axis=1)))
        return (
            float(np.concatenate(parts).mean()) - n * np.log(width * np.sqrt(2 * np.pi)) - np.log(np.diag(factor)).sum()
        )

    widths = np.geomspace(0.03, 1.0, 15)
    return mean_log(test, widths[int(np.argmax([mean_log(own, width) for width in widths]))])


def flow_of(make: Callable[[int, int], object]) -> Callable[[Task, int], float]:
    def fitted(task: Task, seed: int) -> float:
        model = make(task.train.shape[1], seed)
        made = model.fit(task.train.astype(np.float32), progress=False)
        flow = made if isinstance(made, hr.Flow) else model
        return float(flow.log_prob(task.test.astype(np.float32)).mean(dtype=np.float64))

    return fitted


def ascent(**choices: object) -> Callable[[Task, int], float]:
    return flow_of(lambda features, seed: hr.DualAscentFlow(seed=seed, **choices))


def members(count: int) -> Callable[[Task, int], float]:
    """The mixture of `DualAscentFlow.fit_members`; its seconds are those of members that no smaller mixture has."""

    def fitted(task: Task, seed: int) -> float:
        while (new := count - len(task.members)) > 0:
            model = hr.DualAscentFlow(seed=seed + len(task.members))
            task.members.extend(model.fit_members(task.train.astype(np.float32), new, progress=False).flows)
        mixture = hr.Ensemble(task.members[:count])
        return float(mixture.log_prob(task.test.astype(np.float32)).mean(dtype=np.float64))

    return fitted


def notes(**choices: object) -> Callable[[Task, int], float]:
    return flow_of(lambda features, seed: hr.DualAscentFlow.notes(seed=seed, **choices))


def sinflow(task: Task, seed: int) -> float:
    """An iterative Gaussianisation of another library: Gaussianising iterative slicing (Dai, Seljak 2021) of the
    package sinflow."""
    np.random.seed(seed)  # noqa: NPY002  it also draws from there
    flow = importlib.import_module("sinflow").Flow(random_state=seed)
    flow.fit(task.train.copy())  # a copy, because the fit shuffles its argument
    return float(flow.log_prob(task.test).mean())


METHODS: dict[str, Callable[[Task, int], float]] = {
    "Gaussian": gaussian,
    "kernels": kernels,
    "notes": notes(),
    "notes, n_p 50": notes(neighbours=50.0),
    "notes, n_p 200": notes(neighbours=200.0),
    "notes, gradient": notes(rule="gradient"),
    "notes, 4 kinks": notes(kinks=4),
    "splines alone": ascent(refine=False),
    "splines alone, random": ascent(refine=False, directions="random"),
    "defaults": members(1),
    "2 members": members(2),
    "4 members": members(4),
    "refined kinks": ascent(map="kink", refine=True, directions="sliced"),
    "refined, no copies": ascent(refine=True, copies=0),
    "refined, 1 step first": ascent(refine=True, steps=1),
    "refined, 24 steps": ascent(refine=True, steps=24),
    "refined, 8 bins": ascent(refine=True, bins=8),
    "refined, 16 steps, 8 bins": ascent(refine=True, steps=16, bins=8),  # defaults of 0.5.0 for 4 columns or more
    "refined, random": ascent(refine=True, directions="random"),
    "NSF": flow_of(lambda features, seed: hr.NSF(features, seed=seed)),
}
if importlib.util.find_spec("sinflow"):
    METHODS["sinflow"] = sinflow
USUAL = "Gaussian|kernels|notes|splines alone|defaults"


def print_speed() -> None:
    """Print the speed of whole fits by the notes, with a tenth held out, beside a plain NumPy loop."""
    print(f"{hr.get_num_threads()} threads, milliseconds a step: between steps, of the whole fit, of the NumPy loop")
    for rows, features, steps in ((100_000, 2, 500), (100_000, 10, 500), (1_000_000, 10, 200)):
        speed = speed_of_a_fit(rows, features, steps)
        numbers = " ".join(f"{1e3 * part:9.3f}" for part in (speed.step, speed.whole, speed.plain))
        ratio = f"{speed.plain / speed.step:.0f} times"
        print(f"{rows:>9} x {features:<3}{numbers}   {ratio}", flush=True)


def main() -> None:
    """Print a table line by line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--what", default=".", help="regular expression of data (%(default)s)")
    parser.add_argument("--method", default=USUAL, help="regular expression of whole names of methods (%(default)s)")
    parser.add_argument("--splits", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first split, which is a seed (%(default)s)")
    parser.add_argument("--rows", type=int, default=10_000, help="rows to fit of a known density (%(default)s)")
    parser.add_argument("--data", type=Path, default=datasets.FOLDER)
    parser.add_argument("--speed", action="store_true", help="time a step of a fit, and no more")
    arguments = parser.parse_args()
    if arguments.speed:
        print_speed()
        return
    print(f"{'data':<28}{'method':<26}{'mean':>9}  {'aim':>6}  each split (known densities: nats lost)   seconds")
    for what in (*KNOWN, "stars", "magic", "red", "white"):
        if not re.search(arguments.what, what):
            continue
        splits = range(arguments.first, arguments.first + arguments.splits)
        rows, folder = arguments.rows, arguments.data
        tasks = [known(what, s, rows) if what in KNOWN else table(what, s, folder) for s in splits]
        for name, method in METHODS.items():
            if not re.fullmatch(arguments.method, name):
                continue
            reached, seconds = [], []
            for split, task in zip(splits, tasks, strict=True):
                start = time.perf_counter()
                value = method(task, split)
                seconds.append(time.perf_counter() - start)
                reached.append(task.truth - value if what in KNOWN else value)
            each = " ".join(f"{value:.4f}" for value in reached)
            aim = f"{AIMS[what]:.2f}" if what in AIMS else ""
            print(
                f"{what:<28}{name:<26}{np.mean(reached):9.4f}  {aim:>6}  {each}   {np.mean(seconds):.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
