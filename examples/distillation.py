"""Distillation: a masked autoregressive teacher taught to an inverse autoregressive student (MAGIC telescope).

A MAF is fitted to the gammas of the MAGIC telescope (data/README.md). Then an IAF learns its density from the density
alone (`hr.distill`, the idea of Parallel WaveNet): KL(student || teacher) by samples of the student. Printed are KL, how
likely held-out events are under both, and how many rows a second both give in both directions. What it buys where it
comes from, samples in one pass instead of one for each coordinate, a MAF has here already: what is left is the *latency*
of the sequential direction on machines that do many things at once, and other systems that can only run a network
forward.

    python examples/distillation.py [--epochs 60] [--steps 4000] [--seed 0] [--output distillation.png]

`--output` draws samples of both and needs matplotlib.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr

DATA = Path(__file__).parent / "data" / "magic.npz"
HELD_OUT = 2000
COLUMNS = (("length", 0), ("width", 1), ("alpha", 8))
DRAWN = 4000


def load_gammas() -> NDArray[Any]:
    """Events, shape (12332, 10)."""
    with np.load(DATA) as file:
        return np.asarray(file["gamma"].T)


def draw(path: Path, clouds: dict[str, NDArray[Any]]) -> None:
    """Two planes of the ten dimensions: events, the teacher's samples and the student's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(clouds), 6.2), layout="constrained")
    axes = figure.subplots(2, len(clouds), sharex="row", sharey="row")
    events = clouds["held-out events"]
    for column, (title, x) in enumerate(clouds.items()):
        for row, ((first, i), (second, j)) in enumerate((COLUMNS[:2], COLUMNS[::2])):
            axis = axes[row, column]
            axis.plot(x[:DRAWN, i], x[:DRAWN, j], ".", markersize=1.5, alpha=0.5, color=f"C{column}")
            low, high = np.quantile(events[:, [i, j]], (0.001, 0.995), axis=0)
            axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel=first, ylabel=second)
        axes[0, column].set_title(title)
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the student is not within 0.15 nats of the teacher."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    gammas = load_gammas()
    order = np.random.default_rng(options.seed).permutation(len(gammas))
    train, held_out = gammas[order[HELD_OUT:]], gammas[order[:HELD_OUT]]
    teacher, student = hr.MAF(10, seed=options.seed), hr.IAF(10, seed=options.seed)
    start = time.perf_counter()
    teacher.fit(train, epochs=options.epochs, seed=options.seed)
    print(f"teacher: a MAF of {len(teacher) - 1} transforms, fitted in {time.perf_counter() - start:.1f} s")
    student, report = hr.distill(teacher, student, steps=options.steps, seed=options.seed)
    print(f"student: an IAF of {len(student) - 1} transforms, distilled in {report.seconds:.1f} s")

    print(f"KL(student || teacher) {report.kl:.3f} ± {report.kl_error:.3f} nats")
    rate = {"teacher": report.teacher, "student": report.student}
    for name, flow in (("teacher", teacher), ("student", student)):
        likelihood, speed = flow.log_prob(held_out).mean(dtype="float64"), rate[name]
        assert speed is not None
        print(
            f"{name}: held-out log-likelihood {likelihood:.3f}, densities {speed.log_prob / 1e3:.0f} and samples "
            f"{speed.sample / 1e3:.0f} thousand rows/s"
        )
    if options.output:
        clouds = {"held-out events": held_out}
        clouds["teacher's samples"] = teacher.sample(DRAWN, seed=options.seed)
        clouds["student's samples"] = student.sample(DRAWN, seed=options.seed)
        draw(options.output, clouds)
    return 0 if report.kl < 0.15 else 1


if __name__ == "__main__":
    sys.exit(main())
