"""Bases that are chosen by name in constructors of flows, in scikit-learn's estimator and on the command line.

Over the uniform base, a flow consists of splines that map [-1, 1] onto itself, and of a linear map from [-1, 1] to the
bounds. Over a base that is not uniform, a bounded density vanishes at its bounds, and importance weights may have an
infinite variance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace._flow.bases import Logistic, Normal, StandardNormal
from headrace._flow.tails import StudentT
from headrace._flow.transforms.support import Bounds, Periods, Support, support_or_none

UNIFORM = "uniform"
_OF_A_LINE = {"standard_normal": StandardNormal, "normal": Normal, "logistic": Logistic, "student_t": StudentT}

NAMES = (*_OF_A_LINE, UNIFORM)


def is_uniform(base: Any) -> bool:
    """Whether `base` is the name "uniform".

    Raises:
        ValueError: `base` is a string that names no base.
    """
    if isinstance(base, str) and base not in NAMES:
        raise ValueError(f"base: expected a base density or one of {', '.join(map(repr, NAMES))}, got {base!r}")
    return isinstance(base, str) and base == UNIFORM


def named_base(base: Any, features: int) -> Any:
    """The base with this name and number of features; "uniform" and other objects are returned unchanged."""
    return _OF_A_LINE[base](features) if isinstance(base, str) and base in _OF_A_LINE else base


_SPLINE: Mapping[str, Any] = {"map": "rq_spline_free", "bound": 1.0, "formula": "to_latent"}


def onto_itself(base: Any, link: Any, conditioner: Mapping[str, Any]) -> Any:
    """The settings of a flow's transforms; over the uniform base, splines that map [-1, 1] onto itself are added."""
    if not is_uniform(base):
        return conditioner
    if link == "linear":
        raise ValueError(f"link: expected one that keeps rows within their bounds beside base={base!r}, got {link!r}")
    for name, value in _SPLINE.items():
        if name in conditioner and conditioner[name] != value:
            raise ValueError(f"{name}: expected {value!r} or nothing beside base={base!r}, got {conditioner[name]!r}")
    return {**conditioner, **_SPLINE}


def support_of_box(bounds: Bounds | None, features: int, periodic: Periods | None) -> Support:
    """The support of a flow over the uniform base; each column must have two bounds or a period."""
    support = support_or_none(bounds, features, periodic, linear=True)
    if support is None:
        raise ValueError(f"bounds: expected (low, high) for each column beside base={UNIFORM!r}, got {bounds!r}")
    for c, pair in enumerate(support.bounds):
        if support.periodic[c] is None and (pair is None or None in pair):
            raise ValueError(f"bounds[{c}]: expected (low, high) beside base={UNIFORM!r}, got {pair!r}")
    return support


def refuse_box(base: Any, flow: str) -> None:
    """Refuse the uniform base for a flow without splines."""
    if is_uniform(base):
        raise ValueError(f"base: expected a base density for a {flow}, got {base!r}; MAF, IAF, RealNVP and NSF take it")
