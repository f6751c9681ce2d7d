"""With each fast path switched off in turn, results have the bits of the path that any call can take.

Each function in `WAYS` calls a flow with one fast path switched off. docs/notes/tests.md lists the fast paths whose
equal bits other tests check.
"""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cases
import headrace as hr
import recorded

ROWS, CONTEXT = 150, 2  # at least two tiles, of which the last is not full
SETTINGS = {"context": CONTEXT, "hidden": (24, 18), "transforms": 2}


def chain(dtype):
    transforms = [
        hr.transforms.Elementwise(5, map="rq_spline", dtype=dtype),
        hr.transforms.Permutation([2, 4, 0, 1, 3]),
        hr.transforms.Linear(5, dtype=dtype),
        hr.transforms.Coupling(5, passive=[1, 3], hidden=(16,), map="logistic_mixture", context=CONTEXT, dtype=dtype),
    ]
    return hr.Flow(transforms, hr.NormalMixture(5, 3, seed=1))


FLOWS = {
    "MAF": lambda dtype: hr.MAF(5, **SETTINGS, dtype=dtype),
    "IAF": lambda dtype: hr.IAF(5, **SETTINGS, base=hr.StudentT(5), dtype=dtype),
    "RealNVP": lambda dtype: hr.RealNVP(5, **SETTINGS, base=hr.Logistic(5), dtype=dtype),
    "NSF": lambda dtype: hr.NSF(5, **SETTINGS, dtype=dtype),
    "planar": lambda dtype: hr.PlanarFlow(5, 4, CONTEXT, (24,), dtype=dtype),
    "radial": lambda dtype: hr.RadialFlow(5, 4, CONTEXT, (24,), dtype=dtype),
    "chain": chain,
}
ROUNDED = ("bf16", "bf16x3", "bf16_tiles")


def made(name, dtype="float32"):
    if name in ROUNDED:
        return cases.randomise(FLOWS["MAF"](dtype), 0.2).to("cpu", matmul=name)
    return cases.randomise(FLOWS[name](dtype), 0.2)


def calls(flow, x, context, **given):
    """Return the results of four methods of a flow, one value or vector a row."""
    results = [flow.log_prob(x, context, **given), *flow.to_latent(x, context, **given)]
    return [*results, *flow.to_data(x, context, **given), *flow.log_prob_and_score(x, context, **given)]


def in_parts(rows):
    def way(flow, x, context):
        parts = [calls(flow, x[i : i + rows], context[i : i + rows]) for i in range(0, len(x), rows)]
        return [np.concatenate(results) for results in zip(*parts, strict=True)]

    return way


def one_thread(flow, x, context):
    before = hr.get_num_threads()
    hr.set_num_threads(1)
    try:
        return calls(flow, x, context)
    finally:
        hr.set_num_threads(before)


def with_out(flow, x, context):
    """Return results that are written to arrays of the caller."""
    value, log_det = np.empty((len(x), 5), flow.dtype), np.empty(len(x), flow.dtype)
    results = calls(flow, x, context)
    results[0] = flow.log_prob(x, context, out=log_det).copy()
    for first, verb in ((1, flow.to_latent), (3, flow.to_data)):
        results[first : first + 2] = [one.copy() for one in verb(x, context, out=(value, log_det))]
    return results


WAYS = {
    "one thread": one_thread,
    "parts of 10 rows, and not whole tiles": in_parts(10),
    "columns first": lambda flow, x, c: calls(flow, np.asfortranarray(x), np.asfortranarray(c)),
    "strides": lambda flow, x, c: calls(flow, np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3], np.repeat(c, 2, 0)[::2]),
    "converted in the tile": lambda flow, x, c: calls(flow, x.astype("float64"), c.astype("float64")),
    "results in given arrays": with_out,
    "nothing made ready before": lambda flow, x, c: calls(hr.from_bytes(hr.to_bytes(flow)), x, c),
    "parameters of the call": lambda flow, x, c: calls(flow, x, c, parameters=flow.parameters),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "dtype"), [*itertools.product(FLOWS, cases.DTYPES), *((name, "float32") for name in ROUNDED)]
)
def test_a_path_switched_off_gives_the_same_bits(name, way, dtype):
    flow, x, context = made(name, dtype), cases.rows(ROWS, 5, dtype), cases.rows(ROWS, CONTEXT, dtype, "context")
    for got, want in zip(WAYS[way](flow, x, context), calls(flow, x, context), strict=True):
        cases.assert_same_bits(got, want)


@pytest.mark.parametrize("name", [*FLOWS, *ROUNDED])
def test_one_context_for_all_rows_is_one_of_each(name):
    """One context for all rows, which is added to the first biases once, gives the bits of repeated contexts."""
    flow, x, one = made(name), cases.rows(ROWS, 5, "float32"), cases.rows(1, CONTEXT, "float32", "context")
    each = np.repeat(one, ROWS, 0)
    for got, want in zip(calls(flow, x, one), calls(flow, x, each), strict=True):
        cases.assert_same_bits(got, want)
    cases.assert_same_bits(flow.sample(ROWS, one, seed=3), flow.sample(ROWS, each, seed=3))


@pytest.mark.optimised
@pytest.mark.parametrize("isa", [isa for isa in hr.info()["isas"] if isa != "v2"])  # v2 has no multiply-adds
def test_every_instruction_set_gives_the_same_bits(isa, tmp_path):
    """At least 8 rows have equal bits in every instruction set, also where products in bf16 are emulated."""
    path = tmp_path / "results.npz"
    command = [sys.executable, recorded.__file__, str(path)]
    subprocess.run(command, env={**os.environ, "HEADRACE_ISA": isa}, check=True, timeout=120)
    with np.load(path) as found, np.load(Path(__file__).with_name("recorded.npz")) as wanted:
        for key in wanted.files:
            if key.endswith(f" {recorded.ROWS}"):
                cases.assert_same_bits(found[key], wanted[key])
