"""Fits side by side and one after another, interleaved: ``python -m bench.many [--rounds 3] [--what REGEX]``.

Each round fits the same new flows to the same tables, first one after another, each with all threads, and then by
`headrace.fit_many`; the order is reversed every second round. A loop and `fit_many` must give parameters with equal
bits. The program prints the medians in seconds, their ratio with its range over the rounds, and processor seconds.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import headrace as hr
from bench.peers.client import alternating


def table(rows: int, features: int, seed: int) -> Any:
    """A table whose columns depend on each other in a way that a flow learns."""
    z = np.random.default_rng(seed).standard_normal((rows, features))
    z[:, 1:] += np.square(z[:, :-1])
    return z.astype(np.float32)


Case = tuple[int, int, int, Callable[[int, int], Any], dict[str, Any], bool]
CASES: dict[str, Case] = {
    "4 members, NSF 5 x [64, 64], 8000 rows, 10 epochs": (
        4, 8000, 8, lambda n, seed: hr.NSF(n, seed=seed), {"epochs": 10}, True
    ),
    "4 members, MAF 5 x [64, 64], 8000 rows, 20 epochs": (
        4, 8000, 8, lambda n, seed: hr.MAF(n, seed=seed), {"epochs": 20}, True
    ),
    "100 flows, NSF 5 x [64, 64], 1000 rows, 20 epochs": (
        100, 1000, 5, lambda n, seed: hr.NSF(n, seed=seed), {"epochs": 20}, False
    ),
    "100 flows, MAF 3 x [32, 32], 1000 rows, 20 epochs": (
        100, 1000, 5, lambda n, seed: hr.MAF(n, transforms=3, hidden=(32, 32), seed=seed), {"epochs": 20}, False
    ),
    "2 flows, MAF 5 x [256, 256], 8000 rows, 4 epochs": (
        2, 8000, 8, lambda n, seed: hr.MAF(n, hidden=(256, 256), seed=seed), {"epochs": 4}, True
    ),
}  # fmt: skip


def one_after_another(flows: list[Any], tables: list[Any], **how: Any) -> None:
    """Fit the flows by a loop."""
    for flow, rows in zip(flows, tables, strict=True):
        flow.fit(rows, progress=False, **how)


def side_by_side(flows: list[Any], tables: list[Any], **how: Any) -> None:
    """Fit the flows by `fit_many`."""
    hr.fit_many(flows, tables, progress=False, **how)


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--what", default="", metavar="REGEX", help="only cases whose name matches")
    options = parser.parse_args()
    print(f"headrace {hr.__version__}, {hr.get_num_threads()} threads")
    for name, (count, rows, features, make, how, is_one_table) in CASES.items():
        if not re.search(options.what, name):
            continue
        tables = [table(rows, features, 0 if is_one_table else i) for i in range(count)]
        walls: dict[Any, list[float]] = {one_after_another: [], side_by_side: []}
        cpus: dict[Any, list[float]] = {one_after_another: [], side_by_side: []}
        for round_ in range(options.rounds):
            fitted = {}
            for way in alternating((one_after_another, side_by_side), round_):
                flows = fitted[way] = [make(features, i) for i in range(count)]
                wall, cpu = time.perf_counter(), time.process_time()
                way(flows, tables, **how)
                walls[way].append(time.perf_counter() - wall)
                cpus[way].append(time.process_time() - cpu)
            for one, other in zip(*fitted.values(), strict=True):
                if not np.array_equal(one.parameters, other.parameters):
                    raise AssertionError(f"{name}: other bits side by side")
        ratios = [a / b for a, b in zip(walls[one_after_another], walls[side_by_side], strict=True)]
        before, after = (statistics.median(walls[way]) for way in walls)
        spent, now = (statistics.median(cpus[way]) for way in cpus)
        print(
            f"{name}: {before:.2f} s one after another, {after:.2f} s side by side: {statistics.median(ratios):.2f} x "
            f"({min(ratios):.2f} to {max(ratios):.2f}); processor {spent:.2f} and {now:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
