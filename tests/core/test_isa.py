"""Every compiled instruction set gives the values of the reference; an unknown set is refused."""

import itertools
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cases
import headrace as hr
import reference
import vector_cases

# Settings that have each activation and each scale at least once, in both directions.
SETTINGS = [
    {"activation": "relu", "scale": "soft_clamp", "reads": "data", "formula": "to_data"},
    {"activation": "tanh", "scale": "exp", "reads": "latent", "formula": "to_data"},
    {"activation": "elu", "scale": "softplus", "reads": "data", "formula": "to_latent"},
    {"activation": "silu", "scale": "sigmoid", "reads": "latent", "formula": "to_latent"},
    {"activation": "gelu", "scale": "soft_clamp", "reads": "data", "formula": "to_data"},
    {"activation": "softplus", "scale": "exp", "reads": "latent", "formula": "to_data"},
]
ROWS = (3, 101)
DIRECTIONS = ("forward", "inverse")

# A worker runs in a separate process, because the instruction set is chosen when headrace is imported.
WORKER = """
import json, sys
import numpy as np
import headrace as hr

given, results = np.load(sys.argv[1]), {}
for case in json.loads(sys.argv[3]):
    key, layers = case["key"], range(3)
    arrays = [[given[f"{key} {kind} {layer}"] for layer in layers] for kind in ("weights", "biases", "masks")]
    z = given[f"{key} z"]
    transform = hr.transforms.MaskedAutoregressive.from_dense(*arrays, **case["settings"])
    for direction in ("forward", "inverse"):
        for n in case["rows"]:
            value, log_det = getattr(transform, direction)(z[:n])
            results[f"{key} {direction} {n} value"], results[f"{key} {direction} {n} log_det"] = value, log_det
for case in json.loads(sys.argv[4]):
    key, params, settings = case["key"], given[case["key"] + " params"], {"map": case["map"], **case["settings"]}
    for per_row in (False, True):
        for direction in ("forward", "inverse"):
            for n in case["rows"]:
                own = np.tile(params, (n, 1)) if per_row else params
                pair = hr.ops.vector_map(given[key + " z"][:n], own, direction=direction, **settings)
                for name, result in zip(("value", "log_det"), pair):
                    results[f"{key} {per_row} {direction} {n} {name}"] = result
for dtype in ("float32", "float64"):
    flow = hr.Flow([hr.transforms.MaskedAutoregressive(4, (4,), dtype=dtype)], hr.StandardNormal(4))[:0]
    results[f"sample {dtype}"] = flow.sample(200, seed=5)
np.savez(sys.argv[2], **results)
print(hr.info()["isa"])
"""


def run(isa, *arguments):
    return subprocess.run(
        [sys.executable, "-c", *arguments],
        env={**os.environ, "HEADRACE_ISA": isa},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("isa", hr.info()["isas"])
def test_every_instruction_set_matches_the_reference(isa, tmp_path):
    given, plan, judges = {}, [], {}
    for index, settings in enumerate(SETTINGS):
        for dtype in cases.DTYPES:
            key = f"{index} {dtype}"
            dense = cases.made(features=9, hidden=(37, 20), key=(index,)).astype(dtype)
            for kind, arrays in zip(("weights", "biases", "masks"), dense.arrays, strict=True):
                given |= {f"{key} {kind} {layer}": array for layer, array in enumerate(arrays)}
            given[f"{key} z"] = cases.rows(max(ROWS), 9, dtype)
            plan.append({"key": key, "settings": settings, "rows": ROWS})
            mirrored = {name: value for name, value in settings.items() if name != "activation"}
            judges[key] = reference.MaskedAutoregressive(dense.network(settings["activation"]), **mirrored)
    vectors = []
    for variant, (map, settings) in vector_cases.VARIANTS.items():
        for dtype in cases.DTYPES:
            key = f"{variant} {dtype}"
            given[f"{key} params"] = vector_cases.raw(map, 9, dtype)
            given[f"{key} z"] = cases.rows(max(ROWS), 9, dtype)
            vectors.append({"key": key, "map": map, "settings": settings, "rows": ROWS, "variant": variant})
    np.savez(tmp_path / "given.npz", **given)

    paths = str(tmp_path / "given.npz"), str(tmp_path / "results.npz")
    done = run(isa, WORKER, *paths, json.dumps(plan), json.dumps(vectors))

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [isa]
    with np.load(tmp_path / "results.npz") as results:
        for key, judge in judges.items():
            z = given[f"{key} z"]
            for direction in ("forward", "inverse"):
                value, log_det = getattr(judge, direction)(z)
                for n in ROWS:
                    got = results[f"{key} {direction} {n} value"], results[f"{key} {direction} {n} log_det"]
                    cases.assert_matches(got, (value[:n], log_det[:n]), z[:n], z.dtype)
        for case, per_row, direction, n in itertools.product(vectors, (False, True), DIRECTIONS, ROWS):
            key, z = case["key"], given[case["key"] + " z"][:n]
            got = [results[f"{key} {per_row} {direction} {n} {name}"] for name in ("value", "log_det")]
            judge = vector_cases.judge(case["variant"], given[f"{key} params"])
            vector_cases.check(lambda _, got=got: got, getattr(judge, direction), z, z.dtype)
        for dtype in cases.DTYPES:
            flow = hr.Flow([hr.transforms.MaskedAutoregressive(4, (4,), dtype=dtype)], hr.StandardNormal(4))[:0]
            cases.assert_close(results[f"sample {dtype}"], flow.sample(200, seed=5))


def test_the_chosen_instruction_set_is_one_of_the_compiled_ones():
    info = hr.info()
    assert info["isa"] in info["isas"]
    assert len(set(info["isas"])) == len(info["isas"])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have one build")
def test_a_set_that_was_not_built_is_named():
    """`info` names the best instruction set of the processor, by the features that Linux lists, if it was not built."""
    flags = set(re.search(r"(?m)^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text())[1].split())
    best = "v2"
    if flags >= {"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}:
        best = "v3"
        if flags >= {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}:
            best = "v4"
    info = hr.info()
    lacks = not {best, "native"} & set(info["isas"])
    assert info["isa_not_built"] == (best if lacks else "")


@pytest.mark.parametrize("isa", ["v9", "avx", "4"])
def test_an_unknown_instruction_set_is_refused_at_import(isa):
    done = run(isa, "import headrace")
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "HEADRACE_ISA" in done.stderr
    assert isa in done.stderr


def test_an_unsupported_instruction_set_is_refused_at_import():
    unsupported = sorted({"v2", "v3", "v4", "v4_amx"} - set(hr.info()["isas"]))
    if not unsupported:
        pytest.skip("this machine runs every instruction set")
    for isa in unsupported:
        done = run(isa, "import headrace")
        assert done.returncode != 0
        assert "ImportError" in done.stderr
        assert isa in done.stderr
