"""What fresh weights a fit should begin with.

    python -m bench.settings.initial {equal,defaults} [--what REGEX] [--seeds N]

equal: MAGIC with what zuko's own loop has in `bench.quality --what magic_equal`: batches of 512, Adam with a rate of
1e-3, 40 epochs, no decay, no clipping, no running mean.
defaults: MAGIC, 1000 rows of it and red wine, with `fit` as it comes.

Both print the mean log-likelihood of rows that took no part, in nats, in units of the training part's standard
deviations, with their standard deviation over the seeds, and the loss of the last epoch.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from bench.quality import datasets
from bench.quality.datasets import Parts

Layers = list[tuple[NDArray[np.float64], NDArray[np.float64]]]
Kind = Callable[[np.random.Generator, list[NDArray[np.bool_]]], Layers]


def normal(outputs: float = 1e-2, biases: float = 0.0) -> Kind:
    """He's variance for the inputs that a unit has, a factor for the outputs, uniform biases of the hidden layers."""

    def made(rng: np.random.Generator, masks: list[NDArray[np.bool_]]) -> Layers:
        layers = []
        for i, mask in enumerate(masks):
            last = i + 1 == len(masks)
            fan_in = np.maximum(mask.sum(axis=1, keepdims=True), 1)
            gain = outputs if last else np.sqrt(2.0)
            weights = rng.standard_normal(mask.shape) * (gain / np.sqrt(fan_in))
            spread = 0.0 if last else biases / np.sqrt(fan_in[:, 0])
            layers.append((weights * mask, rng.uniform(-1.0, 1.0, len(mask)) * spread))
        return layers

    return made


def uniform(outputs: float = 1.0, dense: bool = True, output_biases: float = 1.0) -> Kind:
    """PyTorch's: weights and biases uniform within 1 / sqrt(inputs), masked ones counted too if `dense`."""

    def made(rng: np.random.Generator, masks: list[NDArray[np.bool_]]) -> Layers:
        layers = []
        for i, mask in enumerate(masks):
            last = i + 1 == len(masks)
            fan_in = np.full((len(mask), 1), mask.shape[1]) if dense else np.maximum(mask.sum(axis=1, keepdims=True), 1)
            bound = 1.0 / np.sqrt(fan_in)
            weights = rng.uniform(-1.0, 1.0, mask.shape) * bound * (outputs if last else 1.0)
            biases = rng.uniform(-1.0, 1.0, len(mask)) * bound[:, 0] * (output_biases if last else 1.0)
            layers.append((weights * mask, biases))
        return layers

    return made


KINDS: dict[str, Kind | None] = {
    "as it comes": None,
    "no biases": normal(),
    "no biases, outputs 0.1": normal(0.1),
    "biases": normal(1e-2, 1.0),
    "biases x 2": normal(1e-2, 2.0),
    "biases, outputs 0.1": normal(0.1, 1.0),
    "PyTorch's": uniform(),
    "PyTorch's, of inputs that are": uniform(dense=False),
    "PyTorch's, outputs 0.1": uniform(0.1, output_biases=0.0),
    "PyTorch's, outputs 0.01": uniform(0.01, output_biases=0.0),
}


def begun(flow: hr.Flow, kind: Kind | None, seed: int) -> hr.Flow:
    """The flow with fresh weights of that kind; a spline's outputs keep the biases of the identity besides."""
    if kind is None:
        return flow
    for i, transform in enumerate(flow.transforms):
        if not hasattr(transform, "to_dense"):
            continue
        _, before, masks = transform.to_dense()
        for j, (weights, biases) in enumerate(kind(np.random.default_rng([seed, i]), masks)):
            name = f"transforms.{i}.layers.{j}"
            flow.set_parameter(f"{name}.weight", weights.astype(flow.dtype))
            added = before[j] if j + 1 == len(masks) else 0.0
            flow.set_parameter(f"{name}.bias", (biases + added).astype(flow.dtype))
    return flow


def _to_latent(features: int, seed: int) -> hr.Flow:
    """A MAF whose formula is zuko's, z = shift + scale x."""
    orders = (range(features), range(features - 1, -1, -1))
    chain: list[hr.transforms.Transform] = [
        hr.transforms.MaskedAutoregressive(features, order=orders[i % 2], formula="to_latent", seed=(seed, i))
        for i in range(5)
    ]
    return hr.Flow([*chain, hr.transforms.Standardize(np.zeros(features), np.ones(features))])


EQUAL = {"epochs": 40, "batch_size": 512, "learning_rate": 1e-3, "patience": 40, "schedule": "constant"}
FLOWS: dict[str, Callable[[int, int], hr.Flow]] = {
    "MAF": lambda features, seed: hr.MAF(features, seed=seed),
    "MAF, ReLU at the end": lambda features, seed: hr.MAF(features, last_activation="relu", seed=seed),
    "MAF, ReLU at the end, zuko's formula": _to_latent,
    "NSF": lambda features, seed: hr.NSF(features, seed=seed),
    "NSF, tanh at the end": lambda features, seed: hr.NSF(features, last_activation="tanh", seed=seed),
}


def tables(folder: Path, which: str) -> dict[str, Parts]:
    """Name -> rows to fit, to stop by, and to judge by."""
    magic = datasets.split(datasets.load("magic", folder))
    if which == "equal":
        return {"MAGIC": magic}
    first_fold = datasets.fold(datasets.load("magic", folder), 0, 10)
    red = datasets.fold(datasets.with_noise(datasets.load("red", folder)), 0, 10)
    whole = Parts(np.concatenate([magic.train, magic.validation]), magic.validation[:0], magic.test)
    return {
        "MAGIC, 1000 rows": Parts(first_fold.train[:1000], first_fold.validation, first_fold.test),
        "red wine": red,
        "MAGIC": whole,
    }


def fitted(flow: hr.Flow, parts: Parts, seed: int, which: str) -> tuple[float, float]:
    """Log-likelihood of the rows to judge by, and the last epoch's loss."""
    offset, keywords = parts.offset, {"gaussianize": False}
    if which == "equal":
        parts, offset = parts.standardised(), 0.0
        keywords |= {**EQUAL, "validation": parts.validation, "weight_decay": 0.0, "clip": None, "average": None}
    history = flow.fit(parts.train, seed=seed, progress=False, **keywords)
    last = history.train_loss[-1] - offset if history.train_loss else np.nan
    return float(flow.log_prob(parts.test).mean(dtype=np.float64)) + offset, last


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("equal", "defaults"))
    parser.add_argument("--what", default="", metavar="REGEX", help="only kinds of weights whose name matches")
    parser.add_argument("--flows", default="", metavar="REGEX", help="only flows whose name matches")
    parser.add_argument("--tables", default="", metavar="REGEX", help="only tables whose name matches")
    parser.add_argument("--seeds", type=int, default=3, help="fits of each (default: 3)")
    parser.add_argument("--data", type=Path, default=datasets.FOLDER, help="folder with the files of bench.quality")
    options = parser.parse_args()
    print(f"headrace {hr.__version__}, {hr.get_num_threads()} threads")
    for table, parts in tables(options.data, options.which).items():
        for family, made in FLOWS.items():
            for name, kind in KINDS.items():
                if not (
                    re.search(options.what, name)
                    and re.search(options.flows, family)
                    and re.search(options.tables, table)
                ):
                    continue
                begin = time.perf_counter()
                found = [
                    fitted(begun(made(parts.train.shape[1], seed), kind, seed), parts, seed, options.which)
                    for seed in range(options.seeds)
                ]
                values = [value for value, _ in found]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                print(
                    f"{table}, {family}, {name}: {statistics.mean(values):.3f} ± {spread:.3f}, training loss "
                    f"{statistics.mean(loss for _, loss in found):.3f}; "
                    f"{(time.perf_counter() - begin) / options.seeds:.1f} s a fit",
                    flush=True,
                )


if __name__ == "__main__":
    main()
