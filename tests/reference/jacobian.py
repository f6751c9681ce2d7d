"""Jacobians by central differences, with which all log-determinants (eq. 26) are compared."""

import numpy as np


def jacobian(function, point, step=1e-5):
    """The matrix ``d function_i / d point_j`` at one point; all shifted points go through ``function`` as one batch."""
    point = np.asarray(point, np.float64)
    steps = step * np.eye(len(point))
    shifted = function(np.vstack([point + steps, point - steps]))
    return ((shifted[: len(point)] - shifted[len(point) :]) / (2.0 * step)).T


def log_det_by_differences(function, points, step=1e-5):
    """The values ``log |det|`` of the Jacobian of ``function`` at each row of ``points``."""
    return np.array([np.linalg.slogdet(jacobian(function, point, step))[1] for point in points])
