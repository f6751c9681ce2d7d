"""Default fits where most rows lie close together: ``python -m bench.settings.narrow {collinear,bent,context,skewed}``.

collinear: three normal columns, of which the last is the first plus normal noise of the given size.
bent: the columns of `collinear`, with the square of the first in the second.
context: two normal columns, of which the first is the context plus such noise.
skewed: exponentials of three independent normal columns, whose deviation is the size.

Results are the mean log density of new rows in nats a row, beside that of the true density.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import headrace as hr
from headrace._base.types import Floats

NEW = 50_000
SIZES = {
    "collinear": (1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
    "bent": (1e-2, 1e-4, 1e-6),
    "context": (1e-2, 1e-3, 1e-4, 1e-6),
    "skewed": (2.0, 2.5, 3.0),
}


def rows_of(which: str, size: float, rows: int, rng: np.random.Generator) -> tuple[Floats, Floats | None, Floats]:
    """Random rows, their contexts, and their log densities."""
    z = rng.standard_normal((rows, 3))
    if which == "skewed":
        log_prob = -0.5 * (np.square(z) + np.log(2.0 * np.pi)).sum(axis=1) - (size * z + np.log(size)).sum(axis=1)
        return np.exp(size * z), None, log_prob
    narrow = z[:, 0] + size * z[:, 2]
    if which == "context":
        log_prob = -0.5 * (np.square(z[:, 1:]) + np.log(2.0 * np.pi)).sum(axis=1) - np.log(size)
        return np.stack([narrow, z[:, 1]], axis=1), z[:, :1], log_prob
    log_prob = -0.5 * (np.square(z) + np.log(2.0 * np.pi)).sum(axis=1) - np.log(size)
    second = z[:, 1] + np.square(z[:, 0]) if which == "bent" else z[:, 1]
    return np.stack([z[:, 0], second, narrow], axis=1), None, log_prob


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=tuple(SIZES))
    parser.add_argument("--sizes", help="with commas (default: those of the kind)")
    parser.add_argument("--rows", default="1000", help="to fit, with commas (default: 1000)")
    parser.add_argument("--flows", default="MAF,NSF,RealNVP", help="names of flows")
    parser.add_argument("--dtype", default="float32", help="of the flow (default: float32)")
    parser.add_argument("--seeds", type=int, default=1, help="fits of each, to other rows (default: 1)")
    options = parser.parse_args()
    sizes = SIZES[options.which] if options.sizes is None else [float(size) for size in options.sizes.split(",")]
    print(f"headrace {hr.__version__}, {hr.get_num_threads()} threads")
    for size in sizes:
        for rows in map(int, options.rows.split(",")):
            for family in options.flows.split(","):
                reached, truths, ended, cpu = [], [], [], time.process_time()
                for seed in range(options.seeds):
                    rng = np.random.default_rng(seed)
                    x, context, _ = rows_of(options.which, size, rows, rng)
                    new, new_context, truth = rows_of(options.which, size, NEW, rng)
                    known = 0 if context is None else context.shape[1]
                    flow = getattr(hr, family)(x.shape[1], known, seed=seed, dtype=options.dtype)
                    history = flow.fit(x, context, seed=seed, progress=False)
                    reached.append(f"{flow.log_prob(new, new_context).mean(dtype=np.float64):.2f}")
                    truths.append(f"{truth.mean():.2f}")
                    ended.append("Gaussian" if history.gaussian else "curves" if history.gaussianized else "networks")
                print(
                    f"{options.which}, {size:g}, {rows} rows, {family}: {', '.join(reached)} of {', '.join(truths)} "
                    f"({', '.join(ended)}); {(time.process_time() - cpu) / options.seeds:.1f} s of a core",
                    flush=True,
                )


if __name__ == "__main__":
    main()
