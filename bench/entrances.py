"""The figures of README's three entrances: a table, a simulator with sbi, and a model of another library.

    python -m bench.entrances [--only table|simulator|model] [--data FOLDER]

Run the program in an environment that has headrace, zuko and sbi; it uses one thread and measures processor seconds.
Results are written to ``bench/results/entrances_*.json``, which keeps earlier results of other entrances, and are
printed in the form of README and of the first page of the documentation: a test compares the pages with the file.

The table is MAGIC, with 10 columns: default fits to four fifths of its rows are judged on a tenth that no choice sees,
in units of the fitted part's standard deviations. The simulator is that of the two moons, with 5000 simulations. The
model is a MAF of zuko.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

os.environ.setdefault("HEADRACE_NUM_THREADS", "1")

import numpy as np

import headrace as hr
from bench import report
from bench.peers.client import machine_facts
from bench.quality import datasets

SIMULATIONS, DRAWS = 5000, 10_000
MODEL = {"features": 20, "transforms": 5, "hidden_features": (128, 128)}
MODEL_DRAWS = 1000


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """The processor seconds of a call, and its result."""
    begin = time.process_time()
    result = call()
    return time.process_time() - begin, result


def table(folder: Path, seeds: int) -> dict[str, Any]:
    """The held-out nats of default fits, and of a Gaussian."""
    parts = datasets.split(datasets.load("magic", folder))
    nats, seconds = [], []
    for seed in range(seeds):
        flow = hr.NSF(parts.train.shape[1], seed=seed)
        taken, _ = seconds_of(lambda flow=flow, seed=seed: flow.fit(parts.train, seed=seed, progress=False))
        nats.append(float(flow.log_prob(parts.test).mean()) + parts.offset)
        seconds.append(taken)
    return {"nats": nats, "seconds": seconds, "gaussian": datasets.gaussian(parts), "rows": len(parts.train)}


def simulator() -> dict[str, Any]:
    """Training by sbi with its own spline flow and with headrace's, and draws of both posteriors."""
    import torch
    from sbi.inference import NPE
    from sbi.neural_nets import posterior_nn
    from sbi.utils import BoxUniform

    from bench.downstream.models import elsewhere, two_moons
    from headrace.integrations.sbi import posterior_nn as headraces

    torch.set_num_threads(1)
    problem = two_moons()
    prior = BoxUniform(-problem.bound * torch.ones(problem.dimensions), problem.bound * torch.ones(problem.dimensions))

    def simulated(n: int, seed: int) -> Any:
        torch.manual_seed(seed)
        theta = prior.sample((n,))
        return theta, problem.simulate(theta)

    held = simulated(2000, 1)
    kept: dict[str, Any] = {"simulations": SIMULATIONS, "draws": DRAWS}
    for name, builder in (("sbi", posterior_nn("nsf")), ("headrace", headraces("nsf"))):
        with elsewhere():  # sbi writes logs
            trainer = NPE(prior, density_estimator=builder, show_progress_bars=False)
            trainer.append_simulations(*simulated(SIMULATIONS, 0))
            trained, _ = seconds_of(trainer.train)
        posterior = trainer.build_posterior()
        call = lambda posterior=posterior: posterior.sample(  # noqa: E731
            (DRAWS,), x=problem.observed[None], show_progress_bars=False
        )
        drawn, _ = seconds_of(call)
        with torch.no_grad():
            nats = float(posterior.posterior_estimator.log_prob(held[0][None], held[1]).mean())
        gained = nats + problem.dimensions * math.log(2.0 * problem.bound)
        kept[name] = {"train": trained, "draw": drawn, "gained": gained}
    return kept


def model() -> dict[str, Any]:
    """Samples of a model of zuko before and after `hr.accelerate`, by calls of each in turn."""
    import torch
    import zuko

    torch.set_num_threads(1)
    torch.manual_seed(0)
    slow = zuko.flows.MAF(**MODEL)
    fast = hr.accelerate(slow)
    rows = torch.randn(1000, MODEL["features"])
    with torch.no_grad():
        apart = float((slow().log_prob(rows) - fast().log_prob(rows)).abs().max())
        calls = {"before": slow, "after": fast}
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(15):
            for name, one in calls.items():
                repeats = 1 if name == "before" else 50
                taken, _ = seconds_of(
                    lambda one=one, repeats=repeats: [one().sample((MODEL_DRAWS,)) for _ in range(repeats)]
                )
                times[name].append(taken / repeats)
    return {**{name: statistics.median(values) for name, values in times.items()}, "apart": apart, "model": MODEL}


def sentences(kept: dict[str, Any]) -> dict[str, str]:
    """The measured gain of each entrance, as the pages show it."""
    rows, inference, made = kept["table"], kept["simulator"], kept["model"]
    nats = np.array(rows["nats"])
    theirs, ours = inference["sbi"], inference["headrace"]
    return {
        "table": (
            f"{_signed(nats.mean())} ± {nats.std(ddof=1):.2f} nats a held-out row of MAGIC, where a Gaussian has "
            f"{_signed(rows['gaussian'])}, after {statistics.median(rows['seconds']):.0f} s of one core"
        ),
        "simulator": (
            f"training {theirs['train']:.0f} → {ours['train']:.0f} s, {inference['draws']:,} draws "
            f"{report.duration(theirs['draw'])} → {report.duration(ours['draw'])}, "
            f"{theirs['gained']:.2f} → {ours['gained']:.2f} nats above the prior"
        ),
        "model": (
            f"1,000 samples of a zuko MAF of {made['model']['features']} features "
            f"{report.duration(made['before'])} → {report.duration(made['after'])}"
        ),
    }


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def main() -> None:
    """Measure the entrances that the command line names, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("table", "simulator", "model"))
    parser.add_argument("--seeds", type=int, default=3, help="fits of the table (default: 3)")
    parser.add_argument("--data", type=Path, default=datasets.FOLDER, help="folder with the files of bench.quality")
    options = parser.parse_args()
    hr.set_num_threads(1)
    path = report.stem("entrances", 1)
    file = Path(f"{path}.json")
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    measures = {"table": lambda: table(options.data, options.seeds), "simulator": simulator, "model": model}
    for name, measure in measures.items():
        if options.only in (None, name):
            kept[name] = measure()
    kept["machine"], kept["date"] = machine_facts(1), f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M}"
    lines = list(sentences(kept).values()) if measures.keys() <= kept.keys() else []
    text = "\n".join(
        ["# Entrances", "", report.machine_line(kept["machine"], kept["date"]), "", *(f"- {line}" for line in lines)]
    )
    report.write(path, kept, text + "\n")
    print(text)


if __name__ == "__main__":
    main()
