"""The power of samples of a student of speech, which may whisper, with and without spectra of real signals.

    OMP_NUM_THREADS=1 python -m bench.sequences.whisper --minutes 1 --steps 300

The teacher is a `WaveNet` with normal distributions, fitted to the voice of `bench.sequences.speech` for `--minutes`
minutes of the processor. Two students with equal initial weights learn from the teacher without conditioning, in
equally many steps: by the divergence alone, and with the spectra of the training files. With `--classes 4` a third
student learns with the spectra of four classes of frames, from the quietest to the loudest, in place of one mean. Each
line of the output has KL in nats a sample, the distance of spectra, the power over that of real signals in decibels,
and the teacher's log density of samples less that of real signals, in nats a sample. The next line has the range of
levels of frames, in decibels, and the strength of the pitch, for samples of the student and of the teacher without
their first steps, and for all real signals. The last lines have range and strength for stationary noise with the
signals' spectrum, for which the other values are good, and for one long sample of each student. `--picture` draws
spectrograms of the long samples. If the package of the voice cannot be fetched, a simulated process replaces the voice.
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
from bench.sequences.speech import fitted, recordings
from headrace._base.types import Floats
from headrace.variational import over_time
from headrace.variational.over_time import LEVEL_FRAME, PITCH_FRAME
from headrace.variational.spectra import Spectrum, range_of_levels, strength_of_pitch

LENGTH, SAMPLES = 1024, 8
DRAWN = 4 * 8000  # steps of a long sample


class ClassesOfLevels(Spectrum):
    """The means of magnitudes over the frames of each class of levels; classes have equally many frames."""

    classes = 4

    def _energy(self, every: Floats, target: Floats, same: Any) -> tuple[float, Floats]:
        shares = self._shares(every)
        apart = np.tensordot(shares, every, 2) - target
        grad = np.tensordot(shares, np.sign(apart), (0, 0)) / target.sum()
        return float(np.abs(apart).sum() / target.sum()), grad

    def _pooled(self, every: Floats) -> Floats:
        return np.tensordot(self._shares(every), every, 2)

    def _shares(self, every: Floats) -> Floats:
        """The weight of each frame in the mean of each class, (classes, rows, frames)."""
        sizes = np.square(every).sum(axis=(2, 3))
        ranks = sizes.ravel().argsort().argsort().reshape(sizes.shape)
        inside = ranks * self.classes // sizes.size == np.arange(self.classes)[:, None, None]
        return inside / inside.sum(axis=(1, 2), keepdims=True)


def coloured_noise(signals: Sequence[NDArray[Any]], rows: int, steps: int, rng: np.random.Generator) -> Floats:
    """Stationary normal noise with the mean power spectrum of the signals, (rows, steps, 1)."""
    parts = [x[end - LENGTH : end, 0] for x in signals for end in range(LENGTH, len(x) + 1, LENGTH)]
    size = np.sqrt(np.mean([np.abs(np.fft.rfft(part)) ** 2 for part in parts], axis=0) / LENGTH)
    white = np.fft.rfft(rng.standard_normal((rows, steps)))
    between = np.interp(np.fft.rfftfreq(steps), np.fft.rfftfreq(LENGTH), size)
    return np.fft.irfft(between * white, steps)[..., None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit the teacher, distill the students and print the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.sequences.whisper", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="of the processor, for the teacher")
    parser.add_argument("--steps", type=int, default=300, help="of each student")
    parser.add_argument("--power", type=float, default=1.0, help="the weight of the spectra")
    parser.add_argument("--classes", type=int, help="of levels, for a third student")
    parser.add_argument("--picture", type=Path, help="a picture to write")
    parser.add_argument("--folder", type=Path, help="where the package is, or is unpacked to; by default forgotten")
    given = parser.parse_args(arguments)
    parts = recordings(given.folder)
    teacher, history, seconds = fitted(parts, 60.0 * given.minutes, map="affine", base=hr.StandardNormal(1))
    print(f"teacher: {history!r}, {seconds:.0f} s", flush=True)
    rng = np.random.default_rng(0)
    long = [x for x in parts["train"] if len(x) >= LENGTH]
    signals = [(x + rng.random(len(x)) - 0.5)[:, None].astype(np.float32) for x in long]
    options: dict[str, Any] = {"steps": given.steps, "samples": SAMPLES, "length": LENGTH, "progress": False}
    # The weight of spectra is nearly zero, and not 0, so that the report has all values.
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("the divergence alone", {"power": 1e-9, "first_steps": 0}),
        ("with spectra", {"power": given.power}),
    ]
    if given.classes:
        kinds.append((f"spectra of {given.classes} classes", {"power": given.power}))
    pictures = {"recorded": max(parts["test"], key=len)[:DRAWN, None]}
    pictures["teacher"] = teacher.sample(1, DRAWN, seed=1)[0]
    for name, more in kinds:
        if name.endswith("classes"):
            ClassesOfLevels.classes, over_time.Spectrum = given.classes, ClassesOfLevels  # type: ignore[misc]
        student = hr.WaveNet(reads="latent", layers=10, kernel=3, map="affine", level=True)
        begin = time.process_time()
        _, report = hr.distill_sequences(teacher, student, signals=signals, **more, **options)
        print(
            f"{name:22s} KL {report.kl:.4f} ± {report.kl_error:.4f}, spectra {report.spectrum:.3f}, "
            f"level {report.level:.1f} dB, excess {report.excess:.3f}, {time.process_time() - begin:.0f} s",
            flush=True,
        )
        print(f"{'':22s} level range {report.level_range} dB, pitch {report.pitch}", flush=True)
        pictures[f"student, {name}"] = student.sample(1, DRAWN, seed=1)[0]
    noise = coloured_noise(signals, len(signals), LENGTH, rng)
    levels, pitch = range_of_levels(noise, LEVEL_FRAME), strength_of_pitch(noise, PITCH_FRAME)
    print(f"{'noise of the spectrum':22s} level range {levels:.3g} dB, pitch {pitch:.3g}", flush=True)
    pictures["noise of the spectrum"] = coloured_noise(signals, 1, DRAWN, rng)[0]
    for name, x in pictures.items():
        levels, pitch = range_of_levels(x[None], LEVEL_FRAME), strength_of_pitch(x[None], PITCH_FRAME)
        print(f"{name:32s} of {len(x)} samples: level range {levels:.3g} dB, pitch {pitch:.3g}", flush=True)
    if given.picture:
        hr.plot.spectrograms(pictures, rate=8000).savefig(given.picture, dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(main())
