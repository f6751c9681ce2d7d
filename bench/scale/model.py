"""Expected time of a fit of a very large table on many workers: ``python -m bench.scale.model``; nothing is fitted.

The program is plain Python. A step is the work of a worker (measured by ``bench.scale.distributed parts``) and a sum
over all workers (8 bytes a weight and 576 more, over an assumed network). The slowest worker of each step is random,
and so are failures of workers, each with the cost of a restart. bench/scale/model.md has the results, and their
uncertainty.

    python -m bench.scale.model                                   # the numbers of MEASURED
    python -m bench.scale.distributed parts > parts.json          # on the machine that is meant, when it is quiet
    python -m bench.scale.model --measured parts.json --set cores=32 --set gigabits=100
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

# The milliseconds of one thread, for 512 rows or a shard of 65,536, with 43 columns of float32, which
# HEADRACE_NUM_THREADS=1 python -m bench.scale.distributed parts --repeats 6 printed on an otherwise idle AMD EPYC (Zen
# 4).
MEASURED: dict[str, Any] = {
    "threads": 1,
    "rows of a chunk": 512,
    "rows of a shard": 65536,
    "columns": 43,
    "models": {
        "5 x [128, 128]": {
            "weights": 102240,
            "gradient": 3.1761,
            "add": 0.0884,
            "read": 0.0721,
            "adam": 0.0645,
            "log_prob": 1.0857,
        },
        "5 x [512, 512]": {
            "weights": 902240,
            "gradient": 29.0111,
            "add": 0.7335,
            "read": 0.6259,
            "adam": 0.5038,
            "log_prob": 8.8126,
        },
    },
    "shard": {"check": 0.4624, "checksum": 2.6392, "moments": 43.3059, "order": 0.5753},
}

# Integers of a sum besides one for each weight: the loss in digits, and the number of gradients that were too large.
MORE_INTEGERS = 72
FLOAT = 4  # bytes of a value


@dataclass(frozen=True)
class Assumed:
    """The assumptions, which are neither counted nor measured; ``--set NAME=VALUE`` changes one."""

    rows: float = 1e9
    workers: int = 64
    chunks: int = 1  # chunks of 512 rows of a worker in a step: batch_size = 512 * chunks * workers
    held_out: float = 0.1  # the share of rows held out, `validation`
    epochs: int = 10  # the default of `fit` where an epoch has more than 2000 steps
    # The assumptions about a worker.
    cores: int = 8
    # The speed of all cores in gradients and densities, as a share of the number of cores times one thread's speed.
    efficiency: float = 0.75
    python: float = 0.1  # ms of Python code in a step beside the measured parts
    list_us: float = 0.1  # microseconds of Python code for each chunk of the table, when the fit begins
    order_us: float = 0.43  # microseconds of Python code for each chunk in the order of an epoch
    # The assumptions about the network.
    gigabits: float = 25.0  # gigabits a second of a worker, in each direction
    network_efficiency: float = 0.7  # the share of `gigabits` that gloo or MPI reach
    latency: float = 0.03  # ms of a message
    ring: int = 1  # 1: a ring, as in gloo; 0: halving and doubling, as in MPI for long sums
    # The assumptions about stragglers.
    jitter: float = 0.05  # the standard deviation of the logarithm of a worker's time in a step
    pauses: float = 0.05  # pauses per second and worker, in which the system runs other programs
    pause: float = 20.0  # ms, the mean of exponentially distributed pauses
    slow: float = 1.0  # the factor by which one worker is always slower
    # The assumptions about starts and failures.
    storage: float = 0.5  # GB a second and worker, when rows are read for the first time; later they are in memory
    launch: float = 180.0  # seconds from the end of a job to the first line of the next
    failures: float = 30.0  # days between two failures of a worker
    timeout: float = 60.0  # seconds, the timeout of `from_torch` or `from_mpi`
    grace: float = 5.0
    # The share of failures that other workers notice only by the timeout; other failures are noticed at once.
    stands_still: float = 0.3
    checkpoint_every: float = 60.0  # seconds between two checkpoints
    disk: float = 0.2  # GB a second, for the state that rank 0 writes


def bytes_of_a_step(weights: int) -> int:
    """The bytes that a worker gives to the one sum of a step."""
    return 8 * (weights + MORE_INTEGERS)


def wire_ms(weights: int, a: Assumed) -> float:
    """The ms of a sum: every worker sends 2 (W - 1) / W of the bytes, in 2 (W - 1) messages one after another, or 2
    log2 W."""
    share = 2 * (a.workers - 1) / a.workers
    messages = 2 * (a.workers - 1) if a.ring else 2 * math.ceil(math.log2(a.workers))
    rate = a.gigabits * a.network_efficiency * 1e6 / 8.0  # bytes a millisecond
    return messages * a.latency + share * bytes_of_a_step(weights) / rate


class Model:
    """A fit of one flow by the assumed number of workers."""

    def __init__(self, name: str, measured: dict[str, Any], assumed: Assumed) -> None:
        self.name, self.assumed, self.shard = name, assumed, measured["shard"]
        self.times = measured["models"][name]
        self.chunk_rows, self.shard_rows = measured["rows of a chunk"], measured["rows of a shard"]
        self.columns, self.threads = measured["columns"], measured["threads"]

    def on_cores(self, ms: float) -> float:
        """The ms of the core's work by all threads of a worker."""
        return ms * self.threads / max(self.assumed.cores * self.assumed.efficiency, 1.0)

    @property
    def own_ms(self) -> float:
        """The ms of a worker's work in a step."""
        t, a = self.times, self.assumed
        return a.chunks * (self.on_cores(t["gradient"]) + t["add"]) + t["read"] + t["adam"] + a.python

    @property
    def steps(self) -> int:
        """The number of steps of an epoch."""
        a = self.assumed
        return math.ceil(a.rows * (1.0 - a.held_out) / (self.chunk_rows * a.chunks * a.workers))

    def step_ms(self, rng: random.Random, count: int = 400) -> float:
        """The mean ms of some random steps, each as long as its slowest worker needs, with the sum."""
        a, own, total = self.assumed, self.own_ms, 0.0
        for _ in range(count):
            slowest = 0.0
            for worker in range(a.workers):
                ms = own * (a.slow if worker == 0 else 1.0)
                ms *= math.exp(rng.gauss(0.0, a.jitter)) if a.jitter else 1.0
                if a.pauses and rng.random() < a.pauses * ms / 1e3:
                    ms += rng.expovariate(1.0 / a.pause)
                slowest = max(slowest, ms)
            total += slowest
        return total / count + wire_ms(self.times["weights"], a)

    def judging_s(self) -> float:
        """The seconds for densities of the rows held out, after an epoch."""
        a = self.assumed
        return 1e-3 * a.rows * a.held_out / a.workers / self.chunk_rows * self.on_cores(self.times["log_prob"])

    def order_s(self) -> float:
        """The seconds for the order of an epoch: of each shard's rows, and of all chunks, which every worker lists."""
        a = self.assumed
        shards = a.rows / a.workers / self.shard_rows
        return 1e-3 * shards * self.shard["order"] + 1e-6 * a.order_us * a.rows / self.chunk_rows

    def start_s(self) -> float:
        """The seconds to read the rows, for their check, checksum and moments, and for the list of all chunks."""
        a = self.assumed
        of_worker = a.rows / a.workers
        passes = sum(self.shard[name] for name in ("check", "checksum", "moments"))
        read = of_worker * self.columns * FLOAT / (1e9 * a.storage)
        return read + 1e-3 * of_worker / self.shard_rows * passes + 1e-6 * a.list_us * a.rows / self.chunk_rows

    def state_s(self) -> float:
        """The seconds to write the state once: weights, the best ones, two moments of Adam, the running mean."""
        return 5 * FLOAT * self.times["weights"] / (1e9 * self.assumed.disk)

    def work_s(self, step_ms: float) -> float:
        """The seconds of all epochs, without failures."""
        a = self.assumed
        epoch = 1e-3 * step_ms * self.steps + self.judging_s() + self.order_s()
        return a.epochs * epoch * (1.0 + self.state_s() / a.checkpoint_every)

    def whole_s(self, work: float, rng: random.Random) -> tuple[float, int]:
        """The seconds of a fit with random failures, and the number of its restarts."""
        a = self.assumed
        rate = a.workers / (86400.0 * a.failures)
        begun, done, restarts = self.start_s(), 0.0, 0
        while True:
            until = rng.expovariate(rate) if rate else math.inf
            if until >= work - done:
                return begun + work - done, restarts
            kept = max(until - rng.uniform(0.0, a.checkpoint_every), 0.0)
            waited = 2.0 * a.timeout + a.grace if rng.random() < a.stands_still else 0.0
            begun += until + waited + a.launch + self.start_s()
            done += kept
            restarts += 1


def row_of(model: Model, seed: int, fits: int) -> list[str]:
    """A line of the table for a model."""
    a, rng = model.assumed, random.Random(seed)
    step = model.step_ms(rng)
    calm = replace(a, jitter=0.0, pauses=0.0, slow=1.0)
    quiet = Model.__new__(Model)
    quiet.__dict__.update(model.__dict__, assumed=calm)
    quiet_ms, work = quiet.step_ms(rng, 1), model.work_s(step)
    found = [model.whole_s(work, rng) for _ in range(fits)]
    hours = sorted(seconds / 3600.0 for seconds, _ in found)
    alone = Model.__new__(Model)
    alone.__dict__.update(model.__dict__, assumed=replace(calm, workers=1, gigabits=1e9, latency=0.0))
    speed = alone.work_s(alone.step_ms(rng, 1)) / work
    return [
        model.name,
        f"{a.gigabits:g}",
        str(a.chunks),
        str(model.chunk_rows * a.chunks * a.workers),
        f"{model.own_ms:.2f}",
        f"{wire_ms(model.times['weights'], a):.2f}",
        f"{quiet_ms:.2f}",
        f"{step:.2f}",
        f"{work / a.epochs / 60.0:.1f}",
        f"{statistics.fmean(hours):.2f}",
        f"{hours[int(0.95 * (len(hours) - 1))]:.2f}",
        f"{statistics.fmean(count for _, count in found):.2f}",
        f"{speed:.1f}",
    ]


COLUMNS = (
    "MAF 43",
    "Gbit/s",
    "chunks",
    "batch",
    "own work, ms",
    "sum, ms",
    "step, ms",
    "with stragglers, ms",
    "epoch, min",
    "fit, h",
    "95 % of fits, h",
    "restarts",
    "times one worker",
)


def changed(assumed: Assumed, changes: list[str]) -> Assumed:
    """The assumptions with some values replaced, each by NAME=VALUE."""
    kinds = {field.name: type(getattr(assumed, field.name)) for field in fields(assumed)}
    replaced = {}
    for change in changes:
        name, _, value = change.partition("=")
        if name not in kinds:
            raise SystemExit(f"--set: expected one of {', '.join(kinds)}, got {name!r}")
        replaced[name] = kinds[name](float(value))
    return replace(assumed, **replaced)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, help="what `python -m bench.scale.distributed parts` printed")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another assumption")
    parser.add_argument("--fits", type=int, default=2000, help="fits whose failures are drawn, of each line")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    measured = MEASURED if options.measured is None else json.loads(options.measured.read_text(encoding="utf-8"))
    assumed = changed(Assumed(), options.set)
    given = {change.partition("=")[0] for change in options.set}
    for field in fields(assumed):
        print(f"{field.name} = {getattr(assumed, field.name):g}")
    print(f"\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    networks = [assumed.gigabits] if "gigabits" in given else [10.0, 25.0, 100.0]
    chunks = [assumed.chunks] if "chunks" in given else [1, 4]
    for name in measured["models"]:
        for gigabits in networks:
            for count in chunks:
                model = Model(name, measured, replace(assumed, gigabits=gigabits, chunks=count))
                print(f"| {' | '.join(row_of(model, options.seed, options.fits))} |", flush=True)
    for name in measured["models"]:
        model = Model(name, measured, assumed)
        weights, start, judging, order = model.times["weights"], model.start_s(), model.judging_s(), model.order_s()
        print(f"\n{name}: {weights} weights, {bytes_of_a_step(weights)} bytes a step, {model.steps} steps an epoch;")
        print(f"start {start:.1f} s, judging {judging:.1f} s and order {order:.1f} s an epoch,")
        print(f"{model.state_s():.2f} s for each write of the state")


if __name__ == "__main__":
    main()
