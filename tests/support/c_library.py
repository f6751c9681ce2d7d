"""The C library libheadrace, called from Python by ctypes in the way of a C program."""

import ctypes
import os
from pathlib import Path

import numpy as np

from headrace import _cpu

PACKAGE = Path(_cpu.__file__).parent
PATH = PACKAGE / "libheadrace.so"

CODES = {
    "OK": 0,
    "BAD_ARGUMENT": 1,
    "BAD_CONTEXT": 2,
    "BAD_DTYPE": 3,
    "OVERLAP": 4,
    "NO_SUCH_VERB": 5,
    "NO_FILE": 6,
    "BAD_FILE": 7,
    "NEWER_FILE": 8,
    "NO_MEMORY": 9,
    "FAILED": 10,
}
NAMES = {code: name for name, code in CODES.items()}
DTYPES = {np.dtype(np.float32): 1, np.dtype(np.float64): 2}
FROM_START = -1

int64 = ctypes.c_int64


class View(ctypes.Structure):
    """The structs headrace_input and headrace_output, which have the same members."""

    _fields_ = [  # the members, in the form that ctypes requires
        ("data", ctypes.c_void_p),
        ("rows", int64),
        ("columns", int64),
        ("row_stride", int64),
        ("column_stride", int64),
        ("dtype", ctypes.c_int),
    ]


class Refused(ValueError):
    """The exception for a code other than HEADRACE_OK, with the code's name and the message."""

    def __init__(self, code, message):
        super().__init__(f"{NAMES[code]}: {message}")
        self.code = NAMES[code]


def view(array):
    """A NumPy array of one or two axes as a `View`; None, for a null pointer, stays None."""
    if array is None or isinstance(array, View):
        return array
    table = array.reshape(-1, 1) if array.ndim == 1 and array.flags.c_contiguous else array
    if table.ndim == 1:
        table = table[:, None]
    size = table.itemsize
    strides = [step // size for step in table.strides]
    return View(table.ctypes.data, *table.shape, *strides, DTYPES[table.dtype])


def _by_reference(value):
    return None if value is None else ctypes.byref(view(value))


class Library:
    """The functions of headrace.h in a loaded library."""

    def __init__(self, path=PATH):
        self.functions = ctypes.CDLL(str(path))
        for name in ("message", "version"):
            getattr(self.functions, f"headrace_{name}").restype = ctypes.c_char_p
        for name in ("features", "context", "covariates", "hop", "field"):
            getattr(self.functions, f"headrace_{name}").restype = int64
        for name in ("rows", "position", "numbers"):
            getattr(self.functions, f"headrace_stream_{name}").restype = int64

    def message(self):
        return self.functions.headrace_message().decode()

    def check(self, code):
        if code:
            raise Refused(code, self.message())

    def open(self, source):
        """Open a file by its path, or from its bytes."""
        handle = ctypes.c_void_p(1)
        if isinstance(source, bytes):
            data = ctypes.create_string_buffer(source, len(source)) if source else None
            code = self.functions.headrace_open_bytes(data, ctypes.c_size_t(len(source)), ctypes.byref(handle))
        else:
            code = self.functions.headrace_open(str(source).encode(), ctypes.byref(handle))
        if code:
            assert not handle.value
        self.check(code)
        return Handle(self, handle)


class Handle:
    """An open flow or transform of the C library."""

    def __init__(self, library, handle):
        self.library, self.handle = library, handle

    def __del__(self):
        self.library.functions.headrace_close(self.handle)

    def _fact(self, name):
        return getattr(self.library.functions, f"headrace_{name}")(self.handle)

    features = property(lambda self: self._fact("features"))
    context = property(lambda self: self._fact("context"))
    has_density = property(lambda self: bool(self._fact("has_density")))
    is_ensemble = property(lambda self: bool(self._fact("is_ensemble")))
    is_sequence = property(lambda self: bool(self._fact("is_sequence")))
    covariates = property(lambda self: self._fact("covariates"))
    hop = property(lambda self: self._fact("hop"))
    field = property(lambda self: self._fact("field"))
    dtype = property(lambda self: {0: None, 1: np.dtype("float32"), 2: np.dtype("float64")}[self._fact("dtype_of")])

    def call(self, verb, *arrays):
        """Call the function headrace_<verb> with the handle, followed by the arrays."""
        self.library.check(
            getattr(self.library.functions, f"headrace_{verb}")(self.handle, *map(_by_reference, arrays))
        )

    def _own(self, given):
        return self.dtype or given.dtype

    def log_prob(self, x, context=None):
        out = np.full(len(x), 77, self._own(x))
        self.call("log_prob", x, context, out)
        return out

    def to_latent(self, x, context=None):
        return self._both("to_latent", x, context)

    def to_data(self, z, context=None):
        return self._both("to_data", z, context)

    def _both(self, verb, given, context):
        value, log_det = np.full(given.shape, 77, self._own(given)), np.full(len(given), 77, self._own(given))
        self.call(verb, given, context, value, log_det)
        return value, log_det

    def sample(self, n, seed, context=None, first_row=FROM_START, dtype=None, with_log_prob=False):
        x = np.full((n, self.features), 77, dtype or self.dtype)
        log_prob = np.full(n, 77, self.dtype) if with_log_prob else None
        self.draw(seed, first_row, context, x, log_prob)
        return (x, log_prob) if with_log_prob else x

    def draw(self, seed, first_row, context, x, log_prob):
        function = self.library.functions.headrace_sample
        given = (ctypes.c_uint64(seed), int64(first_row), *map(_by_reference, (context, x, log_prob)))
        self.library.check(function(self.handle, *given))

    def gradient(self, x, context=None):
        """The results ``(log_prob, by_x, by_context)`` of headrace_gradient; ``by_context`` is None without context."""
        log_prob, by_x = np.full(len(x), 77, self.dtype), np.full(x.shape, 77, self.dtype)
        by_context = np.full((len(x), self.context), 77, self.dtype) if self.context else None
        self.call("gradient", x, context, log_prob, by_x, by_context)
        return log_prob, by_x, by_context

    def stream(self, rows=1, context=None, covariates=None):
        """A stream of sequences before their first step; `covariates` are frames of shape (rows, frames, columns)."""
        made = ctypes.c_void_p(1)
        function = self.library.functions.headrace_stream_open
        code = function(self.handle, int64(rows), _by_reference(context), ctypes.byref(made))
        if code:
            assert not made.value
        self.library.check(code)
        stream = Stream(self.library, self, made)
        if covariates is not None:
            stream.extend(covariates)
        return stream


class Stream:
    """An open stream of the C library; arrays have the shape (rows, steps, features)."""

    def __init__(self, library, flow, stream):
        self.library, self.flow, self.stream = library, flow, stream

    def __del__(self):
        self.library.functions.headrace_stream_close(self.stream)

    def _fact(self, name):
        return getattr(self.library.functions, f"headrace_stream_{name}")(self.stream)

    rows = property(lambda self: self._fact("rows"))
    position = property(lambda self: self._fact("position"))
    numbers = property(lambda self: self._fact("numbers"))

    def call(self, verb, *given):
        """Call a function of streams by its verb; arrays are passed by reference."""
        passed = [_by_reference(one) if one is None or isinstance(one, (np.ndarray, View)) else one for one in given]
        self.library.check(getattr(self.library.functions, f"headrace_stream_{verb}")(self.stream, *passed))

    def push(self, x, with_latent=False):
        """The log densities, shape (rows, steps); with `with_latent`, the tuple (log densities, latent values)."""
        own = self.flow.dtype
        steps = x.reshape(-1, x.shape[2])
        log_prob = np.full(len(steps), 77, own) if self.flow.has_density else None
        z = np.full(steps.shape, 77, own) if with_latent else None
        self.call("push", steps, log_prob, z)
        log_prob = None if log_prob is None else log_prob.reshape(x.shape[:2])
        return (log_prob, z.reshape(x.shape)) if with_latent else log_prob

    def pull(self, steps, seed, dtype=None):
        x = np.full((self.rows * steps, self.flow.features), 77, dtype or self.flow.dtype)
        self.call("pull", ctypes.c_uint64(seed), x)
        return x.reshape(self.rows, steps, -1)

    def extend(self, covariates):
        """Append frames of covariates, shape (rows, frames, columns), or (frames, columns) for all rows."""
        self.call("extend", int64(covariates.shape[-2]), covariates.reshape(-1, covariates.shape[-1]))

    def copies(self, n):
        made = ctypes.c_void_p(1)
        code = self.library.functions.headrace_stream_copies(self.stream, int64(n), ctypes.byref(made))
        self.library.check(code)
        return Stream(self.library, self.flow, made)

    def state(self):
        numbers = np.full((self.rows, self.numbers), 77, self.flow.dtype)
        self.call("state", numbers)
        return numbers

    def set_state(self, position, numbers):
        self.call("set_state", int64(position), numbers)


def is_shared():
    """Whether the Python module takes the core from libheadrace, as a shared library."""
    (module,) = PACKAGE.glob("_cpu*.so")
    return PATH.name.encode() in module.read_bytes()


def environment():
    """The environment variables for programs that load libheadrace."""
    return dict(os.environ)
