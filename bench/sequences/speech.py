"""How good are densities of speech after ten minutes of one core, beside linear prediction?

    python -m bench.sequences.speech                       # ten minutes of the processor, then the report
    OMP_NUM_THREADS=1 python -m bench.sequences.speech --minutes 1 --folder speech
    OMP_NUM_THREADS=1 python -m bench.sequences.speech --minutes 1.5 --defaults --draws 8

The data are 25 minutes of one voice, 8000 samples of 16 bit a second, of Debian's package asterisk-core-sounds-en-wav
(CC BY-SA 3.0, Allison Smith), which `apt-get download` fetches and `dpkg` unpacks into the folder; with a temporary
folder no data remain. Files are split by the checksum of their name: a tenth each is for validation while fitting, and
for the report. `--wav FOLDER` takes files of another voice, or of music, in the form of asterisk-core-sounds-fr-wav or
asterisk-moh-opsound-wav. With `--joined` the files of FOLDER are one signal: the first 80 % are to train on, of which
the fit holds out the end, and the 500,000 samples after them to report.

Results are nats a sample of (x + u) / 32768 with x the integer and u uniform on (-1/2, 1/2), given all samples of the
file before it. A sample is *active* if the peak of its twentieth of a second is above 32 steps; a tenth of the samples
is nearly silent, and has log densities so high that a mean over all samples hides the rest. Where the package cannot be
fetched, a simulated process of known entropy rate is fitted instead. Seconds are those of the processor, so that a busy
machine changes them little.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
import tempfile
import time
import wave
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from bench.sequences.adaptive import adaptive_prediction
from headrace._base.types import Floats
from headrace._fit import clock

PACKAGE = "asterisk-core-sounds-en-wav"
JOINED = 0.8, 500_000  # the share of a joined signal to train on, and samples after it to report
VOICE = Path("usr/share/asterisk/sounds/en_US_f_Allison")
RANGE = math.log(32768.0)
SETTINGS: dict[str, Any] = {"schedule": "cosine", "learning_rate": 4e-3, "average": 0.995, "clip": 1.0, "batch_size": 8}

Parts = dict[str, list[NDArray[np.int16]]]


def fetched(folder: Path) -> Path | None:
    """The folder of the voice, fetched and unpacked if necessary; None if the voice cannot be fetched."""
    voice = folder / VOICE
    if voice.exists():
        return voice
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f"{PACKAGE}_*.deb")):
        subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, capture_output=True, check=False)
    for archive in folder.glob(f"{PACKAGE}_*.deb"):
        subprocess.run(["dpkg", "-x", archive.name, "."], cwd=folder, capture_output=True, check=False)
    return voice if voice.exists() else None


def samples_of(path: Path) -> NDArray[np.int16]:
    """The samples of a file."""
    with wave.open(str(path)) as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, 8000):
            raise ValueError(f"{path}: expected one channel of 16 bit and 8000 Hz")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def parts_of(voice: Path) -> Parts:
    """The files of each part of the split; silent files are left out."""
    parts: Parts = {"train": [], "valid": [], "test": []}
    for path in sorted(voice.rglob("*.wav")):
        name = path.relative_to(voice).as_posix()
        if not name.startswith("silence/"):
            parts[{0: "test", 1: "valid"}.get(zlib.crc32(name.encode()) % 10, "train")].append(samples_of(path))
    return parts


def joined(folder: Path) -> Parts:
    """The files of a folder one after another, as one signal."""
    x = np.concatenate([samples_of(path) for path in sorted(folder.rglob("*.wav"))])
    border = int(JOINED[0] * len(x))
    return {"train": [x[:border]], "test": [x[border : border + JOINED[1]]]}


def made(seed: int = 0) -> Parts:
    """Signals of an autoregression whose noise has two scales, as integers: the entropy rate is that of the noise."""
    rng = np.random.default_rng(seed)

    def one(n: int) -> NDArray[np.int16]:
        noise = rng.standard_normal(n + 500) * rng.choice([30.0, 300.0], n + 500)
        x = np.zeros(n + 500)
        for t in range(2, n + 500):
            x[t] = 1.7 * x[t - 1] - 0.8 * x[t - 2] + noise[t]
        return np.round(x[500:]).astype(np.int16)

    sizes = {"train": [40_000] * 10, "valid": [20_000], "test": [40_000]}
    return {name: [one(n) for n in own] for name, own in sizes.items()}


def recordings(folder: Path | None) -> Parts:
    """The voice's recordings, from the folder or a temporary one, or simulated ones where the voice cannot be
    fetched."""
    with tempfile.TemporaryDirectory() as own:
        voice = fetched(folder or Path(own))
        if voice is not None:
            return parts_of(voice)
    print(f"{PACKAGE} cannot be fetched here: a made process takes its place", flush=True)
    return made()


def activity(x: NDArray[np.int16], window: int = 400) -> NDArray[np.bool_]:
    """A mask of active samples."""
    size = np.abs(x.astype(np.int64))
    n = -(-len(size) // window) * window
    return np.repeat(np.pad(size, (0, n - len(size))).reshape(-1, window).max(axis=1) > 32, window)[: len(x)]


def report(name: str, seconds: float, log_prob: Floats, active: NDArray[np.bool_]) -> dict[str, float]:
    """Print a line of the report: log densities of samples in units of a step become nats a sample."""
    own = log_prob + RANGE
    found = {"all": own.mean(), "active": own[active].mean(), "worst": own.min(), "seconds": seconds}
    bits = (RANGE - found["all"]) / math.log(2.0)
    print(
        f"{name:52s} all {found['all']:7.4f}  active {found['active']:7.4f}  worst {found['worst']:8.1f}  "
        f"{bits:6.3f} bits  {seconds:6.1f} s",
        flush=True,
    )
    return {key: float(value) for key, value in found.items()}


def levels(x: NDArray[Any], rate: int = 8000) -> Floats:
    """The level of each whole second, in decibels of one step."""
    seconds = x[: len(x) // rate * rate].reshape(-1, rate).astype(np.float64)
    found: Floats = 10.0 * np.log10(np.square(seconds).mean(axis=1) + 1e-9)
    return found


def report_draws(flow: hr.WaveNet, files: Sequence[NDArray[np.int16]], seconds: int, draws: int = 20) -> None:
    """Print levels of sampled seconds beside those of the files; a silent second has a mean square of less than one
    step."""
    x = flow.sample(draws, 8000 * seconds, seed=1)[..., 0]
    found = {"files": np.concatenate([levels(one) for one in files]), "draws": np.array([levels(one) for one in x])}
    low, high = np.quantile(found["files"], (0.05, 0.95)) + np.array([-10.0, 10.0])
    for name, own in found.items():
        shown = "  ".join(f"{value:5.1f}" for value in np.quantile(own, (0.0, 0.05, 0.5, 0.95, 1.0)))
        print(f"levels of seconds, {name}, dB: least, 5 %, median, 95 %, most {shown}", flush=True)
        outside, silent = ((own < low) | (own > high)).mean(), (own < 0.0).sum()
        print(f"  {outside:.2%} outside {low:.1f} to {high:.1f} dB, {silent} of {own.size} silent", flush=True)
    print(f"clipped: {int((np.abs(x) > 32767).sum())} of {x.size} samples", flush=True)


def fitted(
    parts: Parts, seconds: float, settings: dict[str, Any] | None = None, **options: Any
) -> tuple[hr.WaveNet, hr.training.History, float]:
    """A flow after a number of seconds of the processor, its history, and the seconds that it took."""
    settings = {"epochs": 1000, **SETTINGS} if settings is None else settings
    flow = hr.WaveNet(**options)
    train, valid = ([x[:, None] for x in parts.get(name, [])] for name in ("train", "valid"))
    clock.now = time.process_time  # the clock of budgets and schedules
    begin = time.process_time()
    # Without validation files, `fit` holds out the end of the training signal.
    own: dict[str, Any] = {"validation": valid} if valid else {}
    history = flow.fit(train, quantised=1, time_budget=seconds, progress=False, **own, **settings)
    return flow, history, time.process_time() - begin


def log_probs(flow: Any, noisy: Sequence[Floats]) -> Floats:
    """Log densities of all samples, file by file."""
    steps = flow.log_prob_steps([y[:, None].astype(np.float32) for y in noisy])
    return np.concatenate(steps).astype(np.float64)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit the flow and print the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.sequences.speech", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of the processor, for the fit")
    parser.add_argument("--folder", type=Path, help="where the package is, or is unpacked to; by default forgotten")
    parser.add_argument("--wav", type=Path, help="a folder of other files, of one channel, 16 bit and 8000 Hz")
    parser.add_argument("--joined", action="store_true", help="these files as one signal")
    parser.add_argument("--plain", action="store_true", help="without linear prediction, companded inputs and levels")
    parser.add_argument("--defaults", action="store_true", help="fit by the defaults of `fit`")
    parser.add_argument("--linear", action="store_true", help="without a trial of an adaptive prediction")
    parser.add_argument("--draws", type=int, metavar="SECONDS", help="also report levels of 20 drawn signals")
    parser.add_argument("--optimizer", default="auto", help="of the fit")
    parser.add_argument("--rate", type=float, help="learning rate of the fit")
    parser.add_argument("--no-anchor", action="store_true", help="leave the adaptive linear prediction out")
    given = parser.parse_args(arguments)
    of_files = joined if given.joined else parts_of
    parts = recordings(given.folder) if given.wav is None else of_files(given.wav)
    for name, files in parts.items():
        print(f"{name}: {len(files)} files, {sum(map(len, files))} samples", flush=True)
    rng = np.random.default_rng(0)
    noisy = [x + rng.random(len(x)) - 0.5 for x in parts["test"]]
    active = np.concatenate([activity(x) for x in parts["test"]])
    if not given.no_anchor:
        begin = time.process_time()
        anchor = adaptive_prediction(parts["train"], noisy)
        report("adaptive linear prediction 24, Student", time.process_time() - begin, anchor, active)
    options: dict[str, Any] = {"prediction": 0, "companded": False, "level": False} if given.plain else {}
    settings: dict[str, Any] = {} if given.defaults else {"epochs": 1000, **SETTINGS}
    settings |= {"gaussianize": False} if given.linear else {}
    settings |= {"optimizer": given.optimizer} | ({"learning_rate": given.rate} if given.rate else {})
    flow, history, seconds = fitted(parts, 60.0 * given.minutes, settings, **options)
    print(f"{history}, adaptive={history.adaptive}", flush=True)
    report("hr.WaveNet(), plain" if given.plain else "hr.WaveNet()", seconds, log_probs(flow, noisy), active)
    if given.draws:
        report_draws(flow, parts["train"], given.draws)
    return 0


if __name__ == "__main__":
    sys.exit(main())
