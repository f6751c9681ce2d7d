"""`hr.auto` within a time budget beside a default fit: ``python -m bench.settings.auto [--seconds 60]``.

Two densities get equal rows to fit, and are judged by equal new rows: a plain ``hr.NSF(features).fit(rows)`` with this
many seconds at most, and `hr.auto` with this many seconds. Results are mean log-likelihoods in nats, in units of the
deviations of the rows to fit. Within the budget `hr.auto` should not be worse by more than 0.02 nats and two standard
errors of the seeds.

The progress of a search within a time depends on the machine: the threads, and all other load. `--processor` counts
processor seconds in place of those of the clock, so that a busy machine gives the results of an idle one.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import time
from pathlib import Path

import numpy as np

import headrace as hr
from bench.quality import datasets
from bench.quality.datasets import Parts
from bench.settings import __main__ as settings
from bench.settings import made
from headrace._cli.demo import load_stars

ALLOWED = 0.02  # nats that a search may lose


def tables(folder: Path, seed: int) -> dict[str, Parts]:
    """Name -> rows to fit and rows to judge by; synthetic tables are new ones for each seed."""
    stars = np.concatenate(load_stars()).astype(np.float64)
    found = {**settings.tables(folder), "stars": datasets.split(stars)}
    for name, table in made.TABLES.items():
        rows = table(made.ROWS + made.NEW, np.random.default_rng(100 + seed))
        found[name] = Parts(rows[: made.ROWS], rows[:0], rows[made.ROWS :])
    return found


def reached(density: hr.Flow, parts: Parts) -> float:
    """The mean log-likelihood of the rows to judge by."""
    return float(density.log_prob(parts.test).mean(dtype=np.float64)) + parts.offset


def summary(gains: list[float]) -> str:
    """The mean gain of the search, and a word for whether the search is worse than the default."""
    mean = statistics.mean(gains)
    if len(gains) < 2:
        return f"{mean:+.3f}"
    error = statistics.stdev(gains) / math.sqrt(len(gains))
    verdict = "worse" if mean < -ALLOWED - 2.0 * error else "not worse"
    return f"{mean:+.3f} ± {error:.3f}, {verdict}"


def main() -> None:
    """Print a line for each table and seed, and one for each table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each search (default: 60)")
    parser.add_argument("--seeds", type=int, default=3, help="searches of each table (default: 3)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--tables", default="", metavar="REGEX", help="only tables whose name matches")
    parser.add_argument("--effort", default="normal", help="of the search (default: normal)")
    parser.add_argument("--data", type=Path, default=datasets.FOLDER, help="folder with the files of bench.quality")
    parser.add_argument("--processor", action="store_true", help="one thread, and seconds of a processor")
    options = parser.parse_args()
    if options.processor:
        hr.set_num_threads(1)
        time.perf_counter = time.process_time
    print(f"headrace {hr.__version__}, {hr.get_num_threads()} threads, {options.seconds:g} seconds")
    seeds = range(options.first, options.first + options.seeds)
    for name in tables(options.data, 0):
        if not re.search(options.tables, name, re.IGNORECASE):
            continue
        gains = []
        for seed in seeds:
            parts = tables(options.data, seed)[name]
            begin = time.perf_counter()
            plain = hr.NSF(parts.train.shape[1], seed=seed)
            plain.fit(parts.train, seed=seed, time_budget=options.seconds, progress=False)
            took = time.perf_counter() - begin
            choice = hr.auto(parts.train, options.seconds, effort=options.effort, seed=seed, progress=False)
            own, found = reached(plain, parts), reached(choice.flow, parts)
            gains.append(found - own)
            print(
                f"{name}, seed {seed}: default {own:.3f} in {took:.1f} s, search {found:.3f}: {choice.name}, judged by "
                f"{choice.judged_by}",
                flush=True,
            )
        print(f"{name}: {summary(gains)}", flush=True)


if __name__ == "__main__":
    main()
