"""Proposals of a sampler without held-out rows, by the size of new weights: ``python -m bench.downstream.proposals``.

The program fits flows to 5000 rows of Rosenbrock's function in 10 dimensions, as flowMC trains them (Adam at one rate,
batches of 1000, no rows held out, no running mean), from initial weights times a factor. The program prints the
training loss, the loss on new rows, and the share of independent proposals that a chain at the target accepts.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from numpy.typing import NDArray

import headrace as hr

D = 10


def rows(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Independent draws: in each pair, a is normal, and b is normal given a."""
    a = 1 + np.sqrt(0.5) * rng.standard_normal((n, D // 2))
    x = np.empty((n, D))
    x[:, ::2], x[:, 1::2] = a, a**2 + np.sqrt(0.05) * rng.standard_normal(a.shape)
    return x


def log_density(x: NDArray[np.float64]) -> NDArray[np.float64]:
    a, b = x[:, ::2], x[:, 1::2]
    return -(10 * (a**2 - b) ** 2 + (a - 1) ** 2).sum(axis=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    new, given = rows(4000, rng), rows(5000, rng)
    entropy = 5 * np.log(np.pi / np.sqrt(10)) + 5
    print(f"entropy {entropy:.2f}\n| activation | shrink | training loss | of new rows | accepted |")
    print("| --- | --- | --- | --- | --- |")
    for activation in ("relu", "tanh"):
        for shrink in (1.0, 0.1):
            found = []
            for seed in range(args.seeds):
                flow = hr.NSF(
                    D, transforms=4, hidden=(32, 32), coupling=True, bound=10.0, activation=activation, seed=seed
                )
                flow.parameters = flow.parameters * np.float32(shrink)
                done = flow.fit(
                    given, epochs=args.epochs, patience=args.epochs, learning_rate=1e-3, batch_size=1000,
                    validation=None, schedule="constant", clip=1.0, weight_decay=0.0, average=None, progress=False,
                )  # fmt: skip
                proposed, log_q = flow.sample_and_log_prob(len(new), seed=seed, dtype="float64")
                loss = -flow.log_prob(new)
                log_ratio = log_density(proposed) - log_q - (log_density(new) + loss)
                found.append((done.train_loss[-1], loss.mean(), np.exp(np.minimum(log_ratio, 0)).mean()))
            means = " | ".join(f"{value:.2f}" for value in np.mean(found, axis=0))
            print(f"| {activation} | {shrink:g} | {means} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
