"""Rows that ascents climb, shared by their tests."""

import numpy as np
import pytest

import cases
from headrace.ascent import directions as _directions

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


FINE = {"float32": 2e-4, "float64": 1e-9}  # of numbers that some steps have passed from one to the next


def plan_of(features, kinks, each, size, anchors):
    """For every kink its turn, and where centers come from: a row of the anchors, or -1 and a number."""
    g = cases.rng("ascent", features, kinks, each)
    sizes = [min(size, features - start) for start in range(0, features, size)]
    turns = []
    for k in range(kinks):
        turn = _directions.random_turn(sizes, g) if k % each == 0 else _directions.Turn.none([1] * features)
        rows = np.where(g.random(features) < 0.5, g.integers(anchors, size=features), -1)
        turns.append((turn, rows, g.standard_normal(features)))
    return turns


def places_of(turn):
    return [len(block) for block in turn.blocks], turn.places()


def far_from_normal(rows, features, dtype, *key):
    x = cases.rows(rows, features, dtype, *key)
    return x + (0.5 * np.roll(x, 1, axis=1) ** 2 - 0.5).astype(dtype)
