"""Counts of instructions that the device's kernels execute: the tests' interpreter runs nvcc's PTX, never on a card.

    tests/cuda_emulation/ptx/make build/ptx
    export HEADRACE_EMU_PTX=$PWD/build/ptx PYTHONPATH=$PYTHONPATH:tests:tests/support:tests/support/cases
    python tests/support/ptx_counts.py                                  # prints the table of bench/gpu/model.md

One tile of 32 rows goes through each flow. The counts are of all warps of the tile's block together, and of the busiest
warp: instructions of PTX by class; passes of the load unit, through the banks of shared memory (in one pass lanes reach
different banks or one word) and through device memory (lines of 128 bytes); sectors of device memory (32 bytes).
Machine code has other instructions (addresses of 64 bits are two, moves vanish, a division is several), so that the
counts compare versions of a kernel and do not measure time.
"""

import argparse
import collections
import json
import os
from pathlib import Path

import numpy as np

import cases
import cuda_arrays
import emulation
import headrace as hr
from cuda_twins import Twin

ROWS = 32  # one tile

FLOWS = {
    "MAF 64": lambda: hr.MAF(64, transforms=5, hidden=(256, 256), dtype="float32"),
    "RealNVP 64": lambda: hr.RealNVP(64, transforms=8, hidden=(256, 256), dtype="float32"),
}
CASES = (
    ("MAF 64", "density", "exact"),
    ("MAF 64", "density", "3xtf32"),
    ("MAF 64", "sampling", "exact"),
    ("MAF 64", "sampling", "3xtf32"),
    ("RealNVP 64", "density", "exact"),
    ("RealNVP 64", "density", "3xtf32"),
    ("MAF 64", "gradient", "exact"),
    ("MAF 64", "gradient", "3xtf32"),
)
KERNELS = {"density": "run_chain<", "sampling": "run_chain<", "gradient": "there_and_back<"}
LOADS = ("shared passes", "device passes", "device sectors")

# The columns of the table, each with the interpreter's classes of instructions that the column counts.
COLUMNS = {
    "float32": ("float32",),
    "tensor": ("tensor",),
    "integers": ("integer",),
    "predicates, moves": ("predicate", "move", "convert"),
    "shared memory": ("shared load", "shared store"),
    "device memory": ("device load", "device store"),
    "control": ("control", "barrier"),
}


def run(twin, verb):
    """Send one tile of rows through the flow."""
    rows = np.random.default_rng(3).normal(size=(ROWS, twin.features)).astype("float32")
    if verb == "density":
        twin.log_prob(rows)
    elif verb == "sampling":
        twin.sample(ROWS, seed=3)
    else:
        twin.log_prob_vjp(rows, np.ones(ROWS, "float32"), wrt=("parameters",))


def counts(report, kernel):
    """The counts of each warp of a module's kernels whose names contain the word `kernel`."""
    warps = []
    for name, one in report["kernels"].items():
        if kernel not in name:
            continue
        for k, work in enumerate(one["warps"]):
            if k == len(warps):
                warps.append(collections.Counter())
            warps[k].update(work["executed"])
            warps[k].update({key: work[key] for key in LOADS})
    return warps


def executed(flow, verb, matmul):
    """The instructions of a tile, of all warps together and of the busiest warp."""
    os.environ.setdefault("PYTEST_CURRENT_TEST", "ptx_counts (call)")  # the name chooses the order of threads
    module = emulation.load()
    twin = Twin(cuda_arrays.Emulated(module), cases.randomise(FLOWS[flow](), 0.1), matmul=matmul)
    before = counts(module.ptx_report(), KERNELS[verb])
    run(twin, verb)
    warps = counts(module.ptx_report(), KERNELS[verb])
    for warp, earlier in zip(warps, before, strict=False):
        warp.subtract(earlier)
    instructions = [sum(n for key, n in warp.items() if key not in LOADS) for warp in warps]
    total = sum(warps, collections.Counter())
    return {
        "flow": flow,
        "verb": verb,
        "matmul": matmul,
        "instructions": sum(instructions),
        "busiest warp": max(instructions, default=0),
        **{key: total[key] for key in LOADS},
        **{column: sum(total[kind] for kind in kinds) for column, kinds in COLUMNS.items()},
    }


def table(found):
    """The counts, in thousands, as a table of Markdown."""
    keys = ("instructions", "busiest warp", *COLUMNS, *LOADS)
    lines = [f"| a tile, in thousands | {' | '.join(keys)} |", f"| --- |{' --- |' * len(keys)}"]
    for one in found:
        numbers = " | ".join(f"{one[key] / 1e3:.1f}" for key in keys)
        lines.append(f"| {one['flow']} {one['verb']}, {one['matmul']} | {numbers} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    parser.add_argument("--only", default="", help="cases whose names have this part, for example 'MAF 64 density'")
    given = parser.parse_args()
    if not os.environ.get("HEADRACE_EMU_PTX"):
        parser.error("HEADRACE_EMU_PTX: expected a folder of PTX (tests/cuda_emulation/ptx/make FOLDER), got none")
    found = [executed(*case) for case in CASES if given.only in " ".join(case)]
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    print(table(found))


if __name__ == "__main__":
    main()
