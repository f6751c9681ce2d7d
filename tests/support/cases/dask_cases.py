"""Clusters of Dask with a table on them, and fits on a cluster compared with fits of one process."""

from contextlib import contextmanager

import pytest

da = pytest.importorskip("dask.array", reason="dask is not installed")
distributed = pytest.importorskip("distributed", reason="distributed is not installed")

import dask  # noqa: E402

import cases  # noqa: E402
import headrace as hr  # noqa: E402
import headrace.dask  # noqa: E402
from fitting import gaussian  # noqa: E402
from headrace.distributed.groups import local  # noqa: E402

ROWS, SHARD = 3000, 500
CHUNKS = (700, 0, 1201, 1, 1098)  # the chunks of the table are uneven, and one is empty
BATCH = {"batch_size": 1024}
WAIT = 120.0


def _started(n_workers, processes=True):
    return distributed.LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=processes,
        dashboard_address=":0",
        silence_logs=50,
    )


@contextmanager
def processes():
    """A client of two workers in separate processes; a worker's nanny starts another worker when the worker ends."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "HEADRACE_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            patch.setenv(name, "1")
        with _started(2) as cluster, distributed.Client(cluster, set_as_default=False) as found:
            yield found


@contextmanager
def threads():
    """A client of five workers in this process, whose only connections are those of Dask.

    A worker that asks for a client makes that client the default of the process. If two workers have asked for clients,
    the last client to close restores the scheduler of the other, which has ended by then; therefore this block restores
    the first configuration.
    """
    with (
        dask.config.set(scheduler=dask.config.get("scheduler", None)),
        _started(5, processes=False) as cluster,
        distributed.Client(cluster, set_as_default=False) as found,
    ):
        yield found


def wait_for_both(client):
    """Wait for two workers; start a third one if a nanny has not replaced a worker that ended, as happens at times."""
    try:
        client.wait_for_workers(2, timeout=60)
    except TimeoutError:
        client.cluster.scale(3)
        client.wait_for_workers(2, timeout=60)


def rows(dtype="float64"):
    return gaussian(ROWS, "dask").astype(dtype)


def weights():
    return cases.rng("dask weights").uniform(0.2, 1.5, ROWS)


def context():
    return cases.rng("dask context").normal(2.0, 3.0, (ROWS, 2))


def cut(array):
    """The shards of a table, by index, for one process that has them all."""
    return {i: array[begin : begin + SHARD] for i, begin in enumerate(range(0, len(array), SHARD))}


def lazy(array, chunks=CHUNKS):
    return da.from_array(array, chunks=(chunks, *array.shape[1:]))


def same(flow, other, history, its):
    assert hr.to_bytes(flow) == hr.to_bytes(other)
    of_time = ("seconds", "cpu_seconds", "elapsed", "refinement")
    histories = [{k: v for k, v in one.__dict__.items() if k not in of_time} for one in (history, its)]
    assert repr(histories[0]) == repr(histories[1])


MAKE = {
    "MAF": lambda dtype: hr.MAF(3, 2, transforms=2, hidden=(12,), dtype=dtype),
    "NSF": lambda dtype: hr.NSF(3, transforms=2, hidden=(12,), dtype=dtype),
}


def both(client, name, dtype, collective, epochs=2, **more):
    """Fit on the cluster and in this process, and check that both flows are equal."""
    given = {"weights": weights(), "context": context()} if name == "MAF" else {}
    flow, other = MAKE[name](dtype), MAKE[name](dtype)
    parts = {key: cut(value) for key, value in given.items()}
    parts["validation"] = 0.2
    history = other.fit(cut(rows(dtype)), epochs=epochs, group=local(), progress=False, **BATCH, **parts)
    its = hr.dask.fit(
        flow,
        lazy(rows(dtype)),
        **given,
        client=client,
        epochs=epochs,
        validation=0.2,
        rows=SHARD,
        collective=collective,
        **BATCH,
        **more,
    )
    same(flow, other, its, history)
