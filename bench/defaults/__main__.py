"""The command `python -m bench.defaults`, which the package's docstring describes."""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import bench.defaults
import headrace as hr
from bench import report
from bench.defaults.measured import Measured
from bench.defaults.rows import Rows
from bench.defaults.table import ROWS, SIZES, Row
from bench.peers.client import machine_facts

Found = list[tuple[Row, Measured]]


def lanes_table(found: Found) -> list[str]:
    """A line for each call, with the numbers of rows as columns."""
    lines: dict[tuple[str, str], dict[int, Measured]] = {}
    for row, result in found:
        lines.setdefault((row.made, row.call), {})[row.n] = result
    columns = ["made", "call", *(f"n = {n}" for n in SIZES), f"time, n = {SIZES[0]}", f"time, n = {SIZES[-1]}"]
    cells = [
        [f"`{made}`", f"`{call}`"]
        + [f"{results[n].ratio:.2f}" for n in SIZES]
        + [report.duration(results[n].seconds) for n in (SIZES[0], SIZES[-1])]
        for (made, call), results in lines.items()
    ]
    return report.table(columns, cells)


def others_table(found: Found) -> list[str]:
    """A line for each row of the table of calls, with its fastest setting."""
    columns = ["kind", "made", "call", "n", "fastest", "n", "time", "fastest", "ratio", "limit", "reason"]
    cells = []
    for row, result in found:
        code = [f"`{row.call}`", str(row.n or "-"), f"`{row.fastest}`", str(row.fastest_n or "-")]
        times = [report.duration(result.seconds), report.duration(result.fastest), f"{result.ratio:.2f}"]
        made = f"`{row.made}`" if row.made else ""
        cells.append([row.kind, made, *code, *times, f"{row.limit:g}", row.reason])
    return report.table(columns, cells)


def summary(found: Found) -> list[str]:
    """A line for each kind, and one for each limit that has a reason."""
    parts: dict[tuple[str, str], Found] = {}
    for row, result in found:
        parts.setdefault((row.reason, "" if row.reason else row.kind), []).append((row, result))
    cells = []
    for (reason, _), part in sorted(parts.items(), key=lambda one: bool(one[0][0])):
        worst, result = max(part, key=lambda one: one[1].ratio)
        code = f"`{worst.name}`" + (f", n = {worst.n}" if worst.n else "") + (f". {reason}" if reason else "")
        ratios = [f"{statistics.median(one.ratio for _, one in part):.2f}", f"{result.ratio:.2f}"]
        cells.append([worst.kind, str(len(part)), *ratios, f"{worst.limit:g}", code])
    return report.table(["kind", "rows", "median ratio", "largest ratio", "limit", "the largest is of"], cells)


def main(argv: list[str] | None = None) -> int:
    """Print the summary, and write the whole table to ``bench/results``; return 1 where a ratio is above its limit."""
    parser = argparse.ArgumentParser(
        description=bench.defaults.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", default="", metavar="REGEX", help="only rows whose kind or code matches; no file")
    parser.add_argument("--pairs", type=int, default=15, help="pairs of blocks of each row")
    parser.add_argument("--block", type=float, default=1e-3, help="seconds of a block")
    options = parser.parse_args(argv)
    rows = [row for row in ROWS if re.search(options.what, f"{row.kind} {row.name}")]
    with tempfile.TemporaryDirectory() as folder:
        table = Rows(folder)
        found = [(row, table.measure(row, options.pairs, options.block)) for row in rows]
    machine, date = machine_facts(hr.get_num_threads()), time.strftime("%Y-%m-%d %H:%M")
    of_lanes = [one for one in found if one[0].kind == "lanes"]
    others = [one for one in found if one[0].kind != "lanes"]
    above = [f"{row.name}, n = {row.n}: {result.ratio:.2f}" for row, result in found if result.ratio > row.limit]
    lines = [report.machine_line(machine, date), "", *summary(found)]
    whole = [*lines, "", "## Other kinds", "", *others_table(others), "", "## Lanes", "", *lanes_table(of_lanes)]
    if options.what:
        print("\n".join(whole))
    else:
        print("\n".join(lines))
        raw = [{**vars(row), "seconds": r.seconds, "fastest_seconds": r.fastest, "ratio": r.ratio} for row, r in found]
        path: Path = report.stem("every_default", hr.get_num_threads())
        report.write(path, {"machine": machine, "date": date, "rows": raw}, "\n".join(whole) + "\n")
    print("\n".join(["", "above their limits:", *above] if above else []))
    return int(bool(above))


if __name__ == "__main__":
    sys.exit(main())
