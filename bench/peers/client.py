"""Worker processes as seen from the runner: their environment, their requests, and whether a block was disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# Freed blocks above the first threshold are unmapped, so that every temporary costs page faults; raising all three
# thresholds makes eager libraries up to three times as fast on large batches. 32 MiB is the most that every glibc
# accepts.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONPATH", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
SETTLE = 0.05  # seconds for the threads of the previous worker to stop spinning
COARSE = 0.1  # seconds; shorter blocks cannot be judged, because the kernel counts busy time in ticks
ALLOWED = 0.1  # cores that other processes may use, beyond the cores that no thread of the worker needs
LONG = 3.0  # seconds; longer blocks are not repeated


class WorkerError(RuntimeError):
    """A worker died or reported a failure."""


# On a device, no library's products are in TF32, and memory is taken as it is needed, because several workers share it.
ON_DEVICE = {"JAX_PLATFORMS": "cuda", "NVIDIA_TF32_OVERRIDE": "0", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def environment(threads: int, extra: Mapping[str, str] | None = None, device: str = "cpu") -> dict[str, str]:
    """The environment of every worker: equal threads, raised malloc thresholds, no other tuning."""
    env = {key: value for key, value in os.environ.items() if key not in UNSET}
    count = str(threads)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HEADRACE_NUM_THREADS", "NPROC"):
        env[name] = count  # NPROC sizes the thread pool of XLA
    eigen = "true" if threads > 1 else "false"
    env["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={count}"
    if device == "cuda":
        env.update(ON_DEVICE)
    else:
        env["JAX_PLATFORMS"] = "cpu"
        env["CUDA_VISIBLE_DEVICES"] = ""
    # On the host, no pool of compiler processes runs during measurements; on a device, the first call would take
    # minutes without a pool.
    env["TORCHINDUCTOR_COMPILE_THREADS"] = count if device == "cuda" else "1"
    return {**env, **MALLOC, **(extra or {})}


class Worker:
    """A process of one library, on the first `threads` of the allowed cores.

    `limit`: seconds after which a request without a reply ends the process; None for no limit.
    """

    def __init__(
        self,
        library: str,
        threads: int,
        python: str = sys.executable,
        extra: Mapping[str, str] | None = None,
        device: str = "cpu",
        limit: float | None = None,
    ) -> None:
        self.library = library
        self.threads = threads
        self.limit = limit
        self.log = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 (closed by `close`)
        self.process = subprocess.Popen(
            [python, "-m", "bench.peers.worker", library, str(threads), device],
            cwd=ROOT,
            env=environment(threads, extra, device),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            bufsize=1,
        )
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))[:threads]
            os.sched_setaffinity(self.process.pid, cores)

    def ask(self, do: str, **fields: Any) -> dict:
        """Send one request and wait for its reply; only one worker at a time has a request."""
        late = threading.Event()
        timer = threading.Timer(self.limit or 0.0, lambda: (late.set(), self.process.kill()))
        if self.limit is not None:
            timer.start()
        try:
            self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if late.is_set():
            raise WorkerError(f"{self.library}: no reply to {do!r} within {self.limit:.0f} s")
        if not line.endswith("\n"):
            raise WorkerError(f"{self.library}: the worker ended\n{self.tail()}")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(f"{self.library}: {reply['error']}")
        return reply

    def timed(self, verb: str, seconds: float, calls: int | None = None, retries: int = 2) -> dict:
        """One timed block, or the least disturbed of a few blocks if other processes were busy during the blocks."""
        spare = (os.cpu_count() or 1) - self.threads
        best = None
        for _ in range(1 + retries):
            time.sleep(SETTLE)
            reply = self.ask("time", verb=verb, seconds=seconds, calls=calls)
            wall = reply["calls"] * reply["median"]
            reply["disturbed"] = wall > COARSE and (reply["others"] or 0.0) > spare + ALLOWED
            if best is None or (reply["others"] or 0.0) < best["others"]:
                best = reply
            if not reply["disturbed"] or wall > LONG:
                break
        return best

    def tail(self, lines: int = 15) -> str:
        """The end of the worker's standard error."""
        self.log.seek(0)
        return "".join(self.log.readlines()[-lines:])

    def close(self) -> None:
        """End the worker."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


def cpu_model() -> str:
    """The processor's name."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match.group(1) if match else platform.processor() or platform.machine()


def alternating(items: Iterable, turn: int) -> list:
    """The items in order, or in reverse order in every second turn."""
    return list(items)[:: 1 if turn % 2 == 0 else -1]


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_facts(threads: int) -> dict:
    """Facts about the machine and the settings, for readers of the report."""
    try:
        flags = re.search(r"^flags\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE).group(1).split()
    except (OSError, AttributeError):
        flags = []
    known = ("sse4_2", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_bf16", "amx_tile")
    settings = environment(threads)
    names = [*MALLOC, "OMP_NUM_THREADS", "XLA_FLAGS", "NPROC"]
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "threads": threads,
        "instruction_sets": [flag for flag in known if flag in flags],
        "system": platform.platform(),
        "settings": {name: settings[name] for name in names},
        "unset": list(UNSET),
    }
