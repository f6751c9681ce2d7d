"""Fits, scores and samples on workers of Dask have the bits of one process, whatever workers do meanwhile."""

import importlib.util
import io
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("dask.array", reason="dask is not installed")
distributed = pytest.importorskip("distributed", reason="distributed is not installed")
# What these libraries warn of is not ours: sockets that a killed worker left, and versions of theirs.
pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("default")]

import dask  # noqa: E402
import dask.array as da  # noqa: E402

import cases  # noqa: E402
import headrace as hr  # noqa: E402
import headrace.dask  # noqa: E402
from fitting import gaussian  # noqa: E402
from headrace.distributed.groups import GroupError, local  # noqa: E402

ROWS, SHARD = 3000, 500
CHUNKS = (700, 0, 1201, 1, 1098)  # uneven, and one is empty
BATCH = {"batch_size": 1024}
WAIT = 120.0


def started(n_workers, processes=True):
    return distributed.LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=processes,
        dashboard_address=":0",
        silence_logs=50,
    )


def wait_for_both(client):
    """Nannies start other workers for those that ended, but now and then one does not: then a third one starts."""
    try:
        client.wait_for_workers(2, timeout=60)
    except TimeoutError:
        client.cluster.scale(3)
        client.wait_for_workers(2, timeout=60)


@pytest.fixture(scope="module")
def client():
    """Two workers that are processes of their own; their nannies start others for those that end."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "HEADRACE_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            patch.setenv(name, "1")
        with started(2) as cluster, distributed.Client(cluster, set_as_default=False) as found:
            yield found


@pytest.fixture(scope="module")
def local_cluster():
    """Five workers in this process, which have nothing but Dask's own connections.

    Workers that ask for a client make it the default one of the process. Where two did, the last to close puts back
    what it found, the other's scheduler, which is gone by then: what was configured before is put back here.
    """
    as_it_was = dask.config.set(scheduler=dask.config.get("scheduler", None))
    with as_it_was, started(5, processes=False) as cluster, distributed.Client(cluster, set_as_default=False) as found:
        yield found


def rows(dtype="float64"):
    return gaussian(ROWS, "dask").astype(dtype)


def weights():
    return cases.rng("dask weights").uniform(0.2, 1.5, ROWS)


def context():
    return cases.rng("dask context").normal(2.0, 3.0, (ROWS, 2))


def cut(array):
    """The shards of a table, as one process has them."""
    return {i: array[begin : begin + SHARD] for i, begin in enumerate(range(0, len(array), SHARD))}


def lazy(array, chunks=CHUNKS):
    return da.from_array(array, chunks=(chunks, *array.shape[1:]))


def same(flow, other, history, its):
    assert hr.to_bytes(flow) == hr.to_bytes(other)
    told = [{k: v for k, v in one.__dict__.items() if k not in ("seconds", "refinement")} for one in (history, its)]
    assert repr(told[0]) == repr(told[1])


MAKE = {
    "MAF": lambda dtype: hr.MAF(3, 2, transforms=2, hidden=(12,), dtype=dtype),
    "NSF": lambda dtype: hr.NSF(3, transforms=2, hidden=(12,), dtype=dtype),
}


def both(client, name, dtype, collective, epochs=2, **more):
    """A fit on the cluster and one by this process, which must be the same."""
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


def test_what_sums_by_default():
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


def test_frames_and_rows_of_ones_own_to_judge_by(local_cluster):
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    import dask.dataframe as dd

    table = pd.DataFrame({"a": rows()[:, 0], "w": weights(), "b": rows()[:, 1], "c": context()[:, 0]})
    frame = dd.from_pandas(table, npartitions=7)
    flow, other = (hr.MAF(2, 1, transforms=2, hidden=(8,)) for _ in range(2))
    x, c, w = table[["a", "b"]].to_numpy(), table[["c"]].to_numpy(), weights()
    told = {"epochs": 2, **BATCH}
    own = (cut(x[:900]), cut(c[:900]), cut(w[:900]))
    history = other.fit(cut(x), cut(c), weights=cut(w), validation=own, group=local(), progress=False, **told)
    judge = frame.loc[:899]
    its = hr.dask.fit(flow, frame, "w", "c", local_cluster, validation=judge, rows=SHARD, **told)
    same(flow, other, its, history)
    scores = hr.dask.log_prob(flow, frame, "c", columns=["a", "b"])
    found = local_cluster.compute(scores).result()
    np.testing.assert_array_equal(found.to_numpy(), flow.log_prob(x, c))
    assert found.index.equals(table.index)


def test_columns_are_chosen_as_those_of_a_stream():
    """By names of any type; one that is given twice is refused."""
    dd, pd = pytest.importorskip("dask.dataframe"), pytest.importorskip("pandas")
    frame = dd.from_pandas(pd.DataFrame(rows()), npartitions=3)  # its columns are called 0, 1, 2
    flow = hr.MAF(2, 1, hidden=(8,))
    found = hr.dask.log_prob(flow, frame, 2).compute()
    np.testing.assert_array_equal(found.to_numpy(), flow.log_prob(rows()[:, :2], rows()[:, 2:]))
    with pytest.raises(ValueError, match="different columns, got 2 twice"):
        hr.dask.log_prob(flow, frame, 2, columns=[1, 2])
    with pytest.raises(ValueError, match="got 7, which is there 0 times"):
        hr.dask.log_prob(flow, frame, 7)


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


# ---- the group -------------------------------------------------------------------------------------------------------


def on_workers(client, size, work):
    """What ``work(group)`` gives or raises on each of so many workers."""
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
        for count in (1, 7, 0, 5000):  # the last one is summed in parts
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


def test_who_stands_still_is_named(local_cluster):
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
    assert not any(worker.extensions["headrace"].messages for worker in local_cluster.cluster.workers.values())


def test_from_dask_refuses():
    with pytest.raises(RuntimeError, match="expected to be called in a task"):
        hr.distributed.from_dask(["tcp://127.0.0.1:1"], "name")


# ---- bars ------------------------------------------------------------------------------------------------------------


class Screen(io.StringIO):
    """A standard error that is, or is not, a terminal."""

    def __init__(self, tty):
        super().__init__()
        self.isatty = lambda: tty


EITHER = pytest.mark.parametrize("tty", [True, False], ids=["a terminal", "no terminal"])


def screen_of(monkeypatch, tty):
    """In the place of the standard error; to be called in the test itself, as pytest sets it anew before."""
    found = Screen(tty)
    monkeypatch.setattr(sys, "stderr", found)
    return found


def short_fit(client, **more):
    told = {"client": client, "rows": SHARD, "epochs": 3, "validation": None, **BATCH, **more}
    hr.dask.fit(hr.MAF(3, hidden=(8,)), lazy(rows()), **told)


def short_ascent(client, **more):
    model = hr.DualAscentFlow.notes(steps=4)
    hr.dask.fit_ascent(model, lazy(rows()), client=client, rows=SHARD, **more)


@EITHER
@pytest.mark.filterwarnings("ignore:fit. a batch is")
@pytest.mark.parametrize("work", [short_fit, short_ascent])
def test_a_fit_shows_how_far_it_is_where_somebody_looks(work, tty, local_cluster, client, monkeypatch):
    screen = screen_of(monkeypatch, tty)
    said = {short_fit: ["fit: 100%", "3/3", "epoch"], short_ascent: ["ascent: 100%", "4/4", "step", "train="]}[work]
    for cluster in (local_cluster, client):  # threads, and processes
        screen.truncate(0)
        work(cluster)
        shown = screen.getvalue()
        if screen.isatty():
            assert all(text in shown for text in said), shown
        else:
            assert shown == ""
    screen.truncate(0)
    work(local_cluster, progress=False)
    assert screen.getvalue() == ""
    from headrace.dask import _shown

    assert not any(_shown._clients.values())


def test_two_fits_have_a_bar_each(monkeypatch, local_cluster):
    """What other fits on the cluster say goes to theirs."""
    from headrace.dask import _shown

    heard = []
    monkeypatch.setattr(_shown.Shown, "hear", lambda self, message: heard.append((self.name, message["fit"])))
    monkeypatch.setattr(sys, "stderr", Screen(True))
    threads = [threading.Thread(target=short_ascent, args=(local_cluster,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert len({name for name, _ in heard}) == 2
    assert all(name == fit for name, fit in heard)


def test_a_bar_goes_back_with_a_fit_that_begins_again(monkeypatch):
    from headrace.dask import _shown

    screen = Screen(True)
    monkeypatch.setattr(sys, "stderr", screen)
    one = _shown.Shown("name")

    def hear(rank, bar, n, closed=False):
        made = {"total": 10, "desc": f"fit {rank}{bar}", "unit": "epoch"}
        one.hear({"rank": rank, "bar": bar, "made": made, "n": n, "postfix": {"train": "1.5"}, "closed": closed})

    hear("a", 1, 4)
    hear("a", 1, 7)  # the latest of a bar
    one.draw()
    hear("b", 2, 10, closed=True)  # of another start; and the next bar begins before anybody has looked
    hear("b", 3, 2)
    one.draw()
    one.draw()
    one.close()
    lines = [line for line in screen.getvalue().replace("\r", "\n").splitlines() if line.strip()]
    last = {name: [line for line in lines if line.startswith(name)][-1] for name in ("fit a1", "fit b2", "fit b3")}
    assert "7/10" in last["fit a1"]
    assert "10/10" in last["fit b2"]
    assert "2/10" in last["fit b3"]
    assert "train=1.5" in last["fit b3"]
    assert "4/10" not in screen.getvalue()


@EITHER
@pytest.mark.parametrize("where", ["a cluster", "this process"])
def test_scores_show_their_rows(where, tty, local_cluster, monkeypatch):
    screen = screen_of(monkeypatch, tty)
    flow, x = MAKE["MAF"]("float32"), rows("float32")
    given = flow, lazy(x), context()
    if where == "a cluster":
        with local_cluster.as_current():
            found = hr.dask.log_prob(*given, progress=True)
    else:
        with dask.config.set(scheduler="threads"):
            found = hr.dask.log_prob(*given, progress=True)
    shown = screen.getvalue()
    if screen.isatty():
        assert "log_prob: 100%" in shown
        assert "3.00k/3.00k" in shown
        assert "row/s" in shown
    else:
        assert shown == ""
    assert found.chunks == (CHUNKS,)
    scores = found.compute(scheduler=local_cluster if where == "a cluster" else "threads")
    np.testing.assert_array_equal(scores, flow.log_prob(x, context()))


@EITHER
def test_scores_of_frames_show_their_parts_and_errors_come_through(tty, local_cluster, monkeypatch):
    screen = screen_of(monkeypatch, tty)
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    import dask.dataframe as dd

    flow = hr.MAF(3, hidden=(8,))
    frame = dd.from_pandas(pd.DataFrame(rows(), columns=list("abc")), npartitions=5)
    with local_cluster.as_current():
        found = hr.dask.log_prob(flow, frame, progress=True)
        np.testing.assert_array_equal(found.compute(), flow.log_prob(rows()))
        assert ("5/5" in screen.getvalue()) == screen.isatty()
        bad = lazy(rows()).map_blocks(lambda block: 1 / len(block) * block, dtype=float, meta=np.empty((0, 3)))
        with pytest.raises(ZeroDivisionError):
            hr.dask.log_prob(flow, bad, progress=True)


# ---- clients that are lost -------------------------------------------------------------------------------------------

ENDLESS = """
import sys
import numpy as np, dask.array as da, distributed, headrace as hr, headrace.dask
if __name__ == "__main__":
    x = da.from_array(np.zeros((3000, 3)) + np.arange(3000.0)[:, None], chunks=(500, 3))
    hr.dask.fit(hr.MAF(3, hidden=(8,)), x, client=distributed.Client(sys.argv[1]), rows=500, epochs=10**7,
                patience=None, batch_size=1024)
"""


def states(client):
    """Of each worker: whether tasks run, ports, and processes."""

    def of_one(dask_worker):
        import psutil

        me = psutil.Process()
        listening = sorted(c.laddr.port for c in me.net_connections("inet") if c.status == psutil.CONN_LISTEN)
        return bool(dask_worker.active_threads), listening, sorted(p.pid for p in me.children(recursive=True))

    return client.run(of_one)


def until(holds):
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.1)
    return False


def has_torch(client):
    return all(client.run(lambda: importlib.util.find_spec("torch") is not None).values())


def test_a_client_that_is_killed_leaves_nothing(client, tmp_path):
    before = states(client)
    assert not any(busy for busy, _, _ in before.values())
    program = tmp_path / "endless.py"
    program.write_text(ENDLESS)
    process = subprocess.Popen([sys.executable, str(program), client.scheduler.address], stderr=subprocess.PIPE)
    try:
        assert until(lambda: all(busy for busy, _, _ in states(client).values())), process.poll()
        if has_torch(client):  # gloo has ports
            assert until(lambda: all(now[1] != before[at][1] for at, now in states(client).items()))
    finally:
        process.kill()
        process.communicate()
    assert until(lambda: states(client) == before), (states(client), before)


def test_a_client_that_is_closed_leaves_nothing(client):
    before, found = states(client), []

    def work():
        try:
            endless = {"epochs": 10**7, "patience": None, **BATCH}
            hr.dask.fit(hr.MAF(3, hidden=(8,)), lazy(rows()), client=other, rows=SHARD, collective="dask", **endless)
        except BaseException as error:
            found.append(error)

    other = distributed.Client(client.scheduler.address, set_as_default=False)
    thread = threading.Thread(target=work)
    thread.start()
    assert until(lambda: all(busy for busy, _, _ in states(client).values())), found
    other.close()
    thread.join(WAIT)
    assert found, "it goes on"
    assert until(lambda: states(client) == before), (states(client), before)


# ---- workers that are lost -------------------------------------------------------------------------------------------

STEP = 9


ADAM = ("headrace._fit.run", "Adam", "step")


def counts_steps(client, ends, called=ADAM, last=STEP):
    """Patch the workers so that they count calls of a step, and one that is told so ends at a certain one."""

    def patch(dask_worker):
        import importlib
        import os

        of = getattr(importlib.import_module(called[0]), called[1])
        whole, taken = getattr(of, called[2]), []
        dask_worker.steps_taken = taken

        def step(*given):
            taken.append(1)
            if dask_worker.address == ends and len(taken) == last:
                os._exit(1)
            return whole(*given)

        setattr(of, called[2], step)
        dask_worker.whole_step = of, called[2], whole

    client.run(patch)


def restore(client):
    """How many steps each worker has counted."""

    def undo(dask_worker):
        if hasattr(dask_worker, "whole_step"):
            setattr(*dask_worker.whole_step)
            del dask_worker.whole_step
            return len(dask_worker.steps_taken)
        return None

    return client.run(undo)


@pytest.mark.parametrize(("where", "collective"), [("file", "auto"), ("scratch", "dask")])
def test_a_worker_that_ends_does_not_change_the_bits(where, collective, client, tmp_path):
    wait_for_both(client)
    workers = sorted(client.scheduler_info()["workers"])
    counts_steps(client, ends=workers[1])
    path = {"checkpoint": tmp_path / "fit.state"} if where == "file" else {}
    try:
        both(client, "MAF", "float32", collective, epochs=6, checkpoint_every=0.0, timeout=10.0, **path)
    finally:
        taken = restore(client)
    assert workers[1] not in taken, "nothing ended"
    steps = 6 * 2  # of two batches, in all
    assert taken[workers[0]] in (steps, steps + 1), taken  # the fit went on, and did not begin anew
    assert not (tmp_path / "fit.state").exists()
    left = client.run(lambda dask_worker: [p for p in os.listdir(dask_worker.local_directory) if "headrace" in p])
    assert not any(left.values())


ASCENTS = {  # a step of each, and at which a worker ends: of the last in the joint training
    "kinks": (
        lambda: hr.DualAscentFlow.notes(steps=8, seed=3),
        ("headrace.distributed.ascent", "SharedChosen", "_judge"),
    ),
    "splines": (
        lambda: hr.DualAscentFlow(steps=4, refine=False),
        ("headrace.distributed.ascent", "SharedSplineAscent", "_curves"),
    ),
    "refined": (lambda: hr.DualAscentFlow(steps=2, refine=True), ADAM),
}


@pytest.mark.parametrize(("name", "collective"), [("kinks", "dask"), ("splines", "auto"), ("refined", "dask")])
def test_an_ascent_whose_worker_ends_begins_anew_with_the_same_bits(name, collective, client, monkeypatch):
    from headrace.ascent import dual_ascent

    wait_for_both(client)
    workers = sorted(client.scheduler_info()["workers"])
    make, called = ASCENTS[name]

    class FewSteps(distributed.WorkerPlugin):
        """Of the joint training, on workers that come later too."""

        name = "few steps"

        def setup(self, worker):
            from headrace.ascent import dual_ascent

            self.whole, dual_ascent.REFINE_STEPS = dual_ascent.REFINE_STEPS, 40

        def teardown(self, worker):
            from headrace.ascent import dual_ascent

            dual_ascent.REFINE_STEPS = self.whole

    monkeypatch.setattr(dual_ascent, "REFINE_STEPS", 40)
    client.register_plugin(FewSteps())
    model, other = make(), make()
    want = model.fit(cut(rows()), weights=cut(weights()), group=local(), progress=False)
    counts_steps(client, ends=workers[1], called=called, last=3)
    try:
        told = {"rows": SHARD, "collective": collective, "timeout": 10.0, "restarts": 1}
        found = hr.dask.fit_ascent(other, lazy(rows()), weights(), client, **told)
    finally:
        taken = restore(client)
        client.unregister_worker_plugin("few steps")
    assert workers[1] not in taken, "nothing ended"
    assert taken[workers[0]] > 3, taken  # it went on
    same(found, want, other.history, model.history)


# ---- scores and samples ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("chunks", [CHUNKS, (3, 0, 2990, 7), (1,) * 9 + (2991,)])
def test_scores_have_the_bits_of_one_call(chunks, dtype, local_cluster):
    flow = MAKE["MAF"](dtype)
    x, c = rows(dtype), context()
    found = hr.dask.log_prob(flow, lazy(x, chunks), c)
    assert found.dtype == dtype
    assert found.chunks == (chunks,)
    np.testing.assert_array_equal(local_cluster.compute(found).result(), flow.log_prob(x, c))
    shared = hr.dask.log_prob(flow, da.from_array(x, chunks=(chunks, (2, 1))), c[0])
    np.testing.assert_array_equal(local_cluster.compute(shared).result(), flow.log_prob(x, c[0]))


@pytest.mark.parametrize("n", [1, 5, 7, 8, 9])
def test_scores_of_few_rows(n, local_cluster):
    flow, x = hr.MAF(3, hidden=(8,)), rows()[:n]
    found = local_cluster.compute(hr.dask.log_prob(flow, da.from_array(x, chunks=(2, 3)))).result()
    np.testing.assert_array_equal(found, flow.log_prob(x))


@pytest.mark.parametrize("n", [0, 5, 1000])
def test_samples_have_the_bits_of_one_call(n, local_cluster):
    flow, c = hr.MAF(3, 2, hidden=(8,)), context()[:n]
    found = hr.dask.sample(flow, n, 7, c, chunks=300)
    assert found.shape == (n, 3)
    np.testing.assert_array_equal(local_cluster.compute(found).result(), flow.sample(n, c, 7, first_row=0))
    found = hr.dask.sample(flow, n, 7, c[0] if n else np.zeros(2), chunks=64, dtype="float64")
    want = flow.sample(n, c[0] if n else np.zeros(2), 7, first_row=0, dtype="float64")
    got = local_cluster.compute(found).result()
    assert got.dtype == found.dtype == np.float64
    np.testing.assert_array_equal(got, want)


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_what_is_refused(local_cluster):
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


# ---- the last one, as it leaves one worker ---------------------------------------------------------------------------


def test_a_worker_that_is_lost_too_often(client):
    wait_for_both(client)
    workers = sorted(client.scheduler_info()["workers"])
    counts_steps(client, ends=workers[0])
    try:
        with pytest.raises(GroupError, match=f"a worker was lost: {workers[0]}"):
            both(client, "NSF", "float32", "dask", epochs=6, restarts=0, timeout=10.0)
    finally:
        restore(client)
