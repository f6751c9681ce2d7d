"""Backward-adaptive linear prediction: log densities of a signal without a trained network.

Every 20 samples the coefficients of a prediction of order 24 are solved anew from the last 480 samples, so that no
coefficients are transmitted. The residual has a Student's t distribution whose scale is a log-linear function of past
residuals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ORDER, WINDOW, HOP = 24, 480, 20
MEMORIES = (4, 24, 160, 1600)  # the lengths of running means of residuals, in samples


def adaptive_prediction(train: Sequence[NDArray[Any]], test: Sequence[Floats]) -> Floats:
    """The log densities of all test samples, in units of a step; a sixth of the training files is fitted."""
    rng = np.random.default_rng(1)
    some = [residuals(x + rng.random(len(x)) - 0.5) for x in train[::6]]
    own = [residuals(x) for x in test]
    return student_log_densities(some, own)


def residuals(x: Floats) -> Floats:
    """The prediction errors, each from earlier samples alone."""
    padded, n = np.concatenate([np.zeros(WINDOW), x]), len(x)
    t = np.arange(WINDOW)
    window = np.sin(np.pi / 2 * np.minimum((t + 0.5) / (WINDOW * 0.85), 1.0))
    window *= np.where(t > WINDOW * 0.93, np.cos(np.pi / 2 * (t - WINDOW * 0.93) / (WINDOW * 0.07 + 1)), 1.0)
    found = np.empty(n)
    starts = np.arange(0, n, HOP)
    history = np.concatenate([np.zeros(ORDER), x, np.zeros(HOP)])
    lags = np.abs(np.subtract.outer(np.arange(ORDER), np.arange(ORDER)))
    for i in range(0, len(starts), 4096):
        some = starts[i : i + 4096]
        spectrum = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[some] * window, 1024)
        r = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, 1024)[:, : ORDER + 1]
        r[:, 0] = r[:, 0] * (1 + 1e-5) + WINDOW / 40.0  # silence has at least the variance of rounding
        a = np.linalg.solve(r[:, lags], r[:, 1:, None])[..., 0]
        for j in range(HOP):
            inside = some + j < n
            at = some[inside] + j
            past = np.lib.stride_tricks.sliding_window_view(history, ORDER)[at][:, ::-1]
            found[at] = x[at] - np.einsum("bo,bo->b", past, a[inside])
    return found


def memories(errors: Sequence[Floats]) -> Floats:
    """The logarithms of running means of the sizes of past residuals, (samples, memories), file by file."""
    from scipy.signal import lfilter

    columns = []
    for e in errors:
        own = []
        for length in MEMORIES:
            k = 1.0 - np.exp(-1.0 / length)
            y, _ = lfilter([k], [1.0, -(1.0 - k)], np.abs(e), zi=[1.0 - k])
            own.append(np.log(np.concatenate([[1.0], y[:-1]]) + 0.1))
        columns.append(np.stack(own, axis=1))
    return np.concatenate(columns)


def student_log_densities(train: Sequence[Floats], test: Sequence[Floats]) -> Floats:
    """The log densities of the test residuals, with the most likely scale and degrees of freedom of the training
    residuals."""
    from scipy.optimize import minimize
    from scipy.special import digamma, gammaln

    def of(parameters: Floats, e: Floats, features: Floats) -> tuple[Floats, Floats, Floats, float]:
        nu = 0.5 + np.exp(parameters[-1])
        log_scale = features @ parameters[:-1]
        z2 = np.square(e * np.exp(-log_scale))
        own = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi) - log_scale
        return own - (nu + 1) / 2 * np.log1p(z2 / nu), z2, log_scale, nu

    errors, features = np.concatenate(train), memories(train)
    some = np.random.default_rng(2).choice(len(errors), min(400_000, len(errors)), replace=False)
    e, f = errors[some], np.column_stack([np.ones(len(some)), features[some]])

    def loss(parameters: Floats) -> tuple[float, Floats]:
        log_prob, z2, _, nu = of(parameters, e, f)
        by_scale = (nu + 1) * z2 / (nu + z2) - 1.0
        by_nu = 0.5 * (digamma((nu + 1) / 2) - digamma(nu / 2) - 1 / nu - np.log1p(z2 / nu))
        by_nu += 0.5 * (nu + 1) * z2 / (nu * (nu + z2))
        gradient = np.append(f.T @ by_scale, by_nu.sum() * np.exp(parameters[-1])) / len(e)
        return -float(log_prob.mean()), -gradient

    start = np.array([0.0, *[1.0 / len(MEMORIES)] * len(MEMORIES), 1.0])
    best = minimize(loss, start, jac=True, method="L-BFGS-B").x
    own = np.concatenate(test)
    return of(best, own, np.column_stack([np.ones(len(own)), memories(test)]))[0]
