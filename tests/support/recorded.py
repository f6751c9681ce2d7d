"""Recorded results of flows on one machine, which tests compare bit by bit with the results of other machines.

    python tests/support/recorded.py tests/core/recorded.npz

The first command writes the results anew: run it with a build by GCC for x86-64-v3 or v4, after a change of the kernels
that is meant to change bits.

    python tests/support/recorded.py --beside tests/core/recorded.npz

The second command prints for each flow the share of this machine's results that are equal, and the largest difference.
"""

import sys

import numpy as np

import headrace as hr

FEATURES, ROWS, SMALL_BATCH = 5, 32, 3
FLOWS = {
    "MAF": hr.MAF,
    "IAF": hr.IAF,
    "RealNVP": hr.RealNVP,
    "radial": hr.RadialFlow,
    "NSF": hr.NSF,
    "planar": hr.PlanarFlow,
}
BF16 = ("bf16", "bf16x3", "bf16x6", "bf16_tiles", "bf16x3_tiles", "bf16x6_tiles")


def uniform(shape, spread, seed, dtype):
    """Uniform random values, which do not depend on a machine's logarithm or sine."""
    return ((2 * np.random.default_rng(seed).random(shape) - 1) * spread).astype(dtype)


def flows():
    """Pairs of a name and a flow, with weights far from those of a new flow."""
    for dtype in ("float32", "float64"):
        for seed, (name, make) in enumerate(FLOWS.items()):
            flow = make(FEATURES, transforms=2, hidden=(20, 18), dtype=dtype)
            flow.parameters = uniform(flow.parameters.size, 0.4, seed, dtype)
            yield f"{name} {dtype}", flow
            if name == "MAF" and dtype == "float32":
                for matmul in BF16:
                    yield f"{matmul} {dtype}", flow.to("cpu", matmul=matmul)


def results():
    """The results of every flow for many rows and for few, by "flow dtype verb rows"."""
    found = {}
    for name, flow in flows():
        x = uniform((ROWS, FEATURES), 2.0, 99, flow.dtype)
        for n in (ROWS, SMALL_BATCH):
            found[f"{name} log_prob {n}"] = flow.log_prob(x[:n])
            found[f"{name} to_latent {n}"] = flow.to_latent(x[:n])[0]
            found[f"{name} to_data {n}"] = flow.to_data(x[:n])[0]
        found[f"{name} sample {ROWS}"] = flow.sample(ROWS, seed=3)
    return found


def units(found, want):
    """Differences in units of rounding of max(1, |want|)."""
    return np.abs(found - want) / np.maximum(1, np.abs(want)) / np.finfo(want.dtype).eps


def beside(path):
    """The lines of a table: by flow, dtype and number of rows, the share of equal results and the largest
    difference."""
    found = results()
    shares = {}
    with np.load(path) as wanted:
        for key, got in found.items():
            flow, dtype, _, n = key.split()
            shares.setdefault((flow, dtype, n), []).append((got == wanted[key], units(got, wanted[key])))
    for (flow, dtype, n), pairs in shares.items():
        equal = np.concatenate([same.ravel() for same, _ in pairs])
        yield f"{flow} {dtype} {n} rows: {equal.mean():.2%} equal, {max(off.max() for _, off in pairs):.1f} units"


if __name__ == "__main__":
    if sys.argv[1] == "--beside":
        print(hr.info()["isa"], *beside(sys.argv[2]), sep="\n")
    else:
        np.savez_compressed(sys.argv[1], **results())
