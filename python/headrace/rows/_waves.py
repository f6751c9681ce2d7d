"""Signals in WAV files of 16-bit PCM, read by Python's `wave`: integers in one or more channels, and the rate."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.output import check_regular, replacing

SUFFIX, BITS = ".wav", 16
LOW, HIGH = -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1
MOST_BYTES = 2**32 - 64  # the most bytes of samples: the header has 32 bits for the size
# The formats of samples by their codes in the header (RFC 2361).
FORMATS = {2: "ADPCM", 3: "floats", 6: "A-law", 7: "µ-law", 17: "ADPCM", 85: "MP3", 65534: "the extensible format"}


@dataclass(frozen=True)
class Wave:
    """A signal in memory."""

    path: str
    rate: int
    """The number of steps a second."""
    values: NDArray[np.int16]
    """The samples, shape (steps, channels)."""

    @property
    def channels(self) -> int:
        """The number of values of a step."""
        return int(self.values.shape[1])


def read(path: str) -> Wave:
    """Read the signal in a WAV file.

    Raises:
        ValueError: the samples are not 16-bit PCM, or the file is not a WAV file, is cut off, or has no steps.
        OSError: the file does not exist, or may not be read.
    """
    check_regular(path, "DATA")
    wanted = f"{path}: expected a WAV file of {BITS}-bit PCM"
    try:
        with wave.open(path, "rb") as file:
            channels, width, rate, steps = file.getparams()[:4]
            data = file.readframes(steps) if width == BITS // 8 else b""
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{wanted}, got {_reason(error)}; {convertible(path)}") from None
    if width != BITS // 8:
        raise ValueError(f"{wanted}, got samples of {8 * width} bits; {convertible(path)}")
    if rate < 1:
        raise ValueError(f"{path}: expected a rate of at least 1 Hz, got {rate}")
    if len(data) != steps * channels * width:
        whole = len(data) // (channels * width)
        raise ValueError(f"{path}: expected {steps:,} steps, as its header has, got {whole:,}; {convertible(path)}")
    if not steps:
        raise ValueError(f"{path}: expected at least one step, got an empty signal; leave the file out")
    return Wave(path, rate, np.frombuffer(data, np.int16).reshape(steps, channels))


def read_all(paths: Sequence[str]) -> list[Wave]:
    """Read the signals of several WAV files, which must have the same rate and number of channels.

    Raises:
        ValueError: `read` refuses a file, or the signals differ in rate or channels.
        OSError: a file cannot be read; see `read`.
    """
    waves = [read(path) for path in paths]
    for one in waves:
        check_like(one, waves[0].rate, waves[0].channels, waves[0].path)
    return waves


def check_like(one: Wave, rate: int, channels: int, other: str) -> None:
    """Raise ValueError if the rate or the number of channels of a signal differs; `other`: the name of the file to
    compare with.
    """
    if one.rate != rate:
        way_out = convertible(one.path, f"-ar {rate} ")
        raise ValueError(f"{one.path}: expected {rate} Hz, as {other} has, got {one.rate} Hz; {way_out}")
    if one.channels != channels:
        way_out = convertible(one.path, f"-ac {channels} ")
        what = f"{channels} channel{'s' * (channels != 1)}, as {other} has"
        raise ValueError(f"{one.path}: expected {what}, got {one.channels}; {way_out}")


def convertible(path: str, options: str = "") -> str:
    """The end of an error message: a command that converts the file."""
    return f"ffmpeg -i {path} {options}-c:a pcm_s16le new.wav converts it"


def _reason(error: Exception) -> str:
    """A description of the contents of a file that `wave` refuses."""
    text = str(error)
    code = text.removeprefix("unknown format: ")
    if code != text and code.isdigit():
        return FORMATS.get(int(code), f"format {code}")
    return f"another file ({text})" if text else "a file that is cut off"


def rounded(values: NDArray[Any]) -> tuple[NDArray[np.int16], int]:
    """Round values to 16-bit integers; return the integers, and the number of values that were clipped.

    >>> rounded(np.array([[0.6], [-40000.0]]))
    (array([[     1],
           [-32768]], dtype=int16), 1)
    """
    if not np.isfinite(values).all():
        raise ValueError("expected a flow that draws finite values, got a NaN or an infinity; fit it anew")
    whole = np.rint(values)
    clipped = np.count_nonzero((whole < LOW) | (whole > HIGH))
    return np.clip(whole, LOW, HIGH).astype(np.int16), int(clipped)


def write(path: str, rate: int, channels: int, steps: int, parts: Iterable[NDArray[np.int16]]) -> None:
    """Write a signal of `steps` steps, part by part, each part of shape (steps, channels).

    Raises:
        ValueError: a WAV file cannot hold this many steps.
        OSError: the file cannot be written; see `replacing`.
    """
    if steps * channels * BITS // 8 > MOST_BYTES:
        raise ValueError(f"{path}: expected at most 4 GiB, which a WAV file holds, got {steps:,} steps")
    with replacing(path) as stream, wave.open(stream, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(BITS // 8)
        file.setframerate(rate)
        file.setnframes(steps)
        for part in parts:
            file.writeframesraw(part.tobytes())
