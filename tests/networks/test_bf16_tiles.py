"""Sums in tiles have another order than sums in pairs. Kernels for AMX run with its instructions in software
(tests/amx_emulation), in separate processes. Builds for tests have these kernels as the instruction set "amx_emulated",
which is chosen only by name.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cases
import headrace as hr
import reference
from bf16_cases import IN_SOFTWARE, PARTS, sets_with_products

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("networks/test_bf16.py", "networks/test_bf16_gradients.py", "networks/test_bf16_parts.py")


@pytest.mark.long
def test_tiles_have_the_bits_of_the_reference():
    """Tiles pass the tests of products in bf16: both directions, any batch, gradients, threads, rows that are not
    finite.

    Tests that choose instruction sets themselves are left out, because they do not depend on the chosen set.
    """
    if IN_SOFTWARE not in sets_with_products():
        pytest.skip("this build, or this processor, has no kernels for tiles")
    plain = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--thin", "-k"]
    done = subprocess.run(
        [sys.executable, *plain, "tiles and not instruction", *(f"tests/{path}" for path in TESTS)],
        env={**os.environ, "HEADRACE_ISA": IN_SOFTWARE},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 50


def test_the_emulation_is_never_chosen_by_itself():
    assert IN_SOFTWARE not in hr.info()["isas"]
    used = hr.info()["isa"], hr.info()["bf16_tiles"]
    assert IN_SOFTWARE not in used or os.environ.get("HEADRACE_ISA") == IN_SOFTWARE


def summed(inputs):
    """Return a transform whose outputs are sums of its inputs, its arguments, the inputs, and the weights."""
    weights, units = cases.rows(40, inputs, "float32", "weights"), 40
    x = np.abs(cases.rows(100, inputs, "float32", "x"))
    transform = hr.transforms.Coupling.from_dense(
        [np.eye(inputs), weights.astype("float64")],
        [np.zeros(inputs), np.zeros(units)],
        passive=range(inputs),
        features=inputs + units,
        map="additive",
    )
    return transform.astype("float32"), np.hstack([x, np.zeros((100, units), "float32")]), x, weights


@pytest.mark.parametrize("inputs", [1, 31, 33, 200])
@pytest.mark.parametrize("matmul", ["bf16", "bf16x3", "bf16x6"])
def test_the_orders_of_sums_differ_by_roundings_alone(matmul, inputs):
    """The hidden layer returns its inputs; the outputs are sums of rounded values, and are not rounded again.

    Either order rounds a sum of n terms at most n + 18 + n / 32 times for each product of parts, by half an ulp.
    """
    transform, z, x, weights = summed(inputs)
    read = sum(reference.parts_of(x, PARTS[matmul])).astype("float32")
    want = reference.rounded_sums(read, weights, PARTS[matmul])
    sizes = np.abs(x).astype("float64") @ np.abs(weights).T.astype("float64")
    for n in (3, 100):
        pairs, tiles = (
            transform.to("cpu", name).forward(z[:n])[0][:, inputs:].astype("float64")
            for name in (matmul, f"{matmul}_tiles")
        )
        bound = (inputs + 18 + inputs / 32) * 2.0**-24 * 1.02 * sizes[:n]
        assert (np.abs(tiles - want[:n]) <= bound).all()
        assert (np.abs(tiles - pairs) <= 2 * bound).all()
        assert np.sqrt(np.mean(np.square((tiles - pairs) / sizes[:n]))) <= 2.0**-23
        assert inputs < 33 or (tiles != pairs).any()
