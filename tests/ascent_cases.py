"""Rows that ascents climb, shared by their tests."""

import numpy as np
import pytest

import cases

every_rule = pytest.mark.parametrize("rule", ["newton", "gradient"])


def bent(rows=600, features=2, *key):
    """Rows that are far from normal: a banana, and skewed coordinates beside it."""
    g = cases.rng("bent", rows, features, *key)
    x = g.standard_normal((rows, features))
    if features > 1:
        x[:, 1] += x[:, 0] ** 2
    x[:, -1] = np.expm1(0.7 * x[:, -1])
    return 3.0 * x - 5.0


def standardised(x, precision=1.0):
    return (x - x.mean(0)) / x.std(0) / np.sqrt(precision)
