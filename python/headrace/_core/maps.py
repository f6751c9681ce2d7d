"""The core's maps in Python: parameters in the core's order, the identity's parameters, and checks of settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._core import cpu

_LISTED = {one.name: one for one in cpu.maps()}

SCALES = tuple(dict.fromkeys(one.scale for one in cpu.maps() if one.scale))

LEAST_BINS = 2
FARTHEST = 1e30  # the largest absolute value of an interval's end
MIN_BIN = 1e-3
MOST_BINS = max(one.max_bins for one in _LISTED.values())

# Raw values at which a map is the identity, by the names of `IdentityAt` in cpp/math/maps/options.hpp.
_IDENTITIES: dict[str, Callable[[float], float]] = {
    "zero": lambda slope: 0.0,
    "softplus": lambda slope: float(np.log(np.expm1(1 - slope))),
    "sigmoid": lambda slope: float(np.log((1 - slope) / slope)) - 2,
}


@dataclass(frozen=True, eq=False)
class Map:
    """A map: functions that return the counts of a coordinate's parameters by name, and the identity's parameters."""

    groups: Callable[[int], dict[str, int]]
    identity: Callable[[Any], tuple[float, ...]]
    meaning: str = ""

    def n_params(self, bins: int) -> int:
        """The number of parameters of one coordinate."""
        return sum(self.groups(bins).values())

    def shown(self) -> str:
        """The parameters as a text for help, where K is the number of bins."""
        two, three = self.groups(2), self.groups(3)
        return ", ".join(_shown(name, three[name] - two[name], 3 * two[name] - 2 * three[name]) for name in two)


def _shown(name: str, each: int, more: int) -> str:
    """The help's text for a parameter that has `each` · K + `more` values, such as "K + 1 derivative"."""
    name = name.replace("_", " ")
    if not each:
        return name if more == 1 else f"{more} {name}"
    factor = "K" if each == 1 else f"{each} K"
    return f"{factor} {name}" if not more else f"{factor} {'+' if more > 0 else '-'} {abs(more)} {name}"


def maps_of(core: Any) -> dict[str, Map]:
    """The maps of a compiled module by name, in the order of the module's list."""
    variants: dict[str, dict[str, Any]] = {}
    for described in core.maps():
        variants.setdefault(described.name, {})[described.scale] = described
    return {name: _made(of_scales) for name, of_scales in variants.items()}


def _made(of_scales: dict[str, Any]) -> Map:
    """A map from the core's descriptions of the map, one description for each scale."""
    first = next(iter(of_scales.values()))

    @lru_cache(maxsize=256)
    def counts(bins: int) -> tuple[tuple[str, int], ...]:
        return tuple((name, count) for name, count, _ in first.parameters(bins))

    def identity(settings: Any) -> tuple[float, ...]:
        parameters = of_scales.get(settings.scale, first).parameters(settings.bins)
        return tuple(value for _, n, kind in parameters for value in (_IDENTITIES[kind](settings.slope),) * n)

    return Map(lambda bins: dict(counts(bins)), identity, first.meaning)


MAPS: dict[str, Map] = maps_of(cpu)


@dataclass(frozen=True, eq=False)
class VectorMap:
    """A map of all coordinates; functions of `features` return the counts of raw parameters, and initial parameters."""

    groups: Callable[[int], dict[str, int]]
    fresh: Callable[[int, np.random.Generator], NDArray[Any]]
    variants: tuple[str, ...] = ("",)

    def n_params(self, features: int) -> int:
        """The number of parameters of the map."""
        return sum(self.groups(features).values())


def _fresh_planar(features: int, rng: np.random.Generator) -> NDArray[Any]:
    """Initial parameters with random directions and small shifts, so that the map is almost the identity."""
    w, u = rng.standard_normal((2, features)) / np.sqrt(features)
    return np.concatenate([w, 1e-2 * u, rng.standard_normal(1)])


def _fresh_radial(features: int, rng: np.random.Generator) -> NDArray[Any]:
    """Initial parameters with centers among latent rows and a small β, so that the map is almost the identity."""
    return np.concatenate([rng.standard_normal(features), 1e-2 * rng.standard_normal(2)])


VECTOR_MAPS: dict[str, VectorMap] = {
    "planar": VectorMap(
        lambda features: {"w": features, "u": features, "b": 1}, _fresh_planar, variants=("tanh", "leaky_relu")
    ),
    "radial": VectorMap(lambda features: {"center": features, "alpha": 1, "beta": 1}, _fresh_radial),
}


def has_bins(map: str) -> bool:
    """Whether a map has bins; the number of parameters then depends on the number of bins."""
    return _LISTED[map].max_bins > 0


def has_scale(map: str) -> bool:
    """Whether a map has a scale, which raw values can determine in several ways."""
    return bool(_LISTED[map].scale)


def bins_of(map: str, value: Any) -> int:
    """The checked number of bins for a map; maps without bins ignore the number."""
    return check.integer("bins", value, least=LEAST_BINS, most=_LISTED[map].max_bins or MOST_BINS)


@lru_cache(maxsize=256)
def bins_with(map: str, n_params: int) -> tuple[int, ...]:
    """All numbers of bins with which a map has `n_params` parameters; an arbitrary number for a map without bins."""
    most = _LISTED[map].max_bins or LEAST_BINS
    return tuple(bins for bins in range(LEAST_BINS, most + 1) if MAPS[map].n_params(bins) == n_params)


def slope_of(map: str, value: Any) -> float:
    """The checked setting `slope` for a map."""
    if least := _LISTED[map].least_slope:
        return check.number("slope", value, least=least, below=1.0)
    return check.number("slope", value, above=0.0, below=1.0)


def has_min_bin(map: str) -> bool:
    """Whether the bins of a map have a least size; such a map can also have an asymmetric interval."""
    return _LISTED[map].least_bin > 0


def min_bin_of(map: str, value: Any, bins: int) -> float:
    """The checked least share of a bin, for a map and its number of bins; a value for other maps has no effect."""
    if has_min_bin(map):
        return check.number("min_bin", value, least=_LISTED[map].least_bin, below=1.0 / bins)
    return check.number("min_bin", value, above=0.0, below=1.0)


def interval_of(map: str, bound: Any) -> tuple[float, float]:
    """The checked interval that `bound` sets for a map: [-bound, bound] for a number, or the two ends."""
    if not isinstance(bound, (tuple, list)):
        high = check.number("bound", bound, above=0.0, below=FARTHEST)
        return -high, high
    if len(bound) != 2:
        raise ValueError(f"bound: expected a number or two, got {bound!r}")
    low = check.number("bound[0]", bound[0], above=-FARTHEST, below=FARTHEST)
    high = check.number("bound[1]", bound[1], above=low, below=FARTHEST)
    if low != -high and not has_min_bin(map):
        raise ValueError(f"bound: expected one number for map {map!r}, whose interval is symmetric, got {bound!r}")
    return low, high


def bound_of(map: str, value: Any) -> float | tuple[float, float]:
    """The checked setting `bound` for a map: one number if the interval is symmetric, otherwise its two ends."""
    low, high = interval_of(map, value)
    return high if low == -high else (low, high)


def meanings() -> str:
    """The help's text about all maps, with names, parameters and meanings."""
    return "; ".join(f'"{name}" ({map.shown()}): {map.meaning}' for name, map in MAPS.items())
