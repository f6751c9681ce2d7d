"""Arrays on a CUDA device for tests, one kind for each library: how they are made, and what is in them."""

import gc
import sys

import numpy as np
import pytest

import fake_cuda
from headrace import _core, _device

KINDS = ("cupy", "torch", "jax", "exchanged", "interface")


class Library:
    """Makes arrays on a machine's device as one library does, and reads results."""

    def __init__(self, name, machine):
        self.name, self.machine = name, machine
        self.producer = machine.stream()  # on which foreign arrays are written, unless it is the caller's own
        if name == "jax":
            self.producer = sys.modules["jax"].own_stream

    def make(self, values):
        """An array with these numbers, which are written on the stream on which the library says they are."""
        machine, values = self.machine, np.asarray(values)
        own = machine.current_stream() if self.name == "cupy" else self.producer
        if self.name == "torch":
            own = machine.cupy.cuda.Stream.of(sys.modules["torch"].cuda.current_stream().cuda_stream)
        foreign = self.name not in ("cupy", "torch")
        block = fake_cuda.Block(machine, values.nbytes, own.ptr, at_once=foreign)
        array = block.array(values.shape, values.dtype)
        numbers = values.copy()
        keep = machine.blocks[-1]
        machine.queue(own.ptr).add(lambda: (keep, np.copyto(raw_like(array, keep), numbers)))
        return self.around(array, block)

    def around(self, array, block):
        if self.name == "cupy":
            return self.machine.cupy.ndarray.over(array, block, 0)
        if self.name == "torch":
            return sys.modules["torch"].Tensor(array, block)
        if self.name == "jax":
            return sys.modules["jax"].Array(array, block)
        if self.name == "exchanged":
            return fake_cuda.Exchanged(self.machine, array, block, self.producer)
        return fake_cuda.Interface(array, block, self.producer.ptr)

    @property
    def gives(self):
        """The type of results."""
        if self.name == "torch":
            return sys.modules["torch"].Tensor
        return sys.modules["jax"].Array if self.name == "jax" else self.machine.cupy.ndarray

    def open(self, array):
        """The numbers of a result, after a check that it is of this library."""
        assert isinstance(array, self.gives)
        stream = self.machine.current_stream().ptr
        if self.name == "torch":
            stream = sys.modules["torch"].cuda.current_stream().cuda_stream
        if self.name == "jax":
            stream = self.producer.ptr
        self.machine.wait(stream)
        return (array.on_cpu if self.gives is self.machine.cupy.ndarray else array.array).copy()

    def stream(self, stream):
        """A context in which work is queued on this stream."""
        return sys.modules["torch"].cuda.stream(stream.ptr) if self.name == "torch" else stream


def raw_like(array, raw):
    """The same place in memory without the array, which may be gone by then."""
    start = array.ctypes.data - raw.ctypes.data
    return np.ndarray(array.shape, array.dtype, raw[start : start + array.nbytes])


@pytest.fixture(params=[False, True], ids=["alone", "others first"])
def machine(request, monkeypatch):
    """A device in the place of a real one; of two streams, the one or the other is ahead."""
    made = fake_cuda.Machine(others_first=request.param)
    monkeypatch.setattr(_core, "cuda", made.core)
    monkeypatch.setattr(_core, "_missing", "")
    monkeypatch.setitem(sys.modules, "cupy", made.cupy)
    monkeypatch.setitem(sys.modules, "torch", fake_cuda.make_torch(made))
    monkeypatch.setitem(sys.modules, "jax", fake_cuda.make_jax(made))
    _device.device_at.cache_clear()
    yield made
    gc.collect()
    made.finish()
    _device.device_at.cache_clear()


@pytest.fixture(params=KINDS)
def library(request, machine):
    return Library(request.param, machine)
