"""The maps as Python knows them: their parameters in the core's order, and those that make a map the identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace import _arguments as check
from headrace._core import cpu

__all__ = ["MAPS", "SCALES", "VECTOR_MAPS", "Map", "VectorMap", "bins_of", "slope_of"]

SCALES = tuple(scale for name, scale in cpu.maps() if name == "affine")


class Settings(Protocol):
    """What of a transform's settings its map may depend on; `structure.Settings` is one."""

    scale: Any
    slope: Any

    @property
    def n_params(self) -> int:
        """Parameters of one coordinate."""


@dataclass(frozen=True)
class Map:
    """How many parameters of each name a coordinate has, given the number of bins, and the identity's."""

    groups: Callable[[int], dict[str, int]]
    identity: Callable[[Settings], tuple[float, ...]]
    least_slope: float = 0.0  # excluded if it is 0

    def n_params(self, bins: int) -> int:
        """Parameters of one coordinate."""
        return sum(self.groups(bins).values())


def _raw_scale_of_one(settings: Settings) -> float:
    return {
        "soft_clamp": 0.0,
        "exp": 0.0,
        "softplus": float(np.log(np.expm1(1 - settings.slope))),
        "sigmoid": float(np.log((1 - settings.slope) / settings.slope)) - 2,
    }[settings.scale]


MAPS: dict[str, Map] = {
    "affine": Map(lambda bins: {"shift": 1, "scale": 1}, lambda s: (0.0, _raw_scale_of_one(s))),
    "additive": Map(lambda bins: {"shift": 1}, lambda s: (0.0,)),
    "rq_spline": Map(
        lambda bins: {"width": bins, "height": bins, "derivative": bins - 1},
        lambda s: (0.0,) * s.n_params,
        least_slope=1e-6,  # below, a derivative may leave float32
    ),
    "dual_ascent": Map(
        lambda bins: {"stretch": 1, "shift": 1, "bend": 1, "center": 1, "width": 1},
        lambda s: (0.0,) * 5,
        least_slope=1e-6,  # below, |γ| may be 1 in float32
    ),
}


@dataclass(frozen=True)
class VectorMap:
    """The raw parameters of a map of all coordinates by name, given the number of coordinates, and fresh ones."""

    groups: Callable[[int], dict[str, int]]
    fresh: Callable[[int, np.random.Generator], NDArray[Any]]
    variants: tuple[str, ...] = ("",)

    def n_params(self, features: int) -> int:
        """Parameters in all."""
        return sum(self.groups(features).values())


def _fresh_planar(features: int, rng: np.random.Generator) -> NDArray[Any]:
    """Directions of all kinds, that move hardly anything."""
    w, u = rng.standard_normal((2, features)) / np.sqrt(features)
    return np.concatenate([w, 1e-2 * u, rng.standard_normal(1)])


def _fresh_radial(features: int, rng: np.random.Generator) -> NDArray[Any]:
    """Centers where the latent rows are, that move hardly anything."""
    return np.concatenate([rng.standard_normal(features), 1e-2 * rng.standard_normal(2)])


VECTOR_MAPS: dict[str, VectorMap] = {
    "planar": VectorMap(
        lambda features: {"w": features, "u": features, "b": 1}, _fresh_planar, variants=("tanh", "leaky_relu")
    ),
    "radial": VectorMap(lambda features: {"center": features, "alpha": 1, "beta": 1}, _fresh_radial),
}


def bins_of(map: str, n_params: int) -> int | None:
    """The number of bins with which a map has so many parameters (any, where it has none); None if there is none."""
    return next((bins for bins in range(2, 65) if MAPS[map].n_params(bins) == n_params), None)


def slope_of(map: str, value: Any) -> float:
    """A slope, checked for a map."""
    least = MAPS[map].least_slope
    if least:
        return check.number("slope", value, least=least, below=1.0)
    return check.number("slope", value, above=0.0, below=1.0)
