"""Programs are compiled at the first use: their count, pending settings, and concurrent threads."""

import copy
import ctypes
import gc
import pickle
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest

import cases
import headrace as hr
from file_cases import EXAMPLES
from headrace._core import cpu

X = cases.rows(20, 3, "float32", "first use")


class Counting:
    """Counts the programs that a compiled module makes; each takes `seconds` longer to compile."""

    def __init__(self, monkeypatch, module=cpu, seconds=0.0):
        self.count, self.seconds = 0, seconds
        for name in ("ProgramF32", "ProgramF64"):
            monkeypatch.setattr(module, name, self.counted(getattr(module, name)))

    def counted(self, kind):
        def made(*arguments, **named):
            self.count += 1
            time.sleep(self.seconds)
            return kind(*arguments, **named)

        return made


@pytest.fixture
def programs(monkeypatch):
    return Counting(monkeypatch)


def maf(**more):
    return hr.MAF(3, transforms=4, hidden=(8,), **more)


def everywhere(flow):
    """Yield calls on a flow that compute nothing, each with its name."""
    yield "parameters", flow.parameters
    yield "named_parameters", flow.named_parameters()
    yield "n_parameters", flow.n_parameters
    yield "transforms", flow.transforms
    yield "base", flow.base
    yield "copy", copy.copy(flow)
    yield "deepcopy", copy.deepcopy(flow)
    yield "pickle", pickle.loads(pickle.dumps(flow))
    yield "file", hr.from_bytes(hr.to_bytes(flow))
    yield "astype", flow.astype("float64")
    yield "to", flow.to("cpu", "bf16")
    yield "slice", flow[:2]
    yield "flow of its transforms", hr.Flow(flow.transforms, flow.base)
    yield "Inverse", hr.transforms.Inverse(flow[0])
    yield "repr", repr(flow)


def test_calls_that_compute_nothing_compile_nothing(programs):
    flow = maf()
    flow.set_parameter("transforms.0.layers.0.bias", np.ones(8, "float32"))
    for what, _ in everywhere(flow):
        assert programs.count == 0, what


def test_a_flow_compiles_one_program(programs):
    flow = maf()
    flow.log_prob(X)
    flow.sample(5)
    flow.log_prob_and_score(X)
    flow.parameters = flow.parameters + 1
    assert programs.count == 1
    for _ in everywhere(flow):
        assert programs.count == 1
    flow[:2].log_prob(X)
    assert programs.count == 2


def test_a_fit_compiles_one_program_though_it_standardises_rows(programs):
    flow = maf()
    flow.fit(X, validation=None, epochs=1, progress=False)
    flow.log_prob(X)
    assert programs.count == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_parameters_before_the_first_use_are_those_of_a_program(name, dtype):
    made = EXAMPLES[name](dtype)
    for module in made if isinstance(made, hr.Ensemble) else [made]:
        fresh = pickle.loads(pickle.dumps(module))
        assert "_program" not in fresh.__dict__
        waiting = fresh._vector()
        used = fresh._program
        assert fresh._waiting is None
        cases.assert_same_bits(waiting, used.weights())
        cases.assert_same_bits(waiting, module._vector())


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "ensemble"])
def test_copies_of_unused_flows_have_equal_results(name):
    module = EXAMPLES[name]("float32")
    x = cases.rows(20, module.features, "float32", "copies")
    x = np.tanh(x) if isinstance(getattr(module, "base", None), hr.Uniform) else x
    context = cases.rows(20, module.context, "float32", "copies of") if module.context else None
    verb = "to_latent" if isinstance(module, hr.Flow) else "inverse"
    want = getattr(module, verb)(x, context)
    for again in (copy.copy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.to("cpu")):
        other = again(again(module))
        for got, wanted in zip(getattr(other, verb)(x, context), want, strict=True):
            np.testing.assert_array_equal(got, wanted)  # bits are not compared: a compiler chooses the sign of a NaN


def test_a_flow_keeps_no_parameters_of_its_transforms():
    tracemalloc.start()
    try:
        hr.MAF(3, hidden=(8,))
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        flow = hr.MAF(16, transforms=5, hidden=(512, 512))
        flow = hr.Flow([hr.transforms.Inverse(hr.transforms.Inverse(t)) for t in flow.transforms])
        gc.collect()
        made = tracemalloc.get_traced_memory()[0] - before
        weights = flow.parameters.nbytes
        flow.log_prob(np.zeros((8, 16), "float32"))
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert weights < made < 1.1 * weights
    assert used < 0.1 * weights  # the core, whose memory is not traced, has the parameters now


MEMORY = """
import ctypes, gc, resource
import numpy as np, headrace as hr

def memory():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

hr.set_num_threads(1)
x = np.zeros((8, 64), np.float32)
hr.MAF(64, hidden=(8,)).log_prob(x)
before = memory()
flow = hr.MAF(64, transforms=5, hidden=(2048, 2048))
made = memory() - before
flow.log_prob(x)
print(flow.parameters.nbytes, made, memory() - before)
"""


@pytest.mark.optimised  # sanitizers take memory, too
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc's allocator gives memory back")
def test_a_process_holds_the_weights_of_five_large_networks_once():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    weights, made, used = map(int, done.stdout.split())
    assert weights < made <= 1.1 * weights
    assert weights < used <= 1.1 * weights


# ---- threads ---------------------------------------------------------------------------------------------------------


def at_once(*work):
    """Return the results of calls that begin together, each in another thread."""
    barrier, results = threading.Barrier(len(work)), [None] * len(work)

    def run(i):
        barrier.wait()
        results[i] = work[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_threads_that_use_a_flow_first_at_once_share_one_program(monkeypatch):
    want = maf().log_prob(X)
    programs, flow = Counting(monkeypatch, seconds=0.05), maf()
    for got in at_once(*[lambda: flow.log_prob(X)] * 4, *[lambda: flow.sample(20, seed=0)] * 2)[:4]:
        cases.assert_same_bits(got, want)
    assert programs.count == 1


def test_a_transform_without_parameters_is_compiled_once_for_each_dtype(monkeypatch):
    programs, link = Counting(monkeypatch, seconds=0.05), hr.transforms.Standardize([1.0], [2.0])
    x = np.ones((3, 1), "float32")
    at_once(*[lambda: link.forward(x)] * 3, *[lambda: link.forward(x.astype("float64"))] * 3)
    assert programs.count == 2


@pytest.mark.parametrize("name", ["set_parameter", "parameters"])
def test_parameters_set_during_the_first_use_are_not_lost(monkeypatch, name):
    Counting(monkeypatch, seconds=0.1)
    flow, bias = maf(), np.full(8, 3.0, "float32")
    vector = flow.parameters + 1

    def change():
        time.sleep(0.03)  # the other thread begins to compile
        if name == "parameters":
            flow.parameters = vector
        else:
            flow.set_parameter("transforms.0.layers.0.bias", bias)

    at_once(lambda: flow.log_prob(X), change)
    if name == "parameters":
        want = maf()
        want.parameters = vector
        cases.assert_same_bits(flow.parameters, want.parameters)
    else:
        cases.assert_same_bits(flow.named_parameters()["transforms.0.layers.0.bias"], bias)


def test_a_reader_during_the_first_use_sees_the_parameters(monkeypatch):
    Counting(monkeypatch, seconds=0.1)
    flow = maf()
    want = flow.parameters

    def read():
        time.sleep(0.03)
        return flow.parameters

    cases.assert_same_bits(at_once(lambda: flow.log_prob(X), read)[1], want)


# ---- refusals at once -----------------------------------------------------------------------------------------

REFUSED = {
    "a map": lambda: hr.MAF(3, map="none"),
    "bins": lambda: hr.NSF(3, bins=10**6),
    "hidden": lambda: hr.MAF(3, hidden=(0,)),
    "order": lambda: hr.transforms.MaskedAutoregressive(3, order=[0, 1, 1]),
    "a matrix": lambda: hr.transforms.Rotation([[1.0, 1.0], [0.0, 1.0]]),
    "a cycle": lambda: hr.transforms.MaskedAutoregressive.from_dense(
        [np.ones((4, 2))], [np.zeros(4)], [np.ones((4, 2))]
    ),
    "shapes of weights": lambda: hr.transforms.Coupling.from_dense(
        [np.ones((3, 1))], [np.zeros(3)], features=2, passive=[0]
    ),
    "products of float64": lambda: hr.MAF(3, dtype="float64").to("cpu", "bf16"),
    "products": lambda: hr.Flow(hr.MAF(3).transforms, matmul="tf32"),
    "features": lambda: hr.Flow([hr.transforms.Permutation([1, 0]), hr.transforms.Standardize([0.0], [1.0])]),
    "contexts": lambda: hr.Flow([hr.transforms.Coupling(2, [0], context=1), hr.transforms.Coupling(2, [0], context=2)]),
    "a scale of the context": lambda: hr.Flow(hr.MAF(2, 1).transforms, standardize_context=(np.zeros(2), np.ones(2))),
    "parameters": lambda: setattr(hr.MAF(3), "parameters", np.zeros(3)),
    "a parameter": lambda: hr.MAF(3).set_parameter("transforms.0.layers.0.bias", np.zeros(3)),
    "a layer": lambda: hr.MAF(3, hidden=hr.Network([hr.Layer(4), hr.Layer(8, adds=0)])),
}


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_arguments_are_refused_before_the_first_use(what, programs):
    with pytest.raises((ValueError, TypeError)):
        REFUSED[what]()
    assert programs.count <= (what == "parameters")
