"""Training loops inside PyTorch and JAX beside zuko and flowjax, interleaved in one run.

    python -m bench.frameworks.loops            # equal threads for all, in one process
    python -m bench.frameworks.loops --quick    # does it run? Small flows, two rounds

| case | a step |
| --- | --- |
| posterior | an encoder of 64 numbers and a MAF of 43 given 8, 5 x [512, 512], 1000 rows: loss, gradient, Adam |
| small | a MAF of 10 features, 5 x [50, 50], 100 rows: the same, eager and compiled |
| draws, IAF and MAF | 1000 reparametrised draws of 64 features, 5 x [256, 256], log densities and the gradient |

In each round every library takes steps of a case for equal times; every second round has the reverse order. Ratios are
those of the median times over headrace's in the same framework, with the range of single rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench import report
from bench.peers.client import alternating, machine_facts, usable_cores

ENCODED, CONTEXT, RATE = 64, 8, 1e-3
Step = Callable[[], float]


@dataclass(frozen=True)
class Sizes:
    """The sizes of the flow and the batch of a case."""

    features: int
    hidden: tuple[int, ...]
    rows: int


FULL = {
    "posterior": Sizes(43, (512, 512), 1000),
    "small": Sizes(10, (50, 50), 100),
    "draws": Sizes(64, (256, 256), 1000),
}
SMALL = {"posterior": Sizes(5, (16, 16), 50), "small": Sizes(4, (8, 8), 20), "draws": Sizes(4, (8, 8), 20)}


def set_threads(threads: int) -> None:
    """Set the same number of threads for all libraries. XLA reads its number of threads once, before JAX computes."""
    os.environ["XLA_FLAGS"] = (
        f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'} intra_op_parallelism_threads={threads}"
    )
    os.environ["NPROC"] = str(threads)
    import headrace as hr

    hr.set_num_threads(threads)
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(threads)


def batches(sizes: Sizes, count: int = 8) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of parameters, and of the measurements on which the parameters depend."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((ENCODED, sizes.features)) / ENCODED**0.5
    found = []
    for _ in range(count):
        y = rng.standard_normal((sizes.rows, ENCODED))
        theta = np.tanh(y @ mixed) + 0.3 * rng.standard_normal((sizes.rows, sizes.features))
        found.append((theta.astype(np.float32), y.astype(np.float32)))
    return found


def torch_flow(library: str, family: str, sizes: Sizes, context: int) -> Any:
    """A flow of 5 transforms as a PyTorch module, of headrace or zuko."""
    import headrace as hr
    from headrace.torch import FlowModule

    if library == "headrace":
        flow = {"maf": hr.MAF, "iaf": hr.IAF}[family](
            sizes.features, context=context, transforms=5, hidden=sizes.hidden, last_activation="relu", seed=0
        )
        return FlowModule(flow)
    import zuko

    flow = zuko.flows.MAF(sizes.features, context, transforms=5, hidden_features=sizes.hidden)
    return zuko.lazy.Flow(zuko.lazy.LazyInverse(flow.transform), flow.base) if family == "iaf" else flow


def torch_step(library: str, sizes: Sizes, encoded: bool, compiled: bool) -> Step:
    """A function that makes one step of Adam on the likelihood, of a flow alone or with an encoder."""
    import torch

    torch.manual_seed(0)
    flow = torch_flow(library, "maf", sizes, CONTEXT if encoded else 0)
    encoder = torch.nn.Sequential(torch.nn.Linear(ENCODED, 64), torch.nn.SiLU(), torch.nn.Linear(64, CONTEXT))
    rows = [tuple(map(torch.from_numpy, pair)) for pair in batches(sizes)]
    parameters = [*flow.parameters(), *(encoder.parameters() if encoded else ())]
    optimiser, turn = torch.optim.Adam(parameters, RATE), iter(range(1 << 60))

    def loss_of(theta: Any, y: Any) -> Any:
        return -(flow(encoder(y)) if encoded else flow()).log_prob(theta).mean()

    if compiled:
        torch._dynamo.reset()
        loss_of = torch.compile(loss_of)

    def step() -> float:
        loss = loss_of(*rows[next(turn) % len(rows)])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return step


def torch_draws(library: str, family: str, sizes: Sizes) -> Step:
    """A function that makes reparametrised draws with log densities, and the gradient of a free energy by the
    parameters."""
    import torch

    torch.manual_seed(0)
    flow = torch_flow(library, family, sizes, 0)

    def step() -> float:
        x, log_q = flow().rsample_and_log_prob((sizes.rows,))
        loss = (log_q + 0.5 * (x - 1.0).square().sum(-1)).mean()
        flow.zero_grad(set_to_none=True)
        loss.backward()
        return float(loss.detach())

    return step


def jax_step(library: str, sizes: Sizes) -> Step:
    """A function that makes one compiled step of Adam on an encoder and a flow."""
    import equinox as eqx
    import jax
    import optax
    from jax import numpy as jnp

    import headrace as hr
    import headrace.jax as hj

    first, second, third = jax.random.split(jax.random.key(0), 3)
    encoder = (eqx.nn.Linear(ENCODED, 64, key=first), eqx.nn.Linear(64, CONTEXT, key=second))
    if library == "headrace":
        options = {"transforms": 5, "hidden": sizes.hidden, "last_activation": "relu", "seed": 0}
        flow: Any = hj.FlowModule(hr.MAF(sizes.features, context=CONTEXT, **options))
    else:
        from flowjax.distributions import Normal
        from flowjax.flows import masked_autoregressive_flow

        flow = masked_autoregressive_flow(
            third, base_dist=Normal(jnp.zeros(sizes.features)), cond_dim=CONTEXT, flow_layers=5,
            nn_width=sizes.hidden[0], nn_depth=len(sizes.hidden),
        )  # fmt: skip
    import paramax

    whole = (encoder, flow)
    weights, rest = eqx.partition(
        whole, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )
    optimiser = optax.adam(RATE)
    rows = [tuple(map(jnp.asarray, pair)) for pair in batches(sizes)]

    def loss_of(weights: Any, theta: Any, y: Any) -> Any:
        (one, two), flow = paramax.unwrap(eqx.combine(weights, rest))
        return -flow.log_prob(theta, jax.vmap(two)(jax.nn.silu(jax.vmap(one)(y)))).mean()

    @jax.jit
    def change(weights: Any, state: Any, theta: Any, y: Any) -> Any:
        loss, gradient = jax.value_and_grad(loss_of)(weights, theta, y)
        updates, state = optimiser.update(gradient, state, weights)
        return eqx.apply_updates(weights, updates), state, loss

    kept, turn = [weights, optimiser.init(weights)], iter(range(1 << 60))

    def step() -> float:
        kept[0], kept[1], loss = change(*kept, *rows[next(turn) % len(rows)])
        return float(loss)

    return step


def cases(sizes: dict[str, Sizes], compiled: bool) -> dict[str, dict[str, Callable[[], Step]]]:
    """The cases by name, each with a function for each library that prepares its step; headrace comes first.

    Libraries that are not installed are left out.
    """
    found: dict[str, dict[str, Callable[[], Step]]] = {}
    has = {name: find_spec(name) is not None for name in ("torch", "zuko", "jax", "flowjax", "optax", "equinox")}
    torch_libraries = [name for name, there in (("headrace", has["torch"]), ("zuko", has["zuko"])) if there]
    jax_ready = has["jax"] and has["flowjax"] and has["optax"] and has["equinox"]

    def put(case: str, label: str, make: Callable[..., Step], *arguments: Any) -> None:
        found.setdefault(case, {})[label] = lambda: make(*arguments)

    for library in torch_libraries:
        put("posterior, PyTorch", library, torch_step, library, sizes["posterior"], True, False)
        put("small, PyTorch", library, torch_step, library, sizes["small"], False, False)
        for family in ("iaf", "maf"):
            put(f"draws, {family.upper()}", library, torch_draws, library, family, sizes["draws"])
    if compiled:
        for library in torch_libraries:
            put("small, PyTorch", f"{library}, compiled", torch_step, library, sizes["small"], False, True)
    for library in ("headrace", "flowjax") if jax_ready else ():
        put("posterior, JAX", library, jax_step, library, sizes["posterior"])
    return found


def measure(makers: dict[str, Callable[[], Step]], rounds: int, block: float) -> dict[str, Any]:
    """The seconds of a step in each round, and the first and last losses, for each library."""
    steps, first, counts = {name: make() for name, make in makers.items()}, {}, {}
    for name, step in steps.items():
        first[name] = step()
        step()
        start = time.perf_counter()
        step()
        counts[name] = max(1, int(block / max(time.perf_counter() - start, 1e-6)))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    last = {}
    for turn in range(rounds):
        for name in alternating(steps, turn):
            start = time.perf_counter()
            for _ in range(counts[name]):
                last[name] = steps[name]()
            seconds[name].append((time.perf_counter() - start) / counts[name])
    if not all(np.isfinite([*first.values(), *last.values()])):
        raise AssertionError(f"losses: expected finite ones, got {first}, then {last}")
    return {"seconds": seconds, "first": first, "last": last}


def rows_of(name: str, found: dict[str, Any]) -> list[list[str]]:
    """The lines of the table for a case."""
    ours, *_ = found["seconds"]
    base, lines = found["seconds"][ours], []
    for library, seconds in found["seconds"].items():
        ratios = [theirs / own for theirs, own in zip(seconds, base, strict=True)]
        ratio = statistics.median(seconds) / statistics.median(base)
        band = "" if library == ours else f"{min(ratios):.2f} - {max(ratios):.2f}"
        lines.append([name, library, report.duration(statistics.median(seconds)), f"{ratio:.2f}", band])
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=6, help="an even number")
    parser.add_argument("--block", type=float, default=1.0, help="seconds of a library in a round")
    parser.add_argument("--quick", action="store_true", help="small flows, 2 rounds, nothing compiled by PyTorch")
    parser.add_argument("--output", type=Path, default=None, metavar="STEM", help="STEM.json, STEM.md")
    options = parser.parse_args(argv)
    set_threads(options.threads)
    rounds, block = (2, 0.05) if options.quick else (options.rounds, options.block)
    results = {}
    for name, makers in cases(SMALL if options.quick else FULL, compiled=not options.quick).items():
        results[name] = measure(makers, rounds, block)
        print(*(" ".join(line) for line in rows_of(name, results[name])), sep="\n", file=sys.stderr, flush=True)
    machine, date = machine_facts(options.threads), time.strftime("%Y-%m-%d %H:%M")
    installed = [d for d in ("torch", "zuko", "jax", "jaxlib", "flowjax", "optax") if find_spec(d) is not None]
    versions = {name: metadata.version(name) for name in installed}
    lines = [f"# Training loops inside frameworks, {options.threads} threads", "", report.machine_line(machine, date)]
    lines += ["", ", ".join(f"{name} {version}" for name, version in versions.items()) + ".", ""]
    table = [line for name, found in results.items() for line in rows_of(name, found)]
    lines += report.table(["step", "library", "time", "times headrace", "band"], table)
    text = "\n".join(lines) + "\n"
    print(text)
    kind = "frameworks_quick" if options.quick else "frameworks"
    stem = options.output or report.stem(kind, options.threads)
    report.write(stem, {"date": date, "machine": machine, "versions": versions, "results": results}, text)


if __name__ == "__main__":
    main()
