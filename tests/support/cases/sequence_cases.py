"""Flows of sequences with random weights, and their judges."""

import numpy as np

import cases
import headrace as hr
import safetensors_reader

SPREAD = 0.4  # of weights: gates are far from their linear middle, and values stay of order one


def randomise(flow, *key):
    """Random weights and biases everywhere, so that no tap, unit or bias can be forgotten unseen."""
    draw = cases.rng("sequence weights", *key)
    for name, array in flow.named_parameters().items():
        fan_in = max(int(np.prod(array.shape[1:])), 1)
        spread = SPREAD if array.ndim == 1 or "head.1" in name else 2.0 * SPREAD / np.sqrt(fan_in)
        flow.set_parameter(name, (spread * draw.standard_normal(array.shape)).astype(array.dtype))
    return flow


def wavenet(*key, **more):
    """A small one; by default a teacher of one value a step."""
    options = {"layers": 5, "channels": 9, "kernel": 3, "skip": 11, "dtype": "float64"} | more
    return randomise(hr.WaveNet(options.pop("features", 1), **options), *key)


def chain(dtype="float64"):
    """Both kinds of reading in one chain, of different sizes, and transforms of rows between."""
    over_time = [
        hr.CausalConvolution(2, channels=8, dilations=[1, 4], reads="latent", context=2, dtype=dtype),
        hr.CausalConvolution(2, channels=5, kernel=4, dilations=[3], covariates=3, hop=4, dtype=dtype),
    ]
    links = [hr.Permutation([1, 0]), hr.Linear(2, "random", seed=1, dtype=dtype)]
    ends = [hr.Standardize([5.0, -1.0], [2.0, 0.5])]
    transforms = [over_time[0], *links, over_time[1], *ends]
    return randomise(hr.SequenceFlow(transforms, hr.Normal(2), dtype=dtype), "chain")


def judge_of(flow, folder):
    """The reference, from the flow's file in float64."""
    flow.astype("float64").save(folder / "judge")
    return safetensors_reader.read(folder / "judge")


def sequences(rows, steps, features=1, dtype="float64", *key):
    """Smooth ones with jumps: of several scales, as signals are."""
    draw = cases.rng("sequences", rows, steps, features, *key)
    x = np.cumsum(0.3 * draw.standard_normal((rows, steps, features)), axis=1)
    return (x - 0.5 * x.mean(axis=1, keepdims=True) + 0.2 * draw.standard_normal(x.shape)).astype(dtype)


def context_of(flow, rows):
    """One row for each sequence, or None."""
    return cases.rows(rows, flow.context, flow.dtype, "context") if flow.context else None


def covariates_of(flow, rows, steps):
    """As many frames as so many steps need, or None."""
    frames = -(-steps // flow.hop)
    if not flow.covariates:
        return None
    return cases.rng("covariates", rows, frames).standard_normal((rows, frames, flow.covariates)).astype(flow.dtype)
