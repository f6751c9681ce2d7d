"""The counts of executed PTX: sums over warps, and one line for each case."""

import collections

import ptx_counts


def warp(floats, integers, passes):
    executed = {"float32": floats, "integer": integers}
    return {"executed": executed, "shared passes": passes, "device passes": 1, "device sectors": 4}


def test_warps_of_a_kernel_are_added_over_its_variants():
    kernels = {
        "void run_chain<float, true>": {"warps": [warp(3, 2, 5), warp(1, 0, 2)]},
        "void run_chain<float, false>": {"warps": [warp(10, 0, 1)]},
        "other": {"warps": [warp(100, 100, 100)]},
    }
    first, second = ptx_counts.counts({"kernels": kernels}, "run_chain<")
    assert first["float32"] == 13
    assert first["integer"] == 2
    assert first["shared passes"] == 6
    assert second == collections.Counter(
        {"float32": 1, "integer": 0, "shared passes": 2, "device passes": 1, "device sectors": 4}
    )


def test_a_line_has_thousands():
    names = ("instructions", "busiest warp", *ptx_counts.COLUMNS, *ptx_counts.LOADS)
    case = {"flow": "MAF 64", "verb": "density", "matmul": "exact", **dict.fromkeys(names, 1500)}
    *_, line = ptx_counts.table([case]).splitlines()
    assert line == f"| MAF 64 density, exact | {' | '.join(['1.5'] * len(names))} |"
