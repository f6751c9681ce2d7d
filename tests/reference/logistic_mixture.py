"""The logit of a mixture of logistic distribution functions ("Flow++", section 3.2), and its inverse."""

import numpy as np

from .scales import LOG_SCALES

NAMES = ("weight", "mean", "log_scale")


def count(bins):
    """The number of values of each parameter of one coordinate."""
    return dict.fromkeys(NAMES, bins)


def logistic_mixture(value, params, options, inverse):
    """The map whose data to latent direction is ``logit F(x)``; bisection finds its inverse, to the last bit of
    float64."""
    weight, mean, raw = np.split(params, 3, axis=-1)
    log_scale = LOG_SCALES["soft_clamp"](raw, options.slope)
    weight = weight - np.logaddexp.reduce(weight, axis=-1, keepdims=True)
    x = value if inverse else _root(value, weight, mean, log_scale)
    logit, log_slope = _logit(x, weight, mean, log_scale)
    return (logit, log_slope) if inverse else (x, -log_slope)


def _logit(x, weight, mean, log_scale):
    below, above, left, right = _sides(x, weight, mean, log_scale)
    with np.errstate(under="ignore", over="ignore"):
        density = np.logaddexp.reduce(weight + left + right - log_scale, axis=-1)
    return below - above, density - below - above


def _sides(x, weight, mean, log_scale):
    """The logarithms of F and of 1 - F, of the mixture and then of each component."""
    with np.errstate(under="ignore", over="ignore"):
        u = (x[..., None] - mean) * np.exp(-log_scale)
        left, right = -np.logaddexp(0.0, -u), -np.logaddexp(0.0, u)  # logarithms of sigmoid(u) and sigmoid(-u)
        return *(np.logaddexp.reduce(weight + side, axis=-1) for side in (left, right)), left, right


def _root(z, weight, mean, log_scale):
    """The root of each value, by halving an interval until it stays constant, or 200 times.

    For z below 0, ``log F`` is compared with its value at the root, and for other z ``log (1 - F)``, which is
    ``log F`` of the mixture with all signs reversed.
    """
    places = mean + np.exp(log_scale) * z[..., None]  # roots of the components
    sign = np.where(z < 0, 1.0, -1.0)
    own = (weight, mean, sign[..., None] * np.exp(-log_scale))
    own = [np.broadcast_to(part, places.shape).reshape(-1, places.shape[-1]) for part in own]
    low, high = places.min(axis=-1).reshape(-1), places.max(axis=-1).reshape(-1)
    sign, target = sign.reshape(-1), -np.logaddexp(0.0, np.abs(z)).reshape(-1)
    left = np.arange(z.size)
    for _ in range(200):
        before = low[left], high[left]
        middle = 0.5 * before[0] + 0.5 * before[1]
        weight, mean, slope = (part[left] for part in own)
        with np.errstate(under="ignore", over="ignore"):
            side = np.logaddexp.reduce(weight - np.logaddexp(0.0, -slope * (middle[:, None] - mean)), axis=-1)
        is_below = np.where(sign[left] > 0, side < target[left], side > target[left])
        low[left], high[left] = np.where(is_below, middle, before[0]), np.where(is_below, before[1], middle)
        left = left[((low[left] != before[0]) | (high[left] != before[1])) & ~np.isnan(middle)]
        if not left.size:
            break
    return (0.5 * low + 0.5 * high).reshape(places.shape[:-1])
