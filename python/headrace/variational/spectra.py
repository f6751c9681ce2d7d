"""The distance of two sets of signals by the magnitudes of their short-time Fourier transforms, and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = ["Magnitudes", "Spectrum"]

Array = NDArray[np.float64]

WINDOW, OVERLAP = 256, 4  # steps of a frame, and frames that a step is in


class Magnitudes:
    """|STFT| of signals (rows, steps, features): frames of `window` steps under a Hann window.

    Args:
        window: Steps of a frame, even.
    """

    def __init__(self, window: int) -> None:
        """See the class."""
        self.window, self.hop = window, max(window // OVERLAP, 1)
        self._hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * (np.arange(window) + 0.5) / window)

    def of(self, x: NDArray[Any]) -> Array:
        """The magnitudes, (rows, frames, features, frequencies)."""
        return np.abs(self._transform(x))

    def vjp(self, x: NDArray[Any], grad: Array) -> Array:
        """The gradient by x, from that by the magnitudes; zero by a magnitude of 0.

        With X_k = Σ_n w_n x_n e^{-iωkn} the derivative of |X_k| by x_n is w_n Re(X_k / |X_k| e^{iωkn}).
        """
        found = self._transform(x)
        size = np.abs(found)
        phases = np.where(size > 0.0, found / np.where(size > 0.0, size, 1.0), 0.0) * grad
        phases[..., 1:-1] *= 0.5  # irfft has these frequencies twice
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
    """Σ |A - B| / Σ B of magnitudes A of samples and B of real signals.

    Where samples belong to signals, by the same covariates, frame by frame; else of means over all frames (van den Oord
    et al. 2017, 3.3, where the means are of powers).
    """

    def __init__(self, magnitudes: Magnitudes, *, is_paired: bool) -> None:
        """See the class."""
        self._magnitudes, self._is_paired = magnitudes, is_paired

    def target(self, signals: NDArray[Any]) -> Array:
        """B."""
        return self._pooled(self._magnitudes.of(signals))

    def distance(self, x: NDArray[Any], target: Array) -> float:
        """The distance of samples x."""
        return float(np.abs(self._pooled(self._magnitudes.of(x)) - target).sum() / target.sum())

    def distance_and_grad(self, x: NDArray[Any], target: Array) -> tuple[float, Array]:
        """The distance and its gradient by x."""
        every = self._magnitudes.of(x)
        apart = self._pooled(every) - target
        by_pooled = np.sign(apart) / target.sum()
        share = 1.0 if self._is_paired else 1.0 / (every.shape[0] * every.shape[1])
        by_x = self._magnitudes.vjp(x, np.broadcast_to(by_pooled * share, every.shape))
        return float(np.abs(apart).sum() / target.sum()), by_x

    def _pooled(self, every: Array) -> Array:
        pooled: Array = every if self._is_paired else every.mean(axis=(0, 1))
        return pooled
