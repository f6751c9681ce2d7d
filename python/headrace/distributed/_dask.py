"""Groups of Dask workers, which exchange arrays over the workers' own connections."""

from __future__ import annotations

import asyncio
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base.group import Group
from headrace.distributed.groups import GroupError, Ranks, who_is_silent

LARGE = 1 << 16  # from this many bytes on, each of more than two ranks sums a part of the array
GRACE = 5.0  # the seconds to wait for a report of another rank's progress
_LOOK = 0.25  # the seconds between two checks that the result is still wanted
_AGAIN = 0.05  # the seconds between two tries to reach another worker's office
_BACK = 1 << 20  # the index of a message to a rank beyond the largest power of two
_KEPT = 256  # the most groups whose progress an office keeps
_NAME = "headrace"

Arrays = dict[int, NDArray[Any]]


def from_dask(workers: Sequence[str], name: str, *, timeout: float = 60.0, start: float = 300.0) -> Group:
    """A group of workers of a Dask cluster; call this in a task on each worker at the same time.

    Values are sent from worker to worker over Dask's connections, with Dask's encryption and without a further port;
    gloo and MPI are faster. `headrace.dask` makes such groups.

    Args:
        workers: The workers' addresses in the order of the ranks, the same list on all workers.
        name: The group's name, the same on all ranks, and different for each group.
        timeout: The seconds that one rank may let other ranks wait. At most 5 seconds after `timeout` the other ranks
            raise `GroupError`, with the ranks that do not answer.
        start: The seconds until all tasks must have started.

    Raises:
        RuntimeError: the caller is not a task of Dask.
        GroupError: some ranks did not start in time.
    """
    try:
        from distributed import get_worker

        worker = get_worker()
    except (ImportError, ValueError):
        raise RuntimeError("from_dask: expected to be called in a task on a worker of Dask, got none") from None
    addresses = list(workers)
    if not all(isinstance(address, str) for address in addresses) or len(set(addresses)) != len(addresses):
        raise ValueError(f"workers: expected different addresses, got {addresses}")
    if worker.address not in addresses:
        raise ValueError(f"workers: expected {worker.address} among them, which this is, got {addresses}")
    if not isinstance(name, str):
        raise TypeError(f"name: expected a str, got {check.kind_of(name)}")
    seconds = check.number("timeout", timeout, above=0.0, below=math.inf)
    return DaskGroup(worker, addresses, name, seconds, check.number("start", start, above=0.0, below=math.inf))


def stop_if_unwanted(worker: Any, key: Any) -> None:
    """Raise `GroupError` if the task was cancelled, or if its worker is about to end."""
    if worker.status.name not in ("running", "paused", "init"):
        raise GroupError(f"group: this worker ends (it is {worker.status.name})")
    task = worker.state.tasks.get(key) if key is not None else None
    if key is not None and (task is None or task.state in ("cancelled", "released", "forgotten", "resumed")):
        raise GroupError("group: the task was cancelled")


class Office:
    """The mailbox of a worker's ranks: the worker's event loop stores messages, and tasks take them out."""

    def __init__(self, worker: Any) -> None:
        """Open the office of a worker; `Office.of` finds an open one."""
        self.id = uuid.uuid4().hex  # identifies this process, because other processes may use its address
        self.changed = threading.Condition()
        self.messages: dict[tuple[str, int, int, int], Any] = {}  # keys: group, call's index, message's index, sender
        self.begun: dict[str, int] = {}  # for each group the number of calls that this rank has begun
        self.broken: dict[str, str] = {}  # for each ended group the reason for its end
        worker.handlers |= {f"{_NAME}_{op}": getattr(self, op) for op in ("put", "asked", "end")}
        worker.extensions[_NAME] = self

    @staticmethod
    def of(worker: Any) -> Office:
        """The worker's office, which the first call opens."""
        return worker.extensions.get(_NAME) or Office(worker)

    async def put(self, group: str, verb: int, number: int, source: int, data: Any) -> str:
        """Store a message; return the reason for the group's end, or "" if the group has not ended."""
        with self.changed:
            if group not in self.broken:
                # The array is copied, because between workers in one process Dask passes the array itself.
                self.messages[group, verb, number, source] = np.array(data)
                self.changed.notify_all()
            return self.broken.get(group, "")

    async def asked(self, group: str) -> int:
        """The number of collective calls that this rank has begun in a group."""
        with self.changed:
            return self.begun.get(group, 0)

    async def end(self, group: str, why: str) -> None:
        """End a group on this worker, because another rank has ended the group."""
        self.end_here(group, why)

    def end_here(self, group: str, why: str) -> None:
        """Mark a group as ended, so that waiting calls raise an error."""
        with self.changed:
            self.broken.setdefault(group, why)
            for key in [key for key in self.messages if key[0] == group]:
                del self.messages[key]
            while len(self.broken) > _KEPT:
                del self.broken[next(iter(self.broken))]
            self.changed.notify_all()

    def close(self) -> None:
        """End all groups, because the worker ends."""
        for group in list(self.begun):
            self.end_here(group, "a worker has ended")


class DaskGroup(Ranks):
    """A group made by `from_dask`."""

    made_by = "from_dask"

    def __init__(self, worker: Any, workers: list[str], name: str, timeout: float, start: float) -> None:
        """Wait until all other ranks have started."""
        self.rank, self.size = workers.index(worker.address), len(workers)
        self._worker, self._workers, self._name, self._timeout = worker, workers, name, timeout
        self._office = Office.of(worker)
        self._key = worker.active_threads.get(threading.get_ident())  # None if the caller is not a task
        self._verb, self._until = 0, 0.0
        self._begin(start)
        self._doubled(np.zeros(1, np.int64), np.add)

    def broadcast(self, part: NDArray[Any], root: int = 0) -> NDArray[Any]:
        """See `Group`; a rank that has the array sends it to other ranks, each at half the preceding one's distance."""
        part = np.ascontiguousarray(part)
        if self.size == 1 or not part.size:
            return part
        self._begin(self._timeout)
        away, distance = (self.rank - root) % self.size, 1
        while distance < self.size and not away & distance:
            distance *= 2
        if away:
            source = (self.rank - distance) % self.size
            part = self._exchanged({}, [source], 0, part.reshape(-1))[source].reshape(part.shape)
        to = []
        while distance > 1:
            distance //= 2
            if away + distance < self.size:
                to.append((self.rank + distance) % self.size)
        self._exchanged(dict.fromkeys(to, part.reshape(-1)), [], 0, part)
        return part

    @contextmanager
    def patiently(self, seconds: float) -> Iterator[None]:
        """Inside the block, one rank may let other ranks wait for the given number of seconds."""
        before, self._timeout = self._timeout, seconds
        try:
            yield
        finally:
            self._timeout = before

    def leave(self, why: str) -> None:
        """Inform the waiting ranks that this rank has ended."""
        self._office.end_here(self._name, why)

        async def announce(other: int) -> None:
            with suppress(Exception):  # the other worker may have ended as well
                call = self._worker.rpc(self._workers[other]).headrace_end(group=self._name, why=why)
                await asyncio.wait_for(call, GRACE)

        for other in range(self.size):
            if other != self.rank:
                self._started(announce(other))  # the answer is not awaited

    # ---- sums --------------------------------------------------------------------------------------------------------

    def reduced(self, part: NDArray[Any], operation: str) -> NDArray[Any]:
        """The array's sum or maximum over all ranks; see `Ranks`."""
        part = np.ascontiguousarray(part)
        if self.size == 1 or not part.size:
            return part
        self._begin(self._timeout)
        work = self._scattered if self.size > 2 and part.nbytes >= LARGE else self._doubled
        return work(part.reshape(-1), np.add if operation == "SUM" else np.maximum).reshape(part.shape)

    def _doubled(self, flat: NDArray[Any], operation: Callable[..., Any]) -> NDArray[Any]:
        """Combine pairs of ranks, pairs of pairs, and so on; ranks beyond a power of two send to other ranks."""
        rank, whole = self.rank, 1 << (self.size.bit_length() - 1)
        if rank >= whole:
            self._exchanged({rank - whole: flat}, [], 0, flat)
            return self._exchanged({}, [rank - whole], _BACK, flat)[rank - whole]
        beyond = rank + whole
        if beyond < self.size:
            flat = operation(flat, self._exchanged({}, [beyond], 0, flat)[beyond])
        distance = 1
        while distance < whole:
            other = rank ^ distance
            received = self._exchanged({other: flat}, [other], distance, flat)[other]
            flat = operation(flat, received) if rank < other else operation(received, flat)
            distance *= 2
        if beyond < self.size:
            self._exchanged({beyond: flat}, [], _BACK, flat)
        return flat

    def _scattered(self, flat: NDArray[Any], operation: Callable[..., Any]) -> NDArray[Any]:
        """Let each rank reduce one part of the values, and send the result to all other ranks."""
        ends = [flat.size * i // self.size for i in range(self.size + 1)]
        of = [flat[begin:end] for begin, end in pairwise(ends)]
        peers = [i for i in range(self.size) if i != self.rank]
        received = {self.rank: of[self.rank]}
        received |= self._exchanged({i: of[i] for i in peers}, peers, 0, of[self.rank])
        mine = received[0]
        for i in range(1, self.size):
            mine = operation(mine, received[i])
        parts = {self.rank: mine} | self._exchanged(dict.fromkeys(peers, mine), peers, 1, None)
        return np.concatenate([parts[i] for i in range(self.size)])

    # ---- messages ----------------------------------------------------------------------------------------------------

    def _begin(self, seconds: float) -> None:
        """Begin the next collective call, with this number of seconds until a timeout."""
        stop_if_unwanted(self._worker, self._key)
        self._verb += 1
        self._until = time.monotonic() + seconds
        begun = self._office.begun
        with self._office.changed:
            begun[self._name] = self._verb
            while len(begun) > _KEPT:
                del begun[next(iter(begun))]

    def _exchanged(self, outgoing: Mapping[int, Any], wanted: Sequence[int], number: int, like: Any) -> Arrays:
        """Send arrays to some ranks, and wait until arrays that match `like` have arrived from other ranks."""
        sent = {to: self._started(self._sent(to, number, array)) for to, array in outgoing.items()}
        try:
            received = {source: self._taken(source, number, sent) for source in wanted}
            for sending in sent.values():
                self._wait(sending.done, sent)
            self._look_at(sent)
        except GroupError as error:
            for sending in sent.values():
                sending.cancel()
            self.leave(f"rank {self.rank} has ended: {str(error).removeprefix('group: ')}")
            raise
        for source, array in received.items():
            if like is not None and (array.dtype, array.shape) != (like.dtype, like.shape):
                raise GroupError(
                    f"group: expected {like.dtype} of shape {like.shape} from rank {source}, got {array.dtype} of "
                    f"{array.shape}; it does something else"
                )
        return received

    def _started(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._worker.loop.asyncio_loop)

    async def _sent(self, to: int, number: int, array: NDArray[Any]) -> None:
        from distributed.protocol import to_serialize

        header = {"group": self._name, "verb": self._verb, "number": number, "source": self.rank}
        while True:
            try:
                answer = await self._worker.rpc(self._workers[to]).headrace_put(**header, data=to_serialize(array))
            except OSError as error:
                answer = f"rank {to} cannot be reached: {error}"
            if answer == "":
                return
            if self._verb > 1 or self._name in self._office.broken:
                raise GroupError(answer or f"rank {to} has ended")
            await asyncio.sleep(_AGAIN)  # the receiving office does not exist yet

    def _taken(self, source: int, number: int, sent: dict[int, Future[Any]]) -> NDArray[Any]:
        key = self._name, self._verb, number, source
        self._wait(lambda: key in self._office.messages, sent)
        with self._office.changed:
            array: NDArray[Any] = self._office.messages.pop(key)
        return array

    def _wait(self, is_there: Callable[[], bool], sent: dict[int, Future[Any]]) -> None:
        """Wait until an expected message has arrived, or can no longer arrive."""
        for sending in sent.values():
            sending.add_done_callback(self._notify)
        with self._office.changed:
            while not is_there():
                if (why := self._office.broken.get(self._name)) is not None:
                    raise GroupError(f"group: {why}")
                self._look_at(sent)
                stop_if_unwanted(self._worker, self._key)
                left = self._until - time.monotonic()
                if left <= 0:
                    break
                self._office.changed.wait(min(left, _LOOK))
            else:
                return
        raise GroupError(self._who())

    def _notify(self, _: Any) -> None:
        with self._office.changed:
            self._office.changed.notify_all()

    def _look_at(self, sent: dict[int, Future[Any]]) -> None:
        """Raise the error of a message that could not be sent."""
        for sending in sent.values():
            if sending.done() and (error := sending.exception()) is not None:
                raise GroupError(f"group: {error}") from error

    def _who(self) -> str:
        """The message about ranks that do not answer, after the workers have reported their ranks' progress."""
        peers = [rank for rank in range(self.size) if rank != self.rank]

        async def ask(other: int) -> int:
            return int(await self._worker.rpc(self._workers[other]).headrace_asked(group=self._name))

        silent, asked = [], [self._started(asyncio.wait_for(ask(other), GRACE)) for other in peers]
        for other, answer in zip(peers, asked, strict=True):
            try:
                if answer.result(2 * GRACE) < self._verb:
                    silent.append(other)
            except Exception:  # the worker is unreachable, too slow, or without headrace
                silent.append(other)
        return who_is_silent(self.size, self._timeout, silent, begins=self._verb == 1)
