"""Base densities: where a flow's latent side ends."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.public import public
from headrace._base.stored import Stored, storable
from headrace._core.settings import Settings
from headrace._core.steps import StepSpec
from headrace._core.structure import MaskedNetwork, Staircase
from headrace._flow.program.module import Block

if TYPE_CHECKING:
    from typing_extensions import Self


@public()
class Base(abc.ABC):
    """A density of independent coordinates that can be evaluated and sampled."""

    name: str  # the core's name of the standard density under it
    moves_noise = True  # whether samples are functions of noise and of any parameters of the base

    def __init__(self, features: int) -> None:
        """`features`: number of coordinates."""
        self.features = check.integer("features", features, least=1)

    def _steps(self) -> list[StepSpec]:
        """Steps between the standard density and this one."""
        return []

    def _standard(self) -> tuple[str, list[StepSpec]]:
        """The core's name of the density that noise is drawn from, and its other arguments."""
        return self.name, []

    def _check(self, dtype: np.dtype[Any]) -> None:  # noqa: B027  # most bases take every number
        """Refuse parameters that a flow of this dtype cannot compute with."""

    def _blocks(self) -> list[tuple[str, Block]]:
        return []

    def _initial(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        return np.empty(0, dtype)

    def _with_parameters(self, packed: NDArray[Any]) -> Base:
        """The base with these parameters."""
        return self

    def _part(self, kept: Sequence[int]) -> Base:
        """The density of some coordinates, in this order, where it is independent of the others'."""
        raise ValueError(f"columns: expected a flow on a base that can be parted, got one on {type(self).__name__}")

    def _header(self) -> dict[str, Any]:
        """See `headrace._base.stored`."""
        return {"features": self.features}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        """See `headrace._base.stored`."""
        return cls(stored.size("features", least=1))

    def __repr__(self) -> str:
        """The size."""
        return f"{type(self).__name__}({self.features})"


@storable
class StandardNormal(Base):
    """Independent normal coordinates, mean 0 and standard deviation 1."""

    name = "normal"

    def _part(self, kept: Sequence[int]) -> StandardNormal:
        return StandardNormal(len(kept))


@storable
class Logistic(Base):
    """Independent standard logistic coordinates, density e^-z / (1 + e^-z)^2: tails heavier than a normal's."""

    name = "logistic"

    def _part(self, kept: Sequence[int]) -> Logistic:
        return Logistic(len(kept))


@storable
class Normal(Base):
    """Independent normal coordinates with their own mean and standard deviation.

    Args:
        features: Number of coordinates.
        loc, scale: Numbers or arrays (features,); scale positive.
        trainable: Whether `loc` and log `scale` are parameters of the flow ("base.loc", "base.log_scale").
    """

    name = "normal"

    def __init__(self, features: int, loc: Any = 0.0, scale: Any = 1.0, *, trainable: bool = True) -> None:
        super().__init__(features)
        self.loc = check.vector("loc", loc, self.features)
        self.scale = check.vector("scale", scale, self.features, positive=True)
        self.trainable = bool(trainable)
        self._block = _NormalBlock(self.features)
        self._start = {"loc": self.loc, "log_scale": np.log(self.scale)}

    def __getstate__(self) -> dict[str, Any]:
        """Without the compiled block, which a copy makes anew."""
        return {name: value for name, value in self.__dict__.items() if name != "_block"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The inverse of `named`."""
        self.__dict__.update(state, _block=_NormalBlock(state["features"]))

    def _steps(self) -> list[StepSpec]:
        if self.trainable:
            return [self._block.network.step()]
        return [StepSpec("StandardizeStep", inverted=False, mean=self.loc.tolist(), std=self.scale.tolist())]

    def _blocks(self) -> list[tuple[str, Block]]:
        return [("", self._block)] if self.trainable else []

    def _initial(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        if not self.trainable:
            return super()._initial(dtype)
        return self._block.pack_named({name: array.astype(dtype) for name, array in self._start.items()})

    def _with_parameters(self, packed: NDArray[Any]) -> Normal:
        if not self.trainable:
            return self
        named = self._block.named(packed)
        return Normal(self.features, named["loc"], np.exp(named["log_scale"].astype(np.float64)))

    def _part(self, kept: Sequence[int]) -> Normal:
        chosen = list(kept)
        return Normal(len(chosen), self.loc[chosen], self.scale[chosen], trainable=self.trainable)

    def _header(self) -> dict[str, Any]:
        header = {**super()._header(), "trainable": self.trainable}
        return header if self.trainable else {**header, "loc": self.loc.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        features, trainable = stored.size("features", least=1), stored.take("trainable")
        if not isinstance(trainable, bool):
            raise TypeError(f"trainable: expected true or false, got {trainable!r}")
        if not trainable:
            return cls(features, stored.numbers("loc"), stored.numbers("scale"), trainable=False)
        start = {name: stored.array(name, (features,)) for name in ("loc", "log_scale")}
        self = cls(features)
        self._start = start  # bit for bit, any values: also those that `loc` and `scale` would refuse
        return self


class _NormalBlock:
    """loc and log scale as an affine transform by a network without inputs: its biases are the parameters."""

    def __init__(self, features: int) -> None:
        self.features = features
        settings = Settings(features=features, map="affine", scale="exp", reads="latent")
        self.network = MaskedNetwork(settings.options([], range(features)), Staircase([1] * features, []))

    @property
    def size(self) -> int:
        return self.network.size

    def named(self, packed: NDArray[Any]) -> dict[str, NDArray[Any]]:
        bias = self.network.unpack(packed)[1][0].reshape(self.features, 2)
        return {"loc": bias[:, 0].copy(), "log_scale": bias[:, 1].copy()}

    def pack_named(self, named: dict[str, NDArray[Any]]) -> NDArray[Any]:
        bias = np.stack([named["loc"], named["log_scale"]], axis=1).reshape(-1)
        return self.network.pack([np.empty((bias.size, 0), bias.dtype)], [bias])
