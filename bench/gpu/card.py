"""Properties and highest rates of a CUDA device, as one JSON object on the standard output.

The command is ``python -m bench.gpu.card facts|floors DEVICE``, where DEVICE is "cuda", or "dry" for the CPU in place
of a device. `bench.gpu` runs the program in another process, so that nothing stays on the device. With CUPY_TF32=1 in
the environment the products of ``floors`` are in TF32.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.peers.devices import Stopwatch, arrays, cupy_stopwatch, dry_stopwatch, torch_stopwatch

# The bytes of arrays to copy, and the size of square matrices: a device reaches its highest rate only in a large
# problem.
COPY_BYTES, MATRIX = 1 << 30, 8192
DRY_COPY_BYTES, DRY_MATRIX = 1 << 20, 64
REPEATS, WARM_UP = 20, 3

DISTRIBUTIONS = ("numpy", "cupy-cuda12x", "cupy-cuda13x", "torch", "zuko", "nflows", "normflows", "flowjax", "jax")
SMI = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit", "memory.total")


def facts(device: str) -> dict[str, Any]:
    """The facts about the device, the driver and installed packages; or ``reason``, why there is no device to compute
    on."""
    found = {"python": platform.python_version(), "versions": versions(), "smi": smi()}
    try:
        import headrace as hr
        from headrace import _core
    except ImportError as error:
        return {**found, "reason": f"headrace cannot be imported ({error})"}
    found |= {"headrace": hr.__version__, "info": hr.info()["cuda"], "installed": installed(Path(hr.__file__))}
    if device == "dry":
        return {**found, "card": "dry run on the CPU"}
    if reason := _core.cuda_unavailable():
        return {**found, "reason": reason}
    try:
        import cupy  # noqa: F401
    except ImportError as error:
        return {**found, "reason": f"CuPy cannot be imported ({error})"}
    return {**found, "card": _core.cuda.device_name(0)}


def versions() -> dict[str, str]:
    """Versions of the installed distributions."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def installed(file: Path) -> str:
    """The way in which headrace was installed."""
    try:
        origin = metadata.distribution("headrace").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return "not installed: found in a source tree"
    if "site-packages" not in file.parts and "dist-packages" not in file.parts:
        return "editable, or found in a source tree before the installed one"
    if origin is None:
        return "by name from a package index"
    url = json.loads(origin)["url"]
    return "from a wheel" if url.endswith(".whl") else "built by pip from a source tree"


def smi() -> dict[str, str]:
    """The output of nvidia-smi for the first device; empty without nvidia-smi."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    command = [program, f"--query-gpu={','.join(SMI)}", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = output.splitlines()
    return dict(zip(SMI, lines[0].split(", "), strict=False)) if lines else {}


def floors(device: str) -> dict[str, Any]:
    """The rates: ``copy`` in bytes a second, read and written, and ``products`` in operations a second."""
    found = {"tf32": os.environ.get("CUPY_TF32") == "1", "copy": copy_rate(device), **products_rate(device)}
    return {**found, "smi": smi()}  # nvidia-smi has the clocks after this work


def copy_rate(device: str) -> float:
    """The rate of a copy of one array on the device into another."""
    library = arrays(device)
    size = DRY_COPY_BYTES if device == "dry" else min(COPY_BYTES, library.cuda.runtime.memGetInfo()[0] // 4)
    source = library.ones(size // 4, "float32")
    target = library.empty_like(source)
    watch = dry_stopwatch() if device == "dry" else cupy_stopwatch()
    return 2 * source.nbytes / median(watch, lambda: library.copyto(target, source))


def products_rate(device: str) -> dict[str, Any]:
    """The rate of products of float32 matrices, by the first library that can compute them: CuPy needs cuBLAS, which
    PyTorch contains.
    """
    reasons = {}
    for name, rate in (("CuPy" if device == "cuda" else "NumPy", own_rate), ("PyTorch", torch_rate)):
        try:
            return {"products": rate(device), "products_by": name}
        except Exception as error:  # the library is missing or does not load
            reasons[name] = f"{type(error).__name__}: {error}"
    return {"products": None, "products_by": None, "products_missing": reasons}


def own_rate(device: str) -> float:
    """The rate of products by CuPy, or by NumPy in a dry run."""
    import numpy as np

    library, n = arrays(device), DRY_MATRIX if device == "dry" else MATRIX
    rng = np.random.default_rng(0)
    a, b = (library.asarray(rng.standard_normal((n, n), dtype=np.float32)) for _ in range(2))
    out = library.empty_like(a)
    watch = dry_stopwatch() if device == "dry" else cupy_stopwatch()
    return 2 * n**3 / median(watch, lambda: library.matmul(a, b, out=out))


def torch_rate(device: str) -> float:
    """The rate of products by PyTorch."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = os.environ.get("CUPY_TF32") == "1"
    a, b = (torch.randn(MATRIX, MATRIX, device=device) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * MATRIX**3 / median(torch_stopwatch(), lambda: torch.matmul(a, b, out=out))


def median(watch: Stopwatch, call: Callable[[], Any]) -> float:
    """The median seconds of a call, after some calls that do not count."""
    timed = watch.around(call)
    for _ in range(WARM_UP):
        timed()
    watch.seconds.clear()
    for _ in range(REPEATS):
        timed()
    return statistics.median(watch.seconds)


if __name__ == "__main__":
    print(json.dumps({"facts": facts, "floors": floors}[sys.argv[1]](sys.argv[2])))
