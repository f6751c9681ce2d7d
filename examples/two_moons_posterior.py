"""Two moons, a standard test of simulation-based inference (Greenberg et al. 2019), beside its exact posterior.

Two parameters θ are uniform in [-1, 1]². A measurement is a point near a small half circle, shifted by θ:

    x = (r cos a + 0.25, r sin a) + (-|θ1 + θ2|, θ2 - θ1) / √2,   a uniform in (-π/2, π/2), r normal, 0.1 ± 0.01

The sign of θ1 + θ2 is lost, so that the posterior of θ is a pair of thin crescents. A neural spline flow is fitted to
pairs (θ, x), with x as its context, so that it is p(θ | x) for every x at once. The exact posterior is known: the
likelihood is that of (r, a) up to a shift, and the evidence p(x) an integral over the half circle. The example checks

- KL(exact || flow) for x = 0, from exact samples, and its mean over new measurements;
- the mass of the flow outside of the prior, where there should be none, and its share of the upper crescent, 1/2.

    python examples/two_moons_posterior.py [--simulations 50000] [--epochs N] [--time-budget 60] \
        [--seed 0] [--output two_moons.png]

`--output` draws both posteriors and needs matplotlib.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr

RADIUS, THICKNESS, CENTRE = 0.1, 0.01, np.array([0.25, 0.0])
ROOT2 = np.sqrt(2.0)
PRIOR = 0.25  # the prior's density in [-1, 1]²
GRID = 400

Array = NDArray[np.float64]


def half_circle(n: int, rng: np.random.Generator) -> Array:
    """Random points (r cos a, r sin a) near the half circle, shape (n, 2)."""
    angle = rng.uniform(-0.5 * np.pi, 0.5 * np.pi, n)
    radius = RADIUS + THICKNESS * rng.standard_normal(n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def simulate(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Parameters and measurements, shape (n, 2) each."""
    theta = rng.uniform(-1.0, 1.0, (n, 2))
    return theta, half_circle(n, rng) + CENTRE + shift(theta)


def shift(theta: Array) -> Array:
    """The shift of measurements by their parameters."""
    return np.asarray(np.stack([-np.abs(theta[:, 0] + theta[:, 1]), theta[:, 1] - theta[:, 0]], axis=1) / ROOT2)


def log_likelihood(theta: Array, x: Array) -> Array:
    """The values log p(x | θ) of rows: the density of (r, a), divided by r for polar coordinates."""
    point = x - CENTRE - shift(theta)
    radius = np.hypot(point[:, 0], point[:, 1])
    normal = -0.5 * ((radius - RADIUS) / THICKNESS) ** 2 - np.log(THICKNESS * np.sqrt(2.0 * np.pi))
    with np.errstate(divide="ignore"):
        return np.where(point[:, 0] > 0.0, normal - np.log(np.pi * radius), -np.inf)


def parameters_of(point: Array, x: Array, sign: Any) -> Array:
    """The θ of the measurement x, if the point on the half circle is `point`; NaN where there is no such θ."""
    total = point[..., 0] + CENTRE[0] - x[..., 0]  # |θ1 + θ2| / √2
    total = sign * np.where(total >= 0.0, total, np.nan)
    difference = x[..., 1] - point[..., 1]
    return np.asarray(np.stack([total - difference, total + difference], axis=-1) / ROOT2)


def log_evidence(x: Array) -> Array:
    """The values log p(x) of rows: the prior times the share of half-circle points that have a θ, one for each sign."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    radius, angle = RADIUS + THICKNESS * nodes, np.pi * ((np.arange(512) + 0.5) / 512 - 0.5)
    point = np.stack([np.outer(radius, np.cos(angle)), np.outer(radius, np.sin(angle))], axis=-1)
    share = np.repeat(weights[:, None] / weights.sum() / angle.size, angle.size, axis=1)
    total = np.zeros(len(x))
    for sign in (1.0, -1.0):
        for i, row in enumerate(x):
            inside = (np.abs(parameters_of(point, row, sign)) <= 1.0).all(axis=-1)
            total[i] += float((share * inside).sum())
    return np.asarray(np.log(PRIOR * total))


def exact_log_prob(theta: Array, x: Array) -> Array:
    """The log density of the exact posterior of each row."""
    inside = (np.abs(theta) <= 1.0).all(axis=1)
    return np.where(inside, log_likelihood(theta, x) + np.log(PRIOR), -np.inf) - log_evidence(x)


def exact_sample(n: int, rng: np.random.Generator) -> Array:
    """Samples of the posterior for x = 0, where every point of the half circle has a θ for each sign."""
    return parameters_of(half_circle(n, rng), np.zeros(2), rng.choice([-1.0, 1.0], n))


def draw(path: Path, flow: hr.Flow) -> None:
    """Draw both posteriors for x = 0 on a grid."""
    from matplotlib.figure import Figure

    ticks = np.linspace(-0.5, 0.5, GRID)
    points = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    origin = np.zeros((1, 2))
    exact = np.exp(log_likelihood(points, origin) + np.log(PRIOR) - log_evidence(origin))
    figure = Figure(figsize=(8.4, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, title, density in zip(
        axes, ("exact", "flow"), (exact, np.exp(flow.log_prob(points, origin[0]))), strict=True
    ):
        axis.imshow(
            density.reshape(GRID, GRID), origin="lower", extent=(-0.5, 0.5, -0.5, 0.5), vmin=0.0, vmax=exact.max()
        )
        axis.set(title=f"p(θ | x = 0), {title}", xlabel="θ1")
    axes[0].set_ylabel("θ2")
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the flow differs from the exact posterior by more than the limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--simulations", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, help="as `fit` chooses by default")
    parser.add_argument("--time-budget", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    rng = np.random.default_rng((2, options.seed))
    theta, x = simulate(options.simulations, rng)
    flow = hr.NSF(features=2, context=2, activation="silu", seed=options.seed)
    start = time.perf_counter()
    history = flow.fit(theta, context=x, epochs=options.epochs, time_budget=options.time_budget, seed=options.seed)
    print(f"{len(x)} simulations, {history.epochs} epochs in {time.perf_counter() - start:.1f} s")

    origin = np.zeros(2)
    exact = exact_sample(20_000, rng)
    excess = exact_log_prob(exact, np.zeros((1, 2))) - flow.log_prob(exact, origin)
    at_origin, error = excess.mean(), excess.std() / np.sqrt(len(excess))
    print(f"KL(exact || flow) for x = 0: {at_origin:.3f} ± {error:.3f} nats")
    theta, x = simulate(2000, rng)
    excess = exact_log_prob(theta, x) - flow.log_prob(theta, x)
    mean, error = excess.mean(), excess.std() / np.sqrt(len(excess))
    prior = exact_log_prob(theta, x).mean() - np.log(PRIOR)
    print(f"KL(exact || flow), mean over measurements: {mean:.3f} ± {error:.3f} nats, of the prior {prior:.2f}")

    samples = flow.sample(20_000, origin, seed=options.seed)
    outside = float((np.abs(samples) > 1.0).any(axis=1).mean())
    upper = float((samples.sum(axis=1) > 0.0).mean())
    print(f"samples for x = 0: {outside:.4f} outside of the prior, {upper:.3f} in the upper crescent")

    if options.output:
        draw(options.output, flow)
    return 0 if mean < 0.3 and abs(upper - 0.5) < 0.1 else 1


if __name__ == "__main__":
    sys.exit(main())
