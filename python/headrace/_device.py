"""A CUDA device: its streams, its memory as CuPy arrays, and what the compiled module `_cuda` does there.

CuPy is to a device what NumPy is to the CPU: every array that headrace works on there is one of CuPy's, often a view of
somebody else's memory. It is imported where a device is first asked for.

The objects here have the methods of those of `_cpu`, with CuPy arrays in the place of NumPy's and one argument more,
the stream on which the work is queued. Nothing waits unless it says so.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import _core
from headrace._core import CudaUnavailable

__all__ = ["Adam", "Device", "Points", "Program", "device_at", "device_named", "names"]

CuPyArray = Any
Stream = Any  # of CuPy
Told = tuple[int, tuple[int, ...], tuple[int, ...], str]  # an array as `_cuda` takes it


def cuda() -> Any:
    """The compiled module."""
    return _core.cuda


def device_named(name: Any) -> Device | None:
    """The device that a name like "cuda:1" means; None for "cpu". "cuda" is CuPy's current one.

    Raises:
        CudaUnavailable: there is no device, or no CuPy; the message says why.
    """
    kind, colon, digits = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind == "cpu" and not colon:
        return None
    if kind != "cuda" or (colon and not (digits.isascii() and digits.isdigit())):
        raise ValueError(f"device: expected 'cpu', 'cuda' or a name like 'cuda:0', got {name!r}")
    cupy, count = _cupy(), _core.cuda.device_count()
    index = int(digits) if colon else int(cupy.cuda.runtime.getDevice())
    if index >= count:
        raise CudaUnavailable(f"device: expected one below 'cuda:{count}', as there are {count} in all, got {name!r}")
    return device_at(index)


@cache
def device_at(index: int) -> Device:
    """The device of this number, one object for all."""
    return Device(index, _cupy())


def _cupy() -> Any:
    reason = _core.cuda_unavailable()
    if reason:
        raise CudaUnavailable(f"headrace cannot compute on a CUDA device: {reason}")
    try:
        import cupy
    except ImportError as error:
        raise CudaUnavailable(
            f"headrace needs CuPy for CUDA devices, which cannot be imported ({error}); install headrace[cuda12] or "
            "headrace[cuda13], whichever the driver is for"
        ) from None
    return cupy


class _Handle:
    """A stream of another library, as CuPy takes it over."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


class Device:
    """One CUDA device."""

    def __init__(self, index: int, cupy: Any) -> None:
        """See `device_at`."""
        self.index, self.cupy = index, cupy
        self._kept: deque[tuple[Any, Any]] = deque()

    def __repr__(self) -> str:
        """Its name, as `device_named` takes it."""
        return f"cuda:{self.index}"

    # ---- streams

    def current_stream(self) -> Stream:
        """CuPy's current stream on this device, in this thread."""
        return self.cupy.cuda.get_current_stream(self.index)

    def stream_at(self, address: int) -> Stream:
        """A stream of another library by the address of its cudaStream_t."""
        if hasattr(self.cupy.cuda.Stream, "from_external"):
            return self.cupy.cuda.Stream.from_external(_Handle(address))
        return self.cupy.cuda.ExternalStream(address, self.index)  # before CuPy 14

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        """Inside, this device is current, and CuPy queues its work on the stream."""
        with self.cupy.cuda.Device(self.index), stream:
            yield

    def order(self, first: Stream, then: Stream) -> None:
        """What is queued on `then` from now on waits, on the device, for what is queued on `first` by now."""
        if first.ptr == then.ptr:
            return
        with self.cupy.cuda.Device(self.index):
            event = self.cupy.cuda.Event(disable_timing=True)
            event.record(first)
            then.wait_event(event)

    def keep(self, stream: Stream, things: list[Any]) -> None:
        """Hold on to things until what is queued on the stream by now is done.

        That is for memory of libraries which may use it again as soon as nobody holds it, on streams of their own. What
        is done is let go at the next call.
        """
        self.let_go()
        with self.cupy.cuda.Device(self.index):
            event = self.cupy.cuda.Event(disable_timing=True)
            event.record(stream)
        self._kept.append((event, things))

    def let_go(self) -> None:
        """Of what `keep` holds and is done."""
        while self._kept and self._kept[0][0].done:
            self._kept.popleft()

    # ---- memory

    def view(
        self, address: int, shape: Sequence[int], dtype: np.dtype[Any], strides: Sequence[int], owner: Any
    ) -> CuPyArray:
        """Memory of another library as a CuPy array, which holds its owner. Strides are in bytes."""
        cuda = self.cupy.cuda
        memory = cuda.UnownedMemory(address, math.prod(shape) * dtype.itemsize, owner, self.index)
        return self.cupy.ndarray(tuple(shape), dtype, cuda.MemoryPointer(memory, 0), strides=tuple(strides))

    # ---- what `_cuda` does

    def coupling(self, *arguments: Any) -> None:
        """`_cpu.coupling`, then the stream."""
        self._call(_core.cuda.coupling, arguments)

    def coupling_backward(self, *arguments: Any) -> None:
        """`_cpu.coupling_backward`, then the stream."""
        self._call(_core.cuda.coupling_backward, arguments)

    def vector_map(self, *arguments: Any) -> None:
        """`_cpu.vector_map`, then the stream."""
        self._call(_core.cuda.vector_map, arguments)

    def vector_map_backward(self, *arguments: Any) -> None:
        """`_cpu.vector_map_backward`, then the stream."""
        self._call(_core.cuda.vector_map_backward, arguments)

    def _call(self, function: Any, arguments: tuple[Any, ...]) -> None:
        with self.cupy.cuda.Device(self.index):
            function(*(told(a) if isinstance(a, self.cupy.ndarray) else a for a in arguments[:-1]), arguments[-1].ptr)


def told(array: CuPyArray | None) -> Told | None:
    """A CuPy array as `_cuda` takes it."""
    return None if array is None else (array.data.ptr, array.shape, array.strides, array.dtype.name)


class _Queued:
    """Calls of one compiled object, one after another on whatever streams they are queued.

    Its memory is read and written by kernels that run after the calls have returned: one on another stream than the
    last waits for it, on the device.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._last: Stream | None = None
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, stream: Stream) -> Iterator[int]:
        """The stream's address, once it waits for the last call; no other call is queued meanwhile."""
        with self._lock, self.device.cupy.cuda.Device(self.device.index):
            if self._last is not None:
                self.device.order(self._last, stream)
            self._last = stream
            yield stream.ptr


class Program:
    """A compiled chain of transforms and its weights on a device."""

    def __init__(self, device: Device, dtype: np.dtype[Any], *arguments: Any) -> None:
        """`arguments` are those of `_cpu`'s programs."""
        kind = _core.cuda.ProgramF32 if dtype == np.float32 else _core.cuda.ProgramF64
        self.device, self.dtype = device, dtype
        self.core = kind(*arguments, device.index)
        self.queue = _Queued(device)

    @property
    def n_weights(self) -> int:
        """Numbers in the vector of weights."""
        size: int = self.core.n_weights
        return size

    def run(
        self,
        inverse: bool,
        input: CuPyArray | None,
        rows: int,
        seed: int,
        context: CuPyArray | None,
        value: CuPyArray | None,
        log_det: CuPyArray | None,
        log_prob: CuPyArray | None,
        parameters: CuPyArray | None,
        stream: Stream,
    ) -> None:
        """As on the CPU."""
        with self.queue.turn(stream) as address:
            self.core.run(
                inverse,
                told(input),
                rows,
                seed,
                told(context),
                told(value),
                told(log_det),
                told(log_prob),
                told(parameters),
                address,
            )

    def run_gradient(
        self,
        inverse: bool,
        input: CuPyArray,
        index: CuPyArray | None,
        context: CuPyArray | None,
        of_log_prob: bool,
        grad_value: CuPyArray | None,
        grad_row: CuPyArray | None,
        row_scale: float,
        log_prob: CuPyArray | None,
        grad_input: CuPyArray | None,
        grad_context: CuPyArray | None,
        grad_weights: CuPyArray | None,
        parameters: CuPyArray | None,
        stream: Stream,
    ) -> None:
        """As on the CPU."""
        with self.queue.turn(stream) as address:
            self.core.run_gradient(
                inverse,
                told(input),
                told(index),
                told(context),
                of_log_prob,
                told(grad_value),
                told(grad_row),
                row_scale,
                told(log_prob),
                told(grad_input),
                told(grad_context),
                told(grad_weights),
                told(parameters),
                address,
            )

    def weights(self) -> CuPyArray:
        """A copy on the device, on CuPy's current stream."""
        return self._copied(self.core.weights)

    def set_weights(self, weights: CuPyArray, stream: Stream) -> None:
        """Copy in."""
        with self.queue.turn(stream) as address:
            self.core.set_weights(told(weights), address)

    def host_weights(self) -> NDArray[Any]:
        """A copy for the host; waits for all that was queued before."""
        with self.queue.turn(self.device.current_stream()):
            self.device.current_stream().synchronize()
            weights: NDArray[Any] = self.core.host_weights()
            return weights

    def set_host_weights(self, weights: NDArray[Any]) -> None:
        """Copy in from the host; waits for all that was queued before."""
        with self.queue.turn(self.device.current_stream()):
            self.device.current_stream().synchronize()
            self.core.set_host_weights(weights)

    def _copied(self, copy: Any) -> CuPyArray:
        """What `copy` writes to an array like the weights."""
        stream = self.device.current_stream()
        with self.device.on(stream):
            out = self.device.cupy.empty(self.n_weights, self.dtype)
        with self.queue.turn(stream) as address:
            copy(told(out), address)
        return out


class Adam:
    """The optimiser of a program on a device."""

    def __init__(self, program: Program, *arguments: float) -> None:
        """`arguments` are those of `_cpu`'s optimisers."""
        kind = _core.cuda.AdamF32 if program.dtype == np.float32 else _core.cuda.AdamF64
        self.program, self.core = program, kind(program.core, *arguments)

    def step(self, gradient: CuPyArray, learning_rate: float, norm: CuPyArray, stream: Stream) -> None:
        """`norm`: one float64, which receives the gradient's; where that is not finite nothing else changes."""
        with self.program.queue.turn(stream) as address:
            self.core.step(told(gradient), learning_rate, told(norm), address)

    def average(self) -> CuPyArray:
        """A copy on the device, on CuPy's current stream."""
        return self.program._copied(self.core.average)


class Points:
    """Points of a dual ascent on a device, on the stream that is CuPy's current one at each call."""

    def __init__(self, x: CuPyArray, weights: CuPyArray | None, dtype: np.dtype[Any]) -> None:
        """As on the CPU."""
        self.device = device_at(x.data.device_id)
        self.shape, self.dtype = x.shape, dtype
        kind = _core.cuda.PointsF32 if dtype == np.float32 else _core.cuda.PointsF64
        self.queue = _Queued(self.device)
        with self.queue.turn(self.device.current_stream()) as address:
            self.core = kind(told(x), told(weights), address)

    def step(self, *arguments: Any) -> NDArray[np.float64] | None:
        """As on the CPU, with its arrays of the host; waits for the sums, if there are any."""
        with self.queue.turn(self.device.current_stream()) as address:
            sums: NDArray[np.float64] | None = self.core.step(*arguments, address)
            return sums

    def values(self) -> CuPyArray:
        """A copy on the device."""
        return self._copied(self.core.values, self.shape, self.dtype)

    def log_jacobian(self) -> CuPyArray:
        """A copy on the device."""
        return self._copied(self.core.log_jacobian, self.shape[:1], np.dtype(np.float64))

    def _copied(self, copy: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> CuPyArray:
        stream = self.device.current_stream()
        with self.device.on(stream):
            out = self.device.cupy.empty(shape, dtype)
        with self.queue.turn(stream) as address:
            copy(told(out), address)
        return out


def names() -> list[str]:
    """What the devices are called, in order."""
    return [str(_core.cuda.device_name(i)) for i in range(_core.cuda.device_count())]
