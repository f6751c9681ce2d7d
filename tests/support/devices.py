"""Arrays of each library on a CUDA device for tests: functions that make them, and that read their contents."""

import sys
from contextlib import contextmanager

import numpy as np
import pytest

import fake_cuda
import fake_frameworks
from headrace import _core
from headrace._core import device as _device

KINDS = ("cupy", "torch", "jax", "exchanged", "interface")


class Library:
    """A library whose arrays are on a machine's device, with functions that make arrays and read results."""

    def __init__(self, name, machine):
        self.name, self.machine = name, machine
        self.producer = machine.stream()  # the stream on which libraries other than CuPy and PyTorch write arrays
        if name == "jax":
            self.producer = sys.modules["jax"].own_stream

    def make(self, values, view=lambda array: array):
        """An array, or a view of one, with the given values, written on the stream that the library uses."""
        machine, values = self.machine, np.asarray(values)
        foreign = self.name not in ("cupy", "torch")
        own = self.producer.ptr if foreign else self.current()
        block = fake_frameworks.Block(machine, values.nbytes, own, at_once=foreign)
        array, numbers = block.array(values.shape, values.dtype), values.copy()
        machine.queue(own).add(lambda: np.copyto(array, numbers))
        return self.around(view(array), block)

    def current(self):
        """The address of the stream on which a call queues its work."""
        if self.name == "torch":
            return sys.modules["torch"].cuda.current_stream().cuda_stream
        return self.machine.current_stream().ptr

    def around(self, array, block):
        if self.name == "cupy":
            return self.machine.cupy.ndarray.over(array, block, 0)
        if self.name == "torch":
            return sys.modules["torch"].Tensor(array, block)
        if self.name == "jax":
            return sys.modules["jax"].Array(array, block)
        if self.name == "exchanged":
            return fake_frameworks.Exchanged(self.machine, array, block, self.producer)
        return fake_frameworks.Interface(array, block, self.producer.ptr)

    @property
    def gives(self):
        """The type of the arrays that calls return."""
        if self.name == "torch":
            return sys.modules["torch"].Tensor
        return sys.modules["jax"].Array if self.name == "jax" else self.machine.cupy.ndarray

    def open(self, array):
        """The values of a result, after a check that the result is an array of this library."""
        assert isinstance(array, self.gives)
        self.machine.wait(self.producer.ptr if self.name == "jax" else self.current())
        return (array.on_cpu if self.gives is self.machine.cupy.ndarray else array.array).copy()

    def address(self, array):
        """The address of an array's first value."""
        return (array.on_cpu if isinstance(array, self.machine.cupy.ndarray) else array.array).ctypes.data

    def on(self, stream):
        """A ``with`` block in which work is queued on the given stream."""
        return sys.modules["torch"].cuda.stream(stream.ptr) if self.name == "torch" else stream


either_order = pytest.mark.parametrize("machine", [False, True], ids=["alone", "others first"], indirect=True)
"""Runs a test twice, where streams may affect each other: either stream may be ahead of the other."""


@contextmanager
def in_place(machine, own_torch=False):
    """A ``with`` block in which headrace uses the machine. With `own_torch` PyTorch stays real (torch_device.py)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_core, "cuda", machine.core)
        patch.setattr(_core, "_missing", "")
        patch.setitem(sys.modules, "cupy", machine.cupy)
        if not own_torch:
            patch.setitem(sys.modules, "torch", fake_frameworks.make_torch(machine))
        patch.setitem(sys.modules, "jax", fake_frameworks.make_jax(machine))
        _device.device_at.cache_clear()
        yield machine
        machine.finish()
    _device.device_at.cache_clear()


@pytest.fixture
def machine(request):
    """A simulated device that headrace uses in place of a real one."""
    with in_place(fake_cuda.Machine(others_first=getattr(request, "param", False))) as found:
        yield found


@pytest.fixture(params=KINDS)
def library(request, machine):
    return Library(request.param, machine)
