"""Array frameworks for tests: functions that make their arrays, and the address of an array."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import headrace as hr

NAMES = ("numpy", "torch", "jax", "pandas")

# Wrong values in place of a flow, and the error's message.
NO_FLOWS = [
    (hr.DualAscentFlow, r"DualAscentFlow.* what its fit\(x\) returns, an AscentFlow"),
    (lambda: hr.DualAscentFlow, r"the class DualAscentFlow.* what its fit\(x\) returns"),
    (lambda: hr.Ensemble([hr.MAF(3, seed=s) for s in range(2)]), "Ensemble of 2 flows; make a module of each"),
    (lambda: hr.transforms.Permutation([1, 0]), r"Permutation; .* headrace\.Flow\(\[transform\]\)"),
    (lambda: None, "NoneType$"),
]


@dataclass(frozen=True)
class Framework:
    """`make` gives its array of the same numbers; `gives` is the type of results."""

    name: str
    module: Any
    make: Callable[[Any], Any]
    gives: type
    pointer: Callable[[Any], int]

    def open(self, array):
        """An array of the framework as NumPy's, after a check of its type."""
        assert isinstance(array, self.gives)
        return np.asarray(array)


def load(name):
    """The framework of this name; the test is skipped, with the reason, where it is not installed."""
    module = pytest.importorskip(name, reason=f"{name} is not installed")
    if name == "numpy":
        return Framework(name, module, np.asarray, np.ndarray, lambda a: a.ctypes.data)
    if name == "torch":
        return Framework(name, module, lambda a: module.tensor(np.ascontiguousarray(a)), module.Tensor, data_ptr)
    if name == "jax":
        return Framework(name, module, module.numpy.array, module.Array, lambda a: a.unsafe_buffer_pointer())
    return Framework(name, module, frame(module), np.ndarray, lambda a: a.to_numpy().ctypes.data)


def data_ptr(tensor):
    return tensor.data_ptr()


def frame(pandas):
    """Tables become frames and columns series; one row of context does not change."""
    return lambda a: pandas.DataFrame(np.array(a)) if np.ndim(a) == 2 else pandas.Series(np.array(a))
