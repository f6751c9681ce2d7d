"""Default fits beside those by Adam alone: ``python -m bench.quality.optimizers [--tables REGEX] [--seeds 0,1,2]``.

The tables are MAGIC, 15,000 stars of Hipparcos, and synthetic ones with fine structure, many columns, or columns that
others nearly determine. The program prints mean log-likelihoods of the rows that `fit` holds out and of new rows, in
nats and in the tables' units (MAGIC and Hipparcos: in standard deviations); CPU seconds, which `HEADRACE_NUM_THREADS=1`
makes those of one thread; and the seconds until held-out rows are as good as by Adam alone.

With ``--grid``, Muon with a cosine schedule fits each table at twelve pairs of rate and decay, in short and in long
fits. The output tells how much long fits gain if short fits choose the pair, among all pairs and among the two that
`fit` tries.
"""

from __future__ import annotations

import argparse
import itertools
import math
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from bench.quality import datasets

Rows = NDArray[np.float64]
OPTIMIZERS = ("adam", "auto")


def saw(rows: int, rng: np.random.Generator) -> Rows:
    """A table with a column that is a saw of 12 teeth in another column."""
    x = rng.uniform(0, 1, (rows, 3))
    x[:, 2] = 0.7 * (12 * x[:, 0] % 1) + 0.3 * x[:, 1] + 0.01 * rng.standard_normal(rows)
    return x


def sine(rows: int, rng: np.random.Generator) -> Rows:
    """A table with a column that is six waves in another column."""
    x = rng.uniform(0, 1, (rows, 3))
    x[:, 2] = np.sin(2 * np.pi * 6 * x[:, 0]) + 0.3 * x[:, 1] + 0.02 * rng.standard_normal(rows)
    return x


def wide(rows: int, rng: np.random.Generator, columns: int = 32) -> Rows:
    """A table of many columns, each of which bends with the previous one; the truth has some 18.9 nats."""
    noise = rng.standard_normal((rows, columns))
    x = noise.copy()
    for i in range(1, columns):
        last, other = x[:, i - 1], x[:, (7 * i) % i if i > 1 else 0]
        x[:, i] = np.sin(2.5 * last) + 0.5 * other**2 / (1 + other**2) + (0.1 + 0.1 * (last > 0)) * noise[:, i]
    return x


def given(rows: int, rng: np.random.Generator) -> Rows:
    """A table with six columns that three normal columns nearly determine."""
    z = rng.standard_normal((rows, 3))
    square, product, growth = z[:, 0] ** 2, z[:, 0] * z[:, 1], np.exp(0.7 * z[:, 2])
    exact = [square, product, growth, np.sin(2 * square), np.abs(z[:, 1]), product + growth]
    noise = np.array([0.03, 0.05, 0.02, 0.1, 0.05, 0.03]) * rng.standard_normal((rows, 6))
    return np.column_stack([z, np.stack(exact, axis=1) + noise])


MADE: dict[str, tuple[Callable[[int, np.random.Generator], Rows], int, int]] = {
    "saw": (saw, 16_000, 20_000),
    "sine": (sine, 16_000, 20_000),
    "wide": (wide, 10_000, 10_000),
    "given": (given, 12_000, 10_000),
}
"""The function that makes a table, the number of rows to fit, and the number of new rows."""


def table(name: str, seed: int, folder: Path) -> tuple[Rows, Rows]:
    """The rows to fit, and new rows."""
    if name == "MAGIC":
        parts = datasets.split(datasets.load("magic", folder)).standardised()
        return parts.train, parts.test
    if name == "Hipparcos":
        rows = np.load(folder / "hipparcos2_9col.npz")["X"].astype(np.float64)
        order = np.random.default_rng(seed).permutation(len(rows))
        parts = datasets.Parts(rows[order[:15_000]], rows[:0], rows[order[15_000:35_000]]).standardised()
        return parts.train, parts.test
    make, fitted, new = MADE[name]
    return make(fitted, np.random.default_rng(seed)), make(new, np.random.default_rng(seed + 100))


RUNGS = [*itertools.product((0.5, 1.0, 2.0, 4.0), (4.0, 1.0)), *itertools.product((1.0, 2.0), (0.2, 0.04))]
"""Learning rates in units of the default's, and decays in units of 1000 over the number of rows."""
# Epochs; both kinds of fits have fewer than 4000 steps, so that `fit` tries neither curves nor residual columns.
SHORT, LONG = 20, 60
PAIRS = {"NSF": ((2.0, 4.0), (1.0, 1.0))}
OF_AFFINE = ((2.0, 1.0), (2.0, 0.2))
CURVES = ("MAGIC", "Hipparcos")  # tables that gain by marginal curves


def grid(name: str, family: str, x: Rows, new: Rows, seed: int) -> None:
    """Print held-out nats of short and of long fits, and those of new rows for the long ones, at all rates and
    decays."""
    results: dict[tuple[float, float], list[float]] = {}
    for pair in RUNGS:
        judged, begin = [], time.process_time()
        for epochs in (SHORT, LONG):
            flow = getattr(hr, family)(x.shape[1], seed=seed)
            history = flow.fit(
                x,
                epochs=epochs,
                learning_rate=5e-3 * pair[0],
                weight_decay=pair[1] * min(1.0, 1000 / (0.9 * len(x))),
                optimizer="muon",
                schedule="cosine",
                patience=None,
                gaussianize=name in CURVES,
                seed=seed,
                progress=False,
            )
            judged.append(-history.best_loss)
        results[pair] = [*judged, float(flow.log_prob(new).mean(dtype=np.float64))]
        text = "held out {:7.3f} and {:7.3f}, new {:7.3f}".format(*results[pair])
        seconds = time.process_time() - begin
        print(f"{name:9s}, seed {seed}, rate {pair[0]}, decay {pair[1]}: {text}, {seconds:.1f} s", flush=True)
    kinds = {"all short fits": list(results), "two pairs": list(PAIRS.get(family, OF_AFFINE))}
    for kind, pairs in kinds.items():
        chosen = max(pairs, key=lambda pair: results[pair][0])
        print(f"    by {kind}: {chosen}, new rows {results[chosen][2]:.3f}", flush=True)
    print(f"    the best long fit has {max(values[2] for values in results.values()):.3f}", flush=True)


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default="", metavar="REGEX", help="only tables whose name matches")
    parser.add_argument("--seeds", default="0", help="of made tables and of fits, such as 0,1,2 (default: 0)")
    parser.add_argument("--optimizers", default=",".join(OPTIMIZERS), help="of the fits (default: %(default)s)")
    parser.add_argument("--flow", default="NSF", help="the name of a flow (default: NSF)")
    parser.add_argument("--grid", action="store_true", help="fits by Muon at several rates and decays instead")
    parser.add_argument("--data", type=Path, default=datasets.FOLDER, help="folder with the files of bench.quality")
    options = parser.parse_args()
    print(f"headrace {hr.__version__}, {hr.get_num_threads()} threads")
    for name in (*MADE, "MAGIC", "Hipparcos"):
        if not re.search(options.tables, name, re.IGNORECASE):
            continue
        for seed in map(int, options.seeds.split(",")):
            x, new = table(name, seed, options.data)
            if options.grid:
                grid(name, options.flow, x, new, seed)
                continue
            least = math.inf
            for optimizer in options.optimizers.split(","):
                flow, begin = getattr(hr, options.flow)(x.shape[1], seed=seed), time.process_time()
                history = flow.fit(x, optimizer=optimizer, seed=seed, progress=False)
                seconds, judged = time.process_time() - begin, float(flow.log_prob(new).mean(dtype=np.float64))
                text = (
                    f"held out {-history.best_loss:7.3f}, new {judged:7.3f}, {seconds:5.1f} s, {history.epochs} epochs"
                )
                print(f"{name:9s}, seed {seed}, {optimizer:4s}: {text}, {history.schedule}", flush=True)
                if optimizer == "adam":
                    least = history.best_loss
                elif history.best_loss < least < math.inf:
                    reached = next(i for i, loss in enumerate(history.validation_loss) if loss < least)
                    share = history.seconds[reached] / history.seconds[-1]
                    print(f"    as good on held-out rows as Adam alone after {seconds * share:.1f} s", flush=True)


if __name__ == "__main__":
    main()
