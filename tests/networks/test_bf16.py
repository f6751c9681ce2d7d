"""Products in bf16, of one part or several: the reference's bits, in both directions, any batch and instruction set."""

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

SIZES = (1, 2, 3, 7, 8, 9, 47, 49, 97, 200)  # numbers of rows: few, tiles, and edges of tiles


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("name", COUPLINGS)
def test_a_coupling_has_the_bits_of_the_reference(name, matmul):
    transform, judge, inputs, active, context = coupling_case(name, matmul)
    z = cases.rows(max(SIZES), inputs + active, "float32", name)
    z[:, inputs:] = 0  # from zeros an additive map gives the network's outputs
    c = cases.rows(max(SIZES), context, "float32", name, "context") if context else None
    want = judge(np.hstack([z[:, :inputs], *([c] if context else [])]))
    for n in SIZES:
        x, _ = transform.forward(z[:n], None if c is None else c[:n])
        cases.assert_same_bits(x[:, inputs:] + np.float32(0), want[:n] + np.float32(0))


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_sequential_direction_has_the_bits_of_the_reference(name, matmul):
    """Each unit has the bits of the reference in any order of its inputs: levels end inside pairs."""
    transform, judge, dense = network_case(name, matmul)
    rows = 30
    z, context = np.zeros((rows, dense.features), "float32"), cases.rows(rows, dense.context, "float32", name)
    want = np.zeros_like(z)
    for _ in range(dense.features):
        want = judge(np.hstack([want, context]))
    for n in (1, 2, 5, 7, 8, 30):
        cases.assert_same_bits(transform.forward(z[:n], context[:n])[0] + np.float32(0), want[:n] + np.float32(0))


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_both_directions_take_the_same_bits_of_the_network(name, matmul):
    transform, _, dense = network_case(name, matmul)
    z, context = np.zeros((97, dense.features), "float32"), cases.rows(97, dense.context, "float32", name)
    for n in (1, 7, 97):
        x, _ = transform.forward(z[:n], context[:n])  # x is shift + 0
        for m in (1, n):
            assert not transform.inverse(x[:m], context[:m])[0].any()  # z is shift - shift
    affine, _, dense = network_case(name, matmul, map="affine", outputs=("shift", "scale"))
    for n in (1, 7, 97):
        x, log_det = affine.forward(z[:n], context[:n])
        back, other = affine.inverse(x, context[:n])
        assert not back.any()
        cases.assert_same_bits(log_det, -other)


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("reads", cases.READS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_has_the_same_bits_in_any_batch(name, reads, matmul):
    """The map is additive, so that its rounding is the same on every path."""
    transform, _, dense = network_case(name, matmul, reads=reads)
    z, context = cases.rows(200, dense.features, "float32", name), cases.rows(200, dense.context, "float32", name)
    for way in (transform.forward, transform.inverse):
        want, log_det = way(z, context)
        assert not log_det.any()
        for n in SIZES:
            cases.assert_same_bits(way(z[:n], context[:n])[0], want[:n])
        for n in (1, 7, 8, 100):  # all rows share one context
            cases.assert_same_bits(way(z[:n], context[0])[0], way(z[:n], np.repeat(context[:1], n, axis=0))[0])


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("activation", ["tanh", "silu", "softplus", "leaky_relu", "sigmoid"])
def test_other_activations_have_the_same_bits_in_any_batch(activation, matmul):
    """The path for few rows rounds values immediately, and gives equal bits; levels end inside vectors of units."""
    for made in (
        hr.transforms.MaskedAutoregressive(11, (45, 37), map="additive", activation=activation),
        hr.transforms.MaskedAutoregressive(5, (16, 16), map="additive", activation=activation, residual=True),
        hr.transforms.Coupling(6, [0, 1], (33, 20), map="additive", activation=activation),
    ):
        transform = cases.randomise(made.to("cpu", matmul))
        z = cases.rows(200, transform.features, "float32", activation)
        for way in (transform.forward, transform.inverse):
            want, _ = way(z)
            for n in SIZES:
                cases.assert_same_bits(way(z[:n])[0], want[:n])


@pytest.mark.parametrize("matmul", PARTS)
def test_four_to_seven_rows_of_small_networks_take_the_path_of_eight_level_by_level(matmul):
    """Four to seven rows have the bits of eight rows, even in the log density, whose order of terms depends on the
    path."""
    flow = cases.randomise(hr.MAF(5, hidden=(20, 18), matmul=matmul))
    value, log_prob = flow.sample_and_log_prob(8, seed=3)
    for n in (4, 5, 6, 7):
        few, of_few = flow.sample_and_log_prob(n, seed=3)
        cases.assert_same_bits(few, value[:n])
        cases.assert_same_bits(of_few, log_prob[:n])


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_few_rows_are_those_of_many_to_rounding(name, matmul):
    """Maps may round differently in few rows, so that in some rows a value has another rounding to bf16."""
    transform, _, dense = network_case(name, matmul, map="affine", outputs=("shift", "scale"))
    z, context = cases.rows(200, dense.features, "float32", name), cases.rows(200, dense.context, "float32", name)
    for way in (transform.forward, transform.inverse):
        want, log_det = way(z, context)
        for n in (1, 4, 7):
            got = [way(z[i : i + n], context[i : i + n]) for i in range(0, 140, n)]
            value, other = (np.concatenate(parts)[:140] for parts in zip(*got, strict=True))
            error = np.abs(value - want[:140]).max(axis=1) / (1 + np.abs(want[:140]).max(axis=1))
            near = error < 1e-5
            assert near.mean() > 0.9
            cases.assert_close(other[near], log_det[:140][near], magnitude=4.0)


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("scale", ["soft_clamp", "exp"])
@pytest.mark.parametrize("name", NETWORKS)
def test_values_and_log_determinants_are_those_of_the_map(name, scale, matmul):
    """Values are computed from the reference's network outputs: with these fixed, the Jacobian is that of the map."""
    transform, judge, dense = network_case(name, matmul, map="affine", outputs=("shift", "scale"), scale=scale)
    x, context = cases.rows(50, dense.features, "float32", name), cases.rows(50, dense.context, "float32", name)
    whole = reference.MaskedAutoregressive(judge, scale=scale)
    cases.assert_matches(transform.inverse(x, context), whole.inverse(x, context), x, "float32")
    z, _ = transform.inverse(x, context)
    back, log_det = transform.forward(z, context)
    near = np.abs(back - x).max(axis=1) <= 1e-4 * (1 + np.abs(x).max(axis=1))  # rows of equal roundings
    assert near.mean() > 0.9
    want = whole.inverse(back, context)
    cases.assert_close(log_det, -want[1], magnitude=np.sqrt(dense.features))


@pytest.mark.parametrize("matmul", PARTS)
def test_rounding(matmul):
    """Halves are rounded to even, tiny values to zero, huge ones to infinity, and NaN stays NaN."""
    x = cases.rng("rounding").integers(0, 2**32, 4096, dtype=np.uint64).astype(np.uint32).view(np.float32)
    edges = np.array(
        [1, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.4e38, 2.0**-63, 2.0**-64, 1e-40, 0.0, -0.0], np.float32
    )
    x = np.concatenate([edges, x[np.isfinite(x)]])[:, None]
    ones = [np.ones((1, 1)), np.ones((1, 1))]
    transform = hr.transforms.Coupling.from_dense(
        ones, [np.zeros(1)] * 2, passive=[0], features=2, map="additive", activation="relu"
    )
    transform = transform.astype("float32").to("cpu", matmul)
    for n in (7, len(x)):
        z = np.hstack([np.maximum(x, 0), np.zeros_like(x)])[:n]
        with np.errstate(invalid="ignore"):
            want = sum(reference.parts_of(np.maximum(x[:n, 0], 0), PARTS[matmul]))
        got = transform.forward(z)[0][:, 1]
        is_finite = np.isfinite(want)
        assert (got[is_finite] == want[is_finite]).all()
        assert np.isnan(got[~is_finite]).all()  # rows of infinite values overflow


WORKER = """
import sys
import numpy as np
import headrace as hr

folder, *kinds = sys.argv[1:]
given, results = np.load(f"{folder}/given.npz"), {}
for kind in kinds:
    transform, flow = hr.load(f"{folder}/transform {kind}"), hr.load(f"{folder}/flow {kind}")
    for n in (1, 5, 96, 200):
        results[f"transform {kind} {n}"] = transform.forward(given["z"][:n])[0]
        results[f"log_prob {kind} {n}"] = flow.log_prob(given["x"][:n])
        results[f"to_data {kind} {n}"] = flow.to_data(given["x"][:n])[0]
np.savez(f"{folder}/{hr.info()['isa']}.npz", **results)
print(hr.info()["isa"], hr.info()["bf16"], hr.info()["bf16_tiles"], sep=", ")
"""


def test_every_instruction_set_has_the_same_bits(tmp_path):
    """Networks have equal bits in every set, and whole flows in the widest set, for each sort of its products.

    Each instruction set, including AMX in software if the build has it, runs in one process for all modes of `matmul`.
    """
    z = cases.rows(200, 32, "float32")
    z[:, 20:] = 0  # the map of a zero has no rounding
    np.savez(tmp_path / "given.npz", z=z, x=cases.rows(200, 9, "float32"))
    for kind in PARTS:
        transform = hr.transforms.Coupling(32, range(20), (70, 101), map="additive").to("cpu", kind)
        cases.randomise(transform).save(tmp_path / f"transform {kind}")
        cases.randomise(hr.MAF(9, transforms=3, hidden=(37, 20), matmul=kind)).save(tmp_path / f"flow {kind}")
    found = {}
    for isa in sets_with_products():
        done = subprocess.run(
            [sys.executable, "-c", WORKER, str(tmp_path), *PARTS],
            env={**os.environ, "HEADRACE_ISA": isa},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        products = "native" if isa.endswith(("_bf16", "_amx")) else "emulated"
        products = "native for few rows" if isa.endswith("_bf16_few") else products
        assert done.stdout.strip().split(", ") == [isa, products, isa]
        with np.load(tmp_path / f"{isa}.npz") as results:
            found[isa] = dict(results)
    first, wide = next(iter(found.values())), found[widest_set()]
    for isa, results in found.items():
        for kind, n in itertools.product(PARTS, (1, 5, 96, 200)):
            cases.assert_same_bits(results[f"transform {kind} {n}"], first[f"transform {kind} {n}"])
        if "_" in isa:
            for name, array in wide.items():
                cases.assert_same_bits(results[name], array)


@pytest.mark.parametrize("matmul", PARTS)
@pytest.mark.parametrize("name", ["odd degrees", "many levels"])
def test_hard_rows_spoil_only_themselves(name, matmul):
    transform, _, dense = network_case(name, matmul, map="affine", outputs=("shift", "scale"))
    x, context = cases.rows(100, dense.features, "float32"), cases.rows(100, dense.context, "float32")
    for way in (transform.forward, transform.inverse):
        bad = x.copy()
        bad[3, 0], bad[50, -1], bad[71, 0], bad[98] = np.nan, np.inf, -np.inf, 1e38
        for n in (5, 100):
            want, log_det = way(x[:n], context[:n])
            got, other = way(bad[:n], context[:n])
            good = [i for i in range(n) if i not in (3, 50, 71, 98)]
            cases.assert_same_bits(got[good], want[good])
            cases.assert_same_bits(other[good], log_det[good])
            for i in (3, 50, 71):
                assert i >= n or (np.isnan(got[i]).all() and np.isnan(other[i]))
        hard = cases.hard_rows(dense.features, "float32")
        value, own = way(hard, context[: len(hard)])
        assert (np.isfinite(value).all(axis=1) == np.isfinite(own)).all()


@pytest.mark.parametrize("matmul", PARTS)
def test_threads_change_no_bit(matmul):
    flow = cases.randomise(hr.RealNVP(11, transforms=3, hidden=(40, 24), matmul=matmul))
    x = cases.rows(3001, 11, "float32")
    with hr.threads(1):
        want = flow.log_prob(x)
    for n in (2, 5):
        with hr.threads(n):
            cases.assert_same_bits(flow.log_prob(x), want)
