"""Consistency among ranks, beside sums: shared errors, and checks that all ranks have equal arguments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from headrace._base.group import Group
from headrace.files import FileFormatError

_KINDS = {kind.__name__: kind for kind in (TypeError, ValueError, OSError, FileFormatError, KeyError, MemoryError)}
_OTHER = RuntimeError  # the exception on the other ranks for an error of none of these types


def broadcast_bytes(group: Group, data: bytes, root: int = 0) -> bytes:
    """A value of one rank; those of the others are not compared."""
    if group.size == 1:
        return data
    length = int(group.broadcast(np.array([len(data)], np.int64), root)[0])
    part = np.zeros(length, np.uint8)
    if group.rank == root:
        part[:] = np.frombuffer(data, np.uint8)
    return group.broadcast(part, root).tobytes() if length else b""


def agree(group: Group, error: Exception | None) -> None:
    """Raise the error of any rank on all ranks; nothing without one."""
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
    """The nearest base class that others can raise, such as OSError for FileNotFoundError."""
    names = (kind.__name__ for kind in type(error).__mro__ if _KINDS.get(kind.__name__) is kind)
    return next(names, _OTHER.__name__)


@contextmanager
def together(group: Group) -> Iterator[None]:
    """No collective calls inside the block. If one rank raises, all ranks raise."""
    try:
        yield
    except Exception as error:
        agree(group, error)
        raise
    agree(group, None)


def same_everywhere(group: Group, settings: Mapping[str, str]) -> None:
    """Refuse ranks with other arguments than rank 0."""
    first: dict[str, str] = json.loads(broadcast_bytes(group, json.dumps(dict(settings)).encode()))
    with together(group):
        differing = [name for name in {**first, **settings} if first.get(name) != settings.get(name)]
        if differing:
            listed = "; ".join(
                f"{name}: {first.get(name)} there, {settings.get(name)} on rank {group.rank}" for name in differing
            )
            raise ValueError(f"group: expected the same call on all ranks as on rank 0, got another one ({listed})")


def gathered(group: Group, mine: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """An array of `count` rows of float64, from each rank's part `mine` at indices `rows`, bit for bit."""
    bits = np.zeros((count, mine.shape[1]), np.int64)
    bits[rows] = np.ascontiguousarray(mine, np.float64).view(np.int64)
    return group.sum(bits).view(np.float64)
