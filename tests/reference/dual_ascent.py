"""The map of eq. 25, a line with a bend, from raw parameters, and its inverse, the solution of a quadratic equation."""

import numpy as np

from .positive import positive

NAMES = ("stretch", "shift", "bend", "center", "width")


def dual_ascent(value, params, options, inverse):
    """The map ``a x + b + a γ r`` with ``r = sqrt(ε² + (x - center)²)``: eq. 25 with a = 1 - σ, and aγ for γ."""
    stretch, shift, bend, center, width = np.moveaxis(params, -1, 0)
    log_a = stretch / (1.0 + np.abs(stretch) / np.log(1.0 / options.slope))
    gamma = (1.0 - options.slope) * bend / np.hypot(1.0, bend)
    epsilon = positive(width)
    x = value
    if inverse:
        # The inverse solves w + γ sqrt(ε² + w²) = t, by the form of the root in which nothing cancels.
        t = (value - shift) * np.exp(-log_a) - center
        rest = (1.0 - gamma) * (1.0 + gamma)
        root = np.hypot(t, epsilon * np.sqrt(rest))
        with np.errstate(all="ignore"):  # no warnings for values that np.where does not choose
            bent = np.abs(gamma) * epsilon
            near = (t - bent) * ((t + bent) / (t + gamma * root))
            x = np.where(gamma * t > 0, near, (t - gamma * root) / rest) + center
    w = x - center
    r = np.hypot(epsilon, w)
    log_derivative = log_a + np.log1p(gamma * w / r)
    if inverse:
        return x, -log_derivative
    return np.exp(log_a) * (x + gamma * r) + shift, log_derivative
