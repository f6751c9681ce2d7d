"""Densities with known moments and integrals for the tests of ``fit_to_density`` and ``distill``."""

import numpy as np

from headrace.variational.descent import DescentPlan

QUIET = {"progress": False}
SHORT = QUIET | {"steps": 20, "samples": 64, "evaluated": 0}
MEAN = np.array([1.0, -2.0])
COVARIANCE = np.array([[2.0, 1.2], [1.2, 1.5]])


def plan_of(flow, samples, skip=0.0):
    """The plan of one descent step, with no term added to the gradient."""
    return DescentPlan(
        steps=1,
        samples=samples,
        learning_rate=1e-3,
        schedule="constant",
        annealing=None,
        weight_decay=0.0,
        clip=None,
        average=None,
        skip=skip,
    )


def normal(mean=MEAN, covariance=COVARIANCE, log_z=0.0):
    """The function that returns exp(log_z) times a normal density, with its gradient, for ``gradient="returned"``."""
    mean, precision = np.asarray(mean), np.linalg.inv(covariance)
    constant = log_z - 0.5 * np.linalg.slogdet(2.0 * np.pi * np.asarray(covariance))[1]

    def log_density(x):
        away = x.astype(np.float64) - mean
        pull = -away @ precision
        return constant + 0.5 * (away * pull).sum(axis=1), pull

    return log_density
