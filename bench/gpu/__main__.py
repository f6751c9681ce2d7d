"""All work that needs a CUDA card, in at most three commands of ten minutes: ``python -m bench.gpu``.

The command goes through its steps in this order: build (``--build``), the card's properties, the card's rates, every
workload beside these rates and beside other libraries on the card, the GPU tests, and compute-sanitizer on some of
these tests. The command ends before ten minutes are over. **A repeated command continues the previous report**, however
the previous command ended, and three commands run all steps. The report is written anew after each step and each
workload, so that a step that fails, hangs or is cut off loses only its own result; a step that was cut off twice is
left out.

The exit status is 0 if all steps ran without failure, 1 without a device, 2 if a step failed, 3 if some steps remain.

``--dry-run`` runs the same steps on the CPU with tiny sizes, to try the command itself; its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench import report
from bench.gpu import steps as gpu_steps
from bench.gpu.cases import CASES, FITS, LIBRARIES, Case, tiny
from bench.gpu.report import cell_text, failures, fit_row, markdown, row_of, stem, step_line
from bench.gpu.steps import LIMITS, TOOLS
from bench.peers.client import Worker, machine_facts, usable_cores
from bench.peers.run import OURS, OWN, TimingPlan, measure, start

STEPS = ("floors", "workloads", "tests", "sanitizer")
CALLS = 3  # the number of commands for all steps together

BUDGET = 570.0  # seconds of one command
HELLO = 90.0  # the seconds in which a worker has to start
REQUESTS = {"zuko_compiled": 200.0}  # seconds for a request to a worker that may have to compile
REQUEST = 60.0  # seconds for all other requests, and at most the time that is left
LEAST = 5.0  # the seconds that must be left for a workload to begin
MOST_FAILURES = 3  # failures of a library before it is given up
MOST_TRIES = 2  # attempts at a step or a workload during which the command was cut off
PLAN = TimingPlan(rounds=4, block=0.1, budget=4.0, foresee=True)
DRY_PLAN = TimingPlan(rounds=2, block=0.005, budget=4.0, foresee=True)

INSTALL = 'HEADRACE_CUDA=ON pip install --group test ".[cuda13]"   (".[cuda12]" for a driver of CUDA 12)'


# ---- workers ---------------------------------------------------------------------------------------------------------


class Crew:
    """The libraries' workers, which start at their first use, and again after a failure, which may break a CUDA
    context."""

    def __init__(self, device: str, threads: int, peer_python: str) -> None:
        self.device, self.threads, self.peer_python = device, threads, peer_python
        self.workers: dict[str, Worker] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, int] = {}

    def present(self, libraries: Sequence[str], left: float) -> tuple[dict[str, Worker], dict[str, str]]:
        """The libraries whose workers run, with their limits set, and the reason why each other library does not
        run."""
        found, missing = {}, {}
        for library in libraries:
            if self.failures.get(library, 0) >= MOST_FAILURES:
                missing[library] = f"given up after {MOST_FAILURES} failures"
            elif library in self.workers or self._start(library, min(HELLO, left)):
                found[library] = self.workers[library]
                found[library].limit = min(REQUESTS.get(library, REQUEST), left)
            else:
                missing[library] = self.facts[library]["reason"]
        return found, missing

    def _start(self, library: str, limit: float) -> bool:
        if self.facts.get(library, {"present": True})["present"]:
            worker, self.facts[library] = start(library, self.threads, self.peer_python, self.device, limit)
            if worker is not None:
                self.workers[library] = worker
        return library in self.workers

    def drop(self, library: str) -> None:
        """End a worker that failed."""
        self.failures[library] = self.failures.get(library, 0) + 1
        worker = self.workers.pop(library)
        worker.process.kill()
        worker.close()

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()


# ---- the command -----------------------------------------------------------------------------------------------------


class Run:
    """The results until now, and the time that is left."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.begin = options, time.perf_counter()
        self.device = "dry" if options.dry_run else "cuda"
        self.results: dict[str, Any] = {
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "calls": [],  # seconds of each command
            "dry": options.dry_run,
            "machine": machine_facts(options.threads),
            "card": {},
            "steps": {},
            "begun": {},  # workload -> the number of times that it was begun
            "floors": {},
            "plan": {**vars(DRY_PLAN if options.dry_run else PLAN), "limits": LIMITS, "seconds": options.budget},
            "libraries": {},
            "rows": [],
            "not_run": [],
        }
        self.output: Path | None = None
        if options.output is not None:
            self.go_on_at(options.output)

    @property
    def left(self) -> float:
        """Remaining seconds."""
        return self.options.budget - (time.perf_counter() - self.begin)

    def go_on_at(self, output: Path) -> None:
        """Write the report to this path from now on, and continue the results that the file has."""
        self.output = output
        path = Path(f"{output}.json")
        if path.exists() and not self.options.anew:
            earlier = json.loads(path.read_text())
            steps = {**earlier["steps"], **self.results["steps"]}
            self.results = {**self.results, **earlier, "steps": steps}
        self.results["calls"].append(0.0)

    def note(self, name: str, step: dict[str, Any]) -> None:
        """Store and print the outcome of a step."""
        self.results["steps"][name] = step
        print(step_line(name, step), *(f"    {line}" for line in step.get("tail", ())), sep="\n", file=sys.stderr)
        self.write()

    def write(self) -> None:
        """Write the report in its present state, and its copy."""
        if self.output is None:
            return
        self.results["calls"][-1] = time.perf_counter() - self.begin
        text = markdown(self.results)
        report.write(self.output, self.results, text)
        if self.options.copy is not None:
            report.write(self.options.copy / self.output.name, self.results, text)

    def go(self) -> int:
        """Run all steps that are not done yet, as far as the time allows; return the exit status."""
        if self.options.build:
            self.step("build", "build", self.build)
        step, card = gpu_steps.card_step(self.device, LIMITS["card"])
        if "reason" in card:
            print(no_device(card, self.options), file=sys.stderr)
            return 1
        if self.output is None:
            self.go_on_at(stem(card["card"], self.results["date"]))
        if other := self.another(card):
            print(f"{self.output}.json is of {other}: --anew, or another --output", file=sys.stderr)
            return 2
        self.results["card"] = card
        self.note("card", step)
        for name, kind, work in self.works():
            self.step(name, kind, work)
        self.write()
        print(markdown(self.results))
        print(f"{self.output}.md", file=sys.stderr)
        open_steps = [name for name, *_ in self.works() if self.is_open(name)]
        if open_steps:
            progress = f"command {len(self.results['calls'])}, of {CALLS} that it may take"
            print(f"Still to be run: {', '.join(open_steps)} (this was {progress}). Give it again.", file=sys.stderr)
            return 3
        bad = ("failed", "late", "cut off")
        return 2 if any(step["status"] in bad for step in self.results["steps"].values()) else 0

    def another(self, card: Mapping[str, Any]) -> str:
        """The card and version of the present report, if they differ from the given ones."""
        before = self.results["card"]
        differ = [key for key in ("card", "headrace") if before and before.get(key) != card.get(key)]
        return ", ".join(str(before.get(key)) for key in differ)

    def works(self) -> list[tuple[str, str, Callable[[float], dict[str, Any]]]]:
        """The name, kind and function of every chosen step, in order."""
        works = [
            ("floors", "floors", self.floors),
            ("workloads", "workloads", self.workloads),
            ("tests", "tests", partial(gpu_steps.tests_step, self.device, self.options.threads)),
            *((f"compute-sanitizer {tool}", "sanitizer", partial(gpu_steps.sanitizer_step, tool)) for tool in TOOLS),
        ]
        return [work for work in works if work[1] in self.options.steps]

    def is_open(self, name: str) -> bool:
        """Whether a step has not ended yet, in this command or an earlier one."""
        return self.results["steps"].get(name, {}).get("status") in (None, "begun")

    def step(self, name: str, kind: str, work: Callable[[float], dict[str, Any]]) -> None:
        """Run a step that has not ended, if there is time for it. Workloads count their attempts themselves."""
        if not self.is_open(name):
            return
        tries = self.results["steps"].get(name, {}).get("tries", 0)
        if tries >= MOST_TRIES and kind != "workloads":
            self.note(name, {"status": "cut off", "reason": f"the command ended during it {tries} times"})
            return
        if self.left < gpu_steps.LEAST.get(kind, LEAST):
            return
        self.results["steps"][name] = begun = {"status": "begun", "tries": tries + 1}
        self.write()
        granted = min(LIMITS.get(kind, self.left), self.left)
        step = work(granted)
        # The command's time ended the step, and not the step's own limit.
        if step["status"] == "late" and granted < LIMITS.get(kind, 0.0):
            step = {**begun, "tail": step.get("tail", [])}
        self.note(name, step)

    def build(self, limit: float) -> dict[str, Any]:
        """Build headrace, except in a dry run."""
        if self.options.dry_run:
            return {"status": "absent", "reason": "a dry run builds nothing"}
        return gpu_steps.build_step(limit, self.options.arch)

    def floors(self, limit: float) -> dict[str, Any]:
        """Measure the card's rates."""
        step, self.results["floors"] = gpu_steps.floors_step(self.device, limit)
        return step

    def workloads(self, _limit: float) -> dict[str, Any]:
        """Run all workloads that were not measured yet, as far as the time of the command allows."""
        begin, results, dry = time.perf_counter(), self.results, self.options.dry_run
        crew = Crew(self.device, self.options.threads, self.options.peer_python)
        results["not_run"] = []
        try:
            for case in self.options.cases:
                key = case.workload.name
                if results["begun"].get(key, 0) >= MOST_TRIES or any(row.get("case") == key for row in results["rows"]):
                    continue
                if self.left < LEAST:
                    results["not_run"].append(key)
                    continue
                results["begun"][key] = results["begun"].get(key, 0) + 1
                self.write()
                run = replace(case, workload=tiny(case.workload)) if dry else case
                try:
                    self.measure(run, key, crew, DRY_PLAN if dry else PLAN)
                except Exception as error:  # an error of any kind, because other workloads remain
                    traceback.print_exc()
                    results["begun"][key] = MOST_TRIES
                    self.note(run.workload.name, {"status": "failed", "reason": f"{type(error).__name__}: {error}"})
        finally:
            crew.close()
        took = {"seconds": time.perf_counter() - begin}
        if results["not_run"]:
            return {"status": "begun", "tries": 0, **took}
        fits = [tiny(fit) for fit in FITS] if dry else FITS
        step = fit_row(results["rows"], fits, results["floors"])
        if step is not None:
            results["rows"].append({**step, "failed": [], **({"met": None} if dry else {})})
        ours = [row for row in results["rows"] if {*OWN} & {*row["failed"]} or OURS not in row["cells"]]
        measured = {row.get("case") for row in results["rows"]}
        lost = [case.workload.name for case in self.options.cases if case.workload.name not in measured]
        reason = {"reason": f"no time of {', '.join(lost)}"} if lost else {}
        return {"status": "failed" if ours or lost else "done", **took, **reason}

    def measure(self, case: Case, key: str, crew: Crew, plan: TimingPlan) -> None:
        """Measure one workload, a row of the report."""
        chosen = [library for library in case.libraries if library in self.options.libraries]
        workers, missing = crew.present(chosen, self.left)
        result = measure(case.workload, workers, plan)
        for library in result["failed"]:
            crew.drop(library)
        result["missing"] |= missing
        row = {**row_of(case, result, self.results["floors"]), "failed": result["failed"], "case": key}
        if self.options.dry_run:
            row["met"] = None
        self.results["libraries"] |= crew.facts
        self.results["rows"].append(row)
        cells = ", ".join(f"{library} {cell_text(cell)}" for library, cell in row["cells"].items())
        reasons = (f"  {library}: {reason}" for library, reason in failures(row))
        print(f"{row['name']}: {cells}", *reasons, sep="\n", file=sys.stderr)
        self.write()


def no_device(card: Mapping[str, Any], options: argparse.Namespace) -> str:
    """The reason why nothing is measured, and the steps of a machine with a card."""
    chosen = ", ".join(options.steps)
    lines = [f"NO CUDA DEVICE TO MEASURE: {card['reason']}"]
    if "info" in card:
        lines.append(f"headrace {card['headrace']}, {card['installed']}; CUDA {card['info']}")
    lines += [
        f"Install it on a machine with a card:  {INSTALL}",
        "or let this command do it:            python -m bench.gpu --build --output STEM",
        f"There it would run, in {CALLS} commands of {options.budget / 60:.0f} minutes at most: {chosen}; and these "
        "workloads:",
        *(f"  {case.workload.name}" for case in options.cases),
        "--dry-run tries the command itself on the CPU.",
    ]
    return "\n".join(lines)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line; ``cases`` are the workloads that they choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--build", action="store_true", help="first: HEADRACE_CUDA=ON pip install --no-build-isolation .")
    add("--arch", metavar="LIST", help="CUDAARCHS of the build, as 90-real (default: the card that is there)")
    add("--steps", default=",".join(STEPS), help="a choice (default: %(default)s)")
    add("--workloads", default="", metavar="REGEX", help="only workloads whose name matches")
    add("--libraries", default=",".join(LIBRARIES), help="a choice (default: %(default)s)")
    add("--peer-python", default=sys.executable, metavar="PATH", help="interpreter that has the other libraries")
    half = max(1, usable_cores() // 2)
    add("--threads", type=int, default=half, help="of each process on the host (default: half the cores)")
    add("--budget", type=float, default=BUDGET, help="seconds of this command (default: %(default)g)")
    add("--output", type=Path, default=None, metavar="STEM", help="STEM.json, STEM.md (default: bench/results)")
    add("--copy", type=Path, default=None, metavar="FOLDER", help="the report there too, whenever it is written")
    add("--anew", action="store_true", help="do not go on with the report that is there")
    add("--dry-run", action="store_true", help="the same way on the CPU with tiny sizes")
    options = parser.parse_args(argv)
    for name, known in (("steps", STEPS), ("libraries", LIBRARIES)):
        chosen = [part for part in getattr(options, name).split(",") if part]
        if unknown := set(chosen) - set(known):
            parser.error(f"--{name}: expected some of {', '.join(known)}, got {', '.join(sorted(unknown))}")
        setattr(options, name, chosen)
    if options.build and options.output is None:
        parser.error("--build needs an --output: the next command goes on there, and builds nothing again")
    options.cases = [case for case in CASES if re.search(options.workloads, case.workload.name)]
    if not options.cases:
        names = ", ".join(case.workload.name for case in CASES)
        parser.error(f"--workloads: expected a part of {names}; got {options.workloads!r}")
    if options.dry_run and options.output is None:
        parser.error("--dry-run needs an --output: its numbers have no place among results")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts that the command line names."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the command ends the processes that it started
    return Run(arguments(argv)).go()


if __name__ == "__main__":
    sys.exit(main())
