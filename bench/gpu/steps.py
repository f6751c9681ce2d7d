"""The steps of `bench.gpu` except the workloads: each step is a separate command that ends within its limit."""

from __future__ import annotations

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
from collections.abc import Mapping, Sequence
from typing import Any

from bench.peers.client import ON_DEVICE, ROOT

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
LIMITS = {"build": 420.0, "card": 60.0, "floors": 60.0, "tests": 150.0, "sanitizer": 200.0}
"""The seconds after which a step is ended."""
LEAST = {"build": 60.0, "floors": 20.0, "tests": 90.0, "sanitizer": 120.0}
"""The seconds that must be left for a step to begin."""

# The tests under compute-sanitizer: every family of kernels and its gradients, fewer than ninety small tests.
SELECTION = " or ".join(
    (
        "(float32 and (test_chains or test_every_size_of_batch or test_samples_are_the_cpus))",
        "(float32 and (test_steps_follow_each_other or test_the_same_bits_in_any_order_of_threads))",
        "(float32 and test_the_value_may_replace_the_input and (affine-forward or (radial and True)))",
        "(float32 and test_an_ascent_is_that_of_the_cpu)",
        "(tensor_cores and (test_every_size_of_batch or (test_flows_are and MAF) or test_lines_in_global_memory))",
        "(cuda_sequences and (test_the_order_of_threads_does_not_matter or test_parts_of_a_long_row))",
        "(cuda_sequences and (test_prediction_of_many_columns or test_sums_over_steps))",
        "test_gradients_of_couplings",
        "test_chosen_rows",
        "test_shared_parameters_are_summed_in_float64",
        "(test_gradients_of_long_rows_are_those_of_the_cpu and forward)",
        "(test_addresses_do_not_matter and forward and affine and float32)",
    )
)


# ---- commands with a limit -------------------------------------------------------------------------------------------


def run_command(command: Sequence[str], limit: float, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a command and all that it starts for at most `limit` seconds; ``code`` is None where the limit ended it."""
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
    """The last non-empty lines of a text."""
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def ended(done: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The outcome of a command in the report: "done", "failed", or "late" where its time ran out."""
    status = {None: "late", 0: "done"}.get(done["code"], "failed")
    kept = {} if status == "done" else {"tail": tail(done["output"])}
    return {"status": status, "code": done["code"], "seconds": done["seconds"], **kept, **more}


def json_of(done: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object on the last line of a command's output."""
    try:
        return json.loads(tail(done["output"], 1)[0])
    except (IndexError, ValueError):
        return {}


def build_step(limit: float, architectures: str | None) -> dict[str, Any]:
    """Install this source tree with its CUDA module, for the present card or for CUDAARCHS, with all cores."""
    env = {"HEADRACE_CUDA": "ON", "CUDAFLAGS": f"{os.environ.get('CUDAFLAGS', '')} --threads 0 --split-compile 0"}
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "."]
    return ended(run_command(command, limit, {**env, **({"CUDAARCHS": architectures} if architectures else {})}))


def card_step(device: str, limit: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The outcome of the step, and the result of `card.facts`."""
    done = run_command([sys.executable, "-m", "bench.gpu.card", "facts", device], limit)
    found = json_of(done) if done["code"] == 0 else {}
    if not found:
        reason = ": ".join(["took too long" if done["code"] is None else "failed", *tail(done["output"], 1)])
        found = {"reason": f"asking for the card {reason}"}
    return ended(done), found


def pytest_command(files: Sequence[str], *more: str) -> list[str]:
    """The command that runs the GPU tests in these files by pytest."""
    return [sys.executable, "-m", "pytest", *files, "-m", "gpu", "-v", "--tb=short", "-p", "no:cacheprovider", *more]


def tests_step(device: str, threads: int, limit: float) -> dict[str, Any]:
    """Run the GPU tests, or in a dry run a part of them, which are all skipped; return the outcome and pytest's last
    line."""
    if importlib.util.find_spec("pytest") is None:
        return {"status": "absent", "reason": "pytest is not installed"}
    files = ["tests"] if device == "cuda" else ["tests/device/test_cuda_adam.py"]
    several = ["-n", str(min(8, threads))] if device == "cuda" and importlib.util.find_spec("xdist") else []
    done = run_command(pytest_command(files, *several), limit)
    return ended(done, summary=summary_line(done["output"]))


def summary_line(text: str) -> str:
    """The last line of pytest with its counts, or a count of the outcomes of single tests if pytest did not end."""
    outcome = re.compile(r"\d+ (passed|failed|skipped|errors?|deselected)\b.* in ")
    lines = [line for line in text.splitlines() if outcome.search(line)]
    if lines:
        return lines[-1].strip("= ")
    words = re.findall(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b", text)
    return "so far " + ", ".join(f"{words.count(word)} {word.lower()}" for word in dict.fromkeys(words) or ["PASSED"])


def program_of_cuda(name: str) -> str | None:
    """The path of a program, from PATH or from CUDA's folders."""
    folders = [f"{os.environ[folder]}/bin" for folder in ("CUDA_HOME", "CUDA_PATH") if folder in os.environ]
    folders.append("/usr/local/cuda/bin")
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))


def sanitizer_step(tool: str, limit: float) -> dict[str, Any]:
    """Run one tool of compute-sanitizer on a selection of the tests; `verdict` is the tool's last line."""
    program = program_of_cuda("compute-sanitizer")
    if program is None:
        return {"status": "absent", "reason": "compute-sanitizer is neither on the PATH nor where CUDA is"}
    command = [program, "--tool", tool, "--error-exitcode", "9"]
    kernels = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("tests/device/test_cuda_*.py"))]
    done = run_command([*command, *pytest_command(kernels, "-k", SELECTION)], limit)
    verdicts = [line.strip("= ") for line in done["output"].splitlines() if "SUMMARY" in line and line.startswith("=")]
    return ended(done, verdict=verdicts[-1] if verdicts else None, summary=summary_line(done["output"]))


def floors_step(device: str, limit: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The outcome of the step, and the card's rates; ``products_tf32`` is for information."""
    command = [sys.executable, "-m", "bench.gpu.card", "floors", device]
    full = {name: value for name, value in ON_DEVICE.items() if name == "NVIDIA_TF32_OVERRIDE"}
    done = run_command(command, limit, full)
    floors = json_of(done) if done["code"] == 0 else {}
    rounded = run_command(command, max(5.0, limit - done["seconds"]), {"CUPY_TF32": "1"})
    floors["products_tf32"] = json_of(rounded).get("products") if rounded["code"] == 0 else None
    return ended(done), floors
