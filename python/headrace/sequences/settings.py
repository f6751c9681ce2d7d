"""The options of a causal convolution: each one's default, check and meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace import _arguments as check
from headrace._core import cpu
from headrace._core.maps import interval_of
from headrace._core.settings import MapSettings, setting

__all__ = ["CausalSettings", "doubling"]

MOST_TAPS, MOST_UNITS, MOST_LAYERS, MOST_STEPS = 32, 2**13, 2**10, 2**24

_LONGEST = 128  # length of a cycle of doubled dilations (van den Oord et al. 2016 have 512)


def doubling(layers: int) -> tuple[int, ...]:
    """Dilations 1, 2, 4, ..., 128, repeated."""
    cycle = _LONGEST.bit_length()
    return tuple(2 ** (i % cycle) for i in range(layers))


def _size(name: str, most: int) -> Any:
    return lambda settings, value: check.integer(name, value, least=1, most=most)


def _dilations(settings: Any, value: Any) -> tuple[int, ...]:
    found = check.integers("dilations", value, least=1, most=MOST_STEPS)
    if not 1 <= len(found) <= MOST_LAYERS:
        raise ValueError(f"dilations: expected 1 to {MOST_LAYERS} of them, got {len(found)}")
    return found


def _taps(settings: Any, value: Any) -> int:
    return check.integer("kernel", value, least=2, most=MOST_TAPS)


@dataclass(frozen=True, kw_only=True, repr=False)
class CausalSettings(MapSettings):
    """The checked settings of a causal convolution."""

    channels: int = setting(32, _size("channels", MOST_UNITS), "")
    skip: int = setting(None, lambda s, value: s.channels if value is None else _size("skip", MOST_UNITS)(s, value), "")
    kernel: int = setting(2, _taps, "")
    dilations: tuple[int, ...] = setting(doubling(16), _dilations, "")
    covariates: int = setting(
        0, lambda settings, value: check.integer("covariates", value, most=MOST_UNITS), "", optional=True
    )
    hop: int = setting(1, _size("hop", MOST_STEPS), "", optional=True)
    reads: str = setting("data", lambda settings, value: check.choice("reads", value, ("data", "latent")), "")

    @property
    def outputs(self) -> int:
        """The number of raw parameters of one step."""
        return self.features * self.n_params

    def structure(self) -> Any:
        """The network in the core, with the index of each weight in the vector."""
        return cpu.CausalConvolution(
            inputs=self.features,
            channels=self.channels,
            skip=self.skip,
            kernel=self.kernel,
            dilations=self.dilations,
            outputs=self.outputs,
            context=self.context,
            covariates=self.covariates,
            hop=self.hop,
        )

    def map_options(self) -> dict[str, Any]:
        """The map in the core's form."""
        low, high = interval_of(self.map, self.bound)
        return {
            "map": self.map,
            "variant": self.scale,
            "slope": self.slope,
            "bins": self.bins,
            "low": low,
            "bound": high,
            "min_bin": self.min_bin,
        }

    def map_keywords(self) -> dict[str, Any]:
        """The map in the form of `headrace.ops`."""
        names: Sequence[str] = ("map", "scale", "slope", "bound", "bins", "min_bin")
        return {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        """The keywords with an effect."""
        more = f", context={self.context}" if self.context else ""
        if self.covariates:
            more += f", covariates={self.covariates}, hop={self.hop}"
        return (
            f"channels={self.channels}, skip={self.skip}, kernel={self.kernel}, dilations={list(self.dilations)}, "
            f"{self._map_keywords()}, reads={self.reads!r}{more}"
        )
