"""Samplers of `bench.downstream`, on problems whose evidence and moments are known."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import headrace as hr
from bench.downstream.runs import Outcome, Runs, moments, timed


@dataclass
class Problem:
    """A likelihood on a cube, its evidence, and the mean and standard deviation of the first coordinate."""

    dimensions: int
    bound: float
    log_likelihood: Callable[[Any], Any]
    log_evidence: float
    mean: float
    std: float

    def judged(self, seconds: float, evidence: float, error: float, mean: float, std: float, calls: int) -> Outcome:
        """The outcome of a run; margins are wide, because they also judge a sampler's own flow."""
        summary = f"log evidence {evidence:7.2f} +- {error:.2f}  {_moments(mean, std)}  likelihoods {calls:8d}"
        if not abs(evidence - self.log_evidence) < max(6 * error, 0.5):
            return Outcome(seconds, summary, f"log evidence, expected {self.log_evidence:.2f}")
        return Outcome(seconds, summary, self.wrong_moments(mean, std))

    def wrong_moments(self, mean: float, std: float) -> str:
        """A sentence about moments that are too far from the problem's, or an empty string."""
        if not abs(mean - self.mean) < 0.3 * self.std:
            return f"mean, expected {self.mean:.2f}"
        return "" if abs(std / self.std - 1) < 0.3 else f"standard deviation, expected {self.std:.2f}"


def _moments(mean: float, std: float) -> str:
    return f"mean {mean:5.2f}  std {std:5.2f}"


def normal(dimensions: int = 3, mean: float = 1.0, std: float = 0.5, bound: float = 5.0) -> Problem:
    """The problem of a normal density well inside the cube."""
    constant = dimensions * np.log(np.sqrt(2 * np.pi) * std)
    return Problem(
        dimensions,
        bound,
        lambda x: -0.5 * (((x - mean) / std) ** 2).sum(axis=-1) - constant,
        -dimensions * np.log(2 * bound),
        mean,
        std,
    )


def rosenbrock() -> Problem:
    def log_likelihood(x: Any) -> Any:
        a, b = x[..., ::2], x[..., 1::2]
        return -(10 * (a**2 - b) ** 2 + (a - 1) ** 2).sum(axis=-1)

    # A pair's integral over the plane is pi / sqrt(10); the cube omits values above b = 10, which are one part in 1000.
    return Problem(10, 10.0, log_likelihood, 5 * np.log(np.pi / np.sqrt(10) / 400), 1.0, np.sqrt(0.5))


def mixture(
    dimensions: int = 10, away: float = 2.0, std: float = 0.5, share: float = 0.6, bound: float = 10.0
) -> Problem:
    """The problem of two normal densities at opposite points, of which one has more mass."""
    bound, constant = 10.0, dimensions * np.log(np.sqrt(2 * np.pi) * std)

    def log_likelihood(x: Any) -> Any:
        up, down = (-0.5 * (((x - place) / std) ** 2).sum(axis=-1) - constant for place in (away, -away))
        return np.logaddexp(np.log(share) + up, np.log(1 - share) + down)

    mean = (2 * share - 1) * away
    return Problem(
        dimensions, bound, log_likelihood, -dimensions * np.log(2 * bound), mean, np.sqrt(std**2 + away**2 - mean**2)
    )


def pocomc_runs(quick: bool, seed: int) -> Runs:
    import pocomc
    from scipy.stats import uniform

    from headrace.integrations.pocomc import Sampler

    problem = normal() if quick else rosenbrock()
    sizes: dict[str, int] = {"n_effective": 256, "n_active": 128} if quick else {}
    total = 512 if quick else 4096

    def run(kind: Any, flow: str) -> Outcome:
        prior = pocomc.Prior([uniform(-problem.bound, 2 * problem.bound)] * problem.dimensions)

        def whole() -> Any:
            one = kind(prior, problem.log_likelihood, vectorize=True, random_state=seed, flow=flow, **sizes)
            one.run(n_total=total, n_evidence=total, progress=False)
            return one

        seconds, one = timed(whole)
        x, weights, *_ = one.posterior()
        mean, std = moments(x[:, 0], weights)
        return problem.judged(seconds, *map(float, one.evidence()), float(mean), float(std), int(one.calls))

    for flow in ("maf3",) if quick else ("maf3", "maf6", "nsf6"):
        yield f"pocoMC {flow}, its own", lambda flow=flow: run(pocomc.Sampler, flow)
        yield f"pocoMC {flow}, headrace", lambda flow=flow: run(Sampler, flow)


def nessai_runs(quick: bool, seed: int) -> Runs:
    yield from _nessai(normal() if quick else rosenbrock(), 300 if quick else 1000, seed)


def nessai_mixture_runs(quick: bool, seed: int) -> Runs:
    yield from _nessai(mixture(2) if quick else mixture(), 500 if quick else 2000, seed)


def _nessai(problem: Problem, live: int, seed: int) -> Runs:
    from nessai.flowsampler import FlowSampler
    from nessai.model import Model

    from headrace.integrations.nessai import FlowProposal

    class Sampled(Model):  # type: ignore[misc]
        def __init__(self) -> None:
            self.names = [f"x{i}" for i in range(problem.dimensions)]
            self.bounds = {name: [-problem.bound, problem.bound] for name in self.names}

        def log_prior(self, x: Any) -> Any:
            inside = np.log(self.in_bounds(x), dtype=float)
            return inside - problem.dimensions * np.log(2 * problem.bound)

        def log_likelihood(self, x: Any) -> Any:
            return problem.log_likelihood(self.unstructured_view(x))

    def run(proposal: Any) -> Outcome:
        def whole() -> Any:
            with tempfile.TemporaryDirectory() as folder:
                one = FlowSampler(
                    Sampled(), output=folder, nlive=live, seed=seed, resume=False, plot=False,
                    flow_proposal_class=proposal, pytorch_threads=1, signal_handling=False,
                )  # fmt: skip
                one.run(plot=False, save=False)
            return one

        seconds, one = timed(whole)
        x = one.posterior_samples["x0"]
        calls = int(one.ns.model.likelihood_evaluations)
        evidence = float(one.log_evidence), float(one.log_evidence_error)
        return problem.judged(seconds, *evidence, float(x.mean()), float(x.std()), calls)

    yield "nessai, its own", lambda: run(None)
    yield "nessai, headrace", lambda: run(FlowProposal)


def aspire_runs(quick: bool, seed: int) -> Runs:
    """Normal densities with a uniform prior, as in aspire's basic example: a flow is fitted to draws, which are
    reweighted."""
    import torch
    from aspire import Aspire, Samples

    from headrace.integrations.aspire import HeadraceFlow

    problem = normal(3 if quick else 16, mean=2.0, std=1.0, bound=10.0)
    names = [f"x_{i}" for i in range(problem.dimensions)]
    inside = -problem.dimensions * np.log(2 * problem.bound)

    class Ours(Aspire):  # type: ignore[misc]
        """A run of aspire with a flow of headrace, which is passed as a class and not by its name."""

        def init_flow(self) -> None:
            self._flow = HeadraceFlow(
                dims=self.dims, flow_class="MAF", data_transform=transform_of(self, HeadraceFlow.xp), seed=seed
            )

    def transform_of(one: Any, xp: Any) -> Any:
        from aspire.transforms import FlowTransform

        return FlowTransform(
            parameters=names, prior_bounds=one.prior_bounds, bounded_to_unbounded=True, device=None, xp=xp
        )

    def run(kind: Any) -> Outcome:
        start = np.random.default_rng(seed).normal(2.0, 1.0, (1000 if quick else 5000, problem.dimensions))
        calls = []

        def log_likelihood(samples: Any) -> Any:
            calls.append(len(samples.x))
            return samples.xp.asarray(problem.log_likelihood(np.asarray(samples.x, float)))

        def whole() -> Any:
            torch.manual_seed(seed)
            one = kind(
                log_likelihood=log_likelihood,
                log_prior=lambda samples: samples.xp.asarray(np.full(len(samples.x), inside)),
                dims=problem.dimensions,
                parameters=names,
                prior_bounds={name: [-problem.bound, problem.bound] for name in names},
                flow_class="MAF",
            )
            one.fit(Samples(start, parameters=names), n_epochs=20 if quick else 100, lr_annealing=True)
            return one.sample_posterior(4000 if quick else 20_000, xp=np)

        seconds, found = timed(whole)
        weights = np.exp(np.asarray(found.log_w, float) - np.max(np.asarray(found.log_w)))
        x = np.asarray(found.x, float)[:, 0]
        mean, std = moments(x, weights)
        evidence = float(found.log_evidence), float(found.log_evidence_error)
        got = problem.judged(seconds, *evidence, float(mean), float(std), sum(calls))
        got.summary += f"  effective {weights.sum() ** 2 / (weights**2).sum():6.0f} of {len(x)}"
        return got

    yield "aspire MAF, its own", lambda: run(Aspire)
    yield "aspire MAF, headrace", lambda: run(Ours)


def flowmc_runs(quick: bool, seed: int) -> Runs:
    """MALA with global proposals by flows of equal sizes, trained by the same number of steps of one optimiser.

    The summary has the accepted share, which depends on the length of the training and the number of chains.
    """
    import jax
    from flowMC.resource_strategy_bundle.RQSpline_MALA import RQSpline_MALA_Bundle
    from flowMC.Sampler import Sampler

    from headrace.integrations.flowmc import use

    problem = normal(2) if quick else rosenbrock()
    chains, n = (20 if quick else 50), problem.dimensions
    loops = {"n_training_loops": 2, "n_epochs": 3} if quick else {"n_training_loops": 5, "n_epochs": 10}
    accepted_by_own = []
    sizes = {"rq_spline_n_layers": 4, "rq_spline_hidden_units": [32, 32], "rq_spline_n_bins": 8}
    sizes |= {"batch_size": 1000, "n_max_examples": 5000}
    steps = {"n_local_steps": 50, "n_global_steps": 50, "n_production_loops": 2, "mala_step_size": 0.1}

    def run(ours: bool) -> Outcome:
        def whole() -> Any:
            bundle = RQSpline_MALA_Bundle(
                rng_key=jax.random.key(seed), n_chains=chains, n_dims=n,
                logpdf=lambda x, data: problem.log_likelihood(x), **loops, **sizes, **steps,
            )  # fmt: skip
            if ours:
                sizes_of = {"transforms": 4, "hidden": (32, 32), "bins": 8, "bound": 10.0, "activation": "tanh"}
                use(bundle, hr.NSF(n, coupling=True, seed=seed, **sizes_of), shrink=0.1)
            with tempfile.TemporaryDirectory() as folder:
                one = Sampler(
                    n_dim=n, n_chains=chains, rng_key=jax.random.key(seed + 1), resource_strategy_bundles=bundle,
                    outdir=folder,
                )  # fmt: skip
                one.sample(1.0 + 0.5 * jax.random.normal(jax.random.key(seed + 2), (chains, n)), {})
            return one

        before = jax.config.jax_compilation_cache_dir
        try:
            seconds, one = timed(whole)
        finally:
            jax.config.update("jax_compilation_cache_dir", before)  # the sampler set a folder that was removed
        x = np.asarray(one.resources["positions_production"].data).reshape(-1, n)
        accepted = [_accepted(one, f"{kind}_accs_production") for kind in ("global", "local")]
        mean, std = float(x[:, 0].mean()), float(x[:, 0].std())
        wrong = problem.wrong_moments(mean, std)
        summary = f"{_moments(mean, std)}  accepted {accepted[0]:.2f} global, {accepted[1]:.2f} local"
        accepted_by_own.append(accepted[0])  # the program's own flow comes first
        too_few = accepted[0] < max(0.5 * accepted_by_own[0], 0.02)
        return Outcome(seconds, summary, wrong or ("too few global proposals are accepted" if too_few else ""))

    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    yield "flowMC, its own", lambda: run(False)
    yield "flowMC, headrace", lambda: run(True)


def _accepted(sampler: Any, name: str) -> float:
    shares = np.asarray(sampler.resources[name].data)
    return float(shares[np.isfinite(shares)].mean())
