"""Hamiltonian Monte Carlo through a flow: NUTS on a funnel, plain and transported (NeuTra), in JAX with numpyro.

Neal's funnel has a coordinate v, normal with deviation 3, and others that are normal with deviation exp(v / 2): no step
size suits both its neck and its mouth. A flow is fitted to the density (`hr.fit_to_density`), and NUTS samples z, where
x = flow(z) has the funnel's density (Hoffman et al. 2019): the density of z is nearly a standard normal. The flow is
frozen (`headrace.jax.freeze`), and numpyro's compiled code calls it. The flow need not be exact, because NUTS corrects
for its error.

The example prints the effective samples of v, in all and for each thousand gradients of the density, and the errors of
the moments of v.

    python examples/neutra.py [--draws 1000] [--fit-steps 1500] [--seed 0] [--output neutra.png]

`--output` draws both samples and needs matplotlib.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpyro
from jax import numpy as jnp
from numpy.typing import NDArray
from numpyro.diagnostics import effective_sample_size

import headrace as hr
import headrace.jax as hj

FEATURES, DEVIATION = 6, 3.0
GAIN = 2.0  # the least factor over the effective samples a gradient of plain NUTS


def log_density(x: Any) -> Any:
    """The log density of rows (..., features), the first of which is v, up to a constant."""
    v = x[..., 0]
    others = -0.5 * (x[..., 1:] ** 2).sum(-1) * jnp.exp(-v) - 0.5 * (FEATURES - 1) * v
    return others - 0.5 * (v / DEVIATION) ** 2


def sample(potential: Callable[[Any], Any], draws: int, seed: int) -> tuple[NDArray[Any], int, float]:
    """Samples of NUTS for a potential energy, the number of gradients, and CPU seconds, compiling included."""
    kernel = numpyro.infer.NUTS(potential_fn=potential, target_accept_prob=0.9)
    run = numpyro.infer.MCMC(kernel, num_warmup=500, num_samples=draws, progress_bar=False)
    start = time.process_time()
    run.run(jax.random.key(seed), init_params=jnp.zeros(FEATURES), extra_fields=("num_steps",))
    found = np.asarray(run.get_samples())
    return found, int(run.get_extra_fields()["num_steps"].sum()), time.process_time() - start


def draw(path: Path, samples: dict[str, NDArray[Any]]) -> None:
    """Draw the first two coordinates of each sample, and v from draw to draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, len(samples))
    for one, other, (name, x) in zip(above, below, samples.items(), strict=True):
        one.plot(x[:, 1], x[:, 0], ".", markersize=3, alpha=0.5)
        one.set(title=name, xlim=(-20, 20), ylim=(-10, 10), xlabel="x1", ylabel="v")
        other.plot(x[:, 0], linewidth=0.7)
        other.set(xlabel="draw", ylabel="v", ylim=(-10, 10))
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the transport gains too little."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--fit-steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    flow = hr.IAF(FEATURES, transforms=3, hidden=(32, 32), activation="silu", seed=options.seed)
    start = time.process_time()
    fit = hr.fit_to_density(
        flow, log_density, gradient="jax", steps=options.fit_steps, seed=options.seed, progress=False
    )
    assert fit.final is not None
    share = fit.final.effective_samples / fit.final.samples
    seconds = time.process_time() - start
    print(f"flow fitted in {seconds:.1f} CPU s; effective samples of the funnel among its own: {share:.0%}")
    transport = hj.freeze(flow)

    def transported(z: Any) -> Any:
        x, log_det = transport.to_data(z)
        return -(log_density(x) + log_det)

    samples: dict[str, NDArray[Any]] = {}
    rates: dict[str, float] = {}
    for name, potential in (("plain", lambda x: -log_density(x)), ("transported", transported)):
        x, gradients, seconds = sample(potential, options.draws, options.seed)
        if name == "transported":
            x = np.asarray(flow.to_data(x)[0])
        samples[name] = x
        effective = float(effective_sample_size(x[None, :, 0]))
        rates[name] = 1000.0 * effective / gradients
        print(f"{name:12} effective samples of v {effective:6.1f} of {len(x)}, {rates[name]:6.2f} a 1000 gradients")
        print(f"{'':12} v: mean {x[:, 0].mean():.2f}, deviation {x[:, 0].std():.2f}   ({seconds:.1f} CPU s)")
    print(f"the truth:   v: mean 0, deviation {DEVIATION:.0f}")
    print(f"a gradient of the transported chain is worth {rates['transported'] / rates['plain']:.1f} of the plain one")
    if options.output:
        draw(options.output, samples)
    return 0 if rates["transported"] > GAIN * rates["plain"] else 1


if __name__ == "__main__":
    sys.exit(main())
