"""A transform the other way around."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.stored import Stored, header_of, storable
from headrace._base.types import Self
from headrace._core.steps import StepSpec
from headrace._flow.program.module import Block
from headrace._flow.transforms.around import Around, checked
from headrace._flow.transforms.transform import Transform


@storable
class Inverse(Around):
    """A transform with its two directions exchanged; the parameters are copied.

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
        return self._transform._blocks()[::-1]  # as the steps

    def _restricted(self, kept: tuple[int, ...], inverted: bool = False) -> tuple[Transform | None, tuple[int, ...]]:
        part, others = self.transform._restricted(kept, not inverted)
        return None if part is None else Inverse(part), others

    def _header(self) -> dict[str, Any]:
        return {"transform": header_of(self._transform)}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        return cls(stored.child("transform", Transform))

    def __repr__(self) -> str:
        """Name the inverted transform."""
        return f"Inverse({self._transform!r})"


def _turned(vector: NDArray[Any], blocks: Sequence[tuple[str, Block]]) -> NDArray[Any]:
    """The parameters of these blocks with the last block first."""
    ends = np.cumsum([block.size for _, block in blocks])
    return np.concatenate(np.split(vector, ends)[-2::-1]) if blocks else vector
