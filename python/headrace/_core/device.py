"""A CUDA device: its streams, its memory as CuPy arrays, and the calls of the compiled module `_cuda`.

Every array of headrace on a device is a CuPy array, often a view of another library's memory. CuPy is imported when a
device is first requested.

The objects of this module have the interfaces of `_cpu`, with CuPy arrays in place of NumPy's; calls queue their work
on a stream, and do not wait for its end unless a docstring states that.
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
Stream = Any  # a stream of CuPy

BF16_KINDS = {"bf16": 1, "bf16x3": 2, "bf16x6": 3, "bf16_tiles": 4, "bf16x3_tiles": 5, "bf16x6_tiles": 6}
"""The kinds of products in bf16, and their indices in the core."""

MATMULS = {"cpu": ("exact", *BF16_KINDS), "cuda": ("exact", "tf32", "3xtf32")}

CACHES: list[Callable[[], None]] = []
"""Functions that free device memory which other libraries keep for reuse; `_arrays` registers them."""

ONCE = ("kink", "finish")  # calls that must not be repeated if device memory runs out

_PER_THREAD = 2  # CUDA's handle of each thread's own default stream


def cuda() -> Any:
    """The compiled module `_cuda`."""
    return _core.cuda


def device_named(name: Any, matmul: Any = "exact") -> Device | None:
    """The `Device` for a name like "cuda:1"; None for "cpu". The name "cuda" stands for CuPy's current device.

    `matmul`: the products of networks, as in `Parametrised.to`.

    Raises:
        CudaUnavailable: the device does not exist, or CuPy is missing; the message has the reason.
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
    """The checked setting for products of networks on the CPU.

    Raises:
        ValueError: the CPU has no setting of this name.
    """
    if matmul in MATMULS["cpu"]:
        return str(matmul)
    *names, last = map(repr, MATMULS["cpu"])
    raise ValueError(f"matmul: expected {', '.join(names)} or {last} on the CPU, got {matmul!r}")


@cache
def device_at(index: int) -> Device:
    """The `Device` of an index: the same object for all calls with this index.

    Raises:
        CudaUnavailable: the device cannot be used; the message has the reason.
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
    """A stream of another library, in the form that CuPy can use."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


class Device:
    """A CUDA device with a setting for products of networks: "exact", or by tensor cores "tf32" or "3xtf32"."""

    def __init__(self, index: int, cupy: Any) -> None:
        """Prepare a device; callers use `device_at`, which makes one object for each index."""
        self.index, self.cupy, self.matmul = index, cupy, "exact"
        self._others: dict[str, Device] = {"exact": self}
        self._kept: deque[tuple[Any, Any]] = deque()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """The device's name, which `device_named` takes."""
        return f"cuda:{self.index}"

    def computing(self, matmul: str) -> Device:
        """The device with this setting of products: one object a setting, with the references of `keep` in common."""
        with self._lock:
            if matmul not in self._others:
                self._others[matmul] = other = copy.copy(self)
                other.matmul = matmul
            return self._others[matmul]

    # ---- streams

    def current_stream(self) -> Stream:
        """CuPy's current stream of this thread on the device."""
        return self.cupy.cuda.get_current_stream(self.index)

    def stream_at(self, address: int) -> Stream:
        """A CuPy stream for another library's stream, from the address of its cudaStream_t."""
        if not hasattr(self.cupy.cuda.Stream, "from_external"):  # CuPy before 14 lacks this
            return self.cupy.cuda.ExternalStream(address, self.index)
        # `ExternalStream` assumes that the stream is on the current device. Before pyproject.toml allows a later CuPy,
        # a test must show that its stream survives the `_Handle`, which depends on CuPy's version.
        with self.cupy.cuda.Device(self.index):
            return self.cupy.cuda.Stream.from_external(_Handle(address))

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        """A context manager in which this device is current, and CuPy queues its work on the stream."""
        with self.cupy.cuda.Device(self.index), stream:
            yield

    def order(self, first: Stream, then: Stream) -> None:
        """Let later work on `then` wait, on the device, for the work that is queued on `first` so far.

        The address of a per-thread default stream stands for the calling thread's stream: another thread's stream
        cannot be determined.
        """
        if first.ptr == then.ptr != _PER_THREAD:
            return
        with self.cupy.cuda.Device(self.index):
            event = self.cupy.cuda.Event(disable_timing=True)
            event.record(first)
            then.wait_event(event)

    def keep(self, stream: Stream, things: list[Any]) -> None:
        """Keep references to `things` until the work that is now queued on the stream is done.

        Without references, a library may reuse the memory of an object on its own streams. References
        of finished work are dropped at the next call.
        """
        self.let_go()
        with self.cupy.cuda.Device(self.index):
            event = self.cupy.cuda.Event(disable_timing=True)
            event.record(stream)
        self._kept.append((event, things))

    def let_go(self) -> None:
        """Drop references of `keep` whose work is done; all other references stay until a later call.

        The method never waits for the lock, because its own thread may hold the lock: any line may run the garbage
        collector, and a finaliser may call `keep`. Objects are freed after the lock is released, because freeing may
        run any code.
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
        """The result of `work()`, which is called again after `give_back` if device memory was insufficient."""
        try:
            return work()
        except MemoryError:
            self.give_back()
        return work()

    def give_back(self) -> None:
        """Free the memory that this process's libraries keep on the device for reuse; the call waits for the device."""
        with self.cupy.cuda.Device(self.index):
            self.cupy.get_default_memory_pool().free_all_blocks()
            for empty in CACHES:
                empty()
        _core.cuda.give_back(self.index)

    def view(
        self, address: int, shape: Sequence[int], dtype: np.dtype[Any], strides: Sequence[int], owner: Any
    ) -> CuPyArray:
        """Memory of another library as a CuPy array, which holds a reference to `owner`. Strides are in bytes."""
        cuda = self.cupy.cuda
        memory = cuda.UnownedMemory(address, math.prod(shape) * dtype.itemsize, owner, self.index)
        return self.cupy.ndarray(tuple(shape), dtype, cuda.MemoryPointer(memory, 0), strides=tuple(strides))

    def copied(self, copy: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> CuPyArray:
        """A new array that `copy`, a method of `_cuda`, fills on CuPy's current stream."""
        stream = self.current_stream()
        with self.on(stream):
            out = self.retried(lambda: self.cupy.empty(shape, dtype))
            copy(self.as_argument(out), stream.ptr)
        return out

    def as_argument(self, argument: Any) -> Any:
        """The tuple (address, shape, strides, dtype) of a CuPy array for `_cuda`; any other argument itself."""
        if not isinstance(argument, self.cupy.ndarray):
            return argument
        return argument.data.ptr, argument.shape, argument.strides, argument.dtype.name


class OnStream:
    """The methods of an object of `_cuda`, which take CuPy arrays like the methods of `_cpu`, queued on one stream."""

    def __init__(self, device: Device, core: Any, stream: Stream) -> None:
        """Prepare an object of `_cuda` for a stream of the device."""
        self._device, self._core, self._stream = device, core, stream
        self._where = {"stream": stream.ptr}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The function of this name, called again if device memory runs out, unless `ONCE` has the name."""
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
    """The functions of `_cuda`, and classes of `_cuda` with arrays as arguments, called with the device's index."""

    def __init__(self, device: Device, stream: Stream) -> None:
        """Prepare the functions of `_cuda` for a stream of the device."""
        super().__init__(device, _core.cuda, stream)
        self._where["device"] = device.index


class Program:
    """A compiled chain of transforms with its weights on a device.

    An `OnStream` of the program runs it and sets its weights. Calls may be queued on several streams: a stream that
    reads the weights waits for the stream that wrote the weights, and conversely.
    """

    def __init__(self, device: Device, dtype: np.dtype[Any], *arguments: Any) -> None:
        """`arguments`: the arguments of the programs of `_cpu`."""
        kind = _core.cuda.ProgramF32 if dtype == np.float32 else _core.cuda.ProgramF64
        self.device, self.dtype = device, dtype
        matmul = device.matmul if dtype == np.float32 else "exact"
        self.core = device.retried(lambda: kind(*arguments, matmul, device.index))

    @property
    def n_weights(self) -> int:
        """The number of values in the vector of weights."""
        return self.core.n_weights

    def weights(self) -> CuPyArray:
        """A copy of the weights on the device, on CuPy's current stream."""
        return self.device.copied(self.core.weights, (self.n_weights,), self.dtype)

    def host_weights(self) -> NDArray[Any]:
        """A copy of the weights on the host; the call waits for all queued changes."""
        return self.core.host_weights()

    def set_host_weights(self, weights: NDArray[Any]) -> None:
        """Copy weights from the host; the call waits for all queued work that uses the weights."""
        self.device.retried(lambda: self.core.set_host_weights(weights))


class Adam:
    """The optimiser of a program on a device; an `OnStream` of the optimiser takes steps.

    A step takes a float64 as a further argument, which receives the gradient's norm; if the norm is not finite, the
    step has no other effect.
    """

    def __init__(self, program: Program, *arguments: float) -> None:
        """`arguments`: the arguments of the optimisers of `_cpu`."""
        kind = _core.cuda.AdamF32 if program.dtype == np.float32 else _core.cuda.AdamF64
        self.program, self.core = program, program.device.retried(lambda: kind(program.core, *arguments))

    def average(self) -> CuPyArray:
        """A copy of the averaged weights on the device, on CuPy's current stream."""
        program = self.program
        return program.device.copied(self.core.average, (program.n_weights,), program.dtype)

    def memory(self) -> Any:
        """The optimiser's moments and counts, as arrays on the host; the call waits for all queued work."""
        return self.core.memory()

    def set_memory(self, *memory: Any) -> None:
        """Restore the optimiser's memory: the inverse of `memory`."""
        self.core.set_memory(*memory)


class Points:
    """The points of a dual ascent on a device; all work is queued on CuPy's current stream at construction."""

    def __init__(self, x: CuPyArray, weights: CuPyArray | None, dtype: np.dtype[Any]) -> None:
        """The arguments of the points of `_cpu`, with CuPy arrays."""
        self.device = device_at(x.data.device_id)
        self.shape, self.dtype = x.shape, dtype
        self.total = float(len(x)) if weights is None else float(weights.sum(dtype=np.float64))
        self.stream = self.device.current_stream()
        kind = "PointsF32" if dtype == np.float32 else "PointsF64"
        self.core = getattr(Kernels(self.device, self.stream), kind)(x, weights)
        self.queued = OnStream(self.device, self.core, self.stream)

    def step(self, *arguments: Any) -> NDArray[np.float64] | None:
        """Take a step; arguments are on the host, as for `_cpu`'s points. A call that returns sums waits."""
        return self.queued.step(*arguments)

    def values(self) -> CuPyArray:
        """A copy of the points on the device."""
        return self.device.copied(self.core.values, self.shape, self.dtype)

    def squares(self) -> CuPyArray:
        """The squared distances of the points from 0, on the device."""
        return self.device.copied(self.core.squares, self.shape[:1], np.dtype(np.float64))

    def log_jacobian(self) -> CuPyArray:
        """A copy of the log-Jacobians on the device."""
        return self.device.copied(self.core.log_jacobian, self.shape[:1], np.dtype(np.float64))


def ascent(points: Points, anchors: Points, held_out: Points | None, *rules: Any) -> OnStream:
    """An ascent by kinks whose loop runs on the device, on the stream of its points; see `_points.Chosen`.

    Methods of the ascent have the arguments of `_cpu`'s ascents, and only methods that read results wait;
    `log_likelihoods` has only the first two of the CPU's columns.
    """
    kind = "AscentF32" if points.dtype == np.float32 else "AscentF64"
    make = getattr(OnStream(points.device, _core.cuda, points.stream), kind)
    parties = points.core, anchors.core, None if held_out is None else held_out.core
    totals = points.total, 1.0 if held_out is None else held_out.total
    return OnStream(points.device, make(*parties, *totals, *rules), points.stream)


def refuse_wide(dtype: Any, matmul: str, call: str) -> None:
    """Refuse float64 with products that are not exact; `call`: the call that avoids the error."""
    if matmul != "exact" and dtype == np.float64:
        raise ValueError(f"dtype, matmul: expected float32 or 'exact', got float64 and {matmul!r}; call {call}")


def names() -> list[str]:
    """The names of the devices by index, each with its compute capability or the reason why it cannot be used."""
    cuda = _core.cuda
    return [
        f"(not usable: {reason})"
        if (reason := cuda.device_reason(i))
        else f"{cuda.device_name(i)} of compute capability {cuda.device_capability(i)}"
        for i in range(cuda.device_count())
    ]
