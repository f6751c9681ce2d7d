"""Base densities, at the latent ends of flows."""

from __future__ import annotations

import abc
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.public import public
from headrace._base.stored import Stored, storable
from headrace._base.types import Self
from headrace._core.steps import StepSpec
from headrace._flow.program.bias_table import BiasTable
from headrace._flow.program.module import Block


@public()
class Base(abc.ABC):
    """A density of independent coordinates that can be evaluated and sampled."""

    name: str  # the core's name of the standard density that the base transforms
    moves_noise = True  # whether a sample is a function of noise and of the base's parameters
    trainable = False  # whether the base has trained parameters
    _start: dict[str, NDArray[Any]]  # the initial parameters, by name

    def __init__(self, features: int) -> None:
        """`features`: the number of coordinates."""
        self.features = check.integer("features", features, least=1)

    def _steps(self) -> list[StepSpec]:
        """The steps that map the standard density to the density of the base."""
        return []

    def _standard(self) -> tuple[str, list[StepSpec]]:
        """The name of the noise's density in the core, and the steps that map noise to the standard density."""
        return self.name, []

    def _check(self, dtype: np.dtype[Any]) -> None:  # noqa: B027  # most bases accept any parameters
        """Raise ValueError if flows of this dtype cannot use the base's parameters."""

    def _block(self) -> Block:
        """The layout of the parameters of a trainable base."""
        raise NotImplementedError

    def _blocks(self) -> list[tuple[str, Block]]:
        return [("", self._block())] if self.trainable else []

    def _initial(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        if not self.trainable:
            return np.empty(0, dtype)
        return self._block().pack_named({name: array.astype(dtype) for name, array in self._start.items()})

    def _with_parameters(self, packed: NDArray[Any]) -> Base:
        """The base with the parameter vector `packed`; the base itself if no parameter is trained."""
        return self

    def _part(self, kept: Sequence[int]) -> Base:
        """The base of the coordinates `kept`, in this order; ValueError if the base cannot be parted."""
        raise ValueError(f"columns: expected a flow on a base that can be parted, got one on {type(self).__name__}")

    def _header(self) -> dict[str, Any]:
        """The base's settings in JSON types; see `headrace._base.stored`."""
        return {"features": self.features}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        """The base that a file's header describes; see `headrace._base.stored`."""
        return cls(stored.size("features", least=1))

    def __repr__(self) -> str:
        """The class name and the number of coordinates."""
        return f"{type(self).__name__}({self.features})"


@storable
class StandardNormal(Base):
    """Independent normal coordinates, mean 0 and standard deviation 1."""

    name = "normal"

    def _part(self, kept: Sequence[int]) -> StandardNormal:
        return StandardNormal(len(kept))


@storable
class Logistic(Base):
    """Independent standard logistic coordinates, density e^-z / (1 + e^-z)^2, with tails heavier than normal ones."""

    name = "logistic"

    def _part(self, kept: Sequence[int]) -> Logistic:
        return Logistic(len(kept))


@storable
class Normal(Base):
    """Independent normal coordinates, each with a mean and a standard deviation.

    Args:
        features: The number of coordinates.
        loc, scale: The means and the standard deviations: numbers or arrays (features,); scale is positive.
        trainable: Whether `loc` and log `scale` are parameters of the flow ("base.loc", "base.log_scale").
    """

    name = "normal"

    def __init__(self, features: int, loc: Any = 0.0, scale: Any = 1.0, *, trainable: bool = True) -> None:
        super().__init__(features)
        self.loc = check.vector("loc", loc, self.features)
        self.scale = check.vector("scale", scale, self.features, positive=True)
        self.trainable = bool(trainable)
        self._start = {"loc": self.loc, "log_scale": np.log(self.scale)}

    def _steps(self) -> list[StepSpec]:
        if self.trainable:
            return [self._block().step()]
        return [StepSpec("StandardizeStep", inverted=False, mean=self.loc.tolist(), std=self.scale.tolist())]

    def _block(self) -> BiasTable:
        return _lines(self.features)

    def _with_parameters(self, packed: NDArray[Any]) -> Normal:
        if not self.trainable:
            return self
        named = self._block().named(packed)
        return Normal(self.features, named["loc"], np.exp(named["log_scale"].astype(np.float64)))

    def _part(self, kept: Sequence[int]) -> Normal:
        chosen = list(kept)
        return Normal(len(chosen), self.loc[chosen], self.scale[chosen], trainable=self.trainable)

    def _header(self) -> dict[str, Any]:
        header = {**super()._header(), "trainable": self.trainable}
        return header if self.trainable else {**header, "loc": self.loc.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        features, trainable = stored.size("features", least=1), stored.flag("trainable")
        if not trainable:
            return cls(features, stored.numbers("loc"), stored.numbers("scale"), trainable=False)
        start = {name: stored.array(name, (features,)) for name in ("loc", "log_scale")}
        self = cls(features)
        self._start = start  # keeps the file's values, which `loc` and `scale` may refuse
        return self


@functools.lru_cache(maxsize=8)
def _lines(features: int) -> BiasTable:
    """The layout of a normal density's parameters, cached for several bases because its construction is costly."""
    return BiasTable.of_lines(features, "loc", "log_scale")
