"""Transforms that contain another transform and its parameters: the base class of `OnColumns`, and `Inverse`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.stored import Stored, header_of, storable
from headrace._base.types import Self
from headrace._core.steps import StepSpec
from headrace._flow.program.module import Block
from headrace._flow.transforms.network import Network
from headrace._flow.transforms.transform import Transform


class Around(Transform):
    """A transform that contains a copy of another transform; subclasses define its steps and blocks."""

    def __init__(self, transform: Transform, features: int) -> None:
        """Wrap a copy of `transform`, whose type `checked` has checked."""
        super().__init__(features, transform.context, transform.dtype)
        self._transform = transform._bare()
        self._place(transform._device, transform._products)
        self._take_parameters(self._arranged(transform._vector(), transform._blocks()))

    @property
    def transform(self) -> Transform:
        """The contained transform, with a copy of the current parameters."""
        own = self._transform
        if self._dtype is None and (own._device, own._products) == (self._device, self._products):
            return own
        vector = self._arranged(self._vector(), self._blocks())
        return own._remade(vector, self._dtype, self._device, self._products)

    def _arranged(self, vector: NDArray[Any], blocks: Sequence[tuple[str, Block]]) -> NDArray[Any]:
        """The contained transform's vector in the order of this transform, or conversely; `blocks`: of `vector`."""
        return vector

    def _map_of_network(self) -> str | None:
        return self._transform._map_of_network()

    def _hidden(self) -> list[int]:
        return self._transform._hidden()

    def _networks(self) -> tuple[Network, ...]:
        return self._transform._networks()

    def _fixed_arrays(self) -> dict[str, NDArray[Any]]:
        return self._transform._fixed_arrays()


def checked(transform: Any) -> Transform:
    """The argument, if it is a transform; other objects raise a TypeError."""
    if not isinstance(transform, Transform):
        raise TypeError(f"transform: expected a transform, got {check.kind_of(transform)}")
    return transform


def inner_of(transform: Transform) -> Transform:
    """The innermost transform, inside of any nested `Around` transforms."""
    while isinstance(transform, Around):
        transform = transform._transform
    return transform


@storable
class Inverse(Around):
    """The inverse of another transform, whose `forward` becomes `inverse` and conversely; parameters are copied.

    >>> import numpy as np, headrace as hr
    >>> hr.transforms.Inverse(hr.transforms.Standardize([1.0], [2.0])).forward(np.array([[5.0]]))[0].tolist()
    [[2.0]]
    """

    def __init__(self, transform: Transform) -> None:
        """`transform`: any transform."""
        super().__init__(checked(transform), transform.features)

    def _arranged(self, vector: NDArray[Any], blocks: Sequence[tuple[str, Block]]) -> NDArray[Any]:
        return _turned(vector, blocks)

    def _steps(self, inverted: bool = False) -> list[StepSpec]:
        return self._transform._steps(not inverted)

    def _blocks(self) -> list[tuple[str, Block]]:
        return self._transform._blocks()[::-1]  # the blocks in the order of the inverse's steps

    def _restricted(self, kept: tuple[int, ...], inverted: bool = False) -> tuple[Transform | None, tuple[int, ...]]:
        part, others = self.transform._restricted(kept, not inverted)
        return None if part is None else Inverse(part), others

    def _header(self) -> dict[str, Any]:
        return {"transform": header_of(self._transform)}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        return cls(stored.child("transform", Transform))

    def __repr__(self) -> str:
        """The class name and the inverted transform."""
        return f"Inverse({self._transform!r})"


def _turned(vector: NDArray[Any], blocks: Sequence[tuple[str, Block]]) -> NDArray[Any]:
    """The parameter vector with its blocks in reversed order."""
    ends = np.cumsum([block.size for _, block in blocks])
    return np.concatenate(np.split(vector, ends)[-2::-1]) if blocks else vector
