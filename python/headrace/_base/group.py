"""The protocol of the ranks of a distributed fit; `headrace.distributed` implements it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from headrace._base.public import public


@public("headrace.distributed")
@runtime_checkable
class Group(Protocol):
    """Ranks 0 to size - 1, which call the same verbs in the same order.

    Sums are of 64-bit integers, so that their order does not change a result. Anything with these attributes serves;
    `local`, `from_torch` and `from_mpi` make some.
    """

    @property
    def rank(self) -> int:
        """The index of this process among the ranks."""

    @property
    def size(self) -> int:
        """The number of ranks."""

    def sum(self, part: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sum over all ranks, on all of them. `part` is C-contiguous, and may be overwritten.

        Raises:
            GroupError: a rank did not answer in time.
        """

    def maximum(self, part: NDArray[Any]) -> NDArray[Any]:
        """The largest value over all ranks, entry by entry, on all of them; int64 or float64, without NaN."""

    def broadcast(self, part: NDArray[Any], root: int = 0) -> NDArray[Any]:
        """The array of one rank, on all of them: the others give an array of the same shape and dtype."""
