"""A simulated CUDA device: streams that queue, and memory of the CPU.

Over it are CuPy, PyTorch and JAX (fake_frameworks.py) and the compiled core (fake_core.py).

Guarantees of CUDA hold, and everything beyond them fails:

- Work is queued on a stream and done when it is waited for, streams in the worst allowed order: either no other
  stream gets anything done before this one, or all of them do. Work that one stream must not do before another
  needs an event.
- Memory that was given back is filled with NaN in the order of the stream it was taken on; that of foreign libraries at
  once, because they have streams of their own.
- NumPy and CuPy arrays do not mix, and nothing becomes a NumPy array by itself.
- Whatever the host waits for is in the log, as is all else that happens.

Arithmetic of CuPy is done at once, after all that is queued before it on its stream.
"""

import ctypes
import math
import threading

import numpy as np

from fake_core import OnCpu, make_core
from fake_frameworks import make_cupy


class Machine:
    """Devices, streams and memory, and a log of what happened: tuples that start with a word."""

    def __init__(self, inner=None, others_first=False, devices=2):
        self.inner, self.others_first, self.devices = inner or OnCpu, others_first, devices
        self.log, self.queues, self.blocks = [], {}, []
        self.device, self.current = 0, [[] for _ in range(devices)]
        self.fail = {}  # word -> exception, raised once where it would be logged; or a list, for as many times
        self.next_stream = 0x100
        self.reasons = {}  # by index of a device, why it is unusable
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
        """The work of a stream; of address 2 each thread has one of its own."""
        key = (address, threading.get_ident()) if address == 2 else address
        return self.queues.setdefault(key, Queue(self, address))

    def current_stream(self, device=None):
        stack = self.current[self.device if device is None else device]
        return stack[-1] if stack else self.cupy.cuda.Stream.of(0)

    def wait(self, address):
        """Do all work of a stream; of other streams only necessary work, or all."""
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
        """The memory of an array that is described by address, shape, strides and dtype."""
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
    """Work of one stream."""

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
