"""Derivatives of networks in bf16 are those of the rounded network, straight through its roundings, to the bit.

Additive maps round only values that the reference also rounds.
"""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

import cases
import headrace as hr
import reference
from bf16_cases import COUPLINGS, NETWORKS, PARTS, coupling_case, network_case, sets_with_products, widest_set
from pairs import pairwise

ROWS = (1, 3, 31, 64, 65, 130, 300)  # odd numbers (an incomplete pair), tiles, sums of 128 rows, and edges
ALL = ("inputs", "parameters")


def dense_of(transform, gradient):
    """Return a gradient by the parameters as dense weights and biases, in which masked weights are zero."""
    holder = transform.to("cpu")
    holder.parameters = gradient
    return holder.to_dense()[:2]


def assert_gradients(transform, gradient, want_weights, want_biases):
    weights, biases = dense_of(transform, gradient)
    for got, want in zip(weights, want_weights, strict=True):
        cases.assert_same_bits(got + np.float32(0), want.astype(np.float32) + np.float32(0))
    for got, want in zip(biases, want_biases, strict=True):
        assert np.abs(got - want).max(initial=0) <= 1e-5 * max(1.0, np.abs(want).max(initial=0))


def live(masks, by_products):
    """Set to zero the gradients of units that no output sees according to the masks."""
    alive = np.ones(len(masks[-1]), bool)
    found = []
    for mask, gradient in zip(reversed(masks), reversed(by_products), strict=True):
        found.insert(0, np.where(alive, gradient, 0))
        alive = mask[alive].any(axis=0)
    return found


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("name", COUPLINGS)
def test_a_coupling_has_the_gradients_of_the_reference(name, matmul):
    transform, judge, inputs, active, context = coupling_case(name, matmul)
    for n in ROWS:
        z = cases.rows(n, inputs + active, "float32", name, n)
        c = cases.rows(n, context, "float32", name, "context") if context else None
        grad_x = cases.rows(n, inputs + active, "float32", name, "grad")
        wrt = (*ALL, "context") if context else ALL
        by_z, gradient, *by_context = transform.forward_vjp(z, grad_x, None, c, wrt=wrt)
        read = np.hstack([z[:, :inputs], *([c] if context else [])])
        by_products, by_inputs = judge.back(read, grad_x[:, inputs:])
        want = grad_x.copy()
        want[:, :inputs] += by_inputs[:, :inputs]
        cases.assert_same_bits(by_z + np.float32(0), want + np.float32(0))
        if context:
            cases.assert_same_bits(by_context[0] + np.float32(0), by_inputs[:, inputs:] + np.float32(0))
        assert_gradients(transform, gradient, *judge.by_weights(read, by_products))


@pairwise(name=NETWORKS, sequential=[False, True], matmul=PARTS, together=("sequential", "matmul"))
def test_both_directions_have_the_gradients_of_the_reference(name, sequential, matmul):
    """Gradients of the sequential direction go level by level, and units of a level end inside a pair."""
    transform, judge, dense = network_case(name, matmul)
    features, widest = dense.features, max(map(len, dense.weights))
    slow = features >= 20 or (sequential and widest > 200)  # fewer batches, because the reference takes seconds
    for n in ROWS[1::4] if slow else ROWS:
        given = cases.rows(n, features, "float32", name, n)
        context = cases.rows(n, dense.context, "float32", name, "context")
        grad = cases.rows(n, features, "float32", name, "grad")
        wrt = (*ALL, "context")
        if sequential:
            x, _ = transform.forward(given, context)
            by_given, gradient, by_context = transform.forward_vjp(given, grad, None, context, wrt=wrt)
            read = np.hstack([x, context])
            by_built, values = grad, judge.values(read)
            for _ in range(features):
                by_products, by_read = judge.back(read, by_built, values=values)
                by_built = grad + by_read[:, :features]
            want = by_built
        else:
            by_given, gradient, by_context = transform.inverse_vjp(given, grad, None, context, wrt=wrt)
            read = np.hstack([given, context])
            by_products, by_read = judge.back(read, -grad)
            want = grad + by_read[:, :features]
        cases.assert_same_bits(by_given + np.float32(0), want + np.float32(0))
        cases.assert_same_bits(by_context + np.float32(0), by_read[:, features:] + np.float32(0))
        assert_gradients(transform, gradient, *judge.by_weights(read, live(dense.masks, by_products)))


# SUMMED: one mode of `matmul` for each network, because the reference would take seconds for all of them.
SUMMED = {"odd degrees": "bf16x6", "wide levels": "bf16_tiles", "panels": "bf16x3"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "matmul"),
    [
        pytest.param(name, matmul, marks=[] if matmul == SUMMED[name] else [pytest.mark.nightly])
        for name, matmul in itertools.product(SUMMED, PARTS)
    ],
)
def test_gradients_are_near_sums_in_float64(name, matmul):
    """Sums in float64 are of the same rounded values; where a gradient is between two values, either is right."""
    transform, judge, dense = network_case(name, matmul)
    n = 9000  # above 8192 rows sums are added in float64
    x, context = (cases.rows(n, size, "float32", name, size) for size in (dense.features, dense.context))
    grad = cases.rows(n, dense.features, "float32", name, "grad")
    by_x, gradient = transform.inverse_vjp(x, grad, None, context, wrt=ALL)
    read = np.hstack([x, context])
    by_products, by_read = judge.back(read, -grad.astype(np.float64), reference.rounded_sums)
    errors = [by_x - grad - by_read[:, : dense.features]]
    scales = [by_read]
    found = [array for arrays in dense_of(transform, gradient) for array in arrays]
    wanted = [array for arrays in judge.by_weights(read, by_products, reference.rounded_sums) for array in arrays]
    for got, want in zip(found, wanted, strict=True):
        errors.append(got - want)
        scales.append(want)
    for error, scale in zip(errors, scales, strict=True):
        size = np.sqrt(np.mean(np.square(scale)))
        assert np.quantile(np.abs(error), 0.9) <= 3e-5 * size
        assert np.abs(error).max() <= 2e-2 * size


# ---- rows, threads, instruction sets ---------------------------------------------------------------------------------

FLOWS = {
    "maf": lambda **s: hr.MAF(9, 2, transforms=3, hidden=(37, 20), **s),
    "realnvp": lambda **s: hr.RealNVP(6, 1, transforms=3, hidden=(24, 24), **s),
    "residual": lambda **s: hr.NSF(5, 2, transforms=2, hidden=(16, 16), residual=True, **s),
    "gated": lambda **s: hr.MAF(4, 3, transforms=2, hidden=hr.Network.residual((11, 11), "silu", context="gate"), **s),
    "dropout": lambda **s: hr.MAF(4, transforms=2, hidden=(16, 12), dropout=0.3, **s),
    "planar": lambda **s: hr.PlanarFlow(3, 2, context=2, hidden=(8,), **s),
}


def made(name, matmul="bf16"):
    flow = cases.randomise(FLOWS[name](matmul=matmul), 0.2, name)
    x = cases.rows(700, flow.features, "float32", name)
    return flow, x, cases.rows(700, flow.context, "float32", name, "context") if flow.context else None


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("name", FLOWS)
def test_threads_change_no_bit(name, matmul):
    flow, x, context = made(name, matmul)
    for n in (1, 40, 130, 700):
        rows, given = x[:n], None if context is None else context[:n]
        with hr.threads(1):
            want = *flow.nll_and_grad(rows, given), *flow.log_prob_and_score(rows, given)
        for threads in (2, 3, 7):
            with hr.threads(threads):
                got = *flow.nll_and_grad(rows, given), *flow.log_prob_and_score(rows, given)
            for a, b in zip(got, want, strict=True):
                cases.assert_same_bits(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("name", FLOWS)
def test_a_row_that_is_not_finite_spoils_only_itself(name, matmul):
    flow, x, context = made(name, matmul)
    want, score = flow.log_prob_and_score(x, context)
    bad = x.copy()
    bad[5, 0], bad[80, -1], bad[333, 0] = np.nan, np.inf, 1e38
    got, other = flow.log_prob_and_score(bad, context)
    good = np.setdiff1d(np.arange(len(x)), (5, 80, 333))
    cases.assert_same_bits(got[good], want[good])
    cases.assert_same_bits(other[good], score[good])
    assert np.isnan(other[[5, 80]]).all()
    nll, gradient = flow.nll_and_grad(bad, context)
    assert np.isnan(nll)
    assert np.isnan(gradient).any()


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("name", FLOWS)
def test_gradients_are_near_those_of_the_unrounded_network(name, matmul):
    flow, x, context = made(name, matmul)
    precision = {1: 1, 2: 2**-7, 3: 2**-11}[PARTS[matmul]]
    for n, most in ((1, 0.2), (2, 0.2), (700, 0.05)):
        rows, given = x[:n], None if context is None else context[:n]
        _, gradient = flow.nll_and_grad(rows, given)
        _, exact = flow.to("cpu").nll_and_grad(rows, given)
        assert np.linalg.norm(gradient - exact) < most * precision * np.linalg.norm(exact)
        assert not np.array_equal(gradient, exact)


WORKER = """
import sys
import numpy as np
import headrace as hr

folder, *names = sys.argv[1:]
for name in names:
    flow, given = hr.load(f"{folder}/{name}"), np.load(f"{folder}/{name}.npz")
    results = {}
    for n in (1, 7, 65, 300):
        x, context = given["x"][:n], given["context"][:n] if flow.context else None
        results[f"nll {n}"], results[f"gradient {n}"] = flow.nll_and_grad(x, context)
        results[f"score {n}"] = flow.log_prob_and_score(x, context)[1]
        results[f"to_data {n}"], results[f"weights {n}"] = flow.to_data_vjp(x, x, None, context)[:2]
    np.savez(f"{folder}/{name} {hr.info()['isa']}.npz", **results)
"""


@pytest.mark.costly
def test_every_kernel_has_the_same_gradients(tmp_path):
    """Each instruction set with products in bf16 runs in one process, for all flows and all modes of `matmul`."""
    wide = widest_set()
    others = [isa for isa in sets_with_products() if "_" in isa]
    if not others:
        pytest.skip("this build, or this processor, has one kind of products")
    names = []
    for name, matmul in itertools.product(["maf", "realnvp", "residual", "gated", "planar"], PARTS):
        flow, x, context = made(name, matmul)
        names.append(f"{name} {matmul}")
        flow.save(tmp_path / names[-1])
        np.savez(tmp_path / f"{names[-1]}.npz", x=x, **({} if context is None else {"context": context}))
    for isa in (wide, *others):
        command = [sys.executable, "-c", WORKER, str(tmp_path), *names]
        subprocess.run(command, env={**os.environ, "HEADRACE_ISA": isa}, timeout=240, check=True)
    for name in names:
        want = dict(np.load(tmp_path / f"{name} {wide}.npz"))
        assert len(want) == 20
        for isa in others:
            got = dict(np.load(tmp_path / f"{name} {isa}.npz"))
            for key, array in want.items():
                cases.assert_same_bits(got[key], array)
