"""Default fits of few rows beside simple densities: ``python -m bench.settings.few {few,cancer} [--flows NSF,MAF]``.

few: 50 to 500 rows of five tables. The simple densities are the Gaussian (Ledoit, Wolf 2004), a Gaussian copula with
margins of kernels, a Gaussian mixture whose number of components, shape and floor five-fold cross-validation chooses,
and kernels whose width leave-one-out chooses.
cancer: scikit-learn's breast cancer table, 569 rows of 30 columns, of which two are nearly sums of others; four fifths
are fitted, with all columns, and without the columns whose 1 - R² given the others is below 0.001.
choose: the comparison of `few` on tables by which constants were chosen.

Results are mean log densities of rows that are not fitted, in nats, in units of the fitted rows' deviations: the mean
over splits, and the value of each split.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import headrace as hr
from bench.quality import datasets
from headrace._base.types import Floats

Density = Callable[[Floats], Callable[[Floats], Floats]]
"""A function from standardised rows to fit to a density, which is a function from standardised rows to log
densities."""

FOLDS = 5
COMPONENTS, FLOORS, SHAPES = (1, 2, 3, 4, 6, 8, 10), (1e-3, 1e-2, 1e-1), ("full", "tied", "diag")
WIDTHS = np.geomspace(0.1, 2.0, 15)
NEW = 4000


def gaussians(rows: int, rng: np.random.Generator, columns: int = 5, count: int = 8) -> Floats:
    """Rows of a mixture of Gaussians, each with a different covariance."""
    fixed = np.random.default_rng(5)
    centers = 3.0 * fixed.standard_normal((count, columns))
    roots = 0.5 * fixed.standard_normal((count, columns, columns))
    chosen = rng.integers(0, count, rows)
    found: Floats = centers[chosen] + np.einsum("nij,nj->ni", roots[chosen], rng.standard_normal((rows, columns)))
    return found


def bent(rows: int, rng: np.random.Generator) -> Floats:
    """Rows of a parabola, with a skewed column that depends on it."""
    z = rng.standard_normal((rows, 4))
    z[:, 1] = 0.4 * z[:, 1] + np.square(z[:, 0])
    z[:, 2] = np.exp(0.8 * z[:, 2] + 0.3 * z[:, 0])
    return z


def funnel(rows: int, rng: np.random.Generator) -> Floats:
    """Rows in which three columns have a deviation that depends on the first."""
    z = rng.standard_normal((rows, 4))
    z[:, 1:] *= np.exp(0.6 * z[:, :1])
    return z


def sklearn_table(name: str) -> Floats:
    """A table of scikit-learn, with noise as wide as the steps of columns that repeat values."""
    from sklearn import datasets as tables

    found = np.array(getattr(tables, f"load_{name}")().data, np.float64)
    rng = np.random.default_rng(0)
    for column in found.T:
        if (values := np.unique(column)).size < 0.9 * column.size:
            column += (rng.random(column.size) - 0.5) * np.diff(values).min()
    return found


def cut(table: Floats, rows: int, seed: int) -> tuple[Floats, Floats]:
    """The rows to fit, and all others."""
    order = np.random.default_rng([9, seed]).permutation(len(table))
    return table[order[:rows]], table[order[rows:]]


def made(sampled: Callable[[int, np.random.Generator], Floats], rows: int, seed: int) -> tuple[Floats, Floats]:
    """Rows of a known density to fit, and new rows of this density."""
    rng = np.random.default_rng([3, seed])
    return sampled(rows, rng), sampled(NEW, rng)


def wine(name: str, folder: Path) -> Floats:
    """A table of wines, with noise as wide as the steps of its values."""
    return datasets.with_noise(datasets.load(name, folder))


Table = Callable[[int], tuple[Floats, Floats]]
FILES: dict[str, Callable[..., tuple[Floats, Floats]]] = {
    "white wine, 200": lambda seed, folder: cut(wine("white", folder), 200, seed),
    "red wine, 200": lambda seed, folder: cut(wine("red", folder), 200, seed),
    "MAGIC, 500": lambda seed, folder: cut(datasets.load("magic", folder), 500, seed),
}
TABLES: dict[str, dict[str, Table]] = {
    "few": {
        "breast cancer, 250": lambda seed: cut(sklearn_table("breast_cancer"), 250, seed),
        "8 Gaussians, 200": lambda seed: made(gaussians, 200, seed),
    },
    "choose": {
        "wine of three vineyards, 140": lambda seed: cut(sklearn_table("wine"), 140, seed),
        "diabetes, 300": lambda seed: cut(np.delete(sklearn_table("diabetes"), 1, 1), 300, seed),
        "iris, 110": lambda seed: cut(sklearn_table("iris"), 110, seed),
        "funnel, 300": lambda seed: made(funnel, 300, seed),
        "bent, 150": lambda seed: made(bent, 150, seed),
    },
}


def cancer(seed: int) -> tuple[Floats, Floats]:
    """Four fifths of the rows of the breast cancer table, without noise, and the other rows."""
    from sklearn import datasets as tables

    return cut(np.array(tables.load_breast_cancer().data, np.float64), 455, seed)


def given_away(x: Floats, limit: float = 1e-3) -> list[int]:
    """Columns to leave out: in turn, the column with the least 1 - R² given all others left, while below a limit."""
    left, taken = list(range(x.shape[1])), list[int]()
    while True:
        unexplained = 1.0 / np.diagonal(np.linalg.inv(np.corrcoef(x[:, left], rowvar=False)))
        if not unexplained.min() < limit:
            return taken
        taken.append(left.pop(int(np.argmin(unexplained))))


# ---- simple densities ------------------------------------------------------------------------------------------------


def ledoit_wolf(z: Floats) -> Callable[[Floats], Floats]:
    """A Gaussian with a shrunk covariance."""
    from scipy import stats
    from sklearn.covariance import LedoitWolf

    found = LedoitWolf().fit(z)
    return lambda new: stats.multivariate_normal(found.location_, found.covariance_).logpdf(new)


def mixture(z: Floats) -> Callable[[Floats], Floats]:
    """A Gaussian mixture that cross-validation chooses."""
    from sklearn.mixture import GaussianMixture

    def fitted(rows: Floats, *setting: object) -> GaussianMixture:
        shape, count, floor = setting
        return GaussianMixture(count, covariance_type=shape, reg_covar=floor, random_state=0).fit(rows)

    folds = np.arange(len(z)) % FOLDS
    settings = [(shape, count, floor) for shape in SHAPES for count in COMPONENTS for floor in FLOORS]
    gains = [
        sum(fitted(z[folds != fold], *one).score_samples(z[folds == fold]).sum() for fold in range(FOLDS))
        for one in settings
    ]
    return fitted(z, *settings[int(np.argmax(gains))]).score_samples  # type: ignore[no-any-return]


def kernels(z: Floats) -> Callable[[Floats], Floats]:
    """A density of normal kernels at the rows, in the scale of their covariance."""
    from scipy.special import logsumexp

    values, vectors = np.linalg.eigh(0.9 * np.cov(z, rowvar=False) + 0.1 * np.eye(z.shape[1]))
    root = vectors / np.sqrt(values)
    known, constant = z @ root, np.log(np.abs(np.linalg.det(root))) - 0.5 * z.shape[1] * np.log(2 * np.pi)

    def distances(new: Floats) -> Floats:
        found: Floats = np.square((new @ root)[:, None] - known).sum(axis=2)
        return found

    def log_prob(square: Floats, width: float, count: int) -> Floats:
        own = logsumexp(-0.5 * square / width**2, axis=1) - np.log(count) - z.shape[1] * np.log(width)
        return own + constant  # type: ignore[no-any-return]

    own = distances(z)
    np.fill_diagonal(own, np.inf)
    best = max(WIDTHS, key=lambda width: log_prob(own, width, len(z) - 1).mean())
    return lambda new: np.concatenate([log_prob(distances(p), best, len(z)) for p in np.array_split(new, 10)])


def copula(z: Floats) -> Callable[[Floats], Floats]:
    """A Gaussian copula whose margins are normal kernels, each of a width that leave-one-out chooses."""
    from scipy import stats

    def margin(x: Floats) -> Callable[[Floats], tuple[Floats, Floats]]:
        def log_density(new: Floats, width: float, without: bool) -> Floats:
            each = stats.norm.pdf((new[:, None] - x) / width) / width
            if without:
                np.fill_diagonal(each, 0.0)
            return np.log(each.sum(axis=1) / (x.size - without) + 1e-300)  # type: ignore[no-any-return]

        best = max(WIDTHS, key=lambda width: log_density(x, width, True).mean())

        def of(new: Floats) -> tuple[Floats, Floats]:
            below = np.concatenate(
                [stats.norm.cdf((p[:, None] - x) / best).mean(axis=1) for p in np.array_split(new, 10)]
            )
            each = np.concatenate([log_density(p, best, False) for p in np.array_split(new, 10)])
            return stats.norm.ppf(np.clip(below, 1e-9, 1 - 1e-9)), each

        return of

    margins = [margin(column) for column in z.T]

    def latent(new: Floats) -> tuple[Floats, Floats]:
        pairs = [margin(column) for margin, column in zip(margins, new.T, strict=True)]
        u = np.stack([one for one, _ in pairs], axis=1)
        return u, np.sum([each for _, each in pairs], axis=0) - stats.norm.logpdf(u).sum(axis=1)

    joint = ledoit_wolf(latent(z)[0])

    def log_prob(new: Floats) -> Floats:
        u, slope = latent(new)
        return joint(u) + slope

    return log_prob


def flow(family: str, seed: int) -> Density:
    """The density of a default fit of a flow."""

    def fitted(z: Floats) -> Callable[[Floats], Floats]:
        own = getattr(hr, family)(z.shape[1], seed=seed)
        own.fit(z, seed=seed, progress=False)
        return lambda new: own.log_prob(new).astype(np.float64)

    return fitted


SIMPLE: dict[str, Density] = {"Gaussian": ledoit_wolf, "copula": copula, "mixture": mixture, "kernels": kernels}


def run(tables: dict[str, Table], flows: list[str], splits: int, simple: dict[str, Density]) -> None:
    """Print a line for each table and density."""
    for name, table in tables.items():
        found: dict[str, list[float]] = {}
        cpu = dict.fromkeys(flows, 0.0)
        for seed in range(splits):
            x, new = table(seed)
            mean, std = x.mean(axis=0), x.std(axis=0)
            for one, density in {**{family: flow(family, seed) for family in flows}, **simple}.items():
                begin = time.process_time()
                value = density((x - mean) / std)((new - mean) / std).mean()
                found.setdefault(one, []).append(float(value))
                if one in cpu:
                    cpu[one] += (time.process_time() - begin) / splits
        print(f"{name}:")
        for one, values in found.items():
            each = ", ".join(f"{value:.2f}" for value in values)
            seconds = f"; {cpu[one]:.1f} s of a core" if one in cpu else ""
            print(f"    {one:9} {statistics.mean(values):7.2f}  ({each}){seconds}", flush=True)


def without(table: Table) -> Table:
    """The table without the columns that its other columns nearly determine."""

    def other(seed: int) -> tuple[Floats, Floats]:
        x, new = table(seed)
        left = [c for c in range(x.shape[1]) if c not in given_away(x)]
        return x[:, left], new[:, left]

    return other


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("few", "cancer", "choose"))
    parser.add_argument("--flows", default="NSF,MAF", help="names of flows")
    parser.add_argument("--splits", type=int, default=5, help="of each table (default: 5)")
    parser.add_argument("--tables", default="", help="only tables whose name contains this")
    parser.add_argument("--alone", action="store_true", help="flows without simple densities")
    parser.add_argument("--data", type=Path, default=datasets.FOLDER, help="folder with the files of bench.quality")
    options = parser.parse_args()
    print(f"headrace {hr.__version__}, {hr.get_num_threads()} threads")
    tables = TABLES.get(options.what, {"breast cancer": cancer, "breast cancer without these columns": without(cancer)})
    if options.what == "few":
        tables = {**{name: partial(table, folder=options.data) for name, table in FILES.items()}, **tables}
    chosen = {name: table for name, table in tables.items() if options.tables in name}
    if not chosen:
        parser.error(f"--tables: expected a part of a name ({', '.join(tables)}), got {options.tables!r}")
    run(chosen, options.flows.split(","), options.splits, {} if options.alone else SIMPLE)


if __name__ == "__main__":
    main()
