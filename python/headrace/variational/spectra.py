"""The distance between two sets of signals by the magnitudes of short-time Fourier transforms, and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from headrace._base.types import Floats

WINDOW, OVERLAP = 256, 4  # steps in a frame, and frames that contain each step


def range_of_levels(x: NDArray[Any], frame: int) -> float:
    """The decibels from the 10 % to the 90 % quantile of the mean squares of frames of x, (rows, steps, features)."""
    frames = sliding_window_view(x.astype(np.float64), frame, axis=1)[:, ::frame]
    low, high = np.quantile(10.0 * np.log10(np.square(frames).mean(axis=(2, 3)) + 1e-30), (0.1, 0.9))
    return float(high - low)


def strength_of_pitch(x: NDArray[Any], frame: int) -> float:
    """The highest autocorrelation at lags of 1/8 to 1/2 of a frame, averaged over the louder half of the frames."""
    frames = sliding_window_view(x.astype(np.float64), frame, axis=1)[:, ::frame].reshape(-1, frame)
    frames = frames - frames.mean(axis=1, keepdims=True)
    energy = np.square(frames).sum(axis=1)
    loud = frames[energy >= np.median(energy)]
    peaks = []
    for lag in range(frame // 8, frame // 2 + 1):
        now, before = loud[:, lag:], loud[:, : frame - lag]
        size = np.sqrt(np.square(now).sum(axis=1) * np.square(before).sum(axis=1))
        peaks.append((now * before).sum(axis=1) / np.maximum(size, 1e-30))
    return float(np.max(peaks, axis=0).mean())


class Magnitudes:
    """|STFT| of signals (rows, steps, features): frames of `window` steps under a Hann window.

    Args:
        window: The steps of a frame, an even number.
    """

    def __init__(self, window: int) -> None:
        self.window, self.hop = window, max(window // OVERLAP, 1)
        self._hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * (np.arange(window) + 0.5) / window)

    def of(self, x: NDArray[Any]) -> Floats:
        """The magnitudes, (rows, frames, features, frequencies)."""
        return np.abs(self._transform(x))

    def vjp(self, x: NDArray[Any], grad: Floats) -> Floats:
        """The gradient by x, from the gradient by the magnitudes; magnitudes of 0 contribute nothing.

        With X_k = Σ_n w_n x_n e^{-iωkn} the derivative of |X_k| by x_n is w_n Re(X_k / |X_k| e^{iωkn}).
        """
        found = self._transform(x)
        size = np.abs(found)
        phases = np.where(size > 0.0, found / np.where(size > 0.0, size, 1.0), 0.0) * grad
        phases[..., 1:-1] *= 0.5  # irfft counts these frequencies twice
        frames = np.fft.irfft(phases, self.window, axis=-1) * self.window * self._hann
        result = np.zeros(x.shape)
        for i in range(frames.shape[1]):
            begin = i * self.hop
            result[:, begin : begin + self.window] += frames[:, i].swapaxes(1, 2)
        return result

    def _transform(self, x: NDArray[Any]) -> NDArray[np.complex128]:
        frames = sliding_window_view(x.astype(np.float64), self.window, axis=1)[:, :: self.hop]
        return np.fft.rfft(frames * self._hann, axis=-1)


class Spectrum:
    """The distance Σ |A - B| / Σ B of magnitudes A of samples and B of real signals.

    If samples belong to signals, by shared covariates, magnitudes are compared frame by frame, else as means over all
    frames (van den Oord et al. 2017, 3.3, where the means are of powers). The mean distance by frames is lowest for
    samples that are quieter than the signals (for noise by 2.3 dB), and not for samples with the signals' distribution,
    because phases differ. The mean of `energy`, which subtracts Σ |A - A'| of two samples of the same covariates, is
    lowest if the magnitudes have the signals' distribution (Gritsenko et al. 2020).
    """

    def __init__(self, magnitudes: Magnitudes, *, is_paired: bool) -> None:
        self._magnitudes, self._is_paired = magnitudes, is_paired

    def target(self, signals: NDArray[Any]) -> Floats:
        """The magnitudes B of the signals, or the means of B over all frames."""
        return self._pooled(self._magnitudes.of(signals))

    def distance(self, x: NDArray[Any], target: Floats) -> float:
        """The distance of samples x from the target."""
        return float(np.abs(self._pooled(self._magnitudes.of(x)) - target).sum() / target.sum())

    def energy(self, x: NDArray[Any], target: Floats, same: NDArray[np.bool_] | None) -> float:
        """The distance of samples x, minus the distance between samples of the same covariates.

        `same`: whether a row has the covariates of the row after it, (rows - 1,); None without covariates.
        """
        return self._energy(self._magnitudes.of(x), target, same)[0]

    def energy_and_grad(self, x: NDArray[Any], target: Floats, same: NDArray[np.bool_] | None) -> tuple[float, Floats]:
        """The energy and its gradient with respect to x."""
        every = self._magnitudes.of(x)
        value, by_magnitudes = self._energy(every, target, same)
        return value, self._magnitudes.vjp(x, by_magnitudes)

    def _energy(self, every: Floats, target: Floats, same: NDArray[np.bool_] | None) -> tuple[float, Floats]:
        """The energy, and its gradient with respect to the magnitudes."""
        apart = self._pooled(every) - target
        value, grad = np.abs(apart).sum(), np.sign(apart)
        if not self._is_paired:
            grad = np.broadcast_to(grad / (every.shape[0] * every.shape[1]), every.shape)
        elif same is not None:
            first = np.flatnonzero(same)
            between = every[first] - every[first + 1]
            value -= np.abs(between).sum()
            grad[first] -= np.sign(between)
            grad[first + 1] += np.sign(between)
        return float(value / target.sum()), grad / target.sum()

    def _pooled(self, every: Floats) -> Floats:
        return np.asarray(every if self._is_paired else every.mean(axis=(0, 1)))
