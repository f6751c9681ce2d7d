"""Simulation-based inference with sbi, and a model of numpyro, for `bench.downstream`."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import headrace as hr
from bench.downstream.runs import Outcome, Runs, moments, timed


@dataclass
class Simulator:
    """A prior that is uniform on a cube, and a function that simulates data for draws of the prior."""

    dimensions: int
    bound: float
    simulate: Callable[[Any], Any]
    """A function from parameters to data, which uses PyTorch's generator."""
    halves: Callable[[Any], Any]
    """A function that tells which draws of the posterior of `observed` lie in one of two halves of equal
    probability."""
    observed: Any


def two_moons() -> Simulator:
    """The two moons of Greenberg and others (2019): the posterior of data (0, 0) is two crescents, mirror images of
    each other."""
    import torch

    def simulate(theta: Any) -> Any:
        angle = math.pi * (torch.rand(len(theta)) - 0.5)
        radius = 0.1 + 0.01 * torch.randn(len(theta))
        moon = torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], dim=1)
        total, difference = theta.sum(dim=1), theta[:, 1] - theta[:, 0]
        return moon + torch.stack([-total.abs(), difference], dim=1) / math.sqrt(2)

    return Simulator(2, 1.0, simulate, lambda theta: theta.sum(dim=1) > 0, torch.zeros(2))


def slcp() -> Simulator:
    """The problem SLCP of Papamakarios and others (2019): four draws of a normal density whose deviations are squares
    of parameters."""
    import torch

    def simulate(theta: Any) -> Any:
        first, second = theta[:, 2] ** 2, theta[:, 3] ** 2
        correlation = theta[:, 4].tanh()
        z = torch.randn(4, len(theta), 2)
        x = theta[:, 0] + first * z[..., 0]
        y = theta[:, 1] + second * (correlation * z[..., 0] + (1 - correlation**2).sqrt() * z[..., 1])
        return torch.stack([x, y], dim=-1).transpose(0, 1).reshape(len(theta), 8)

    draws = torch.tensor([0.7, -1.5, 0.1, -2.6, 1.3, -0.4, 1.8, -1.1])
    return Simulator(5, 3.0, simulate, lambda theta: theta[:, 2] > 0, draws)


def two_moons_runs(quick: bool, seed: int) -> Runs:
    yield from _sbi(two_moons(), 1.0, quick, seed)


def slcp_runs(quick: bool, seed: int) -> Runs:
    yield from _sbi(slcp(), -0.3 if quick else 0.5, quick, seed)  # this posterior needs many simulations


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """A context whose current folder is empty, because sbi writes logs in the current folder."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _sbi(problem: Simulator, least: float, quick: bool, seed: int) -> Runs:
    """Runs: training, 10,000 draws for one observation, and ranks for 200 others, uniform if the posterior is right.

    The held-out log density has to be above the prior's by `least` nats; a flow of headrace may not be worse than sbi's
    by more than half a nat.
    """
    import torch
    from sbi.diagnostics import run_sbc as their_sbc
    from sbi.inference import NPE
    from sbi.inference.posteriors import DirectPosterior
    from sbi.neural_nets import posterior_nn
    from sbi.utils import BoxUniform

    from headrace.integrations import sbi as ours

    prior = BoxUniform(-problem.bound * torch.ones(problem.dimensions), problem.bound * torch.ones(problem.dimensions))
    n, draws, observations, ranked = (1000, 1000, 100, 100) if quick else (10_000, 10_000, 200, 1000)
    epochs = 40 if quick else 2**31 - 1
    best: dict[str, float] = {}

    def simulated(n: int, seed: int) -> Any:
        torch.manual_seed(seed)
        theta = prior.sample((n,))
        return theta, problem.simulate(theta)

    def trained(builder: Any) -> Any:
        """Train the estimator of sbi."""
        trainer = NPE(prior, density_estimator=builder, show_progress_bars=False)
        trainer.append_simulations(*simulated(n, seed)).train(max_num_epochs=epochs)
        return trainer.build_posterior()

    def fitted() -> Any:
        """Fit a flow of headrace by `fit`, with its defaults."""
        theta, x = simulated(n, seed)
        flow = hr.NSF(theta.shape[1], context=x.shape[1], seed=seed)
        flow.fit(theta.numpy(), context=x.numpy(), seed=seed, progress=False)
        return DirectPosterior(ours.FlowEstimator(flow), prior)

    def run(label: str, found: Callable[[], Any]) -> Outcome:
        others = simulated(observations, seed + 1)
        held = simulated(1000, seed + 2)

        def whole() -> Any:
            torch.manual_seed(seed)
            posterior = found()
            drawn = posterior.sample((draws,), x=problem.observed[None], show_progress_bars=False)
            if label == "its own":
                ranks = their_sbc(*others, posterior, num_posterior_samples=ranked, show_progress_bar=False)[0]
            else:
                ranks = ours.run_sbc(*others, posterior, ranked)[0]
            return posterior, drawn, ranks

        with elsewhere():
            seconds, (posterior, drawn, ranks) = timed(whole)
        with torch.no_grad():
            log_prob = posterior.posterior_estimator.log_prob(held[0][None], held[1]).mean()
        gained = float(log_prob) + problem.dimensions * math.log(2 * problem.bound)
        if label == "its own":
            best["its own"] = gained
        half = float(problem.halves(drawn).double().mean())
        shares = (ranks.double() + 0.5) / (ranked + 1)
        away = float((shares.mean(dim=0) - 0.5).abs().max())
        summary = f"gained {gained:5.2f} nats  half {half:.2f}  ranks off by {away:.2f}, std {float(shares.std()):.2f}"
        beside = gained - best.get("its own", gained)
        return Outcome(seconds, summary, _wrong(gained - least, beside, half, away, float(shares.std())))

    theirs = posterior_nn("nsf")
    yield "sbi nsf, its own", lambda: run("its own", lambda: trained(theirs))
    yield "sbi nsf, accelerated", lambda: run("accelerated", lambda: hr.accelerate(trained(theirs)))
    yield "sbi nsf, by headrace", lambda: run("by headrace", lambda: trained(hr.accelerate(theirs)))
    yield "hr.NSF, its own fit", lambda: run("own fit", fitted)


def _wrong(above: float, beside: float, half: float, away: float, spread: float) -> str:
    """The reason why a posterior is wrong, or an empty string; a mean of ranks of 100 observations has an error of
    0.03."""
    if above < 0:
        return f"the density gained {-above:.2f} nats too few"
    if beside < -0.5:
        return f"the density is {-beside:.2f} nats worse than that of sbi's own flow"
    if not 0.2 < half < 0.8:
        return "half of the posterior, expected 0.5"
    if away > 0.12 or not 0.2 < spread < 0.36:
        return "ranks, expected uniform ones: a mean of 0.5 and a standard deviation of 0.29"
    return ""


def numpyro_runs(quick: bool, seed: int) -> Runs:
    """A posterior by NUTS whose prior is a flow of flowjax, or the converted flow.

    Moments with either prior are compared with estimates by importance weights, from draws of the converted prior.
    """
    import jax
    import numpyro
    from flowjax.distributions import Normal
    from flowjax.experimental.numpyro import sample
    from flowjax.flows import masked_autoregressive_flow
    from flowjax.train import fit_to_data
    from jax import numpy as jnp
    from numpyro.infer import MCMC, NUTS

    from headrace.integrations.numpyro import FlowDistribution
    from headrace.jax import freeze

    numbers = np.random.default_rng(seed)
    rows = numbers.standard_normal((1000 if quick else 5000, 4))
    rows[:, 1] += rows[:, 0] ** 2 - 1.0
    rows[:, 2:] = 0.6 * rows[:, 2:] + 0.5 * rows[:, :2]
    seen, noise = np.array([1.0, 0.5, 0.3, 0.2]), 0.7
    key, built = jax.random.split(jax.random.key(seed))
    flow = masked_autoregressive_flow(
        built, base_dist=Normal(jnp.zeros(4)), flow_layers=2 if quick else 5, nn_width=32, invert=True
    )
    rows_fit = jnp.asarray(rows, jnp.float32)
    flow, _ = fit_to_data(key, flow, rows_fit, max_epochs=10 if quick else 50, show_progress=False)
    converted = hr.convert.from_flowjax(flow)
    prior = FlowDistribution(freeze(converted))
    drawn = np.asarray(converted.sample(200_000, seed=seed), float)
    log_w = -0.5 * (((seen - drawn) / noise) ** 2).sum(axis=1)
    weights = np.exp(log_w - log_w.max())
    mean, std = moments(drawn, weights)

    def run(site: Callable[[], Any]) -> Outcome:
        def model() -> None:
            numpyro.sample("y", numpyro.distributions.Normal(site(), noise).to_event(1), obs=jnp.asarray(seen))

        n = 300 if quick else 2000
        mcmc = MCMC(NUTS(model), num_warmup=n, num_samples=n, progress_bar=False)
        seconds, _ = timed(lambda: (mcmc.run(jax.random.key(seed)), jax.block_until_ready(mcmc.get_samples())))
        x = np.asarray(mcmc.get_samples()["x"], float)
        off = float((np.abs(x.mean(axis=0) - mean) / std).max())
        spread = x.std(axis=0) / std
        summary = f"mean off by {off:.2f} deviations, deviations {spread.min():.2f} to {spread.max():.2f} of those"
        good = off < 0.3 and spread.min() > 0.75 and spread.max() < 1.33
        return Outcome(seconds, summary, "" if good else "moments, expected those by importance weights")

    yield "numpyro NUTS, flowjax", lambda: run(lambda: sample("x", flow))
    yield "numpyro NUTS, headrace", lambda: run(lambda: numpyro.sample("x", prior))
