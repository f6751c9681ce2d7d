"""Maps of single coordinates with the same parameters for all rows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace._base import arguments as check
from headrace._base.keywords import documented, takes
from headrace._base.stored import Stored, storable
from headrace._base.types import Self, Unpack
from headrace._core.maps import MAPS
from headrace._core.settings import Map, Settings
from headrace._flow.program.bias_table import BiasTable, unread
from headrace._flow.transforms.transform import OfBlock, Transform

LEAST_POSITIVE = 1e-3  # the infimum of the core's function `positive`


def _numbers(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:g}" for value in values[:5]) + (", ..." if len(values) > 5 else "")


@storable
@documented
class Elementwise(OfBlock):
    """A marginal map: a separate map for each coordinate, whose parameters do not depend on other coordinates.

    Args:
        features: The number of coordinates D.
        dtype: "float32" or "float64".
        **settings: Settings of the map, as keywords of `Map`.

    The parameters are the map's raw parameters by name, each of shape (D, values of that name); a new map is the
    identity. "dual_ascent" has "stretch", "shift", "bend", "center" and "width": a x + b + a γ sqrt(ε² + (x -
    center)²), where log a is the softly clamped stretch, b the shift, γ = (1 - slope) bend / sqrt(1 + bend²), and ε =
    positive(width), as in `Planar`.

    >>> import numpy as np, headrace as hr
    >>> t = hr.transforms.Elementwise(2, map="dual_ascent", dtype="float64")
    >>> t.set_parameter("shift", np.array([[1.0], [2.0]]))
    >>> t.inverse(np.zeros((1, 2)))[0].tolist()
    [[1.0, 2.0]]
    """

    @takes(Map, Settings, map="rq_spline", formula="to_latent")
    def __init__(self, features: int, *, dtype: DTypeLike = "float32", **settings: Unpack[Map]) -> None:
        self._set(Settings(features=features, **settings), check.float_dtype("dtype", dtype), None)

    def _set(self, settings: Settings, dtype: np.dtype[Any], named: dict[str, NDArray[Any]] | None) -> None:
        n = settings.features
        super().__init__(n, 0, dtype)
        self._settings = settings
        shapes = {name: (n, size) for name, size in MAPS[settings.map].groups(settings.bins).items()}
        self._block = block = BiasTable(unread(settings), shapes, n)
        identity = np.tile(np.array(settings.identity, dtype), n)
        self._take_parameters(block.packed(identity) if named is None else block.pack_named(named))

    def _part(self, kept: tuple[int, ...]) -> Transform:
        part = object.__new__(type(self))
        named = {name: array[list(kept)] for name, array in self.named_parameters().items()}
        assert self._dtype is not None
        part._set(replace(self._settings, features=len(kept)), self._dtype, named)
        return part

    _KEYS = tuple(Map.__annotations__)

    def _header(self) -> dict[str, Any]:
        header = self._settings.header()
        return {"features": self._features, **{key: header[key] for key in self._KEYS if key in header}}

    @classmethod
    def _of(cls, raw: dict[str, NDArray[Any]], *, dtype: Any, **settings: Unpack[Map]) -> Self:
        """A transform with raw parameters of shape (features, values of a name); `formula`: "to_latent" by default."""
        described: Map = {"formula": "to_latent", **settings}
        self = cls.__new__(cls)
        parameters = {name: values.astype(dtype) for name, values in raw.items()}
        self._set(Settings(features=len(next(iter(raw.values()))), **described), np.dtype(dtype), parameters)
        return self

    @classmethod
    def _of_lines(
        cls, a: Any, b: Any, gamma: Any, center: Any, epsilon: Any, *, slope: float, dtype: Any, **more: Any
    ) -> Self:
        """A line with a smooth kink for each coordinate: a x + b + a γ sqrt(ε² + (x - center)²)."""
        limit = math.log(1.0 / slope)
        log_a, share = np.log(a), gamma / (1.0 - slope)
        above = epsilon - LEAST_POSITIVE
        raw = {
            "stretch": log_a / (1.0 - np.abs(log_a) / limit),
            "shift": b,
            "bend": share / np.sqrt((1.0 - share) * (1.0 + share)),
            "center": center,
            "width": above + np.log(-np.expm1(-above)) - math.log(math.expm1(1.0 - LEAST_POSITIVE)),
        }
        raw = {name: np.asarray(values, np.float64).reshape(-1, 1) for name, values in raw.items()}
        return cls._of(raw, map="dual_ascent", slope=slope, dtype=dtype, **more)

    @classmethod
    def from_notes(
        cls,
        sigma: Any,
        phi0: Any,
        gamma: Any,
        x0: Any,
        epsilon: Any,
        *,
        formula: str = "to_latent",
        slope: float = 1e-3,
        dtype: DTypeLike = "float64",
    ) -> Self:
        """The map of eq. 25 of the lecture notes, with the parameters of eq. 25, one value for each coordinate:

            φ(x) = (1 - σ) x + φ₀ + γ sqrt(ε² + ((1 - σ) x - x₀)²).

        Args:
            sigma: σ, the stretch; 1 - σ must be between `slope` and 1 / `slope`.
            phi0: φ₀, the shift.
            gamma: γ, the change of slope at x₀; \\|γ\\| must be below 1 - `slope`, so that φ increases.
            x0: x₀, the position of the bend.
            epsilon: ε, the length of the bend; ε / (1 - σ) must be above 0.001.
            formula: "to_latent" for z = φ(x), "to_data" for x = φ(z).
            slope: See `MaskedAutoregressive`.
            dtype: "float32" or "float64".

        Raises:
            ValueError: a value is out of range, or an argument does not have one value for each coordinate.

        >>> import numpy as np, headrace as hr
        >>> t = hr.transforms.Elementwise.from_notes([0.5], [1.0], [0.2], [0.0], [2.0])
        >>> round(float(t.inverse(np.zeros((1, 1)))[0][0, 0]), 12)  # 1 + 0.2 * 2
        1.4
        """
        features = max(1, *(np.size(values) for values in (sigma, phi0, gamma, x0, epsilon)))
        by_name = {"sigma": sigma, "phi0": phi0, "gamma": gamma, "x0": x0, "epsilon": epsilon}
        numbers = {name: check.vector(name, value, features) for name, value in by_name.items()}
        slope = check.number("slope", slope, above=0.0, below=1.0)
        check.choice("formula", formula, ("to_latent", "to_data"))
        a = 1.0 - numbers["sigma"]
        if not ((a > slope) & (a < 1.0 / slope)).all():
            raise ValueError(f"sigma: expected 1 - sigma from {slope} to {1 / slope:g}, got sigma {_numbers(1 - a)}")
        if not (np.abs(numbers["gamma"]) < 1.0 - slope).all():
            raise ValueError(f"gamma: expected numbers within ±{1 - slope}, got {_numbers(numbers['gamma'])}")
        if not (numbers["epsilon"] / a > LEAST_POSITIVE).all():
            raise ValueError(
                f"epsilon: expected epsilon / (1 - sigma) above {LEAST_POSITIVE}, got "
                f"{_numbers(numbers['epsilon'] / a)}"
            )
        lines = (a, numbers["phi0"], numbers["gamma"], numbers["x0"] / a, numbers["epsilon"] / a)
        return cls._of_lines(*lines, slope=slope, dtype=check.float_dtype("dtype", dtype), formula=formula)

    def to_notes(self) -> dict[str, NDArray[np.float64]]:
        """The parameters of eq. 25 of a "dual_ascent" map, by name, in the form that `from_notes` takes.

        Each array has shape (features,) and dtype float64.

        Raises:
            ValueError: the transform has another map or another `scale`.

        >>> import headrace as hr
        >>> t = hr.transforms.Elementwise.from_notes([0.5], [1.0], [0.2], [0.0], [2.0])
        >>> {name: round(float(value[0]), 12) for name, value in t.to_notes().items()}
        {'sigma': 0.5, 'phi0': 1.0, 'gamma': 0.2, 'x0': 0.0, 'epsilon': 2.0}
        """
        s = self._settings
        if s.map != "dual_ascent":
            raise ValueError(f"map: expected 'dual_ascent', of eq. 25, got {s.map!r}")
        if s.scale != "soft_clamp":
            raise ValueError(f"scale: expected 'soft_clamp', got {s.scale!r}")
        raw = {name: value[:, 0].astype(np.float64) for name, value in self.named_parameters().items()}
        limit = math.log(1.0 / s.slope)
        a = np.exp(raw["stretch"] / (1.0 + np.abs(raw["stretch"]) / limit))
        width = LEAST_POSITIVE + np.logaddexp(0.0, raw["width"] + math.log(math.expm1(1.0 - LEAST_POSITIVE)))
        gamma = (1.0 - s.slope) * raw["bend"] / np.hypot(1.0, raw["bend"])
        return {"sigma": 1.0 - a, "phi0": raw["shift"], "gamma": gamma, "x0": a * raw["center"], "epsilon": a * width}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        n = stored.size("features", least=1)
        keys = {key: stored.take(key) for key in cls._KEYS if key != "min_bin" or stored.has(key)}
        settings = Settings(features=n, **keys)
        groups = MAPS[settings.map].groups(settings.bins)
        named = {name: stored.array(name, (n, size)) for name, size in groups.items()}
        if stored.dtype is None:
            raise ValueError("dtype: expected 'float32' or 'float64' where there are parameters, got None")
        self = cls.__new__(cls)
        self._set(settings, stored.dtype, named)
        return self

    def __repr__(self) -> str:
        """The class name, the number of coordinates and the map."""
        s = self._settings
        return f"Elementwise({self._features}, map={s.map!r}, formula={s.formula!r})"
