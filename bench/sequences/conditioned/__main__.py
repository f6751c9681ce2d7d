"""A student of speech, teacher and student given the same envelope and pitch: does it whisper?

    OMP_NUM_THREADS=1 python -m bench.sequences.conditioned
    OMP_NUM_THREADS=1 python -m bench.sequences.conditioned --minutes 10 --steps 3000    # twenty minutes

The voice and its split are those of `bench.sequences.speech`. Each ten milliseconds have a frame: the level and the
reflection coefficients of a linear prediction, and the pitch (`envelope`). Frames are covariates of both networks, and
the frames' filter turns a signal into its excitation, of which the networks are densities. The filter is known from the
frames and invertible, so that divergences of excitations are those of signals. The teacher is fitted for `--minutes`
minutes of the processor, and `hr.distill_sequences` makes a student with the spectra of the training files in `--steps`
steps.

Whole held-out files are sampled, each given its own frames, by the student, by the teacher, and from white noise
through the frames' filter. Columns of the table:

| column | meaning |
| --- | --- |
| KL | nats a sample, to the teacher |
| level | of frames of 20 ms within 25 dB of the file's loudest, beside those of the real signal, mean in decibels |
| spectra | Σ \\|A - B\\| / Σ B of magnitudes of short-time Fourier transforms, B of the real signal |
| nats | the teacher's log density of a sample of x / 32768 |
| period | mean strength of the pitch in frames where that of the real signal is above 0.6 |

If the package of the voice cannot be fetched, a simulated process replaces the voice.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from bench.sequences.conditioned import envelope
from bench.sequences.speech import RANGE, SETTINGS, recordings
from headrace._base.types import Floats
from headrace._fit import clock
from headrace.variational.spectra import Magnitudes

GIVEN = {"covariates": envelope.COLUMNS, "hop": envelope.HOP}
LENGTH, SAMPLES, WINDOW = 1024, 8, 256
LOUD, FRAME, VOICED = 25.0, 160, 0.6
NOISE = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Spoken:
    """A file of speech: its values, frames and excitation."""

    x: Floats
    frames: Floats
    e: NDArray[np.float32]  # (steps, 1)
    level: Floats

    @classmethod
    def of(cls, values: NDArray[np.int16], rng: np.random.Generator) -> Spoken:
        """Make the object from integers, to which uniform noise of width 1 is added."""
        x = values + rng.random(len(values)) - 0.5
        own = envelope.frames(x)
        e, level = envelope.excitation(x, own)
        return cls(x, own, e[:, None].astype(np.float32), level)

    @property
    def covariates(self) -> NDArray[np.float32]:
        """The covariates of both networks."""
        return envelope.columns(self.frames)


# A function that returns an excitation, and its log density where it was sampled.
Drawn = Callable[[Spoken, int], tuple[NDArray[Any], float]]


@dataclass
class Row:
    """A row of the table, for one source of excitations."""

    kl: float
    error: float
    level: float
    spectra: float
    nats: float
    period: float

    def __str__(self) -> str:
        """The row as a line of the table."""
        return (
            f"{self.kl:7.4f} ± {self.error:.4f} {self.level:7.2f} dB {self.spectra:8.3f} {self.nats:8.3f} "
            f"{self.period:7.3f}"
        )


def judged(teacher: hr.SequenceFlow, files: Sequence[Spoken], drawn: Drawn | None) -> Row:
    """The row of the table for a source of excitations, or for the real excitations if there is no source."""
    kl, steps, nats, level, strength = [], [], [], [], []
    apart = total = 0.0
    magnitudes = Magnitudes(WINDOW)
    for i, one in enumerate(files):
        e, log_q = (one.e, math.nan) if drawn is None else drawn(one, i)
        log_p = float(teacher.log_prob_steps(e[None], covariates=one.covariates).sum(dtype=np.float64))
        x = envelope.signal(e[:, 0].astype(np.float64), one.frames)
        kl.append(log_q - log_p)
        nats.append(log_p - one.level.sum() + RANGE * len(e))
        steps.append(len(e))
        own, real = (
            np.sqrt(np.square(v[: len(v) // FRAME * FRAME].reshape(-1, FRAME)).mean(axis=1)) for v in (x, one.x)
        )
        loud = real > real.max() * 10.0 ** (-LOUD / 20.0)
        level.append(20.0 * np.log10(own[loud] / real[loud]))
        a, b = (magnitudes.of(v[None, :, None]) for v in (x, one.x))
        apart, total = apart + np.abs(a - b).sum(), total + b.sum()
        voiced = (one.frames[:, -2] > VOICED) & (one.frames[:, 0] > 0.0)
        strength.append(envelope.frames(x)[voiced, -2])
    n = float(sum(steps))
    mean = sum(kl) / n
    away = np.array(kl) - mean * np.array(steps)
    error = math.sqrt(np.square(away).sum() * len(kl) / max(len(kl) - 1, 1)) / n
    voices = np.concatenate(strength)
    return Row(
        mean,
        error,
        float(np.concatenate(level).mean()),
        apart / total,
        sum(nats) / n,
        float(voices.mean()) if len(voices) else math.nan,
    )


def by_student(student: hr.SequenceFlow) -> Drawn:
    """A source of a student's excitations, with the student's log density from its noise."""

    def drawn(one: Spoken, i: int) -> tuple[NDArray[Any], float]:
        z = np.random.default_rng([1, i]).standard_normal((1, len(one.e), 1)).astype(np.float32)
        e, log_det = student.to_data(z, covariates=one.covariates)
        log_base = -0.5 * np.square(z, dtype=np.float64).sum() - NOISE * len(one.e)
        return e[0], float(log_base - log_det.sum(dtype=np.float64))

    return drawn


def by_teacher(teacher: hr.SequenceFlow) -> Drawn:
    """A source of the teacher's samples, whose divergence is 0."""

    def drawn(one: Spoken, i: int) -> tuple[NDArray[Any], float]:
        e = teacher.sample(1, steps=len(one.e), covariates=one.covariates, seed=i)
        return e[0], float(teacher.log_prob(e, covariates=one.covariates).sum(dtype=np.float64))

    return drawn


def white(one: Spoken, i: int) -> tuple[NDArray[Any], float]:
    """White noise, with its log density."""
    e = np.random.default_rng([2, i]).standard_normal((len(one.e), 1)).astype(np.float32)
    return e, float(-0.5 * np.square(e, dtype=np.float64).sum() - NOISE * len(e))


def fitted(parts: dict[str, list[Spoken]], seconds: float, **options: Any) -> tuple[hr.WaveNet, hr.training.History]:
    """The teacher, fitted for this many seconds of the processor, and its history."""
    teacher = hr.WaveNet(map="affine", base=hr.StandardNormal(1), prediction=0, **GIVEN, **options)
    clock.now = time.process_time  # the clock that budgets and schedules read
    train, valid = parts["train"], parts["valid"]
    history = teacher.fit(
        [one.e for one in train],
        covariates=[one.covariates for one in train],
        validation=([one.e for one in valid], None, [one.covariates for one in valid]),
        time_budget=seconds,
        epochs=1000,
        progress=False,
        **SETTINGS,
    )
    return teacher, history


def rate(student: hr.SequenceFlow) -> float:
    """The steps that a student draws in a processor second, for one sequence of a minute; the best of five runs."""
    steps = 480_000
    covariates = np.zeros((steps // envelope.HOP + 1, envelope.COLUMNS), np.float32)
    seconds = []
    for seed in range(5):
        begin = time.process_time()
        student.sample(1, steps=steps, covariates=covariates, seed=seed)
        seconds.append(time.process_time() - begin)
    return steps / min(seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, distill and report."""
    parser = argparse.ArgumentParser(prog="python -m bench.sequences.conditioned", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=3.0, help="of the processor, for the teacher")
    parser.add_argument("--steps", type=int, default=300, help="of the student")
    parser.add_argument("--first-steps", type=int, default=0, help="of these, by spectra alone")
    parser.add_argument("--power", type=float, default=4.0, help="the weight of the spectra")
    parser.add_argument("--learning-rate", type=float, default=None, help="of the student")
    parser.add_argument("--files", type=int, help="use this many of each part alone")
    parser.add_argument("--folder", type=Path, help="where the package is, or is unpacked to; by default forgotten")
    parser.add_argument("--teacher", type=Path, help="load it from here if it is there, else save it")
    parser.add_argument("--student", type=Path, help="go on with it from here if it is there; save it")
    given = parser.parse_args(arguments)
    integers = recordings(given.folder)
    rng = np.random.default_rng(0)
    parts = {
        name: [Spoken.of(x, rng) for x in files[: given.files] if len(x) >= LENGTH] for name, files in integers.items()
    }
    print(f"frames and excitations: {time.process_time():.0f} s", flush=True)
    if given.teacher and given.teacher.exists():
        teacher = hr.load(given.teacher)
    else:
        begin = time.process_time()
        teacher, history = fitted(parts, 60.0 * given.minutes)
        print(f"teacher: {history!r}, {time.process_time() - begin:.0f} s", flush=True)
        if given.teacher:
            teacher.save(given.teacher)
    head = f"{'':18s} {'KL':>16s} {'level':>10s} {'spectra':>8s} {'nats':>8s} {'period':>7s}"
    print(head)
    for name, drawn in (("real", None), ("teacher", by_teacher(teacher)), ("noise", white)):
        print(f"{name:18s} {judged(teacher, parts['test'], drawn)}", flush=True)
    if given.steps:
        if given.student and given.student.exists():
            student = hr.load(given.student)
        else:
            student = hr.WaveNet(reads="latent", layers=8, kernel=3, transforms=2, map="affine", **GIVEN)
        begin = time.process_time()
        _, report = hr.distill_sequences(
            teacher,
            student,
            signals=[one.e for one in parts["train"]],
            covariates=[one.covariates for one in parts["train"]],
            steps=given.steps,
            first_steps=given.first_steps,
            power=given.power,
            learning_rate=given.learning_rate,
            samples=SAMPLES,
            length=LENGTH,
            progress=False,
        )
        print(f"student: {report!r}, {time.process_time() - begin:.0f} s", flush=True)
        print(head)
        print(f"{'student':18s} {judged(teacher, parts['test'], by_student(student))}", flush=True)
        print(f"the student draws {rate(student):,.0f} samples a second of one core", flush=True)
        if given.student:
            student.save(given.student)
    return 0


if __name__ == "__main__":
    sys.exit(main())
