"""Monotone rational-quadratic splines (Durkan, Bekasov, Murray, Papamakarios 2019), one for each coordinate."""

import math
from typing import NamedTuple

import numpy as np


class Bin(NamedTuple):
    """The bin that each value falls into: its lower corner, its sizes, and the derivatives at its two knots."""

    x: np.ndarray
    y: np.ndarray
    width: np.ndarray
    height: np.ndarray
    d0: np.ndarray
    d1: np.ndarray


def count(bins):
    """The numbers of values of each named parameter of a spline with this number of bins."""
    return {"width": bins, "height": bins, "derivative": bins - 1}


def spline_knots(params, slope=1e-3, bound=5.0):
    """The ``(x, y, derivatives)`` at the ``bins + 1`` knots of each spline, from raw parameters ``(..., 3 bins -
    1)``."""
    params = np.asarray(params, np.float64)
    bins = (params.shape[-1] + 1) // 3
    widths, heights, derivatives = np.split(params, [bins, 2 * bins], axis=-1)
    limit = math.log(1.0 / slope)
    ones = np.ones((*params.shape[:-1], 1))
    inner = np.exp(derivatives / (1.0 + np.abs(derivatives) / limit))
    return _edges(widths, limit, bound), _edges(heights, limit, bound), np.concatenate([ones, inner, ones], axis=-1)


def _edges(raw, limit, bound):
    """The edges of bins: a softmax gives shares of the interval, which are added up from the interval's lower end; both
    ends are exact."""
    limited = raw / (1.0 + np.abs(2.0 * raw) / limit)
    shares = np.exp(limited - limited.max(axis=-1, keepdims=True))
    shares = shares / shares.sum(axis=-1, keepdims=True)
    edges = bound * (2.0 * np.cumsum(shares, axis=-1) - 1.0)
    edges[..., -1] = bound
    return np.concatenate([np.full((*raw.shape[:-1], 1), -bound), edges], axis=-1)


def spline_bin(value, params, slope=1e-3, bound=5.0, inverse=False):
    """The bin of each value, and whether the value is inside the spline's interval."""
    return find_bin(value, *spline_knots(params, slope, bound), inverse), (value >= -bound) & (value <= bound)


def find_bin(value, x, y, derivatives, inverse=False):
    """The bin of each value, by the knots x, or with ``inverse`` y; the first or last bin for values outside."""
    bins = x.shape[-1] - 1
    below = np.asarray(value)[..., None] >= (y if inverse else x)
    index = np.clip(below.sum(axis=-1) - 1, 0, bins - 1)[..., None]

    def at(array, step=0):
        return np.take_along_axis(array, index + step, axis=-1)[..., 0]

    return Bin(at(x), at(y), at(x, 1) - at(x), at(y, 1) - at(y), at(derivatives), at(derivatives, 1))


def rq_spline(value, params, options, inverse):
    """The map that is the spline within the interval, and the identity outside."""
    found, inside = spline_bin(value, params, options.slope, options.bound, inverse)
    result, log_derivative = evaluate(found, np.where(inside, value, found.y if inverse else found.x), inverse)
    return np.where(inside, result, value), np.where(inside, log_derivative, 0.0)


def evaluate(found, given, inverse):
    """The value and log-derivative by equations 4 and 5 of the paper; the inverse solves equation 6 from the nearer end
    of the bin."""
    x, y, width, height, d0, d1 = found
    steep = height / width
    if inverse:
        top = given - y > 0.5 * height  # from the upper end, the derivatives at the two knots are exchanged
        near = _solve(np.where(top, height - (given - y), given - y), height, steep, *np.where(top, (d1, d0), (d0, d1)))
        share, rest = np.where(top, 1.0 - near, near), np.where(top, near, 1.0 - near)
        result = np.where(top, x + width - near * width, x + near * width)
    else:
        share = (given - x) / width
        rest = 1.0 - share
    below = steep + (d0 + d1 - 2.0 * steep) * share * rest
    if not inverse:
        result = y + height * (steep * share**2 + d0 * share * rest) / below
    derivative = steep**2 * (d1 * share**2 + 2.0 * steep * share * rest + d0 * rest**2) / below**2
    return result, -np.log(derivative) if inverse else np.log(derivative)


def _solve(up, height, steep, d0, d1):
    """The share of the width at which the spline has risen by ``up``: equations 6 to 8, without cancellation."""
    bend = d0 + d1 - 2.0 * steep
    a, b, c = height * (steep - d0) + up * bend, height * d0 - up * bend, -steep * up
    root = np.sqrt(np.maximum(b * b - 4.0 * a * c, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):  # no warnings for values that are not chosen
        return np.where(b >= 0.0, 2.0 * c / (-b - root), (root - b) / (2.0 * a))
