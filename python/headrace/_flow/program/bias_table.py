"""Named parameters that are the same for all rows: the biases of a network without inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._core.settings import Settings
from headrace._core.steps import StepSpec
from headrace._core.structure import MaskedNetwork, Staircase

Named = dict[str, NDArray[Any]]


def unread(settings: Settings, **options: Any) -> MaskedNetwork:
    """A network without inputs whose outputs are parameters for all coordinates."""
    n = settings.features
    return MaskedNetwork({**settings.options([], range(n)), **options}, Staircase([1] * n, []))


class BiasTable:
    """The biases of a network as a table with named columns, and with a row for each coordinate or a single row."""

    def __init__(self, network: MaskedNetwork, shapes: Mapping[str, tuple[int, ...]], rows: int) -> None:
        """`shapes`: the shape of each named array, whose values are some columns of the table, row by row."""
        self.network, self.shapes, self.rows = network, shapes, rows
        self._ends = list(accumulate(math.prod(shape) // rows for shape in shapes.values()))[:-1]

    @classmethod
    def of_lines(cls, features: int, shift: str, log_scale: str, **options: Any) -> BiasTable:
        """A table of an affine map's shift and log scale for each coordinate; `shift`, `log_scale`: their names."""
        settings = Settings(features=features, map="affine", scale="exp", reads="latent")
        return cls(unread(settings, **options), dict.fromkeys((shift, log_scale), (features,)), features)

    @property
    def size(self) -> int:
        """The number of values in the vector of the biases; see `Block`."""
        return self.network.size

    def step(self, inverted: bool = False) -> StepSpec:
        """The step of a program for the network; see `MaskedNetwork.step`."""
        return self.network.step(inverted)

    def named(self, packed: NDArray[Any]) -> Named:
        """The named arrays of a parameter vector; see `Block`."""
        table = self.network.unpack(packed)[1][0].reshape(self.rows, -1)
        parts = zip(self.shapes.items(), np.split(table, self._ends, axis=1), strict=True)
        return {name: part.reshape(shape).copy() for (name, shape), part in parts}

    def pack_named(self, named: Named) -> NDArray[Any]:
        """The parameter vector of named arrays; see `Block`."""
        return self.packed(np.concatenate([named[name].reshape(self.rows, -1) for name in self.shapes], axis=1))

    def packed(self, table: NDArray[Any]) -> NDArray[Any]:
        """The parameter vector of a table of biases, which may be flat."""
        return self.network.pack([np.empty((table.size, 0), table.dtype)], [table.reshape(-1)])
