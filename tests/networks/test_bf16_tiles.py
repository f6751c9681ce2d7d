"""Products in tiles: the kernels for AMX with its instructions in software (tests/amx_emulation), in processes of their
own. Builds for tests have them as the instruction set "amx_emulated", which is never chosen by itself.
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
from bf16_cases import PARTS

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("networks/test_bf16.py", "networks/test_bf16_gradients.py", "networks/test_bf16_parts.py")


def run(isa, *arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "HEADRACE_ISA": isa},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
        cwd=ROOT,
    )


@pytest.fixture(scope="module", autouse=True)
def emulated():
    done = run("amx_emulated", "-c", "import headrace as hr; print(hr.info()['isa'])")
    if "HEADRACE_ISA: expected one of" in done.stderr:
        pytest.skip("this build, or this processor, has no kernels for tiles")
    assert done.stdout.split() == ["amx_emulated"], done.stderr


@pytest.mark.long
def test_bits_are_the_reference_s_in_the_order_of_tiles():
    """All that holds of products in bf16: both directions, any batch, gradients, threads, rows that are not finite.

    Tests that choose instruction sets by themselves would do here what they do elsewhere.
    """
    plain = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--thin", "-k", "not instruction")
    done = run("amx_emulated", *plain, *(f"tests/{path}" for path in TESTS))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 100


def test_it_is_never_chosen_by_itself():
    assert "amx_emulated" not in hr.info()["isas"]
    assert hr.info()["isa"] != "amx_emulated" or os.environ.get("HEADRACE_ISA") == "amx_emulated"


WORKER = """
import sys
import numpy as np
import headrace as hr

folder, *sizes = sys.argv[1:]
for size in sizes:
    given, results = np.load(f"{folder}/given {size}.npz"), {}
    for matmul in ("bf16", "bf16x3", "bf16x6"):
        transform = hr.load(f"{folder}/transform {size}").to("cpu", matmul)
        for n in (3, 100):
            results[f"{matmul} {n}"] = transform.forward(given["z"][:n])[0]
    np.savez(f"{folder}/{hr.info()['isa']} {size}.npz", **results)
"""


def test_sums_differ_by_the_order_of_additions_alone(tmp_path):
    """Of an instruction set without tiles and of that with them, each in a process."""
    sizes = (1, 31, 33, 200)
    for inputs in sizes:
        transform, z, *_ = summed(inputs)
        transform.save(tmp_path / f"transform {inputs}")
        np.savez(tmp_path / f"given {inputs}.npz", z=z)
    plain = next(isa for isa in hr.info()["isas"] if "amx" not in isa)
    for isa in (plain, "amx_emulated"):
        done = run(isa, "-c", WORKER, tmp_path, *sizes)
        assert done.returncode == 0, done.stderr
    for inputs in sizes:
        found = {}
        for isa in (plain, "amx_emulated"):
            with np.load(tmp_path / f"{isa} {inputs}.npz") as results:
                found[isa] = {name: array[:, inputs:].astype("float64") for name, array in results.items()}
        check_sums(inputs, found[plain], found["amx_emulated"])


def summed(inputs):
    """A transform whose outputs are sums of its inputs, what it is given, those inputs, and the weights."""
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


def check_sums(inputs, of_pairs, of_tiles):
    """The hidden layer hands on what it reads; the outputs are sums of rounded numbers, not rounded after it.

    Of n terms, either order rounds a sum at most n + 18 + n / 32 times for each kind of product, by half an ulp.
    """
    _, _, x, weights = summed(inputs)
    for matmul, parts in PARTS.items():
        read = sum(reference.parts_of(x, parts)).astype("float32")
        want = reference.rounded_sums(read, weights, parts)
        sizes = np.abs(x).astype("float64") @ np.abs(weights).T.astype("float64")
        for n in (3, 100):
            tiles, pairs = of_tiles[f"{matmul} {n}"], of_pairs[f"{matmul} {n}"]
            bound = (inputs + 18 + inputs / 32) * 2.0**-24 * 1.02 * sizes[:n]
            assert (np.abs(tiles - want[:n]) <= bound).all()
            assert (np.abs(tiles - pairs) <= 2 * bound).all()
            assert np.sqrt(np.mean(np.square((tiles - pairs) / sizes[:n]))) <= 2.0**-23
            assert inputs < 33 or (tiles != pairs).any()
