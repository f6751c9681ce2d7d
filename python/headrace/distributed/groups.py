"""Groups of processes: the collective operations of MPI, PyTorch or Dask that a distributed fit needs.

Ranks share errors, and check that their arguments are equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.group import Group
from headrace._base.public import public
from headrace.files import FileFormatError

GRACE = 5.0  # the seconds beyond a timeout in which ranks report that they run


@public("headrace.distributed")
class GroupError(RuntimeError):
    """Some rank did not answer: it ended, is blocked, or made another call than the other ranks."""


def who_is_silent(
    size: int, timeout: float, silent: Iterable[int], *, broken: bool = False, begins: bool = False
) -> str:
    """The message about ranks that did not answer in time.

    `broken`: whether a connection may have failed; `begins`: whether this was the group's first call.
    """
    if listed := ", ".join(map(str, sorted(silent))):
        limit = "at the start" if begins else f"within {timeout:g} s"
        return f"group: expected all {size} ranks to answer {limit}, got nothing from rank {listed}"
    what = f"some rank let the others wait for {timeout:g} s, but all answer now"
    return f"group: a connection broke, or {what}" if broken else f"group: {what}"


class Ranks:
    """The common base of groups by a library: `reduced` is the library's sum or maximum over all ranks."""

    rank: int
    size: int
    made_by: str  # the name of the function that makes the group

    def sum(self, part: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sum over all ranks; see `Group`."""
        return self.reduced(part, "SUM")

    def maximum(self, part: NDArray[Any]) -> NDArray[Any]:
        """The largest values over all ranks; see `Group`."""
        return self.reduced(part, "MAX")

    def reduced(self, part: NDArray[Any], operation: str) -> NDArray[Any]:
        """The array's sum ("SUM") or maximum ("MAX") over all ranks, entry by entry."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """The rank and the number of ranks."""
        return f"{self.made_by}(): rank {self.rank} of {self.size}"


class _Local(Ranks):
    """A group of a single rank."""

    rank, size = 0, 1

    def reduced(self, part: NDArray[Any], operation: str) -> NDArray[Any]:
        """The array itself, because there is one rank; see `Ranks`."""
        return part

    def broadcast(self, part: NDArray[Any], root: int = 0) -> NDArray[Any]:
        """The array itself, because there is one rank; see `Group`."""
        return part

    def __repr__(self) -> str:
        """The call that makes the group."""
        return "local()"


def local() -> Group:
    """A group of this process only: its fits have the same bits as fits on any number of ranks.

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


_KINDS = {kind.__name__: kind for kind in (TypeError, ValueError, OSError, FileFormatError, KeyError, MemoryError)}
_OTHER = RuntimeError  # the exception on other ranks for an error whose type is not in _KINDS


def broadcast_bytes(group: Group, data: bytes, root: int = 0) -> bytes:
    """The bytes `data` of the rank `root`, on all ranks; `data` of other ranks is ignored."""
    if group.size == 1:
        return data
    length = int(group.broadcast(np.array([len(data)], np.int64), root)[0])
    part = np.zeros(length, np.uint8)
    if group.rank == root:
        part[:] = np.frombuffer(data, np.uint8)
    return group.broadcast(part, root).tobytes() if length else b""


def agree(group: Group, error: Exception | None) -> None:
    """Raise the error of any rank on all ranks; return if no rank has an error."""
    found = np.zeros(group.size, np.int64)
    found[group.rank] = error is not None
    found = group.sum(found)
    if not found.any():
        return
    first = int(np.flatnonzero(found)[0])
    text = json.dumps([_kind_of(error), str(error)]) if error is not None else ""
    kind, message = json.loads(broadcast_bytes(group, text.encode(), first))
    if error is not None:
        raise error
    raise _KINDS.get(kind, _OTHER)(f"rank {first}: {message}")


def _kind_of(error: Exception) -> str:
    """The name of the error's nearest base class that other ranks can raise, such as OSError for FileNotFoundError."""
    names = (kind.__name__ for kind in type(error).__mro__ if _KINDS.get(kind.__name__) is kind)
    return next(names, _OTHER.__name__)


@contextmanager
def together(group: Group) -> Iterator[None]:
    """A block without collective calls; if one rank raises inside the block, all ranks raise at the block's end."""
    try:
        yield
    except Exception as error:
        agree(group, error)
        raise
    agree(group, None)


def same_everywhere(group: Group, settings: Mapping[str, str]) -> None:
    """Refuse a call whose arguments on some rank differ from those on rank 0."""
    first: dict[str, str] = json.loads(broadcast_bytes(group, json.dumps(dict(settings)).encode()))
    with together(group):
        differing = [name for name in {**first, **settings} if first.get(name) != settings.get(name)]
        if differing:
            listed = "; ".join(
                f"{name}: {first.get(name)} there, {settings.get(name)} on rank {group.rank}" for name in differing
            )
            raise ValueError(f"group: expected the same call on all ranks as on rank 0, got another one ({listed})")


def gathered(group: Group, mine: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """An array of `count` float64 rows on all ranks, from each rank's rows `mine` at indices `rows`, bit for bit."""
    bits = np.zeros((count, mine.shape[1]), np.int64)
    bits[rows] = np.ascontiguousarray(mine, np.float64).view(np.int64)
    return group.sum(bits).view(np.float64)
