"""A CUDA device that is none: streams that queue, CuPy, PyTorch and JAX over the CPU's memory, and the compiled core.

What the Python layer may rely on is kept, and what it may not is made to fail:

- Work is queued on a stream and done when somebody waits for it, streams in an order that suits nobody: either no other
  stream gets anything done before this one, or all of them do. What one stream must not do before another has to be
  said by an event.
- Memory that was given back is filled with NaN in the order of the stream it was taken on; that of foreign libraries at
  once, as they have streams of their own.
- NumPy and CuPy arrays do not mix, and nothing becomes a NumPy array by itself.
- Whatever the host waits for is in the log, as is all else that happens.

Arithmetic of CuPy is done at once, after all that is queued before it on its stream.
"""

import contextlib
import ctypes
import math
import threading
import types
import weakref

import numpy as np

import ascent_judge
from headrace import _cpu as cpu

CUDA, MANAGED, CPU = 2, 13, 1


class Machine:
    """Devices, streams and memory, and a log of what happened: tuples that start with a word."""

    def __init__(self, inner=None, others_first=False, devices=2):
        self.inner, self.others_first, self.devices = inner or OnCpu, others_first, devices
        self.log, self.queues, self.blocks = [], {}, []
        self.device, self.current = 0, [[] for _ in range(devices)]
        self.fail = {}  # word -> exception, raised once where it would be logged
        self.next_stream = 0x100
        self.cupy, self.core = make_cupy(self), make_core(self)

    def say(self, *words):
        self.log.append(words)
        if words[0] in self.fail:
            raise self.fail.pop(words[0])

    def said(self, word):
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
        """All that is queued on a stream is done; on the others nothing that need not be, or all."""
        self.wait_for([self.queue(address)])

    def wait_for(self, queues):
        if self.others_first:
            self.finish()
        for queue in queues:
            queue.run()

    def finish(self):
        for queue in list(self.queues.values()):
            queue.run()

    def numbers(self, told, writable=True):
        """The memory that the core was told of."""
        if told is None:
            return None
        address, shape, strides, dtype = told
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


class Block:
    """Memory of an allocator; NaN before it is written and after it was given back."""

    def __init__(self, machine, size, address, at_once=False):
        raw = np.full(size + 64, 0xFF, np.uint8)
        start = -raw.ctypes.data % 64
        self.bytes, self.machine = raw[start : start + size], machine
        self.stream = address
        machine.blocks.append(raw)  # so that what comes too late reads NaN and not anything
        poison = raw.fill if at_once else lambda byte: machine.queue(address).add(lambda: raw.fill(byte))
        weakref.finalize(self, poison, 0xFF).atexit = False

    def array(self, shape, dtype):
        return np.ndarray(shape, dtype, self.bytes)


# ---- CuPy ------------------------------------------------------------------------------------------------------------

REDUCTIONS = ("sum", "min", "max", "mean", "all", "any")


def make_cupy(machine):
    """A module with what headrace uses of CuPy, on one machine."""
    cupy = types.ModuleType("cupy")

    class Stream:
        def __init__(self, ptr, device_id=-1):
            self.ptr, self.device_id = ptr, device_id

        @classmethod
        def of(cls, ptr):
            return cls(ptr)

        @classmethod
        def from_external(cls, handle):
            return cls(handle.__cuda_stream__()[1], machine.device)

        def __enter__(self):
            machine.current[machine.device].append(self)
            return self

        def __exit__(self, *error):
            machine.current[machine.device].pop()

        def wait_event(self, event):
            queue, until = event.queue, event.until
            machine.say("wait", self.ptr, queue.address)
            machine.queue(self.ptr).add(lambda: queue.run(until))

        def synchronize(self):
            machine.say("sync", "stream")
            machine.wait(self.ptr)

    class Event:
        def __init__(self, disable_timing=False):
            self.queue = None

        def record(self, stream):
            self.queue = machine.queue(stream.ptr)
            self.until = len(self.queue.work)

        @property
        def done(self):
            return self.queue.done >= self.until

    class Device:
        def __init__(self, index):
            self.id = index

        def __enter__(self):
            self.before, machine.device = machine.device, self.id

        def __exit__(self, *error):
            machine.device = self.before

    class UnownedMemory:
        def __init__(self, ptr, size, owner, device_id=-1):
            self.ptr, self.size, self.owner, self.device_id = ptr, size, owner, device_id

    class MemoryPointer:
        def __init__(self, memory, offset):
            self.mem, self.ptr, self.device_id = memory, memory.ptr + offset, memory.device_id

    class Flags:
        def __init__(self, array):
            self.c_contiguous = array.flags.c_contiguous

    def host(value):
        """An operand in the CPU's memory; those that are there already are refused."""
        if isinstance(value, ndarray):
            return value.on_cpu
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        if isinstance(value, (list, tuple)):
            return type(value)(map(host, value))
        return value

    def computed(function, *arguments, waits=False, **keywords):
        """What NumPy makes of arrays here, once all that is queued before is done."""
        stream = machine.current_stream()
        if waits:
            machine.say("sync", function.__name__)
        machine.queue(stream.ptr).run()
        keywords = {name: host(value) for name, value in keywords.items()}
        with np.errstate(all="ignore"):
            return placed(function(*map(host, arguments), **keywords))

    def placed(result):
        if isinstance(result, (list, tuple)):
            return type(result)(map(placed, result))
        made = empty(np.shape(result), np.asarray(result).dtype)
        made.on_cpu[...] = result
        return made

    class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
        def __init__(self, shape, dtype=float, memptr=None, strides=None):
            told = memptr.ptr, tuple(shape), tuple(strides), np.dtype(dtype)
            self.on_cpu, self.data = machine.numbers(told), memptr

        @classmethod
        def over(cls, array, owner, device):
            self = cls.__new__(cls)
            self.on_cpu = array
            self.data = MemoryPointer(UnownedMemory(array.ctypes.data, array.nbytes, owner, device), 0)
            return self

        shape = property(lambda self: self.on_cpu.shape)
        strides = property(lambda self: self.on_cpu.strides)
        dtype = property(lambda self: self.on_cpu.dtype)
        ndim = property(lambda self: self.on_cpu.ndim)
        size = property(lambda self: self.on_cpu.size)
        itemsize = property(lambda self: self.on_cpu.itemsize)
        flags = property(lambda self: Flags(self.on_cpu))

        def __len__(self):
            return len(self.on_cpu)

        def get(self):
            machine.say("sync", "get")
            machine.wait(machine.current_stream().ptr)
            return self.on_cpu.copy()

        def __array__(self, *arguments, **keywords):
            raise TypeError("Implicit conversion to a NumPy array is not allowed.")

        def __array_ufunc__(self, ufunc, method, *inputs, out=(), **keywords):
            if out:
                out[0][...] = computed(getattr(ufunc, method), *inputs, **keywords)
                return out[0]
            return computed(getattr(ufunc, method), *inputs, **keywords)

        def __array_function__(self, function, kinds, arguments, keywords):
            return computed(function, *arguments, waits=function in (np.flatnonzero, np.nonzero), **keywords)

        def __getitem__(self, key):
            keys = key if isinstance(key, tuple) else (key,)
            if any(isinstance(k, (ndarray, np.ndarray, list)) for k in keys):
                waits = any(isinstance(k, ndarray) and k.dtype == bool for k in keys)
                return computed(lambda a, *k: a[k if isinstance(key, tuple) else k[0]], self, *keys, waits=waits)
            return ndarray.over(self.on_cpu[(*keys, ...)], self.data, self.data.device_id)

        def __setitem__(self, key, value):
            machine.queue(machine.current_stream().ptr).run()
            self.on_cpu[key] = host(value)

        def __float__(self):
            return float(self.get())

        def __bool__(self):
            return bool(self.get())

        def __str__(self):
            return str(self.get())

        __format__ = lambda self, how: format(self.get()[()], how)  # noqa: E731

        def astype(self, dtype, copy=True):
            return self if not copy and dtype == self.dtype else computed(lambda a: a.astype(dtype), self)

        def copy(self):
            return computed(np.copy, self)

        def reshape(self, *shape):
            return ndarray.over(self.on_cpu.reshape(*shape), self.data, self.data.device_id)

        def __dlpack_device__(self):
            return CUDA, self.data.device_id

        def __dlpack__(self, stream=None, **keywords):
            return lent(machine, self.on_cpu, self, machine.current_stream(), stream)

    for name in REDUCTIONS:
        setattr(ndarray, name, reduction(name, computed))

    def empty(shape, dtype=float):
        machine.say("allocate", machine.current_stream().ptr)
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        dtype = np.dtype(dtype)
        block = Block(machine, math.prod(shape) * dtype.itemsize, machine.current_stream().ptr)
        return ndarray.over(block.array(shape, dtype), block, machine.device)

    def asarray(values, dtype=None):
        if isinstance(values, ndarray):
            return values if dtype is None or dtype == values.dtype else values.astype(dtype)
        machine.say("upload", np.size(values))
        return placed(np.asarray(values, dtype))

    def ascontiguousarray(array, dtype=None):
        same = array.flags.c_contiguous and (dtype is None or dtype == array.dtype)
        return array if same else computed(lambda a: np.ascontiguousarray(a, dtype), array)

    def from_dlpack(value):
        stream = machine.current_stream().ptr or 1
        array, owner = value.__dlpack__(stream=stream)
        return ndarray.over(array, owner, value.__dlpack_device__()[1])

    runtime = types.SimpleNamespace(
        getDevice=lambda: machine.device,
        pointerGetAttributes=lambda address: types.SimpleNamespace(device=0),
    )
    cupy.cuda = types.SimpleNamespace(
        Stream=Stream,
        Event=Event,
        Device=Device,
        UnownedMemory=UnownedMemory,
        MemoryPointer=MemoryPointer,
        runtime=runtime,
        get_current_stream=machine.current_stream,
    )
    cupy.ndarray, cupy.empty, cupy.asarray, cupy.from_dlpack = ndarray, empty, asarray, from_dlpack
    cupy.ascontiguousarray = ascontiguousarray
    cupy.zeros = lambda shape, dtype=float: placed(np.zeros(shape, dtype))
    cupy.ones = lambda shape, dtype=float: placed(np.ones(shape, dtype))
    return cupy


def reduction(name, computed):
    return lambda self, **keywords: computed(lambda a, **k: getattr(a, name)(**k), self, **keywords)


def lent(machine, array, owner, producer, consumer):
    """What stands for a capsule of DLPack, once the consumer's stream waits for the producer's."""
    event = machine.cupy.cuda.Event()
    event.record(producer)
    machine.cupy.cuda.Stream.of(0 if consumer in (None, 1) else consumer).wait_event(event)
    return array, owner


# ---- the compiled core -----------------------------------------------------------------------------------------------


def make_core(machine):
    """A module like `_cuda`, which queues what the machine's inner one then does at once."""
    core, inner = types.ModuleType("headrace._cuda"), machine.inner(machine)

    def queued(word, function, *arguments):
        """The last argument is the stream; the inner one has one alone."""
        machine.say(word, arguments[-1], [a[0] for a in arguments if is_told(a)])
        machine.queue(arguments[-1]).add(lambda: function(*arguments[:-1], 0))

    def on_current(device):
        """As the inner module has one device."""
        assert device == machine.device
        return 0

    def op(name):
        def call(*arguments):
            *told, device, stream = arguments
            queued(name, getattr(inner, name), *told, on_current(device), stream)

        return call

    for name in ("coupling", "coupling_backward", "vector_map", "vector_map_backward"):
        setattr(core, name, op(name))

    class Program:
        def __init__(self, *arguments):
            machine.say("program", arguments[-1])
            self.inner, self.streams = self.kind(*arguments), []
            self.n_weights = self.inner.n_weights

        def ordered(self, word, function, *arguments):
            """Calls on several streams wait for each other, as those of the real one do."""
            stream = arguments[-1]
            own = machine.queue(stream)
            for other in self.streams:
                if other is not own:
                    until = len(other.work)
                    own.add(lambda queue=other, until=until: queue.run(until))
            self.streams = [*{*self.streams, own}]
            queued(word, function, *arguments)

        def run(self, *arguments):
            self.ordered("run", self.inner.run, *arguments)

        def run_gradient(self, *arguments):
            self.ordered("run_gradient", self.inner.run_gradient, *arguments)

        def weights(self, out, stream):
            self.ordered("weights", self.inner.weights, out, stream)

        def set_weights(self, weights, stream):
            self.ordered("set_weights", self.inner.set_weights, weights, stream)

        def host_weights(self):
            machine.say("sync", "host_weights")
            machine.wait_for(self.streams)
            return self.inner.host_weights()

        def set_host_weights(self, weights):
            machine.say("sync", "set_host_weights")
            machine.wait_for(self.streams)
            self.inner.set_host_weights(weights)

    class Adam:
        def __init__(self, program, *arguments):
            self.program, self.inner = program, self.kind(program.inner, *arguments)

        def step(self, gradient, rate, norm, stream):
            self.program.ordered("step", self.inner.step, gradient, rate, norm, stream)

        def average(self, out, stream):
            self.program.ordered("average", self.inner.average, out, stream)

    class Points:
        def __init__(self, x, weights, device, stream):
            make = lambda *told: setattr(self, "inner", self.kind(*told))  # noqa: E731
            queued("points", make, x, weights, on_current(device), stream)

        def step(self, *arguments):
            sums = []
            queued("points step", lambda *told: sums.append(self.inner.step(*told)), *arguments)
            if arguments[4] is None:
                return None
            machine.say("sync", "sums")
            machine.wait(arguments[-1])
            return sums[0]

        def values(self, out, stream):
            queued("values", lambda *told: self.inner.values(*told), out, stream)

        def squares(self, out, stream):
            queued("squares", lambda *told: self.inner.squares(*told), out, stream)

        def log_jacobian(self, out, stream):
            queued("log_jacobian", lambda *told: self.inner.log_jacobian(*told), out, stream)

    class Ascent:
        def __init__(self, *arguments):
            def make(*told):
                parties = [party and party.inner for party in told[:3]]
                self.inner = self.kind(*parties, *told[3:])

            queued("ascent", make, *arguments)

        def kink(self, *arguments):
            queued("kink", lambda *told: self.inner.kink(*told), *arguments)

        def finish(self, stream):
            queued("finish", lambda *told: self.inner.finish(*told), stream)

        def kinks(self, stream):
            machine.say("sync", "kinks")
            machine.wait(stream)
            return self.inner.kinks(0)

        def log_likelihoods(self, stream):
            machine.say("sync", "log_likelihoods")
            machine.wait(stream)
            return self.inner.log_likelihoods(0)

    for base in (Program, Adam, Points, Ascent):
        for suffix in ("F32", "F64"):
            name = base.__name__ + suffix
            setattr(core, name, type(name, (base,), {"kind": staticmethod(getattr(inner, name))}))
    core.MaskedOptions, core.MaskedTransform = inner.MaskedOptions, inner.MaskedTransform
    core.reason = lambda: "" if machine.devices else "no device is plugged in"
    core.device_count = lambda: machine.devices
    core.device_name = lambda index: f"Fake {index}"
    core.architectures = lambda: "90-real"
    core.runtime_version, core.driver_version = lambda: 13000, lambda: 13010
    return core


class OnCpu:
    """What `_cuda` does, done at once by the CPU's core on the memory that it is told of."""

    def __init__(self, machine):
        told = lambda argument: machine.numbers(argument) if is_told(argument) else argument  # noqa: E731

        def opened(function):
            return lambda *arguments: function(*map(told, arguments[:-1]))

        for name in ("coupling", "coupling_backward", "vector_map", "vector_map_backward"):
            kernel = opened(getattr(cpu, name))
            setattr(self, name, lambda *given, kernel=kernel: kernel(*given[:-1]))  # less the device

        class MaskedOptions:
            def __init__(self, **options):
                self.inner = cpu.MaskedOptions(**options)

        class MaskedTransform:
            def __init__(self, options, levels, degrees):
                self.inner = cpu.MaskedTransform(options.inner, levels, degrees)

            @classmethod
            def from_masks(cls, options, masks):
                self = cls.__new__(cls)
                self.inner = cpu.MaskedTransform.from_masks(options.inner, masks)
                return self

        def programs(kind):
            def make(features, context, base, steps, base_steps, mean, std, device):
                own = [(*step[:2], step[2].inner) if step[0] == "masked" else step for step in steps]
                inner = kind(features, context, base, own, base_steps, mean, std)
                return types.SimpleNamespace(
                    inner=inner,
                    n_weights=inner.n_weights,
                    run=opened(inner.run),
                    run_gradient=opened(inner.run_gradient),
                    weights=lambda out, stream: np.copyto(machine.numbers(out), inner.weights()),
                    set_weights=opened(inner.set_weights),
                    host_weights=inner.weights,
                    set_host_weights=inner.set_weights,
                )

            return make

        def optimisers(kind):
            def make(program, *arguments):
                inner = kind(program.inner, *arguments)

                def step(gradient, rate, norm, stream):
                    found = inner.step(machine.numbers(gradient), rate)
                    if norm is not None:
                        machine.numbers(norm)[0] = found

                return types.SimpleNamespace(
                    step=step, average=lambda out, stream: np.copyto(machine.numbers(out), inner.average())
                )

            return make

        def points(dtype):
            def make(x, weights, device, stream):
                inner = ascent_judge.Points(machine.numbers(x), machine.numbers(weights), dtype)
                return types.SimpleNamespace(
                    inner=inner,
                    step=lambda *arguments: inner.step(*arguments[:-1]),
                    values=lambda out, stream: np.copyto(machine.numbers(out), inner.values()),
                    squares=lambda out, stream: np.copyto(machine.numbers(out), inner.squares()),
                    log_jacobian=lambda out, stream: np.copyto(machine.numbers(out), inner.log_jacobian()),
                )

            return make

        def ascent(*arguments):
            parties = [party and party.inner for party in arguments[:3]]
            inner = ascent_judge.Ascent(*parties, *arguments[3:-1])
            return types.SimpleNamespace(
                kink=lambda *arguments: inner.kink(*arguments[:-1]),
                finish=lambda stream: inner.finish(),
                kinks=lambda stream: inner.kinks(),
                log_likelihoods=lambda stream: inner.log_likelihoods(),
            )

        self.MaskedOptions, self.MaskedTransform = MaskedOptions, MaskedTransform
        for suffix, dtype in (("F32", "float32"), ("F64", "float64")):
            setattr(self, f"Program{suffix}", programs(getattr(cpu, f"Program{suffix}")))
            setattr(self, f"Adam{suffix}", optimisers(getattr(cpu, f"Adam{suffix}")))
            setattr(self, f"Points{suffix}", points(dtype))
            setattr(self, f"Ascent{suffix}", ascent)


def is_told(argument):
    return isinstance(argument, tuple) and len(argument) == 4 and isinstance(argument[3], str)


# ---- PyTorch, JAX and others -----------------------------------------------------------------------------------------


def make_torch(machine):
    """A module with what headrace uses of PyTorch, tensors on the machine's device only."""
    torch = types.ModuleType("torch")
    torch.float32, torch.float64, torch.strided = (FakeName(f"torch.{n}") for n in ("float32", "float64", "strided"))
    torch.stack_of_streams = []

    class Tensor:
        requires_grad, layout, is_quantized = False, torch.strided, False

        def __init__(self, array, block, device=0):
            self.array, self.block = array, block
            self.device = FakeDevice("cuda", device)

        shape = property(lambda self: self.array.shape)
        dtype = property(lambda self: getattr(torch, self.array.dtype.name, FakeName(f"torch.{self.array.dtype}")))
        is_complex = lambda self: False  # noqa: E731
        is_neg = lambda self: False  # noqa: E731
        is_inference = lambda self: False  # noqa: E731
        data_ptr = lambda self: self.array.ctypes.data  # noqa: E731

        def stride(self):
            return tuple(s // self.array.itemsize for s in self.array.strides)

        def record_stream(self, stream):
            """Memory that is given back is not used again before what is queued on this stream by then is done."""
            machine.say("record_stream", stream.cuda_stream)
            own, other = machine.queue(self.block.stream), machine.queue(stream.cuda_stream)
            if own is not other:
                weakref.finalize(self, lambda: own.add(lambda: other.run(len(other.work)))).atexit = False

    def empty(shape, dtype, device):
        machine.say("torch allocate", device)
        dtype = np.dtype(str(dtype).removeprefix("torch."))
        block = Block(machine, math.prod(shape) * dtype.itemsize, torch.cuda.current_stream().cuda_stream)
        return Tensor(block.array(shape, dtype), block, int(device.removeprefix("cuda:")))

    def current_stream(device=None):
        return types.SimpleNamespace(cuda_stream=torch.stack_of_streams[-1] if torch.stack_of_streams else 0)

    @contextlib.contextmanager
    def stream(address):
        torch.stack_of_streams.append(address)
        yield
        torch.stack_of_streams.pop()

    class OutOfMemoryError(RuntimeError):
        pass

    torch.Tensor, torch.empty, torch.OutOfMemoryError = Tensor, empty, OutOfMemoryError
    torch.cuda = types.SimpleNamespace(current_stream=current_stream, stream=stream)
    unpack_dual = lambda value: types.SimpleNamespace(tangent=None)  # noqa: E731
    graph = types.SimpleNamespace(increment_version=lambda tensor: machine.say("written", tensor))
    torch.autograd = types.SimpleNamespace(forward_ad=types.SimpleNamespace(unpack_dual=unpack_dual), graph=graph)
    return torch


def make_jax(machine, x64=True):
    """A module with what headrace uses of JAX, whose arrays are written on a stream of its own."""
    jax = types.ModuleType("jax")
    device = FakeDevice("gpu", 0)
    jax.own_stream = machine.stream()

    class Array:
        def __init__(self, array, owner):
            self.array, self.owner = array, owner

        dtype = property(lambda self: self.array.dtype)
        is_deleted = lambda self: False  # noqa: E731
        devices = lambda self: {device}  # noqa: E731
        __dlpack_device__ = lambda self: (CUDA, 0)  # noqa: E731

        def __dlpack__(self, stream=None, **keywords):
            machine.say("lend", stream)
            return lent(machine, self.array, self.owner, jax.own_stream, stream)

    def from_dlpack(value):
        array, owner = value.__dlpack__(stream=jax.own_stream.ptr)
        return Array(array, owner)

    jax.Array = Array
    jax.core = types.SimpleNamespace(Tracer=type("Tracer", (), {}))
    jax.numpy = types.SimpleNamespace(from_dlpack=from_dlpack)
    jax.config = types.SimpleNamespace(jax_enable_x64=x64)
    return jax


class FakeName(str):
    """A dtype or layout by its name."""

    __slots__ = ()


class FakeDevice:
    def __init__(self, kind, index):
        self.type, self.platform, self.index = kind, kind, index

    def __str__(self):
        return f"{self.type}:{self.index}"


class Exchanged:
    """An array of another library, by DLPack."""

    def __init__(self, machine, array, owner, stream, kind=CUDA, index=0):
        self.machine, self.array, self.owner, self.stream = machine, array, owner, stream
        self.place = kind, index

    def __dlpack_device__(self):
        return self.place

    def __dlpack__(self, stream=None, **keywords):
        self.machine.say("lend", stream)
        return lent(self.machine, self.array, self.owner, self.stream, stream)


class Interface:
    """One with nothing but CUDA's array interface."""

    def __init__(self, array, owner, stream, read_only=False, **more):
        self.array, self.owner = array, owner
        self.told = {
            "data": (array.ctypes.data, read_only),
            "shape": array.shape,
            "typestr": array.dtype.str,
            "strides": None if array.flags.c_contiguous else array.strides,
            "version": 3,
            "stream": stream,
            **more,
        }

    @property
    def __cuda_array_interface__(self):
        return self.told
