"""The library's Python layer over another core than the CPU's: the CUDA sources, emulated or on a card.

Transforms, flows and ``headrace.ops`` are called with NumPy arrays as ever; what they ask of the CPU's core is done by
a device's module on copies of the arrays. What judges the CPU so judges every core, in one test (the fixture ``core``).
Results start as NaNs, so that what was not written shows. Every call runs in an order of the emulation's threads that
the test's name and the commit choose, or in each of them, and then must give the same bits.
"""

from contextlib import contextmanager

import numpy as np
import pytest

import cases
from headrace import _module
from headrace._arrays import caller
from headrace._core import structure


class Core:
    """What ``headrace._cpu`` is, by a device (tests/support/cuda_arrays.py)."""

    def __init__(self, device):
        self.device, self.module = device, device.module
        self.ProgramF32, self.ProgramF64 = (self._programs(name) for name in ("ProgramF32", "ProgramF64"))

    def __getattr__(self, name):
        found = getattr(self.module, name)
        if name in ("coupling", "coupling_backward", "vector_map", "vector_map_backward"):
            return lambda *arguments: self.call(found, *arguments, last=(self.device.index, self.device.stream))
        return found

    def call(self, function, *arguments, last):
        """Copies arrays to the device, calls, and copies back what has changed."""
        given = {id(a): a for a in arguments if isinstance(a, np.ndarray)}

        def once():
            held = {key: self.device.array(array) for key, array in given.items()}
            function(*(self.device.tuple(held[id(a)]) if id(a) in held else a for a in arguments), *last)
            return {key: self.device.numpy(array) for key, array in held.items()}

        first, *others = self.device.in_each_order(once)
        for other in others:
            for key, array in first.items():
                cases.assert_same_bits(other[key], array)
        for key, array in given.items():
            if array.flags.writeable:
                array[...] = first[key]

    def _programs(self, name):
        core, kind = self, getattr(self.module, name)

        class Program:
            def __init__(self, *arguments):
                self.inner = kind(*arguments, tf32=False, device=core.device.index)
                self.n_weights = self.inner.n_weights
                self.weights, self.set_weights = self.inner.host_weights, self.inner.set_host_weights

            def __getattr__(self, name):
                found = getattr(self.inner, name)
                return lambda *arguments: core.call(found, *arguments, last=(core.device.stream,))

        return Program


def _empty(shape, dtype):
    return np.full(shape, np.nan, dtype)


@contextmanager
def in_place(core):
    """Inside, headrace takes this core for the CPU's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_module, "cpu", core)
        patch.setattr(structure, "cpu", core)
        patch.setattr(caller.Caller, "core", core)
        patch.setattr(type(caller.NUMPY), "empty", staticmethod(_empty))
        yield core
