"""Posteriors of a variational autoencoder: an autoregressive flow (PyTorch) beside a diagonal Gaussian.

Measurements are bumps at unknown positions on a ring, with noise, and only some 5 of the 16 values of a measurement are
seen, which differ from measurement to measurement. The decoder makes a bump in the direction of two latent values z;
its height, width and noise are learnt. An encoder reads the values that are seen and gives the context of the posterior
of z, and all networks are trained together by the evidence lower bound (ELBO). Training is done twice: with a Gaussian
of independent coordinates, as in Kingma and Welling (2014), and with a flow, a `headrace.torch.FlowModule`: an IAF
(Kingma et al. 2016), or a MAF (Papamakarios et al. 2017). The exact posterior is a wedge, or two wedges where the
values allow two positions, and no Gaussian.

An IAF suits a posterior from which samples are drawn and weighed, as here: samples and their densities are one pass of
its networks for all coordinates at once. A MAF suits a posterior whose densities are also needed for other z, such as
samples of a reference posterior or of another model: such densities are one pass, while a sample is computed coordinate
by coordinate.

With two latent values the evidence of a decoder can be summed on a grid. Evidence less ELBO is KL(posterior of the
encoder || exact posterior of its decoder). No model exceeds the true evidence, except by chance.

    python examples/vae_posteriors.py [--posterior IAF] [--steps 1200] [--rows 128] [--seed 0] [--output vae.png]

`--output` draws both posteriors of some measurements beside the exact ones and needs matplotlib.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

import headrace as hr
from headrace.torch import FlowModule

TICKS, LATENT, CONTEXT, SEEN = 16, 2, 16, 0.3
HEIGHT, WIDTH, NOISE = 1.0, 4.0, 0.2
GAIN = 0.1  # nats by which the flow's ELBO must exceed the Gaussian's; 0.2 by default settings
FLOWS = {"IAF": hr.IAF, "MAF": hr.MAF}
GRID = torch.cartesian_prod(*[torch.linspace(-4.5, 4.5, 91)] * LATENT)
CELL = (9.0 / 90) ** LATENT


def bump(direction: Tensor, width: Tensor) -> Tensor:
    """A bump of height one on the ring, shape (..., 16), from directions (..., 2)."""
    ticks = torch.arange(TICKS) * (2.0 * math.pi / TICKS)
    return torch.exp(width * (direction @ torch.stack([torch.cos(ticks), torch.sin(ticks)]) - 1.0))


def measure(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Measurements (n, 16), and a mask of the values that are seen, 0 or 1."""
    direction = nn.functional.normalize(torch.randn(n, LATENT, generator=generator), dim=-1)
    noise = NOISE * torch.randn(n, TICKS, generator=generator)
    x = HEIGHT * bump(direction, torch.tensor(WIDTH)) + noise
    return x, (torch.rand(n, TICKS, generator=generator) < SEEN).float()


def normal(away: Tensor) -> Tensor:
    """The log density of a standard normal, for each value."""
    return -0.5 * (away.square() + math.log(2.0 * math.pi))


def log_likelihood(x: Tensor, seen: Tensor, mean: Tensor, noise: Tensor) -> Tensor:
    """The log likelihood of the values that are seen."""
    return (seen * (normal((x - mean) / noise) - torch.log(noise))).sum(-1)


def true_evidence(x: Tensor, seen: Tensor) -> float:
    """The mean log density of the values that are seen, over all positions of the bump."""
    place = torch.arange(1000) * (2.0 * math.pi / 1000)
    mean = HEIGHT * bump(torch.stack([torch.cos(place), torch.sin(place)], dim=-1), torch.tensor(WIDTH))
    each = log_likelihood(x[:, None], seen[:, None], mean, torch.tensor(NOISE))
    return float(torch.logsumexp(each, dim=1).mean()) - math.log(len(place))


class Diagonal(nn.Module):
    """A Gaussian of independent coordinates given a context."""

    def __init__(self) -> None:
        """Make the linear map from the context to mean and log deviation."""
        super().__init__()
        self.linear = nn.Linear(CONTEXT, 2 * LATENT)

    def rsample_and_log_prob(self, shape: tuple[int, ...], context: Tensor) -> tuple[Tensor, Tensor]:
        """Samples and log densities, as from the method of a `FlowModule`."""
        mean, log_deviation = self.linear(context).chunk(2, dim=-1)
        noise = torch.randn(*shape, *mean.shape)
        return mean + log_deviation.exp() * noise, (normal(noise) - log_deviation).sum(-1)


class Autoencoder(nn.Module):
    """An encoder, a posterior and a decoder; the prior is a standard normal."""

    def __init__(self, posterior: nn.Module) -> None:
        """Take a posterior, whose context is the output of the encoder; the decoder starts far from the truth."""
        super().__init__()
        widths = (2 * TICKS, 64, 64)
        layers = [layer for sizes in pairwise(widths) for layer in (nn.Linear(*sizes), nn.SiLU())]
        self.encoder, self.posterior = nn.Sequential(*layers, nn.Linear(64, CONTEXT)), posterior
        self.logs = nn.Parameter(torch.tensor([0.5, 2.0, 0.5]).log())  # logarithms of height, width and noise

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The means of measurements, by the direction of z, and the deviation of the noise."""
        height, width, noise = self.logs.exp()
        return height * bump(nn.functional.normalize(z, dim=-1), width), noise

    def draw(self, x: Tensor, seen: Tensor, shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Latent rows from the posterior of each measurement, and their log densities, from one run."""
        context = self.encoder(torch.cat([x * seen, seen], dim=-1))
        z, log_q = self.posterior.rsample_and_log_prob(shape, context)
        return z, log_q

    def elbo(self, x: Tensor, seen: Tensor) -> Tensor:
        """The ELBO of each measurement, from one draw."""
        z, log_q = self.draw(x, seen)
        return log_likelihood(x, seen, *self.decode(z)) + normal(z).sum(-1) - log_q

    def log_joint_on_grid(self, x: Tensor, seen: Tensor) -> Tensor:
        """The values log p(x, z) of each measurement at all points of the grid."""
        return log_likelihood(x[:, None], seen[:, None], *self.decode(GRID)) + normal(GRID).sum(-1)


def train(model: Autoencoder, steps: int, rows: int, seed: int) -> float:
    """Train by the ELBO, with new measurements at every step; return the processor seconds."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    start = time.process_time()
    for _ in range(steps):
        loss = -model.elbo(*measure(rows, generator)).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
    return time.process_time() - start


def draw(path: Path, models: dict[str, Autoencoder], x: Tensor, seen: Tensor) -> None:
    """Draw a row of pictures for each model: exact posteriors of its decoder, and samples from those of its
    encoder."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2 * len(x), 2.3 * (1 + len(models))), layout="constrained")
    first, *others = figure.subplots(1 + len(models), len(x))
    for axis, row, shown in zip(first, x, seen, strict=True):
        axis.plot(row, ".", color="0.8")
        axis.plot(torch.nonzero(shown)[:, 0], row[shown > 0], "o", markersize=4)
        axis.set(ylim=(-0.7, 1.6), xticks=[], title=f"{int(shown.sum())} seen")
    for line, (name, model) in zip(others, models.items(), strict=True):
        exact = model.log_joint_on_grid(x, seen)
        side = round(len(GRID) ** 0.5)
        z, _ = model.draw(x, seen, (600,))
        for i, axis in enumerate(line):
            density = (exact[i] - exact[i].max()).exp().reshape(side, side).T
            axis.imshow(density, origin="lower", extent=(-4.5, 4.5, -4.5, 4.5), cmap="Greys")
            axis.plot(*z[:, i].T, ".", markersize=1.5, alpha=0.5)
            axis.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), xticks=[], yticks=[])
        line[0].set_ylabel(name)
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the flow's ELBO is not higher by the required gain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--posterior", choices=tuple(FLOWS), default="IAF", help="the flow beside the Gaussian (IAF)")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    models: dict[str, Autoencoder] = {}
    elbo: dict[str, float] = {}
    x, seen = measure(1000, torch.Generator().manual_seed(options.seed + 1))
    settings = {"context": CONTEXT, "transforms": 3, "hidden": (32, 32), "activation": "silu", "seed": options.seed}
    for name in ("Gaussian", options.posterior):
        torch.manual_seed(options.seed)
        flow = FLOWS[options.posterior](LATENT, **settings)
        model = models[name] = Autoencoder(Diagonal() if name == "Gaussian" else FlowModule(flow))
        seconds = train(model, options.steps, options.rows, options.seed)
        with torch.no_grad():
            elbo[name] = float(torch.stack([model.elbo(x, seen) for _ in range(20)]).mean())
            evidence = float(torch.logsumexp(model.log_joint_on_grid(x, seen), dim=1).mean()) + math.log(CELL)
        print(
            f"{name:8} ELBO {elbo[name]:.3f}, evidence of its decoder {evidence:.3f}, "
            f"KL(posterior || exact) {evidence - elbo[name]:.3f} nats   ({seconds:.1f} CPU s)"
        )
        height, width, noise = model.logs.exp().tolist()
        print(f"         height {height:.3f}, width {width:.3f}, noise {noise:.3f}")
    print(f"the truth: evidence {true_evidence(x, seen):.3f}, height {HEIGHT}, width {WIDTH}, noise {NOISE}")
    gain = elbo[options.posterior] - elbo["Gaussian"]
    print(f"the flow gains {gain:.3f} nats a measurement of {len(x)} that neither has seen")
    if options.output:
        with torch.no_grad():
            draw(options.output, models, x[:6], seen[:6])
    return 0 if gain > GAIN else 1


if __name__ == "__main__":
    sys.exit(main())
