"""Pythons without a global lock: the core leaves the lock off, and caches that threads share have right values."""

import sys
import sysconfig
import threading

import numpy as np
import pytest

import cases
import headrace as hr

free_threaded = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a global lock"
)


@free_threaded
def test_importing_the_core_leaves_the_lock_off():
    assert not sys._is_gil_enabled()


def at_once(work, threads=8):
    """Return the results of `work(i)` in `threads` threads that begin together."""
    begin, found = threading.Barrier(threads), [None] * threads

    def run(i):
        begin.wait(60)
        found[i] = work(i)

    workers = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert all(one is not None for one in found)
    return found


def test_threads_make_fit_and_score_flows_at_once():
    x = cases.rows(200, 3, "float32")

    def work(i):
        flow = hr.NSF(3, transforms=2, hidden=(8, 8), seed=i % 2)
        flow.fit(x, epochs=2, seed=0, progress=False)
        return flow.log_prob(x)

    found = at_once(work)
    for i, result in enumerate(found):
        cases.assert_same_bits(result, found[i % 2])
    assert not np.array_equal(found[0], found[1])


def test_threads_call_one_flow_at_once():
    """The first call compiles the program of a flow, while the other calls wait."""
    x = cases.rows(200, 3, "float32")
    calls = [
        lambda flow: flow.log_prob(x),
        lambda flow: flow.sample(200, seed=1),
        lambda flow: flow.to_latent(x)[0],
        lambda flow: flow.log_prob_and_score(x)[1],
    ]
    for seed in range(10):
        flow = hr.NSF(3, transforms=2, hidden=(8, 8), seed=seed)
        found = at_once(lambda i, flow=flow: calls[i % len(calls)](flow))
        alone = hr.NSF(3, transforms=2, hidden=(8, 8), seed=seed)
        for i, result in enumerate(found):
            cases.assert_same_bits(result, calls[i % len(calls)](alone))


def test_threads_make_entries_of_torch_s_operators_at_once():
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("headrace.torch")
    x = torch.zeros(20, 3)

    def work(i):
        made = [module.FlowModule(hr.MAF(3, transforms=1, hidden=(4,), seed=i)) for _ in range(20)]
        return [float(one.log_prob(x).detach()[0]) for one in made]

    found = at_once(work, 4)
    assert all(len(set(results)) == 1 for results in found)
    assert len({results[0] for results in found}) == 4
