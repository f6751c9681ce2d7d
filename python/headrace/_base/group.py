"""The protocol of the ranks of a distributed fit; `headrace.distributed` implements it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from headrace._base.public import public


@public("headrace.distributed")
@runtime_checkable
class Group(Protocol):
    """A group of ranks 0 to size - 1, which call the same methods in the same order.

    Ranks add 64-bit integers, whose sums do not depend on the order of the ranks. Any object with the class's
    attributes is a group; `local`, `from_torch` and `from_mpi` make groups.
    """

    @property
    def rank(self) -> int:
        """The index of this process among the ranks."""

    @property
    def size(self) -> int:
        """The number of ranks."""

    def sum(self, part: NDArray[np.int64]) -> NDArray[np.int64]:
        """The entries' sums over all ranks, returned on each rank. `part` is C-contiguous and may be overwritten.

        Raises:
            GroupError: a rank did not answer in time.
        """

    def maximum(self, part: NDArray[Any]) -> NDArray[Any]:
        """The largest values over all ranks, by entry, returned on each rank; `part`: int64 or float64, without NaN."""

    def broadcast(self, part: NDArray[Any], root: int = 0) -> NDArray[Any]:
        """The array of the rank `root`, returned on each rank; all ranks pass an array of one shape and dtype."""
