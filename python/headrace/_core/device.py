"""A CUDA device: its streams, its memory as CuPy arrays, and the calls of the compiled module `_cuda`.

CuPy is for a device what NumPy is for the CPU: every array of headrace there is an array of CuPy, often a view of
another library's memory. CuPy is imported where a device is first asked for.

The objects here are those of `_cpu`, with CuPy arrays in place of NumPy's; their work is queued on a stream, and no
call waits for it unless its docstring states it.
"""

from __future__ import annotations

import copy
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import _core
from headrace._base import arguments as check
from headrace._base.install import install
from headrace._base.warn import warn
from headrace._core import CudaUnavailable

CuPyArray = Any
Stream = Any  # of CuPy

BF16_KINDS = {"bf16": 1, "bf16x3": 2, "bf16x6": 3, "bf16_tiles": 4, "bf16x3_tiles": 5, "bf16x6_tiles": 6}
"""Kinds of products in bf16, and their indices in the core."""

MATMULS = {"cpu": ("exact", *BF16_KINDS), "cuda": ("exact", "tf32", "3xtf32")}

CACHES: list[Callable[[], None]] = []
"""Functions that give back device memory which other libraries keep for later; `_arrays` registers them."""

ONCE = ("kink", "finish")  # calls that must not be repeated after an error of memory

_PER_THREAD = 2  # CUDA's handle of each thread's own default stream


def cuda() -> Any:
    """The compiled module."""
    return _core.cuda


def device_named(name: Any, matmul: Any = "exact") -> Device | None:
    """The device of a name like "cuda:1"; None for "cpu". "cuda" is CuPy's current one.

    `matmul`: see `Device`, and for the CPU `Module.to`.

    Raises:
        CudaUnavailable: there is no device, or no CuPy; the message gives the reason.
    """
    kind, colon, digits = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind == "cpu" and not colon:
        matmul_on_cpu(matmul)
        return None
    if kind != "cuda" or (colon and not (digits.isascii() and digits.isdigit())):
        raise ValueError(f"device: expected 'cpu', 'cuda' or a name like 'cuda:0', got {name!r}")
    products = check.choice("matmul", matmul, MATMULS["cuda"])
    cupy, count = _cupy(), _core.cuda.device_count()
    index = int(digits) if colon else int(cupy.cuda.runtime.getDevice())
    if index >= count:
        raise CudaUnavailable(f"device: expected one below 'cuda:{count}', as there are {count} in all, got {name!r}")
    return device_at(index).computing(products)


def matmul_on_cpu(matmul: Any) -> str:
    """How products of networks are computed on the CPU: the user's value, checked.

    Raises:
        ValueError: an unknown way.
    """
    if matmul in MATMULS["cpu"]:
        return str(matmul)
    *names, last = map(repr, MATMULS["cpu"])
    raise ValueError(f"matmul: expected {', '.join(names)} or {last} on the CPU, got {matmul!r}")


@cache
def device_at(index: int) -> Device:
    """The device of an index, one object for all calls.

    Raises:
        CudaUnavailable: the device cannot be used; the message gives the reason.
    """
    cupy, cuda = _cupy(), _core.cuda
    if reason := cuda.device_reason(index):
        raise CudaUnavailable(f"headrace cannot compute on cuda:{index}: {reason}")
    if cuda.is_compiled_by_driver(index):
        warn(
            f"cuda:{index}, {cuda.device_name(index)}, has compute capability {cuda.device_capability(index)}, and "
            f"headrace was built for {cuda.architectures()}: the driver compiles kernels when a call first needs them, "
            "for half a minute in some calls, and keeps them for later processes; a build on this machine avoids it"
        )
    return Device(index, cupy)


def _cupy() -> Any:
    reason = _core.cuda_unavailable()
    if reason:
        raise CudaUnavailable(f"headrace cannot compute on a CUDA device: {reason}")
    try:
        import cupy
    except ImportError as error:
        raise CudaUnavailable(
            f"headrace needs CuPy for CUDA devices, which cannot be imported ({error}); {install('cuda13')}, or cuda12 "
            "where the driver is for it"
        ) from None
    return cupy


class _Handle:
    """A stream of another library, as CuPy takes it over."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


class Device:
    """One CUDA device, and how networks' products are computed there: "exact", or "tf32", "3xtf32" by tensor cores."""

    def __init__(self, index: int, cupy: Any) -> None:
        """See `device_at`."""
        self.index, self.cupy, self.matmul = index, cupy, "exact"
        self._others: dict[str, Device] = {"exact": self}
        self._kept: deque[tuple[Any, Any]] = deque()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """The name that `device_named` takes."""
        return f"cuda:{self.index}"

    def computing(self, matmul: str) -> Device:
        """The device with products of this kind, one object for each kind; all share the objects that `keep` holds."""
        with self._lock:
            if matmul not in self._others:
                self._others[matmul] = other = copy.copy(self)
                other.matmul = matmul
            return self._others[matmul]

    # ---- streams

    def current_stream(self) -> Stream:
        """CuPy's current stream on this device, in this thread."""
        return self.cupy.cuda.get_current_stream(self.index)

    def stream_at(self, address: int) -> Stream:
        """A stream of another library by the address of its cudaStream_t."""
        if not hasattr(self.cupy.cuda.Stream, "from_external"):  # before CuPy 14
            return self.cupy.cuda.ExternalStream(address, self.index)
        # `ExternalStream` takes the current device for the stream's. A later CuPy has to be tried before pyproject.toml
        # allows it: whether the stream survives this object depends on the version.
        with self.cupy.cuda.Device(self.index):
            return self.cupy.cuda.Stream.from_external(_Handle(address))

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        """Inside the block, this device is current, and CuPy queues its work on the stream."""
        with self.cupy.cuda.Device(self.index), stream:
            yield

    def order(self, first: Stream, then: Stream) -> None:
        """Work queued on `then` from now on waits, on the device, for the work queued on `first` until now.

        A thread's own default stream is that of the calling thread: the default stream of another thread cannot be
        determined here.
        """
        if first.ptr == then.ptr != _PER_THREAD:
            return
        with self.cupy.cuda.Device(self.index):
            event = self.cupy.cuda.Event(disable_timing=True)
            event.record(first)
            then.wait_event(event)

    def keep(self, stream: Stream, things: list[Any]) -> None:
        """Keep references to objects until the work queued on the stream until now is done.

        Libraries may reuse the memory of an object without references, on streams of their own. References
        of finished work are dropped at the next call.
        """
        self.let_go()
        with self.cupy.cuda.Device(self.index):
            event = self.cupy.cuda.Event(disable_timing=True)
            event.record(stream)
        self._kept.append((event, things))

    def let_go(self) -> None:
        """Drop the references of `keep` after finished work; work that ends meanwhile waits for the next call.

        A call never waits for the lock, because this thread may hold it: any line here may run the garbage collector,
        and with it the end of a call that keeps something. Objects are freed without the lock: that may run any code.
        """
        done = []
        if self._lock.acquire(blocking=False):
            try:
                while self._kept and self._kept[0][0].done:
                    done.append(self._kept.popleft())
            finally:
                self._lock.release()
        done.clear()

    # ---- memory

    def retried(self, work: Callable[[], Any]) -> Any:
        """The result of `work`, which runs once more, after `give_back`, if memory ran out."""
        try:
            return work()
        except MemoryError:
            self.give_back()
        return work()

    def give_back(self) -> None:
        """Free the memory that libraries of this process keep on the device for reuse. Waits for the device."""
        with self.cupy.cuda.Device(self.index):
            self.cupy.get_default_memory_pool().free_all_blocks()
            for empty in CACHES:
                empty()
        _core.cuda.give_back(self.index)

    def view(
        self, address: int, shape: Sequence[int], dtype: np.dtype[Any], strides: Sequence[int], owner: Any
    ) -> CuPyArray:
        """Memory of another library as a CuPy array, which holds its owner. Strides are in bytes."""
        cuda = self.cupy.cuda
        memory = cuda.UnownedMemory(address, math.prod(shape) * dtype.itemsize, owner, self.index)
        return self.cupy.ndarray(tuple(shape), dtype, cuda.MemoryPointer(memory, 0), strides=tuple(strides))

    def copied(self, copy: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> CuPyArray:
        """An array of this shape, filled by a method of `_cuda` on CuPy's current stream."""
        stream = self.current_stream()
        with self.on(stream):
            out = self.retried(lambda: self.cupy.empty(shape, dtype))
            copy(self.as_argument(out), stream.ptr)
        return out

    def as_argument(self, argument: Any) -> Any:
        """An array in the form that `_cuda` takes: address, shape, strides and dtype; other arguments unchanged."""
        if not isinstance(argument, self.cupy.ndarray):
            return argument
        return argument.data.ptr, argument.shape, argument.strides, argument.dtype.name


class OnStream:
    """The functions of an object of `_cuda` with the signatures of `_cpu`: on CuPy arrays, queued on one stream."""

    def __init__(self, device: Device, core: Any, stream: Stream) -> None:
        """The stream is one of the device."""
        self._device, self._core, self._stream = device, core, stream
        self._where = {"stream": stream.ptr}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A function by its name; where memory runs out it is called twice, except functions of `ONCE`."""
        function, device = getattr(self._core, name), self._device

        def call(*arguments: Any, **named: Any) -> Any:
            with device.cupy.cuda.Device(device.index):
                converted = [device.as_argument(argument) for argument in arguments]
                converted_by_name = {name: device.as_argument(argument) for name, argument in named.items()}

                def work() -> Any:
                    return function(*converted, **converted_by_name, **self._where)

                return work() if name in ONCE else device.retried(work)

        return call


class Kernels(OnStream):
    """Functions of `_cuda`, and its classes with constructors that take arrays: both get the device as an argument."""

    def __init__(self, device: Device, stream: Stream) -> None:
        """The stream is one of the device."""
        super().__init__(device, _core.cuda, stream)
        self._where["device"] = device.index


class Program:
    """A compiled chain of transforms and its weights on a device.

    `OnStream` runs it and sets its weights. Calls may be queued on several streams: a stream that reads the weights
    waits for the one that wrote them, and the other way round.
    """

    def __init__(self, device: Device, dtype: np.dtype[Any], *arguments: Any) -> None:
        """`arguments` are those of `_cpu`'s programs."""
        kind = _core.cuda.ProgramF32 if dtype == np.float32 else _core.cuda.ProgramF64
        self.device, self.dtype = device, dtype
        matmul = device.matmul if dtype == np.float32 else "exact"
        self.core = device.retried(lambda: kind(*arguments, matmul, device.index))

    @property
    def n_weights(self) -> int:
        """Number of values in the vector of weights."""
        return self.core.n_weights

    def weights(self) -> CuPyArray:
        """A copy on the device, on CuPy's current stream."""
        return self.device.copied(self.core.weights, (self.n_weights,), self.dtype)

    def host_weights(self) -> NDArray[Any]:
        """A copy on the host; waits for all changes that are queued."""
        return self.core.host_weights()

    def set_host_weights(self, weights: NDArray[Any]) -> None:
        """Copy in from the host; waits for all that is queued with the weights."""
        self.device.retried(lambda: self.core.set_host_weights(weights))


class Adam:
    """The optimiser of a program on a device; it steps by `OnStream`.

    A step takes one float64 more than on the CPU, which receives the gradient's norm; where that is not finite nothing
    else changes.
    """

    def __init__(self, program: Program, *arguments: float) -> None:
        """`arguments` are those of `_cpu`'s optimisers."""
        kind = _core.cuda.AdamF32 if program.dtype == np.float32 else _core.cuda.AdamF64
        self.program, self.core = program, program.device.retried(lambda: kind(program.core, *arguments))

    def average(self) -> CuPyArray:
        """A copy on the device, on CuPy's current stream."""
        program = self.program
        return program.device.copied(self.core.average, (program.n_weights,), program.dtype)

    def memory(self) -> Any:
        """The optimiser's state as arrays of the host; waits for all queued work."""
        return self.core.memory()

    def set_memory(self, *memory: Any) -> None:
        """The inverse of `memory`."""
        self.core.set_memory(*memory)


class Points:
    """Points of a dual ascent on a device, on the stream that is CuPy's current one when they are made."""

    def __init__(self, x: CuPyArray, weights: CuPyArray | None, dtype: np.dtype[Any]) -> None:
        """Points, with weights or without, as on the CPU."""
        self.device = device_at(x.data.device_id)
        self.shape, self.dtype = x.shape, dtype
        self.total = float(len(x)) if weights is None else float(weights.sum(dtype=np.float64))
        self.stream = self.device.current_stream()
        kind = "PointsF32" if dtype == np.float32 else "PointsF64"
        self.core = getattr(Kernels(self.device, self.stream), kind)(x, weights)
        self.queued = OnStream(self.device, self.core, self.stream)

    def step(self, *arguments: Any) -> NDArray[np.float64] | None:
        """A step with the CPU's arguments, arrays of the host; waits for its sums, if there are any."""
        return self.queued.step(*arguments)

    def values(self) -> CuPyArray:
        """A copy on the device."""
        return self.device.copied(self.core.values, self.shape, self.dtype)

    def squares(self) -> CuPyArray:
        """The CPU's `squares`, on the device."""
        return self.device.copied(self.core.squares, self.shape[:1], np.dtype(np.float64))

    def log_jacobian(self) -> CuPyArray:
        """A copy on the device."""
        return self.device.copied(self.core.log_jacobian, self.shape[:1], np.dtype(np.float64))


def ascent(points: Points, anchors: Points, held_out: Points | None, *rules: Any) -> OnStream:
    """An ascent by kinks that stays on the device, on the stream of its points: see `_points.Chosen`.

    Calls have the arguments of those on the CPU, and only reads wait; log-likelihoods are the first two of the CPU's.
    """
    kind = "AscentF32" if points.dtype == np.float32 else "AscentF64"
    make = getattr(OnStream(points.device, _core.cuda, points.stream), kind)
    parties = points.core, anchors.core, None if held_out is None else held_out.core
    totals = points.total, 1.0 if held_out is None else held_out.total
    return OnStream(points.device, make(*parties, *totals, *rules), points.stream)


def refuse_wide(dtype: Any, matmul: str, call: str) -> None:
    """Refuse other products than exact ones of float64; `call`: the way out."""
    if matmul != "exact" and dtype == np.float64:
        raise ValueError(f"dtype, matmul: expected float32 or 'exact', got float64 and {matmul!r}; call {call}")


def names() -> list[str]:
    """Names of the devices, in order, with their compute capability or the reason why they cannot be used."""
    cuda = _core.cuda
    return [
        f"(not usable: {reason})"
        if (reason := cuda.device_reason(i))
        else f"{cuda.device_name(i)} of compute capability {cuda.device_capability(i)}"
        for i in range(cuda.device_count())
    ]
