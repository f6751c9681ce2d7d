"""The logit of a mixture of logistic distribution functions ("Flow++", section 3.2), and its inverse."""

import numpy as np

from .scales import LOG_SCALES

NAMES = ("weight", "mean", "log_scale")


def count(bins):
    """Numbers of each parameter of one coordinate."""
    return dict.fromkeys(NAMES, bins)


def logistic_mixture(value, params, options, inverse):
    """Data to latent is ``logit F(x)``; latent to data is found by bisection, to the last bit of float64."""
    weight, mean, raw = np.split(params, 3, axis=-1)
    log_scale = LOG_SCALES["soft_clamp"](raw, options.slope)
    weight = weight - np.logaddexp.reduce(weight, axis=-1, keepdims=True)
    x = value if inverse else _root(value, weight, mean, log_scale)
    logit, log_slope = _logit(x, weight, mean, log_scale)
    return (logit, log_slope) if inverse else (x, -log_slope)


def _logit(x, weight, mean, log_scale):
    with np.errstate(under="ignore", over="ignore"):
        u = (x[..., None] - mean) * np.exp(-log_scale)
        left, right = -np.logaddexp(0.0, -u), -np.logaddexp(0.0, u)  # of sigmoid(u) and sigmoid(-u)
        below, above = (np.logaddexp.reduce(weight + side, axis=-1) for side in (left, right))
        density = np.logaddexp.reduce(weight + left + right - log_scale, axis=-1)
    return below - above, density - below - above


def _root(z, weight, mean, log_scale):
    places = mean + np.exp(log_scale) * z[..., None]  # of each component, around that of the mixture
    low, high = places.min(axis=-1), places.max(axis=-1)
    for _ in range(200):
        middle = 0.5 * low + 0.5 * high
        is_below = _logit(middle, weight, mean, log_scale)[0] < z
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    return 0.5 * low + 0.5 * high
