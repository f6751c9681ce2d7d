"""The start of ranks on the workers of a cluster that hold rows, and restarts after a worker was lost."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from headrace._base.warn import warn
from headrace.dask import _rank
from headrace.dask._bars import Shown, shown
from headrace.distributed.groups import GroupError

_LOOK = 0.5  # the seconds between two checks of the workers


@dataclass(frozen=True)
class Launch:
    """The settings for the start of ranks."""

    client: Any
    collective: str
    timeout: float
    restarts: int
    keeps: bool  # whether each worker stores the state of the fit for a restart
    progress: bool  # whether a bar shows the progress of the fit


class _Lost(Exception):
    """The error if a worker was lost and the fit can be tried again."""


def launched(launch: Launch, arguments: dict[str, Any], shards: list[Any], judge: list[Any] | None) -> Any:
    """Run a fit on the workers; return the result of rank 0. `shards`, `judge`: lists of futures."""
    import cloudpickle

    payload = cloudpickle.dumps(arguments)
    state = uuid.uuid4().hex if launch.keeps else ""
    try:
        with shown(launch.client, uuid.uuid4().hex, launch.progress) as bar:
            for attempt in range(launch.restarts + 1):
                try:
                    found, messages = _attempt(launch, payload, state, shards, judge, bar)
                    break
                except _Lost as lost:
                    if attempt == launch.restarts:
                        raise GroupError(f"{lost} ({attempt} restarts)") from lost
        if attempt:
            _forget(launch, state)
        for message in messages:
            warn(message)
        return found
    except BaseException:
        _forget(launch, state)
        raise


def _forget(launch: Launch, state: str) -> None:
    """Remove the remaining states of a fit; a fit that ends on its initial workers has removed them already."""
    if state:
        with suppress(Exception):
            launch.client.run(_rank.forget, state, on_error="ignore")


def _attempt(launch: Launch, payload: bytes, state: str, shards: list[Any], judge: list[Any] | None, bar: Shown) -> Any:
    client = launch.client
    held = _holders(client, shards)
    workers = sorted(held, key=lambda address: min(held[address]))  # workers, roughly in the order of their rows
    judged = None if judge is None else _holders(client, judge, workers)
    known = client.run(_rank.facts, workers=workers, on_error="return")
    facts = [known.get(address) for address in workers]
    if wrong := [one for one in facts if not isinstance(one, _rank.Facts)]:
        if isinstance(wrong[0], Exception) and not isinstance(wrong[0], OSError):
            raise wrong[0]  # the worker has no headrace, or another version
        raise _Lost("group: a worker was lost before the start")
    offices, collective = [one.office for one in facts], _collective(launch.collective, facts, workers)
    job = _rank.Job(uuid.uuid4().hex, workers, offices, collective, launch.timeout, state, bar.name)
    futures = [
        client.submit(
            _rank.rank,
            job,
            number,
            payload if number == 0 else b"",
            {i: shards[i] for i in held[address]},
            None if judge is None or judged is None else {i: judge[i] for i in judged.get(address, [])},
            workers=[address],
            allow_other_workers=False,
            pure=False,
            retries=0,
            key=f"headrace-rank-{number}-{job.name}",
        )
        for number, address in enumerate(workers)
    ]
    try:
        return _watched(launch, job, futures, bar)
    except BaseException as error:
        if not isinstance(error, Exception):  # any other error is raised after the ranks have ended
            _end(client, job, f"the launcher was stopped by {type(error).__name__}")
        with suppress(Exception):
            client.cancel(futures, force=True)
        raise


def _holders(client: Any, shards: list[Any], among: Iterable[str] = ()) -> dict[str, list[int]]:
    """The shards that each worker reads; if several workers hold a shard, the worker with the fewest shards reads it.
    `among`: the workers that may read shards, even if they hold none; empty for all holders.
    """
    from distributed import wait

    wait(shards)
    for shard in shards:
        if shard.status != "finished":
            shard.result()  # raises the error of the failed computation
    who = client.who_has(shards)
    allowed = set(among)
    found: dict[str, list[int]] = {address: [] for address in among}
    for number, shard in enumerate(shards):
        places = [address for address in who.get(shard.key, ()) if not allowed or address in allowed]
        if not places and not allowed:
            raise _Lost("group: a worker was lost before the start")
        address = min(places or allowed, key=lambda one: (len(found.get(one, ())), one))
        found.setdefault(address, []).append(number)
    return found


def _collective(wanted: str, facts: list[Any], workers: list[str]) -> str:
    if wanted == "dask":
        return wanted
    problem = ""
    if not all(one.has_torch for one in facts):
        problem = "PyTorch is not installed on all of them"
    elif len({one.process for one in facts}) < len(facts):
        problem = "some of them are threads of one process"
    if problem and wanted == "gloo":
        raise ValueError(f"collective: expected workers that can use gloo, but {problem}; give collective='dask'")
    if wanted == "gloo":
        return wanted
    encrypted = any(address.startswith("tls:") for address in workers)  # gloo has no encryption
    return "dask" if problem or encrypted else "gloo if it works"


def _watched(launch: Launch, job: _rank.Job, futures: list[Any], bar: Shown) -> Any:
    """Wait for all ranks; if one fails or its worker is gone, end all other ranks and raise the error."""
    client = launch.client
    waiting = list(futures)
    while waiting:
        done = _done(waiting, _LOOK)
        bar.draw()
        gone = set(job.workers) - set(client.nthreads())
        waiting = [future for future in waiting if future not in done]
        if gone or any(future.status != "finished" for future in done):
            if not waiting and all(future.status == "finished" for future in futures) and job.workers[0] not in gone:
                break
            _give_up(launch, job, futures, gone)
    try:
        return futures[0].result(timeout=launch.timeout)
    except TimeoutError:
        raise _Lost("group: the worker of rank 0 was lost with its result") from None


def _done(futures: list[Any], seconds: float) -> set[Any]:
    from distributed import TimeoutError, wait

    try:
        return set(wait(futures, timeout=seconds, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        return set()


def _give_up(launch: Launch, job: _rank.Job, futures: list[Any], gone: set[str]) -> None:
    """End the tasks that still run, and raise the error."""
    from distributed.scheduler import KilledWorker

    from distributed import CancelledError

    lost = ", ".join(sorted(gone))
    _end(launch.client, job, f"a worker was lost: {lost}" if gone else "a rank has failed")
    here = [future for future, address in zip(futures, job.workers, strict=True) if address not in gone]
    left, tries = list(here), int((2 * launch.timeout + 15) / _LOOK)
    while left and tries:
        done = _done(left, _LOOK)
        left, tries = [future for future in left if future not in done], tries - 1
    errors = [future.exception(timeout=launch.timeout) for future in here if future.status == "error"]
    with_reason = [error for error in errors if not isinstance(error, (GroupError, KilledWorker, CancelledError))]
    if with_reason:
        raise with_reason[0]
    text = f"group: a worker was lost: {lost}" if gone else next(map(str, errors), "group: a rank was cancelled")
    raise _Lost(text)


def _end(client: Any, job: _rank.Job, why: str) -> None:
    """Make ranks that wait for another rank raise an error."""
    with suppress(Exception):  # the cluster may be gone
        there = set(client.nthreads()) & set(job.workers)  # `run` would wait for ended workers
        client.run(_rank.end, job.name, why, workers=sorted(there), on_error="ignore")
