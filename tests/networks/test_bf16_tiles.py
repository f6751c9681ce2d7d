"""Products in tiles: the kernels for AMX with its instructions in software (tests/amx_emulation), in processes of their
own. Builds for tests have them as the instruction set "amx_emulated", which is never chosen by itself.
"""

import os
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
@pytest.mark.parametrize("path", TESTS)
def test_bits_are_the_reference_s_in_the_order_of_tiles(path):
    """All that holds of products in bf16: both directions, any batch, gradients, threads, rows that are not finite."""
    done = run(
        "amx_emulated", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--thin", f"tests/{path}"
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout


def test_it_is_never_chosen_by_itself():
    assert "amx_emulated" not in hr.info()["isas"]
    assert hr.info()["isa"] != "amx_emulated" or os.environ.get("HEADRACE_ISA") == "amx_emulated"


WORKER = """
import sys
import numpy as np
import headrace as hr

given = np.load(sys.argv[1])
results = {}
for matmul in ("bf16", "bf16x3", "bf16x6"):
    transform = hr.load(sys.argv[2]).to("cpu", matmul)
    for n in (3, 100):
        results[f"{matmul} {n}"] = transform.forward(given["z"][:n])[0]
np.savez(sys.argv[3], **results)
"""


@pytest.mark.parametrize("inputs", [1, 31, 33, 200])
def test_sums_differ_by_the_order_of_additions_alone(inputs, tmp_path):
    """The hidden layer hands on what it reads; the outputs are sums of rounded numbers, not rounded after it.

    Of n terms, either order rounds a sum at most n + 18 + n / 32 times for each kind of product, by half an ulp.
    """
    weights, units = cases.rows(40, inputs, "float32", "weights"), 40
    x = np.abs(cases.rows(100, inputs, "float32", "x"))
    transform = hr.Coupling.from_dense(
        [np.eye(inputs), weights.astype("float64")],
        [np.zeros(inputs), np.zeros(units)],
        passive=range(inputs),
        features=inputs + units,
        map="additive",
    )
    transform.astype("float32").save(tmp_path / "transform")
    np.savez(tmp_path / "given.npz", z=np.hstack([x, np.zeros((100, units), "float32")]))
    found = {}
    plain = next(isa for isa in hr.info()["isas"] if "amx" not in isa)
    for isa in (plain, "amx_emulated"):
        done = run(isa, "-c", WORKER, tmp_path / "given.npz", tmp_path / "transform", tmp_path / f"{isa}.npz")
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / f"{isa}.npz") as results:
            found[isa] = {name: array[:, inputs:].astype("float64") for name, array in results.items()}
    for matmul, parts in PARTS.items():
        read = sum(reference.parts_of(x, parts)).astype("float32")
        want = reference.rounded_sums(read, weights, parts)
        sizes = np.abs(x).astype("float64") @ np.abs(weights).T.astype("float64")
        for n in (3, 100):
            tiles, pairs = found["amx_emulated"][f"{matmul} {n}"], found[plain][f"{matmul} {n}"]
            bound = (inputs + 18 + inputs / 32) * 2.0**-24 * 1.02 * sizes[:n]
            assert (np.abs(tiles - want[:n]) <= bound).all()
            assert (np.abs(tiles - pairs) <= 2 * bound).all()
            assert np.sqrt(np.mean(np.square((tiles - pairs) / sizes[:n]))) <= 2.0**-23
            assert inputs < 33 or (tiles != pairs).any()
