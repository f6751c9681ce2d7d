"""Fits on workers of Dask have the bits of fits in one process."""

import os

import numpy as np
import pytest

import headrace as hr
from dask_cases import BATCH, ROWS, SHARD, both, context, cut, distributed, lazy, rows, same, weights
from headrace.distributed.groups import local

# Dask and its libraries warn about sockets of killed workers, and about versions.
pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize(
    ("name", "dtype", "collective"),
    [("MAF", "float32", "dask"), ("MAF", "float64", "gloo"), ("NSF", "float32", "auto")],
)
def test_a_fit_has_the_bits_of_one_process(name, dtype, collective, client):
    if collective == "gloo":
        pytest.importorskip("torch", reason="torch is not installed")
    both(client, name, dtype, collective)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_of_one_process_are_ranks_too(dtype, local_cluster):
    both(local_cluster, "MAF", dtype, "auto")


@pytest.mark.parametrize("where", ["one worker", "all"])
def test_every_worker_has_its_share(where, local_cluster):
    from headrace.dask import _launch, _table

    workers = sorted(local_cluster.nthreads())
    with local_cluster.as_current():
        x = local_cluster.persist(lazy(rows()), workers=workers[2:3] if where == "one worker" else None)
        distributed.wait(x)
        shards = _table.shards_of(local_cluster, "", x, context(), None, None, 250)
        held = _launch._holders(local_cluster, shards)
    assert sorted(map(len, held.values())) == [2, 2, 2, 3, 3]
    found = local_cluster.gather(shards)
    np.testing.assert_array_equal(np.concatenate([x for x, _, _ in found]), rows())
    np.testing.assert_array_equal(np.concatenate([c for _, c, _ in found]), context())
    assert all(w is None for _, _, w in found)


def test_warnings_of_a_worker_come_to_the_caller(local_cluster):
    with pytest.warns(RuntimeWarning, match="no more of the"):
        hr.dask.fit(hr.MAF(3, hidden=(8,)), lazy(rows()), client=local_cluster, rows=SHARD, epochs=1, batch_size=512)


def test_without_gloo_the_workers_sum_by_themselves(client):
    pytest.importorskip("torch", reason="torch is not installed")
    client.run(lambda: os.environ.update(GLOO_SOCKET_IFNAME="nosuch0"))
    try:
        with pytest.warns(RuntimeWarning, match="collective: gloo did not start"):
            both(client, "NSF", "float32", "auto", epochs=1)
        with pytest.raises(RuntimeError, match="expected gloo to start on all workers"):
            both(client, "NSF", "float32", "gloo", epochs=1)
    finally:
        client.run(lambda: os.environ.pop("GLOO_SOCKET_IFNAME"))
    both(client, "NSF", "float32", "gloo", epochs=1)


def test_the_default_collective():
    from headrace.dask._launch import _collective
    from headrace.dask._rank import Facts

    one, two, bare = Facts("a", ("host", 1), True), Facts("b", ("host", 2), True), Facts("c", ("host", 3), False)
    tcp, tls = ["tcp://1.2.3.4:1", "tcp://1.2.3.4:2"], ["tls://1.2.3.4:1", "tls://1.2.3.4:2"]
    assert _collective("auto", [one, two], tcp) == "gloo if it works"
    assert _collective("auto", [one, bare], tcp) == "dask"
    assert _collective("auto", [one, one], tcp) == "dask"
    assert _collective("auto", [one, two], tls) == "dask"
    assert _collective("gloo", [one, two], tls) == "gloo"
    with pytest.raises(ValueError, match="PyTorch is not installed on all of them"):
        _collective("gloo", [one, bare], tcp)


def test_an_ascent_has_the_bits_of_one_process(client):
    model, other = (hr.DualAscentFlow.notes(steps=8, seed=3) for _ in range(2))
    flow = model.fit(cut(rows()), weights=cut(weights()), group=local(), progress=False)
    found = hr.dask.fit_ascent(other, lazy(rows()), weights(), client, rows=SHARD)
    same(found, flow, other.history, model.history)


def test_frames_and_given_validation_rows(local_cluster):
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    import dask.dataframe as dd

    table = pd.DataFrame({"a": rows()[:, 0], "w": weights(), "b": rows()[:, 1], "c": context()[:, 0]})
    frame = dd.from_pandas(table, npartitions=7)
    flow, other = (hr.MAF(2, 1, transforms=2, hidden=(8,)) for _ in range(2))
    x, c, w = table[["a", "b"]], table[["c"]], weights()
    arguments = {"epochs": 2, **BATCH}
    own = (cut(x[:900]), cut(c[:900]), cut(w[:900]))
    history = other.fit(cut(x), cut(c), weights=cut(w), validation=own, group=local(), progress=False, **arguments)
    judge = frame.loc[:899]
    its = hr.dask.fit(flow, frame, "w", "c", local_cluster, validation=judge, rows=SHARD, **arguments)
    same(flow, other, its, history)
    assert (flow.feature_names, flow.context_names) == (("a", "b"), ("c",))
    with pytest.raises(ValueError, match=r"x: expected the columns of the fit in their order, 'a', 'b', got them in"):
        hr.dask.fit(flow, frame, "w", "c", local_cluster, columns=["b", "a"], **arguments)
    scores = hr.dask.log_prob(flow, frame, "c", columns=["a", "b"])
    found = local_cluster.compute(scores).result()
    np.testing.assert_array_equal(found.to_numpy(), flow.log_prob(x, c.to_numpy()))
    assert found.index.equals(table.index)


def test_a_row_that_is_not_finite_has_its_number_in_the_table(client):
    x = rows()
    x[[1902, 2500], 1] = np.nan
    flow = hr.MAF(3, hidden=(8,))
    before = hr.to_bytes(flow)
    with pytest.raises(
        ValueError, match=f"x: expected finite numbers, got NaN or infinity in 2 of {ROWS} rows, first in row 1902"
    ):
        hr.dask.fit(flow, lazy(x), client=client, rows=SHARD, epochs=1, collective="dask")
    assert hr.to_bytes(flow) == before


def test_refused_arguments_of_dask_fits(local_cluster):
    flow, x = hr.MAF(3, hidden=(8,)), lazy(rows())

    def fit(**more):
        return hr.dask.fit(flow, x, client=local_cluster, rows=SHARD, **more)

    refused = [
        (TypeError, "flow: expected a headrace.Flow", lambda: hr.dask.fit(3, x, client=local_cluster)),
        (TypeError, "x: expected an array or a frame of Dask", lambda: hr.dask.fit(flow, rows(), client=local_cluster)),
        (ValueError, "weights: expected 3000 rows", lambda: hr.dask.fit(flow, x, weights()[:9], client=local_cluster)),
        (ValueError, "time_budget", lambda: fit(time_budget=3.0)),
        (TypeError, "'epoch'", lambda: fit(epoch=3)),
        (ValueError, "collective: expected one of", lambda: fit(collective="nccl")),
        (ValueError, "threads of one process", lambda: fit(collective="gloo")),
        (TypeError, "client: expected", lambda: hr.dask.fit(flow, x, client=3)),
        (ValueError, "at least one row", lambda: hr.dask.fit(flow, x[:0], client=local_cluster)),
        (ValueError, "columns: expected None", lambda: fit(columns=["a"])),
        (TypeError, "model: expected", lambda: hr.dask.fit_ascent(flow, x, client=local_cluster)),
        (ValueError, "shape", lambda: hr.dask.fit(flow, x[:, :2], client=local_cluster, epochs=1)),
    ]
    for error, match, call in refused:
        with pytest.raises(error, match=match):
            call()
