"""zuko's flows, trained by Adam and by Muon: ``python -m bench.frameworks.zuko_optimizers [--tables REGEX]``.

A fit uses nothing of headrace: the flow, the gradient and the loop are PyTorch's and zuko's, and only the optimizer
changes. Each fit has a cosine schedule to its end, and its rows are standardised. The program prints mean
log-likelihoods of new rows in nats, in the tables' units (MAGIC and white wine: in standard deviations), and CPU
seconds of one thread.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
import zuko

from bench.quality import datasets
from bench.quality.optimizers import MADE, Rows, table

BATCH = 256
CLIP = 5.0  # the limit of the gradient's norm
RATES = {"adam": (1e-3, 5e-3), "muon": (5e-3, 1e-2)}


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix near U Vᵀ of a matrix U S Vᵀ, by five steps of Newton and Schulz (Jordan 2024)."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-12)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Orthogonal steps for whole matrices, masked entries included; Adam for all other parameters."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step by the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(steps=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
                state["steps"] += 1
                if p.ndim == 2:
                    mean = state["mean"].lerp_(p.grad, 0.05)
                    p.add_(orthogonal(torch.lerp(p.grad, mean, 0.95)), alpha=-1.2 * group["lr"])
                    continue
                mean = state["mean"].lerp_(p.grad, 0.1)
                square = state["square"].lerp_(p.grad.square(), 0.001)
                root = (square / (1 - 0.999 ** state["steps"])).sqrt() + 1e-8
                p.addcdiv_(mean / (1 - 0.9 ** state["steps"]), root, value=-group["lr"])


OPTIMIZERS = {"adam": torch.optim.Adam, "muon": Muon}


def rows_of(name: str, seed: int, folder: Path) -> tuple[Rows, Rows]:
    """The rows to fit, and new rows."""
    if name == "white wine":
        parts = datasets.split(datasets.with_noise(datasets.load("white", folder))).standardised()
        return parts.train, parts.test
    if name == "MAGIC, 1,000":
        fitted, new = table("MAGIC", seed, folder)
        return fitted[:1000], new
    return table(name, seed, folder)


def fit(name: str, family: str, x: Rows, new: Rows, optimizer: str, rate: float, epochs: int, seed: int) -> str:
    """Train a flow, and describe the result."""
    torch.manual_seed(seed)
    mean, std = x.mean(axis=0), x.std(axis=0)
    train, unseen = (torch.from_numpy(((rows - mean) / std).astype(np.float32)) for rows in (x, new))
    flow = getattr(zuko.flows, family)(x.shape[1], transforms=5, hidden_features=(64, 64))
    begin = time.process_time()
    steps = OPTIMIZERS[optimizer](flow.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(steps, epochs * -(-len(train) // BATCH))
    for _ in range(epochs):
        for rows in torch.randperm(len(train)).split(BATCH):
            loss = -flow().log_prob(train[rows]).mean()
            steps.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
            steps.step()
            schedule.step()
    seconds = time.process_time() - begin
    with torch.inference_mode():
        judged = float(flow().log_prob(unseen).double().mean()) - float(np.log(std).sum())
    start = f"{name:12s} {family}, seed {seed}, {optimizer} {rate:6.4f}"
    return f"{start}: {epochs:3d} epochs, new rows {judged:8.3f}, {seconds:6.1f} s"


def jobs(options: argparse.Namespace) -> Iterator[tuple[str, int, str, float, int]]:
    """The table, seed, optimizer, rate and epochs of each fit."""
    for name in (*MADE, "MAGIC", "MAGIC, 1,000", "white wine"):
        if not re.search(options.tables, name, re.IGNORECASE):
            continue
        for seed in map(int, options.seeds.split(",")):
            for optimizer, rates in RATES.items():
                for rate in rates if options.rates is None else map(float, options.rates.split(",")):
                    for epochs in map(int, options.epochs.split(",")):
                        yield name, seed, optimizer, rate, epochs


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default="", metavar="REGEX", help="only tables whose name matches")
    parser.add_argument("--seeds", default="0", help="of made tables and of fits, such as 0,1,2 (default: 0)")
    parser.add_argument("--flow", default="NSF", help="NSF or MAF (default: NSF)")
    parser.add_argument("--epochs", default="10,20,40", help="of a fit each (default: 10,20,40)")
    parser.add_argument("--rates", help="learning rates of both optimizers, such as 0.001,0.005 (default: two of each)")
    parser.add_argument("--data", type=Path, default=datasets.FOLDER, help="folder with the files of bench.quality")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"zuko {zuko.__version__}, PyTorch {torch.__version__}, one thread")
    for name, seed, optimizer, rate, epochs in jobs(options):
        x, new = rows_of(name, seed, options.data)
        print(fit(name, options.flow, x, new, optimizer, rate, epochs, seed), flush=True)


if __name__ == "__main__":
    main()
