"""Rational-quadratic splines of several libraries, whose bins have a least size and whose derivatives are softplus.

The libraries' splines differ in the knots that have a derivative as a parameter, and in the map outside of the
interval.
"""

import numpy as np

from .rq_spline import evaluate, find_bin


def interval(bound):
    """The ends (low, high) of the interval that a bound describes."""
    return (-bound, bound) if np.isscalar(bound) else tuple(bound)


def counts(derivatives):
    """A function from a number of bins to the number of values of each parameter, with `derivatives` more derivatives
    than bins."""
    return lambda bins: {"width": bins, "height": bins, "derivative": bins + derivatives}


def additive_knots(params, ends, slope=1e-3, bound=5.0, min_bin=1e-3):
    """The ``(x, y, derivatives)`` at the knots. ``ends``: the kind of derivatives at both ends, "one", "free", "shared"
    or "halved"."""
    params = np.asarray(params, np.float64)
    more = {"one": -1, "free": 1, "shared": 0, "halved": 1}[ends]
    bins = (params.shape[-1] - more) // 3
    widths, heights, raw = np.split(params, [bins, 2 * bins], axis=-1)
    derivatives = slope + np.logaddexp(0.0, raw)
    ones = np.ones((*params.shape[:-1], 1))
    if ends == "one":
        derivatives = np.concatenate([ones, derivatives, ones], axis=-1)
    elif ends == "shared":
        derivatives = np.concatenate([derivatives, derivatives[..., :1]], axis=-1)
    least = np.full(bins, min_bin)
    if ends == "halved":
        least[[0, -1]] /= 2
    return _edges(widths, bound, least), _edges(heights, bound, least), derivatives


def _edges(raw, bound, least):
    low, high = interval(bound)
    shares = np.exp(raw - raw.max(axis=-1, keepdims=True))
    shares = least + (1.0 - least.sum()) * shares / shares.sum(axis=-1, keepdims=True)
    edges = np.concatenate([np.zeros((*raw.shape[:-1], 1)), np.cumsum(shares, axis=-1)], axis=-1)
    edges = low + (high - low) * edges
    edges[..., -1] = high
    return edges


def additive_spline(ends, tails):
    """The spline with the given ends, as in `additive_knots`, and tails, "identity", "linear" or "periodic"."""

    def apply(value, params, options, inverse):
        low, high = interval(options.bound)
        knots = additive_knots(params, ends, options.slope, options.bound, options.min_bin)
        beyond = np.zeros_like(value)
        if tails == "periodic":
            beyond = np.round((value - 0.5 * (low + high)) / (high - low)) * (high - low)
        inside = np.clip(value - beyond, low, high)
        result, log_derivative = evaluate(find_bin(inside, *knots, inverse), inside, inverse)
        outside = (value < low) | (value > high)
        if tails == "identity":
            return np.where(outside, value, result), np.where(outside, 0.0, log_derivative)
        if tails == "linear":
            straight = np.where(value < low, knots[2][..., 0], knots[2][..., -1])
            log_straight = -np.log(straight) if inverse else np.log(straight)
            line = inside + (value - inside) * np.exp(log_straight)
            return np.where(outside, line, result), np.where(outside, log_straight, log_derivative)
        return result + beyond, log_derivative

    return apply
