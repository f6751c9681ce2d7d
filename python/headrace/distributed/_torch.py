"""Groups of PyTorch processes, by gloo on CPU arrays."""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.group import Group
from headrace.distributed import groups as _groups
from headrace.distributed.groups import GroupError

_LEAVING = 0.5  # the seconds in which gloo may end its threads and connections


def from_torch(process_group: Any = None, *, timeout: float = 60.0) -> Group:
    """A group of the ranks of a PyTorch process group; by default of the whole job that torchrun started.

    Call this on all ranks of the group at the same time, after ``torch.distributed.init_process_group``. Sums use new
    gloo groups of the same ranks, for any backend of the given group.

    Args:
        process_group: A result of ``torch.distributed.new_group``; None for all ranks.
        timeout: The seconds that one rank may let other ranks wait. At most 2 `timeout` + 5 seconds later the other
            ranks raise `GroupError`, with the ranks that do not answer.

    Raises:
        RuntimeError: torch.distributed has no process group yet.
    """
    from torch import distributed

    seconds = check.number("timeout", timeout, above=0.0, below=math.inf)
    if not distributed.is_initialized():
        raise RuntimeError("process_group: expected one of torch.distributed; call init_process_group('gloo') first")
    members: list[int] = distributed.get_process_group_ranks(process_group or distributed.group.WORLD)
    if distributed.get_rank() not in members:
        raise ValueError(f"process_group: expected one that rank {distributed.get_rank()} is in, got ranks {members}")
    return _Torch(distributed, members, seconds)


class _Torch(_groups.Ranks):
    made_by = "from_torch"

    def __init__(self, distributed: Any, members: list[int], timeout: float) -> None:
        self._distributed, self._timeout, self._ranks = distributed, timeout, members
        self.size = len(self._ranks)
        self.rank = self._ranks.index(distributed.get_rank())
        local = {"use_local_synchronization": True}  # other ranks of the job need not call `new_group`
        made = [
            distributed.new_group(self._ranks, timedelta(seconds=t), "gloo", **local)
            for t in (timeout, timeout + _groups.GRACE)
        ]
        self._group, self._watch = made  # the second group is still intact when the first breaks
        self._ended = "group: it was closed"

    def broadcast(self, part: NDArray[Any], root: int = 0) -> NDArray[Any]:
        """The array of the rank `root`; see `Group`."""
        source = self._ranks[root]
        return self._done(part, lambda tensor: self._distributed.broadcast(tensor, source, group=self._group))

    def close(self) -> None:
        """Drop the groups, so that a remaining reference to this object, such as a traceback's, holds no port."""
        self._group = self._watch = None

    def _leave(self) -> None:
        """Destroy the groups after an error, because the interpreter's end would destroy them without a time limit.

        Gloo joins its threads when a group is deleted. A thread that does not end, such as that of a lost rank, would
        keep the process from ending: the thread that destroys the groups is joined for a limited time only.
        """
        groups = [group for group in (self._group, self._watch) if group is not None]
        self.close()

        def give_back() -> None:
            while groups:
                with suppress(Exception):  # PyTorch may have destroyed all groups already
                    self._distributed.destroy_process_group(groups.pop())

        thread = threading.Thread(target=give_back, name="headrace leaves gloo", daemon=True)
        thread.start()
        thread.join(_LEAVING)

    def reduced(self, part: NDArray[Any], operation: str) -> NDArray[Any]:
        """The array's sum or maximum over all ranks; see `Ranks`."""
        own = getattr(self._distributed.ReduceOp, operation)
        return self._done(part, lambda tensor: self._distributed.all_reduce(tensor, own, group=self._group))

    def _done(self, part: NDArray[Any], call: Callable[[Any], Any]) -> NDArray[Any]:
        import torch

        array = np.require(part, requirements=("C", "W", "A"))
        if not array.size:
            return array
        if self._group is None:  # PyTorch takes None for the group of all ranks
            raise GroupError(self._ended)
        try:
            call(torch.from_numpy(array))
        except RuntimeError as error:  # for example DistBackendError
            self._ended = f"{self._who()}; PyTorch says: {error}"
            traceback.clear_frames(error.__traceback__)  # frames of PyTorch's calls refer to the group
            self._leave()
            raise GroupError(self._ended) from error
        return array

    def _who(self) -> str:
        """The message about ranks that do not answer: after a failure every rank sends a value to all others, and
        waits.

        Each rank waits until the answering ranks have received its value, because gloo at first only queues values.
        """
        import torch

        silent, sent, awaited, kept = {rank for rank in range(self.size) if rank != self.rank}, {}, {}, []
        end = time.monotonic() + self._timeout + _groups.GRACE
        for rank in sorted(silent):
            tensors = torch.zeros(1), torch.zeros(1)
            kept.append(tensors)
            with suppress(RuntimeError):  # suppressed: the connection is broken
                sent[rank] = self._distributed.isend(tensors[0], self._ranks[rank], group=self._watch)
                awaited[rank] = self._distributed.irecv(tensors[1], self._ranks[rank], group=self._watch)
        for rank, received in awaited.items():
            with suppress(RuntimeError):  # suppressed: the connection is broken, or the value is too late
                received.wait(timedelta(seconds=max(end - time.monotonic(), 0.1)))
                silent.discard(rank)
                sent[rank].wait(timedelta(seconds=max(end - time.monotonic(), 0.1)))
        return _groups.who_is_silent(self.size, self._timeout, silent, broken=True)
