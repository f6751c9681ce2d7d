"""The single list of a masked transform's settings, apart from masks, each with its type, default, check and meaning.

A new setting needs a key of a `TypedDict`, which static checkers read, and a field of a dataclass, which checks its
value; a setting of the core also needs a line of the table in cpp/bindings/structure.cpp and of `MaskedOptions` in
core.pyi. Constructors that take the `TypedDict` then have the setting in their signature and help
(`headrace._base.keywords`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypedDict

import numpy as np

from headrace._base import arguments as check
from headrace._base.stored import Stored
from headrace._base.types import Self
from headrace._core import cpu, maps

ACTIVATIONS = tuple(cpu.activations())

MOST_COLUMNS = 2**24  # more than any use needs, and far from overflow in the core


# ---- keywords of the constructors -----------------------------------------------------------------------------------


class NetworkKeywords(TypedDict, total=False):
    """Keywords of every network, whatever its outputs are."""

    activation: str | None


class _Blocks(TypedDict, total=False):
    last_activation: str | None
    residual: bool
    dropout: float


class _Scale(TypedDict, total=False):
    map: str
    scale: str
    slope: float


class MapShape(_Scale, total=False):
    """Settings of a map whose formula is from latent to data."""

    bins: int
    bound: float | tuple[float, float]
    min_bin: float


class Map(MapShape, total=False):
    """Settings of a map whose parameters are the same for all rows."""

    formula: str


class Affine(NetworkKeywords, _Blocks, _Scale, total=False):
    """Keywords of flows of affine transforms."""


class Spline(NetworkKeywords, _Blocks, total=False):
    """Keywords of flows of splines."""

    slope: float
    bins: int
    bound: float


class _Masked(NetworkKeywords, Map, total=False):
    """Keywords of every transform with a map whose parameters a network computes."""


class _Reads(TypedDict, total=False):
    reads: str


class Conditioner(_Masked, _Blocks, total=False):
    """Keywords of couplings with random initial weights."""


class Autoregressive(Conditioner, _Reads, total=False):
    """Keywords of autoregressive transforms with random initial weights."""


class _Rows(TypedDict, total=False):
    outputs: Sequence[str] | None
    layout: str


class DenseConditioner(_Masked, _Rows, total=False):
    """Keywords of couplings with weights from arrays (`from_dense`)."""


class DenseAutoregressive(DenseConditioner, _Reads, total=False):
    """Keywords of autoregressive transforms with weights from arrays (`from_dense`)."""


# ---- the settings with checks ---------------------------------------------------------------------------------------


def setting(
    default: Any,
    checked: Callable[[Any, Any], Any],
    *,
    meaning: str = "",
    core: bool = True,
    optional: bool = False,
    stored: bool = True,
    option: str | bool = "",
) -> Any:
    """A setting as a dataclass field: its default, its check `checked(settings, value)`, and its meaning, unless the
    class docstring has the meaning.

    A check can use the checked values of earlier fields. With `core`, `MaskedOptions` of a core has the setting under
    the field's name. With `optional`, for settings newer than the file format, a file has the setting only if it
    differs from the default. Without `stored`, files do not contain the setting. `option`: see
    `headrace._base.keywords.argument`.
    """
    metadata = {"checked": checked, "meaning": meaning, "core": core, "optional": optional, "stored": stored}
    return field(default=default, metadata={**metadata, "option": option})


def _one_of(name: str, options: Sequence[str]) -> Callable[[Any, Any], str]:
    return lambda settings, value: check.choice(name, value, options)


def _checked_outputs(settings: Any, value: Any) -> tuple[str, ...]:
    names = tuple(maps.MAPS[settings.map].groups(settings.bins))
    chosen = names if value is None else tuple(value) if np.iterable(value) else (value,)
    if len(chosen) != len(names) or set(chosen) != set(names):
        raise ValueError(f"outputs: expected an order of {names}, got {value!r}")
    return chosen


# eq=False, here and in other modules: comparisons are never used, and generating them takes half a millisecond a class.
@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class _Columns:
    features: int
    context: int = 0

    def __post_init__(self) -> None:
        """Check all settings; an error names the argument."""
        for name, least in (("features", 1), ("context", 0)):
            self._set(name, check.integer(name, getattr(self, name), least=least, most=MOST_COLUMNS))
        for entry in self._own():
            self._set(entry.name, entry.metadata["checked"](self, getattr(self, entry.name)))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # sets a field of a frozen dataclass

    @classmethod
    def _own(cls) -> list[Field[Any]]:
        """The fields of all settings except `features` and `context`."""
        return [entry for entry in fields(cls) if entry.metadata]

    @classmethod
    def _stored(cls) -> list[Field[Any]]:
        """The fields of the settings that are stored in files."""
        return [entry for entry in cls._own() if entry.metadata["stored"]]

    def header(self) -> dict[str, Any]:
        """All settings by name, in JSON types."""
        named: dict[str, Any] = {"features": self.features, "context": self.context}
        for entry in self._stored():
            value = getattr(self, entry.name)
            if not entry.metadata["optional"] or value != entry.default:
                named[entry.name] = list(value) if isinstance(value, tuple) else value
        return named

    @classmethod
    def stored(cls, stored: Stored, without: Sequence[str] = ()) -> dict[str, Any]:
        """A header's values by name, of all settings except `features`, `context` and the names in `without`."""
        names = [entry.name for entry in cls._stored() if not entry.metadata["optional"] or stored.has(entry.name)]
        return {name: stored.take(name) for name in names if name not in without}

    @classmethod
    def from_file(cls, stored: Stored, **fixed: Any) -> Self:
        """Settings from a file's header; values in `fixed` replace the header's values."""
        sizes = {"features": stored.size("features", least=1), "context": stored.size("context")}
        return cls(**sizes, **cls.stored(stored, tuple(fixed)), **fixed)

    def core_options(self) -> dict[str, Any]:
        """The settings by name that `MaskedOptions` of a core takes."""
        options = {entry.name: getattr(self, entry.name) for entry in self._own() if entry.metadata["core"]}
        return {"features": self.features, "context": self.context, **options}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class MapSettings(_Columns):
    """Settings of a map, with or without a network that computes its parameters.

    Args:
        scale: How the raw output a becomes a scale: "soft_clamp" (log scale = a / (1 + |a| / log(1 / slope))), "exp"
            (e^a), "softplus" (softplus(a) + slope) or "sigmoid" (sigmoid(a + 2) + slope).
        slope: A limit of slopes: for an affine map see `scale`; for a spline the largest ratio of two bins is 1 /
            slope, and derivatives at knots lie between slope and 1 / slope; for splines with least sizes of bins
            (`min_bin`) `slope` is the least derivative.
        bins: Bins of a spline, 2 to 64.
        bound: The interval of a spline, [-bound, bound], or, for splines with least sizes of bins, its ends ``(low,
            high)``.
        min_bin: The least width and height of a bin as a share of the interval, below 1 / bins; "rq_spline" ignores it.
    """

    map: str = setting(
        "affine",
        lambda settings, value: check.choice("map", value, tuple(maps.MAPS)),
        meaning=f"One of {maps.meanings()}. In brackets: a coordinate's raw parameters, in their order; K is `bins`.",
        option=f"the map of each coordinate: {', '.join(maps.MAPS)}",
    )
    scale: str = setting("soft_clamp", _one_of("scale", maps.SCALES), core=False, option=True)
    slope: float = setting(
        1e-3,
        lambda settings, value: maps.slope_of(settings.map, value),
        option="bounds slopes: the least scale, or of splines the least ratio of two bins",
    )
    bins: int = setting(8, lambda settings, value: maps.bins_of(settings.map, value), option=True)
    bound: float | tuple[float, float] = setting(
        5.0,
        lambda settings, value: maps.bound_of(settings.map, value),
        core=False,
        option="a spline's interval is [-bound, bound]",
    )
    min_bin: float = setting(
        maps.MIN_BIN, lambda settings, value: maps.min_bin_of(settings.map, value, settings.bins), optional=True
    )

    @property
    def n_params(self) -> int:
        """The number of the map's parameters for one coordinate."""
        return maps.MAPS[self.map].n_params(self.bins)

    @property
    def identity(self) -> tuple[float, ...]:
        """The parameters that make the map the identity."""
        return maps.MAPS[self.map].identity(self)

    def map_keywords(self) -> dict[str, Any]:
        """The map's settings as keywords of `headrace.ops`."""
        return {entry.name: getattr(self, entry.name) for entry in MapSettings._own()}

    def _map_keywords(self) -> str:
        """The text for a repr of the map's keywords that have an effect."""
        more = f", scale={self.scale!r}" if maps.has_scale(self.map) else ""
        if maps.has_bins(self.map):
            low, high = maps.interval_of(self.map, self.bound)
            more += f", bins={self.bins}, bound=" + (f"{high:g}" if low == -high else f"({low:g}, {high:g})")
        if maps.has_min_bin(self.map):
            more += f", min_bin={self.min_bin:g}"
        return f"map={self.map!r}{more}"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class NetworkSettings(_Columns):
    """Settings of a network, whatever its outputs are.

    Args:
        activation: Of hidden units: "relu", "tanh", "elu", "silu", "gelu" (the exact one), "gelu_tanh"
            (by tanh), "softplus", "leaky_relu" (0.01 x below 0), "sigmoid" or None for none.
    """

    activation: str | None = setting(
        "relu",
        lambda settings, value: check.choice("activation", "identity" if value is None else value, ACTIVATIONS),
        option=True,
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Settings(NetworkSettings, MapSettings):  # with this order of bases, files have the map's settings first
    """The checked settings of a masked transform, apart from its masks.

    Args:
        formula: "to_data" (x is the map of z) or "to_latent" (z is the map of x).
        reads: The side that the network reads: "data" (x) or "latent" (z).
        outputs: The order of a coordinate's parameters, by default that of `map`, such as ("width", "height",
            "derivative"), where each name stands for the values of all bins.
        layout: "interleaved": the last layer's rows are coordinate by coordinate; "blocked": all rows of the
            first name, coordinate by coordinate, then those of the second, and so on.
        last_activation: Of the last hidden layer, with `residual` of the last block: one of the same names, "identity"
            for none. By default "tanh" in the flows of affine maps, MAF, IAF and RealNVP, because tanh bounds a
            network's outputs for a row far from all others, and in other flows the activation of the other layers.
        residual: Whether each entry of `hidden` is a residual block of two layers after a first layer
            (`headrace.Network.residual`), instead of one layer.
        dropout: The share of hidden values, with `residual` of values between the two layers of a block, that
            `Flow.fit` omits at random in each step (`headrace.Layer`).
    """

    formula: str = setting("to_data", _one_of("formula", ("to_data", "to_latent")), core=False)
    reads: str = setting("data", _one_of("reads", ("data", "latent")), core=False)
    outputs: Any = setting(  # a tuple after the check
        None, _checked_outputs, core=False
    )
    layout: str = setting("interleaved", _one_of("layout", ("interleaved", "blocked")), core=False)

    last_activation: str | None = setting(
        None,
        lambda settings, value: value if value is None else check.choice("last_activation", value, ACTIVATIONS),
        core=False,
        stored=False,
        option=True,
    )

    residual: bool = setting(
        False,
        lambda settings, value: bool(value),
        core=False,
        stored=False,
        option="residual blocks of two layers in the place of hidden layers",
    )

    dropout: float = setting(
        0.0,
        lambda settings, value: check.number("dropout", value, least=0.0, below=1.0),
        core=False,
        stored=False,
        option="the share of hidden values left out at random in each step of the fit",
    )

    def options(self, reads: Sequence[int], active: Sequence[int]) -> dict[str, Any]:
        """The arguments of `MaskedOptions` for a network that reads `reads` and the context, and maps `active`."""
        low, high = maps.interval_of(self.map, self.bound)
        return {
            **self.core_options(),
            "reads": list(reads),
            "active": list(active),
            "variant": self.scale,
            "low": low,
            "bound": high,
            "reads_data": self.reads == "data",
            "formula_to_data": self.formula == "to_data",
        }

    def __repr__(self) -> str:
        """The map's keywords that have an effect, and the activation."""
        return f"{self._map_keywords()}, activation={self.activation!r}"
