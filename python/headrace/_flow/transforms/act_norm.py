"""An elementwise affine map that a fit initialises from its rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from headrace._base import arguments as check
from headrace._base.stored import Stored, storable
from headrace._base.types import Self
from headrace._flow.program.bias_table import BiasTable, Named
from headrace._flow.transforms.transform import OfBlock, Transform


@storable
class ActNorm(OfBlock):
    """x = shift + e^log_scale · z for each coordinate, initialised by the rows of a fit (Kingma, Dhariwal 2018).

    The transform equals `Elementwise` with ``map="affine", scale="exp"``, and is the identity when new. Before the
    first step `Flow.fit` sets each `ActNorm` of a flow, from the data end to the latent end, so that its inverse maps
    training rows to mean 0 and standard deviation 1. Training changes shift and log_scale like all other parameters.
    A later fit starts from the trained parameters. `Flow.fit` does not set an `ActNorm` that is no longer the identity,
    or that is inside of an `Inverse`.

    Args:
        features: The number of coordinates D.
        dtype: "float32" or "float64".

    The parameters are "shift" (D,) and "log_scale" (D,).

    >>> import numpy as np, headrace as hr
    >>> flow = hr.Flow([hr.transforms.ActNorm(1, dtype="float64")])
    >>> history = flow.fit(np.array([[1.0], [3.0]]), validation=None, epochs=0, progress=False)
    >>> flow.to_latent(np.array([[1.0], [3.0]]))[0].round(12).tolist()
    [[-1.0], [1.0]]
    """

    def __init__(self, features: int, *, dtype: DTypeLike = "float32") -> None:
        n = check.integer("features", features, least=1, most=2**24)
        zeros = np.zeros(n, check.float_dtype("dtype", dtype))
        self._take(False, {"shift": zeros, "log_scale": zeros})

    def _take(self, started: bool, named: Named) -> None:
        shift = named["shift"]
        super().__init__(shift.size, 0, shift.dtype)
        self._started = started
        self._block = BiasTable.of_lines(shift.size, "shift", "log_scale")
        self._take_parameters(self._block.pack_named(named))

    @property
    def is_started(self) -> bool:
        """Whether a fit has set the transform from its rows; later fits do not set the transform again."""
        return self._started

    def _waits(self) -> bool:
        """Whether the next fit sets the transform from its rows."""
        return not self._started and not any(value.any() for value in self.named_parameters().values())

    def _started_at(self, mean: Any, std: Any) -> Self:
        """A transform that maps rows of this mean and standard deviation to mean 0 and standard deviation 1."""
        other = self.__copy__()
        other._started = True
        assert self._dtype is not None
        named = {"shift": np.asarray(mean).astype(self._dtype), "log_scale": np.log(std).astype(self._dtype)}
        other._put_parameters(self._block.pack_named(named))
        return other

    def _part(self, kept: tuple[int, ...]) -> Transform:
        part = object.__new__(type(self))
        part._take(self._started, {name: array[list(kept)] for name, array in self.named_parameters().items()})
        return part

    def _header(self) -> dict[str, Any]:
        return {"features": self._features, "started": self._started}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        n, started = stored.size("features", least=1), stored.flag("started")
        self = cls.__new__(cls)
        self._take(started, {name: stored.array(name, (n,)) for name in ("shift", "log_scale")})
        return self

    def __repr__(self) -> str:
        """The class name and the number of coordinates."""
        return f"ActNorm({self._features})"
