"""Tasks on the workers of a cluster: one task on each worker is a rank of a fit."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from headrace._base import progress as _progress
from headrace._base.group import Group
from headrace.dask._bars import TOPIC
from headrace.distributed._dask import DaskGroup, Office, stop_if_unwanted
from headrace.distributed._torch import from_torch
from headrace.distributed.groups import GroupError, Ranks, broadcast_bytes
from headrace.distributed.run import OwnFile

_START = 600.0  # seconds until all ranks have loaded PyTorch; the launcher detects workers lost in this time
_MEETING = 30.0  # seconds until the ranks of gloo have found each other
_ONE_GLOO = threading.Lock()  # a process has only one default process group of PyTorch


@dataclass(frozen=True)
class Facts:
    """Properties of a worker that the launcher needs."""

    office: str
    process: tuple[str, int]
    has_torch: bool


@dataclass(frozen=True)
class Job:
    """The arguments of a fit that all its ranks share."""

    name: str
    workers: list[str]
    offices: list[str]
    collective: str  # how ranks exchange arrays: "gloo", "gloo if it works" or "dask"
    timeout: float
    state: str  # the name of the checkpoint files of workers; "" for no checkpoints
    shows: str  # the name of the fit in its progress messages; "" without a bar


def facts(dask_worker: Any) -> Facts:
    """The properties of this worker."""
    return Facts(Office.of(dask_worker).id, (socket.gethostname(), os.getpid()), find_spec("torch") is not None)


def end(name: str, why: str, dask_worker: Any) -> None:
    """End a group on this worker, because the launcher has detected that a rank ended."""
    Office.of(dask_worker).end_here(name, why)


def forget(state: str, dask_worker: Any) -> None:
    """Remove this worker's checkpoint of an abandoned fit."""
    _state_of(dask_worker, state).unlink(missing_ok=True)


def _state_of(worker: Any, state: str) -> Path:
    return Path(worker.local_directory) / f"headrace-{state}.state"


def rank(job: Job, number: int, payload: bytes, shards: dict[int, Any], judge: dict[int, Any] | None) -> Any:
    """The task of a rank: connect to the other ranks, and run the job that rank 0 sends."""
    from distributed import get_worker, secede

    worker = get_worker()
    office, key = Office.of(worker), worker.get_current_task()
    if office.id != job.offices[number]:
        raise GroupError(f"group: rank {number}'s worker was started anew")
    base = None
    secede()  # a fit that waits for ranks must not block other tasks
    try:
        base = DaskGroup(worker, job.workers, job.name, job.timeout, start=float("inf"))
        with hr.threads(worker.state.nthreads), _group_of(base, job) as (inner, messages):
            group = _Wanted(inner, worker, key)
            arguments = pickle.loads(broadcast_bytes(group, payload))
            kept = OwnFile(str(_state_of(worker, job.state))) if job.state else None
            shows = job.shows and number == 0
            with _progress.sent_to(partial(_show, worker, job) if shows else None):
                fit = partial(_fit, group, kept, shards, judge, bool(shows), **arguments)
                return _without_warnings(number, messages, fit)
    except BaseException as error:
        if base is not None:
            base.leave(f"rank {number} has ended: {error}")
        _let_go(error)
        raise


def _show(worker: Any, job: Job, message: dict[str, Any]) -> None:
    """Send a progress message of rank 0 to the launcher; see `headrace._base.progress`."""
    with suppress(Exception):  # an error of the bar must not end the fit
        worker.log_event(TOPIC, {"fit": job.shows, "rank": job.name, **message})


def _let_go(error: BaseException | None) -> None:
    """Clear the frames of an error's traceback, which Dask stores: they would keep rows, connections and ports."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _without_warnings(number: int, messages: list[str], work: Any) -> Any:
    """The result of rank 0 and the warnings that it caused, for the launcher to issue; None on other ranks."""
    if number:
        work()
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = work()
    return found, [*messages, *(str(one.message) for one in caught if issubclass(one.category, RuntimeWarning))]


def _fit(
    group: Group, kept: Any, shards: dict[int, Any], judge: Any, progress: bool, *, model: Any, options: dict[str, Any]
) -> tuple[Any, Any]:
    """A `Flow` or a `DualAscentFlow` after its fit to shards of rows on one rank, and the result of `fit`."""
    x, context, weights = _columns(shards)
    if kept is not None:
        options = {**options, "checkpoint": kept}
    if judge is not None:
        options = {**options, "validation": _columns(judge)}
    return model, model.fit(x, context, weights=weights, group=group, progress=progress, **options)


def _columns(shards: dict[int, Any]) -> tuple[Any, ...]:
    """Dicts of shard number → array for x, context and weights; None in place of a dict without arrays."""
    found: list[Any] = [{number: shard[i] for number, shard in shards.items()} for i in range(3)]
    return tuple(None if i and all(one is None for one in of.values()) else of for i, of in enumerate(found))


class _Wanted(Ranks):
    """A group whose calls raise an error once the task is cancelled."""

    def __init__(self, group: Any, worker: Any, key: Any) -> None:
        self.rank, self.size, self.made_by, self._group = group.rank, group.size, group.made_by, group
        self._worker, self._key = worker, key

    def reduced(self, part: NDArray[Any], operation: str) -> NDArray[Any]:
        """The array's sum or maximum over all ranks; see `Ranks`."""
        stop_if_unwanted(self._worker, self._key)
        return self._group.reduced(part, operation)

    def broadcast(self, part: NDArray[Any], root: int = 0) -> NDArray[Any]:
        """The array of the rank `root`; see `Group`."""
        stop_if_unwanted(self._worker, self._key)
        return self._group.broadcast(part, root)


# ---- gloo ------------------------------------------------------------------------------------------------------------


@contextmanager
def _group_of(base: DaskGroup, job: Job) -> Iterator[tuple[Group, list[str]]]:
    """A group of gloo ranks if all workers can start gloo, otherwise of Dask ranks, and a list of warnings."""
    if job.collective == "dask" or base.size == 1:
        yield base, []
        return
    gloo = _Gloo(base, job)
    try:
        with base.patiently(_START):
            gloo.start()
        if gloo.problem and job.collective == "gloo":
            raise RuntimeError(f"collective: expected gloo to start on all workers, but {gloo.problem}")
        slower = f"collective: gloo did not start ({gloo.problem}); sums take longer, by Dask's connections"
        yield (base, [slower]) if gloo.group is None else (gloo.group, [])
    finally:
        gloo.end()


class _Gloo:
    """A group of gloo ranks, which connect to a free port of rank 0."""

    def __init__(self, base: DaskGroup, job: Job) -> None:
        self.group: Any = None
        self.problem = ""
        self._base, self._workers, self._timeout = base, job.workers, job.timeout
        self._alone = self._begun = False
        self._store: Any = None

    def start(self) -> None:
        """Start gloo on all ranks, or on no rank, with the reason in `problem`."""
        port = np.zeros(1, np.int64)
        self._on_all(lambda: self._open(port))
        if self.problem:
            return
        port = self._base.broadcast(port)
        self._on_all(lambda: self._meet(int(port[0])))

    def _on_all(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (ImportError, RuntimeError) as error:
            self.problem = str(error)
        if self._base.maximum(np.array([bool(self.problem)], np.int64))[0]:
            self.problem = self.problem or "it did not on another worker"

    def _open(self, port: NDArray[np.int64]) -> None:
        from distributed.comm import get_address_host

        self._alone = _ONE_GLOO.acquire(blocking=False)
        if not self._alone:
            raise RuntimeError("another fit on this worker uses it")
        import torch.distributed as distributed

        if distributed.is_initialized():
            raise RuntimeError("torch.distributed has a process group there already")
        self._host, self._wait = get_address_host(self._workers[0]), timedelta(seconds=_MEETING)
        if self._base.rank == 0:
            size = self._base.size
            self._store = distributed.TCPStore(self._host, 0, size, True, self._wait, wait_for_workers=False)
            port[0] = self._store.port

    def _meet(self, port: int) -> None:
        import torch.distributed as distributed
        from distributed.comm import get_address_host

        rank, size = self._base.rank, self._base.size
        if self._store is None:
            self._store = distributed.TCPStore(self._host, port, size, False, self._wait)
        self._begun = True
        with _interface(get_address_host(self._workers[rank])):
            distributed.init_process_group("gloo", store=self._store, rank=rank, world_size=size, timeout=self._wait)
            self.group = from_torch(timeout=self._timeout)

    def end(self) -> None:
        """Close connections and ports, even if a traceback still refers to the group."""
        if self.group is not None:
            self.group.close()
        self.group = self._store = None
        if self._begun:
            import torch.distributed as distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()
        if self._alone:
            _ONE_GLOO.release()


@contextmanager
def _interface(address: str) -> Iterator[None]:
    """Let gloo use Dask's network interface instead of the host name's, which other workers may not reach."""
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
