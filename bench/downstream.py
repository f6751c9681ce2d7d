"""Whole runs of samplers with their own flows and with headrace's: ``python -m bench.downstream [--quick]``.

For an environment that has headrace and the samplers; those that are not installed are left out. Each case is run with
both, from the same seeds, one after the other in one process and on one thread. The problem is a Gaussian with
``--quick``, else Rosenbrock's function in 10 dimensions; both have a known evidence. A run whose evidence or posterior
is wrong makes the benchmark fail. One run is one number: only large differences of times say anything.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import headrace as hr


@dataclass
class Problem:
    """A likelihood on a cube, its evidence, and the mean and standard deviation of the first coordinate."""

    name: str
    dimensions: int
    bound: float
    log_likelihood: Callable[[Any], Any]
    log_evidence: float
    mean: float
    std: float


def gaussian() -> Problem:
    constant = 3 * np.log(np.sqrt(2 * np.pi) * 0.5)
    return Problem(
        "Gaussian, 3-D",
        3,
        5.0,
        lambda x: -0.5 * (((x - 1) / 0.5) ** 2).sum(axis=-1) - constant,
        -3 * np.log(10),
        1.0,
        0.5,
    )


def rosenbrock() -> Problem:
    def log_likelihood(x: Any) -> Any:
        a, b = x[..., ::2], x[..., 1::2]
        return -(10 * (a**2 - b) ** 2 + (a - 1) ** 2).sum(axis=-1)

    # A pair's integral over the plane is pi / sqrt(10); the cube cuts off what is beyond b = 10, one part in 1000.
    return Problem(
        "Rosenbrock, 10-D", 10, 10.0, log_likelihood, 5 * np.log(np.pi / np.sqrt(10) / 400), 1.0, np.sqrt(0.5)
    )


@dataclass
class Result:
    """Of a run."""

    seconds: float
    log_evidence: float
    error: float
    mean: float
    std: float
    calls: int

    def wrong(self, problem: Problem) -> str:
        """What is, if anything: margins are wide, as a sampler's own flow is judged by them, too."""
        if not abs(self.log_evidence - problem.log_evidence) < max(6 * self.error, 0.5):
            return f"log evidence {self.log_evidence:.2f}, expected {problem.log_evidence:.2f}"
        if not abs(self.mean - problem.mean) < 0.3 * problem.std:
            return f"mean {self.mean:.2f}, expected {problem.mean:.2f}"
        if not abs(self.std / problem.std - 1) < 0.3:
            return f"standard deviation {self.std:.2f}, expected {problem.std:.2f}"
        return ""


def pocomc_runs(problem: Problem, quick: bool, seed: int) -> Iterator[tuple[str, Callable[[], Result]]]:
    import pocomc
    from scipy.stats import uniform

    from headrace.integrations.pocomc import Sampler

    sizes: dict[str, int] = {"n_effective": 256, "n_active": 128} if quick else {}
    total = 512 if quick else 4096

    def run(kind: Any, flow: str) -> Result:
        prior = pocomc.Prior([uniform(-problem.bound, 2 * problem.bound)] * problem.dimensions)
        begin = time.perf_counter()
        one = kind(prior, problem.log_likelihood, vectorize=True, random_state=seed, flow=flow, **sizes)
        one.run(n_total=total, n_evidence=total, progress=False)
        seconds = time.perf_counter() - begin
        x, weights, *_ = one.posterior()
        mean = np.average(x[:, 0], weights=weights)
        std = np.sqrt(np.average((x[:, 0] - mean) ** 2, weights=weights))
        return Result(seconds, *map(float, one.evidence()), float(mean), float(std), int(one.calls))

    for flow in ("maf3",) if quick else ("maf6", "nsf6"):
        yield f"pocoMC {flow}, its own", lambda flow=flow: run(pocomc.Sampler, flow)
        yield f"pocoMC {flow}, headrace", lambda flow=flow: run(Sampler, flow)


def nessai_runs(problem: Problem, quick: bool, seed: int) -> Iterator[tuple[str, Callable[[], Result]]]:
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

    def run(proposal: Any) -> Result:
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            one = FlowSampler(
                Sampled(), output=folder, nlive=300 if quick else 1000, seed=seed, resume=False, plot=False,
                flow_proposal_class=proposal, pytorch_threads=1, signal_handling=False,
            )  # fmt: skip
            one.run(plot=False, save=False)
            seconds = time.perf_counter() - begin
        x = one.posterior_samples["x0"]
        calls = int(one.ns.model.likelihood_evaluations)
        return Result(
            seconds, float(one.log_evidence), float(one.log_evidence_error), float(x.mean()), float(x.std()), calls
        )

    yield "nessai, its own", lambda: run(None)
    yield "nessai, headrace", lambda: run(FlowProposal)


SAMPLERS = {"pocomc": pocomc_runs, "nessai": nessai_runs}


def main() -> int:
    """Run what is installed; 1 if a result is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small problem, to see that it runs")
    parser.add_argument("--only", choices=list(SAMPLERS), help="one sampler")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    hr.set_num_threads(1)
    problem = gaussian() if args.quick else rosenbrock()
    failed = False
    print(
        f"{problem.name}, exact log evidence {problem.log_evidence:.2f}, mean {problem.mean:.2f}, std {problem.std:.2f}"
    )
    for name, cases in SAMPLERS.items():
        if args.only not in (None, name):
            continue
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not installed")
            continue
        import torch

        torch.set_num_threads(1)
        for label, run in cases(problem, args.quick, args.seed):
            got = run()
            wrong = got.wrong(problem)
            failed |= bool(wrong)
            print(
                f"{label:28s} {got.seconds:8.1f} s  log evidence {got.log_evidence:7.2f} +- {got.error:.2f}  "
                f"mean {got.mean:5.2f}  std {got.std:5.2f}  likelihoods {got.calls:8d}  {wrong and 'WRONG: ' + wrong}",
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
