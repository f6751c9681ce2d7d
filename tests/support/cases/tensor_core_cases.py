"""Cases for matrix products on tensor cores: values that are exact in TF32, and TF32 rounding in NumPy."""

from dataclasses import replace

import numpy as np
import pytest

import cases
import gradients
from cuda_twins import Twin

BITS = 11  # significant bits of a factor in TF32
ROUNDING = 2.0**-BITS

every_kind = pytest.mark.parametrize("matmul", ["tf32", "3xtf32"])


def rounded(x):
    """Values rounded to the nearest TF32 value, ties away from zero."""
    mantissa, exponent = np.frexp(np.asarray(x, float))
    scaled = mantissa * 2**BITS
    return np.ldexp(np.trunc(scaled + np.copysign(0.5, scaled)), exponent - BITS)


def small(dense):
    """A network with the masks of the given network, weights of -1, 0 and 1, and integer biases."""
    generator = cases.rng("small", *dense.weights[0].shape)
    choose = lambda arrays, *numbers: [generator.choice(numbers, a.shape).astype("float32") for a in arrays]  # noqa: E731
    return replace(dense, weights=choose(dense.weights, -1, 0, 0, 1), biases=choose(dense.biases, -2, -1, 0, 1, 2))


def whole(n, features, *key):
    return cases.rng("whole", n, features, *key).integers(-3, 4, (n, features)).astype("float32")


# Layers so wide that a warp has eight blocks of sums, or computes one, two or four blocks at a time; the last blocks of
# sums are partial.
WIDE = {"features": 5, "hidden": (300, 140, 101)}


def one_product(device):
    """``(twin, weights, biases, x, context)`` for a network of one layer on the device, whose outputs are shifts."""
    dense = cases.made(19, (), context=4, outputs=("shift",)).astype("float32")
    library = gradients.masked(dense, map="additive", reads="data", formula="to_data").library
    weights = np.where(dense.masks[0], dense.weights[0], 0).astype(float)
    x, context = cases.rows(37, 19, "float32"), cases.rows(37, 4, "float32", "context")
    return Twin(device, library, matmul="tf32"), weights, dense.biases[0].astype(float), x, context
