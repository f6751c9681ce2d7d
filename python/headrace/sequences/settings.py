"""The options of a causal convolution: the default, check and meaning of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from headrace._base import arguments as check
from headrace._base.stored import Stored, header_of
from headrace._base.types import Self
from headrace._core import cpu
from headrace._core.maps import interval_of
from headrace._core.settings import MapSettings, MapShape, setting
from headrace._flow.bases import StandardNormal
from headrace._flow.flow import Flow

RUNNING = 3  # the number of running sizes of a value: cpp/core/sequences/adaptive.hpp
LEVELS = (-13.0, 2.0)  # the clamp of levels: cpp/steps/causal.hpp

MOST_TAPS, MOST_UNITS, MOST_LAYERS, MOST_STEPS = 32, 2**13, 2**10, 2**24

_LONGEST = 128  # the last dilation of a cycle of doubled dilations (512 in van den Oord et al. 2016)


def doubling(layers: int) -> tuple[int, ...]:
    """The dilations 1, 2, 4, ..., 128, repeated up to the number of layers."""
    cycle = _LONGEST.bit_length()
    return tuple(2 ** (i % cycle) for i in range(layers))


def _size(name: str, most: int, least: int = 1) -> Any:
    return lambda settings, value: check.integer(name, value, least=least, most=most)


def _truth(name: str) -> Any:
    return setting(False, lambda settings, value: check.truth(name, value), optional=True)


def _dilations(settings: Any, value: Any) -> tuple[int, ...]:
    dilations = check.integers("dilations", value, least=1, most=MOST_STEPS)
    if not 1 <= len(dilations) <= MOST_LAYERS:
        raise ValueError(f"dilations: expected 1 to {MOST_LAYERS} of them, got {len(dilations)}")
    return dilations


def _inner(settings: Any, value: Any) -> Flow | None:
    if value is None:
        return None
    if not isinstance(value, Flow):
        raise TypeError(f"inner: expected a headrace.Flow with context, got {check.kind_of(value)}")
    if value.features != settings.features:
        raise ValueError(f"inner: expected a flow of {settings.features} features, got {value.features}")
    if not value.context:
        raise ValueError("inner: expected a flow with context, which outputs of the network are, got one without")
    if type(value._base) is not StandardNormal:
        raise ValueError(f"inner: expected a flow on StandardNormal, got {value._base!r}")
    value._require_plain("inner")
    return value._bare()


class OverTime(TypedDict, total=False):
    """Keywords of every network over time."""

    channels: int
    skip: int | None
    kernel: int
    reads: str
    context: int
    covariates: int
    hop: int


class Convolution(OverTime, MapShape, total=False):
    """Keywords of a causal convolution."""

    dilations: Sequence[int]
    inner: Flow | None
    companded: bool
    level: bool
    sizes: bool


@dataclass(frozen=True, kw_only=True, repr=False)
class CausalSettings(MapSettings):
    """The checked settings of a causal convolution.

    Args:
        features: The number of values in each step.
        channels: Units of each layer.
        skip: Units of the skip sums and of the output layers; by default as many as channels.
        kernel: Taps of each convolution, 2 to 32.
        dilations: Steps between two taps, one for each layer; by default 16 layers, 1, 2, 4, ..., 128 and again.
        reads: The side that the networks read, "data" or "latent".
        inner: A flow of the values of a step, whose context columns are outputs of the network, such as
            ``hr.NSF(features, context=16)``. The inner flow must have the base `StandardNormal`, because the
            `SequenceFlow` has the base of a step, and must have the dtype `dtype`. The inner flow's parameters are
            copied. With `inner`, no setting of a map is allowed.
        context: The number of context columns, with one row for a whole sequence.
        covariates: The number of columns that are known over time, also in advance, such as the hour of the day.
        hop: Steps from one frame of the covariates to the next; covariates between frames are interpolated.
        companded: Whether the network also reads each value as asinh(512 v) / asinh(512), which resolves levels that
            lie decades apart.
        level: Whether the network also outputs a level c of each value, the logarithm of its scale from -13 to 2, with
            x = e^c · map(z). With a level, parameters of the map are in units of e^c, and can stay unchanged where a
            signal becomes quiet.
        sizes: Whether the network, without covariates, also reads logarithms of three running sizes of each value, from
            the `AdaptivePrediction` that must follow the convolution at the data side.
    """

    channels: int = setting(32, _size("channels", MOST_UNITS), option="units of each layer")
    skip: int = setting(
        None, lambda s, value: s.channels if value is None else _size("skip", MOST_UNITS)(s, value), option=True
    )
    kernel: int = setting(2, _size("kernel", MOST_TAPS, 2), option="taps of each convolution, 2 to 32")
    dilations: tuple[int, ...] = setting(doubling(16), _dilations)
    covariates: int = setting(0, _size("covariates", MOST_UNITS, 0), optional=True)
    hop: int = setting(1, _size("hop", MOST_STEPS), optional=True, option="steps between frames of the covariates")
    companded: bool = _truth("companded")
    level: bool = _truth("level")
    sizes: bool = setting(False, lambda settings, value: _sizes(settings, value), optional=True)
    reads: str = setting("data", lambda settings, value: check.choice("reads", value, ("data", "latent")))
    # The inner flow without its parameters, which `header` describes; or None.
    inner: Any = setting(None, _inner, stored=False)  # a Flow or None after the check

    @property
    def outputs(self) -> int:
        """The number of raw parameters of one step, or of context columns of the inner flow."""
        return self.features * self.of_value if self.inner is None else int(self.inner.context)

    @property
    def of_value(self) -> int:
        """The number of raw parameters of one value: those of its map, and a level."""
        return self.n_params + self.level

    def header(self) -> dict[str, Any]:
        """All settings by name; settings of a map are left out if there is an inner flow."""
        named = super().header()
        if self.inner is None:
            return named
        of_network = {name: value for name, value in named.items() if name not in self.map_keywords()}
        return of_network | {"inner": header_of(self.inner)}

    @classmethod
    def from_file(cls, stored: Stored, *, inner: Flow | None = None, **fixed: Any) -> Self:
        """The settings from a `header`; `inner`: the inner flow, which is read separately because it has parameters."""
        of_map = {} if inner is None else {setting.name: setting.default for setting in MapSettings._own()}
        return super().from_file(stored, inner=inner, **of_map, **fixed)

    def structure(self) -> Any:
        """The network's structure in the core, which has the index of each weight in the vector."""
        return cpu.CausalConvolution(**self.network_options())

    def network_options(self) -> dict[str, Any]:
        """The options of the network in the core's form."""
        alike = ("channels", "skip", "kernel", "dilations", "outputs", "context", "hop")
        return {name: getattr(self, name) for name in alike} | {
            "inputs": self.features,
            "covariates": RUNNING * self.features if self.sizes else self.covariates,
            "is_companded": self.companded,
        }

    def map_options(self) -> dict[str, Any]:
        """The options of the map in the core's form."""
        low, high = interval_of(self.map, self.bound)
        named = self.map_keywords() | {"low": low, "bound": high, "has_level": self.level}
        named["variant"] = named.pop("scale")
        return named

    def __repr__(self) -> str:
        """The keywords that have an effect on the network."""
        more = f", context={self.context}" if self.context else ""
        if self.covariates:
            more += f", covariates={self.covariates}, hop={self.hop}"
        of_map = self._map_keywords()
        if self.inner is not None:
            of_map = f"inner=<{type(self.inner).__name__}, {self.inner.context} of context>"
        of_map += "".join(f", {name}=True" for name in ("level", "companded", "sizes") if getattr(self, name))
        return (
            f"channels={self.channels}, skip={self.skip}, kernel={self.kernel}, dilations={list(self.dilations)}, "
            f"{of_map}, reads={self.reads!r}{more}"
        )


def _sizes(settings: Any, value: Any) -> bool:
    if check.truth("sizes", value) and settings.covariates:
        raise ValueError(f"covariates: expected 0 beside sizes=True, got {settings.covariates}")
    return bool(value)
