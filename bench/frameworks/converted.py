"""Models of other libraries before and after conversion.

    python -m bench.frameworks.converted [--threads 1] [--only sbi]

For an environment that has headrace and the libraries; those that are not installed are left out. Each model gets
random weights, is converted (which compares densities), and is timed in one process, a call of each in turn: drawing
10,000 rows for one context, and log densities of 1000 rows. Medians in ms.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import headrace as hr

DRAWS, ROWS, FEATURES, COLUMNS = 10_000, 1000, 10, 10

Call = Callable[[], Any]
Case = tuple[str, Call, Call, Call, Call]  # name, draws before and after, densities before and after


def zuko_cases(torch: Any) -> Iterator[Case]:
    import zuko

    context, x, c = torch.randn(COLUMNS), torch.randn(ROWS, FEATURES), torch.randn(ROWS, COLUMNS)
    for kind in ("MAF", "NSF", "RealNVP"):
        model = getattr(zuko.flows, kind)(FEATURES, COLUMNS, transforms=5, hidden_features=(64, 64))
        fast = hr.accelerate(model)

        def draws(one: Any) -> Call:
            return lambda: one(context).sample((DRAWS,))

        def densities(one: Any) -> Call:
            return lambda: one(c).log_prob(x)

        yield f"zuko {kind}", draws(model), draws(fast), densities(model), densities(fast)


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
        fast = hr.accelerate(model)

        def draws(one: Any) -> Call:
            return lambda: one.sample(DRAWS, context)

        def densities(one: Any) -> Call:
            return lambda: one.log_prob(x, c)

        name = f"nflows MAF, {'residual' if residual else 'feed-forward'} blocks"
        yield name, draws(model), draws(fast), densities(model), densities(fast)


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
        fast = hr.accelerate(model)

        def draws(one: Any) -> Call:
            return lambda: one.sample(DRAWS)

        def densities(one: Any) -> Call:
            return lambda: one.log_prob(x)

        yield f"normflows {kind}", draws(model), draws(fast), densities(model), densities(fast)


def glasflow_cases(torch: Any) -> Iterator[Case]:
    from glasflow.flows import CouplingNSF, RealNVP

    x = torch.randn(ROWS, FEATURES)
    for kind in (RealNVP, CouplingNSF):
        model = kind(FEATURES, 4, n_neurons=2 * FEATURES, linear_transform="lu").eval()
        fast = hr.accelerate(model)

        def draws(one: Any) -> Call:
            return lambda: one.sample(DRAWS)

        def densities(one: Any) -> Call:
            return lambda: one.log_prob(x)

        yield f"glasflow {kind.__name__}", draws(model), draws(fast), densities(model), densities(fast)


def sbi_cases(torch: Any) -> Iterator[Case]:
    from sbi.inference import DirectPosterior
    from sbi.neural_nets import posterior_nn
    from sbi.utils import BoxUniform

    prior = BoxUniform(-10 * torch.ones(FEATURES), 10 * torch.ones(FEATURES))
    theta, x = torch.randn(ROWS, FEATURES), torch.randn(ROWS, COLUMNS)
    for kind in ("maf", "nsf", "zuko_maf", "zuko_nsf"):
        posterior = DirectPosterior(posterior_nn(kind)(theta, x).eval(), prior)
        fast = hr.accelerate(posterior)

        def draws(one: Any) -> Call:
            return lambda: one.sample((DRAWS,), x=x[:1], show_progress_bars=False)

        def densities(one: Any) -> Call:
            return lambda: one.log_prob(theta, x=x[:1], norm_posterior=False)

        yield f"sbi {kind}, posterior", draws(posterior), draws(fast), densities(posterior), densities(fast)


LIBRARIES: dict[str, Callable[[Any], Iterator[Case]]] = {
    "zuko": zuko_cases,
    "nflows": nflows_cases,
    "normflows": normflows_cases,
    "glasflow": glasflow_cases,
    "sbi": sbi_cases,
}


def in_turn(calls: list[Call], seconds: float) -> list[float]:
    """The median of each, in ms; each is called at least three times."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    end = time.perf_counter() + seconds
    while len(times[0]) < 3 or time.perf_counter() < end:
        for kept, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            call()
            kept.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(kept) for kept in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=LIBRARIES, help="one library")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each pair")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    hr.set_num_threads(options.threads)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    print(f"float32, {FEATURES} features, {options.threads} threads; ms before / after = ratio")
    for name, cases in LIBRARIES.items():
        if options.only not in (None, name) or importlib.util.find_spec(name) is None:
            continue
        for kind, *calls in cases(torch):
            with torch.no_grad():
                pairs = [in_turn(calls[:2], options.seconds), in_turn(calls[2:], options.seconds)]
            shown = [f"{before:8.2f} / {after:7.3f} = {before / after:6.1f}" for before, after in pairs]
            print(f"{kind:32} {DRAWS} draws {shown[0]}   {ROWS} densities {shown[1]}", flush=True)


if __name__ == "__main__":
    main()
