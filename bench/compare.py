"""Time two builds of headrace against each other: ``python -m bench.compare --help``.

Each build is an interpreter whose environment has that build installed. Rounds are interleaved in alternating order and
spread over several pairs of new processes, because even two processes of one build differ in speed. A workload has
changed only if the band of the ratios of all rounds excludes 1.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.peers.client import Worker, WorkerError, alternating, machine_facts, usable_cores
from bench.workloads import WORKLOADS, Workload

SIDES = ("a", "b")


def setting(text: str) -> tuple[str, str]:
    """Read an argument of the form NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("a", metavar="PYTHON_A", help="interpreter with the old build")
    add("b", metavar="PYTHON_B", help="interpreter with the new build")
    for side in SIDES:
        add(f"--env-{side}", type=setting, action="append", default=[], metavar="NAME=VALUE", help="environment of it")
    add("--threads", type=int, default=usable_cores(), help="threads of both (default: all cores)")
    add("--rounds", type=int, default=8, help="rounds, an even number for each pair of processes (default: 8)")
    add("--processes", type=int, default=2, help="pairs of new processes that share the rounds (default: 2)")
    add("--block", type=float, default=0.3, help="seconds of a timed block (default: 0.3)")
    add("--workloads", default="", metavar="REGEX", help="only workloads whose name matches")
    add("--output", type=Path, default=None, metavar="FILE", help="write all numbers as JSON")
    options = parser.parse_args(argv)
    if options.processes < 1 or options.rounds < 2 or options.rounds % (2 * options.processes):
        parser.error("--rounds must be an even number for each pair of processes, so that no build always goes first")
    return options


def measure(
    workloads: Sequence[Workload], workers: dict[str, Worker], rounds: int, block: float
) -> dict[str, dict[str, list[float]]]:
    """The median seconds of each build in each round, by workload; a workload that a build cannot run is left out."""
    seconds: dict[str, dict[str, list[float]]] = {}
    for workload in workloads:
        try:
            for side in SIDES:
                workers[side].ask("prepare", workload=workload.to_dict(), warm_up=block)
            medians: dict[str, list[float]] = {side: [] for side in SIDES}
            for turn in range(rounds):
                for side in alternating(SIDES, turn):
                    medians[side].append(workers[side].timed(workload.verb, block)["median"])
            seconds[workload.name] = medians
        except WorkerError as error:
            print(f"{workload.name}: {error}", file=sys.stderr)
    return seconds


def verdict(medians: dict[str, list[float]]) -> dict:
    """Compare the rounds of one workload; ratios are new over old, so that less than 1 is faster."""
    by_round = [new / old for old, new in zip(medians["a"], medians["b"], strict=True)]
    low, high = min(by_round), max(by_round)
    old, new = statistics.median(medians["a"]), statistics.median(medians["b"])
    change = "faster" if high < 1 else "slower" if low > 1 else "-"
    return {"a": old, "b": new, "ratio": new / old, "band": [low, high], "change": change, "rounds": medians}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the parts that the command line names."""
    options = arguments(argv)
    workloads = [workload for workload in WORKLOADS if re.search(options.workloads, workload.name)]
    environments = {"a": dict(options.env_a), "b": dict(options.env_b)}
    pythons = {"a": options.a, "b": options.b}
    builds: dict[str, dict] = {}
    rounds: dict[str, dict[str, list[float]]] = {}
    for _ in range(options.processes):
        workers: dict[str, Worker] = {}
        try:
            for side in SIDES:
                workers[side] = Worker("headrace", options.threads, pythons[side], environments[side])
                builds[side] = workers[side].ask("hello")
                if not builds[side]["present"]:
                    sys.exit(f"no headrace in {pythons[side]}: {builds[side]['reason']}")
            each = options.rounds // options.processes
            for name, medians in measure(workloads, workers, each, options.block).items():
                known = rounds.setdefault(name, {side: [] for side in SIDES})
                for side in SIDES:
                    known[side] += medians[side]
        finally:
            for worker in workers.values():
                worker.close()
    rows = {name: verdict(medians) for name, medians in rounds.items()}
    machine = machine_facts(options.threads)
    print(f"{machine['cpu']}, {options.threads} threads, {options.rounds} rounds, {options.processes} process pairs")
    for side in SIDES:
        facts = builds[side]["facts"]
        given = " ".join(f"{name}={value}" for name, value in environments[side].items())
        print(f"- {side}: {pythons[side]}, headrace {facts.get('version')}, set {facts.get('isa')} {given}".rstrip())
    print("\n| workload | a ms | b ms | b / a | band | change |\n| --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        low, high = row["band"]
        times = f"{1e3 * row['a']:.4g} | {1e3 * row['b']:.4g}"
        print(f"| {name} | {times} | {row['ratio']:.3f} | {low:.3f} - {high:.3f} | {row['change']} |")
    if options.output is not None:
        date = time.strftime("%Y-%m-%d %H:%M")
        report = {"date": date, "machine": machine, "builds": builds, "environments": environments, "rows": rows}
        options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
