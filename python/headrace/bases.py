"""Base densities: where a flow's latent side ends."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import _arguments as check
from headrace._core import cpu
from headrace._module import Block
from headrace._network import MaskedNetwork, Settings

__all__ = ["Base", "Logistic", "Normal", "StandardNormal"]


class Base(abc.ABC):
    """A density of independent coordinates that can be evaluated and sampled."""

    name: str  # the core's name of the standard density under it

    def __init__(self, features: int) -> None:
        """`features`: number of coordinates."""
        self.features = check.integer("features", features, least=1)

    def _steps(self) -> list[tuple[Any, ...]]:
        """Steps between the standard density and this one."""
        return []

    def _blocks(self) -> list[tuple[str, Block]]:
        return []

    def _initial(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        return np.empty(0, dtype)

    def _with_parameters(self, packed: NDArray[Any]) -> Base:
        """The base with these numbers for its parameters."""
        return self

    def __repr__(self) -> str:
        """The size."""
        return f"{type(self).__name__}({self.features})"


class StandardNormal(Base):
    """Independent normal coordinates, mean 0 and standard deviation 1."""

    name = "normal"


class Logistic(Base):
    """Independent standard logistic coordinates, density e^-z / (1 + e^-z)^2: tails heavier than a normal's."""

    name = "logistic"


class Normal(Base):
    """Independent normal coordinates with their own mean and standard deviation.

    Args:
        features: Number of coordinates.
        loc, scale: Numbers or arrays (features,); scale positive.
        trainable: Whether `loc` and log `scale` are parameters of the flow ("base.loc", "base.log_scale").
    """

    name = "normal"

    def __init__(self, features: int, loc: Any = 0.0, scale: Any = 1.0, *, trainable: bool = True) -> None:
        """See the class."""
        super().__init__(features)
        self.loc = check.vector("loc", loc, self.features)
        self.scale = check.vector("scale", scale, self.features, positive=True)
        self.trainable = bool(trainable)
        self._block = _NormalBlock(self.features)

    def _steps(self) -> list[tuple[Any, ...]]:
        if self.trainable:
            return [("masked", False, self._block.network.core)]
        return [("standardize", False, self.loc.tolist(), self.scale.tolist())]

    def _blocks(self) -> list[tuple[str, Block]]:
        return [("", self._block)] if self.trainable else []

    def _initial(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        if not self.trainable:
            return super()._initial(dtype)
        return self._block.pack_named({"loc": self.loc.astype(dtype), "log_scale": np.log(self.scale).astype(dtype)})

    def _with_parameters(self, packed: NDArray[Any]) -> Normal:
        if not self.trainable:
            return self
        named = self._block.named(packed)
        return Normal(self.features, named["loc"], np.exp(named["log_scale"].astype(np.float64)))


class _NormalBlock:
    """loc and log scale as an affine transform whose network has no inputs: its biases are the parameters."""

    def __init__(self, features: int) -> None:
        self.features = features
        settings = Settings(features, 0, "affine", "exp", 1e-3, "relu", "to_data", "latent")
        core = cpu.MaskedTransform(settings.options([], range(features)), [1] * features, [])
        self.network = MaskedNetwork(core)

    @property
    def size(self) -> int:
        return self.network.size

    def named(self, packed: NDArray[Any]) -> dict[str, NDArray[Any]]:
        bias = self.network.unpack(packed)[1][0].reshape(self.features, 2)
        return {"loc": bias[:, 0].copy(), "log_scale": bias[:, 1].copy()}

    def pack_named(self, named: dict[str, NDArray[Any]]) -> NDArray[Any]:
        bias = np.stack([named["loc"], named["log_scale"]], axis=1).reshape(-1)
        return self.network.pack([np.empty((bias.size, 0), bias.dtype)], [bias])
