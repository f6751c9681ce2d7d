"""Periodic columns of the ready-made flows: p(x, θ) = p(x) p(θ | x), where p(θ | x) is continuous around each circle.

The flow itself has the columns x that are not periodic. After it, at the data end, the periodic ones go through
shifts and circular splines; networks compute their parameters from x and the context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._flow.bases import Base
from headrace._flow.tails import Independent, Uniform
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.masked import Coupling
from headrace._flow.transforms.on_columns import OnColumns
from headrace._flow.transforms.rotation import Rotation
from headrace._flow.transforms.support import Support
from headrace._flow.transforms.transform import Transform

MOST_CIRCLES = 5  # circle couplings of flows of many small transforms

_OWN = ("activation", "last_activation", "residual", "dropout", "bins")  # settings that mean the same on a circle


@dataclass(frozen=True, eq=False)
class CircleSettings:
    """Settings of a flow's circle couplings."""

    transforms: Any  # their number
    seed: Any
    sizes: Mapping[str, Any]  # context, hidden and dtype
    conditioner: Mapping[str, Any]


def wrapped(features: int, circles: Sequence[int]) -> Transform:
    """Numbers of circles are taken to [-1, 1), a period of those that come from the data's side."""
    return Support([None] * features, [(-1.0, 1.0) if c in circles else None for c in range(features)])


def circle_couplings(features: int, circles: Sequence[int], settings: CircleSettings) -> list[Transform]:
    """Couplings on [-1, 1) for the columns of `circles`, which read the others, from latent to data.

    No network reads a circle's own value, which jumps where it wraps. Dependences between circles are left
    to shears between the couplings.
    """
    line = [c for c in range(features) if c not in circles]
    key, count = check.integer("seed", settings.seed), check.integer("transforms", settings.transforms, least=1)
    shift: Any = {name: value for name, value in settings.conditioner.items() if name in _OWN}
    bend: Any = {"bins": shift.pop("bins")} if "bins" in shift else {}
    bend = {**shift, **bend, "map": "rq_spline_circular", "bound": 1.0, "formula": "to_latent"}
    shift |= {"map": "additive", "formula": "to_latent"}
    chain: list[Transform] = []
    for i in range(count):
        if i > 0 and len(circles) > 1:
            chain += _shear(features, circles, i - 1)
        chain.append(Coupling(features, line, seed=(key, i, 1), **settings.sizes, **bend))
        chain.append(Coupling(features, line, seed=(key, i, 2), **settings.sizes, **shift))
    return chain


def _shear(features: int, circles: Sequence[int], number: int) -> list[Transform]:
    """A linear map of circles by a matrix of whole numbers; its inverse has whole numbers too.

    It takes a row and the same row a period on to the same place, and keeps volumes, so that it is continuous around
    all circles, and a uniform density stays so. Each circle gets another one's value added; the next shear subtracts
    it, and between the two splines have bent both: this shifts a circle by any function of another. The two after
    them go the other way.
    """
    n = len(circles)
    matrix: NDArray[np.float64] = np.eye(n) + np.eye(n, k=-1)
    if number % 2 == 1:
        matrix = np.linalg.inv(matrix).round().astype(np.float64)
    matrix = matrix if number % 4 < 2 else matrix[::-1, ::-1]
    left, scale, right = np.linalg.svd(matrix)
    std = np.ones(features)
    std[list(circles)] = scale
    return [
        wrapped(features, circles),  # so that entries do not grow from shear to shear
        OnColumns(Rotation(right), circles, features),
        Standardize(np.zeros(features), std),
        OnColumns(Rotation(left), circles, features),
    ]


def base_of_circles(base: Base | None, features: int, circles: Sequence[int]) -> Base:
    """The base, which is uniform only on circles."""
    want = ["uniform" if c in circles else "normal" for c in range(features)]
    if base is None:
        return Independent(want)
    got = list(base.densities) if isinstance(base, Independent) else None
    if isinstance(base, Uniform):
        got = ["uniform"] * base.features
    if got is None or [name == "uniform" for name in got] != [name == "uniform" for name in want]:
        raise ValueError(
            f"base: expected an Independent, uniform in the periodic columns alone, as {Independent(want)!r}, got "
            f"{base!r}"
        )
    return base
