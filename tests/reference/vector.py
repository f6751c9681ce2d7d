"""Functions that planar and radial transforms share: parameters of rows, and bisection."""

import numpy as np

from .network import with_context


def parameters(params, rows, context):
    """The parameters as one row for all rows, or as one row for each: the given array, or the outputs of a network of
    the context."""
    if callable(params):
        params = params(with_context(np.zeros((rows, 0)), context))
    return np.atleast_2d(np.asarray(params, np.float64))


def bisect(increasing, target, reach):
    """The value between ``-reach`` and ``reach`` at which an increasing function is ``target``, to the last digit."""
    low, high = -reach, reach
    while True:
        middle = low + (high - low) / 2.0
        if ((middle <= low) | (middle >= high) | np.isnan(middle)).all():
            return middle
        above = increasing(middle) > target
        low, high = np.where(above, low, middle), np.where(above, middle, high)
