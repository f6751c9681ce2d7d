"""A user's posterior in PyTorch, with its simulations and a loop that trains it."""

import torch

import headrace as hr
from headrace.torch import FlowModule


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Posterior(torch.nn.Module):
    """A module with an encoder of measurements and a flow over parameters, whose context is the encoder's output."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = torch.nn.Sequential(torch.nn.Linear(7, 16), torch.nn.SiLU(), torch.nn.Linear(16, 2))
        self.flow = FlowModule(hr.MAF(3, context=2, transforms=2, hidden=(16,), activation="tanh", seed=1))

    def forward(self, theta, x):
        return -self.flow(self.encoder(x)).log_prob(theta).mean()


def simulated(n, seed=0):
    x = rows(n, 7, seed=seed)
    return x[:, :3] * 0.3 + x[:, 3:6] + 0.1 * rows(n, 3, seed=seed + 1), x


def trained(module, theta, x, steps, optimiser):
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = module(theta, x)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses
