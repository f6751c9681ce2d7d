"""Data, small flows and settings for the tests of ``fit``."""

import numpy as np

import cases
import headrace as hr

QUIET = {"progress": False}
SHORT = QUIET | {"epochs": 3, "batch_size": 64, "learning_rate": 1e-2}
FEATURES = 3
MEAN = np.array([1.0, -2.0, 0.5])
COVARIANCE = np.array([[2.0, 1.2, -0.3], [1.2, 1.5, 0.4], [-0.3, 0.4, 0.8]])


def gaussian(n, *key):
    """Rows of a correlated normal distribution, in float64."""
    return cases.rng("gaussian", n, *key).multivariate_normal(MEAN, COVARIANCE, n)


def gaussian_log_prob(x, mean, covariance):
    away = x - mean
    square = (away * np.linalg.solve(covariance, away.T).T).sum(axis=1)
    return -0.5 * (square + np.linalg.slogdet(2.0 * np.pi * covariance)[1])


def small(dtype="float32", features=FEATURES, context=0, transforms=1, **keywords):
    return hr.MAF(features, context, transforms, (16,), dtype=dtype, **keywords)


def loss_of(flow, x, context=None, weights=None):
    return -np.average(flow.log_prob(x, context).astype(float), weights=weights)


def moments(x, weights=None):
    mean = np.average(x, axis=0, weights=weights)
    return mean, np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))
