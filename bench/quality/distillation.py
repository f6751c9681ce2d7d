"""Divergences and times that `distill` reaches by its defaults.

    python -m bench.quality.distillation [--tables magic,stars,red] [--columns 10,6] [--seeds 3] [--teacher 3]

A MAF with the defaults is fitted to a table, or to its first columns, and an IAF of five transforms learns from the
MAF. The program prints KL(student || teacher) in nats and processor seconds, also with other steps, samples and first
steps where the command names them. The defaults were chosen on MAGIC and on a table that is not in the repository, and
the number of samples on nine columns of Hipparcos-2 and eleven of white wines. Each seed leaves out a different tenth
of the rows.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import headrace as hr
from bench.quality import datasets
from headrace._cli.demo import load_stars

DATA = Path(__file__).resolve().parents[2] / "examples" / "data" / "magic.npz"
NAMES = ("steps", "samples", "first_steps")


def load(name: str, seed: int, folder: Path) -> np.ndarray:
    """A table without a tenth of its rows, which the seed chooses; the rows of MAGIC have the shape (17118, 10)."""
    if name == "magic":
        with np.load(DATA) as file:
            rows = np.concatenate([file["gamma"], file["hadron"]], axis=1).T
    elif name == "stars":
        rows = np.concatenate(load_stars()).astype(np.float64)
    else:
        rows = datasets.with_noise(datasets.load(name, folder))
    return rows[np.random.default_rng((3, seed)).permutation(len(rows))][len(rows) // 10 :]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tables", default="magic", help="of magic, stars, red and white (%(default)s)")
    parser.add_argument("--columns", help="how many of the first columns of each table; by default all")
    parser.add_argument("--data", type=Path, default=datasets.FOLDER, help="the folder of the wines")
    parser.add_argument("--seeds", type=int, default=3, help="of split, teacher and student")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--hidden", default="64,64", help="of the student; the teacher has the defaults")
    parser.add_argument("--epochs", type=int, default=100, help="of the teacher")
    parser.add_argument("--teacher", type=int, default=5, help="transforms of the teacher; the student has five")
    parser.add_argument("--activation", default="relu", help="of teacher and student")
    parser.add_argument("--before", action="store_true", help="as the defaults were: 4000 steps of 256, 2000 first")
    parser.add_argument("--optimizer", default="adam", help="of the student (%(default)s)")
    for name in NAMES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    options = parser.parse_args()
    chosen: dict[str, Any] = {"steps": 4000, "samples": 256, "first_steps": 2000} if options.before else {}
    chosen |= {name: value for name in NAMES if (value := getattr(options, name)) is not None}
    chosen["optimizer"] = options.optimizer
    hidden = [int(units) for units in options.hidden.split(",")]
    print("| table | columns | seed | KL | log Z | transforms alone | processor seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in options.tables.split(","):
        whole = load(name, 0, options.data).shape[1]
        for columns in map(int, (options.columns or str(whole)).split(",")):
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                rows = load(name, seed, options.data)[:, :columns]
                cells = measured(rows, seed, hidden, chosen, options)
                print(f"| {name} | {columns} | {seed} | {' | '.join(cells)} |", flush=True)
    return 0


def measured(
    rows: np.ndarray, seed: int, hidden: list[int], chosen: dict[str, Any], options: argparse.Namespace
) -> list[str]:
    """The cells of one fit and distillation: KL, log Z, transforms alone, processor seconds of the distillation."""
    columns = rows.shape[1]
    teacher = hr.MAF(columns, transforms=options.teacher, activation=options.activation, seed=seed)
    teacher.fit(rows, epochs=options.epochs, seed=seed, progress=False)
    start = time.process_time()
    student = hr.IAF(columns, hidden=hidden, activation=options.activation, seed=seed + 1)
    _, report = hr.distill(teacher, student, seed=seed, progress=False, **chosen)
    seconds = time.process_time() - start
    assert report.estimates is not None
    alone = ", ".join(f"{kl:.3f}" for kl in report.transform_kl)
    kl = f"{report.kl:.3f} ± {report.kl_error:.3f}"
    return [kl, f"{report.estimates.log_z:.3f}", alone, f"{seconds:.0f}"]


if __name__ == "__main__":
    sys.exit(main())
