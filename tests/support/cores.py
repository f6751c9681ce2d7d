"""The library's Python layer over every core: that of the CPU, and the CUDA sources, emulated or on a card.

Tests call transforms, flows and ``headrace.ops`` with NumPy arrays, as users do; under the fixture ``core`` a device's
module takes the calls of the CPU's core and works on copies of the arrays. A test that uses the fixture checks every
core::

    @every_core(map=reference.MAPS, shape={"cpu": [(9, 8)], "device": [(33, 5)]})
    def test_something(core, map, shape): ...

On a device, results start as NaNs, so that tests see unwritten values. Every call runs in one order of the emulation's
threads, which the test's name and the commit choose, or in all orders, whose results must have the same bits.
"""

import itertools
from contextlib import contextmanager

import numpy as np
import pytest

import cases
import cuda_arrays
from headrace._arrays import caller
from headrace._core import cpu, structure
from headrace._flow.program import evaluation as _evaluation
from pairs import empty_of, pairs_of, places_of

NAMES = ("cpu", "emu", "gpu")
OPS = ("coupling", "coupling_backward", "vector_map", "vector_map_backward")


class Cpu:
    """The library on the CPU, with its own core."""

    name, module = "cpu", cpu

    def choose(self, cpu, device):
        """Return the first value on the CPU, and the second one on a device."""
        return cpu


class OnDevice:
    """The interface of ``headrace._cpu``, whose functions a device computes (tests/support/cuda_arrays.py)."""

    def __init__(self, device):
        self.name, self.device, self.module = device.name, device, device.module
        self.ProgramF32, self.ProgramF64 = (self._programs(name) for name in ("ProgramF32", "ProgramF64"))

    def choose(self, cpu, device):
        return device

    def __getattr__(self, name):
        found = getattr(self.module, name)
        if name in OPS:
            where = {"device": self.device.index, "stream": self.device.stream}
            return lambda *arguments, **named: self.call(found, *arguments, **named, **where)
        return found

    def call(self, function, *arguments, **named):
        """Copy arrays to the device, call the function, and copy the outputs back."""
        place = lambda array: (array.ctypes.data, array.shape, array.strides)  # noqa: E731
        # An array that is passed twice is copied once.
        given = {place(a): a for a in arguments if isinstance(a, np.ndarray)}

        def once():
            held = {key: self.device.array(array) for key, array in given.items()}
            converted = (self.device.tuple(held[place(a)]) if isinstance(a, np.ndarray) else a for a in arguments)
            function(*converted, **named)
            return {key: self.device.numpy(array) for key, array in held.items()}

        first, *others = self.device.in_each_order(once)
        for key, array in given.items():
            for other in others:
                cases.assert_same_bits(other[key], first[key])
            if array.flags.writeable:
                array[...] = first[key]

    def _programs(self, name):
        core, kind = self, getattr(self.module, name)

        class Program:
            def __init__(self, *arguments):
                self.inner = kind(*arguments, matmul="exact", device=core.device.index)
                self.n_weights = self.inner.n_weights
                self.weights, self.set_weights = self.inner.host_weights, self.inner.set_host_weights

            def __getattr__(self, name):
                found = getattr(self.inner, name)
                return lambda *arguments, **named: core.call(found, *arguments, **named, stream=core.device.stream)

        return Program


@contextmanager
def in_place(core):
    """A ``with`` block in which headrace uses the given core in place of the CPU's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_evaluation, "cpu", core)
        patch.setattr(structure, "cpu", core)
        patch.setattr(caller.Caller, "core", core)
        patch.setattr(type(caller.NUMPY), "empty", staticmethod(lambda shape, dtype: np.full(shape, np.nan, dtype)))
        yield core


@contextmanager
def using(name):
    """A ``with`` block in which headrace computes with the named core."""
    if name == "cpu":
        yield Cpu()
        return
    with in_place(OnDevice(cuda_arrays.load(name))) as core:
        yield core


params = [pytest.param(name, marks=[pytest.mark.gpu] if name == "gpu" else []) for name in NAMES]


def every_core(*, product=(), together=(), **axes):
    """Run a test on every core: on the cores in ``product`` with all combinations of values, on others with cases of
    ``pairs_of``.

    All combinations of values occur for the axes that ``together`` names, such as those that choose a kernel.

    An axis is a list, or a dict of two lists, one for ``cpu`` and one for every ``device``. An axis for several
    arguments at once is a list of tuples, whose name joins the names of the arguments by ``__``.
    """
    names, rows = [name.split("__") for name in axes], []
    chosen = places_of(axes, together)
    for core in NAMES:
        own = [list(_of_core(axis, core)) for axis in axes.values()]
        marks = [pytest.mark.gpu] if core == "gpu" else []
        taken = itertools.product(*own) if core in product else pairs_of(own, chosen, empty_of(names, own))
        for row in taken:
            flat = itertools.chain(*(value if len(n) > 1 else [value] for n, value in zip(names, row, strict=True)))
            rows.append(pytest.param(core, *flat, marks=marks, id="-".join(map(str, (core, *row)))))
    return pytest.mark.parametrize(("core", *itertools.chain(*names)), rows, indirect=["core"])


def _of_core(axis, core):
    if isinstance(axis, dict) and set(axis) == {"cpu", "device"}:
        return axis["cpu" if core == "cpu" else "device"]
    return axis
