"""Score and sample: the Hertzsprung-Russell diagram by a flow that another library fitted.

The example loads a masked autoregressive flow of 6 transforms (data/README.md), scores held-out stars of the Hipparcos
catalogue, draws 100,000 samples, and prints density, round-trip error and rows a second in both directions. With
matplotlib it also draws data beside samples.

    python examples/score_and_sample.py [--stars 100000] [--seed 0] [--dtype float32] [--output hr.png]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr

STARS = Path(hr.__file__).parent / "data" / "hr_stars.npz"
DATA = Path(__file__).parent / "data" / "hr_maf.npz"
# Mean log-likelihood of the held-out stars, computed in float64 by the library that fitted the flow.
EXPECTED = -1.938634


def load_flow(data: Any, dtype: str) -> hr.Flow:
    """The flow in the file, which lists transforms from data to latent; a `Flow` takes them in reverse order."""
    transforms: list[hr.transforms.Transform] = []
    t = 0
    while f"t{t}.l0.weight" in data:
        layers = range(sum(f"t{t}.l{j}.weight" in data for j in range(100)))
        transforms.insert(
            0,
            hr.transforms.MaskedAutoregressive.from_dense(
                [data[f"t{t}.l{j}.weight"].astype(dtype) for j in layers],
                [data[f"t{t}.l{j}.bias"].astype(dtype) for j in layers],
                [data[f"t{t}.l{j}.mask"] for j in layers],
                formula="to_latent",
                scale="soft_clamp",
                slope=1e-3,
            ),
        )
        t += 1
    return hr.Flow([*transforms, hr.transforms.Standardize(data["mean"], data["std"])], hr.StandardNormal(2))


def rows_a_second(rows: int, call: Callable[[], object], repeats: int = 7) -> float:
    """The rows a second of a call, as the median over a few calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return rows / statistics.median(times)


def draw(path: Path, stars: NDArray[Any], samples: NDArray[Any]) -> bool:
    """Draw data beside samples; return False where matplotlib is missing."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        return False
    figure, axes = plt.subplots(1, 2, figsize=(9, 5), sharex=True, sharey=True, constrained_layout=True)
    for axis, points, title in zip(axes, (stars, samples[: len(stars)]), ("held-out stars", "samples"), strict=True):
        axis.plot(points[:, 0], points[:, 1], ".", markersize=1.5, alpha=0.4, color="tab:blue")
        axis.set(title=title, xlabel="B − V  [mag]", xlim=(-0.4, 2.0), ylim=(13, -4))
    axes[0].set_ylabel("absolute magnitude  [mag]")
    figure.suptitle("Hertzsprung-Russell diagram, Hipparcos catalogue")
    figure.savefig(path, dpi=150)
    return True


def main() -> int:
    """Run the example; the exit status is 1 if the density is not the expected one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--stars", type=int, default=100_000, help="stars to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--output", type=Path, default=Path("hr_diagram.png"))
    arguments = parser.parse_args()

    with np.load(DATA) as file:
        data = {name: file[name] for name in file.files}
    flow = load_flow(data, arguments.dtype)
    with np.load(STARS) as file:
        stars = file["held_out"]
    info = hr.info()
    print(f"headrace {info['version']}, instruction set {info['isa']}, {info['threads']} threads, {arguments.dtype}")

    # A density per unit of (B - V, magnitude) becomes one in standardised units through the determinant of the scaling.
    log_likelihood = float(flow.log_prob(stars).mean(dtype=np.float64) + np.log(data["std"]).sum())
    print(f"{len(stars)} held-out stars: mean log-likelihood {log_likelihood:.6f} (expected {EXPECTED:.6f})")

    samples = flow.sample(arguments.stars, seed=arguments.seed)
    latent, _ = flow.to_latent(samples)
    back, _ = flow.to_data(latent)
    print(f"{len(samples):,} stars drawn; data → latent → data: largest error {np.abs(back - samples).max():.1e} mag")

    density = rows_a_second(len(samples), lambda: flow.log_prob(samples))
    sampling = rows_a_second(len(samples), lambda: flow.sample(len(samples), seed=arguments.seed))
    print(f"density  {density / 1e6:6.2f} million rows a second")
    print(f"sampling {sampling / 1e6:6.2f} million rows a second")

    if draw(arguments.output, stars, samples):
        print(f"picture: {arguments.output}")
    else:
        print("picture: skipped, because matplotlib is not installed (pip install '.[plot]')")
    return 0 if abs(log_likelihood - EXPECTED) < 1e-5 else 1


if __name__ == "__main__":
    sys.exit(main())
