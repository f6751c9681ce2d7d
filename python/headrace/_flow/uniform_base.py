"""Ready-made flows over a uniform base: splines of [-1, 1] onto itself, and lines from there to the columns' bounds.

Over any other base a bounded density vanishes at its bounds, so that importance weights have no variance there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace._flow.bases_by_name import UNIFORM, is_uniform
from headrace._flow.transforms.support import Bounds, Periods, Support, support_or_none

_SPLINE: Mapping[str, Any] = {"map": "rq_spline_free", "bound": 1.0, "formula": "to_latent"}


def onto_itself(base: Any, link: Any, conditioner: Mapping[str, Any]) -> Any:
    """Settings of a flow's transforms: as given, or over the uniform base those of splines of [-1, 1] onto itself."""
    if not is_uniform(base):
        return conditioner
    if link == "linear":
        raise ValueError(f"link: expected one that keeps rows within their bounds beside base={base!r}, got {link!r}")
    for name, value in _SPLINE.items():
        if name in conditioner and conditioner[name] != value:
            raise ValueError(
                f"{name}: expected {value!r} or nothing beside base={base!r}, got {conditioner[name]!r}, which does "
                "not take [-1, 1] onto itself"
            )
    return {**conditioner, **_SPLINE}


def support_of_box(bounds: Bounds | None, features: int, periodic: Periods | None) -> Support:
    """The support of a flow over the uniform base, which needs both ends of each column, or a period."""
    support = support_or_none(bounds, features, periodic, linear=True)
    if support is None:
        raise ValueError(f"bounds: expected (low, high) for each column beside base={UNIFORM!r}, got {bounds!r}")
    for c, pair in enumerate(support.bounds):
        if support.periodic[c] is None and (pair is None or None in pair):
            raise ValueError(f"bounds[{c}]: expected (low, high) beside base={UNIFORM!r}, got {pair!r}")
    return support


def refuse_box(base: Any, flow: str) -> None:
    """Refuse a uniform base for a flow without splines."""
    if is_uniform(base):
        raise ValueError(
            f"base: expected a base density, as transforms of a {flow} do not take [-1, 1] onto itself, got {base!r}; "
            "MAF, IAF, RealNVP and NSF take it"
        )
