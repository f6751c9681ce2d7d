"""Array frameworks for tests: functions that make arrays of each, and the address of an array."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import headrace as hr

NAMES = ("numpy", "torch", "jax", "pandas")

# Functions that make a value to pass in place of a flow, each with a pattern of the error's message.
NO_FLOWS = [
    (hr.DualAscentFlow, r"DualAscentFlow.* what its fit\(x\) returns, an AscentFlow"),
    (lambda: hr.DualAscentFlow, r"the class DualAscentFlow.* what its fit\(x\) returns"),
    (lambda: hr.Ensemble([hr.MAF(3, seed=s) for s in range(2)]), "Ensemble of 2 flows; make a module of each"),
    (lambda: hr.transforms.Permutation([1, 0]), r"Permutation; .* headrace\.Flow\(\[transform\]\)"),
    (lambda: None, "NoneType$"),
]


@dataclass(frozen=True)
class Framework:
    """An array framework: `make` returns its array with the given values, and `gives` is the type of results."""

    name: str
    module: Any
    make: Callable[[Any], Any]
    gives: type
    pointer: Callable[[Any], int]

    def open(self, array):
        """An array of the framework as a NumPy array, after a check of the type."""
        assert isinstance(array, self.gives)
        return np.asarray(array)


def load(name):
    """The framework with the given name; the test is skipped, with the reason, where it is not installed."""
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
    """A function that turns tables into pandas frames and columns into series, but not a single row of context."""
    return lambda a: pandas.DataFrame(np.array(a)) if np.ndim(a) == 2 else pandas.Series(np.array(a))
