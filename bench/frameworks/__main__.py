"""The cost of a call through PyTorch above that of the plain call, and a training loop beside zuko.

The flow is a conditional MAF of 10 features, 4 context columns and 5 transforms with two hidden layers of 64 units, in
float32, on one thread. Times are microseconds of the fastest of many blocks, so that other load of the machine matters
little. zuko is timed where it is installed, with a flow of the same sizes. See ``python -m bench.frameworks --help``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

import headrace as hr
from headrace.torch import FlowModule

FEATURES, CONTEXT, TRANSFORMS, HIDDEN = 10, 4, 5, (64, 64)
WRT = ("context", "parameters")


def made_flow() -> hr.Flow:
    """A flow with random weights."""
    flow = hr.MAF(FEATURES, context=CONTEXT, transforms=TRANSFORMS, hidden=HIDDEN, last_activation="relu", seed=0)
    vector = flow.parameters
    noise = np.random.default_rng(0).standard_normal(vector.size, np.float32)
    flow.parameters = vector + 0.02 * noise
    return flow


def microseconds(call: Callable[[], Any], budget: float) -> float:
    """The microseconds of a call, in the fastest of the blocks that fit in the budget in seconds."""
    call()
    call()
    start = time.perf_counter()
    call()
    one = max(time.perf_counter() - start, 1e-6)
    count, times, end = max(1, int(0.005 / one)), [], time.perf_counter() + budget
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        for _ in range(count):
            call()
        times.append((time.perf_counter() - start) / count)
    return 1e6 * min(times)


def zuko_flow() -> Any:
    """A flow of zuko with the same sizes, or None where zuko is not installed."""
    if find_spec("zuko") is None:
        return None
    import zuko

    return zuko.flows.MAF(FEATURES, CONTEXT, transforms=TRANSFORMS, hidden_features=HIDDEN)


def calls(rows: int, compiled: bool) -> dict[str, Callable[[], Any]]:
    """The calls to time on this number of rows, by name."""
    flow, torch_rows = made_flow(), torch.Generator().manual_seed(0)
    module, other = FlowModule(flow), zuko_flow()
    x = torch.randn(rows, FEATURES, generator=torch_rows)
    context = torch.randn(rows, CONTEXT, generator=torch_rows)
    x_numpy, context_numpy = x.numpy(), context.numpy()
    weight = np.full(rows, -1.0 / rows, np.float32)
    trained = context.clone().requires_grad_()
    with torch.no_grad():
        np.testing.assert_allclose(module.log_prob(x, context), flow.log_prob(x_numpy, context_numpy), rtol=1e-5)

    def without_gradients(function: Callable[..., Any]) -> Callable[[], Any]:
        def call() -> Any:
            with torch.no_grad():
                return function(x, context)

        return call

    def with_gradients(function: Callable[..., Any], parameters: list[Any]) -> Callable[[], Any]:
        def call() -> None:
            for tensor in (trained, *parameters):
                tensor.grad = None
            (-function(x, trained).mean()).backward()

        return call

    found = {
        "log_prob: NumPy": lambda: flow.log_prob(x_numpy, context_numpy),
        "log_prob: FlowModule": without_gradients(module.log_prob),
        "step: NumPy, log_prob_vjp": lambda: flow.log_prob_vjp(x_numpy, weight, context_numpy, wrt=WRT, values=True),
        "step: FlowModule": with_gradients(module.log_prob, [module.vector]),
    }
    if compiled:
        found["log_prob: FlowModule, compiled"] = without_gradients(torch.compile(module.log_prob))
        found["step: FlowModule, compiled"] = with_gradients(torch.compile(module.log_prob), [module.vector])
    if other is not None:
        found["log_prob: zuko"] = without_gradients(lambda x, c: other(c).log_prob(x))
        found["step: zuko"] = with_gradients(lambda x, c: other(c).log_prob(x), list(other.parameters()))
    return found


class Trained(torch.nn.Module):
    """An encoder of 64 values, and a flow of 5 values given the encoder's 8 outputs."""

    def __init__(self, flow: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 8))
        self.flow = flow

    def forward(self, theta: Any, y: Any) -> Any:
        return -self.flow(self.encoder(y)).log_prob(theta).mean()


def loop(flow: torch.nn.Module, steps: int) -> tuple[float, float]:
    """The milliseconds of a step of Adam on 128 simulations, and the loss on other simulations after all steps."""
    torch.manual_seed(0)
    module, ticks = Trained(flow), torch.linspace(0.0, 1.0, 64)
    optimiser = torch.optim.Adam(module.parameters(), 1e-3)

    def simulated(n: int) -> tuple[Any, Any]:
        theta = 2.0 * torch.rand(n, 5) - 1.0
        wave = (1.0 + theta[:, :1]) * torch.sin(6.0 * (1.5 + theta[:, 1:2]) * ticks + 3.0 * theta[:, 2:3])
        return theta, wave + theta[:, 3:4] + torch.exp(theta[:, 4:] - 2.0) * torch.randn(n, 64)

    start = time.perf_counter()
    for _ in range(steps):
        optimiser.zero_grad()
        module(*simulated(128)).backward()
        optimiser.step()
    took = time.perf_counter() - start
    with torch.no_grad():
        return 1e3 * took / steps, float(module(*simulated(5000)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table of calls, and one line for each training loop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 100, 10_000])
    parser.add_argument("--budget", type=float, default=1.0, help="seconds for each number")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too, which takes a while")
    parser.add_argument("--steps", type=int, default=300, help="of each training loop; 0 for none")
    options = parser.parse_args(arguments)
    hr.set_num_threads(1)
    torch.set_num_threads(1)
    timed = {rows: {k: microseconds(c, options.budget) for k, c in calls(rows, options.compiled).items()}
             for rows in options.rows}  # fmt: skip
    print(f"| microseconds | {' | '.join(f'{rows} rows' for rows in options.rows)} |")
    print("| --- " * (len(options.rows) + 1) + "|")
    for name in sorted(timed[options.rows[0]]):
        print(f"| {name} | {' | '.join(f'{timed[rows][name]:.1f}' for rows in options.rows)} |")
    if not options.steps:
        return
    flows = {"headrace": FlowModule(hr.NSF(5, context=8, transforms=3, hidden=(64, 64), seed=0))}
    if find_spec("zuko") is not None:
        import zuko

        flows["zuko"] = zuko.flows.NSF(5, 8, transforms=3, hidden_features=(64, 64))
    for name, flow in flows.items():
        step, loss = loop(flow, options.steps)
        print(f"encoder and NSF, {name}: {step:.2f} ms a step, loss {loss:.3f} after {options.steps} steps")


if __name__ == "__main__":
    main()
