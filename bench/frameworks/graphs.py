"""Graphs of ONNX in onnxruntime beside the module: the number of nodes, and processor time of a call, in one thread.

    python -m bench.frameworks.graphs

Blocks of calls of graph and module alternate; times are medians over the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import headrace as hr

FLOWS: dict[str, Callable[[], hr.Flow]] = {
    "maf": lambda: hr.MAF(5, transforms=5),
    "nsf": lambda: hr.NSF(5, transforms=5),
}


def session(content: bytes) -> Any:
    """A session of onnxruntime with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def block(call: Callable[[], Any], seconds: float) -> float:
    """The processor microseconds of a call."""
    count, start = 0, time.process_time()
    while (spent := time.process_time() - start) < seconds:
        call()
        count += 1
    return 1e6 * spent / count


def main(rows: tuple[int, ...] = (1, 2000), rounds: int = 9, seconds: float = 0.1) -> None:
    """Print a table of nodes and times."""
    from headrace.onnx import graph_of

    hr.set_num_threads(1)
    print("| flow | nodes | rows | onnxruntime, µs | headrace, µs | ratio |\n| --- | --- | --- | --- | --- | --- |")
    for name, make in FLOWS.items():
        flow, rng = make(), np.random.default_rng(0)
        flow.parameters = flow.parameters + 0.02 * rng.standard_normal(flow.parameters.size).astype(np.float32)
        model = graph_of(flow, "log_prob")
        runs = session(model.SerializeToString())
        for n in rows:
            x = rng.standard_normal((n, flow.features)).astype(np.float32)
            np.testing.assert_allclose(runs.run(None, {"x": x})[0], flow.log_prob(x), rtol=1e-4, atol=1e-4)
            calls = partial(runs.run, None, {"x": x}), partial(flow.log_prob, x)
            times = [[block(call, seconds) for call in calls] for _ in range(rounds)]
            theirs, ours = (statistics.median(column) for column in zip(*times, strict=True))
            cells = (name, len(model.graph.node), n, f"{theirs:.1f}", f"{ours:.2f}", f"{theirs / ours:.1f}")
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
