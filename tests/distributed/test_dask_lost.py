"""Clients and workers of Dask that are lost while a fit runs."""

import importlib.util
import os
import subprocess
import sys
import threading
import time

import pytest

import headrace as hr
from dask_cases import BATCH, SHARD, WAIT, both, cut, distributed, lazy, rows, same, wait_for_both, weights
from headrace.distributed.groups import GroupError, local

# Dask and its libraries warn about sockets of killed workers, and about versions.
pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("default")]


ENDLESS = """
import sys
import numpy as np, dask.array as da, distributed, headrace as hr, headrace.dask
if __name__ == "__main__":
    x = da.from_array(np.zeros((3000, 3)) + np.arange(3000.0)[:, None], chunks=(500, 3))
    hr.dask.fit(hr.MAF(3, hidden=(8,)), x, client=distributed.Client(sys.argv[1]), rows=500, epochs=10**7,
                patience=None, batch_size=1024)
"""


def states(client):
    """The state of each worker: whether tasks run, its ports, and its processes."""

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
        if has_torch(client):  # gloo listens at ports
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
    thread = threading.Thread(target=work, daemon=True)
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
    """Patch the workers so that they count calls of a step; the worker at the address `ends` exits at call `last`."""

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
    """Restore the step, and return the number of steps that each worker has counted."""

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
    steps = 6 * 2  # six epochs of two batches
    assert taken[workers[0]] in (steps, steps + 1), taken  # the fit resumed, and did not begin anew
    assert not (tmp_path / "fit.state").exists()
    left = client.run(lambda dask_worker: [p for p in os.listdir(dask_worker.local_directory) if "headrace" in p])
    assert not any(left.values())


# The counted function of each ascent, and the call at which a worker ends, for the last ascent in joint training.
ASCENTS = {
    "kinks": (
        lambda: hr.DualAscentFlow.notes(steps=8, seed=3),
        ("headrace.ops._points", "Chosen", "kink"),
    ),
    "splines": (
        lambda: hr.DualAscentFlow(steps=4, refine=False),
        ("headrace.ascent.splines", "SplineAscent", "_curves"),
    ),
    "refined": (lambda: hr.DualAscentFlow(steps=2, refine=True), ADAM),
}


@pytest.mark.parametrize(("name", "collective"), [("kinks", "dask"), ("splines", "auto"), ("refined", "dask")])
def test_an_ascent_whose_worker_ends_begins_anew_with_the_same_bits(name, collective, client, monkeypatch):
    from headrace.ascent import competing_fits as contest

    wait_for_both(client)
    workers = sorted(client.scheduler_info()["workers"])
    make, called = ASCENTS[name]

    class FewSteps(distributed.WorkerPlugin):
        """A plugin that shortens the joint training, even on workers that start later."""

        name = "few steps"

        def setup(self, worker):
            from headrace.ascent import competing_fits as contest

            self.whole, contest.REFINE_STEPS = contest.REFINE_STEPS, 40

        def teardown(self, worker):
            from headrace.ascent import competing_fits as contest

            contest.REFINE_STEPS = self.whole

    monkeypatch.setattr(contest, "REFINE_STEPS", 40)
    client.register_plugin(FewSteps())
    model, other = make(), make()
    want = model.fit(cut(rows()), weights=cut(weights()), group=local(), progress=False)
    counts_steps(client, ends=workers[1], called=called, last=3)
    try:
        arguments = {"rows": SHARD, "collective": collective, "timeout": 10.0, "restarts": 1}
        found = hr.dask.fit_ascent(other, lazy(rows()), weights(), client, **arguments)
    finally:
        taken = restore(client)
        client.unregister_worker_plugin("few steps")
    assert workers[1] not in taken, "nothing ended"
    assert taken[workers[0]] > 3, taken  # the remaining worker went on
    same(found, want, other.history, model.history)


def test_a_worker_that_is_lost_too_often(client):
    wait_for_both(client)
    workers = sorted(client.scheduler_info()["workers"])
    counts_steps(client, ends=workers[0])
    try:
        with pytest.raises(GroupError, match=f"a worker was lost: {workers[0]}"):
            both(client, "NSF", "float32", "dask", epochs=6, restarts=0, timeout=10.0)
    finally:
        restore(client)
