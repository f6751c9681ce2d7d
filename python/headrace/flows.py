"""Ready-made flows. Each has a `Standardize` at its data end, the identity until it is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from headrace import _arguments as check
from headrace.bases import Base, StandardNormal
from headrace.flow import Flow
from headrace.transforms import Coupling, MaskedAutoregressive, Standardize, Transform

__all__ = ["IAF", "MAF", "RealNVP"]


class _Named(Flow):
    """A flow of equal transforms and a `Standardize`."""

    def __init__(self, transforms: list[Transform], features: int, base: Base | None, dtype: DTypeLike) -> None:
        standardize = Standardize(np.zeros(features), np.ones(features))
        super().__init__([*transforms, standardize], base or StandardNormal(features), dtype=dtype)


class _Autoregressive(_Named):
    _reads: str

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 5,
        hidden: Sequence[int] = (64, 64),
        *,
        activation: str = "relu",
        map: str = "affine",
        scale: str = "soft_clamp",
        slope: float = 1e-3,
        base: Base | None = None,
        seed: int = 0,
        dtype: DTypeLike = "float32",
    ) -> None:
        """See the class."""
        n = check.integer("features", features, least=1)
        key = check.integer("seed", seed)
        chain: list[Transform] = [
            MaskedAutoregressive(
                n,
                hidden,
                reads=self._reads,
                map=map,
                scale=scale,
                slope=slope,
                context=context,
                order=range(n) if i % 2 == 0 else range(n - 1, -1, -1),
                activation=activation,
                seed=(key, i),
                dtype=dtype,
            )
            for i in range(check.integer("transforms", transforms, least=1))
        ]
        super().__init__(chain, n, base, dtype)


class MAF(_Autoregressive):
    """Masked autoregressive flow (Papamakarios, Pavlakou, Murray 2017): x_i = μ(x_<i) + σ(x_<i) z_i, eq. 37-38.

    The order of the coordinates alternates between ascending and descending. Density and sampling each cost one pass.

    Args:
        features: Number of coordinates.
        context: Number of context columns.
        transforms: Number of transforms.
        hidden: Units of each hidden layer.
        activation, map, scale, slope, dtype: See `MaskedAutoregressive`.
        base: By default `StandardNormal`.
        seed: Of the fresh weights.

    >>> import numpy as np, headrace as hr
    >>> flow = hr.MAF(features=4, transforms=2, hidden=(16, 16))
    >>> x, log_prob = flow.sample_and_log_prob(1000, seed=0)
    >>> bool(np.allclose(flow.log_prob(x), log_prob, atol=1e-4))
    True
    """

    _reads = "data"


class IAF(_Autoregressive):
    """Inverse autoregressive flow (Kingma et al. 2016): x_i = μ(z_<i) + σ(z_<i) z_i, eq. 39-41; arguments as in `MAF`.

    >>> import headrace as hr
    >>> hr.IAF(features=4, transforms=2, hidden=(16,)).sample(5, seed=0).shape
    (5, 4)
    """

    _reads = "latent"


class RealNVP(_Named):
    """Coupling flow (Dinh, Sohl-Dickstein, Bengio 2017), eq. 35-36: even and odd coordinates take turns.

    Args:
        features, context, transforms, hidden, activation, map, scale, slope, base, seed, dtype: See `MAF`.

    >>> import headrace as hr
    >>> hr.RealNVP(features=4, transforms=4, hidden=(16,)).sample(5, seed=0).shape
    (5, 4)
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 8,
        hidden: Sequence[int] = (64, 64),
        *,
        activation: str = "relu",
        map: str = "affine",
        scale: str = "soft_clamp",
        slope: float = 1e-3,
        base: Base | None = None,
        seed: int = 0,
        dtype: DTypeLike = "float32",
    ) -> None:
        """See the class."""
        n = check.integer("features", features, least=1)
        key = check.integer("seed", seed)
        chain: list[Transform] = []
        for i in range(check.integer("transforms", transforms, least=1)):
            passive: Any = range(i % 2, n, 2) if n > 1 else ()  # one feature: the context alone is the conditioner's
            chain.append(
                Coupling(
                    n,
                    passive,
                    hidden,
                    map=map,
                    scale=scale,
                    slope=slope,
                    context=context,
                    activation=activation,
                    seed=(key, i),
                    dtype=dtype,
                )
            )
        super().__init__(chain, n, base, dtype)
