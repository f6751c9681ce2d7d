"""What `distill`'s defaults are worth.

    python -m bench.quality.distillation [--columns 10,6] [--seeds 3] [--hidden 64,64] [--teacher 3]

A MAF with the defaults is fitted to columns of MAGIC and an IAF of five transforms learns from it; printed are
KL(student || teacher) in nats, processor seconds, and the same with other steps, samples and first steps where they are
given. The defaults were chosen on these columns and on another table, samples on nine columns of Hipparcos-2 and eleven
of white wines.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import headrace as hr

DATA = Path(__file__).resolve().parents[2] / "examples" / "data" / "magic.npz"
NAMES = ("steps", "samples", "first_steps")


def load(seed: int) -> np.ndarray:
    """MAGIC's events without a tenth, which the seed chooses, (17118, 10)."""
    with np.load(DATA) as file:
        events = np.concatenate([file["gamma"], file["hadron"]], axis=1).T
    return events[np.random.default_rng((3, seed)).permutation(len(events))][len(events) // 10 :]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--columns", default="10", help="the first so many, one number for each table")
    parser.add_argument("--seeds", type=int, default=3, help="of split, teacher and student")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--hidden", default="64,64", help="of the student; the teacher has the defaults")
    parser.add_argument("--epochs", type=int, default=100, help="of the teacher")
    parser.add_argument("--teacher", type=int, default=5, help="transforms of the teacher; the student has five")
    parser.add_argument("--activation", default="relu", help="of teacher and student")
    parser.add_argument("--before", action="store_true", help="as the defaults were: 4000 steps of 256, 2000 first")
    for name in NAMES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    options = parser.parse_args()
    chosen: dict[str, Any] = {"steps": 4000, "samples": 256, "first_steps": 2000} if options.before else {}
    chosen |= {name: value for name in NAMES if (value := getattr(options, name)) is not None}
    hidden = [int(units) for units in options.hidden.split(",")]
    print(
        "| columns | seed | KL | log Z | transforms alone | processor seconds |\n| --- | --- | --- | --- | --- | --- |"
    )
    for columns in map(int, options.columns.split(",")):
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            teacher = hr.MAF(columns, transforms=options.teacher, activation=options.activation, seed=seed)
            teacher.fit(load(seed)[:, :columns], epochs=options.epochs, seed=seed, progress=False)
            start = time.process_time()
            student = hr.IAF(columns, hidden=hidden, activation=options.activation, seed=seed + 1)
            _, report = hr.distill(teacher, student, seed=seed, progress=False, **chosen)
            seconds = time.process_time() - start
            assert report.estimates is not None
            alone = ", ".join(f"{kl:.3f}" for kl in report.transform_kl)
            kl = f"{report.kl:.3f} ± {report.kl_error:.3f}"
            print(f"| {columns} | {seed} | {kl} | {report.estimates.log_z:.3f} | {alone} | {seconds:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
