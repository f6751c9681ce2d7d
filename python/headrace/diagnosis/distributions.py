"""Distribution functions for p-values, implemented without SciPy.

All functions work on arrays in float64, and keep their relative accuracy in the tails. SciPy's functions are not used
here even if SciPy is installed, because verdicts must not depend on installed packages.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np

from headrace._base.types import Floats

TINY = 1e-300  # the least probability, so that logarithms are finite

_erfc = np.frompyfunc(math.erfc, 1, 1)
_quantile = np.frompyfunc(NormalDist().inv_cdf, 1, 1)


def normal_tail(z: Any) -> Floats:
    """P(Z > z) of a standard normal Z.

    >>> normal_tail([0.0, 1.959964]).round(6).tolist()
    [0.5, 0.025]
    """
    return np.asarray(0.5 * np.asarray(_erfc(np.asarray(z, np.float64) / math.sqrt(2.0)), np.float64))


def normal_quantile(probability: Any) -> Floats:
    """The quantile of the standard normal distribution at a probability; a probability of 0 is replaced by 1e-300.

    >>> normal_quantile([0.5, 0.975]).round(3).tolist()
    [0.0, 1.96]
    """
    inside = np.clip(np.asarray(probability, np.float64), TINY, np.nextafter(1.0, 0.0))
    return np.asarray(_quantile(inside), np.float64)


def chi_square_tail(square: Any, degrees: int) -> Floats:
    """P(Q > square), where Q is the sum of `degrees` squared standard normal variables, by a sum of positive terms.

    >>> chi_square_tail([0.0, 3.841459], 1).round(4).tolist(), chi_square_tail([5.991465], 2).round(4).tolist()
    ([1.0, 0.05], [0.05])
    """
    half = np.maximum(np.asarray(square, np.float64), 0.0) / 2.0
    first = 0.0 if degrees % 2 == 0 else 0.5
    with np.errstate(divide="ignore"):
        log_half = np.log(half)
    total = np.asarray(_erfc(np.sqrt(half)), np.float64) if first else np.exp(-half)
    for i in range(1, (degrees + 1) // 2):
        power = i - first
        total = total + np.exp(power * log_half - half - math.lgamma(power + 1.0))
    return np.minimum(np.asarray(total), 1.0)


def spread_tails(square: Any, degrees: int) -> Floats:
    """Twice the smaller of P(Q > square) and P(Q < square), at most 1, where Q is chi-square with `degrees` degrees.

    From 100 degrees on, Wilson and Hilferty's normal approximation is used, which is accurate to 1 % of p for p > 1e-3
    and to 5 % at 1e-4.

    Source: E. B. Wilson, M. M. Hilferty, Proceedings of the National Academy of Sciences 17, 1931.

    >>> spread_tails([124.342, 124.342], 100).round(3).tolist()
    [0.1, 0.1]
    """
    value = np.asarray(square, np.float64)
    if degrees >= 100:
        unit = 2.0 / (9.0 * degrees)
        return 2.0 * normal_tail(np.abs(np.cbrt(value / degrees) - 1.0 + unit) / math.sqrt(unit))
    above = chi_square_tail(value, degrees)
    return np.asarray(2.0 * np.minimum(above, 1.0 - above))


def anderson_darling(lower: Floats, upper: Floats) -> Floats:
    """The statistic A² of each column of values that should be uniform, shape (rows, columns) → (columns,).

    Args:
        lower, upper: The values, and 1 - values, each computed without cancellation.
    """
    n = len(lower)
    weight = (2.0 * np.arange(1, n + 1) - 1.0) / n
    logs = np.log(np.maximum(np.sort(lower, axis=0), TINY)) + np.log(np.maximum(np.sort(upper, axis=0), TINY))
    return np.asarray(-n - weight @ logs)


def anderson_darling_tail(square: Any, rows: int) -> Floats:
    """P(A² > square) for `rows` uniform values, without estimated parameters.

    The limit for infinitely many rows is used: at 0.05 the relative error is some 2 % for 8 rows, and 15 % for two
    rows; the result for one row is exact.

    For infinitely many rows, A² is the sum over j of squared normal variables divided by j (j + 1). Smirnov's formula
    integrates over every second interval between the values j (j + 1), and its infinite product is -cos(π s) / (π u)
    with u = s² - 1/4.

    Source: T. W. Anderson, D. A. Darling, Annals of Mathematical Statistics 23, 1952, for the sum; N. V. Smirnov,
    Matematicheskii Sbornik 2, 1937, for the formula.

    >>> anderson_darling_tail([1.9329, 2.4924, 3.8781], 100).round(4).tolist()  # the tables' 10, 5 and 1 %
    [0.1, 0.05, 0.01]
    """
    values = np.asarray(square, np.float64)
    if rows == 1:  # A² = -1 - log u - log(1 - u)
        return np.asarray(1.0 - np.sqrt(np.maximum(1.0 - 4.0 * np.exp(-1.0 - values), 0.0)))
    flat = np.maximum(values.reshape(-1), _LEAST_SQUARE)
    total = np.exp(-0.5 * flat[:, None] * _U) @ _FACTOR
    total[values.reshape(-1) < _LEAST_SQUARE] = 1.0
    return np.asarray(np.clip(total, 0.0, 1.0).reshape(values.shape))


_LEAST_SQUARE = 0.1  # P(A² > 0.1) is 1 - 1e-5


def _smirnov() -> tuple[Floats, Floats]:
    """Nodes u and factors of the sum for Smirnov's integral; s = 2k + sin(t) / 2 removes the square roots at the ends
    of intervals.
    """
    intervals = np.arange(1, 13)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    angle = 0.5 * math.pi * nodes
    s = 2.0 * intervals[:, None] + 0.5 * np.sin(angle)
    u = s * s - 0.25
    cosine = np.abs(np.sin(0.5 * math.pi * (1.0 - np.abs(np.sin(angle)))))  # |cos(π s)|, right near its roots
    density = 2.0 * s / (u * np.sqrt(cosine / (math.pi * u)))
    jacobian = 0.5 * np.cos(angle) * 0.5 * math.pi * weights
    sign = np.where(intervals % 2 == 1, 1.0, -1.0)[:, None]
    return u.reshape(-1), (sign * density * jacobian / math.pi).reshape(-1)


_U, _FACTOR = _smirnov()


def binomial_tail(successes: int, trials: int) -> float:
    """P(B ≥ successes) for the number B of heads in `trials` tosses of a fair coin.

    >>> round(binomial_tail(3, 3), 12), binomial_tail(0, 5)
    (0.125, 1.0)
    """
    if successes <= 0:
        return 1.0
    every = range(successes, trials + 1)
    ways = (math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) for k in every)
    terms = [log - trials * math.log(2.0) for log in ways]
    return min(1.0, math.fsum(map(math.exp, terms)))


def correlation_tails(correlation: Any, rows: int) -> Floats:
    """P(|R| > |correlation|) where R is the cosine between a row of normal values and an independent vector.

    R² is beta distributed, and R √ν / √(1 - R²) with ν = rows - 1 is Student's t. The result is Wallace's approximation
    for t, which is accurate to 1 % of p for ν ≥ 10 and p > 1e-3, and too large beyond these limits.

    Source: D. L. Wallace, Annals of Mathematical Statistics 30, 1959.

    >>> correlation_tails(0.2787, 50).round(3).tolist()  # t = 2.0315 with 49 degrees of freedom
    0.048
    """
    square, freedom = np.square(np.asarray(correlation, np.float64)), max(rows - 1, 1)
    with np.errstate(divide="ignore"):
        score = np.sqrt(-freedom * np.log1p(-np.minimum(square, 1.0)))
    return 2.0 * normal_tail((8 * freedom + 1) / (8 * freedom + 3) * score)
