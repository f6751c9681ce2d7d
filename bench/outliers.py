"""What rows far out cost a fit with defaults: ``python -m bench.outliers {wine,student} [--what REGEX]``.

wine: white wine in ten folds of which none sees its own rows, as Uria, Murray and Larochelle (2013) have them, with and
without noise: the mean log-likelihood of each fold in nats and of the worst row, in units of the training part's
standard deviations.
student: 6000 rows of a multivariate t with three degrees of freedom and three columns, new rows of the same: the
Kullback-Leibler divergence, and what the worst row loses.

Each with the flow as it comes, and with one of its settings changed.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections.abc import Callable
from math import lgamma
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headrace as hr
from bench import datasets

Made = Callable[[int, int], hr.Flow]
Floats = NDArray[np.float64]


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
    """See the module."""
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


FREEDOM = 3


def student_rows(rows: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Rows of the multivariate t, and their log-densities."""
    x = rng.standard_normal((rows, 3)) / np.sqrt(rng.chisquare(FREEDOM, (rows, 1)) / FREEDOM)
    half = 0.5 * (FREEDOM + 3)
    constant = lgamma(half) - lgamma(0.5 * FREEDOM) - 1.5 * np.log(FREEDOM * np.pi)
    return x, constant - half * np.log1p(np.square(x).sum(axis=1) / FREEDOM)


def student(options: argparse.Namespace) -> None:
    """See the module."""
    for name, made in STUDENT.items():
        if not re.search(options.what, name):
            continue
        lost, worst, begin, gaussian = [], [], time.perf_counter(), 0
        for seed in range(options.seeds):
            rng = np.random.default_rng(seed)
            x, _ = student_rows(6000, rng)
            new, truth = student_rows(50_000, rng)
            flow = made(3, seed)
            gaussian += flow.fit(x, seed=seed, progress=False).gaussian
            apart = truth - flow.log_prob(new).astype(float)
            lost.append(float(apart.mean()))
            worst.append(float(apart.max()))
        print(
            f"t, {name}: divergence {', '.join(f'{value:.3f}' for value in lost)}, worst row "
            f"{', '.join(f'{value:.4g}' for value in worst)}; {gaussian} ended as the Gaussian; "
            f"{(time.perf_counter() - begin) / options.seeds:.1f} s a fit",
            flush=True,
        )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("wine", "student"))
    parser.add_argument("--what", default="", metavar="REGEX", help="only settings whose name matches")
    parser.add_argument("--folds", default="0,1,2,3,4,5,6,7,8,9", help="of the wine (default: all ten)")
    parser.add_argument("--seeds", type=int, default=3, help="fits of each t (default: 3)")
    parser.add_argument("--data", type=Path, default=datasets.FOLDER, help="folder with the files of bench.quality")
    options = parser.parse_args()
    print(f"headrace {hr.__version__}, {hr.get_num_threads()} threads")
    {"wine": wine, "student": student}[options.which](options)


if __name__ == "__main__":
    main()
