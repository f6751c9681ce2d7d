"""Probability density distillation (van den Oord et al. 2017): an inverse autoregressive flow learns another's density.

A masked autoregressive flow (MAF) is fitted to 19,020 events of the MAGIC gamma-ray telescope (data/README.md). Then an
inverse autoregressive flow (IAF) learns from the MAF without the data (`hr.distill`): at first each transform learns
from the teacher's transform in its position, then the whole flow from the teacher's log densities and their gradients
at the student's samples. The example prints KL(student || teacher), the mean log density of held-out events under both,
the distance between samples of both, and their speed in both directions; and the result of the same IAF after a fit by
likelihood to the teacher's samples.

In other libraries a MAF needs one network pass for each coordinate of a sample, and an IAF one pass for all, which is
the purpose of distillation. In headrace both directions of both flows cost the arithmetic of one pass. Two reasons to
distill remain: the sequential direction computes one level after another, and some systems run a flow in one direction
only. The student needs larger networks for the same density, so that in this example the teacher is faster in both
directions.

    python examples/distillation.py [--steps 8000] [--samples 512] [--first-steps 4000] [--hidden 128,128,128]
        [--learning-rate 1.5e-3] [--epochs 250] [--drawn 100000] [--seed 0] [--output distillation.png]

`--first-steps` are the steps of each transform alone, `--drawn` the samples of the fit by likelihood. `--output` draws
samples of both and needs matplotlib.
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
COLUMNS = ("fLength", "fWidth", "fSize", "fConc", "fConc1", "fAsym", "fM3Long", "fM3Trans", "fAlpha", "fDist")
DRAWN = ((0, 1), (2, 3), (8, 9))
CLOSE = 0.3  # nats; the defaults reach half of this value


def load(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Events to fit, and a tenth held out, shape (events, 10)."""
    with np.load(DATA) as file:
        events = np.concatenate([file["gamma"], file["hadron"]], axis=1).T
    events = events[np.random.default_rng((3, seed)).permutation(len(events))]
    held_out = len(events) // 10
    return events[held_out:], events[:held_out]


def nats(value: float) -> str:
    """A KL as text; it may be huge, because the log density of a row at which an affine flow extrapolates is
    unlimited."""
    return f"{value:.3f}" if value < 1000.0 else f"{value:.0e}"


def draw(path: Path, teacher: NDArray[Any], student: NDArray[Any], events: NDArray[Any]) -> None:
    """Draw pairs of columns: events, samples of the teacher, samples of the student."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8.6), layout="constrained")
    axes = figure.subplots(len(DRAWN), 3, sharex="row", sharey="row")
    low, high = np.quantile(events, 0.005, axis=0), np.quantile(events, 0.995, axis=0)
    for line, (i, j) in zip(axes, DRAWN, strict=True):
        panels = (("events held out", events), ("teacher (MAF)", teacher), ("student (IAF)", student))
        for axis, (title, rows) in zip(line, panels, strict=True):
            axis.plot(rows[: len(events), i], rows[: len(events), j], ".", markersize=2, alpha=0.35)
            axis.set(xlim=(low[i], high[i]), ylim=(low[j], high[j]), xlabel=COLUMNS[i])
            if (i, j) == DRAWN[0]:
                axis.set_title(title)
        line[0].set_ylabel(COLUMNS[j])
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the student's divergence from the teacher is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--first-steps", type=int, default=4000)
    parser.add_argument("--hidden", default="128,128,128")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--epochs", type=int, default=250)
    parser.add_argument("--drawn", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    events, held_out = load(options.seed)
    teacher = hr.MAF(features=10, seed=options.seed)
    start = time.perf_counter()
    teacher.fit(events, epochs=options.epochs, seed=options.seed)
    print(f"teacher: a MAF of 5 transforms, fitted to {len(events)} events in {time.perf_counter() - start:.1f} s")

    hidden = [int(units) for units in options.hidden.split(",")]
    student, report = hr.distill(
        teacher,
        hr.IAF(features=10, hidden=hidden, seed=options.seed + 1),
        steps=options.steps,
        samples=options.samples,
        first_steps=options.first_steps,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    assert report.estimates is not None
    assert report.teacher is not None
    assert report.student is not None
    alone = ", ".join(f"{kl:.3f}" for kl in report.transform_kl)
    print(f"student: an IAF of 5 transforms and wider networks, distilled in {report.seconds:.1f} s")
    print(f"  each transform alone from its counterpart: {alone} nats")
    print(f"KL(student || teacher): {report.kl:.3f} ± {report.kl_error:.3f} nats")
    share = report.estimates.effective_samples / report.estimates.samples
    print(f"  effective samples of the teacher among the student's: {100.0 * share:.0f} %")

    for name, flow in (("teacher", teacher), ("student", student)):
        score = flow.log_prob(held_out).mean(dtype=np.float64)
        print(f"mean log-likelihood of {len(held_out)} events held out, {name}: {score:.3f}")
    samples = [flow.sample(50_000, seed=options.seed) for flow in (teacher, student)]
    middle, upper = (np.abs(np.diff([np.quantile(s, q, axis=0) for s in samples], axis=0)) for q in (0.5, 0.9))
    spread = samples[0].std(axis=0)
    print("  samples of both, in the teacher's standard deviations: ", end="")
    print(f"medians apart by {(middle / spread).max():.3f} at most, 90 % quantiles by {(upper / spread).max():.3f}")

    print("rows a second:        density      samples")
    for name, speed in (("teacher, MAF", report.teacher), ("student, IAF", report.student)):
        print(f"  {name:<15} {speed.log_prob:12,.0f} {speed.sample:12,.0f}")
    direct = hr.IAF(features=10, hidden=hidden, seed=options.seed + 1)
    start = time.perf_counter()
    direct.fit(teacher.sample(options.drawn, seed=options.seed + 1), epochs=10, seed=options.seed)
    seconds = time.perf_counter() - start
    fresh = teacher.sample(50_000, seed=options.seed + 2)
    away = [(teacher.log_prob(fresh) - flow.log_prob(fresh)).mean(dtype=np.float64) for flow in (direct, student)]
    reverse = hr.free_energy(direct, teacher.log_prob_and_score).free_energy
    print(f"the same IAF fitted to {options.drawn} of the teacher's samples, in {seconds:.1f} s:")
    print(f"  KL(student || teacher) {nats(reverse)}, distilled {nats(report.kl)}")
    print(f"  KL(teacher || student) {nats(away[0])}, distilled {nats(away[1])}")
    if options.output:
        draw(options.output, samples[0], samples[1], held_out)
    return 0 if report.kl < CLOSE else 1


if __name__ == "__main__":
    sys.exit(main())
