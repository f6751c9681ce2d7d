"""Data, flows and exceptions for the tests of `fit(effort="high")`."""

import numpy as np

import cases
import headrace as hr


class Killed(BaseException):
    """An exception that stands for the end of the process, such as a kill."""


def bent(n, key="bent"):
    """Two columns, of which the second depends on the square of the first."""
    z = cases.rng("effort", key, n).standard_normal((n, 2))
    z[:, 1] += np.square(z[:, 0])
    return z


def flow_of(features=2, **more):
    return hr.MAF(features, transforms=2, hidden=(8,), **more)


def state(flow):
    return hr.to_bytes(flow)
