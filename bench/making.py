"""The time to make, load and first use a flow, and the memory that it keeps: ``python -m bench.making``.

Each case runs in another process and prints seconds of processor time, programs compiled since the previous line, and
resident memory in addition to that before the first line. Free memory is returned to the system before memory is read.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from bench.memory import MEGABYTE, resident
from bench.peers.client import ROOT

FEATURES, HIDDEN = 64, (4096, 4096)
STEPS = 600


class Counted:
    """A counter of programs that are compiled on the CPU."""

    def __init__(self) -> None:
        """Start to count."""
        from headrace._core import cpu

        self.count = 0
        for name in ("ProgramF32", "ProgramF64"):
            setattr(cpu, name, self._counting(getattr(cpu, name)))

    def _counting(self, kind: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            return kind(*arguments, **named)

        return made


def memory() -> int:
    """The bytes of memory in use."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return resident()[0]


@contextmanager
def line(what: str, programs: Counted, before: int) -> Iterator[None]:
    """Print the time and memory of the block."""
    count, start = programs.count, time.process_time()
    yield
    seconds = time.process_time() - start
    held = (memory() - before) / MEGABYTE
    print(f"{what:28} {seconds:9.3f} s {programs.count - count:6} programs {held:9.1f} MB", flush=True)


def large(folder: Path, is_loaded: bool) -> None:
    """Make or load a flow of five large networks, and use it."""
    import headrace as hr

    hr.set_num_threads(1)
    x = np.zeros((8, FEATURES), np.float32)
    hr.MAF(FEATURES, hidden=(8,)).log_prob(x)
    programs, before = Counted(), memory()
    if is_loaded:
        with line("load", programs, before):
            flow = hr.load(folder / "large.safetensors")
    else:
        with line("make", programs, before):
            flow = hr.MAF(FEATURES, transforms=5, hidden=HIDDEN)
    with line("first log_prob", programs, before):
        flow.log_prob(x)
    with line("second log_prob", programs, before):
        flow.log_prob(x)
    print(f"weights: {flow.parameters.nbytes / MEGABYTE:.1f} MB")
    if not is_loaded:
        with line("transforms", programs, before):
            kept = flow.transforms
        assert len(kept) == len(flow)
        del kept
        flow.save(folder / "large.safetensors")


def ascent(folder: Path) -> None:
    """Use an ascent of many steps."""
    import headrace as hr

    hr.set_num_threads(1)
    x = np.expm1(0.5 * np.random.default_rng(0).standard_normal((2000, 4), dtype=np.float32))
    hr.MAF(4, hidden=(8,)).log_prob(x)
    programs, before = Counted(), memory()
    model = hr.DualAscentFlow.notes(steps=STEPS, patience=None)
    with line(f"fit of {STEPS} steps", programs, before):
        flow = model.fit(x, validation=None, progress=False)
    assert len(flow) == STEPS
    with line("first log_prob", programs, before):
        flow.log_prob(x)
    with line("flow[:300]", programs, before):
        half = flow[:300]
    with line("its first log_prob", programs, before):
        half.log_prob(x)
    with line("transforms", programs, before):
        kept = flow.transforms
    del kept, half
    flow.save(folder / "ascent.safetensors")
    with line("load", programs, before):
        flow = hr.load(folder / "ascent.safetensors")
    with line("its first log_prob", programs, before):
        flow.log_prob(x)


CASES: dict[str, Callable[[Path], None]] = {
    "made": lambda folder: large(folder, False),
    "loaded": lambda folder: large(folder, True),
    "ascent": ascent,
}


def main() -> None:
    """Run all cases, each in another process, or one case in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs=2, metavar=("NAME", "FOLDER"), help="one case in this process")
    options = parser.parse_args()
    if options.case is not None:
        CASES[options.case[0]](Path(options.case[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            print(f"{name}:", flush=True)
            subprocess.run([sys.executable, "-m", "bench.making", "--case", name, folder], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
