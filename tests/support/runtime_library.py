"""The header headrace.hpp, compiled behind plain functions (tests/runtime/library.cpp) and called from Python."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

import headrace as hr
import web_runtime
from locks import locked

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tests" / "runtime" / "library.cpp"
# HEADRACE_RUNTIME_FLAGS adds flags, such as those of sanitizers, whose libraries LD_PRELOAD must then name.
FLAGS = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
FLAGS += os.environ.get("HEADRACE_RUNTIME_FLAGS", "").split()
VERBS = {"log_prob": 0, "to_latent": 1, "to_data": 2, "sample": 3, "rows": 4}


class Refused(ValueError):
    """The header's exception; its message begins with "format: " where the file is to blame."""


def compiler():
    """The path of a C++ compiler, or None."""
    return shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def compile_to(output, source, *more):
    """Compile one source with the header, as a user does; return the path of the output."""
    command = [compiler(), *FLAGS, f"-I{hr.config.include()}", *more, str(source), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


def compiled_once(temporary, name, source, *more):
    """Compile a source in a folder that processes of pytest-xdist share: one of them compiles, and the others wait."""
    folder = temporary.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with locked(folder / f"{name}.lock"):
        return folder / name if (folder / name).exists() else compile_to(folder / name, source, *more)


def shared_library(temporary):
    """The header's functions, compiled once for all tests that call them; as WebAssembly where HEADRACE_EMXX is set."""
    if web_runtime.compiler():
        return Library(web_runtime.Functions(web_runtime.compiled(temporary.getbasetemp(), SOURCE)))
    # -O1 compiles in a quarter less time; tests of programs compile the header as users do.
    return Library(Functions(compiled_once(temporary, "library.so", SOURCE, "-shared", "-fPIC", "-O1")))


class Functions:
    """The functions of a shared library. Arrays and buffers are passed by their addresses, None as a null pointer."""

    def __init__(self, path):
        self._library = ctypes.CDLL(str(path))

    def __call__(self, name, returns, *given):
        function = getattr(self._library, name)
        function.restype = {"bool": ctypes.c_bool, "pointer": ctypes.c_void_p, "none": None}[returns]
        return function(*map(self._passed, given))

    @staticmethod
    def _passed(value):
        if isinstance(value, np.ndarray):
            return value.ctypes.data_as(ctypes.c_void_p)
        if isinstance(value, bool):
            return ctypes.c_bool(value)
        if isinstance(value, (int, np.uint64)):  # sizes, seeds and addresses are integers of 64 bits
            return ctypes.c_uint64(int(value))
        return value  # bytes, and None, stay unchanged


class Library:
    """The header's functions in a compiled library."""

    def __init__(self, functions):
        self.functions = functions

    def number(self, text, *, by_stream):
        """The value of a number in a file's header; None for a number that double does not hold."""
        value = np.zeros(1)
        done = self.functions("read_number", "bool", text.encode() + b"\0", by_stream, value)
        return float(value[0]) if done else None

    def load(self, source, dtype):
        """Load a file by its path, or from its bytes."""
        return Loaded(self.functions, self._opened("open_flow", source, dtype))

    def load_sequences(self, source, dtype):
        """Load a file of sequences by its path, or from its bytes."""
        return LoadedSequences(self.functions, self._opened("open_sequences", source, dtype), np.dtype(dtype))

    def _opened(self, function, source, dtype):
        message = np.zeros(4096, np.uint8)
        path, data = (None, source) if isinstance(source, bytes) else (str(source).encode() + b"\0", b"")
        wide = np.dtype(dtype) == np.float64
        flow = self.functions(function, "pointer", bool(wide), path, data, len(data), message, len(message))
        if not flow:
            raise Refused(_text(message, "replace"))
        return flow


def _text(message, errors="strict"):
    return message.tobytes().split(b"\0")[0].decode("utf-8", errors)


class Loaded:
    """A flow or transform in C++, whose results are float64.

    A flow of float takes rows of float32, and returns results of float32.
    """

    def __init__(self, functions, flow):
        self._functions, self._flow = functions, flow

    def __del__(self):
        self._functions("close_flow", "none", self._flow)

    def log_prob(self, x, context=None):
        return self._run("log_prob", x, context)[1]

    def to_latent(self, x, context=None):
        return self._run("to_latent", x, context)

    def to_data(self, z, context=None):
        return self._run("to_data", z, context)

    def sample(self, n, features, seed, context=None, first_row=0, dtype="float64"):
        """Sampled rows and their log densities."""
        return self._run("sample", np.zeros((n, features), dtype), context, seed, first_row)

    def rows(self, n, features, seed, dtype):
        """The rows of a sample alone, by the header's shortest call."""
        return self._run("rows", np.zeros((n, features), dtype), None, seed)[0]

    def _run(self, verb, given, context, seed=0, first_row=0):
        narrow = np.asarray(given).dtype == np.float32
        given = np.ascontiguousarray(given, np.float64)
        context = np.empty((0, 0)) if context is None else np.ascontiguousarray(np.atleast_2d(context), np.float64)
        value, per_row = np.full(given.shape, 77.0), np.full(len(given), 77.0)
        message = np.zeros(4096, np.uint8)
        done = self._functions(
            "run_flow",
            "bool",
            self._flow,
            VERBS[verb],
            bool(narrow),
            given,
            len(given),
            context,
            len(context),
            np.uint64(seed),
            np.uint64(first_row),
            value,
            per_row,
            message,
            len(message),
        )
        if not done:
            raise Refused(_text(message))
        return value, per_row


class LoadedSequences:
    """A flow of sequences, or a transform over time, in C++."""

    def __init__(self, functions, flow, dtype):
        self._functions, self._flow, self.dtype = functions, flow, dtype
        facts = np.zeros(6)
        functions("facts_of_sequences", "bool", flow, facts)
        self.features, self.context, self.covariates, self.hop, self.has_density, self.field = facts.astype(
            int
        ).tolist()

    def __del__(self):
        self._functions("close_sequences", "none", self._flow)

    def stream(self, rows=1, context=None, covariates=None):
        """A stream of sequences before their first step, with frames of covariates."""
        context = np.empty((0, 0)) if context is None else np.ascontiguousarray(context, np.float64)
        message = np.zeros(4096, np.uint8)
        given = (self._flow, rows, context, len(context))
        stream = self._functions("open_stream", "pointer", *given, message, len(message))
        if not stream:
            raise Refused(_text(message))
        made = RuntimeStream(self, self._functions, stream, rows)
        if covariates is not None:
            made.extend(covariates)
        return made


class RuntimeStream:
    """A stream of the header; arrays have the shape (rows, steps, features), and results are float64."""

    def __init__(self, flow, functions, stream, rows):
        self._flow, self._functions, self._stream, self.rows = flow, functions, stream, rows

    def __del__(self):
        self._functions("close_stream", "none", self._stream)

    def _call(self, name, *given):
        message = np.zeros(4096, np.uint8)
        if not self._functions(name, "bool", self._stream, *given, message, len(message)):
            raise Refused(_text(message))

    def push(self, x):
        """The log densities, or None for a transform alone, and the latent values."""
        narrow, steps = x.dtype == np.float32, x.shape[1]
        given, z = np.ascontiguousarray(x, np.float64), np.full(x.shape, 77.0)
        log_prob = np.full(x.shape[:2], 77.0) if self._flow.has_density else None
        self._call("push_steps", bool(narrow), given, given.size, steps, log_prob, z)
        return log_prob, z

    def pull(self, steps, seed):
        x = np.full((self.rows, steps, self._flow.features), 77.0)
        self._call("pull_steps", steps, np.uint64(seed), x)
        return x

    def extend(self, covariates):
        frames = np.ascontiguousarray(covariates, np.float64)
        of_rows = 1 if frames.ndim == 2 else len(frames)
        self._call("extend_stream", frames, frames.shape[-2], of_rows)

    def copies(self, n):
        message = np.zeros(4096, np.uint8)
        stream = self._functions("copy_stream", "pointer", self._stream, n, message, len(message))
        if not stream:
            raise Refused(_text(message))
        return RuntimeStream(self._flow, self._functions, stream, n * self.rows)

    def state(self):
        """The position of the stream, and the values of its state, (rows, values)."""
        facts, numbers = np.zeros(2), np.empty(0)
        for _ in range(2):
            self._functions("stream_state", "bool", self._stream, numbers, numbers.size, facts)
            numbers = np.zeros(int(facts[1])) if numbers.size != facts[1] else numbers
        return int(facts[0]), numbers.reshape(self.rows, -1)

    def set_state(self, position, numbers):
        own = np.ascontiguousarray(numbers, np.float64)
        self._call("set_stream_state", np.uint64(position), own, own.size)
