"""The maps as Python knows them: their parameters in the core's order, and those that make a map the identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace import _arguments as check
from headrace._core import cpu

__all__ = [
    "LEAST_BINS",
    "MAPS",
    "MOST_BINS",
    "SCALES",
    "VECTOR_MAPS",
    "Map",
    "VectorMap",
    "bins_of",
    "bins_with",
    "has_bins",
    "has_scale",
    "slope_of",
]

_WITH_SCALE = {name for name, scale in cpu.maps() if scale}
_TRAITS = cpu.map_traits()

SCALES = tuple(dict.fromkeys(scale for _, scale in cpu.maps() if scale))

LEAST_BINS = 2
MOST_BINS = max(most for most, _ in _TRAITS.values())


class Settings(Protocol):
    """What of a transform's settings its map may depend on; `settings.Settings` is one."""

    @property
    def scale(self) -> str:
        """How a raw number becomes a scale."""

    @property
    def slope(self) -> float:
        """Bounds slopes."""

    @property
    def n_params(self) -> int:
        """Parameters of one coordinate."""


@dataclass(frozen=True)
class Map:
    """How many parameters of each name a coordinate has, given the number of bins, and the identity's."""

    groups: Callable[[int], dict[str, int]]
    identity: Callable[[Settings], tuple[float, ...]]

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
    ),
    "dual_ascent": Map(
        lambda bins: {"stretch": 1, "shift": 1, "bend": 1, "center": 1, "width": 1},
        lambda s: (0.0,) * 5,
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


def has_bins(map: str) -> bool:
    """Whether a map has bins: then its number of parameters depends on how many."""
    return _TRAITS[map][0] > 0


def has_scale(map: str) -> bool:
    """Whether a map has a scale, which may be made of a raw number in more than one way."""
    return map in _WITH_SCALE


def bins_of(map: str, value: Any) -> int:
    """A number of bins, checked for a map; of no effect, but checked, where it has none."""
    return check.integer("bins", value, least=LEAST_BINS, most=_TRAITS[map][0] or MOST_BINS)


@lru_cache(maxsize=256)
def bins_with(map: str, n_params: int) -> tuple[int, ...]:
    """Every number of bins with which a map has so many parameters; one of them where it has no bins."""
    most = _TRAITS[map][0] or LEAST_BINS
    return tuple(bins for bins in range(LEAST_BINS, most + 1) if MAPS[map].n_params(bins) == n_params)


def slope_of(map: str, value: Any) -> float:
    """A slope, checked for a map."""
    _, least = _TRAITS[map]
    if least:
        return check.number("slope", value, least=least, below=1.0)
    return check.number("slope", value, above=0.0, below=1.0)
