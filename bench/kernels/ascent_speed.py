"""The time of a step in a whole fit by the notes, beside that of a plain NumPy loop of the same steps, in one run."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import headrace as hr


@dataclass(frozen=True)
class Speed:
    """Times in seconds; each step also computes the rows held out."""

    step: float  # the median time from step to step of `DualAscentFlow.notes().fit`
    whole: float  # the whole fit's time over the number of its steps
    plain: float  # the median time of a step of the NumPy loop


def plain_step(z: NDArray, log_jacobian: NDArray, step: tuple) -> tuple[NDArray, NDArray]:
    """A step of a plain NumPy loop in single precision, with all means of eq. 25's gradient and Hessian."""
    maps, log_scale, matrix, shift, following = (np.asarray(a, np.float32) for a in (*step[:2], step[2][0], *step[3:5]))
    bend, center, square = maps.T
    w = z - center
    r = np.sqrt(square + w * w)
    log_jacobian += np.log(1 + bend * w / r).sum(axis=1) + log_scale
    z = (z + bend * r) @ matrix.T + shift
    center, square = following.T
    w = z - center
    r = np.sqrt(square + w * w)
    q = w / r
    return z, np.stack([v.mean(axis=0) for v in (z, z * z, r, z * r, q, q * q + r * r, z * square / r**3, z * z * q)])


def speed_of_a_fit(rows: int, features: int, steps: int, plain_steps: int = 3) -> Speed:
    """The speed of a fit to normal rows that are skewed in each coordinate; a tenth of the rows is held out."""
    rng = np.random.default_rng(0)
    x = np.expm1(0.5 * rng.standard_normal((rows, features), dtype=np.float32))
    model = hr.DualAscentFlow.notes(steps=steps, patience=None)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, progress=False)
    whole = (time.perf_counter() - start) / steps
    z, log_jacobian = (x - x.mean(0)) / x.std(0), np.zeros(rows, np.float32)
    eye, line = np.linalg.qr(rng.standard_normal((features, features)))[0], np.tile([0.1, 0.0, 0.5], (features, 1))
    step, times = (line, 0.0, [eye], np.zeros(features), line[:, 1:]), []
    for _ in range(plain_steps):
        start = time.perf_counter()
        z, _ = plain_step(z, log_jacobian, step)
        times.append(time.perf_counter() - start)
    return Speed(float(np.median(np.diff(model.history.seconds))), whole, float(np.median(times)))
