"""Planar and radial transforms: all coordinates move along by one amount. Both have an inverse for any parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace import _arguments as check
from headrace._core import cpu
from headrace._maps import VECTOR_MAPS
from headrace._module import Block
from headrace._network import ACTIVATIONS, MaskedNetwork
from headrace.transforms import Transform, _seeds

__all__ = ["Planar", "Radial"]

Numbers = dict[str, NDArray[Any]]


class _SharedBlock:
    """One set of parameters for all rows: the biases of a network that reads nothing, by name."""

    def __init__(self, network: MaskedNetwork, groups: dict[str, int]) -> None:
        self.network, self.groups = network, groups

    @property
    def size(self) -> int:
        return self.network.size

    def named(self, packed: NDArray[Any]) -> Numbers:
        bias = self.network.unpack(packed)[1][0]
        parts = np.split(bias, np.cumsum([*self.groups.values()])[:-1])
        return {name: part.copy() for name, part in zip(self.groups, parts, strict=True)}

    def pack_named(self, named: Numbers) -> NDArray[Any]:
        bias = np.concatenate([named[name] for name in self.groups])
        return self.network.pack([np.empty((bias.size, 0), bias.dtype)], [bias])


class _Vector(Transform):
    """What planar and radial transforms share: parameters of their own, or from a network that reads the context."""

    _map: str

    def __init__(
        self,
        features: Any,
        variant: str,
        slope: float,
        context: Any,
        hidden: Any,
        activation: Any,
        seed: Any,
        dtype: DTypeLike,
    ) -> None:
        n = check.integer("features", features, least=1, most=2**24)
        columns = check.integer("context", context, most=2**24)
        sizes = check.integers("hidden", hidden, least=1) if columns else ()
        options = cpu.MaskedOptions(
            features=n,
            context=columns,
            reads=[],
            active=list(range(n)),
            map=self._map,
            scale=variant,
            slope=slope,
            bins=8,
            bound=5.0,
            activation=check.choice("activation", activation, ACTIVATIONS),
            reads_data=False,
            formula_to_data=True,
        )
        network = MaskedNetwork(cpu.MaskedTransform(options, [1] * n, [[0] * size for size in sizes]))
        kind = check.float_dtype("dtype", dtype)
        super().__init__(n, columns, kind)
        self._network = network
        self._block: Block = network if columns else _SharedBlock(network, VECTOR_MAPS[self._map].groups(n))
        key = _seeds(seed)
        fresh = VECTOR_MAPS[self._map].fresh(n, np.random.default_rng(list(key)))
        self._program = self._compile(kind, network.initial(key, kind, tuple(fresh)))

    def _steps(self, inverted: bool = False) -> list[tuple[Any, ...]]:
        return [("masked", inverted, self._network.core)]

    def _blocks(self) -> list[tuple[str, Block]]:
        return [("", self._block)]

    def _hidden(self) -> list[int]:
        return self._network.core.hidden


class Planar(_Vector):
    """Planar transform (Rezende, Mohamed 2015; eq. 28-29 of the notes): x = z + û h(wᵀz + b).

    û is u, moved along w so that 1 + wᵀû is positive(wᵀu), where positive(a) = 1e-3 + softplus(a + 0.5397...) is 1 at 0:
    every choice of parameters has an inverse, and u = 0 is the identity. With h = tanh the inverse is the root of one
    scalar equation, found to its last digits; log_det = log(1 + h'(wᵀz + b) wᵀû).

    Args:
        features: Number of coordinates D.
        nonlinearity: h, "tanh" or "leaky_relu".
        negative_slope: Of leaky_relu below zero, between 0 and 1.
        context: Number of context columns; then w, u, b come from a network that reads them.
        hidden: Units of each hidden layer of that network; without context there is none.
        activation: Of that network; see `MaskedAutoregressive`.
        seed: Of the fresh parameters.
        dtype: "float32" or "float64".

    Without context the parameters are "w" (D,), "u" (D,) and "b" (1,); the network's outputs are the same in this order.

    >>> import numpy as np, headrace as hr
    >>> t = hr.Planar(2, seed=1, dtype="float64")
    >>> t.set_parameter("u", np.array([3.0, -2.0]))
    >>> x, log_det = t.forward(np.ones((1, 2)))
    >>> bool(np.allclose(t.inverse(x)[0], 1))
    True
    """

    _map = "planar"

    def __init__(
        self,
        features: int,
        *,
        nonlinearity: str = "tanh",
        negative_slope: float = 0.2,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        seed: int | Sequence[int] = 0,
        dtype: DTypeLike = "float32",
    ) -> None:
        """See the class."""
        self.nonlinearity = check.choice("nonlinearity", nonlinearity, VECTOR_MAPS["planar"].variants)
        self.negative_slope = check.number("negative_slope", negative_slope, above=0.0, below=1.0)
        super().__init__(features, self.nonlinearity, self.negative_slope, context, hidden, activation, seed, dtype)

    def __repr__(self) -> str:
        """Size and nonlinearity."""
        more = f", context={self.context}" if self.context else ""
        return f"Planar({self.features}, nonlinearity={self.nonlinearity!r}{more})"


class Radial(_Vector):
    """Radial transform (Rezende, Mohamed 2015; eq. 30-31 of the notes): x = z + β (z - center) / (α + r), r = |z - center|.

    α = positive(alpha) and α + β = positive(beta), with positive as in `Planar`: both are above 1e-3, every choice of
    parameters has an inverse, in closed form, and equal ones are the identity.

    Args:
        features, context, hidden, activation, seed, dtype: See `Planar`.

    Without context the parameters are "center" (D,), "alpha" (1,) and "beta" (1,), the last two of any sign; the network's
    outputs are the same in this order.

    >>> import numpy as np, headrace as hr
    >>> t = hr.Radial(3, seed=1, dtype="float64")
    >>> t.set_parameter("beta", np.array([4.0]))
    >>> x, log_det = t.forward(np.ones((1, 3)))
    >>> bool(np.allclose(t.inverse(x)[0], 1))
    True
    """

    _map = "radial"

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        seed: int | Sequence[int] = 0,
        dtype: DTypeLike = "float32",
    ) -> None:
        """See the class."""
        super().__init__(features, "", 0.5, context, hidden, activation, seed, dtype)

    def __repr__(self) -> str:
        """Size."""
        more = f", context={self.context}" if self.context else ""
        return f"Radial({self.features}{more})"
