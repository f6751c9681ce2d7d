"""The size of headrace.hpp as WebAssembly, and its rows per second of processor time beside the compiled core's.

HEADRACE_EMXX=em++ PYTHONPATH=tests/support python tests/support/web_speed.py
"""

import gzip
import tempfile
import time
from pathlib import Path

import numpy as np

import headrace as hr
import runtime_library
import web_runtime

ROWS, FEATURES, REPEATS = 2000, 6, 5
MOST_BYTES = 1_000_000


def rows_a_second(call, seconds):
    """The number of rows a second in the fastest of some calls; `seconds` returns a call's processor time
    in seconds."""
    return ROWS / min(seconds(call) for _ in range(REPEATS))


def seconds_here(call):
    start = time.process_time()
    call()
    return time.process_time() - start


def compare(make, dtype, functions):
    """A line for a flow: densities and samples, in Node and by the core with one thread."""
    flow = make(FEATURES, transforms=5, hidden=(64, 64), seed=1, dtype=dtype)
    x = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype(dtype)
    loaded = runtime_library.Library(functions).load(hr.to_bytes(flow), dtype)

    def seconds_there(call):
        call()
        return functions.seconds

    pairs = {
        "density": (lambda: loaded.log_prob(x), lambda: flow.log_prob(x)),
        "sample": (
            lambda: loaded.sample(ROWS, FEATURES, 1, dtype=dtype),
            lambda: flow.sample_and_log_prob(ROWS, seed=1),
        ),
    }
    rates = [
        f"{what} {rows_a_second(web, seconds_there):,.0f} (core: {rows_a_second(core, seconds_here):,.0f})"
        for what, (web, core) in pairs.items()
    ]
    return f"*** {make.__name__} 5 x (64, 64), {FEATURES} features, {dtype}, rows a second: {', '.join(rates)}"


def main():
    with tempfile.TemporaryDirectory() as folder, hr.threads(1):
        script = web_runtime.compiled(Path(folder), runtime_library.SOURCE)
        code = script.with_suffix(".wasm").read_bytes()
        print(f"*** WebAssembly of headrace.hpp: {len(code)} bytes, {len(gzip.compress(code, 9))} by gzip")
        functions = web_runtime.Functions(script)
        for make in (hr.MAF, hr.NSF, hr.RealNVP):
            for dtype in ("float32", "float64"):
                print(compare(make, dtype, functions), flush=True)
        assert len(code) < MOST_BYTES, f"expected less than {MOST_BYTES} bytes, got {len(code)}"


if __name__ == "__main__":
    main()
