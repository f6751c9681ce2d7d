"""Wide couplings in a training loop outside of `fit`: ``python -m bench.settings.loops [--seeds N]``, needs PyTorch.

An untrained `RealNVP` of 8 couplings with 512 units takes 1000 steps of `torch.optim.Adam` at a rate of 1e-3, of 100
new rows each. Results are the mean log density of new rows in nats, one for each seed.

plain: the loop without changes.
clipped: `torch.nn.utils.clip_grad_norm_` at 5.
damped: a tenth of the rate for last layers, which for Adam is a factor of 0.1 on their outputs, as in FrEIA.

moons: two half circles, with noise of 0.05. bent: six columns, of which some bend, widen or rise exponentially.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

import headrace as hr
from headrace.torch import FlowModule

STEPS, BATCH, NEW = 1000, 100, 4000
RATE, CLIP, DAMPED = 1e-3, 5.0, 0.1
WAYS = ("plain", "clipped", "damped")


def rows_of(which: str, rows: int, rng: np.random.Generator) -> torch.Tensor:
    """New rows of the table of this name."""
    if which == "moons":
        angle, lower = rng.uniform(0.0, np.pi, rows), np.arange(rows) % 2
        x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        x[lower == 1] = [1.0, 0.5] - x[lower == 1]
        x += 0.05 * rng.standard_normal((rows, 2))
    else:
        x = rng.standard_normal((rows, 6))
        x[:, 1] += np.square(x[:, 0])
        x[:, 2] = np.exp(0.7 * x[:, 2])
        x[:, 3] += 2.0 * np.sin(2.0 * x[:, 0])
        x[:, 5] *= np.exp(0.8 * x[:, 4])
    return torch.from_numpy(x.astype("float32"))


def trained(which: str, link: str, how: str, seed: int) -> float:
    """The mean log density of new rows after training."""
    rng = np.random.default_rng(seed)
    new = rows_of(which, NEW, np.random.default_rng(999))
    flow = hr.RealNVP(new.shape[1], transforms=8, hidden=(512,), link=link, seed=seed)
    module = FlowModule(flow, layers=how == "damped")
    named = list(module.named_parameters())
    last = [p for name, p in named if ".layers.1." in name]
    others = [p for name, p in named if ".layers.1." not in name]
    groups = [{"params": others}, {"params": last, "lr": DAMPED * RATE}] if last else others
    optimizer = torch.optim.Adam(groups, RATE)
    for _ in range(STEPS):
        loss = -module.log_prob(rows_of(which, BATCH, rng)).mean()
        optimizer.zero_grad()
        loss.backward()
        if how == "clipped":
            torch.nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        optimizer.step()
    with torch.no_grad():
        return float(module.log_prob(new).mean())


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="loops of each (default: 3)")
    parser.add_argument("--ways", default=",".join(WAYS), help="with commas (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"headrace {hr.__version__}, {hr.get_num_threads()} threads")
    for which in ("moons", "bent"):
        for link in ("reverse", "linear"):
            for how in options.ways.split(","):
                cpu = time.process_time()
                found = ", ".join(f"{trained(which, link, how, seed):.2f}" for seed in range(options.seeds))
                seconds = (time.process_time() - cpu) / options.seeds
                print(f"{which}, link {link}, {how}: {found}; {seconds:.1f} s of a core", flush=True)


if __name__ == "__main__":
    main()
