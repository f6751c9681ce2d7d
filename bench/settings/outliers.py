"""The loss of default fits by outlying rows.

    python -m bench.settings.outliers {wine,student,lognormal} [--what REGEX]

wine: white wine in ten folds, as in Uria, Murray and Larochelle (2013), each judged by a fit to the other folds, with
and without noise: the mean log-likelihood of each fold in nats and that of the worst row, in units of the training
part's standard deviations.
student: 6000 rows of a multivariate t with three degrees of freedom and three columns (others by options), and new rows
of this density: the Kullback-Leibler divergence, and the loss of the worst row.
lognormal: the results of `student` for exponentials of normal columns that depend on each other.

Each comparison has the flow with its defaults, and flows with one changed setting.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Callable
from math import lgamma
from pathlib import Path

import numpy as np

import headrace as hr
from bench.quality import datasets
from headrace._base.types import Floats

Made = Callable[[int, int], hr.Flow]


def _maf(**settings: object) -> Made:
    return lambda features, seed: hr.MAF(features, seed=seed, **settings)


def _nsf(**settings: object) -> Made:
    return lambda features, seed: hr.NSF(features, seed=seed, **settings)


WINE: dict[str, Made] = {
    "MAF": _maf(),
    "MAF, ReLU at the end": _maf(last_activation="relu"),
    "MAF, ReLU at the end, slope 0.05": _maf(last_activation="relu", slope=0.05),
    "MAF, ReLU at the end, slope 0.1": _maf(last_activation="relu", slope=0.1),
    "MAF, tanh": _maf(activation="tanh"),
    "NSF": _nsf(),
}

STUDENT: dict[str, Made] = {
    "NSF": _nsf(),
    "NSF, bound 10": _nsf(bound=10.0),
    "NSF, logistic base": lambda features, seed: hr.NSF(features, base=hr.Logistic(features), seed=seed),
    "MAF": _maf(),
    "MAF, ReLU at the end": _maf(last_activation="relu"),
}


def wine(options: argparse.Namespace) -> None:
    """Fit white wine in ten folds, with and without noise."""
    folds = [int(fold) for fold in options.folds.split(",")]
    rows = datasets.load("white", options.data)
    for name, made in WINE.items():
        if not re.search(options.what, name):
            continue
        for noise in (False, True):
            means, worst, begin = [], [], time.perf_counter()
            for fold in folds:
                parts = datasets.fold(datasets.with_noise(rows) if noise else rows, fold, 10)
                flow = made(parts.train.shape[1], fold)
                flow.fit(parts.train, seed=fold, progress=False)
                found = flow.log_prob(parts.test).astype(float) + parts.offset
                means.append(float(found.mean()))
                worst.append(float(found.min()))
            print(
                f"white{', with noise' if noise else ''}, {name}: mean {statistics.mean(means):.2f}, lowest fold "
                f"{min(means):.2f}, lowest row {min(worst):.4g}, folds {', '.join(f'{mean:.2f}' for mean in means)}; "
                f"{(time.perf_counter() - begin) / len(folds):.1f} s a fit",
                flush=True,
            )


ROWS, NEW = 6000, 50_000


def student_rows(rows: int, freedom: float, features: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Random rows of the multivariate t, and their log densities."""
    x = rng.standard_normal((rows, features)) / np.sqrt(rng.chisquare(freedom, (rows, 1)) / freedom)
    half = 0.5 * (freedom + features)
    constant = lgamma(half) - lgamma(0.5 * freedom) - 0.5 * features * np.log(freedom * np.pi)
    return x, constant - half * np.log1p(np.square(x).sum(axis=1) / freedom)


def lognormal_rows(rows: int, width: float, features: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Random rows whose logarithms are normal with correlations of a half, and their log densities."""
    factor = np.linalg.cholesky(width**2 * (0.5 + 0.5 * np.eye(features)))
    z = rng.standard_normal((rows, features))
    logs = z @ factor.T
    constant = np.log(np.diag(factor)).sum() + 0.5 * features * np.log(2.0 * np.pi)
    return np.exp(logs), -0.5 * np.square(z).sum(axis=1) - constant - logs.sum(axis=1)


def known(options: argparse.Namespace) -> None:
    """Fit rows of a known density; the module's docstring describes the results."""
    n = options.features

    def rows(count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        if options.which == "student":
            return student_rows(count, options.freedom, n, rng)
        return lognormal_rows(count, options.width, n, rng)

    for name, made in STUDENT.items():
        if not re.search(options.what, name):
            continue
        lost, worst, begin, ended = [], [], time.perf_counter(), {"gaussian": 0, "gaussianized": 0}
        for seed in range(options.first, options.first + options.seeds):
            rng = np.random.default_rng(seed)
            x, _ = rows(options.rows, rng)
            new, truth = rows(NEW, rng)
            flow = made(n, seed)
            history = flow.fit(x, seed=seed, progress=False)
            for key in ended:
                ended[key] += getattr(history, key)
            apart = truth - flow.log_prob(new).astype(float)
            lost.append(float(apart.mean()))
            worst.append(float(apart.max()))
        print(
            f"{options.which}, {name}: divergence {', '.join(f'{value:.3f}' for value in lost)}, worst row "
            f"{', '.join(f'{value:.4g}' for value in worst)}; {ended['gaussian']} ended as the Gaussian, "
            f"{ended['gaussianized']} have marginals made normal; "
            f"{(time.perf_counter() - begin) / options.seeds:.1f} s a fit",
            flush=True,
        )


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("wine", "student", "lognormal"))
    parser.add_argument("--what", default="", metavar="REGEX", help="only settings whose name matches")
    parser.add_argument("--folds", default="0,1,2,3,4,5,6,7,8,9", help="of the wine (default: all ten)")
    parser.add_argument("--seeds", type=int, default=3, help="fits to each known density (default: 3)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of the seeds (default: 0)")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"of a known density (default: {ROWS})")
    parser.add_argument("--features", type=int, default=3, help="columns of a known density (default: 3)")
    parser.add_argument("--freedom", type=float, default=3.0, help="of a t (default: 3)")
    parser.add_argument("--width", type=float, default=1.0, help="deviation of logarithms (default: 1)")
    parser.add_argument("--data", type=Path, default=datasets.FOLDER, help="folder with the files of bench.quality")
    options = parser.parse_args()
    print(f"headrace {hr.__version__}, {hr.get_num_threads()} threads")
    (wine if options.which == "wine" else known)(options)


if __name__ == "__main__":
    main()
