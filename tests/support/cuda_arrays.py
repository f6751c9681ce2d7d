"""Arrays on a device for tests of the CUDA modules: those of NumPy under ``_emu``, those of CuPy under ``_cuda``.

The modules take an array as a tuple (address, shape, strides in bytes, dtype) and a stream as an address. A test keeps
the array for as long as its tuple is used::

    def test_something(device):
        x, out = device.array(values), device.empty(values.shape, values.dtype)
        device.module.some_function(device.tuple(x), device.tuple(out), device=device.index, stream=device.stream)
        got = device.numpy(out)
"""

import functools
import os
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

import emulation

ORDERS = {"ascending": 0, "descending": 1, "shuffled": 5}
EVERY_ORDER = os.environ.get("HEADRACE_EMU_EVERY_ORDER") == "1"
"""Whether every test runs in all orders. By default only tests of orders do, and ``order_of`` chooses one for any
other."""


@functools.cache
def seed():
    """The seed of orders of threads: HEADRACE_EMU_SEED, or otherwise the commit, so that each commit has other
    orders."""
    if given := os.environ.get("HEADRACE_EMU_SEED"):
        return given
    ask = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no commit"


def order_of(test, seed):
    """The name of one of ``ORDERS``, which depends on the name of a test."""
    return list(ORDERS)[zlib.crc32(f"{test} {seed}".encode()) % len(ORDERS)]


class Emulated:
    """The emulated device, whose memory is that of NumPy arrays."""

    index = stream = 0

    def __init__(self, module):
        self.name, self.module, self.library = "emu", module, np

    def array(self, values, dtype=None):
        """A copy of the values on the device, in C order."""
        return np.array(values, dtype, order="C")

    def empty(self, shape, dtype):
        """An array of NaNs (all bits are 1), like new memory of the emulation, so that tests see unwritten values."""
        found = np.empty(shape, dtype)
        found.reshape(-1).view(np.uint8).fill(0xFF)
        return found

    def tuple(self, array):
        """An array in the form that the module takes; None stays None."""
        if array is None:
            return None
        return array.ctypes.data, array.shape, array.strides, array.dtype.name

    def numpy(self, array):
        """The values of an array on the host."""
        return array

    def in_each_order(self, run, every=False):
        """The results of ``run()``: one for each order of threads if ``every``, otherwise one in the order of this
        test."""
        test = os.environ["PYTEST_CURRENT_TEST"].removesuffix(" (call)")
        orders = ORDERS if every or EVERY_ORDER else [order_of(test, seed())]
        results = []
        for order in orders:
            self.module.schedule(ORDERS[order])
            results.append(run())
        self.module.schedule(ORDERS["ascending"])
        return results


class OnGPU:
    """The first device of this machine, whose arrays are those of CuPy."""

    index = 0

    def __init__(self, module, cupy):
        self.name, self.module, self.library = "gpu", module, cupy

    @property
    def stream(self):
        return self.library.cuda.get_current_stream().ptr

    def array(self, values, dtype=None):
        return self.library.array(values, dtype, order="C")

    def empty(self, shape, dtype):
        found = self.library.empty(shape, dtype)
        found.reshape(-1).view(np.uint8).fill(0xFF)
        return found

    def tuple(self, array):
        if array is None:
            return None
        return array.data.ptr, array.shape, array.strides, array.dtype.name

    def numpy(self, array):
        return self.library.asnumpy(array)

    def in_each_order(self, run, every=True):
        """The results of two runs, whose orders of threads the device chooses."""
        return [run(), run()]


def unaligned(device, values, by=1):
    """A copy of the values on the device, in C order, that starts ``by`` values after the start of its memory."""
    memory = device.empty((values.size + by,), values.dtype)
    memory[by:] = device.array(values.reshape(-1))
    return memory[by:].reshape(values.shape)


def load(name):
    """The device with the given name; the test is skipped, with the reason, where the device is missing."""
    if name == "emu":
        try:
            return Emulated(emulation.load())
        except emulation.Unavailable as error:
            pytest.skip(str(error))
    cuda = pytest.importorskip("headrace._cuda", reason="headrace was built without CUDA")
    if not cuda.device_count():
        pytest.skip(f"no CUDA device: {cuda.reason()}")
    return OnGPU(cuda, pytest.importorskip("cupy", reason="CuPy is not installed"))
