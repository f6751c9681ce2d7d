"""One fit of a flow in a separate process.

    python -m bench.quality.fits THREADS

The program reads a job as JSON and writes a result as JSON. A job names the library, the flow, the data and the
training; see `Job`. Log-likelihoods are means over the rows to judge by, in nats, of the data in units of the training
part's standard deviations.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers.worker import Service, busy_seconds
from bench.quality import datasets
from bench.workloads import BINS


@dataclass(frozen=True)
class Training:
    """The settings of a training loop with a constant rate; the weights best in validation are kept."""

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int  # epochs without a better validation; as many as `epochs` means that the fit never stops early


@dataclass(frozen=True)
class Job:
    """One fit. Without `training` (headrace only) the library's defaults decide everything."""

    library: str  # "headrace" or "zuko"
    family: str  # "maf" or "nsf" (autoregressive)
    data: str  # a name in `datasets.FILES`
    seed: int
    budget: float  # seconds after which a fit ends with the best weights so far
    folder: str
    noise: bool = False
    fold: tuple[int, int] | None = None  # (index, count); None: 80/10/10
    hidden: tuple[int, ...] = (64, 64)
    transforms: int = 5
    training: Training | None = None

    def to_dict(self) -> dict:
        """The job as a dict for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict) -> Job:
        """The inverse of `to_dict`."""
        training = fields["training"] and Training(**fields["training"])
        fold = fields["fold"] and tuple(fields["fold"])
        return cls(**{**fields, "training": training, "fold": fold, "hidden": tuple(fields["hidden"])})

    def parts(self) -> datasets.Parts:
        """The rows of the job, in the units of the file."""
        rows = datasets.load(self.data, Path(self.folder))
        if self.noise:
            rows = datasets.with_noise(rows)
        return datasets.split(rows) if self.fold is None else datasets.fold(rows, *self.fold)


def fit_headrace(job: Job) -> dict:
    """Fit with headrace's loop: with the job's settings, or with the defaults on the data in their units."""
    import headrace as hr

    family = {"maf": hr.MAF, "nsf": hr.NSF}[job.family]
    parts, offset = job.parts(), 0.0
    options: dict[str, Any] = {"seed": job.seed, "progress": False}
    if job.training is None:
        offset = parts.offset
        train, test = np.concatenate([parts.train, parts.validation]), parts.test
        flow = family(train.shape[1], seed=job.seed)
    else:
        train, validation, test = _narrow(parts)
        network = hr.Network.plain(job.hidden)  # zuko's network has a ReLU after each layer
        flow = family(train.shape[1], transforms=job.transforms, hidden=network, seed=job.seed)
        options |= {**asdict(job.training), "validation": validation, "schedule": "constant"}
        options |= {"weight_decay": 0.0, "clip": None, "average": None, "gaussianize": False}
    # The signal ends the fit as Ctrl-C does.
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, job.budget)
    stop = stopwatch()
    history = flow.fit(train, **options)
    usage = stop()
    signal.setitimer(signal.ITIMER_REAL, 0)
    return {
        **scores(flow.log_prob(test), offset),
        "validation": offset - history.best_loss,
        **usage,
        "epochs": len(history.train_loss),
        "best_epoch": history.best_epoch - 1,  # stored results count epochs from 0
        "stopped": history.stopped,
        "cut": history.stopped == "interrupted",
    }


def fit_zuko(job: Job) -> dict:
    """Fit with the plain loop that a user of zuko writes."""
    import torch
    import zuko

    torch.manual_seed(job.seed)
    train, validation, test = map(torch.from_numpy, _narrow(job.parts()))
    options: dict[str, Any] = {"transforms": job.transforms, "hidden_features": job.hidden}
    if job.family == "nsf":
        flow = zuko.flows.NSF(train.shape[1], bins=BINS, **options)
    else:
        flow = zuko.flows.MAF(train.shape[1], **options)
    optimizer = torch.optim.Adam(flow.parameters(), lr=job.training.learning_rate)
    best, best_epoch, weights, stopped = math.inf, -1, flow.state_dict(), "epochs"
    losses = []
    deadline = time.perf_counter() + job.budget
    stop = stopwatch()
    for epoch in range(job.training.epochs):
        for rows in torch.randperm(len(train)).split(job.training.batch_size):
            loss = -flow().log_prob(train[rows]).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        with torch.inference_mode():
            losses.append(-flow().log_prob(validation).mean().item())
        if losses[-1] < best:
            best, best_epoch = losses[-1], epoch
            weights = {name: value.clone() for name, value in flow.state_dict().items()}
        elif epoch - best_epoch >= job.training.patience:
            stopped = "patience"
            break
        if time.perf_counter() > deadline:
            stopped = "budget"
            break
    flow.load_state_dict(weights)
    usage = stop()
    with torch.inference_mode():
        log_prob = flow().log_prob(test).numpy()
    return {
        **scores(log_prob),
        "validation": -best,
        **usage,
        "epochs": len(losses),
        "best_epoch": best_epoch,
        "stopped": stopped,
        "cut": stopped == "budget",
    }


def _narrow(parts: datasets.Parts) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The standardised parts in float32."""
    parts = parts.standardised()
    return tuple(part.astype(np.float32) for part in (parts.train, parts.validation, parts.test))


def stopwatch() -> Callable[[], dict]:
    """Start to measure; return a function for the seconds since then and the cores that other processes used."""
    start, busy, cpu = time.perf_counter(), busy_seconds(), time.process_time()

    def stop() -> dict:
        seconds, own = time.perf_counter() - start, time.process_time() - cpu
        others = None if busy is None else max(0.0, busy_seconds() - busy - own) / seconds
        return {"seconds": seconds, "others": others}

    return stop


def scores(log_prob: NDArray[Any], offset: float = 0.0) -> dict:
    """The mean, its standard error over the rows, the least and the largest value."""
    values = log_prob.astype(np.float64) + offset
    return {
        "log_likelihood": float(values.mean()),
        "standard_error": float(values.std() / math.sqrt(len(values))),
        "lowest": float(values.min()),
        "highest": float(values.max()),
    }


FITS = {"headrace": fit_headrace, "zuko": fit_zuko}


def main() -> None:
    """Run one job."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # text that a library prints must not end up in the result
    job = Job.from_dict(json.load(sys.stdin))
    facts = Service(job.library, int(sys.argv[1]), "cpu").hello({})
    result = FITS[job.library](job) if facts["present"] else {"error": facts["reason"]}
    json.dump({"facts": facts, **result}, replies, default=str)
    replies.close()


if __name__ == "__main__":
    main()
