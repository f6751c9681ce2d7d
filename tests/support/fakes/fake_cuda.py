"""A simulated CUDA device: streams that queue work, and memory of the CPU.

CuPy, PyTorch and JAX (fake_frameworks.py) and the compiled core (fake_core.py) use this device.

Programs can rely on CUDA's guarantees, and whatever relies on more than these fails:

- Work is queued on a stream and done when the host waits for the stream. Streams work in the worst allowed order:
  before the awaited stream, either no other stream does any work, or all others do all their work. Only an event makes
  a stream wait for another stream.
- Freed memory is filled with NaN, in the order of the stream on which the memory was allocated. The memory of foreign
  libraries is filled at once, because these libraries have separate streams.
- NumPy and CuPy arrays do not mix, and no array of CuPy becomes a NumPy array without an explicit conversion.
- The log records every event, including each wait of the host.

Arithmetic of CuPy is done at once, after all work that is queued on CuPy's current stream.
"""

import ctypes
import math
import threading

import numpy as np

from fake_core import OnCpu, make_core
from fake_frameworks import make_cupy


class Machine:
    """The simulated devices, their streams and memory, and a log of events: tuples that start with a word."""

    def __init__(self, inner=None, others_first=False, devices=2):
        self.inner, self.others_first, self.devices = inner or OnCpu, others_first, devices
        self.log, self.queues, self.blocks = [], {}, []
        self.device, self.current = 0, [[] for _ in range(devices)]
        # For a word of the log, the exception that the next event of this word raises, or a list for several events.
        self.fail = {}
        self.next_stream = 0x100
        self.reasons = {}  # by index of a device, the reason why the device is unusable
        self.without_code = set()  # indices of devices without machine code
        self.cupy, self.core = make_cupy(self), make_core(self)

    def record(self, *words):
        self.log.append(words)
        if words[0] in self.fail:
            error = self.fail.pop(words[0])
            if isinstance(error, list):
                error, *rest = error
                self.fail.update({words[0]: rest} if rest else {})
            raise error

    def logged(self, word):
        return [words for words in self.log if words[0] == word]

    def stream(self):
        """A new stream that does not wait for the default one."""
        self.next_stream += 1
        return self.cupy.cuda.Stream.of(self.next_stream)

    def queue(self, address):
        """The queue of a stream; for address 2, the per-thread default stream, each thread has a separate queue."""
        key = (address, threading.get_ident()) if address == 2 else address
        return self.queues.setdefault(key, Queue(self, address))

    def current_stream(self, device=None):
        stack = self.current[self.device if device is None else device]
        return stack[-1] if stack else self.cupy.cuda.Stream.of(0)

    def wait(self, address):
        """Do all queued work of a stream, and of other streams either all work or only what this stream waits for."""
        self.wait_for([self.queue(address)])

    def wait_for(self, queues):
        if self.others_first:
            self.finish()
        for queue in queues:
            queue.run()

    def finish(self):
        for queue in list(self.queues.values()):
            queue.run()

    def numbers(self, described, writable=True):
        """The memory of an array that is given by its address, shape, strides and dtype."""
        if described is None:
            return None
        address, shape, strides, dtype = described
        dtype = np.dtype(dtype)
        if not math.prod(shape):
            return np.empty(shape, dtype)
        low = sum(min(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True))
        high = sum(max(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True)) + dtype.itemsize
        memory = (ctypes.c_char * (high - low)).from_address(address + low)
        return np.ndarray(shape, dtype, memory, -low, strides)


class Queue:
    """The queue of a stream's work."""

    def __init__(self, machine, address):
        self.machine, self.address, self.work, self.done = machine, address, [], 0

    def add(self, function):
        self.work.append(function)

    def run(self, until=None):
        until = len(self.work) if until is None else until
        while self.done < until:
            self.done += 1
            self.work[self.done - 1]()
            self.work[self.done - 1] = None
