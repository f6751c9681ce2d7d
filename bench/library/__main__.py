"""The C library and ``headrace.hpp`` beside the module: ``python -m bench.library``; ``--quick`` only tries the
program.

Blocks of calls of the library, the header and the module are timed in turn, by the processor time of one thread; ratios
are medians over the rounds. A second table has steps of one stream of network A of `bench.sequences`; ``--streams``
prints this table alone. The program needs a C++ compiler and a build with libheadrace.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import headrace as hr
from bench.library import streams
from bench.library.calls import Timed, medians

FOLDER = Path(__file__).parent
ROWS = (1, 10_000)


def models() -> dict[str, hr.Flow]:
    """Flows with weights that are not near the identity."""
    flows = {
        "maf": hr.MAF(21, transforms=5, hidden=(128, 128)),
        "nsf": hr.NSF(6, transforms=3, hidden=(64, 64)),
        "realnvp": hr.RealNVP(6, transforms=6, hidden=(64, 64)),
    }
    for flow in flows.values():
        flow.parameters = flow.parameters + 0.02 * np.random.default_rng(0).standard_normal(
            flow.parameters.size
        ).astype(np.float32)
    return flows


class Module:
    """The timed calls, made from Python."""

    def __init__(self, flow: hr.Flow) -> None:
        self._flow = flow

    def __call__(self, verb: str, x: np.ndarray, out: np.ndarray, count: int) -> float:
        flow, rows = self._flow, len(x)
        start = time.thread_time()
        for _ in range(count):
            result = flow.log_prob(x) if verb == "log_prob" else flow.sample(rows, seed=1)
        seconds = (time.thread_time() - start) / count
        out[...] = result.reshape(out.shape)
        return seconds


def compiled(folder: Path, source: str = "calls.cpp") -> ctypes.CDLL:
    """Compile the loop of calls with the flags that ``headrace.config`` prints."""
    flags = subprocess.check_output([sys.executable, "-m", "headrace.config", "--cflags", "--libs"], text=True).split()
    output = folder / "calls.so"
    command = ["c++", "-std=c++17", "-O2", "-shared", "-fPIC", str(FOLDER / source), *flags, "-o", str(output)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(output))


def compare(sides: dict[str, Any], verb: str, features: int, rows: int, rounds: int, block: float) -> dict[str, float]:
    """The median seconds a call of each side, from interleaved blocks; the first two sides must give the same bits."""
    x = np.random.default_rng(1).standard_normal((rows, features)).astype(np.float32)
    outs = {side: np.zeros((rows, features if verb == "sample" else 1), np.float32) for side in sides}
    found = medians(sides, verb, x, outs, rounds, block)
    assert (outs["library"] == outs["module"]).all(), f"{verb}: other bits"
    np.testing.assert_allclose(outs["header"], outs["module"], rtol=1e-3, atol=1e-3)
    return found


def main(argv: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, whose times mean nothing")
    parser.add_argument("--streams", action="store_true", help="only the table of one stream")
    arguments = parser.parse_args(argv)
    quick = arguments.quick
    rounds, block = (2, 0.001) if quick else (9, 0.2)
    hr.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(Path(folder))
        if arguments.streams:
            streams.print_table(library, Path(folder), rounds, block)
            return 0
        print("| model | verb | rows | module us | library us | library / module | header us |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
        for name, flow in models().items():
            path = Path(folder) / f"{name}.safetensors"
            flow.save(path)
            sides: dict[str, Any] = {"module": Module(flow), "library": Timed(library, "library", path)}
            sides["header"] = Timed(library, "header", path)
            for verb in ("log_prob", "sample"):
                for rows in (1, 100) if quick else ROWS:
                    found = compare(sides, verb, flow.features, rows, rounds, block)
                    ratio = found["library"] / found["module"]
                    us = {side: f"{1e6 * seconds:.3g}" for side, seconds in found.items()}
                    cells = (name, verb, rows, us["module"], us["library"], f"{ratio:.2f}", us["header"])
                    print(f"| {' | '.join(map(str, cells))} |")
        print()
        streams.print_table(library, Path(folder), rounds, block)
    return 0


if __name__ == "__main__":
    sys.exit(main())
