"""Transforms whose matrix products are in bf16, with the references of their networks."""

import os
import subprocess
import sys

import cases
import headrace as hr
import reference

COUPLINGS = {  # for each coupling: its passive coordinates, hidden layers, active coordinates and columns of context
    "odd everywhere": (3, (17, 13), 2, 1),
    "one pair": (2, (2,), 1, 0),
    "one input": (1, (5,), 3, 0),
    "wide": (20, (70, 101), 12, 5),
    "wider than a register block of units": (5, (300,), 20, 0),
    "context alone": (0, (9, 8), 3, 3),
}

NETWORKS = {  # networks by name, as keywords of cases.made
    "odd degrees": {"features": 7, "hidden": (17, 24, 13), "context": 2},
    "one unit a level": {"features": 12, "hidden": (12, 11), "context": 1},
    "three coordinates a level": {"features": 8, "per_level": 3, "context": 3},
    "zeros inside the staircase": {"features": 9, "change": cases.pin_zeros, "context": 2},
    "dead units": {"change": cases.kill_units, "context": 1},
    "many levels": {"features": 64, "hidden": (96, 80), "gain": 1.0, "context": 2},
    "wide levels": {"features": 3, "hidden": (130, 90), "context": 4},
    "several panels of units": {"features": 12, "hidden": (290, 275), "context": 1},
    "one feature": {"features": 1, "hidden": (6, 5), "context": 2},
    "panels": {"features": 40, "hidden": (50,), "context": 1},
}


PARTS = {
    f"{name}{order}": parts for order in ("", "_tiles") for parts, name in enumerate(("bf16", "bf16x3", "bf16x6"), 1)
}
# An instruction set that emulates the tiles of AMX, in builds for tests alone, used where HEADRACE_ISA names it.
IN_SOFTWARE = "amx_emulated"


def widest_set():
    """The widest instruction set without products in bf16: ``v4``, to which ``v4_bf16`` adds such products."""
    return [isa for isa in hr.info()["isas"] if "_" not in isa][-1]


def sets_with_products():
    """The instruction sets that this machine has, and ``amx_emulated`` where this build has it."""
    environment = {**os.environ, "HEADRACE_ISA": IN_SOFTWARE}
    done = subprocess.run([sys.executable, "-c", "import headrace"], env=environment, capture_output=True, check=False)
    return [*hr.info()["isas"], *([IN_SOFTWARE] if done.returncode == 0 else [])]


def judge_of(arrays, orders, matmul):
    return reference.RoundedNetwork(*arrays, orders, PARTS[matmul], matmul.endswith("_tiles"))


def coupling_case(name, matmul="bf16"):
    inputs, hidden, active, context = COUPLINGS[name]
    dense = cases.dense_network(inputs, hidden, active, context, outputs=("shift",), key=(name,)).astype("float32")
    passive = list(range(inputs))
    made = hr.transforms.Coupling.from_dense(
        *dense.arrays[:2], passive=passive, features=inputs + active, context=context, map="additive"
    )
    orders = reference.sorted_units(dense.masks, inputs, 1, passive)
    judge = judge_of(dense.arrays, orders, matmul)
    return made.to("cpu", matmul), judge, inputs, active, context


def network_case(name, matmul="bf16", **settings):
    dense = cases.made(outputs=settings.pop("outputs", ("shift",)), key=(name,), **NETWORKS[name]).astype("float32")
    made = hr.transforms.MaskedAutoregressive.from_dense(
        *dense.arrays, context=dense.context, **{"map": "additive", **settings}
    )
    orders = reference.sorted_units(dense.masks, dense.features, len(dense.outputs))
    judge = judge_of(dense.arrays, orders, matmul)
    return made.to("cpu", matmul), judge, dense
