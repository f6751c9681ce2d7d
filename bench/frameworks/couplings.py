"""A training step of an affine coupling flow of PyTorch by `headrace.torch.coupling`, beside one by PyTorch alone.

    python -m bench.frameworks.couplings

The flow has six layers of 8 features with networks of two hidden layers of 64 units. Times are processor times of steps
of Adam on one thread, of both flows in turn. The maps differ: PyTorch's scale is exp(tanh(a)), in four operators.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import headrace as hr
import headrace.torch

FEATURES, LAYERS, UNITS = 8, 6, 64


class Couplings(nn.Module):
    """A flow of affine couplings, which change the two halves of the features in turn."""

    def __init__(self, ours: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        half = FEATURES // 2
        sizes = [half, UNITS, UNITS, FEATURES]
        self.ours = ours
        self.nets = nn.ModuleList()
        for _ in range(LAYERS):
            layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
            self.nets.append(nn.Sequential(*layers[:-1]))

    def forward(self, x: Tensor) -> Tensor:
        """The log densities of rows."""
        total = torch.zeros(len(x))
        for i, net in enumerate(self.nets):
            passive, active = x.chunk(2, -1)[:: 1 if i % 2 else -1]
            params = net(passive).reshape(len(x), -1, 2)
            if self.ours:
                active, log_det = hr.torch.coupling(active, params, direction="inverse")
            else:
                log_scale = torch.tanh(params[..., 1])
                active, log_det = (active - params[..., 0]) * torch.exp(-log_scale), -log_scale.sum(-1)
            total = total + log_det
            x = torch.cat((passive, active)[:: 1 if i % 2 else -1], -1)
        return total - 0.5 * (x**2).sum(-1)


def step(ours: bool, rows: int) -> Callable[[], None]:
    """A function that makes a training step."""
    model, x = Couplings(ours), torch.randn(rows, FEATURES)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)

    def call() -> None:
        optimiser.zero_grad()
        (-model(x).mean()).backward()
        optimiser.step()

    return call


def main() -> None:
    """Print a line for each number of rows."""
    torch.set_num_threads(1)
    hr.set_num_threads(1)
    for rows in (32, 128, 1024, 4096):
        calls = {ours: step(ours, rows) for ours in (True, False)}
        times: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(100 if rows < 4096 else 25):
            for ours, call in calls.items():
                start = time.thread_time()
                call()
                times[ours].append(time.thread_time() - start)
        least = {ours: 1e3 * min(of) for ours, of in times.items()}
        ratio = statistics.median(b / a for a, b in zip(*times.values(), strict=True))
        print(f"{rows:5d} rows {least[True]:7.2f} ms, PyTorch {least[False]:7.2f} ms, {ratio:.2f} x (median of ratios)")


if __name__ == "__main__":
    main()
