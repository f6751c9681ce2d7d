"""Groups of MPI ranks, by mpi4py."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.group import Group
from headrace.distributed import groups as _groups
from headrace.distributed.groups import GroupError

_SPIN, _NAP = 1e-3, 5e-5  # seconds of polling without pauses, and of each pause after that


def from_mpi(comm: Any, *, timeout: float = 60.0) -> Group:
    """A group of the ranks of an mpi4py communicator, such as ``MPI.COMM_WORLD``.

    Call this on all ranks of the communicator at the same time; the communicator is duplicated.

    Args:
        comm: An ``mpi4py.MPI.Comm``.
        timeout: The seconds that one rank may let other ranks wait. At most 2 `timeout` + 5 seconds later the other
            ranks raise `GroupError`, with the ranks that do not answer. (If a rank ends, MPI acts instead: by default
            MPI ends the whole job.)
    """
    seconds = check.number("timeout", timeout, above=0.0, below=math.inf)
    if not hasattr(comm, "Iallreduce"):
        raise TypeError(f"comm: expected a communicator of mpi4py, got {check.kind_of(comm)}")
    return _Mpi(comm.Dup(), seconds)


class _Mpi(_groups.Ranks):
    made_by = "from_mpi"

    def __init__(self, comm: Any, timeout: float) -> None:
        from mpi4py import MPI

        self._mpi, self._comm, self._timeout = MPI, comm, timeout
        self.rank, self.size = int(comm.Get_rank()), int(comm.Get_size())
        self._broken = ""  # the reason why no further call is possible
        self._left: list[Any] = []  # unfinished requests, whose memory MPI may still use

    def broadcast(self, part: NDArray[Any], root: int = 0) -> NDArray[Any]:
        """The array of the rank `root`; see `Group`."""
        return self._done(part, lambda array: self._comm.Ibcast(array, root))

    def reduced(self, part: NDArray[Any], operation: str) -> NDArray[Any]:
        """The array's sum or maximum over all ranks; see `Ranks`."""
        own = getattr(self._mpi, operation)
        return self._done(part, lambda array: self._comm.Iallreduce(self._mpi.IN_PLACE, array, own))

    def _done(self, part: NDArray[Any], call: Callable[[NDArray[Any]], Any]) -> NDArray[Any]:
        if self._broken:  # late answers to the failed call would be taken for answers to the next one
            raise GroupError(self._broken)
        array = np.require(part, requirements=("C", "W"))
        request, begin = call(array), time.monotonic()
        while not request.Test():
            waited = time.monotonic() - begin
            if waited > self._timeout:
                self._left.append((request, array))  # MPI cannot cancel a collective call
                self._broken = self._who()
                raise GroupError(self._broken)
            if waited > _SPIN:
                time.sleep(_NAP)
        return array

    def _who(self) -> str:
        """The message about ranks that do not answer: after a timeout every rank sends a byte to all others."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        awaited = {rank: self._comm.Irecv(bytearray(1), rank, 1) for rank in others}
        sent = [self._comm.Isend(b"x", rank, 1) for rank in others]  # one byte is sent without waiting for a receiver
        begin = time.monotonic()
        while awaited and time.monotonic() - begin < self._timeout + _groups.GRACE:
            awaited = {rank: request for rank, request in awaited.items() if not request.Test()}
            time.sleep(0.01)
        for request in awaited.values():
            request.Cancel()
            request.Wait()
        self._left += [request for request in sent if not request.Test()]
        return _groups.who_is_silent(self.size, self._timeout, awaited)
