"""Speech: a flow of a voice's samples scores recordings, draws new ones, and continues a recording.

A `WaveNet` is fitted to some minutes of one voice, 8000 integers of 16 bit a second, in less than two minutes of a
core. The example prints the bits a sample of a coder that uses the flow, on recordings that were held out, beside those
of a normal distribution of independent samples and of a linear prediction of 32 steps with a normal residual. After so
short a fit, samples are babble; ten minutes of fitting give 8.3 bits, and no words either, because the flow reads no
text.

The voice is that of Debian's package asterisk-core-sounds-en-wav (CC BY-SA 3.0, Allison Smith), which `apt-get
download` fetches; where it cannot be fetched, signals are simulated by an autoregression.

    python examples/speech.py [--made] [--recordings 100] [--epochs 3] [--output speech.png]

`--made` takes simulated signals, `--recordings` is the number of those to fit, `--output` draws spectrograms and needs
matplotlib.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr

ROOT = Path(__file__).resolve().parents[1]  # the folder of the benchmark that fetches the data
RATE, ORDER = 8000, 32
PREFIX, STEPS = 4000, 8000  # steps before a continuation, and steps of a continuation
PER_BIT = np.log(2.0)


def signals(made: bool) -> tuple[list[NDArray[np.int16]], list[NDArray[np.int16]]]:
    """Recordings to fit and to score."""
    sys.path.insert(0, str(ROOT))
    from bench.sequences import speech

    with tempfile.TemporaryDirectory() as folder:
        voice = None if made else speech.fetched(Path(folder))
        parts = speech.made() if voice is None else speech.parts_of(voice)
    if voice is None:
        print("made signals" + ("" if made else f": the package {speech.PACKAGE} cannot be fetched here"))
    return parts["train"], parts["test"]


def bits_by_prediction(fitted: list[NDArray[np.int16]], scored: list[NDArray[np.int16]]) -> float:
    """The bits a sample of a fixed linear prediction, whose residual is normal."""
    joined = np.concatenate(fitted[::4]).astype(np.float64)
    r = np.array([joined[lag:] @ joined[: len(joined) - lag] for lag in range(ORDER + 1)])
    r[0] *= 1.0 + 1e-9
    a = np.linalg.solve(r[np.abs(np.subtract.outer(np.arange(ORDER), np.arange(ORDER)))], r[1:])

    def errors(x: NDArray[np.int16]) -> NDArray[Any]:
        values = x.astype(np.float64)
        return np.convolve(values, np.concatenate([[1.0], -a]))[: len(x)]

    variance = np.concatenate([errors(x) for x in fitted[::4]]).var() + 1.0 / 12.0
    square = np.mean(np.concatenate([errors(x) for x in scored]) ** 2)
    return float(0.5 * (np.log(2.0 * np.pi * variance) + square / variance) / PER_BIT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the flow needs more bits than the linear prediction."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--made", action="store_true", help="made signals")
    parser.add_argument("--recordings", type=int, default=100, help="to fit")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    fitted, scored = signals(options.made)
    fitted = fitted[:: max(len(fitted) // options.recordings, 1)][: options.recordings]
    flow = hr.WaveNet()
    start = time.process_time()
    flow.fit(
        [x[:, None] for x in fitted],
        quantised=1,
        epochs=options.epochs,
        batch_size=8,
        learning_rate=4e-3,
        schedule="cosine",
        average=0.995,
        progress=False,
    )
    minutes, seconds = sum(map(len, fitted)) / RATE / 60, time.process_time() - start
    print(f"{len(fitted)} recordings, {minutes:.1f} minutes, fitted in {seconds:.0f} CPU s")
    joined = np.concatenate(scored).astype(np.float64)
    normal = 0.5 * np.log2(2.0 * np.pi * np.e * joined.var())
    log_prob = np.concatenate(flow.log_prob_steps([x[:, None] for x in scored], quantised=1))
    reached, linear = float(-log_prob.mean(dtype=np.float64) / PER_BIT), bits_by_prediction(fitted, scored)
    print(f"bits a sample of {len(scored)} other recordings:")
    for name, bits in (("independent, normal", normal), ("linear prediction", linear), ("WaveNet", reached)):
        print(f"  {name:20}{bits:6.2f}")
    if options.output:
        one = max(scored, key=len)[:, None].astype(np.float32)
        rest = flow.given(one[:PREFIX]).sample((), steps=STEPS, seed=1)
        pictures = {
            "recorded": one[: PREFIX + STEPS],
            f"half a second of it, and {STEPS / RATE:g} s drawn": np.concatenate([one[:PREFIX], rest]),
            "drawn": flow.sample(1, steps=PREFIX + STEPS, seed=2)[0],
        }
        hr.plot.spectrograms(pictures, rate=RATE).savefig(options.output, dpi=110)
        print(f"picture: {options.output}")
    return 0 if reached < linear else 1


if __name__ == "__main__":
    sys.exit(main())
