"""Everything that a CUDA card is needed for, in one command and ten minutes: ``python -m bench.gpu``.

Build (``--build``), what the card is, the GPU tests, compute-sanitizer on some of them, the card's own rates, and every
workload beside them and beside other libraries on the same card. Each step has a time limit, and the report in
bench/results/ is written anew after each, so that what fails or hangs loses nothing but itself. Exit status: 0 if all
steps ended well, 1 without a device, 2 if a step failed.

``--dry-run`` goes the same way on the CPU with tiny sizes, for trying the command itself; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import report
from bench.gpu_cases import CASES, FITS, LIBRARIES, Case, tiny
from bench.gpu_report import cell_text, failures, fit_row, markdown, row_of, stem, step_line
from bench.peers.client import ON_DEVICE, ROOT, Worker, WorkerError, machine_facts
from bench.peers.run import OURS, OWN, Plan, measure

STEPS = ("tests", "sanitizer", "floors", "workloads")
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")

# Seconds. The first holds for all steps but the build; the others end one step, or one request to a worker.
BUDGET = 570.0
LIMITS = {"build": 3600.0, "card": 60.0, "tests": 150.0, "sanitizer": 40.0, "floors": 60.0, "hello": 90.0}
REQUEST = 60.0  # of a worker; the time left is the other limit
LEAST = 5.0  # what must be left for a workload to be begun
MOST_FAILURES = 3  # of a library, before it is given up
PLAN = Plan(rounds=4, block=0.1, budget=4.0, foresee=True)
DRY_PLAN = Plan(rounds=2, block=0.005, budget=4.0, foresee=True)

# What compute-sanitizer looks at: every family of kernels and the way back, some eighty small tests.
SELECTION = " or ".join(
    (
        "(float32 and (test_chains or test_every_size_of_batch or test_samples_are_the_cpus))",
        "(float32 and (test_steps_follow_each_other or test_the_same_bits_in_any_order_of_threads))",
        "(float32 and test_the_value_may_replace_the_input and (affine-forward or (radial and True)))",
        "(float32 and test_an_ascent_is_that_of_the_cpu)",
        "(tensor_cores and (test_every_size_of_batch or (test_flows_are and MAF) or test_lines_in_global_memory))",
        "test_gradients_of_couplings",
        "test_chosen_rows",
        "test_shared_parameters_are_summed_in_float64",
        "(test_gradients_of_long_rows_are_those_of_the_cpu and forward)",
        "(test_addresses_do_not_matter and forward and affine and float32)",
    )
)
INSTALL = 'HEADRACE_CUDA=ON pip install ".[cuda13,test]"   (".[cuda12,test]" for a driver of CUDA 12)'


# ---- commands with a limit -------------------------------------------------------------------------------------------


def run_command(command: Sequence[str], limit: float, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a command and all it starts for at most so many seconds; ``code`` is None where that ended it."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile(mode="w+", errors="replace") as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return {"code": 127, "seconds": 0.0, "output": str(error)}
        code: int | None = None
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        text = output.read()
    return {"code": code, "seconds": time.perf_counter() - begin, "output": text}


def tail(text: str, lines: int = 12) -> list[str]:
    """The last lines, of those that say something."""
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def ended(done: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """What the report keeps of a command: "done", "failed", or "late" where its time ran out."""
    status = {None: "late", 0: "done"}.get(done["code"], "failed")
    kept = {} if status == "done" else {"tail": tail(done["output"])}
    return {"status": status, "code": done["code"], "seconds": done["seconds"], **kept, **more}


def json_of(done: Mapping[str, Any]) -> dict[str, Any]:
    """The object on the last line of what a command printed."""
    try:
        return json.loads(tail(done["output"], 1)[0])
    except (IndexError, ValueError):
        return {}


def build_step(limit: float) -> dict[str, Any]:
    """Install this tree with its CUDA module."""
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "."]
    return ended(run_command(command, limit, {"HEADRACE_CUDA": "ON"}))


def card_step(device: str, limit: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the step ended, and `gpu_card.facts`."""
    done = run_command([sys.executable, "-m", "bench.gpu_card", "facts", device], limit)
    found = json_of(done) if done["code"] == 0 else {}
    if not found:
        said = ": ".join(["took too long" if done["code"] is None else "failed", *tail(done["output"], 1)])
        found = {"reason": f"asking for the card {said}"}
    return ended(done), found


def pytest_command(files: Sequence[str], *more: str) -> list[str]:
    """pytest on the GPU tests in these files."""
    return [sys.executable, "-m", "pytest", *files, "-m", "gpu", "-v", "--tb=short", "-p", "no:cacheprovider", *more]


def tests_step(device: str, threads: int, limit: float) -> dict[str, Any]:
    """The GPU tests and pytest's last line; in a dry run, where all are skipped, a part of them."""
    if importlib.util.find_spec("pytest") is None:
        return {"status": "absent", "reason": "pytest is not installed"}
    files = ["tests"] if device == "cuda" else ["tests/device/test_cuda_adam.py"]
    several = ["-n", str(min(8, threads))] if device == "cuda" and importlib.util.find_spec("xdist") else []
    done = run_command(pytest_command(files, *several), limit)
    return ended(done, summary=summary_line(done["output"]))


def summary_line(text: str) -> str:
    """pytest's last line with numbers; where it did not come to one, what it has said of single tests."""
    outcome = re.compile(r"\d+ (passed|failed|skipped|errors?|deselected)\b.* in ")
    lines = [line for line in text.splitlines() if outcome.search(line)]
    if lines:
        return lines[-1].strip("= ")
    words = re.findall(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b", text)
    return "so far " + ", ".join(f"{words.count(word)} {word.lower()}" for word in dict.fromkeys(words) or ["PASSED"])


def sanitizer_program() -> str | None:
    """compute-sanitizer on the PATH or where CUDA is."""
    folders = [f"{os.environ[name]}/bin" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    folders.append("/usr/local/cuda/bin")
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=os.pathsep.join(folders))


def sanitizer_step(tool: str, limit: float) -> dict[str, Any]:
    """One tool on a selection of the tests; `verdict` is its own last line."""
    program = sanitizer_program()
    if program is None:
        return {"status": "absent", "reason": "compute-sanitizer is neither on the PATH nor where CUDA is"}
    command = [program, "--tool", tool, "--error-exitcode", "9"]
    kernels = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("tests/device/test_cuda_*.py"))]
    done = run_command([*command, *pytest_command(kernels, "-k", SELECTION)], limit)
    verdicts = [line.strip("= ") for line in done["output"].splitlines() if "SUMMARY" in line and line.startswith("=")]
    return ended(done, verdict=verdicts[-1] if verdicts else None, summary=summary_line(done["output"]))


def floors_step(device: str, limit: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the step ended, and the card's rates; ``products_tf32`` is for information."""
    command = [sys.executable, "-m", "bench.gpu_card", "floors", device]
    full = {name: value for name, value in ON_DEVICE.items() if name == "NVIDIA_TF32_OVERRIDE"}
    done = run_command(command, limit, full)
    floors = json_of(done) if done["code"] == 0 else {}
    rounded = run_command(command, max(LEAST, limit - done["seconds"]), {"CUPY_TF32": "1"})
    floors["products_tf32"] = json_of(rounded).get("products") if rounded["code"] == 0 else None
    return ended(done), floors


# ---- workers ---------------------------------------------------------------------------------------------------------


class Crew:
    """The libraries' workers: started when first asked for, and anew after a failure, which may break a context."""

    def __init__(self, device: str, threads: int, peer_python: str) -> None:
        self.device, self.threads, self.peer_python = device, threads, peer_python
        self.workers: dict[str, Worker] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, int] = {}

    def present(self, libraries: Sequence[str], left: float) -> tuple[dict[str, Worker], dict[str, str]]:
        """Those of the libraries that can be asked, with their limits set, and why the others cannot."""
        found, missing = {}, {}
        for library in libraries:
            if self.failures.get(library, 0) >= MOST_FAILURES:
                missing[library] = f"given up after {MOST_FAILURES} failures"
            elif library in self.workers or self._start(library, min(LIMITS["hello"], left)):
                found[library] = self.workers[library]
                found[library].limit = min(REQUEST, left)
            else:
                missing[library] = self.facts[library]["reason"]
        return found, missing

    def _start(self, library: str, limit: float) -> bool:
        if not self.facts.get(library, {"present": True})["present"]:
            return False
        ours = library in OWN
        path = {name: os.environ[name] for name in ("PYTHONPATH",) if ours and name in os.environ}
        python = sys.executable if ours else self.peer_python
        worker = Worker(library, self.threads, python, path, self.device, limit)
        try:
            self.facts[library] = worker.ask("hello")
        except WorkerError as error:
            self.facts[library] = {"present": False, "reason": str(error)}
        if self.facts[library]["present"]:
            self.workers[library] = worker
        else:
            worker.close()
        return self.facts[library]["present"]

    def drop(self, library: str) -> None:
        """End a worker that failed."""
        self.failures[library] = self.failures.get(library, 0) + 1
        worker = self.workers.pop(library)
        worker.process.kill()
        worker.close()

    def close(self) -> None:
        """End all."""
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()


# ---- the command -----------------------------------------------------------------------------------------------------


class Run:
    """Results so far, and how much of the time is left."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.begin = options, time.perf_counter()
        self.device = "dry" if options.dry_run else "cuda"
        self.results: dict[str, Any] = {
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "dry": options.dry_run,
            "machine": machine_facts(options.threads),
            "card": {},
            "steps": {},
            "floors": {},
            "plan": {**vars(DRY_PLAN if options.dry_run else PLAN), "limits": LIMITS, "seconds": options.budget},
            "libraries": {},
            "rows": [],
            "not_run": [],
        }
        self.output: Path | None = options.output

    @property
    def left(self) -> float:
        """Seconds."""
        return self.options.budget - (time.perf_counter() - self.begin)

    def limit(self, step: str) -> float:
        """Seconds that a step may take."""
        return max(1.0, min(LIMITS[step], self.left))

    def note(self, name: str, step: dict[str, Any]) -> None:
        """Keep how a step ended, and say it."""
        self.results["steps"][name] = step
        print(step_line(name, step), *(f"    {line}" for line in step.get("tail", ())), sep="\n", file=sys.stderr)
        self.write()

    def write(self) -> None:
        """The report as it is now."""
        if self.output is not None:
            report.write(self.output, self.results, markdown(self.results))

    def go(self) -> int:
        """All steps; the exit status."""
        if self.options.build:
            self.note("build", self.build())
            self.begin = time.perf_counter()  # compiling is not part of the ten minutes
        step, card = card_step(self.device, self.limit("card"))
        self.results["card"] = card
        if "reason" in card:
            print(no_device(card, self.options), file=sys.stderr)
            return 1
        if self.output is None:
            self.output = stem(card["card"], self.results["date"])
        self.note("card", step)
        if "tests" in self.options.steps:
            self.note("tests", tests_step(self.device, self.options.threads, self.limit("tests")))
        for tool in TOOLS if "sanitizer" in self.options.steps else ():
            self.note(f"compute-sanitizer {tool}", sanitizer_step(tool, self.limit("sanitizer")))
        if "floors" in self.options.steps:
            step, self.results["floors"] = floors_step(self.device, self.limit("floors"))
            self.note("floors", step)
        if "workloads" in self.options.steps:
            self.workloads()
        print(markdown(self.results))
        print(f"{self.output}.md", file=sys.stderr)
        return 2 if any(step["status"] in ("failed", "late") for step in self.results["steps"].values()) else 0

    def build(self) -> dict[str, Any]:
        """The build, but in a dry run."""
        if self.options.dry_run:
            return {"status": "absent", "reason": "a dry run builds nothing"}
        return build_step(LIMITS["build"])

    def workloads(self) -> None:
        """All workloads, as far as the time goes."""
        begin, results, dry = time.perf_counter(), self.results, self.options.dry_run
        crew = Crew(self.device, self.options.threads, self.options.peer_python)
        try:
            for case in self.cases():
                if self.left < LEAST:
                    results["not_run"].append(case.workload.name)
                    continue
                try:
                    self.measure(case, crew, DRY_PLAN if dry else PLAN)
                except Exception as error:  # of whatever kind: the others are to be measured
                    traceback.print_exc()
                    self.note(case.workload.name, {"status": "failed", "reason": f"{type(error).__name__}: {error}"})
        finally:
            crew.close()
        fits = [tiny(fit) for fit in FITS] if dry else FITS
        step = fit_row(results["rows"], fits, results["floors"])
        if step is not None:
            results["rows"].append({**step, "failed": [], **({"met": None} if dry else {})})
        ours = [row for row in results["rows"] if {*OWN} & {*row["failed"]} or OURS not in row["cells"]]
        status = "failed" if ours else "late" if results["not_run"] else "done"
        self.note("workloads", {"status": status, "seconds": time.perf_counter() - begin})

    def cases(self) -> list[Case]:
        """What was chosen."""
        cases = [replace(case, workload=tiny(case.workload)) if self.options.dry_run else case for case in CASES]
        return [case for case in cases if re.search(self.options.workloads, case.workload.name)]

    def measure(self, case: Case, crew: Crew, plan: Plan) -> None:
        """One row."""
        chosen = [library for library in case.libraries if library in self.options.libraries]
        workers, missing = crew.present(chosen, self.left)
        result = measure(case.workload, workers, plan)
        for library in result["failed"]:
            crew.drop(library)
        result["missing"] |= missing
        row = {**row_of(case, result, self.results["floors"]), "failed": result["failed"]}
        if self.options.dry_run:
            row["met"] = None
        self.results["libraries"] = crew.facts
        self.results["rows"].append(row)
        cells = ", ".join(f"{library} {cell_text(cell)}" for library, cell in row["cells"].items())
        reasons = (f"  {library}: {reason}" for library, reason in failures(row))
        print(f"{row['name']}: {cells}", *reasons, sep="\n", file=sys.stderr)
        self.write()


def no_device(card: Mapping[str, Any], options: argparse.Namespace) -> str:
    """Why nothing is measured, and what would be."""
    chosen = ", ".join(options.steps)
    lines = [f"NO CUDA DEVICE TO MEASURE: {card['reason']}"]
    if "info" in card:
        lines.append(f"headrace {card['headrace']}, {card['installed']}; CUDA {card['info']}")
    lines += [
        f"Install it on a machine with a card:  {INSTALL}",
        "or let this command do it:            python -m bench.gpu --build",
        f"There it would run, in {options.budget / 60:.0f} minutes at most: {chosen}; and these workloads:",
        *(f"  {case.workload.name}" for case in CASES if re.search(options.workloads, case.workload.name)),
        "--dry-run tries the command itself on the CPU.",
    ]
    return "\n".join(lines)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    add = parser.add_argument
    add("--build", action="store_true", help="first: HEADRACE_CUDA=ON pip install --no-build-isolation .")
    add("--steps", default=",".join(STEPS), help="a choice (default: %(default)s)")
    add("--workloads", default="", metavar="REGEX", help="only workloads whose name matches")
    add("--libraries", default=",".join(LIBRARIES), help="a choice (default: %(default)s)")
    add("--peer-python", default=sys.executable, metavar="PATH", help="interpreter that has the other libraries")
    add("--threads", type=int, default=max(1, cores // 2), help="of each process on the host (default: half the cores)")
    add("--budget", type=float, default=BUDGET, help="seconds for everything but the build (default: %(default)g)")
    add("--output", type=Path, default=None, metavar="STEM", help="STEM.json, STEM.md (default: bench/results)")
    add("--dry-run", action="store_true", help="the same way on the CPU with tiny sizes")
    options = parser.parse_args(argv)
    for name, known in (("steps", STEPS), ("libraries", LIBRARIES)):
        chosen = [part for part in getattr(options, name).split(",") if part]
        if unknown := set(chosen) - set(known):
            parser.error(f"--{name}: expected some of {', '.join(known)}, got {', '.join(sorted(unknown))}")
        setattr(options, name, chosen)
    if options.dry_run and options.output is None:
        parser.error("--dry-run needs an --output: its numbers have no place among results")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    return Run(arguments(argv)).go()


if __name__ == "__main__":
    sys.exit(main())
