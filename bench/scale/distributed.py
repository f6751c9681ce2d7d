"""The cost and the gain of a group.

    python -m bench.scale.distributed [overhead ranks ascent bytes parts]

Without arguments all parts run. Ranks are processes of gloo on this machine (PyTorch), one thread each. Times are
medians over steps, of runs that take turns; run the program on a quiet machine with as many cores as ranks and threads.

- overhead: MAF 43, 512 rows a step: ``fit(x)`` beside ``fit(x, group=local())``, also with 1024 rows a step.
- ranks: MAF 43 of 5 x [512, 512], 1024 rows a step: one process of two threads beside two ranks of one thread.
- ascent: `DualAscentFlow.notes` on 10,000,000 x 10 rows: one process of two threads, two ranks of one thread, and a
  plain fit of two threads.
- bytes: the bytes of integers that a rank passes to ``sum`` in a step, beside 8 bytes a weight and 576 more.
- parts: the milliseconds of the parts of a step and of a start, as JSON for ``bench/scale/model.py --measured``. Each
  time is the shortest of some calls, with all of headrace's threads (``HEADRACE_NUM_THREADS``). With one thread the
  times are processor times, which other programs lengthen least.
- dask, with ``--dask`` alone: two workers of a `LocalCluster`, one thread each, that sum by gloo and by Dask's own
  connections: a sum as large as that of a step, and a step of MAF 43 beside a step of one worker.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import headrace as hr
from bench.peers.client import ROOT
from headrace._arrays.caller import Caller
from headrace._fit import given_rows as _rows
from headrace.distributed.exact import DIGITS, FixedSum
from headrace.distributed.run import CHUNK_ROWS
from headrace.distributed.shards import ROWS as SHARD_ROWS
from headrace.distributed.shards import opened

FEATURES, ROWS = 43, 1 << 17
DASK_ROWS = 1 << 15
ASCENT_ROWS, ASCENT_FEATURES, STEPS = 10_000_000, 10, 30


class Counted:
    """A group that counts the bytes of the sums of another group."""

    def __init__(self, group: Any) -> None:
        self.group, self.rank, self.size, self.sent = group, group.rank, group.size, []

    def sum(self, part: Any) -> Any:
        self.sent.append(part.nbytes)
        return self.group.sum(part)

    def maximum(self, part: Any) -> Any:
        return self.group.maximum(part)

    def broadcast(self, part: Any, root: int = 0) -> Any:
        return self.group.broadcast(part, root)


def table(rows: int, features: int) -> Any:
    return np.random.default_rng(0).standard_normal((rows, features), dtype=np.float32)


def step_ms(hidden: tuple[int, ...], batch: int, group: Any, epochs: int = 3) -> float:
    """The milliseconds of a step: the median over epochs, without the first epoch, which also warms up."""
    flow = hr.MAF(FEATURES, transforms=5, hidden=hidden)
    x: Any = table(ROWS, FEATURES)
    if group is not None:
        x = hr.distributed.shards(x, group, rows=ROWS // 8)
    history = flow.fit(
        x, group=group, epochs=epochs + 1, batch_size=batch, validation=None, average=None, progress=False
    )
    return 1e3 * statistics.median(np.diff(history.seconds)) / (ROWS / batch)


def ascent_ms(group: Any) -> float:
    """The milliseconds of a step of an ascent by kinks."""
    x: Any = table(ASCENT_ROWS, ASCENT_FEATURES)
    if group is not None:
        x = hr.distributed.shards(x, group)
    model = hr.DualAscentFlow.notes(steps=STEPS, patience=None)
    model.fit(x, group=group, validation=None, progress=False)
    return 1e3 * statistics.median(np.diff(model.history.seconds)[2:])


WORK = {
    "ranks": lambda group: step_ms((512, 512), 1024, group),
    "ascent": ascent_ms,
}


def worker(kind: str, rank: int, size: int, threads: int, directory: str) -> None:
    """Run one rank, which prints its measurements."""
    hr.set_num_threads(threads)
    group: Any = None
    if size:
        import torch.distributed as distributed

        distributed.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=size)
        group = hr.distributed.from_torch()
    print(WORK[kind](group), flush=True)


def measured(kind: str, size: int, threads: int) -> float:
    """The seconds of a step of the slowest of this number of ranks; 0 ranks mean no group."""
    with tempfile.TemporaryDirectory() as directory:
        command = [
            sys.executable,
            "-m",
            "bench.scale.distributed",
            "--worker",
            kind,
            str(size),
            str(threads),
            directory,
        ]
        started = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
            for rank in range(max(size, 1))
        ]
        found = [process.communicate()[0] for process in started]
    return max(float(text.split()[-1]) for text in found)


def overhead(repeats: int) -> None:
    for hidden in ((128, 128), (512, 512)):
        for batch in (512, 1024):
            plain, shared = [], []
            for _ in range(repeats):
                plain.append(step_ms(hidden, batch, None))
                shared.append(step_ms(hidden, batch, hr.distributed.local()))
            times = [statistics.median(found) for found in (plain, shared)]
            print(
                f"MAF {FEATURES} 5 x {list(hidden)}, {batch} rows a step, {hr.get_num_threads()} threads: plain "
                f"{times[0]:.2f} ms, group=local() {times[1]:.2f} ms, {times[1] / times[0]:.3f} of it",
                flush=True,
            )


def ranks(kind: str, repeats: int) -> None:
    found: dict[str, list[float]] = {"no group, 2 threads": [], "1 rank, 2 threads": [], "2 ranks, 1 thread": []}
    for _ in range(repeats):
        for name, (size, threads) in zip(found, ((0, 2), (1, 2), (2, 1)), strict=True):
            found[name].append(measured(kind, size, threads))
    listed = "; ".join(f"{name} {statistics.median(times):.2f} ms" for name, times in found.items())
    one, two = (statistics.median(found[name]) for name in list(found)[1:])
    print(f"{kind}: {listed}; two ranks have {one / two:.3f} of the speed of two threads", flush=True)


def bytes_a_step() -> None:
    group = Counted(hr.distributed.local())
    flow = hr.MAF(FEATURES, transforms=5, hidden=(512, 512))
    flow.fit(table(4096, FEATURES), group=group, epochs=1, batch_size=1024, validation=None, progress=False)
    want = 8 * (flow._interior.program.n_weights + DIGITS + 1)
    print(f"bytes a step: {max(group.sent)}, by the formula {want}", flush=True)


def shortest_ms(call: Callable[[], Any], repeats: int) -> float:
    """The milliseconds of the fastest of some calls, after a call that is not counted."""
    call()
    now, found = time.process_time if hr.get_num_threads() == 1 else time.perf_counter, []
    for _ in range(repeats):
        begin = now()
        call()
        found.append(now() - begin)
    return round(1e3 * min(found), 4)


def parts_of_steps(hidden: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """The milliseconds for a chunk of rows: the gradient, adding it to a sum, reading the sum, Adam, densities."""
    flow, x = hr.MAF(FEATURES, transforms=5, hidden=hidden), table(CHUNK_ROWS, FEATURES)
    program, adam = flow._interior.program, hr.Adam(flow, average=0.999, clip=5.0)
    gradient, log_prob = np.empty(program.n_weights, np.float32), np.empty(CHUNK_ROWS, np.float32)

    def of_chunk() -> None:
        program.gradient(
            inverse=True,
            of_log_prob=True,
            input=x,
            index=np.arange(CHUNK_ROWS),
            row_scale=-1.0 / CHUNK_ROWS,
            log_prob=log_prob,
            grad_weights=gradient,
        )

    of_chunk()
    of, exponent = FixedSum(program.n_weights), FixedSum.exponent_for(float(np.abs(gradient).max()))

    def read() -> None:
        of.read(gradient, exponent)
        of.exponent_after(gradient, exponent)

    of.add(gradient, exponent)
    return {
        "weights": program.n_weights,
        "gradient": shortest_ms(of_chunk, repeats),
        "add": shortest_ms(lambda: of.add(gradient, exponent), repeats),
        "read": shortest_ms(read, repeats),
        "adam": shortest_ms(lambda: adam.step(gradient), repeats),
        "log_prob": shortest_ms(lambda: flow.log_prob(x), repeats),
    }


def parts(repeats: int) -> None:
    group, x = hr.distributed.local(), table(SHARD_ROWS, FEATURES)
    sums = opened(group, FEATURES, 0, Caller(), {0: x[:1]})
    values, share, rng = x.astype(np.float64), np.ones(SHARD_ROWS), np.random.default_rng(0)

    def moments() -> None:
        sums.moments_of([(values, share)], FEATURES)

    found = {
        "threads": hr.get_num_threads(),
        "rows of a chunk": CHUNK_ROWS,
        "rows of a shard": SHARD_ROWS,
        "columns": FEATURES,
        "models": {f"5 x {list(hidden)}": parts_of_steps(hidden, 20 * repeats) for hidden in ((128, 128), (512, 512))},
        "shard": {
            "check": shortest_ms(lambda: _rows.bad_rows(x), repeats),
            "checksum": shortest_ms(lambda: _rows.checksum(x), repeats),
            "moments": shortest_ms(moments, repeats),
            "order": shortest_ms(lambda: rng.permutation(SHARD_ROWS).astype(np.uint32), repeats),
        },
    }
    print(json.dumps(found, indent=2), flush=True)


def with_dask(repeats: int) -> None:
    """Print the cost of each collective, and the network and batch from which on two workers are faster than one."""
    import dask.array as da

    from distributed import Client, LocalCluster

    x = table(DASK_ROWS, FEATURES)
    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with LocalCluster(n_workers=2, **options) as cluster, Client(cluster) as client:
        for size in (1, 1000, 30_000, 1_000_000):
            for collective in ("gloo", "dask"):
                print(f"a sum of {size} integers, {collective}: {sum_ms(client, collective, size):.2f} ms", flush=True)
        for hidden in ((32,), (128, 128), (512, 512)):
            for batch in (1024, 8192):
                found: dict[str, list[float]] = {"one worker": [], "gloo": [], "dask": []}
                for _ in range(repeats):
                    for name, times in found.items():
                        rows = DASK_ROWS if name == "one worker" else DASK_ROWS // 8
                        lazy = da.from_array(x, chunks=(rows, FEATURES))
                        times.append(dask_step_ms(client, lazy, rows, hidden, batch, name))
                medians = {name: statistics.median(times) for name, times in found.items()}
                one = medians["one worker"]
                listed = "; ".join(f"{name} {time:.2f} ms, {one / time:.2f} times" for name, time in medians.items())
                print(f"MAF {FEATURES} 5 x {list(hidden)}, {batch} rows a step: {listed}", flush=True)


def dask_step_ms(client: Any, x: Any, rows: int, hidden: tuple[int, ...], batch: int, name: str) -> float:
    """The milliseconds of a step: the median over epochs, without the first."""
    flow = hr.MAF(FEATURES, transforms=5, hidden=hidden)
    options: dict[str, Any] = {"epochs": 4, "batch_size": batch, "validation": None, "average": None}
    collective = "dask" if name == "one worker" else name
    history = hr.dask.fit(flow, x, client=client, rows=rows, collective=collective, **options)
    return 1e3 * statistics.median(np.diff(history.seconds)) / (DASK_ROWS / batch)


def sum_ms(client: Any, collective: str, size: int, times: int = 50) -> float:
    """The milliseconds of a sum over two workers."""
    from headrace.dask import _launch

    def work(group: Any, kept: Any, shards: Any, judge: Any) -> float:
        import time

        part, taken = np.ones(size, np.int64), []
        for _ in range(times):
            begin = time.perf_counter()
            group.sum(part.copy())
            taken.append(time.perf_counter() - begin)
        return 1e3 * statistics.median(taken)

    workers = sorted(client.nthreads())
    shards = [client.submit(int, workers=[one], pure=False) for one in workers]
    launch = _launch.Launch(client, collective, 60.0, 0, False, False)
    found: float = _launch.launched(launch, work, {}, shards, None)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["overhead", "ranks", "ascent", "bytes", "parts"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", nargs=5, metavar=("KIND", "SIZE", "THREADS", "DIRECTORY", "RANK"))
    parser.add_argument("--dask", action="store_true", help="only what two workers of Dask take")
    options = parser.parse_args()
    if options.dask:
        with_dask(options.repeats)
        return
    if options.worker:
        kind, size, threads, directory, rank = options.worker
        worker(kind, int(rank), int(size), int(threads), directory)
        return
    for what in options.what:
        if what == "overhead":
            overhead(options.repeats)
        elif what == "bytes":
            bytes_a_step()
        elif what == "parts":
            parts(options.repeats)
        else:
            ranks(what, options.repeats)


if __name__ == "__main__":
    main()
