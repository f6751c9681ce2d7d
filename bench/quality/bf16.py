"""Products in bf16 beside float32: ``python -m bench.quality.bf16`` and a kind of comparison, for example ``--speed``.

``--matmul bf16x3`` or ``bf16x6`` represents values by two or three parts instead of one.

Speed: in one process, blocks of calls of each are timed in turn, in reverse order every second round. The output has
the ratio float32 over bf16 of the medians, and the smallest and largest ratio of a round, for each number of
``--rows``: bf16 may be slower than float32 for some of these numbers. Set HEADRACE_ISA to compare emulated bf16
products.

Train: the ratios for steps of a fit, with the gradient of a batch and Adam.

Errors: for networks from small to wide, the worst and the root mean square difference of a log density from that in
float64, in units of 2^-24 times the mean size of a log density.

Quality: mean log densities of rows held out, in nats, of MAGIC, red and white wine (with noise) and the stars of
``headrace demo``: a float32 fit, the same parameters in bf16, and a fit in bf16, for some seeds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from bench.quality import datasets
from headrace._cli.demo import load_stars

Call = Callable[[], Any]

ROWS = (10_000, 100, 16, 8, 7, 1)  # kernels change at 8 rows
MODELS: dict[str, Callable[[], hr.Flow]] = {
    "MAF 64, 5 x [256, 256]": lambda: hr.MAF(64, transforms=5, hidden=(256, 256)),
    "RealNVP 64, 8 x [256, 256]": lambda: hr.RealNVP(64, transforms=8, hidden=(256, 256)),
    "MAF 43, 5 x [512, 512]": lambda: hr.MAF(43, transforms=5, hidden=(512, 512)),
}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--errors", action="store_true")
    parser.add_argument("--quality", action="store_true")
    kinds = [f"{name}{order}" for order in ("", "_tiles") for name in ("bf16", "bf16x3", "bf16x6")]
    parser.add_argument("--matmul", choices=kinds, default="bf16")
    parser.add_argument("--beside", choices=["exact", *kinds], default="exact", help="the other one of the times")
    parser.add_argument("--rows", type=int, nargs="+", choices=ROWS, default=ROWS, help="of --speed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--block", type=float, default=0.2, help="seconds of a timed block")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=None, help="of a fit (default: headrace's)")
    parser.add_argument("--data", type=Path, default=datasets.FOLDER)
    parser.add_argument("--only", default="", help="only models or data whose name has this in it")
    options = parser.parse_args()
    if not (options.speed or options.train or options.errors or options.quality):
        parser.error("expected --speed, --train, --errors or --quality")
    return options


# ---- speed -----------------------------------------------------------------------------------------------------------


def models(matmul: str, beside: str) -> Iterator[tuple[str, hr.Flow, hr.Flow, NDArray[Any]]]:
    """The models: a name, a flow with the products that `beside` names, the flow with those of `matmul`, and rows."""
    rng = np.random.default_rng(0)
    for name, make in MODELS.items():
        exact = make()
        exact.parameters = 0.05 * rng.standard_normal(exact.parameters.size).astype("float32")
        fast = exact.to("cpu", matmul=matmul)
        x = rng.standard_normal((max(ROWS), exact.features)).astype("float32")
        change = np.abs(exact.log_prob(x) - fast.log_prob(x))
        if not 0 < np.median(change) < 0.5:
            raise AssertionError(f"{name}: {matmul} changes log densities by {np.median(change)}")
        yield name, exact.to("cpu", matmul=beside), fast, x


def cases(matmul: str, beside: str, sizes: Sequence[int]) -> Iterator[tuple[str, Call, Call]]:
    """The cases: a name, a call with the products that `beside` names, and the call with those of `matmul`."""
    for name, exact, fast, x in models(matmul, beside):
        for rows in sizes:
            part = x[:rows]
            yield f"{name} log_prob {rows}", partial(exact.log_prob, part), partial(fast.log_prob, part)
            yield f"{name} sample {rows}", partial(exact.sample, rows, seed=1), partial(fast.sample, rows, seed=1)
        part = x[:1000]
        yield f"{name} nll_and_grad 1000", partial(exact.nll_and_grad, part), partial(fast.nll_and_grad, part)


def step_of(flow: hr.Flow, x: NDArray[Any]) -> Call:
    """A step of a fit, whose learning rate is so small that all rounds are alike."""
    adam = hr.Adam(flow, learning_rate=1e-7)
    return lambda: adam.step(flow.nll_and_grad(x)[1])


def steps(matmul: str, beside: str) -> Iterator[tuple[str, Call, Call]]:
    """The steps: a name, a step with the products that `beside` names, and the step with those of `matmul`."""
    for name, exact, fast, x in models(matmul, beside):
        for rows in (1000, 128):
            yield f"{name} step of {rows}", step_of(exact, x[:rows]), step_of(fast, x[:rows])


def block(call: Call, seconds: float, clock: Callable[[], float]) -> float:
    """The median time of a call."""
    times, end = [], clock() + seconds
    while not times or clock() < end:
        begin = clock()
        call()
        times.append(clock() - begin)
    return statistics.median(times)


def speed(options: argparse.Namespace, cases: Iterator[tuple[str, Call, Call]]) -> None:
    """Print a line for each case; for one thread by processor time, which other programs change least."""
    clock = time.process_time if options.threads == 1 else time.perf_counter
    info = hr.info()
    kernels = info["bf16_tiles"] if options.matmul.endswith("_tiles") else info["bf16"]
    print(f"headrace {hr.__version__}, set {info['isa']}, {options.matmul} {kernels}, {options.threads} threads")
    for name, *calls in cases:
        if options.only not in name:
            continue
        rounds: list[list[float]] = [[], []]
        for turn in range(options.rounds):
            for side in (0, 1) if turn % 2 == 0 else (1, 0):
                rounds[side].append(block(calls[side], options.block, clock))
        ratios = [a / b for a, b in zip(*rounds, strict=True)]
        exact, fast = map(statistics.median, rounds)
        print(
            f"{name:45} {1e6 * exact:10.1f} us {1e6 * fast:10.1f} us   {exact / fast:5.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


# ---- errors ----------------------------------------------------------------------------------------------------------

# The features and hidden units of networks.
LADDER: list[tuple[int, tuple[int, ...]]] = [
    (6, (32, 32)),
    (6, (128, 128)),
    (16, (64, 64)),
    (43, (256, 256)),
    (64, (256, 256)),
    (43, (512, 512)),
    (128, (512, 512, 512)),
    (784, (1024,)),
]


def errors(options: argparse.Namespace) -> None:
    """Print a line for each network."""
    print(f"| network | float32, worst | mean square | {options.matmul}, worst | mean square |")
    print("| --- | --- | --- | --- | --- |")
    for features, hidden in LADDER:
        rng = np.random.default_rng(0)
        flow = hr.MAF(features, transforms=5, hidden=hidden)
        noise = rng.standard_normal(flow.parameters.size) / (2 * max(hidden) ** 0.5)
        flow.parameters = (flow.parameters + noise).astype("float32")
        x = rng.standard_normal((1000, features)).astype("float32")
        want = flow.astype("float64").log_prob(x.astype("float64"))
        unit = 2.0**-24 * np.abs(want).mean()
        change = [np.abs(flow.to("cpu", matmul).log_prob(x) - want) / unit for matmul in ("exact", options.matmul)]
        values = " | ".join(f"{one.max():.1f} | {np.sqrt((one**2).mean()):.2f}" for one in change)
        print(f"| {features}, {list(hidden)} | {values} |", flush=True)


# ---- quality ---------------------------------------------------------------------------------------------------------


def tables(folder: Path) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """The tables: a name, rows to fit, and rows held out."""
    for name in datasets.FILES:
        rows = datasets.load(name, folder)
        parts = datasets.split(rows if name == "magic" else datasets.with_noise(rows))
        yield name, np.concatenate([parts.train, parts.validation]), parts.test
    yield "stars", *load_stars()


def quality(options: argparse.Namespace) -> None:
    """Print a line for each data set, flow and seed."""
    print("| data | flow | seed | float32 | same in bf16 | fitted in bf16 | largest change of a row |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for data, train, test in tables(options.data):
        if options.only not in data:
            continue
        settings = {} if options.epochs is None else {"epochs": options.epochs}
        train, test = train.astype("float32"), test.astype("float32")
        for flow in (hr.MAF, hr.NSF):
            for seed in range(options.seeds):
                fits = [flow(train.shape[1], seed=seed, matmul=matmul) for matmul in ("exact", options.matmul)]
                for one in fits:
                    one.fit(train, seed=seed, progress=False, **settings)
                densities = fits[0], fits[0].to("cpu", options.matmul), fits[1]
                found = [one.log_prob(test).astype("float64") for one in densities]
                means = " | ".join(f"{values.mean():.4f}" for values in found)
                change = np.abs(found[1] - found[0]).max()
                print(f"| {data} | {flow.__name__} | {seed} | {means} | {change:.3f} |", flush=True)


def main() -> None:
    """Run the comparisons that the command line names."""
    options = arguments()
    hr.set_num_threads(options.threads)
    if options.speed:
        speed(options, cases(options.matmul, options.beside, options.rows))
    if options.train:
        speed(options, steps(options.matmul, options.beside))
    if options.errors:
        errors(options)
    if options.quality:
        quality(options)


if __name__ == "__main__":
    main()
