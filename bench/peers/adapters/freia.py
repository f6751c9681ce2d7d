"""FrEIA: invertible networks on torch; affine couplings only."""

from __future__ import annotations

import math

from bench.peers.adapter import Model, UnsupportedError
from bench.peers.adapters import torch_models
from bench.workloads import Workload

DISTRIBUTIONS = ("FrEIA", "torch")
stopwatch = torch_models.stopwatch


def setup(threads: int, device: str) -> None:
    """Import the library and set its threads."""
    torch_models.setup(threads, device)
    import FrEIA.framework
    import FrEIA.modules  # noqa: F401


def build(workload: Workload, device: str) -> Model:
    """Build the flow; a block transforms both halves in turn, so that there are half as many blocks as couplings; no
    permutations."""
    if workload.family != "realnvp":
        raise UnsupportedError("no masked autoregressive transform, no spline")
    if workload.transforms % 2:
        raise UnsupportedError("couplings come in pairs")
    import torch
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import GLOWCouplingBlock

    def conditioner(inputs: int, outputs: int) -> torch.nn.Module:
        layers = []
        for width in workload.hidden:
            layers += [torch.nn.Linear(inputs, width), torch.nn.ReLU()]
            inputs = width
        return torch.nn.Sequential(*layers, torch.nn.Linear(inputs, outputs))

    network = SequenceINN(workload.features)
    for _ in range(workload.transforms // 2):
        network.append(GLOWCouplingBlock, subnet_constructor=conditioner)
    place = torch_models.place(device)
    network.to(place)
    constant = 0.5 * workload.features * math.log(2 * math.pi)

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        z, log_det = network(x)
        return log_det - 0.5 * z.square().sum(1) - constant

    def sample(rows: int) -> torch.Tensor:
        return network(torch.randn(rows, workload.features, device=place), rev=True, jac=False)[0]

    return torch_models.model(workload, device, network, log_prob, sample, passes=1)
