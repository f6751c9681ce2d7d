"""What `Flow.fit` chooses by held-out rows: ``python -m bench.settings.choices {decay,few,memory}``.

decay: simulators and tables on which different weight decays are right, fitted with "auto", with the constant by the
rows and with a tenth of it: log-likelihood of new rows in nats and seconds. Tables above the line in the output were
used to choose the constants of the choice, those below were not.
few: rows of a Gaussian; what flows lose beyond the Gaussian fitted to the same rows, the worst and median of five
seeds.
memory: a mapped file of float32; MiB beyond it and seconds before the first step.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import headrace as hr

Rows = tuple[NDArray[np.float64], NDArray[np.float64] | None]


def two_moons(rows: int, rng: np.random.Generator, radius: float = 0.1, width: float = 0.01) -> Rows:
    """Parameters and data of the simulator of Greenberg, Nonnenmacher, Macke 2019."""
    theta = rng.uniform(-1.0, 1.0, (rows, 2))
    angle, distance = rng.uniform(-np.pi / 2, np.pi / 2, rows), rng.normal(radius, width, rows)
    crescent = np.stack([distance * np.cos(angle) + 0.25, distance * np.sin(angle)], axis=1)
    shift = np.stack([-abs(theta[:, 0] + theta[:, 1]), theta[:, 1] - theta[:, 0]], axis=1) / np.sqrt(2.0)
    return theta, crescent + shift


def slcp(rows: int, rng: np.random.Generator) -> Rows:
    """Parameters and data of the simple likelihood with a complex posterior (Papamakarios and others 2019)."""
    theta = rng.uniform(-3.0, 3.0, (rows, 5))
    s1, s2, rho = theta[:, 2] ** 2, theta[:, 3] ** 2, np.tanh(theta[:, 4])
    noise = rng.standard_normal((rows, 4, 2))
    first = theta[:, :1] + s1[:, None] * noise[:, :, 0]
    mixed = rho[:, None] * noise[:, :, 0] + np.sqrt(1.0 - rho**2)[:, None] * noise[:, :, 1]
    return theta, np.stack([first, theta[:, 1:2] + s2[:, None] * mixed], axis=2).reshape(rows, 8)


def clouds(rows: int, rng: np.random.Generator) -> Rows:
    """A mixture of six Gaussians in six dimensions."""
    fixed = np.random.default_rng(77)
    centers, roots = 3.0 * fixed.standard_normal((6, 6)), 0.5 * fixed.standard_normal((6, 6, 6))
    chosen = rng.integers(0, 6, rows)
    return centers[chosen] + np.einsum("nij,nj->ni", roots[chosen], rng.standard_normal((rows, 6))), None


SIMULATORS: dict[str, tuple[Callable[[int, np.random.Generator], Rows], int, str, bool]] = {
    "wide moons, 1000": (lambda n, rng: two_moons(n, rng, 0.3, 0.03), 1000, "NSF", True),
    "wide moons, 4000": (lambda n, rng: two_moons(n, rng, 0.3, 0.03), 4000, "NSF", True),
    "SLCP, 1000": (slcp, 1000, "NSF", True),
    "SLCP, 4000": (slcp, 4000, "NSF", True),
    "clouds, 3000": (clouds, 3000, "MAF", True),
    "two moons, 2000": (two_moons, 2000, "NSF", False),
    "SLCP, 2000": (slcp, 2000, "NSF", False),
    "clouds, 2000": (clouds, 2000, "NSF", False),
}


def decay(seeds: int, what: str, decays: str) -> None:
    """See the module."""
    for name, (simulator, rows, family, used) in SIMULATORS.items():
        if not re.search(what, name):
            continue
        cells = []
        for label, factor in (("auto", None), ("constant", 1.0), ("a tenth", 0.1)):
            if not re.search(decays, label):
                continue
            values, spent, chosen = [], 0.0, []
            for seed in range(seeds):
                rng = np.random.default_rng(1000 + seed)
                (x, context), (new, new_context) = simulator(rows, rng), simulator(5000, rng)
                flow = getattr(hr, family)(x.shape[1], 0 if context is None else context.shape[1], seed=seed)
                constant = min(1.0, 1000 / (0.9 * rows))
                keywords = {} if factor is None else {"weight_decay": constant * factor}
                begin = time.perf_counter()
                history = flow.fit(x, context, seed=seed, progress=False, **keywords)
                spent += (time.perf_counter() - begin) / seeds
                values.append(float(flow.log_prob(new, new_context).mean(dtype=float)))
                chosen.append(f"{history.weight_decay:.3g}")
            cells.append(f"{label} {statistics.mean(values):.2f} (worst {min(values):.2f}; {spent:.1f} s)")
            if factor is None:
                cells[-1] += f" decays {', '.join(chosen)}"
        print(f"{'used to choose' if used else 'not used':14}  {name}, {family}: {'; '.join(cells)}", flush=True)


def small_samples(seeds: int) -> None:
    """See the module."""
    for rows, features in ((50, 5), (300, 10), (1000, 10), (5000, 10)):
        for family in ("MAF", "NSF", "RealNVP", "IAF"):
            lost, spent = [], 0.0
            for seed in range(seeds):
                rng = np.random.default_rng(seed)
                root = rng.standard_normal((features, features))
                x, new = (rng.standard_normal((n, features)) @ root for n in (rows, 5000))
                flow = getattr(hr, family)(features, seed=seed)
                begin = time.perf_counter()
                flow.fit(x, seed=seed, progress=False)
                spent += (time.perf_counter() - begin) / seeds
                away, covariance = new - x.mean(axis=0), np.cov(x.T)
                square = (away * np.linalg.solve(covariance, away.T).T).sum(axis=1)
                best = -0.5 * (square.mean() + np.linalg.slogdet(2.0 * np.pi * covariance)[1])
                lost.append(best - float(flow.log_prob(new).mean(dtype=float)))
            print(
                f"{rows} x {features}, {family}: worst {max(lost):.3f}, median {statistics.median(lost):.3f}; "
                f"{spent:.1f} s",
                flush=True,
            )


def memory(rows: int) -> None:
    """See the module."""
    from headrace._fit import run as _fit_run

    def anonymous() -> float:
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

    flow, find = hr.MAF(10, transforms=2, hidden=(16,)), _fit_run.ArrayRun._find_gradient
    seen: list[float] = []

    def watched(run: _fit_run.Run, index: NDArray[np.int64], log_prob: NDArray[np.float32]) -> None:
        if not seen:
            print(f"first step after {time.perf_counter() - begin:.1f} s")
        seen.append(anonymous())
        if len(seen) == 2000:
            raise KeyboardInterrupt
        find(run, index, log_prob)

    with tempfile.NamedTemporaryFile() as file:
        block = np.random.default_rng(0).standard_normal((1 << 16, 10)).astype(np.float32)
        for start in range(0, rows, len(block)):
            file.write(block[: rows - start].tobytes())
        file.flush()
        x = np.memmap(file.name, np.float32, "r", shape=(rows, 10))
        before, begin = anonymous(), time.perf_counter()
        _fit_run.ArrayRun._find_gradient = watched  # type: ignore[method-assign]
        share = 0.001  # held out: they are all tried when the fit is interrupted
        flow.fit(x, progress=False, validation=share)
    _fit_run.ArrayRun._find_gradient = find  # type: ignore[method-assign]
    print(f"{rows} rows, {rows * 40 / 2**20:.0f} MiB: {max(seen) - before:.0f} MiB beyond them")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("decay", "few", "memory"))
    parser.add_argument("--seeds", type=int, help="fits of each (default: 3 for decay, 5 for few)")
    parser.add_argument("--tables", default="", metavar="REGEX", help="of `decay`: only those whose name matches")
    parser.add_argument("--decays", default="", metavar="REGEX", help="of `decay`: auto, constant or a tenth")
    parser.add_argument("--rows", type=int, default=60_000_000, help="of the file of `memory` (default: 60 million)")
    options = parser.parse_args()
    print(f"headrace {hr.__version__}, {hr.get_num_threads()} threads")
    if options.what == "decay":
        decay(options.seeds or 3, options.tables, options.decays)
    elif options.what == "few":
        small_samples(options.seeds or 5)
    else:
        memory(options.rows)


if __name__ == "__main__":
    main()
