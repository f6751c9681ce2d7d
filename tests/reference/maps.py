"""Maps: invertible functions of one coordinate, one function each, and the coupling kernels that apply them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .scales import LOG_SCALES


class Map(NamedTuple):
    """A map's parameters, in the order of the last axis of ``params``, and the map itself."""

    parameters: tuple[str, ...]
    apply: Callable  # (value, params, log_scale, inverse) -> (value, log-derivative), all elementwise


def affine(value, params, log_scale, inverse):
    """``shift + scale value``, and back ``(value - shift) / scale`` (eq. 35-36 for one coordinate)."""
    shift, log_s = params[..., 0], log_scale(params[..., 1])
    if inverse:
        return (value - shift) * np.exp(-log_s), -log_s
    return shift + np.exp(log_s) * value, log_s


def additive(value, params, log_scale, inverse):
    """``shift + value``, and back: the affine map of scale one."""
    shift = params[..., 0]
    return (value - shift if inverse else value + shift), np.zeros_like(value)


MAPS = {"affine": Map(("shift", "scale"), affine), "additive": Map(("shift",), additive)}


def apply_map(value, params, map="affine", scale="soft_clamp", slope=1e-3, inverse=False):
    """Apply a map to each coordinate of each row; returns ``(rows, n)`` and the summed log-derivatives ``(rows,)``."""
    value, params = np.asarray(value, np.float64), np.asarray(params, np.float64)
    value, log_derivative = MAPS[map].apply(value, params, lambda raw: LOG_SCALES[scale](raw, slope), inverse)
    return value, log_derivative.sum(axis=1)


def coupling_forward(z, params, map="affine", scale="soft_clamp", slope=1e-3):
    """Latent to data, given each coordinate's parameters ``(rows, active, n_params)`` (eq. 35)."""
    return apply_map(z, params, map, scale, slope)


def coupling_inverse(x, params, map="affine", scale="soft_clamp", slope=1e-3):
    """Data to latent (eq. 36, with the brackets it needs: ``(x - shift) / scale``)."""
    return apply_map(x, params, map, scale, slope, inverse=True)
