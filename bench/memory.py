"""Peak memory of training beyond its input: ``python -m bench.memory --help``.

Each call runs in another process, which makes the rows and the flow, reads the resident memory, and reads its peak
after the call: scratch memory of all threads, results and the state of an optimiser count, and the rows and the weights
that existed before do not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import report
from bench.peers.client import ROOT, machine_facts, usable_cores

FEATURES = 43
MEGABYTE = 1e6


@dataclass(frozen=True)
class Case:
    """A call on the rows, and the aim for its peak memory in MB."""

    model: str
    hidden: tuple[int, ...]
    transforms: int
    call: Callable[[Any, np.ndarray], float]  # a function of flow and rows that returns a loss, which must be finite
    limit: float | None
    of_input: float = 0.0  # a multiple of the rows' memory that the peak may have in addition to the limit


def _nll_and_grad(flow: Any, x: np.ndarray) -> float:
    loss, gradient = flow.nll_and_grad(x)
    assert np.isfinite(gradient).all()
    return loss


def _fit(flow: Any, x: np.ndarray) -> float:
    return flow.fit(x, epochs=1, progress=False).best_loss


def _fit_hard(flow: Any, x: np.ndarray) -> float:
    return flow.fit(x, epochs=1, effort="high", keep=True, progress=False).best_loss


CASES: dict[str, Case] = {
    "nll_and_grad": Case("maf 43 5x[512,512]", (512, 512), 5, _nll_and_grad, 100.0),
    "fit, 1 epoch": Case("maf 43 2x[32,32]", (32, 32), 2, _fit, None),
    "fit of high effort, 1 epoch": Case("maf 43 2x[32,32]", (32, 32), 2, _fit_hard, 200.0, 2.0),
}


def resident() -> tuple[int, int]:
    """The bytes of memory in use now, and their peak; where only the peak is known, both are the peak."""
    try:
        status = Path("/proc/self/status").read_text()
        now, most = (int(re.search(rf"^{name}:\s*(\d+) kB$", status, re.M).group(1)) for name in ("VmRSS", "VmHWM"))
        return 1024 * now, 1024 * most
    except (OSError, AttributeError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return most, most


def forget_peak() -> None:
    """Reset the peak to the present use, where the system can."""
    with contextlib.suppress(OSError):  # otherwise the earlier peak counts, and the result may be too high
        Path("/proc/self/clear_refs").write_text("5")


def measure(case: Case, rows: int, threads: int) -> dict:
    """Run one case in this process."""
    import headrace as hr

    hr.set_num_threads(threads)
    rng = np.random.default_rng(0)
    x = np.empty((rows, FEATURES), np.float32)
    rng.standard_normal(out=x, dtype=np.float32)
    flow = hr.MAF(FEATURES, transforms=case.transforms, hidden=case.hidden)
    flow.parameters = np.float32(0.02) * rng.standard_normal(flow.parameters.size, dtype=np.float32)
    forget_peak()
    before = resident()[0]
    start = time.perf_counter()
    loss = case.call(flow, x)
    seconds = time.perf_counter() - start
    beyond = resident()[1] - before
    if not np.isfinite(loss):
        raise AssertionError(f"the loss is {loss}")
    weights = flow.parameters.nbytes
    return {"input": x.nbytes, "weights": weights, "beyond": beyond, "seconds": seconds, "isa": hr.info()["isa"]}


def run(name: str, rows: int, threads: int) -> dict:
    """Run one case in a new process."""
    command = [sys.executable, "-m", "bench.memory", "--case", name, "--rows", str(rows), "--threads", str(threads)]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout.splitlines()[-1])


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help=f"rows of {FEATURES} numbers (default: a million)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="threads (default: all cores)")
    parser.add_argument("--case", choices=CASES, help="run one case in this process and print it as JSON")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run all cases and print a table, or one case."""
    options = arguments(argv)
    if options.case is not None:
        print(json.dumps(measure(CASES[options.case], options.rows, options.threads)))
        return
    table = []
    for name, case in CASES.items():
        result = run(name, options.rows, options.threads)
        sizes = [f"{result[key] / MEGABYTE:.1f} MB" for key in ("input", "weights", "beyond")]
        most = None if case.limit is None else case.limit + case.of_input * result["input"] / MEGABYTE
        limit = "-" if most is None else f"≤ {most:.0f} MB"
        met = None if most is None else result["beyond"] <= most * MEGABYTE
        table.append([name, case.model, *sizes, report.duration(result["seconds"]), limit, report.met(met)])
    machine = machine_facts(options.threads)
    print(f"{machine['cpu']}, {options.threads} threads, {options.rows} rows of {FEATURES} numbers (float32)\n")
    columns = ["call", "model", "input", "weights", "peak beyond", "time", "aim", "met"]
    print("\n".join(report.table(columns, table)))


if __name__ == "__main__":
    main()
