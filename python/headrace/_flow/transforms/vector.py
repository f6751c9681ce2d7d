"""Planar and radial transforms, which move rows along one direction, and are invertible for all parameters."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace._base import arguments as check
from headrace._base.keywords import documented, taken_from, takes
from headrace._base.stored import Stored, storable
from headrace._base.types import Self, Unpack
from headrace._core.maps import VECTOR_MAPS
from headrace._core.settings import MOST_COLUMNS, NetworkSettings, Settings
from headrace._core.structure import MaskedNetwork, Staircase
from headrace._flow.program.bias_table import BiasTable
from headrace._flow.transforms.bend import Bend, PlanarVector, Vector
from headrace._flow.transforms.transform import OfBlock


class _Vector(OfBlock):
    """The base class of planar and radial transforms, whose parameters are trained, or outputs of a context network."""

    _map: str
    _OWN: tuple[str, ...] = ()  # attributes of the subclass that files store

    def __init__(self, features: Any, variant: str, slope: float, keywords: Any) -> None:
        given = taken_from(Vector, keywords)
        self._settings = NetworkSettings(features=features, context=given.context, **keywords)
        n, columns = self._settings.features, self._settings.context
        sizes = check.integers("hidden", given.hidden, least=1, most=MOST_COLUMNS) if columns else ()
        own = {"active": [*range(n)], "map": self._map, "variant": variant, "slope": slope, "reads_data": False}
        network = MaskedNetwork(
            {**self._settings.core_options(), **own}, Staircase([1] * n, [[0] * size for size in sizes])
        )
        kind = check.float_dtype("dtype", given.dtype)
        super().__init__(n, columns, kind)
        self._network = network
        shapes = {name: (size,) for name, size in VECTOR_MAPS[self._map].groups(n).items()}
        self._block = network if columns else BiasTable(network, shapes, 1)
        key = check.seeds(given.seed)
        fresh = VECTOR_MAPS[self._map].fresh(n, np.random.default_rng(list(key)))
        begin = network.initial(key, kind, tuple(fresh), biases_of=0.0)  # small values keep chains near the identity
        self._take_parameters(begin)

    def _hidden(self) -> list[int]:
        return self._network.core.hidden

    def _header(self) -> dict[str, Any]:
        return self._settings.header() | {name: getattr(self, name) for name in self._OWN}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        features, context = stored.size("features", least=1), stored.size("context")
        settings: dict[str, Any] = NetworkSettings.stored(stored) | {name: stored.take(name) for name in cls._OWN}
        groups = VECTOR_MAPS[cls._map].groups(features)
        if context:
            weights, biases, _ = stored.layers(context, sum(groups.values()), masked=False)
            layers = range(len(biases))
            named = {f"layers.{i}.weight": weights[i] for i in layers} | {f"layers.{i}.bias": biases[i] for i in layers}
            hidden = [bias.size for bias in biases[:-1]]
        else:
            named, hidden = {name: stored.array(name, (size,)) for name, size in groups.items()}, []
        settings |= {"context": context, "hidden": hidden, "dtype": next(iter(named.values())).dtype}
        self = cls(features, **settings)
        self._put_parameters(self._block.pack_named(named))
        return self

    def __repr__(self) -> str:
        """The class name, the size and the settings."""
        more = [f"{name}={getattr(self, name)!r}" for name in self._OWN]
        if self._context:
            more.append(f"context={self._context}")
        return f"{type(self).__name__}({', '.join([str(self._features), *more])})"


@storable
@documented
class Planar(_Vector):
    """Planar transform (Rezende, Mohamed 2015; eq. 28-29 of the lecture notes): x = z + û h(wᵀz + b).

    The vector û is u, moved along w so that 1 + wᵀû = positive(wᵀu), where positive(a) = 1e-3 + softplus(a + 0.5397...)
    is 1 at 0: the transform has an inverse for all parameters, and u = 0 is the identity (unlike in the paper, where 1
    + wᵀû is softplus(wᵀu)). With h = tanh the inverse is the root of one scalar equation, computed to its last digits;
    log_det is log(1 + h'(wᵀz + b) wᵀû).

    Args:
        features: The number of coordinates D.
        **keywords: The keywords of `PlanarVector`.

    Without a context the parameters are "w" (D,), "u" (D,) and "b" (1,); with a context, a network's outputs are w, u
    and b, in this order.

    >>> import numpy as np, headrace as hr
    >>> t = hr.transforms.Planar(2, seed=1, dtype="float64")
    >>> t.set_parameter("u", np.array([3.0, -2.0]))
    >>> x, log_det = t.forward(np.ones((1, 2)))
    >>> bool(np.allclose(t.inverse(x)[0], 1))
    True
    """

    _map = "planar"
    _OWN = ("nonlinearity", "negative_slope")

    @takes(PlanarVector, Vector, Bend, Settings)
    def __init__(self, features: int, **keywords: Unpack[PlanarVector]) -> None:
        bend = taken_from(Bend, keywords)
        self.nonlinearity: str = bend.nonlinearity
        self.negative_slope: float = bend.negative_slope
        super().__init__(features, self.nonlinearity, self.negative_slope, keywords)


@storable
@documented
class Radial(_Vector):
    """Radial transform (Rezende, Mohamed 2015; eq. 30-31 of the notes): x = z + β (z - center) / (α + |z - center|).

    The values α = positive(alpha) and α + β = positive(beta), with positive as in `Planar`, are above 1e-3: the
    transform has an inverse in closed form for all parameters, and alpha = beta is the identity.

    Args:
        features: The number of coordinates D.
        **keywords: The keywords of `Vector`.

    Without a context the parameters are "center" (D,), "alpha" (1,) and "beta" (1,), the last two of any sign; with a
    context, a network's outputs are center, alpha and beta, in this order.

    >>> import numpy as np, headrace as hr
    >>> t = hr.transforms.Radial(3, seed=1, dtype="float64")
    >>> t.set_parameter("beta", np.array([4.0]))
    >>> x, log_det = t.forward(np.ones((1, 3)))
    >>> bool(np.allclose(t.inverse(x)[0], 1))
    True
    """

    _map = "radial"

    @takes(Vector, Settings)
    def __init__(self, features: int, **keywords: Unpack[Vector]) -> None:
        super().__init__(features, "", 0.5, keywords)
