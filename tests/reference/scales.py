"""Maps from a raw network output to the logarithm of a scale."""

import math

import numpy as np

from .activations import sigmoid, softplus


def soft_clamp(raw, slope):
    """The logarithm ``raw / (1 + |raw| / log(1/slope))``: the scale stays between ``slope`` and ``1/slope``."""
    return raw / (1.0 + np.abs(raw) / math.log(1.0 / slope))


def exp(raw, slope):
    return raw


def softplus_scale(raw, slope):
    return np.log(softplus(raw) + slope)


def sigmoid_scale(raw, slope):
    return np.log(sigmoid(raw + 2.0) + slope)


LOG_SCALES = {"soft_clamp": soft_clamp, "exp": exp, "softplus": softplus_scale, "sigmoid": sigmoid_scale}
