"""Helpers for tests of the Python layer on a device."""

import numpy as np
import pytest

import cases
import headrace as hr
from array_cases import CONTEXT, FEATURES


def data(rows=200):
    x, context = cases.rows(rows, FEATURES, "float64"), cases.rows(rows, CONTEXT, "float64", "context")
    return x, context, np.linspace(0.0, 1.0, rows)


# A device folds a kink and the next turn into one matrix, where the CPU applies first the kink and then the turn; each
# kink adds some roundings to the data from which the next kink is chosen. Measured differences are 2e-6 (float32) and
# 4e-15 (float64) in log-likelihoods, 1e-5 and 2e-14 in log densities, and 3e-5 in one log density of 300.
FOLDED = {"float32": 5e-5, "float64": 1e-12}


def assert_follows(model, flow, other, want, x, dtype):
    """Check that the fit on the device made the same choices as the fit on the CPU, up to rounding."""
    close = {"rtol": FOLDED[dtype], "atol": FOLDED[dtype]}
    np.testing.assert_allclose(model.history.log_likelihood, other.history.log_likelihood, **close)
    judged = (one.history.validation_log_likelihood for one in (model, other))
    np.testing.assert_allclose(*judged, **close)
    assert (len(flow), model.history.best_step, model.history.stopped) == (
        len(want),
        other.history.best_step,
        other.history.stopped,
    )
    assert len(model.history.seconds) == len(model.history.log_likelihood)
    np.testing.assert_allclose(flow.to("cpu").log_prob(x), want.log_prob(x), **close)


def refuse(call, *words, error=TypeError):
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value), caught.value


def map_all(make, given):
    return [make(array) for array in given]


FLOWS = {
    "maf": lambda: hr.MAF(FEATURES, transforms=2, hidden=(8,)),
    "iaf": lambda: hr.IAF(FEATURES, transforms=2, hidden=(8,), base=hr.Normal(FEATURES)),
    "couplings": lambda: hr.RealNVP(FEATURES, transforms=2, hidden=(8,)),
    "splines": lambda: hr.NSF(FEATURES, transforms=1, hidden=(8,), base=hr.Logistic(FEATURES)),
    "planar": lambda: hr.PlanarFlow(FEATURES, transforms=3),
    "radial": lambda: hr.RadialFlow(FEATURES, transforms=3),
    "masks of others": lambda: hr.Flow([foreign()]),
    "fixed": lambda: hr.Flow(
        [hr.transforms.Rotation.random(FEATURES, 0), hr.transforms.Permutation([1, 3, 0, 2]), standardize()]
    ),
    "an inverse": lambda: hr.Flow(
        [
            hr.transforms.Inverse(hr.transforms.MaskedAutoregressive(FEATURES, (8,))),
            hr.transforms.Inverse(standardize()),
        ]
    ),
    "marginal maps": lambda: hr.Flow([hr.transforms.Elementwise(FEATURES, map="dual_ascent")]),
    "linear links": lambda: hr.Flow(
        [
            hr.transforms.ActNorm(FEATURES),
            hr.transforms.Linear.from_matrix([[0, 2, 0, 0], [1, 1, 0, 0], [0, 0, -1, 1], [0, 1, 3, 1]], 2.0),
            hr.transforms.Inverse(hr.transforms.Linear(FEATURES, "random", seed=1)),
            hr.transforms.Coupling(FEATURES, [0, 2], (8,)),
        ]
    ),
    "normal marginals": lambda: hr.Flow(
        [
            hr.transforms.MaskedAutoregressive(FEATURES, (8,)),
            hr.transforms.Gaussianize(*cases.curves(FEATURES, 9)),
            standardize(),
        ]
    ),
    "on some columns": lambda: hr.Flow(
        [
            hr.transforms.OnColumns(hr.transforms.MaskedAutoregressive(3, (8,)), [3, 0, 2], FEATURES),
            hr.transforms.OnColumns(hr.transforms.Planar(2, seed=1), [2, 1], FEATURES),
        ]
    ),
    "periodic": lambda: hr.MAF(FEATURES, transforms=2, hidden=(8,), periodic=[(-9.0, 9.0), None, (-8.0, 8.0), None]),
    "no transforms": lambda: hr.Flow([], hr.Normal(FEATURES, 1.0, 2.0)),
}


def foreign():
    dense = cases.made(features=FEATURES, hidden=(14, 11)).astype("float32")
    return hr.transforms.MaskedAutoregressive.from_dense(*dense.arrays)


def standardize():
    return hr.transforms.Standardize([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 0.5, 4.0])
