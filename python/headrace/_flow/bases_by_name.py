"""Bases that the constructors of flows, scikit-learn's estimator and the command line take by name."""

from __future__ import annotations

from typing import Any

from headrace._flow.bases import Logistic, Normal, StandardNormal
from headrace._flow.tails import StudentT

UNIFORM = "uniform"
_OF_A_LINE = {"standard_normal": StandardNormal, "normal": Normal, "logistic": Logistic, "student_t": StudentT}

NAMES = (*_OF_A_LINE, UNIFORM)


def is_uniform(base: Any) -> bool:
    """Whether a base is given by the name "uniform".

    Raises:
        ValueError: it is given by a name of no base.
    """
    if isinstance(base, str) and base not in NAMES:
        raise ValueError(f"base: expected a base density or one of {', '.join(map(repr, NAMES))}, got {base!r}")
    return isinstance(base, str) and base == UNIFORM


def named_base(base: Any, features: int) -> Any:
    """The base of a name, for this number of features; anything else as it is, and "uniform", whose flow has a box."""
    return _OF_A_LINE[base](features) if isinstance(base, str) and base in _OF_A_LINE else base
