"""Models with bf16 products: their calls, the rounding of their factors, and ratios, which leave out these models."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

from bench.peers import run
from bench.peers.adapter import UnsupportedError
from bench.peers.adapters import headrace
from bench.peers.worker import Service
from bench.workloads import Workload

LOG_PROB = Workload("maf", 16, (64, 64), 2, "log_prob", 64)
IN_BF16 = ("headrace_bf16", "headrace_bf16_tiles", "zuko_autocast")
STEP = dataclasses.replace(LOG_PROB, verb="train")
ROWS = np.random.default_rng(0).standard_normal((64, 16), dtype=np.float32)


@pytest.fixture
def build(monkeypatch):
    """A function that builds a workload's model by the name of its library; torch compiles nothing, which would take
    half a minute a model."""

    def make(library, workload, device="cpu"):
        service = Service(library, 1, device)
        if "zuko" in library:
            torch = pytest.importorskip("torch")
            pytest.importorskip("zuko")
            monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
            torch.manual_seed(0)
        return service.adapter.build(workload, device, **service.options)

    return make


@pytest.mark.parametrize("matmul", ["bf16", "bf16_tiles"])
def test_densities_and_steps_of_headrace_are_rounded(build, matmul):
    """The densities have the bits of a flow with the same `matmul`, which differ between the settings."""
    flow = headrace.network_flow(LOG_PROB).to("cpu", matmul)
    model, step = (build(f"headrace_{matmul}", workload) for workload in (LOG_PROB, STEP))
    np.testing.assert_array_equal(model.log_prob(ROWS), flow.log_prob(ROWS))
    assert step.train(ROWS) == flow.nll_and_grad(ROWS)[0] != build("headrace", STEP).train(ROWS)
    with pytest.raises(UnsupportedError, match=f"{matmul} is for networks on the CPU"):
        build(f"headrace_{matmul}", LOG_PROB, "cuda")


def test_steps_of_zuko_are_rounded_under_autocast(build):
    rounded, exact = (build(library, STEP) for library in ("zuko_autocast", "zuko"))
    loss, exact_loss = (float(model.train(model.to_native(ROWS))) for model in (rounded, exact))
    assert 0 < abs(loss - exact_loss) < 0.1
    with pytest.raises(UnsupportedError, match="only log_prob, in parallel, is compiled"):
        build("zuko_compiled", STEP)
    with pytest.raises(UnsupportedError, match="only log_prob and train, in parallel, are compiled"):
        build("zuko_autocast", dataclasses.replace(LOG_PROB, verb="sample"))


def test_no_ratio_counts_peers_in_bf16():
    cells = {library: run.Cell(1e-3, 1, foreseen=True) for library in IN_BF16}
    assert run.comparison(cells | {"zuko": run.Cell(2e-3, 1, foreseen=True)})["best_peer"] == "zuko"
    assert run.comparison(cells)["best_peer"] is None


def test_headrace_in_bf16_has_this_interpreter(monkeypatch):
    class FakeWorker:
        def __init__(self, _library, _threads, python, *_: object):
            self.python = python

        def ask(self, _word):
            return {"present": True}

    monkeypatch.setattr(run, "Worker", FakeWorker)
    for library in IN_BF16:
        worker, _ = run.start(library, 1, "/other/python")
        assert worker.python == (sys.executable if library.startswith("headrace") else "/other/python")


def test_a_quick_run_compiles_nothing_and_has_no_tiles():
    every, quick = (set(run.arguments(argv).libraries) for argv in ([], ["--quick"]))
    assert every - quick == {"headrace_bf16_tiles", "zuko_compiled", "zuko_autocast"}
    assert quick < every
