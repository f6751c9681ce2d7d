"""Spectral envelopes of signals frame by frame, and the filter that a frame describes.

A frame has the reflection coefficients and the residual's level of a linear prediction, solved from a window around the
frame, and the pitch and its strength. Between frames the reflections and the logarithm of the level are interpolated,
so that the filter is stable at each step. Given the frames, the signal x and its excitation e determine each other step
by step, e_t = (x_t - Σ a_i(t) x_{t-i}) / level(t): a triangular map whose log-derivative is -log level(t). A divergence
of two densities of excitations is therefore equal to that of the two densities of signals.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float64]

HOP, ORDER, WINDOW = 80, 12, 240  # in samples at 8 kHz: 10 ms for HOP and 30 ms for WINDOW
PITCH_WINDOW, SHORTEST, LONGEST = 480, 20, 140  # in steps; periods of 20 to 140 steps are 57 to 400 Hz
COLUMNS = ORDER + 3
NEARLY = 0.85
NOISE = 1.0 / 12.0  # the variance of rounding, in steps of the integers


def frames(x: NDArray[Any]) -> Floats:
    """The frames of integers plus noise, shape (frames, columns): log level, reflections, strength, log period."""
    n = len(x) // HOP + 1
    r = _autocorrelation(x, n, WINDOW, ORDER)
    r[:, 0] = r[:, 0] * (1.0 + 1e-5) + NOISE
    reflections, error = _levinson(r)
    wide = _autocorrelation(x, n, PITCH_WINDOW, LONGEST)
    hann = np.hanning(PITCH_WINDOW)
    lags = np.correlate(hann, hann, "full")[PITCH_WINDOW - 1 :][: LONGEST + 1]
    periodic = (wide / lags)[:, SHORTEST:] / (wide[:, :1] / lags[0] + NOISE)
    # The shortest of the nearly best periods is chosen, because twice a period is also a period.
    best = periodic.max(axis=1)
    inner = periodic[:, 1:-1]
    peaks = (inner >= periodic[:, :-2]) & (inner >= periodic[:, 2:]) & (inner >= NEARLY * best[:, None])
    period = SHORTEST + np.where(peaks.any(axis=1), 1 + peaks.argmax(axis=1), periodic.argmax(axis=1))
    strength = np.clip(best, 0.0, 1.0)
    return np.column_stack([0.5 * np.log(error), reflections, strength, np.log(period)])


def columns(own: Floats) -> NDArray[np.float32]:
    """The frames as covariates of a network, of about unit size."""
    level, reflections, strength, period = own[:, :1], own[:, 1:-2], own[:, -2:-1], own[:, -1:]
    scaled = [0.5 * (level - 3.0), np.arctanh(0.999 * reflections), 2.0 * strength - 1.0, 2.0 * (period - 4.0)]
    return np.concatenate(scaled, axis=1).astype(np.float32)


def excitation(x: NDArray[Any], own: Floats) -> tuple[Floats, Floats]:
    """The excitation of a signal (steps,), and the logarithm of the level at each step."""
    level, filters = _at_steps(own, len(x))
    past = sliding_window_view(np.concatenate([np.zeros(ORDER), x]), ORDER)[:-1, ::-1]
    return (x - np.einsum("ti,ti->t", filters, past)) * np.exp(-level), level


def signal(e: NDArray[Any], own: Floats) -> Floats:
    """The signal of an excitation: the inverse of `excitation`."""
    level, filters = _at_steps(own, len(e))
    driven, x = (e * np.exp(level)).tolist(), np.zeros(len(e) + ORDER)
    backwards = np.ascontiguousarray(filters[:, ::-1])
    for t, value in enumerate(driven):
        x[t + ORDER] = value + backwards[t] @ x[t : t + ORDER]
    return x[ORDER:]


def _autocorrelation(x: NDArray[Any], n: int, window: int, most: int) -> Floats:
    """The autocorrelations of windows `HOP` steps apart, shape (n, most + 1), divided by the window's length."""
    padded = np.concatenate([np.zeros(window // 2), x, np.zeros(window)])
    hann = np.hanning(window)
    parts = sliding_window_view(padded, window)[: n * HOP : HOP] * hann
    spectrum = np.fft.rfft(parts, 1024)
    found: Floats = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[:, : most + 1] / np.square(hann).sum()
    return found


def _levinson(r: Floats) -> tuple[Floats, Floats]:
    """The reflection coefficients and errors of predictions, for each row of autocorrelations."""
    n = len(r)
    a, k, error = np.zeros((n, 0)), np.zeros((n, ORDER)), r[:, 0].copy()
    for m in range(ORDER):
        k[:, m] = (r[:, m + 1] - (a * r[:, m:0:-1]).sum(axis=1)) / error
        a = _longer(a, k[:, m])
        error *= 1.0 - k[:, m] ** 2
    return k, error


def _longer(a: Floats, k: Floats) -> Floats:
    """The coefficients of a prediction whose order is larger by one."""
    return np.concatenate([a - k[:, None] * a[:, ::-1], k[:, None]], axis=1)


def _at_steps(own: Floats, steps: int) -> tuple[Floats, Floats]:
    """The logarithm of the level (steps,), and the filter coefficients (steps, ORDER), at each step."""
    place = np.arange(steps) / HOP
    first = place.astype(int)
    share = (place - first)[:, None]
    after = np.minimum(first + 1, len(own) - 1)
    between = own[first, : ORDER + 1] * (1.0 - share) + own[after, : ORDER + 1] * share
    a = np.zeros((steps, 0))
    for m in range(ORDER):
        a = _longer(a, between[:, m + 1])
    return between[:, 0], a
