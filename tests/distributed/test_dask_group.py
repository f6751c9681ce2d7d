"""Ranks that are tasks of Dask: messages among ranks, and a rank that hangs."""

import time

import numpy as np
import pytest

import headrace as hr
from dask_cases import distributed
from headrace.distributed.groups import GroupError

# Dask and its libraries warn about sockets of killed workers, and about versions.
pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("default")]


def on_workers(client, size, work):
    """The results or errors of ``work(group)`` on each of `size` workers."""
    workers = sorted(client.scheduler_info()["workers"])[:size]
    name = f"test {time.monotonic()}"

    def task(rank):
        return work(hr.distributed.from_dask(workers, name, timeout=2.0, start=20.0))

    futures = [
        client.submit(task, rank, workers=[address], allow_other_workers=False, pure=False)
        for rank, address in enumerate(workers)
    ]
    with client.as_current():
        distributed.wait(futures)
    return [one.exception() or one.result() for one in futures]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_verbs_of_a_group(size, local_cluster):
    def numbers(rank, count):
        return np.random.default_rng([rank, count]).integers(-(2**62), 2**62, (3, count))

    def work(group):
        found = []
        for count in (1, 7, 0, 5000):  # 5000 values are summed in parts
            mine = numbers(group.rank, count)
            found.append(group.sum(mine.copy()))
            found.append(group.maximum(mine.astype(np.float64)))
            found += [group.broadcast(mine.copy(), root) for root in range(group.size)]
        return found

    want = []
    with np.errstate(over="ignore"):
        for count in (1, 7, 0, 5000):
            parts = [numbers(rank, count) for rank in range(size)]
            want += [np.sum(parts, axis=0), np.max(parts, axis=0).astype(np.float64), *parts]
    for found in on_workers(local_cluster, size, work):
        assert not isinstance(found, BaseException), found
        assert [(a.dtype, a.shape) for a in found] == [(a.dtype, a.shape) for a in want]
        assert all(np.array_equal(a, b) for a, b in zip(found, want, strict=True))


def test_a_hanging_rank_is_named(local_cluster):
    def work(group):
        if group.rank == 1:
            time.sleep(4.0)
            return "late"
        begin = time.monotonic()
        try:
            group.sum(np.zeros(3, np.int64))
        except GroupError as error:
            return str(error), time.monotonic() - begin
        return None

    for found in on_workers(local_cluster, 3, work):
        if found == "late":
            continue
        assert "got nothing from rank 1" in found[0], found
        assert 1.9 < found[1] < 4.0
    own = [worker.extensions.get("headrace") for worker in local_cluster.cluster.workers.values()]
    offices = [office for office in own if office is not None]  # up to two workers never had a group
    assert len(offices) >= 3
    assert not any(office.messages for office in offices)


def test_from_dask_refuses():
    with pytest.raises(RuntimeError, match="expected to be called in a task"):
        hr.distributed.from_dask(["tcp://127.0.0.1:1"], "name")
