"""The tests of simulated devices (test_device_*.py) on a real CUDA device, compared with the CPU's results."""

import gc
import subprocess
import sys

import numpy as np
import pytest

import cases
import cuda_arrays
import frameworks
import headrace as hr
from array_cases import CONTEXT, FEATURES, arrays, call_of, every_call, made_flow
from device_cases import data
from fitting import SHORT
from headrace._fit import run as _fit_run

pytestmark = pytest.mark.gpu

DEEP = 30  # the number of layers in a round trip through a chain


@pytest.fixture
def cupy():
    return cuda_arrays.load("gpu").library


class Library:
    """A library whose arrays are on the first device, with functions that make and read them."""

    def __init__(self, name, cupy):
        self.name, self.cupy = name, cupy
        self.module = cupy if name in ("cupy", "interface", "exchanged") else frameworks.load(name).module
        if name == "torch" and not self.module.cuda.is_available():
            pytest.skip("this PyTorch has no CUDA")
        if name == "jax" and self.module.default_backend() != "gpu":
            pytest.skip("this JAX has no CUDA")

    def make(self, values):
        values = np.ascontiguousarray(values)
        if self.name == "torch":
            return self.module.tensor(values, device="cuda:0")
        if self.name == "jax":
            return self.module.device_put(values, self.module.devices("gpu")[0])
        array = self.cupy.asarray(values)
        return {"cupy": lambda a: a, "interface": Interface, "exchanged": Exchanged}[self.name](array)

    def open(self, array):
        if self.name == "torch":
            assert isinstance(array, self.module.Tensor)
            return array.cpu().numpy()
        if self.name == "jax":
            assert isinstance(array, self.module.Array)
            return np.asarray(array)
        return self.cupy.asnumpy(array)


class Interface:
    """An array whose only protocol is CUDA's array interface."""

    def __init__(self, array):
        self.array = array

    @property
    def __cuda_array_interface__(self):
        return self.array.__cuda_array_interface__


class Exchanged:
    """An array whose only protocol is DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, **keywords):
        return self.array.__dlpack__(**keywords)


@pytest.fixture(params=["cupy", "torch", "jax", "interface", "exchanged"])
def library(request, cupy):
    found = Library(request.param, cupy)
    if found.name != "jax":
        yield found
        return
    before = found.module.config.jax_enable_x64
    found.module.config.update("jax_enable_x64", True)
    yield found
    found.module.config.update("jax_enable_x64", before)


def close(got, want):
    cases.assert_close(got, want, magnitude=np.abs(want).max(initial=1.0), depth=DEEP)


@every_call
def test_every_call(library, kind, name, dtype):
    call, holder = call_of(kind, name, dtype)
    given = arrays(dtype, holder.parameters.size)
    got = call(holder.to("cuda:0"), {key: library.make(array) for key, array in given.items()})
    for result, want in zip(got, call(holder, given), strict=True):
        close(library.open(result), want)


@pytest.mark.parametrize("rows", [0, 1, 7, 100_000])
def test_any_number_of_rows(cupy, rows, dtype):
    flow, x = made_flow(dtype, context=0), cases.rows(rows, FEATURES, dtype)
    close(flow.to("cuda:0").log_prob(cupy.asarray(x)).get(), flow.log_prob(x))


def test_views_of_any_strides(cupy, dtype):
    flow, table = made_flow(dtype, context=0), cases.rows(60, 60, dtype)
    for view in (lambda a: a.T[3:23, 2:6], lambda a: a[::3, 1:9:2], lambda a: a[25:5:-1, 3:7]):
        close(flow.to("cuda:0").log_prob(view(cupy.asarray(table))).get(), flow.log_prob(view(table)))


def test_a_sample_is_that_of_the_cpu(cupy, dtype):
    flow = made_flow(dtype, context=0)
    got = flow.to("cuda:0").sample(10_000, seed=5)
    assert isinstance(got, cupy.ndarray)
    close(got.get(), flow.sample(10_000, seed=5))


def test_functional_kernels(library, dtype):
    z, params = cases.rows(50, 3, dtype), cases.rng("params").standard_normal((50, 3, 14)).astype(dtype)
    got = hr.ops.coupling(library.make(z), library.make(params), "rq_spline")
    for result, want in zip(got, hr.ops.coupling(z, params, "rq_spline"), strict=True):
        close(library.open(result), want)


def test_two_streams(cupy):
    """Calls on one stream, before and after weights are set on another stream, use the weights at the time of the
    call."""
    flow, x = made_flow("float32", context=0), cases.rows(50_000, FEATURES, "float32")
    other = made_flow("float32", context=0)
    other.parameters = 0.5 * flow.parameters
    device, array, weights = flow.to("cuda:0"), cupy.asarray(x), cupy.asarray(other.parameters)
    cupy.cuda.get_current_stream().synchronize()
    first, second = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    for _ in range(20):
        with first:
            before = device.log_prob(array)
        with second:
            device.parameters = weights
        with first:
            after = device.log_prob(array)
            close(before.get(), flow.log_prob(x))
            close(after.get(), other.log_prob(x))
            device.parameters = cupy.asarray(flow.parameters)


def test_arrays_may_go_right_after_the_call(library):
    flow, x = made_flow("float32", context=0), cases.rows(200_000, FEATURES, "float32")
    device, want = flow.to("cuda:0"), flow.log_prob(x)
    for _ in range(10):
        array = library.make(x)
        got = device.log_prob(array)
        del array
        gc.collect()
        spoil = [library.make(np.full_like(x, np.nan)) for _ in range(2)]
        close(library.open(got), want)
        del spoil


def test_a_tensor_of_another_stream(cupy):
    torch = Library("torch", cupy).module
    flow, x = made_flow("float32", context=0), cases.rows(200_000, FEATURES, "float32")
    device, side = flow.to("cuda:0"), torch.cuda.Stream()
    for _ in range(10):
        tensor = torch.tensor(x, device="cuda:0")
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            got = device.log_prob(tensor)
        del tensor
        spoil = torch.full((200_000, FEATURES), float("nan"), device="cuda:0")
        side.synchronize()
        close(got.cpu().numpy(), flow.log_prob(x))
        del spoil


def test_out_of_memory_leaves_the_flow_usable(cupy):
    flow, x = made_flow("float32", context=0), cases.rows(100, FEATURES, "float32")
    device, array = flow.to("cuda:0"), cupy.asarray(x)
    _, total = cupy.cuda.runtime.memGetInfo()
    rows = total // FEATURES  # the results alone need four times the device's memory
    with pytest.raises(MemoryError):
        device.sample(rows)
    close(device.log_prob(array).get(), flow.log_prob(x))


def test_other_devices(cupy):
    flow, x = made_flow("float32", context=0), cases.rows(100, FEATURES, "float32")
    if cupy.cuda.runtime.getDeviceCount() < 2:
        with pytest.raises(hr.CudaUnavailable, match="1 in all"):
            flow.to("cuda:1")
        return
    with cupy.cuda.Device(1):
        array = cupy.asarray(x)
    close(flow.to("cuda:1").log_prob(array).get(), flow.log_prob(x))
    with pytest.raises(TypeError, match=r"x: expected an array on cuda:0, got one on cuda:1"):
        flow.to("cuda:0").log_prob(array)


def test_a_fit_follows_that_of_the_cpu(library):
    x, context, weights = data(2000)
    flow = made_flow("float64")
    device = flow.to("cuda:0")
    want = flow.fit(x, context, weights=weights, **SHORT)
    got = device.fit(library.make(x), library.make(context), weights=library.make(weights), **SHORT)
    assert np.allclose(got.train_loss, want.train_loss, rtol=1e-9)
    assert np.allclose(got.validation_loss, want.validation_loss, rtol=1e-9)
    assert np.allclose(device.to("cpu").parameters, flow.parameters, atol=1e-8)


def test_the_same_fit_twice(cupy):
    x = cupy.asarray(data(2000)[0])
    flows = [made_flow("float32", context=0).to("cuda:0") for _ in range(2)]
    for flow in flows:
        flow.fit(x, **SHORT)
    cases.assert_same_bits(flows[1].to("cpu").parameters, flows[0].to("cpu").parameters)


def test_an_interrupted_fit(cupy, monkeypatch):
    flow, x = made_flow("float32", context=0).to("cuda:0"), cupy.asarray(data(2000)[0])
    find = _fit_run.DeviceRun._find_gradient

    def interrupted(self, index, log_prob):
        find(self, index, log_prob)
        if len(self.history.train_loss) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(_fit_run.DeviceRun, "_find_gradient", interrupted)
    assert flow.fit(x, **SHORT).stopped == "interrupted"
    assert np.isfinite(flow.log_prob(x).get()).all()


@pytest.mark.parametrize("notes", [False, True])
def test_an_ascent_follows_that_of_the_cpu(cupy, notes):
    x = data(2000)[0]
    x[:, 1] += x[:, 0] ** 2
    # The ascent is in float64, because directions are chosen by sorting.
    kind = hr.DualAscentFlow.notes if notes else hr.DualAscentFlow
    model = kind(steps=20 if notes else 3, refine=False, dtype="float64")
    want = model.fit(x, progress=False)
    flow = model.fit(cupy.asarray(x), progress=False)
    assert flow.device == "cuda:0"
    assert np.allclose(flow.to("cpu").log_prob(x), want.log_prob(x), atol=1e-6)


SPIN = """extern "C" __global__ void spin(long long cycles) {
    for (long long begin = clock64(); clock64() - begin < cycles;) {}
}"""


def test_adam_does_not_wait_for_its_norm(cupy):
    """A step of Adam returns while a kernel that was queued before the step is still busy, for about a second.

    If other processes keep the host busy, a step may return later, but not every time.
    """
    flow = made_flow("float32", context=0)
    device, x = flow.to("cuda:0"), cases.rows(500, FEATURES, "float32")
    array, spin = cupy.asarray(x), cupy.RawKernel(SPIN, "spin")
    adam, other = hr.Adam(device), hr.Adam(flow)
    was_ahead = False
    for busy in (False, True, True, True):  # the first step has no busy kernel, because work that is done once may wait
        gradient = device.nll_and_grad(array)[1]
        ahead = cupy.cuda.Event()
        spin((1,), (1,), (np.int64(2_000_000_000 if busy else 1),))
        ahead.record()
        norm = adam.step(gradient)
        was_ahead = busy and not ahead.done
        assert isinstance(norm, cupy.ndarray)
        assert float(norm) == pytest.approx(other.step(flow.nll_and_grad(x)[1]), rel=1e-4)
        if was_ahead:
            break
    assert was_ahead


def test_a_call_in_a_graph_is_refused_and_the_flow_stays_usable(cupy):
    flow, x = made_flow("float32", context=0), cases.rows(100, FEATURES, "float32")
    device, array, stream = flow.to("cuda:0"), cupy.asarray(x), cupy.cuda.Stream(non_blocking=True)
    out = cupy.empty(100, "float32")
    cupy.cuda.get_current_stream().synchronize()
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="one that no CUDA graph is captured from"):
            device.log_prob(array, out=out)
        stream.end_capture()
    close(device.log_prob(array).get(), flow.log_prob(x))


def test_turns_of_many_features_do_not_wait(cupy):
    """Uploads are queued, whatever their size: a step returns while a kernel is busy that was queued earlier."""
    points = cuda_arrays.load("gpu").module.PointsF32
    n, spin = 200, cupy.RawKernel(SPIN, "spin")
    x = cupy.asarray(cases.rows(500, n, "float32"))
    stream = cupy.cuda.get_current_stream().ptr
    moved = points((x.data.ptr, x.shape, x.strides, "float32"), None, 0, stream)
    maps = np.tile([0.1, 0.0, 1.0], (n, 1))
    was_ahead = False
    for busy in (False, True, True, True):
        ahead = cupy.cuda.Event()
        spin((1,), (1,), (np.int64(2_000_000_000 if busy else 1),))
        ahead.record()
        moved.step(maps, 0.0, np.eye(n).ravel(), np.zeros(n), None, [n], list(range(n)), stream)
        was_ahead = busy and not ahead.done
        cupy.cuda.get_current_stream().synchronize()
        if was_ahead:
            break
    assert was_ahead


def test_context_of_one_row(library):
    flow, x = made_flow("float32"), cases.rows(50, FEATURES, "float32")
    row = np.linspace(-1.0, 1.0, CONTEXT).astype("float32")
    close(library.open(flow.to("cuda:0").log_prob(library.make(x), library.make(row))), flow.log_prob(x, row))


def test_no_other_framework_is_imported(cupy):
    code = "import sys, headrace as hr; hr.MAF(2).to('cuda:0').sample(5); print({'torch', 'jax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
