"""The data on which `bench.quality` fits: files, splits and noise. The module needs only NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"

# Name -> (file, columns before the last one, which is a class or a grade).
FILES: dict[str, tuple[str, int]] = {
    "magic": ("magic_gamma_telescope.csv", 10),
    "red": ("winequality-red.csv", 11),
    "white": ("winequality-white.csv", 11),
}

# The steps in which most values of the wine columns are recorded. At least 95 % of the values lie on these grids,
# except 88 % of the volatile acidities of red wine (the others lie on half of the step) and half of the densities (on a
# tenth of it).
WINE_STEPS = (0.1, 0.01, 0.01, 0.1, 0.001, 1.0, 1.0, 0.0001, 0.01, 0.01, 0.1)

SPLIT_SEED = 0  # every fit has the same parts and the same noise


@dataclass(frozen=True)
class Parts:
    """The rows to fit, to stop by, and to judge by; `validation` has no rows where the fit holds out its own share."""

    train: NDArray[np.float64]
    validation: NDArray[np.float64]
    test: NDArray[np.float64]

    @property
    def offset(self) -> float:
        """The value to add to log densities, to change units from the rows' to the training part's deviations."""
        return float(np.log(self.train.std(0)).sum())

    def standardised(self) -> Parts:
        """All parts, shifted and scaled by the columns' means and deviations in the training part."""
        mean, std = self.train.mean(0), self.train.std(0)
        return Parts(*((part - mean) / std for part in (self.train, self.validation, self.test)))


def load(name: str, folder: Path = FOLDER) -> NDArray[np.float64]:
    """All rows of a file, without the last column."""
    file, columns = FILES[name]
    return np.loadtxt(folder / file, delimiter=",", usecols=range(columns), dtype=np.float64)


def with_noise(wine: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values with uniform noise as wide as their steps: no two rows are equal, and their density is bounded."""
    rng = np.random.default_rng(SPLIT_SEED)
    return wine + (rng.random(wine.shape) - 0.5) * np.array(WINE_STEPS)


def split(rows: NDArray[np.float64]) -> Parts:
    """A random split: 80 % of the rows to fit, 10 % to stop by, 10 % to judge by."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(rows))
    train, validation = int(0.8 * len(rows)), int(0.9 * len(rows))
    return Parts(rows[order[:train]], rows[order[train:validation]], rows[order[validation:]])


def fold(rows: NDArray[np.float64], index: int, count: int) -> Parts:
    """A split with one of `count` folds to judge by, and all others to fit."""
    parts = np.array_split(np.random.default_rng(SPLIT_SEED).permutation(len(rows)), count)
    test = parts.pop(index)
    return Parts(rows[np.concatenate(parts)], rows[:0], rows[test])


def gaussian(parts: Parts) -> float:
    """The mean log density of the standardised rows to judge by, under the Gaussian of the rows to fit."""
    parts = parts.standardised()
    factor = np.linalg.cholesky(np.cov(parts.train, rowvar=False, bias=True))
    white = np.linalg.solve(factor, parts.test.T)
    constant = 0.5 * len(factor) * np.log(2 * np.pi) + np.log(np.diag(factor)).sum()
    return float(-0.5 * np.square(white).sum(0).mean() - constant)
