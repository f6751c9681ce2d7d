"""Models of other libraries before and after conversion.

    python -m bench.frameworks.converted [--threads 1] [--only sbi] [--rows 1000] [--draws 10000]

Run the program in an environment that has headrace and the libraries; those that are not installed are left out. Each
model gets random weights, is converted (which compares densities), and is timed in one process, by calls of model and
converted form in turn: samples for one context, and log densities of rows. Times are medians of processor time in ms.

``--float32`` prints the errors that a model in float64 gets in float32: the largest difference of the log densities of
1000 standard normal rows, beside their median, and processor times of both in ms.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import headrace as hr

DRAWS, ROWS, FEATURES, COLUMNS = 10_000, 1000, 10, 10

Call = Callable[[], Any]
Case = tuple[str, Any, Callable[[Any], Any], Callable[[Any], Any]]
"""The name, the model, and two calls of the model or of its converted form: samples for one context, densities of
rows."""


def zuko_cases(torch: Any) -> Iterator[Case]:
    import zuko

    context, x, c = torch.randn(COLUMNS), torch.randn(ROWS, FEATURES), torch.randn(ROWS, COLUMNS)
    for kind in ("MAF", "NSF", "RealNVP"):
        model = getattr(zuko.flows, kind)(FEATURES, COLUMNS, transforms=5, hidden_features=(64, 64))
        yield f"zuko {kind}", model, lambda one: one(context).sample((DRAWS,)), lambda one: one(c).log_prob(x)


def nflows_cases(torch: Any) -> Iterator[Case]:
    from nflows import distributions, flows, transforms

    context, x, c = torch.randn(1, COLUMNS), torch.randn(ROWS, FEATURES), torch.randn(ROWS, COLUMNS)
    for residual in (False, True):
        chain: list[Any] = []
        for _ in range(5):
            chain.append(transforms.ReversePermutation(FEATURES))
            made = transforms.MaskedAffineAutoregressiveTransform(FEATURES, 64, COLUMNS, use_residual_blocks=residual)
            chain.append(made)
        base = distributions.StandardNormal([FEATURES])
        model = flows.Flow(transforms.CompositeTransform(chain), base).eval()
        name = f"nflows MAF, {'residual' if residual else 'feed-forward'} blocks"
        yield name, model, lambda one: one.sample(DRAWS, context), lambda one: one.log_prob(x, c)


def normflows_cases(torch: Any) -> Iterator[Case]:
    import normflows as nf

    x = torch.randn(ROWS, FEATURES)
    chains = {
        "NSF": [nf.flows.AutoregressiveRationalQuadraticSpline(FEATURES, 2, 64) for _ in range(5)],
        "coupling NSF": [
            nf.flows.CoupledRationalQuadraticSpline(FEATURES, 2, 64, reverse_mask=i % 2) for i in range(5)
        ],
    }
    for kind, chain in chains.items():
        model = nf.NormalizingFlow(nf.distributions.DiagGaussian(FEATURES), chain).eval()
        yield f"normflows {kind}", model, lambda one: one.sample(DRAWS), lambda one: one.log_prob(x)
    yield telescope(torch)


def telescope(torch: Any) -> Case:
    """A model in the form of a gamma-ray telescope's response: splines with a base whose mean and scale a network
    computes."""
    import normflows as nf

    n = 4
    sizes = [n, 64, 64, 64]
    layers = [part for i in range(3) for part in (torch.nn.Linear(*sizes[i : i + 2]), torch.nn.ReLU())]
    encoder = torch.nn.Sequential(*layers, torch.nn.Linear(64, 2 * n))
    spline = partial(nf.flows.AutoregressiveRationalQuadraticSpline, n, 2, 64, num_context_channels=n, num_bins=16)
    chain = [part for _ in range(4) for part in (spline(), nf.flows.LULinearPermute(n))]
    base = nf.distributions.base.ConditionalDiagGaussian(n, encoder)
    model = nf.ConditionalNormalizingFlow(base, chain).eval()
    x, c = torch.randn(ROWS, n), torch.randn(ROWS, n)
    context = torch.randn(1, n).expand(DRAWS, n)
    return "normflows, telescope", model, lambda one: one.sample(DRAWS, context), lambda one: one.log_prob(x, c)


def glasflow_cases(torch: Any) -> Iterator[Case]:
    from glasflow.flows import CouplingNSF, RealNVP

    x = torch.randn(ROWS, FEATURES)
    for kind in (RealNVP, CouplingNSF):
        model = kind(FEATURES, 4, n_neurons=2 * FEATURES, linear_transform="lu").eval()
        yield f"glasflow {kind.__name__}", model, lambda one: one.sample(DRAWS), lambda one: one.log_prob(x)


def sbi_cases(torch: Any) -> Iterator[Case]:
    from sbi.inference import DirectPosterior
    from sbi.neural_nets import posterior_nn
    from sbi.utils import BoxUniform

    prior = BoxUniform(-10 * torch.ones(FEATURES), 10 * torch.ones(FEATURES))
    theta, x = torch.randn(ROWS, FEATURES), torch.randn(ROWS, COLUMNS)

    def draws(one: Any) -> Any:
        return one.sample((DRAWS,), x=x[:1], show_progress_bars=False)

    def densities(one: Any) -> Any:
        return one.log_prob(theta, x=x[:1], norm_posterior=False)

    for kind in ("maf", "nsf", "zuko_maf", "zuko_nsf"):
        posterior = DirectPosterior(posterior_nn(kind)(theta, x).eval(), prior)
        yield f"sbi {kind}, posterior", posterior, draws, densities


LIBRARIES: dict[str, Callable[[Any], Iterator[Case]]] = {
    "zuko": zuko_cases,
    "nflows": nflows_cases,
    "normflows": normflows_cases,
    "glasflow": glasflow_cases,
    "sbi": sbi_cases,
}


def in_turn(calls: list[Call], seconds: float) -> list[float]:
    """The median time of each call in ms; each call is made at least three times."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    end = time.perf_counter() + seconds
    while len(times[0]) < 3 or time.perf_counter() < end:
        for kept, call in zip(times, calls, strict=True):
            start = time.process_time()
            call()
            kept.append(1e3 * (time.process_time() - start))
    return [statistics.median(kept) for kept in times]


def single(name: str, model: Any) -> None:
    """Print a line for a model in float64 beside its flow in float32."""
    exact = hr.accelerate(model.double())._module().flow
    flows = exact, exact.astype("float32")
    x, rows = np.random.default_rng(0).standard_normal((2, ROWS, FEATURES))
    x, context = x[:, : exact.features], rows[:, : exact.context] if exact.context else None
    times: list[list[float]] = [[], []]
    for _ in range(20):
        for kept, flow in zip(times, flows, strict=True):
            given = [None if a is None else a.astype(flow.dtype) for a in (x, context)]
            start = time.process_time()
            flow.log_prob(*given)
            kept.append(1e3 * (time.process_time() - start))
    one, other = (np.asarray(flow.log_prob(x, context), np.float64) for flow in flows)
    before, after = map(statistics.median, times)
    print(
        f"{name:32} {np.abs(one - other).max():.1e} of {np.median(np.abs(one)):.1f} nats "
        f"{before:6.2f} / {after:6.2f} = {before / after:.2f}",
        flush=True,
    )


def main() -> None:
    """Print a line for each model."""
    global ROWS, DRAWS
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=LIBRARIES, help="one library")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each pair")
    parser.add_argument("--float32", action="store_true", help="of models in float64 the cost of float32")
    parser.add_argument("--rows", type=int, default=ROWS, help="of log densities")
    parser.add_argument("--draws", type=int, default=DRAWS)
    options = parser.parse_args()
    ROWS, DRAWS = options.rows, options.draws
    import torch

    torch.set_num_threads(options.threads)
    hr.set_num_threads(options.threads)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    kind = "float64" if options.float32 else "float32"
    print(f"{kind}, {FEATURES} features, {options.threads} threads; ms before / after = ratio")
    for name, cases in LIBRARIES.items():
        if options.only not in (None, name) or importlib.util.find_spec(name) is None:
            continue
        for kind, model, draws, densities in cases(torch):
            if options.float32:
                if name != "sbi":
                    single(kind, model)
                continue
            both = model, hr.accelerate(model)
            with torch.no_grad():
                pairs = [in_turn([partial(call, one) for one in both], options.seconds) for call in (draws, densities)]
            shown = [f"{before:8.2f} / {after:7.3f} = {before / after:6.1f}" for before, after in pairs]
            print(f"{kind:32} {DRAWS} draws {shown[0]}   {ROWS} densities {shown[1]}", flush=True)


if __name__ == "__main__":
    main()
