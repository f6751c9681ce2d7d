"""Flows, gradients and the formula of AdamW, with which each device's Adam is tested."""

import copy

import numpy as np

import cases
import headrace as hr

STEPS = 7


def flow_of(dtype):
    flow = hr.MAF(4, context=1, transforms=2, hidden=(9, 7), base=hr.Normal(4), dtype=dtype)
    return cases.randomise(flow, 0.3)


def numbers_that_count(flow):
    """A mask of the parameter vector: true for parameters, false for padding and masked weights."""
    trial = copy.copy(flow)
    trial.parameters = np.ones_like(flow.parameters)
    return trial.parameters != 0


def matrices(flow):
    """A mask of the parameter vector: true for weights of networks, false for biases and the base's parameters."""
    trial = copy.copy(flow)
    trial.parameters = np.zeros_like(flow.parameters)
    for name, value in trial.named_parameters().items():
        if name.endswith("weight"):
            trial.set_parameter(name, np.ones_like(value))
    return trial.parameters != 0


def random_gradients(flow, n=STEPS):
    """One gradient for each step, with entries of very different magnitudes; zero at padding and masked weights."""
    generator, size = cases.rng("gradients"), flow.parameters.size
    sizes = 10.0 ** generator.uniform(-4.0, 2.0, size)
    raw = generator.standard_normal((n, size)) * sizes * numbers_that_count(flow)
    return raw.astype(flow.dtype)


def adamw(parameters, gradients, learning_rates, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.0, clip=None):
    """AdamW (Loshchilov, Hutter 2019) by the formula of torch.optim.AdamW, after clipping by the global norm.

    weight_decay: one value for all parameters, or an array with one for each.
    """
    p = parameters.astype(np.float64)
    first, second, history = np.zeros_like(p), np.zeros_like(p), []
    for t, (gradient, rate) in enumerate(zip(gradients.astype(np.float64), learning_rates, strict=True), start=1):
        if clip is not None:
            gradient = gradient * min(1.0, clip / np.linalg.norm(gradient))
        p = p * (1.0 - rate * weight_decay)
        first = betas[0] * first + (1.0 - betas[0]) * gradient
        second = betas[1] * second + (1.0 - betas[1]) * gradient**2
        unbiased = first / (1.0 - betas[0] ** t), second / (1.0 - betas[1] ** t)
        p = p - rate * unbiased[0] / (np.sqrt(unbiased[1]) + epsilon)
        history.append(p)
    return history


SETTINGS = {
    "defaults": {},
    "betas": {"betas": (0.5, 0.9)},
    "no momentum": {"betas": (0.0, 0.0)},
    "a large epsilon": {"epsilon": 0.1},
    "weight decay": {"weight_decay": 0.3},
    "clipping": {"clip": 5.0},
    "clipping that never happens": {"clip": 1e9},
    "everything": {"betas": (0.8, 0.95), "epsilon": 1e-3, "weight_decay": 0.1, "clip": 2.0},
}
