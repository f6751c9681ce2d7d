"""Time headrace beside other libraries: ``python -m bench.peers.run --help``.

Every library runs in a separate long-lived process; in each round each library times one block of calls of the same
workload, in alternating order, and only one library computes at a time. The report is a Markdown table and a JSON file.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import report
from bench.peers import ADAPTERS, IN_BF16
from bench.peers.client import Worker, WorkerError, alternating, machine_facts, usable_cores
from bench.workloads import RATIOS, WORKLOADS, Ratio, Workload

OURS = "headrace"
# Variants of headrace, which differ in the rounding of products, or in the framework around them.
OWN = (OURS, "headrace_tf32", "headrace_jax")
PEAK_SECONDS = 0.05


@dataclass
class TimingPlan:
    """The number of rounds, and the time for blocks and cells."""

    rounds: int
    block: float  # seconds of one timed block
    budget: float  # seconds of one library in one workload
    foresee: bool  # report a call over the budget by its estimate, without running it


@dataclass
class Cell:
    """The measurement of one library in one workload."""

    estimate: float
    rounds: int
    foreseen: bool = False
    blocks: list[dict] = field(default_factory=list)

    @property
    def medians(self) -> list[float]:
        """The seconds of a call, as the median of each round."""
        return [self.estimate] if self.foreseen else [block["median"] for block in self.blocks]

    @property
    def seconds(self) -> float:
        """The seconds of a call, as the median over the rounds."""
        return statistics.median(self.medians)

    def to_dict(self) -> dict:
        """The cell as a dict for JSON."""
        return {"seconds": self.seconds, "estimate": self.estimate, "foreseen": self.foreseen, "blocks": self.blocks}


def plan_cell(estimate: float, plan: TimingPlan) -> Cell:
    """Choose as many rounds as the budget allows; a call over the budget is measured once, or only estimated."""
    rounds = max(1, min(plan.rounds, int(plan.budget / max(estimate, plan.block))))
    return Cell(estimate, rounds, foreseen=plan.foresee and estimate > plan.budget)


def measure(workload: Workload, workers: dict[str, Worker], plan: TimingPlan) -> dict:
    """Run all rounds of a workload; return the cells by library, reasons for missing libraries, and the peak by round.

    ``failed`` names the missing libraries whose workers ended or failed.
    """
    cells: dict[str, Cell] = {}
    missing: dict[str, str] = {}
    failed: list[str] = []
    for library, worker in workers.items():
        try:
            reply = worker.ask("prepare", workload=workload.to_dict(), warm_up=plan.budget / 8)
        except WorkerError as error:
            missing[library] = str(error)
            failed.append(library)
            continue
        if "unsupported" in reply:
            missing[library] = reply["unsupported"]
        else:
            cells[library] = plan_cell(reply["estimate"], plan)
    peaks: list[float] = []
    for turn in range(plan.rounds):
        active = [library for library, cell in cells.items() if turn < cell.rounds and not cell.foreseen]
        for library in alternating(active, turn):
            cell = cells[library]
            seconds, calls = (0.0, 1) if cell.estimate > plan.block else (plan.block, None)
            try:
                cell.blocks.append(workers[library].timed(workload.verb, seconds, calls))
            except WorkerError as error:
                missing[library] = str(error)
                failed.append(library)
                del cells[library]
        if OURS in active and OURS in cells:
            peak = workers[OURS].ask("peak", seconds=PEAK_SECONDS)["gflops"]
            if peak:
                peaks.append(peak)
    return {"workload": workload, "cells": cells, "missing": missing, "failed": failed, "peaks": peaks}


def measure_ratio(ratio: Ratio, worker: Worker, plan: TimingPlan) -> dict:
    """Run rounds of two calls of one headrace model, interleaved."""
    worker.ask("prepare", workload=ratio.numerator.to_dict(), warm_up=plan.budget / 8)
    verbs = (ratio.numerator.verb, ratio.denominator.verb)
    seconds: dict[str, list[float]] = {verb: [] for verb in verbs}
    for turn in range(plan.rounds):
        for verb in alternating(verbs, turn):
            seconds[verb].append(worker.timed(verb, plan.block)["median"])
    over, under = seconds[verbs[0]], seconds[verbs[1]]
    by_round = [a / b for a, b in zip(over, under, strict=True)]
    return {
        "name": ratio.name,
        "seconds": seconds,
        "ratio": statistics.median(over) / statistics.median(under),
        "band": [min(by_round), max(by_round)],
        "limit": ratio.limit,
        "met": max(by_round) <= ratio.limit,
    }


def ratios_by_round(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """The ratios of two libraries' rounds; where one library has fewer rounds, its last round is used again."""
    count = max(len(over), len(under))
    return [over[min(i, len(over) - 1)] / under[min(i, len(under) - 1)] for i in range(count)]


def comparison(cells: dict[str, Cell]) -> dict:
    """The best peer, the ratio of its time over headrace's, and the ratios of single rounds; None where unknown."""
    found: dict = {"best_peer": None, "ratio": None, "band": None}
    peers = {library: cell for library, cell in cells.items() if library not in (*OWN, *IN_BF16)}
    if peers:
        found["best_peer"] = min(peers, key=lambda library: peers[library].seconds)
    if peers and OURS in cells and not cells[OURS].foreseen:
        best, ours = peers[found["best_peer"]], cells[OURS]
        by_round = ratios_by_round(best.medians, ours.medians)
        found |= {"ratio": best.seconds / ours.seconds, "band": [min(by_round), max(by_round)]}
    return found


def summary(result: dict, threads: int) -> dict:
    """The row of a workload in the table."""
    workload: Workload = result["workload"]
    cells: dict[str, Cell] = result["cells"]
    row: dict = {
        "name": workload.name,
        "flops": workload.flops,
        "cells": {library: cell.to_dict() for library, cell in cells.items()},
        "missing": result["missing"],
        "aim": workload.aim,
        **comparison(cells),
        "gflops": None,
        "peak": None,
        "share": None,
        "met": None,
    }
    if OURS not in cells or cells[OURS].foreseen:
        return row
    ours = cells[OURS]
    row["gflops"] = workload.flops / ours.seconds / 1e9
    if result["peaks"]:
        row["peak"] = statistics.median(result["peaks"]) * threads
        row["share"] = row["gflops"] / row["peak"]
    row["met"] = reaches(row, workload.aim)
    return row


def reaches(row: Mapping, aim: float) -> bool | None:
    """Whether the ratio of medians reaches the aim; None where the aim cannot be judged."""
    if row["ratio"] is None or row["cells"][row["best_peer"]]["foreseen"]:
        return None
    return row["ratio"] >= aim


def _cell(cell: dict | None) -> str:
    if cell is None:
        return "-"
    if cell["foreseen"]:
        return f"≈ {report.duration(cell['seconds'])}"
    mark = "" if len(cell["blocks"]) > 1 else " (once)"
    disturbed = any(block["disturbed"] for block in cell["blocks"])
    return report.duration(cell["seconds"]) + mark + ("!" if disturbed else "")


def markdown(results: dict) -> str:
    """The report as Markdown: facts, the table of workloads, and the table of headrace's ratios."""
    machine, libraries = results["machine"], results["libraries"]
    present = [library for library in libraries if libraries[library]["present"]]
    lines = [
        f"# Headrace and its peers, {machine['threads']} threads",
        "",
        report.machine_line(machine, results["date"]),
        "",
        *(report.library_line(library, facts) for library, facts in libraries.items()),
        "",
    ]
    rows = []
    for row in results["rows"]:
        cells = [_cell(row["cells"].get(library)) for library in present]
        rates = [report.number(row["gflops"], ".3g"), report.number(row["share"], ".0%")]
        fields = [row["name"], *cells, *report.comparison(row), *rates]
        rows.append([*fields, f"≥ {row['aim']:g} x", report.met(row["met"])])
    columns = ["workload", *present, "best peer / headrace", "band", "GFLOP/s", "of peak", "aim", "met"]
    lines += report.table(columns, rows)
    if results["ratios"]:
        rows = []
        for row in results["ratios"]:
            low, high = row["band"]
            fields = [row["name"], f"{row['ratio']:.3f}", f"{low:.3f} - {high:.3f}", f"≤ {row['limit']:g}"]
            rows.append([*fields, report.met(row["met"])])
        lines += ["", *report.table(["headrace alone", "ratio", "band", "aim", "met"], rows)]
    lines += [
        "",
        "Median time of a call over the rounds. ≈: foreseen, not run; (once): one call; !: something else was busy in "
        "every try of a round; -: absent, unsupported or unknown. GFLOP/s counts the existing weights once, in a "
        "training step three times.",
        "",
    ]
    return "\n".join(lines)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--threads", type=int, default=usable_cores(), help="threads of every library (default: all cores)")
    add("--rounds", type=int, default=6, help="rounds; an even number, since their order alternates (default: 6)")
    add("--block", type=float, default=0.4, help="seconds of a timed block (default: 0.4)")
    add("--budget", type=float, default=20.0, help="seconds a library may use in one workload (default: 20)")
    add("--workloads", default="", metavar="REGEX", help="only workloads whose name matches")
    add("--libraries", default="", help=f"a comma-separated choice of {', '.join(ADAPTERS)} (default: all of the CPU)")
    add("--peer-python", default=sys.executable, metavar="PATH", help="interpreter that has the other libraries")
    add(
        "--quick",
        action="store_true",
        help="2 rounds of 0.1 s; calls over 2 s foreseen, no tiles, nothing compiled by torch",
    )
    add("--output", type=Path, default=None, metavar="STEM", help="STEM.json, STEM.md (default: bench/results)")
    options = parser.parse_args(argv)
    left_out = {*OWN[1:]} | ({"headrace_bf16_tiles", "zuko_compiled", "zuko_autocast"} if options.quick else set())
    chosen = [library for library in ADAPTERS if library not in left_out]
    options.libraries = options.libraries.split(",") if options.libraries else chosen
    unknown = set(options.libraries) - set(ADAPTERS)
    if unknown:
        parser.error(f"unknown libraries: {', '.join(sorted(unknown))}")
    if options.quick:
        options.rounds, options.block, options.budget = 2, 0.1, 2.0
    if options.rounds < 2 or options.rounds % 2:
        parser.error("--rounds must be an even number of at least 2")
    if options.output is None:
        options.output = report.stem("peers_quick" if options.quick else "peers", options.threads)
    return options


def start(
    library: str, threads: int, peer_python: str, device: str = "cpu", limit: float | None = None
) -> tuple[Worker | None, dict]:
    """Start a library's worker; return the worker, None if the library is absent, and facts about the library.

    Workers of headrace run in the runner's interpreter; all workers in this interpreter also have its import path.
    """
    python = sys.executable if library in OWN or library.startswith("headrace_bf16") else peer_python
    path = {name: os.environ[name] for name in ("PYTHONPATH",) if python == sys.executable and name in os.environ}
    worker = Worker(library, threads, python, path, device, limit)
    try:
        facts = worker.ask("hello")
    except WorkerError as error:
        facts = {"present": False, "reason": str(error)}
    if facts["present"]:
        return worker, facts
    worker.close()
    return None, facts


def main(argv: Sequence[str] | None = None) -> None:
    """Run the parts that the command line names."""
    options = arguments(argv)
    plan = TimingPlan(options.rounds, options.block, options.budget, foresee=options.quick)
    workloads = [workload for workload in WORKLOADS if re.search(options.workloads, workload.name)]
    ratios = [ratio for ratio in RATIOS if re.search(options.workloads, ratio.name)]
    results: dict = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": machine_facts(options.threads),
        "plan": vars(plan),
        "libraries": {},
        "rows": [],
        "ratios": [],
    }
    workers: dict[str, Worker] = {}
    try:
        for library in options.libraries:
            worker, results["libraries"][library] = start(library, options.threads, options.peer_python)
            if worker is not None:
                workers[library] = worker
        for workload in workloads:
            row = summary(measure(workload, workers, plan), options.threads)
            results["rows"].append(row)
            cells = ", ".join(f"{library} {_cell(cell)}" for library, cell in row["cells"].items())
            print(f"{row['name']}: {cells}", file=sys.stderr, flush=True)
            for library, reason in row["missing"].items():
                print(f"  {library}: {reason}", file=sys.stderr, flush=True)
        for ratio in ratios if OURS in workers else []:
            try:
                results["ratios"].append(measure_ratio(ratio, workers[OURS], plan))
            except WorkerError as error:
                print(f"{ratio.name}: {error}", file=sys.stderr, flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    text = markdown(results)
    report.write(options.output, results, text)
    print(text)


if __name__ == "__main__":
    main()
