"""A seismometer's noise and events: the log density of each step is an anomaly score.

A station in Bavaria recorded the vertical motion of the ground for two and a half hours, 100 times a second; a flow of
sequences is fitted to the first four fifths. An event in the rest is motion that the flow does not expect: the score is
the negative log density of each step given the steps before, as a mean over a second. To measure the quality of the
score, weak events are added at known times: decaying oscillations of 15 Hz, of 15 % of the record's deviation. The
example prints the area under the ROC curve (AUC: the probability that a window with an event scores higher than one
without), beside those of the usual detector, the ratio of a short-term and a long-term average (STA/LTA) of the
record's power between 5 and 45 Hz, and of that power alone. The two detectors by power need SciPy.

The record is in the wheel of the package obspy, which `pip download` fetches; where it cannot be fetched, noise is
simulated.

    python examples/seismometer.py [--made] [--epochs 20] [--output seismometer.png]

`--made` takes simulated noise; `--output` draws the record and the score and needs matplotlib.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import headrace as hr

ROOT = Path(__file__).resolve().parents[1]  # the folder of the benchmark that fetches the data
RATE = 100  # steps a second
WINDOW, LONG = RATE, 30 * RATE
EVENTS, SIZE = 60, 0.15
BAND = 5.0, 45.0  # Hz

Floats = NDArray[np.float64]


def record() -> NDArray[np.int32] | None:
    """The record as integers, or None where it cannot be fetched."""
    sys.path.insert(0, str(ROOT))
    from bench.sequences.series import text_of

    with tempfile.TemporaryDirectory() as folder:
        text = text_of("seismometer", Path(folder))
    return None if text is None else np.array(text.split(), np.float64).astype(np.int32)


def made_noise(steps: int, seed: int) -> NDArray[np.int32]:
    """Noise of an autoregression around a slow swell."""
    rng = np.random.default_rng(seed)
    noise, x = 20.0 * rng.standard_normal(steps), np.zeros(steps)
    for t in range(2, steps):
        x[t] = 1.6 * x[t - 1] - 0.8 * x[t - 2] + noise[t]
    swell = 100.0 * np.sin(np.arange(steps) * 2.0 * np.pi / 60.0 + np.cumsum(0.02 * rng.standard_normal(steps)))
    found: NDArray[np.int32] = np.round(x + swell).astype(np.int32)
    return found


def with_events(x: NDArray[np.int32], seed: int) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """The record with weak events at random times, and the steps at which they begin."""
    rng = np.random.default_rng(seed)
    places = np.sort(rng.choice(np.arange(1, len(x) // (5 * WINDOW) - 1), EVENTS, replace=False)) * 5 * WINDOW
    t = np.arange(2 * WINDOW) / RATE
    one = np.exp(-2.0 * t) * np.sin(2.0 * np.pi * 15.0 * t)
    strength = SIZE * x.std() / np.sqrt(np.square(one[:WINDOW]).mean())
    found = x.astype(np.float64)
    for place in places:
        found[place : place + len(one)] += rng.choice([-1.0, 1.0]) * strength * one
    return np.round(found).astype(np.int32), places


def scores(flow: hr.SequenceFlow, x: NDArray[np.int32]) -> dict[str, Floats]:
    """The scores of each window's end by the flow, by power and by STA/LTA."""
    from scipy.signal import butter, sosfilt

    surprise = -flow.log_prob_steps(x[:, None], quantised=1).astype(np.float64)
    square = np.square(sosfilt(butter(4, BAND, "bandpass", fs=RATE, output="sos"), x - x.mean()))
    power = mean_before(square, WINDOW)
    return {
        "flow": mean_before(surprise, WINDOW),
        "power": power,
        "STA/LTA": power / (mean_before(square, LONG) + 1e-9),
    }


def mean_before(values: Floats, n: int) -> Floats:
    """The mean of the last n values at each step."""
    total = np.concatenate([np.zeros(n), np.cumsum(values)])
    found: Floats = (total[n:] - total[:-n]) / n
    return found


def area(quiet: Floats, event: Floats) -> float:
    """The probability that a window with an event scores higher than one without."""
    ordered = np.sort(quiet)
    below, not_above = (np.searchsorted(ordered, event, side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * len(quiet)))


def draw(path: Path, x: NDArray[np.int32], surprise: Floats, places: NDArray[np.intp]) -> None:
    """Draw the two minutes with the most events, and the score of the flow."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    steps = 120 * RATE
    begin = max(places, key=lambda place: np.count_nonzero((places >= place) & (places < place + steps))) - RATE
    part = slice(max(begin, WINDOW), begin + steps)
    at = np.arange(len(x))[part] / RATE
    above.plot(at, x[part], linewidth=0.4, color="tab:blue")
    above.set(ylabel="counts", title="two minutes; events were added at the red ticks")
    below.plot(at, surprise[part], linewidth=0.6, color="tab:red")
    below.set(xlabel="s", ylabel="score, nats a step")
    for place in places[(places >= part.start) & (places < part.stop)]:
        for axis in (above, below):
            axis.axvline((place + WINDOW) / RATE, ymax=0.06, color="tab:red")
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; the exit status is 1 if the flow finds fewer events than the usual detector."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--made", action="store_true", help="made noise")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--output", type=Path, help="a picture to write")
    options = parser.parse_args(arguments)

    x = None if options.made else record()
    if x is None:
        print("made noise" + ("" if options.made else ": the package obspy cannot be fetched here"))
        x = made_noise(200_000, seed=0)
    else:
        print("station KW1 of the Bavarian network, 31 March 2011, vertical")
    border = int(0.8 * len(x))
    flow = hr.WaveNet(layers=10, channels=16)
    start = time.perf_counter()
    flow.fit(
        [x[:border, None]],
        quantised=1,
        epochs=options.epochs,
        batch_size=8,
        learning_rate=4e-3,
        schedule="cosine",
        average=0.995,
        progress=False,
    )
    seconds, rest = time.perf_counter() - start, x[border:]
    nats = flow.log_prob_steps(rest[:, None], quantised=1).mean()
    print(f"{border:,} steps fitted in {seconds:.0f} s; {len(rest):,} others: {nats:.3f} nats a step")
    own = scores(flow, rest)["flow"]
    first = int(own[LONG:].argmax()) + LONG
    print(f"highest score of the record itself: {own[first]:.2f} nats a step, {first / RATE:.0f} s after the border")
    noisy, places = with_events(rest, seed=1)
    found, ends = scores(flow, noisy), places + WINDOW
    away = np.abs(np.arange(len(rest))[:: 5 * WINDOW, None] + 3 * WINDOW - ends).min(axis=1) > 3 * WINDOW
    quiet = np.arange(len(rest))[:: 5 * WINDOW][away] + 3 * WINDOW
    quiet = quiet[quiet < len(rest)]
    print(f"{EVENTS} events of {SIZE:g} standard deviations, and {len(quiet)} windows without:")
    areas = {name: area(score[quiet], score[ends]) for name, score in found.items()}
    for name, share in areas.items():
        print(f"  {name:8}  AUC {share:.3f}")
    if options.output:
        draw(options.output, noisy, found["flow"], places)
    return 0 if areas["flow"] > areas["STA/LTA"] else 1


if __name__ == "__main__":
    sys.exit(main())
