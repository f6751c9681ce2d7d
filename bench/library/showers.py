"""Showers of a calorimeter by the C library, in the sizes of CaloFlow's teachers: ``python -m bench.library.showers``.

The flows are autoregressive splines with random weights: 8 transforms of 8 bins, a hidden layer of 378 units for the
368 voxels of photons, or of 533 units for the 533 voxels of pions, and 6 values of context. Times are processor seconds
of one thread for a shower, alone and in a batch, with weights in float32 and in bf16. ``--quick`` takes a smaller flow,
and only tries the program.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

import headrace as hr
from bench.library.__main__ import compiled
from bench.library.calls import Timed

CONTEXT = 6


def teacher(voxels: int, units: int) -> hr.Flow:
    """A flow whose weights are not near the identity."""
    flow = hr.NSF(voxels, context=CONTEXT, transforms=8, hidden=(units,), bins=8, bound=14.0, seed=0)
    noise = np.random.default_rng(0).standard_normal(flow.parameters.size, np.float32)
    flow.parameters = flow.parameters + np.float32(0.02) * noise
    return flow


def main(argv: list[str] | None = None) -> int:
    """Print a table of times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small flow and one call, whose times mean nothing")
    quick = parser.parse_args(argv).quick
    sizes = {"photons": (368, 378), "pions": (533, 533)} if not quick else {"few voxels": (8, 16)}
    batch, rounds = (20, 1) if quick else (200, 5)
    hr.set_num_threads(1)
    print(f"| voxels | weights | a shower alone, ms | a shower of {batch}, ms |\n| --- | --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(Path(folder), "showers.cpp")
        for name, size in sizes.items():
            exact = teacher(*size)
            for matmul in ("exact", "bf16"):
                path = Path(folder) / f"{name}-{matmul}.safetensors"
                exact.to("cpu", matmul=matmul).save(path)
                side = Timed(library, "showers", path)
                cells = []
                for rows in (1, batch):
                    given = np.random.default_rng(1).standard_normal((rows, CONTEXT)).astype(np.float32)
                    out = np.zeros((rows, size[0]), np.float32)
                    calls = 1 if rows > 1 or quick else 20
                    seconds = [side("sample", given, out, calls) / rows for _ in range(rounds)]
                    assert np.isfinite(out).all()
                    cells.append(f"{1e3 * statistics.median(seconds):.3g}")
                print(f"| {name}, {size[0]} | {matmul} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
