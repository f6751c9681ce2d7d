"""Groups of MPI's, through mpi4py."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import _arguments as check
from headrace.distributed.groups import Group, GroupError

__all__ = ["from_mpi"]

GRACE = 5.0  # seconds beyond the timeout in which ranks say that they live
_SPIN, _NAP = 1e-3, 5e-5  # seconds of waiting at full speed, and of the naps that follow


def from_mpi(comm: Any, *, timeout: float = 60.0) -> Group:
    """The ranks of a communicator of mpi4py, as ``MPI.COMM_WORLD``.

    Call it on all ranks of the communicator at the same time; it is duplicated.

    Args:
        comm: An ``mpi4py.MPI.Comm``.
        timeout: Seconds that a rank may let the others wait. After twice as many and 5 seconds at the latest they raise
            `GroupError`, which names the ranks that do not answer. (A rank that ends is the affair of MPI, which ends
            the whole job by default.)
    """
    seconds = check.number("timeout", timeout, above=0.0, below=math.inf)
    if not hasattr(comm, "Iallreduce"):
        raise TypeError(f"comm: expected a communicator of mpi4py, got {check.kind_of(comm)}")
    return _Mpi(comm.Dup(), seconds)


class _Mpi:
    def __init__(self, comm: Any, timeout: float) -> None:
        from mpi4py import MPI

        self._mpi, self._comm, self._timeout = MPI, comm, timeout
        self.rank, self.size = int(comm.Get_rank()), int(comm.Get_size())

    def sum(self, part: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Group`."""
        return self._reduced(part, self._mpi.SUM)

    def maximum(self, part: NDArray[Any]) -> NDArray[Any]:
        """See `Group`."""
        return self._reduced(part, self._mpi.MAX)

    def broadcast(self, part: NDArray[Any], root: int = 0) -> NDArray[Any]:
        """See `Group`."""
        array = np.require(part, requirements=("C", "W"))
        self._wait(self._comm.Ibcast(array, root))
        return array

    def _reduced(self, part: NDArray[Any], operation: Any) -> NDArray[Any]:
        array = np.require(part, requirements=("C", "W"))
        self._wait(self._comm.Iallreduce(self._mpi.IN_PLACE, array, operation))
        return array

    def _wait(self, request: Any) -> None:
        begin = time.monotonic()
        while not request.Test():
            waited = time.monotonic() - begin
            if waited > self._timeout:
                raise GroupError(f"group: {self._who()}")
            if waited > _SPIN:
                time.sleep(_NAP)

    def _who(self) -> str:
        """Who does not answer: every rank sends all others a byte when it has waited for too long."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        heard = {rank: self._comm.Irecv(bytearray(1), rank, 1) for rank in others}
        sent = [self._comm.Isend(b"x", rank, 1) for rank in others]  # small: nobody has to take them
        begin = time.monotonic()
        while heard and time.monotonic() - begin < self._timeout + GRACE:
            heard = {rank: request for rank, request in heard.items() if not request.Test()}
            time.sleep(0.01)
        del sent
        if not heard:
            return f"some rank let the others wait for {self._timeout:g} s, but all answer now"
        listed = ", ".join(map(str, heard))
        return f"expected all {self.size} ranks to answer within {self._timeout:g} s, got nothing from rank {listed}"

    def __repr__(self) -> str:
        """Its size."""
        return f"from_mpi(): rank {self.rank} of {self.size}"
