"""Pickled flows, transforms, bases and fits have the same bits, in this process and in others."""

import copy
import io
import multiprocessing
import pickle
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import cases
import headrace as hr
from device_cases import FLOWS, foreign

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
BASES = {
    "standard": lambda: hr.StandardNormal(3),
    "logistic": lambda: hr.Logistic(2),
    "fixed": lambda: hr.Normal(2, 0.1, 1 / 3, trainable=False),
    "trainable": lambda: hr.Normal(2, 0.1, 1 / 3),
}


def made(name):
    return cases.randomise(FLOWS[name](), 0.2, name)


def assert_same(one, other):
    """Check that two objects have equal classes, and equal files to the last bit."""
    assert type(one) is type(other)
    assert hr.to_bytes(one) == hr.to_bytes(other)
    np.testing.assert_array_equal(one.parameters, other.parameters)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_comes_back_the_same(name, protocol):
    flow, x = made(name), cases.rows(20, 4, "float32")
    again = pickle.loads(pickle.dumps(flow, protocol))
    assert_same(flow, again)
    np.testing.assert_array_equal(flow.log_prob(x), again.log_prob(x))
    np.testing.assert_array_equal(flow.sample(20, seed=1), again.sample(20, seed=1))
    again.parameters = again.parameters + 1
    assert not len(flow.parameters) or (flow.parameters != again.parameters).any()


@pytest.mark.parametrize("name", FLOWS)
def test_transforms_come_back_the_same(name):
    for transform in made(name).transforms:
        assert_same(transform, pickle.loads(pickle.dumps(transform)))


@pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, lambda base: pickle.loads(pickle.dumps(base))])
@pytest.mark.parametrize("name", BASES)
def test_bases_come_back_the_same(name, through):
    base = BASES[name]()
    again = through(base)
    flow, other = (hr.Flow([], b, dtype="float64") for b in (base, again))
    assert repr(base) == repr(again)
    assert_same(flow, other)


def test_the_base_of_a_flow_from_a_file_keeps_its_bits():
    flow = made("no transforms")
    base = hr.from_bytes(hr.to_bytes(flow)).base
    assert_same(hr.Flow([], base), hr.Flow([], pickle.loads(pickle.dumps(base))))


def test_values_that_are_not_finite_come_back_without_a_warning():
    flow = hr.MAF(2, transforms=1, hidden=(4,))
    flow.parameters = flow.parameters + np.float32(np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = pickle.loads(pickle.dumps(flow))
    np.testing.assert_array_equal(flow.parameters, again.parameters)


def test_fits_come_back_with_their_histories():
    x = cases.rows(300, 2, "float64")
    ascent = hr.DualAscentFlow.notes(steps=4)
    flow = ascent.fit(x, progress=False)
    again, flow_again = pickle.loads(pickle.dumps((ascent, flow)))
    assert again.history == ascent.history
    assert repr(again) == repr(ascent)
    assert len(flow_again) == len(flow)
    assert_same(flow[:2], flow_again[:2])
    history = hr.MAF(2, transforms=1, hidden=(4,)).fit(x, epochs=2, progress=False)
    assert pickle.loads(pickle.dumps(history)) == history


def test_a_class_without_a_file_format_is_refused_with_the_reason():
    class Own(hr.MAF):
        pass

    with pytest.raises(TypeError, match=r"Own: expected one of the classes that files know \(.*MAF"):
        pickle.dumps(Own(2))
    own = Own(2)
    assert type(copy.deepcopy(own)) is Own  # a copy needs no file


@pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, pickle.dumps])
def test_optimisers_can_be_neither_pickled_nor_copied(through):
    adam = hr.Adam(hr.MAF(2))
    with pytest.raises(TypeError, match="Adam cannot be copied or pickled; make a new one for the copy of its flow"):
        through(adam)


@pytest.mark.parametrize("thing", [None, 3, hr.StandardNormal(2), hr.MAF])
def test_bytes_are_of_flows_and_transforms(thing):
    with pytest.raises(TypeError, match="module: expected a flow or a transform, got"):
        hr.to_bytes(thing)


def test_bytes_come_in_any_kind_of_memory():
    data = hr.to_bytes(foreign())
    for memory in (data, bytearray(data), memoryview(data)):
        assert hr.to_bytes(hr.from_bytes(memory)) == data
    with pytest.raises(TypeError, match="data: expected bytes, got str"):
        hr.from_bytes("flow")
    with pytest.raises(hr.FileFormatError, match="data: truncated"):
        hr.from_bytes(data[:-1])


# ---- with other libraries --------------------------------------------------------------------------------------------


def test_equal_flows_have_equal_hashes():
    joblib = pytest.importorskip("joblib", reason="joblib is not installed")
    for name in FLOWS:
        flow = made(name)
        assert joblib.hash(flow) == joblib.hash(made(name)) == joblib.hash(pickle.loads(pickle.dumps(flow)))
        assert joblib.hash(flow) == joblib.hash(copy.deepcopy(flow))
        if len(flow.parameters):
            before, flow.parameters = joblib.hash(flow), flow.parameters * 2
            assert joblib.hash(flow) != before


def test_results_are_cached_by_flow(tmp_path):
    joblib = pytest.importorskip("joblib", reason="joblib is not installed")
    calls = []

    def mean(flow, x):
        calls.append(1)
        return flow.log_prob(x).mean()

    cached = joblib.Memory(tmp_path, verbose=0).cache(mean)
    x = cases.rows(50, 4, "float32")
    values = [cached(made("maf"), x) for _ in range(3)]
    assert len(set(values)) == len(calls) == 1
    cached(made("iaf"), x)
    assert len(calls) == 2


def test_closures_travel_to_workers():
    joblib = pytest.importorskip("joblib", reason="joblib is not installed")
    flow, x = made("maf"), cases.rows(40, 4, "float32")
    parts = joblib.Parallel(n_jobs=2, backend="loky")(
        joblib.delayed(lambda part: flow.log_prob(part))(x[i::2]) for i in range(2)
    )
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(part, flow.log_prob(x[i::2]))


def test_spawned_processes_take_methods_of_flows():
    flow, x = made("splines"), cases.rows(40, 4, "float32")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(flow.log_prob, x).result(timeout=120)
        again = pool.submit(copy.copy, flow).result(timeout=120)
    np.testing.assert_array_equal(there, flow.log_prob(x))
    assert_same(flow, again)


def test_torch_saves_modules_that_hold_flows():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    module = torch.nn.Linear(2, 2)
    module.flow = made("couplings")
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    again = torch.load(stream, weights_only=False)
    assert_same(module.flow, again.flow)
    assert_same(module.flow, copy.deepcopy(module).flow)


def test_dask_sends_flows_to_processes():
    dask = pytest.importorskip("dask", reason="dask is not installed")
    flow, x = made("radial"), cases.rows(40, 4, "float32")
    tasks = [dask.delayed(flow.log_prob)(x[i::2]) for i in range(2)]
    for i, part in enumerate(dask.compute(*tasks, scheduler="processes", num_workers=2)):
        np.testing.assert_array_equal(part, flow.log_prob(x[i::2]))


# ---- devices ---------------------------------------------------------------------------------------------------------


def test_the_device_comes_back_too(machine):
    flow = made("maf").to("cuda:0")
    again = pickle.loads(pickle.dumps(flow))
    assert again.device == flow.device == "cuda:0"
    assert hr.to_bytes(again) == hr.to_bytes(flow)
    for matmul in ("tf32", "3xtf32"):
        again = pickle.loads(pickle.dumps(flow.to("cuda:0", matmul=matmul)))
        assert again.matmul == matmul
        assert hr.to_bytes(again) == hr.to_bytes(flow)  # files do not have the `matmul` of a device


def test_without_a_device_the_flow_comes_back_on_the_cpu_with_a_warning():
    flow = made("maf")
    function, (data, _, _) = flow.__reduce__()
    with pytest.warns(RuntimeWarning, match=r"MAF: pickled on cuda:99, which is not here; it computes on the CPU \("):
        again = function(data, "cuda:99", "tf32")
    assert again.device == "cpu"
    assert_same(flow, again)


# ---- threads ---------------------------------------------------------------------------------------------------------


def test_threads_that_set_different_parameters_do_not_undo_each_other():
    flow = hr.MAF(4, hidden=(64, 64))
    first, *_, last = flow.named_parameters()
    shapes = {name: flow.named_parameters()[name] for name in (first, last)}
    for value in range(1, 100):
        barrier = threading.Barrier(2)

        def write(name, value=value, barrier=barrier):
            barrier.wait()
            flow.set_parameter(name, np.where(shapes[name] != 0, np.float32(value), shapes[name]))

        threads = [threading.Thread(target=write, args=(name,)) for name in shapes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        named = flow.named_parameters()
        for name, fresh in shapes.items():
            assert (named[name][fresh != 0] == value).all()
