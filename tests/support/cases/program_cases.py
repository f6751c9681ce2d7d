"""Cases for programs on a device: sizes of batches, each side that a network reads with each formula, and chains."""

import numpy as np
import pytest

import cases
import gradients
import headrace as hr

SIZES = (0, 1, 31, 32, 33, 70)  # around a tile of 32 rows
SIDES = [(reads, formula) for reads in cases.READS for formula in cases.FORMULAS]
every_side = pytest.mark.parametrize(("reads", "formula"), SIDES)


def rotations(features, dtype):
    """A flow of rotations, dense and in blocks, with maps of dual ascent between them, like an ascent's flow."""
    turns = [hr.transforms.Rotation.random(features, seed=0), hr.transforms.Rotation.random(features, seed=1, block=4)]
    bent = [
        cases.randomise(hr.transforms.Elementwise(features, map="dual_ascent", dtype=dtype), 0.5, i) for i in range(2)
    ]
    chain = [turns[0], bent[0], hr.transforms.Permutation(np.arange(features)[::-1]), turns[1], bent[1], turns[0]]
    return hr.Flow(chain, hr.StandardNormal(features), dtype=dtype)


def splines_between_networks(dtype):
    """A flow with a step without context between networks: the context's gradient passes through that step."""
    networks = [
        hr.transforms.MaskedAutoregressive(4, context=2, hidden=(9,), dtype=dtype, seed=seed) for seed in (0, 1)
    ]
    splines = hr.transforms.Elementwise(4, map="rq_spline", dtype=dtype)
    return hr.Flow([cases.randomise(t) for t in (networks[0], splines, networks[1])], hr.StandardNormal(4))


def marginals(features, dtype):
    """A flow of fixed splines after a network, with more columns than a narrow tile has warps."""
    network = cases.randomise(hr.transforms.MaskedAutoregressive(features, hidden=(9,), dtype=dtype))
    scale = hr.transforms.Standardize(np.linspace(-1.0, 1.0, features), np.linspace(0.5, 2.0, features))
    return hr.Flow([network, hr.transforms.Gaussianize(*cases.curves(features, 9)), scale])


CHAINS = {
    "of every kind": gradients.mixed_flow,
    "of vector maps": gradients.vector_flow,
    "of linear links": gradients.linear_flow,
    "of turns and bent lines": lambda dtype: rotations(11, dtype),
    "of turns of one block": lambda dtype: rotations(3, dtype),
    "of splines between networks": splines_between_networks,
    "of marginals": lambda dtype: marginals(20, dtype),
}


def inputs_of(flow, n, dtype):
    context = cases.rows(n, flow.context, dtype, "context") if flow.context else None
    return cases.rows(n, flow.features, dtype), context
