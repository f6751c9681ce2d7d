"""Process groups: the collective operations that a distributed fit needs of MPI, PyTorch or Dask."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.group import Group
from headrace._base.public import public

GRACE = 5.0  # seconds beyond a timeout in which ranks report that they live


@public("headrace.distributed")
class GroupError(RuntimeError):
    """Some rank did not answer: it ended, stands still, or did something else than the others."""


def who_is_silent(
    size: int, timeout: float, silent: Iterable[int], *, broken: bool = False, begins: bool = False
) -> str:
    """The message about ranks that did not answer in time.

    `broken`: whether a connection may have failed; `begins`: whether it is the first call of all.
    """
    if listed := ", ".join(map(str, sorted(silent))):
        limit = "at the start" if begins else f"within {timeout:g} s"
        return f"group: expected all {size} ranks to answer {limit}, got nothing from rank {listed}"
    what = f"some rank let the others wait for {timeout:g} s, but all answer now"
    return f"group: a connection broke, or {what}" if broken else f"group: {what}"


class Ranks:
    """The common base of groups over a library: `reduced` is the library's sum or largest value of all ranks."""

    rank: int
    size: int
    made_by: str  # the function that makes them

    def sum(self, part: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Group`."""
        return self.reduced(part, "SUM")

    def maximum(self, part: NDArray[Any]) -> NDArray[Any]:
        """See `Group`."""
        return self.reduced(part, "MAX")

    def reduced(self, part: NDArray[Any], operation: str) -> NDArray[Any]:
        """The array over all ranks."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """The rank and the number of ranks."""
        return f"{self.made_by}(): rank {self.rank} of {self.size}"


class _Local:
    """A group of one."""

    rank, size = 0, 1

    def sum(self, part: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Group`."""
        return part

    def maximum(self, part: NDArray[Any]) -> NDArray[Any]:
        """See `Group`."""
        return part

    def broadcast(self, part: NDArray[Any], root: int = 0) -> NDArray[Any]:
        """See `Group`."""
        return part

    def __repr__(self) -> str:
        """The rank and the number of ranks."""
        return "local()"


def local() -> Group:
    """A group of only this process: its fits have the bits of those on any number of ranks.

    >>> import numpy as np, headrace as hr
    >>> x = np.random.default_rng(0).normal(3.0, 2.0, (1000, 2))
    >>> group = hr.distributed.local()
    >>> flow, other = (hr.MAF(2, transforms=2, hidden=(16,)) for _ in range(2))
    >>> history = flow.fit(x, group=group, progress=False)
    >>> history = other.fit({0: x}, group=group, progress=False)
    >>> bool((flow.parameters == other.parameters).all())
    True
    """
    return _Local()
