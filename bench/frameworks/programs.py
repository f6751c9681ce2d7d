"""Programs of pocoMC and sbi as their users write them, run by Python and by ``headrace run``.

    python -m bench.frameworks.programs [--rounds 3] [--only pocomc]

Programs run in turn, each in a new process, on one thread. Processor seconds are counted from the end of a program's
imports to its end, the acceleration with its checks included. The output has medians, and what each program prints.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

POCOMC = """
import numpy as np, pocomc
from scipy.stats import uniform
prior = pocomc.Prior([uniform(-3, 6)] * 4)
def log_likelihood(x):
    return -0.5 * np.sum((x[:, ::2] ** 2 - x[:, 1::2]) ** 2 / 0.1 + (x[:, ::2] - 0.5) ** 2, axis=1)
sampler = pocomc.Sampler(prior, log_likelihood, vectorize=True, random_state=0)
sampler.run(n_total=1024, progress=False)
print("log evidence %.3f +- %.3f" % sampler.evidence())
"""

SBI = """
import torch, sbi.inference, sbi.utils, zuko
prior = sbi.utils.BoxUniform(-2 * torch.ones(3), 2 * torch.ones(3))
theta = prior.sample((1500,))
x = theta + 0.3 * torch.randn_like(theta)
trainer = sbi.inference.NPE(prior, density_estimator="{kind}", show_progress_bars=False)
trainer.append_simulations(theta, x).train(max_num_epochs=20)
print("validation loss %.3f" % trainer.summary["validation_loss"][-1])
"""

PROGRAMS = {
    "pocomc": POCOMC,
    **{f"sbi {kind}": SBI.format(kind=kind) for kind in ("nsf", "zuko_nsf", "maf")},
}
_CLOCK = "import time as clock; clock_starts = clock.process_time()\n"
_END = 'print("seconds", clock.process_time() - clock_starts)\n'


def timed(program: str) -> str:
    """The program with a clock that starts after its imports and is read at its end."""
    lines = program.strip().splitlines()
    behind = 1 + max(i for i, line in enumerate(lines) if line.startswith(("import ", "from ")))
    warm = "torch.optim.Adam([torch.zeros(1, requires_grad=True)])"  # an optimiser imports 800 modules
    seed = [f"import torch; torch.manual_seed(0); torch.set_num_threads(1); {warm}"]
    return "\n".join([*lines[:behind], *seed, _CLOCK, *lines[behind:], _END])


def run(program: str, *, accelerated: bool) -> tuple[float, str]:
    """The CPU seconds and the output of the program."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "program.py"
        script.write_text(timed(program))
        command = [sys.executable, *(["-m", "headrace", "run"] if accelerated else []), str(script)]
        one = {"OMP_NUM_THREADS": "1", "HEADRACE_NUM_THREADS": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, **one}, cwd=folder
        )
    lines = done.stdout.strip().splitlines()
    return float(lines[-1].split()[1]), lines[-2]


def main() -> None:
    """Print a line for each program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="programs whose name begins with this")
    arguments = parser.parse_args()
    for name, program in PROGRAMS.items():
        if not name.startswith(arguments.only):
            continue
        seconds: dict[bool, list[float]] = {False: [], True: []}
        printed = {}
        for _ in range(arguments.rounds):
            for accelerated in seconds:
                used, printed[accelerated] = run(program, accelerated=accelerated)
                seconds[accelerated].append(used)
        plain, fast = (statistics.median(of) for of in seconds.values())
        print(f"{name:12s} {plain:7.2f} s {fast:7.2f} s {plain / fast:6.1f} x   {printed[False]}; {printed[True]}")


if __name__ == "__main__":
    main()
