"""CuPy, PyTorch, JAX and others on the fake device (fake_cuda.py): the parts of each that headrace uses."""

import contextlib
import math
import types
import weakref

import numpy as np

CUDA, CPU = 2, 1  # DLPack's codes for devices

REDUCTIONS = ("sum", "min", "max", "mean", "all", "any")


class Block:
    """Memory of an allocator, which holds NaN before its first use and after its release."""

    def __init__(self, machine, size, address, at_once=False):
        raw = np.full(size + 64, 0xFF, np.uint8)
        start = -raw.ctypes.data % 64
        self.bytes, self.machine = raw[start : start + size], machine
        self.stream = address
        machine.blocks.append(raw)  # the memory is kept, so that a late read gets NaN
        poison = raw.fill if at_once else lambda byte: machine.queue(address).add(lambda: raw.fill(byte))
        weakref.finalize(self, poison, 0xFF).atexit = False

    def array(self, shape, dtype):
        return np.ndarray(shape, dtype, self.bytes)


# ---- CuPy ------------------------------------------------------------------------------------------------------------


def make_cupy(machine):
    """A module with the functions of CuPy that headrace uses, on one machine."""
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
            machine.record("wait", self.ptr, queue.address)
            machine.queue(self.ptr).add(lambda: queue.run(until))

        def synchronize(self):
            machine.record("sync", "stream")
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
        """An operand in the memory of the CPU; NumPy arrays with axes are refused."""
        if isinstance(value, ndarray):
            return value.on_cpu
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        if isinstance(value, (list, tuple)):
            return type(value)(map(host, value))
        return value

    def computed(function, *arguments, waits=False, **keywords):
        """The result of a NumPy function on arrays of the device, after all work queued earlier."""
        stream = machine.current_stream()
        if waits:
            machine.record("sync", function.__name__)
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
            described = memptr.ptr, tuple(shape), tuple(strides), np.dtype(dtype)
            self.on_cpu, self.data = machine.numbers(described), memptr

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
            machine.record("sync", "get", self.size)
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
            self.on_cpu[host(key)] = host(value)

        def __float__(self):
            return float(self.get())

        def __int__(self):
            return int(self.get())

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
        machine.record("allocate", machine.current_stream().ptr)
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        dtype = np.dtype(dtype)
        block = Block(machine, math.prod(shape) * dtype.itemsize, machine.current_stream().ptr)
        return ndarray.over(block.array(shape, dtype), block, machine.device)

    def asarray(values, dtype=None):
        if isinstance(values, ndarray):
            return values if dtype is None or dtype == values.dtype else values.astype(dtype)
        machine.record("upload", np.size(values))
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
    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(
        free_all_blocks=lambda: machine.record("cupy gives back")
    )
    cupy.ascontiguousarray = ascontiguousarray
    cupy.zeros = lambda shape, dtype=float: placed(np.zeros(shape, dtype))
    cupy.ones = lambda shape, dtype=float: placed(np.ones(shape, dtype))
    cupy.arange = lambda *bounds: placed(np.arange(*bounds))
    return cupy


def reduction(name, computed):
    return lambda self, **keywords: computed(lambda a, **k: getattr(a, name)(**k), self, **keywords)


def lent(machine, array, owner, producer, consumer):
    """Make the consumer's stream wait for the producer's; return array and owner in place of a DLPack capsule."""
    event = machine.cupy.cuda.Event()
    event.record(producer)
    machine.cupy.cuda.Stream.of(0 if consumer in (None, 1) else consumer).wait_event(event)
    return array, owner


# ---- PyTorch, JAX and others ----------------------------------------------------------------------------------------


def make_torch(machine):
    """A module with the functions of PyTorch that headrace uses, for tensors on the machine's device only."""
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
            """Delay reuse of the tensor's memory, once freed, until all work queued on the given stream is done."""
            machine.record("record_stream", stream.cuda_stream)
            own, other = machine.queue(self.block.stream), machine.queue(stream.cuda_stream)
            if own is not other:
                weakref.finalize(self, lambda: own.add(lambda: other.run(len(other.work)))).atexit = False

    def empty(shape, dtype, device):
        machine.record("torch allocate", device)
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
    empty_cache = lambda: machine.record("torch gives back")  # noqa: E731
    torch.cuda = types.SimpleNamespace(current_stream=current_stream, stream=stream, empty_cache=empty_cache)
    unpack_dual = lambda value: types.SimpleNamespace(tangent=None)  # noqa: E731
    graph = types.SimpleNamespace(increment_version=lambda tensor: machine.record("written", tensor))
    torch.is_grad_enabled = lambda: True
    torch.autograd = types.SimpleNamespace(forward_ad=types.SimpleNamespace(unpack_dual=unpack_dual), graph=graph)
    return torch


def make_jax(machine, x64=True):
    """A module with the functions of JAX that headrace uses, whose arrays are written on a separate stream."""
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
            machine.record("lend", stream)
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
    """The name of a dtype or layout, in place of the framework's object."""

    __slots__ = ()


class FakeDevice:
    def __init__(self, kind, index):
        self.type, self.platform, self.index = kind, kind, index

    def __str__(self):
        return f"{self.type}:{self.index}"


class Exchanged:
    """An array of another library, which DLPack exchanges."""

    def __init__(self, machine, array, owner, stream, kind=CUDA, index=0):
        self.machine, self.array, self.owner, self.stream = machine, array, owner, stream
        self.place = kind, index

    def __dlpack_device__(self):
        return self.place

    def __dlpack__(self, stream=None, **keywords):
        self.machine.record("lend", stream)
        return lent(self.machine, self.array, self.owner, self.stream, stream)


class Interface:
    """An array whose only protocol is CUDA's array interface."""

    def __init__(self, array, owner, stream, read_only=False, **more):
        self.array, self.owner = array, owner
        self.interface = {
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
        return self.interface
