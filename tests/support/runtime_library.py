"""headrace.hpp, compiled behind plain functions (tests/runtime/library.cpp), called from Python."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

import headrace as hr
from locks import locked

ROOT = Path(__file__).resolve().parents[2]
# HEADRACE_RUNTIME_FLAGS: more of them, as sanitizers, whose libraries LD_PRELOAD must name then.
FLAGS = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
FLAGS += os.environ.get("HEADRACE_RUNTIME_FLAGS", "").split()
VERBS = {"log_prob": 0, "to_latent": 1, "to_data": 2, "sample": 3, "rows": 4}

_POINTER = ctypes.c_void_p


class Refused(ValueError):
    """What the header threw: its message begins with "format: " where the file is to blame."""


def compiler():
    """A C++ compiler, or None."""
    return shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def compile_to(output, source, *more):
    """One source with the header, as a user compiles it."""
    command = [compiler(), *FLAGS, f"-I{hr.include()}", *more, str(source), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


def compiled_once(temporary, name, source, *more):
    """The same in a folder that processes of pytest-xdist share: one of them compiles, and the others wait."""
    folder = temporary.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with locked(folder / f"{name}.lock"):
        return folder / name if (folder / name).exists() else compile_to(folder / name, source, *more)


def shared_library(temporary):
    """The header's functions, compiled once for all tests that call them."""
    source = ROOT / "tests" / "runtime" / "library.cpp"
    return Library(compiled_once(temporary, "library.so", source, "-shared", "-fPIC"))


class Library:
    """The compiled functions."""

    def __init__(self, path):
        self._functions = ctypes.CDLL(str(path))
        self._functions.open_flow.restype = _POINTER
        self._functions.run_flow.restype = self._functions.read_number.restype = ctypes.c_bool

    def number(self, text, *, by_stream):
        """A number of a file's header; None for one that double does not hold."""
        value = ctypes.c_double()
        done = self._functions.read_number(text.encode(), ctypes.c_bool(by_stream), ctypes.byref(value))
        return value.value if done else None

    def load(self, source, dtype):
        """From a path, or from bytes."""
        message = ctypes.create_string_buffer(4096)
        path, data = (None, source) if isinstance(source, bytes) else (str(source).encode(), b"")
        wide = ctypes.c_bool(np.dtype(dtype) == np.float64)
        size, room = ctypes.c_size_t(len(data)), ctypes.c_size_t(len(message))
        flow = self._functions.open_flow(wide, path, data, size, message, room)
        if not flow:
            raise Refused(message.value.decode("utf-8", "replace"))
        return Loaded(self._functions, flow)


class Loaded:
    """A flow or transform in C++; results are float64. One of float takes rows of float32 as float, and answers so."""

    def __init__(self, functions, flow):
        self._functions, self._flow = functions, _POINTER(flow)

    def __del__(self):
        self._functions.close_flow(self._flow)

    def log_prob(self, x, context=None):
        return self._run("log_prob", x, context)[1]

    def to_latent(self, x, context=None):
        return self._run("to_latent", x, context)

    def to_data(self, z, context=None):
        return self._run("to_data", z, context)

    def sample(self, n, features, seed, context=None, first_row=0, dtype="float64"):
        """Rows and their log densities."""
        return self._run("sample", np.zeros((n, features), dtype), context, seed, first_row)

    def rows(self, n, features, seed, dtype):
        """Those of a sample, by the shortest call that there is."""
        return self._run("rows", np.zeros((n, features), dtype), None, seed)[0]

    def _run(self, verb, given, context, seed=0, first_row=0):
        narrow = ctypes.c_bool(np.asarray(given).dtype == np.float32)
        given = np.ascontiguousarray(given, np.float64)
        context = np.empty((0, 0)) if context is None else np.ascontiguousarray(np.atleast_2d(context), np.float64)
        value, per_row = np.full(given.shape, 77.0), np.full(len(given), 77.0)
        message = ctypes.create_string_buffer(4096)
        done = self._functions.run_flow(
            self._flow,
            VERBS[verb],
            narrow,
            given.ctypes.data_as(_POINTER),
            ctypes.c_size_t(len(given)),
            context.ctypes.data_as(_POINTER),
            ctypes.c_size_t(len(context)),
            ctypes.c_uint64(seed),
            ctypes.c_uint64(first_row),
            value.ctypes.data_as(_POINTER),
            per_row.ctypes.data_as(_POINTER),
            message,
            ctypes.c_size_t(len(message)),
        )
        if not done:
            raise Refused(message.value.decode())
        return value, per_row
