"""A posterior with an embedding network: samples of any size, read by a network trained with the flow (PyTorch).

A measurement is a sample of 4 to 32 values from a normal distribution with an unknown mean and deviation: θ is the mean
and the log deviation. An embedding network reads each value and averages its outputs (a deep set, Zaheer et al. 2017),
so that neither order nor size matter; its output is the context of a `headrace.torch.FlowModule`, and both are trained
together on simulations. The prior is conjugate (normal-inverse-gamma), so that the exact posterior is known. The
example checks

- the Kullback-Leibler divergence from the exact posterior to the flow, averaged over new measurements;
- that true parameters have uniform ranks among draws of the flow, as in simulation-based calibration.

    python examples/embedded_posterior.py [--steps 1500] [--rows 256] [--seed 0] [--output embedded.png]

`--output` draws exact posteriors and the flow's draws and needs matplotlib.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import headrace as hr
from headrace.torch import FlowModule

LEAST, MOST = 4, 32  # the least and the largest size of a sample
SHAPE, RATE = 3.0, 2.0  # the prior: 1 / variance is gamma, and the mean is normal with that variance
DRAWS, BINS = 99, 20
CHI_SQUARED = 43.8  # 1 in 1000 values exceeds this, with BINS - 1 degrees of freedom
CLOSE = 0.1  # nats


def simulate(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters (n, 2), values (n, MOST), and a mask of the values that exist."""
    deviation = torch.distributions.Gamma(SHAPE, RATE).sample((n, 1)).rsqrt()
    mean = deviation * torch.randn(n, 1)
    there = (torch.arange(MOST) < torch.randint(LEAST, MOST + 1, (n, 1))).float()
    y = (mean + deviation * torch.randn(n, MOST)) * there
    return torch.cat([mean, deviation.log()], dim=1), y, there


def exact_log_prob(theta: Tensor, y: Tensor, there: Tensor) -> Tensor:
    """The log density of the exact posterior: the normal-inverse-gamma density that the sample's values update."""
    count = there.sum(-1)
    average = y.sum(-1) / count
    precision, centre = 1.0 + count, y.sum(-1) / (1.0 + count)
    squares = (there * (y - average[..., None]).square()).sum(-1) + count * average.square() / precision
    shape, rate = SHAPE + 0.5 * count, RATE + 0.5 * squares
    mean, log_deviation = theta[..., 0], theta[..., 1]
    of_variance = shape * rate.log() - torch.lgamma(shape) - 2.0 * shape * log_deviation
    of_variance = of_variance - rate * torch.exp(-2.0 * log_deviation) + math.log(2.0)  # d variance = 2 variance d log
    square = precision * (mean - centre).square() * torch.exp(-2.0 * log_deviation)
    return of_variance + 0.5 * (precision / (2.0 * math.pi)).log() - log_deviation - 0.5 * square


class Posterior(nn.Module):
    """A network for each value, the mean of its outputs, and a flow; the sample's size is a further input."""

    def __init__(self, seed: int) -> None:
        """Make networks with a context of 8 values."""
        super().__init__()
        self.each = nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 16))
        self.all = nn.Sequential(nn.Linear(18, 64), nn.SiLU(), nn.Linear(64, 8))
        flow = hr.MAF(2, context=8, transforms=4, hidden=(32, 32), activation="silu", seed=seed)
        self.flow = FlowModule(flow)

    def forward(self, y: Tensor, there: Tensor) -> torch.distributions.Distribution:
        """The distribution of θ for each sample."""
        count = there.sum(-1, keepdim=True)
        embedded = (self.each(y[..., None]) * there[..., None]).sum(-2) / count
        found: torch.distributions.Distribution = self.flow(
            self.all(torch.cat([embedded, count.log(), count.rsqrt()], dim=-1))
        )
        return found


def train(posterior: Posterior, steps: int, rows: int) -> None:
    """Train the network and the flow together, on new simulations at every step."""
    optimiser = torch.optim.Adam(posterior.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        theta, y, there = simulate(rows)
        loss = -posterior(y, there).log_prob(theta).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(posterior.parameters(), 5.0)
        optimiser.step()
        schedule.step()


def chi_squared(ranks: Tensor) -> float:
    """The chi-squared of ranks in equal bins, which is about BINS - 1 for a calibrated posterior."""
    counts = torch.bincount(ranks * BINS // (DRAWS + 1), minlength=BINS)
    expected = len(ranks) / BINS
    return float(((counts - expected) ** 2 / expected).sum())


def draw(path: Path, posterior: Posterior) -> None:
    """Draw exact posteriors of samples of 4, 8, 16 and 32 values, and draws of the flow."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    grid = torch.cartesian_prod(torch.linspace(-2.5, 2.5, 150), torch.linspace(-1.2, 1.2, 150))
    y = torch.randn(1, MOST)
    for axis, count in zip(figure.subplots(1, 4, sharey=True), (4, 8, 16, 32), strict=True):
        there = (torch.arange(MOST) < count).float()[None]
        density = exact_log_prob(grid, y * there, there).exp().reshape(150, 150).T
        axis.imshow(density, origin="lower", extent=(-2.5, 2.5, -1.2, 1.2), aspect="auto", cmap="Greys")
        sample = posterior(y * there, there).sample((500,))[:, 0]
        axis.plot(*sample.T, ".", markersize=2, alpha=0.5)
        axis.set(xlim=(-2.5, 2.5), ylim=(-1.2, 1.2), xlabel="mean", title=f"{count} numbers")
        axis.plot(0.0, 0.0, "*", color="tab:red")
    figure.axes[0].set_ylabel("log deviation")
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the posterior differs from the exact one by more than the limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    posterior = Posterior(options.seed)
    start = time.perf_counter()
    train(posterior, options.steps, options.rows)
    print(
        f"{options.steps * options.rows} simulations, network and flow trained in {time.perf_counter() - start:.1f} s"
    )

    theta, y, there = simulate(4000)
    with torch.no_grad():
        found = posterior(y, there)
        excess = exact_log_prob(theta, y, there) - found.log_prob(theta)
        ranks = (found.sample((DRAWS,)) < theta).sum(0)
    divergence, error = float(excess.mean()), float(excess.std()) / len(excess) ** 0.5
    print(f"KL(exact || flow), mean over measurements: {divergence:.4f} ± {error:.4f} nats")
    small = there.sum(-1) < 8
    print(f"  of samples of fewer than 8 numbers {excess[small].mean():.4f}, of others {excess[~small].mean():.4f}")
    uneven = [chi_squared(column) for column in ranks.T]
    print(f"ranks of {len(theta)} true parameters in {BINS} bins: χ² {uneven[0]:.1f}, {uneven[1]:.1f}")
    print(f"  (if uniform: about {BINS - 1}, and 1 in 1000 above {CHI_SQUARED})")
    if options.output:
        with torch.no_grad():
            draw(options.output, posterior)
    return 0 if divergence < CLOSE and max(uneven) < 2.0 * CHI_SQUARED else 1


if __name__ == "__main__":
    sys.exit(main())
