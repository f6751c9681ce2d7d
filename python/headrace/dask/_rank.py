"""What workers do: one task on each is a rank."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.config import threads
from headrace.distributed._dask import DaskGroup, Office, stop_if_unwanted
from headrace.distributed._torch import from_torch
from headrace.distributed.groups import Group, GroupError
from headrace.distributed.run import OwnFile
from headrace.distributed.together import broadcast_bytes

__all__ = ["Facts", "Job", "ascend", "end", "facts", "fit", "forget", "rank"]

_ONE_GLOO = threading.Lock()  # a process has one process group of PyTorch by default


@dataclass(frozen=True)
class Facts:
    """A worker."""

    office: str
    process: tuple[str, int]
    has_torch: bool


@dataclass(frozen=True)
class Job:
    """What all ranks are told."""

    name: str
    workers: list[str]
    offices: list[str]
    collective: str  # "gloo", "gloo if it works" or "dask"
    timeout: float
    state: str  # what files of checkpoints of each worker are called; empty for none


def facts(dask_worker: Any) -> Facts:
    """See the class."""
    return Facts(Office.of(dask_worker).id, (socket.gethostname(), os.getpid()), find_spec("torch") is not None)


def end(name: str, why: str, dask_worker: Any) -> None:
    """End a group: the launcher knows that a rank is gone."""
    Office.of(dask_worker).end_here(name, why)


def forget(state: str, dask_worker: Any) -> None:
    """Remove the checkpoint of a fit that nobody goes on with."""
    _state_of(dask_worker, state).unlink(missing_ok=True)


def _state_of(worker: Any, state: str) -> Path:
    return Path(worker.local_directory) / f"headrace-{state}.state"


def rank(job: Job, number: int, payload: bytes, shards: dict[int, Any], judge: dict[int, Any] | None) -> Any:
    """The task: come together with the others, and do what rank 0 was told."""
    from distributed import get_worker, secede

    worker = get_worker()
    office, key = Office.of(worker), worker.get_current_task()
    if office.id != job.offices[number]:
        raise GroupError(f"group: rank {number}'s worker was started anew")
    secede()  # a fit that waits for others keeps nobody from running what they wait for
    try:
        base = DaskGroup(worker, job.workers, job.name, job.timeout, start=float("inf"))
        with threads(worker.state.nthreads), _group_of(base, job) as inner:
            group = _Wanted(inner, worker, key)
            work, told = pickle.loads(broadcast_bytes(group, payload))
            kept = OwnFile(str(_state_of(worker, job.state))) if job.state else None
            return _without_warnings(number, lambda: work(group, kept, shards, judge, **told))
    except BaseException as error:
        why = f"rank {number} has ended: {error}"
        Office.of(worker).end_here(job.name, why)
        with suppress(UnboundLocalError):
            base.leave(why)
        raise


def _without_warnings(number: int, work: Any) -> Any:
    """What rank 0 found, and its warnings, which the launcher gives."""
    if number:
        work()
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = work()
    return found, [str(one.message) for one in caught if issubclass(one.category, RuntimeWarning)]


def fit(
    group: Group, kept: Any, shards: dict[int, Any], judge: Any, *, flow: Any, options: dict[str, Any]
) -> tuple[Any, Any]:
    """`Flow.fit` on one rank."""
    x, context, weights = _columns(shards)
    if judge is not None:
        options = {**options, "validation": _columns(judge)}
    if kept is not None:
        options = {**options, "checkpoint": kept}
    history = flow.fit(x, context, weights=weights, group=group, progress=False, **options)
    return flow, history


def ascend(
    group: Group, kept: Any, shards: dict[int, Any], judge: Any, *, model: Any, options: dict[str, Any]
) -> tuple[Any, Any]:
    """`DualAscentFlow.fit` on one rank."""
    x, context, weights = _columns(shards)
    if judge is not None:
        options = {**options, "validation": _columns(judge)}
    flow = model.fit(x, context, weights=weights, group=group, progress=False, **options)
    return flow, model.history


def _columns(shards: dict[int, Any]) -> list[Any]:
    """x, context and weights: shard number → array each; None where there are none."""
    found: list[Any] = [{number: shard[i] for number, shard in shards.items()} for i in range(3)]
    return [None if i and all(one is None for one in of.values()) else of for i, of in enumerate(found)]


class _Wanted:
    """A group whose ranks end where nobody waits for the result any more."""

    def __init__(self, group: Group, worker: Any, key: Any) -> None:
        self.rank, self.size, self._group = group.rank, group.size, group
        self._worker, self._key = worker, key

    def sum(self, part: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Group`."""
        stop_if_unwanted(self._worker, self._key)
        return self._group.sum(part)

    def maximum(self, part: NDArray[Any]) -> NDArray[Any]:
        """See `Group`."""
        stop_if_unwanted(self._worker, self._key)
        return self._group.maximum(part)

    def broadcast(self, part: NDArray[Any], root: int = 0) -> NDArray[Any]:
        """See `Group`."""
        stop_if_unwanted(self._worker, self._key)
        return self._group.broadcast(part, root)


# ---- gloo ------------------------------------------------------------------------------------------------------------


@contextmanager
def _group_of(base: DaskGroup, job: Job) -> Iterator[Group]:
    """Ranks of gloo where all can have it, and else those of Dask."""
    if job.collective == "dask" or base.size == 1:
        yield base
        return
    taken = _ONE_GLOO.acquire(blocking=False)
    try:
        group, problem = _gloo(base, job) if taken else (None, "another fit on this worker uses gloo")
        wrong = np.array([group is None], np.int64)
        if base.maximum(wrong)[0]:
            if job.collective == "gloo":
                raise RuntimeError(f"collective: expected gloo to start on all workers; {problem or 'one did not'}")
            group = None
        yield base if group is None else group
    finally:
        if taken:
            _end_gloo()
            _ONE_GLOO.release()


def _gloo(base: DaskGroup, job: Job) -> tuple[Group | None, str]:
    """This rank's, or why there is none; the ranks meet at a port that rank 0 finds free."""
    from distributed.comm import get_address_host

    wait, store, found, problem = timedelta(seconds=job.timeout), None, None, ""
    port = np.zeros(1, np.int64)
    host = get_address_host(job.workers[0])
    try:
        import torch.distributed as distributed

        if distributed.is_initialized():
            raise RuntimeError("torch.distributed has a process group already")
        if base.rank == 0:
            store = distributed.TCPStore(host, 0, base.size, True, wait, wait_for_workers=False)
            port[0] = store.port
    except (ImportError, RuntimeError) as error:
        problem = str(error)
    able = np.array([bool(problem)], np.int64)
    if base.maximum(able)[0]:
        return None, problem
    port = base.broadcast(port)
    try:
        if store is None:
            store = distributed.TCPStore(host, int(port[0]), base.size, False, wait)
        with _interface(get_address_host(job.workers[base.rank])):
            distributed.init_process_group("gloo", store=store, rank=base.rank, world_size=base.size, timeout=wait)
            found = from_torch(timeout=job.timeout)
    except RuntimeError as error:
        problem = str(error)
    return found, problem


def _end_gloo() -> None:
    import torch.distributed as distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def _interface(address: str) -> Iterator[None]:
    """Let gloo take the network that Dask has, and not that of the machine's name, which others may not reach."""
    import psutil

    name = "GLOO_SOCKET_IFNAME"
    found = [i for i, of in psutil.net_if_addrs().items() if any(one.address == address for one in of)]
    if name in os.environ or not found:
        yield
        return
    os.environ[name] = found[0]
    try:
        yield
    finally:
        os.environ.pop(name, None)
