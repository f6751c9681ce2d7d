"""What `Flow.fit`'s defaults are worth: ``python -m bench.settings.defaults [--what REGEX] [--data DIR]``.

Fits tables of different sizes with the defaults and with one of them changed at a time, and prints the mean
log-likelihood of rows that took no part, in nats, in units of the training part's standard deviations. The defaults
were chosen on these tables; that is why the last column, the mean over all of them, may not be quoted as a result.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import headrace as hr
from bench import report
from bench.peers.client import machine_facts
from bench.quality import datasets
from bench.quality.datasets import Parts
from headrace._cli.demo import load_stars
from headrace._fit import optimizer as _optimizer
from headrace._fit import plan

FAMILIES: dict[str, Callable[[int, int], hr.Flow]] = {
    "MAF": lambda features, seed: hr.MAF(features, seed=seed),
    "NSF": lambda features, seed: hr.NSF(features, seed=seed),
}


def tables(folder: Path) -> dict[str, Parts]:
    """Name -> rows to fit and rows to judge by."""
    magic = datasets.fold(datasets.load("magic", folder), 0, 10)
    small = Parts(magic.train[:1000], magic.validation, magic.test)
    wine = {name: datasets.fold(datasets.with_noise(datasets.load(name, folder)), 0, 10) for name in ("red", "white")}
    stars = datasets.fold(load_stars()[0].astype(np.float64), 0, 10)
    return {
        "magic, 1000 rows": small,
        "red wine": wine["red"],
        "white wine": wine["white"],
        "magic": magic,
        "stars": stars,
    }


def variations(rows: int) -> dict[str, dict]:
    """What is changed -> keywords of `fit`."""
    decay = plan.constant_decay(rows)
    batch = min(max(rows // plan.BATCHES, plan.LEAST_BATCH), plan.MOST_BATCH)
    rate = _optimizer.LEARNING_RATE
    return {
        "defaults": {},
        "weight decay by rows alone": {"weight_decay": None},
        "learning rate / 3": {"learning_rate": rate / 3},
        "learning rate x 3": {"learning_rate": rate * 3},
        "weight decay / 10": {"weight_decay": decay / 10},
        "weight decay x 10": {"weight_decay": decay * 10},
        "batch / 3": {"batch_size": max(1, batch // 3)},
        "batch x 3": {"batch_size": batch * 3},
        "no running mean": {"average": None},
        "no running mean, cosine, 60 epochs": {"average": None, "schedule": "cosine", "epochs": 60},
        "running mean of 10,000 steps": {"average": 0.9999},
        "cosine": {"schedule": "cosine"},
        "plateau": {"schedule": "plateau"},
        "no clipping": {"clip": None},
    }


def fitted(family: str, parts: Parts, seed: int, keywords: dict) -> tuple[float, float]:
    """Log-likelihood of the rows to judge by, and seconds."""
    flow = FAMILIES[family](parts.train.shape[1], seed)
    start = time.perf_counter()
    flow.fit(parts.train, seed=seed, progress=False, **keywords)
    seconds = time.perf_counter() - start
    return float(flow.log_prob(parts.test).mean(dtype=np.float64)) + parts.offset, seconds


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=datasets.FOLDER, help="folder with the files of bench.quality")
    parser.add_argument("--what", default="", metavar="REGEX", help="only variations whose name matches")
    parser.add_argument("--seeds", type=int, default=1, help="fits of each (default: 1)")
    options = parser.parse_args()
    chosen = tables(options.data)
    names = [name for name in variations(1000) if re.search(options.what, name)]
    columns = [f"{table}, {family}" for table in chosen for family in FAMILIES]
    rows: list[list[float]] = []
    seconds: list[float] = []
    for name in names:
        values, spent = [], 0.0
        for parts in chosen.values():
            keywords = variations(len(parts.train))[name]
            for family in FAMILIES:
                results = [fitted(family, parts, seed, keywords) for seed in range(options.seeds)]
                values.append(statistics.mean(value for value, _ in results))
                spent += sum(second for _, second in results)
        rows.append(values)
        seconds.append(spent)
        print(f"{name}: {', '.join(f'{value:.3f}' for value in values)}; {spent:.0f} s", file=sys.stderr, flush=True)
    threads = hr.get_num_threads()
    facts = machine_facts(threads)
    cells = [
        [name, *(f"{value:.2f}" for value in values), f"{statistics.mean(values):.3f}", f"{spent:.0f}"]
        for name, values, spent in zip(names, rows, seconds, strict=True)
    ]
    lines = report.table(["changed", *columns, "mean", "seconds"], cells)
    date = time.strftime("%Y-%m-%d %H:%M")
    text = "\n".join([report.machine_line(facts, date), "", *lines]) + "\n"
    result = {
        "machine": facts,
        "date": date,
        "seeds": options.seeds,
        "columns": columns,
        "rows": dict(zip(names, rows, strict=True)),
    }
    report.write(report.stem("defaults", threads), result, text)
    print(text)


if __name__ == "__main__":
    main()
