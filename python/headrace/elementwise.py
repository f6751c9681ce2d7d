"""Maps of each coordinate for itself, with one set of parameters for all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace import _arguments as check
from headrace._maps import MAPS
from headrace._module import Block
from headrace._network import MaskedNetwork, Settings, Staircase
from headrace._stored import Stored, storable
from headrace.transforms import Transform

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Elementwise"]


class _Table:
    """Parameters of all coordinates by name: the biases of a network that reads nothing, coordinate by coordinate."""

    def __init__(self, network: MaskedNetwork, settings: Settings) -> None:
        self.network, self.features = network, settings.features
        self.groups = MAPS[settings.map].groups(settings.bins)

    @property
    def size(self) -> int:
        return self.network.size

    def named(self, packed: NDArray[Any]) -> dict[str, NDArray[Any]]:
        table = self.network.unpack(packed)[1][0].reshape(self.features, -1)
        parts = np.split(table, np.cumsum([*self.groups.values()])[:-1], axis=1)
        return {name: part.copy() for name, part in zip(self.groups, parts, strict=True)}

    def pack_named(self, named: dict[str, NDArray[Any]]) -> NDArray[Any]:
        bias = np.concatenate([named[name] for name in self.groups], axis=1).reshape(-1)
        return self.network.pack([np.empty((bias.size, 0), bias.dtype)], [bias])


@storable
class Elementwise(Transform):
    """A map for each coordinate, with parameters of its own that do not depend on the others: a marginal map.

    Args:
        features: Number of coordinates D.
        map: "rq_spline", "dual_ascent" (a line that bends, eq. 25 of the notes), "affine" or "additive".
        formula: "to_latent": z is the map of x, or "to_data": x is the map of z.
        scale, slope, bins, bound: See `MaskedAutoregressive`.
        dtype: "float32" or "float64".

    The parameters are the map's, raw, by name, shape (D, numbers of that name); fresh ones are the identity.
    "dual_ascent" has "stretch", "shift", "bend", "center" and "width": a x + b + a γ sqrt(ε² + (x - center)²) with log
    a the softly clamped stretch, b the shift, γ = (1 - slope) bend / sqrt(1 + bend²), and ε = positive(width), as in
    `Planar`.

    >>> import numpy as np, headrace as hr
    >>> t = hr.Elementwise(2, map="dual_ascent", dtype="float64")
    >>> t.set_parameter("shift", np.array([[1.0], [2.0]]))
    >>> t.inverse(np.zeros((1, 2)))[0].tolist()
    [[1.0, 2.0]]
    """

    def __init__(
        self,
        features: int,
        *,
        map: str = "rq_spline",
        formula: str = "to_latent",
        scale: str = "soft_clamp",
        slope: float = 1e-3,
        bins: int = 8,
        bound: float = 5.0,
        dtype: DTypeLike = "float32",
    ) -> None:
        """See the class."""
        settings = Settings(features, 0, map, scale, slope, "relu", formula, "data", bins, bound)
        self._set(settings, check.float_dtype("dtype", dtype), None)

    def _set(self, settings: Settings, dtype: np.dtype[Any], named: dict[str, NDArray[Any]] | None) -> None:
        n = settings.features
        super().__init__(n, 0, dtype)
        self._settings = settings
        network = MaskedNetwork(settings.options([], range(n)), Staircase([1] * n, []))
        self._block = _Table(network, settings)
        if named is None:
            bias = np.tile(np.array(settings.identity, dtype), n)
            named = self._block.named(network.pack([np.empty((bias.size, 0), dtype)], [bias]))
        self._program = self._compile(dtype, self._block.pack_named(named))

    def _steps(self, inverted: bool = False) -> list[tuple[Any, ...]]:
        return [("masked", inverted, self._block.network)]

    def _blocks(self) -> list[tuple[str, Block]]:
        return [("", self._block)]

    _KEYS: Sequence[str] = ("map", "scale", "slope", "bins", "bound", "formula")

    def _header(self) -> dict[str, Any]:
        return {"features": self._features, **{key: getattr(self._settings, key) for key in self._KEYS}}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        n = stored.size("features", least=1)
        given = {key: stored.take(key) for key in cls._KEYS}
        settings = Settings(n, 0, activation="relu", reads="data", **given)
        groups = MAPS[settings.map].groups(settings.bins)
        named = {name: stored.array(name, (n, size)) for name, size in groups.items()}
        if stored.dtype is None:
            raise ValueError("dtype: expected 'float32' or 'float64' where there are parameters, got None")
        self = cls.__new__(cls)
        self._set(settings, stored.dtype, named)
        return self

    def __repr__(self) -> str:
        """Size and map."""
        s = self._settings
        return f"Elementwise({self._features}, map={s.map!r}, formula={s.formula!r})"
