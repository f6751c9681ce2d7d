"""Arrays of arguments and results on a CUDA device; the counterpart for the CPU is `caller`.

A call opens all its arguments through one `DeviceCaller`, as CuPy views of the same memory, queues its work on the
caller's current stream, and returns its results in the framework of the arguments.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from headrace import _core
from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._core.device import CACHES, Device, Kernels, OnStream, Stream, device_at

_CUDA, _MANAGED = 2, 13  # DLPack's numbers of device types


class _CuPy:
    """CuPy arrays, and objects that CuPy reads: other libraries' memory by DLPack or CUDA's array interface."""

    kind = "a CuPy array"
    floats = "{}.astype('float64')"
    immutable = False

    def __init__(self, device: Device) -> None:
        self.device = device
        self.make = self._make()

    def _make(self) -> str:
        """The call, as a text for messages, that makes an array of this framework on the device."""
        call = "cupy.asarray({})"
        return f"inside of `with cupy.cuda.Device({self.device.index})`: {call}" if self.device.index else call

    def stream(self) -> Stream:
        """The stream on which the framework currently queues work."""
        return self.device.current_stream()

    def view(self, name: str, value: Any, stream: Stream) -> tuple[Any, bool]:
        """A CuPy view, ready after the producer's work, and whether to hold the view until this call's work is done."""
        cupy = self.device.cupy
        if isinstance(value, cupy.ndarray):
            if value.data.device_id != self.device.index:
                call = f"inside of `with cupy.cuda.Device({self.device.index})`: {name} = cupy.asarray({name})"
                raise errors.on_another_device(name, value.data.device_id, self.device, call)
            return value, False
        with self.device.on(stream):
            if hasattr(type(value), "__dlpack_device__"):
                return _exchanged(name, value, self.device), True
            return self._by_interface(name, value, stream), True

    def _by_interface(self, name: str, value: Any, stream: Stream) -> Any:
        """A CuPy view by CUDA's array interface, version 2 or 3; the stream waits for work on the array's stream."""
        description = value.__cuda_array_interface__
        address, shape, dtype = description["data"][0], description["shape"], np.dtype(description["typestr"])
        if description.get("mask") is not None:
            raise errors.wrong_kind(name, "an array without a mask", f"{errors.type_of(value)} with one")
        if dtype not in _arrays.FLOATS and dtype.kind not in "iub":
            raise errors.wrong_dtype(name, dtype, self.floats)
        producer = description.get("stream")
        if producer == 0:
            raise ValueError(f"{name}: expected a stream other than 0 in __cuda_array_interface__, which is ambiguous")
        if producer is not None:
            self.device.order(self.device.stream_at(producer), stream)
        if address:
            index = self.device.cupy.cuda.runtime.pointerGetAttributes(address).device
            if index != self.device.index:
                raise errors.on_another_device(name, index, self.device, f"copy {name} there")
        strides = description.get("strides")
        if strides is None:
            strides = [math.prod(shape[i + 1 :]) * dtype.itemsize for i in range(len(shape))]
        return self.device.view(address, shape, dtype, strides, value)

    def check_place(self, name: str, value: Any) -> None:
        """Refuse an array on another device; a CuPy array is always accepted."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], stream: Stream) -> tuple[Any, Any]:
        """Memory for a result: a CuPy array, and an object of the caller's framework on the same memory."""
        with self.device.on(stream):
            array = self.device.cupy.empty(shape, dtype)
        return array, array

    def give(self, array: Any, stream: Stream) -> Any:
        """The object of the caller's framework for a result in memory from `empty`."""
        return array

    def written(self, value: Any) -> None:
        """Notify the framework of a write to the caller's array; CuPy needs no notice."""


class _Torch(_CuPy):
    """PyTorch tensors on a CUDA device, in memory of PyTorch's allocator."""

    kind = "a PyTorch tensor"
    floats = "{}.float()"

    def _make(self) -> str:
        return f"torch.asarray({{}}, device='{self.device}')"

    def stream(self) -> Stream:
        return self.device.stream_at(sys.modules["torch"].cuda.current_stream(self.device.index).cuda_stream)

    def check_place(self, name: str, value: Any) -> None:
        """Refuse a tensor on another device."""
        place = value.device
        if place.type != "cuda":
            raise errors.wrong_device(name, f"a tensor on {place}", self.device, f"{name}.to({str(self.device)!r})")
        if place.index != self.device.index:
            raise errors.on_another_device(name, place.index, self.device, f"{name}.to({str(self.device)!r})")

    def view(self, name: str, value: Any, stream: Stream) -> tuple[Any, bool]:
        torch = sys.modules["torch"]
        _arrays.TORCH.check(name, value)
        self.check_place(name, value)
        try:
            view = self._view(value)
        except (RuntimeError, TypeError) as error:  # raised under vmap, and for fake and nested tensors
            raise _arrays.TORCH.unreadable(name, value, error) from None
        # PyTorch must not reuse the memory of a tensor from another stream before this call's work is done.
        value.record_stream(torch.cuda.current_stream(self.device.index))
        return view, False

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], stream: Stream) -> tuple[Any, Any]:
        torch = sys.modules["torch"]
        try:
            tensor = torch.empty(shape, dtype=getattr(torch, dtype.name), device=f"cuda:{self.device.index}")
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from None
        return self._view(tensor), tensor

    def _view(self, tensor: Any) -> Any:
        dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
        strides = [n * dtype.itemsize for n in tensor.stride()]
        return self.device.view(tensor.data_ptr(), tensor.shape, dtype, strides, tensor)

    def written(self, value: Any) -> None:
        _arrays.TORCH.written(value)


class _Jax(_CuPy):
    """JAX arrays on one CUDA device, exchanged by DLPack; work is queued on CuPy's current stream."""

    kind = "a JAX array"
    floats = "{}.astype('float32')"
    immutable = True

    def _make(self) -> str:
        return "jax.numpy.asarray({})"

    def check_place(self, name: str, value: Any) -> None:
        """Refuse arrays that are not numeric or are on another device."""
        _arrays.JAX.check(name, value)
        devices = value.devices()
        call = f"jax.device_put({name}, jax.devices('gpu')[{self.device.index}])"
        if len(devices) != 1 or next(iter(devices)).platform == "cpu":
            places = ", ".join(sorted(map(str, devices)))
            raise errors.wrong_device(name, f"an array on {places}", self.device, call)

    def view(self, name: str, value: Any, stream: Stream) -> tuple[Any, bool]:
        self.check_place(name, value)
        if value.dtype not in _arrays.FLOATS and value.dtype.kind not in "iub":
            raise errors.wrong_dtype(name, value.dtype, "{}.real" if value.dtype.kind == "c" else self.floats)
        with self.device.on(stream):
            return _exchanged(name, value, self.device), True

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], stream: Stream) -> tuple[Any, Any]:
        _arrays.JAX.check_width(dtype)
        return super().empty(shape, dtype, stream)

    def give(self, array: Any, stream: Stream) -> Any:
        with self.device.on(stream):  # JAX waits for this stream on the device
            return sys.modules["jax"].numpy.from_dlpack(array)


def _empty_cache_of_torch() -> None:
    if torch := sys.modules.get("torch"):
        torch.cuda.empty_cache()


CACHES.append(_empty_cache_of_torch)


class DeviceCaller(Caller):
    """The arrays of one call, all on one CUDA device; see `Caller`."""

    def __init__(self, device: Device) -> None:
        """Prepare a call on a device; the first array determines the framework."""
        self.device = device
        self.stream: Stream = None  # the framework's stream; None until an array is opened
        self._cupy = _CuPy(device)
        self._framework: _CuPy | None = None  # the call's framework; None until an array is opened
        self._made: dict[int, tuple[Any, Any]] = {}  # view and result, by the view's id
        self._held: list[Any] = []
        device.let_go()

    def _begin(self, framework: _CuPy) -> _CuPy:
        """Set the call's framework and stream, unless an earlier array has set them; return the call's framework."""
        if self._framework is None:
            self._framework = framework
            self.stream = framework.stream()
            self.core = Kernels(self.device, self.stream)
        return self._framework

    def answer_like(self, like: Any) -> None:
        """Set the framework of results and of all arrays to that of `like`, an array or a framework's name."""
        if (name := _arrays.name_of(like)) is not None:
            kinds: dict[str, type[_CuPy]] = {"cupy": _CuPy, "torch": _Torch, "jax": _Jax}
            framework = kinds[check.choice("like", name, tuple(kinds))](self.device)
            importlib.import_module(name)
        else:
            framework = self._framework_for("like", like)
            framework.check_place("like", like)
        self._name = "like"
        self._begin(framework)

    def open(self, name: str, value: Any, raw: bool = False, whole: bool = False) -> Any:
        """`value` as a CuPy view of the same memory, checked to be float32 or float64 on this device.

        With `whole` (for data), integers and truth values are also allowed, and converted on the device.
        """
        framework = self._framework_for(name, value)
        self._name = self._name or name
        expected = self._begin(framework)
        if framework.kind != expected.kind:
            kind, source = framework.kind, name
            if framework.kind == _CuPy.kind and not isinstance(value, self.device.cupy.ndarray):
                kind, source = errors.type_of(value), f"cupy.from_dlpack({name})"
            raise errors.wrong_framework(name, expected.kind, self._name, kind, expected.make.format(source))
        array, hold = expected.view(name, value, self.stream)
        is_float = array.dtype in _arrays.FLOATS
        if not is_float and not (whole and array.dtype.kind in "iub"):
            raise errors.wrong_dtype(name, array.dtype, "{}.real" if array.dtype.kind == "c" else expected.floats)
        if array.size and any(n % array.dtype.itemsize for n in (array.data.ptr, *array.strides)):
            raise errors.not_aligned(name)
        if hold:
            self._held.append(array)
        if is_float:
            return array
        with self.device.on(self.stream):
            return array.astype(np.float64)

    def _framework_for(self, name: str, value: Any) -> _CuPy:
        if isinstance(value, self.device.cupy.ndarray):
            return self._cupy
        framework = _arrays.framework_of(name, value, "cupy")
        if framework is _arrays.TORCH:
            return _Torch(self.device)
        if framework is _arrays.JAX:
            return _Jax(self.device)
        if not _is_on_device(value):
            kind = framework.kind if isinstance(value, np.ndarray) else errors.type_of(value)
            to = f"{self._cupy.make.format(name)}, or .to('cpu') of the flow or transform"
            raise errors.wrong_device(name, f"{kind} in the CPU's memory", self.device, to)
        return self._cupy

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Uninitialised memory for a result, on the device."""
        framework = self._begin(self._cupy)
        array, memory = self.device.retried(lambda: framework.empty(shape, dtype, self.stream))
        self._made[id(array)] = array, memory
        return array

    def scratch(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Memory for intermediate results, on the device."""
        with self.queue():
            return self.device.retried(lambda: self.device.cupy.empty(shape, dtype))

    def weighted_sum(self, values: Any, weights: Any) -> float:
        """The weighted sum of values on the device; see `_arrays.weighted_sum`."""
        with self.queue():
            return _arrays.weighted_sum(values, weights)

    def queued(self, what: Any) -> Any:
        """A program, or another object of `_cuda`, bound to this call's stream."""
        if hasattr(what, "queued_on"):  # objects of this package have this method
            return what.queued_on(self.stream)
        return OnStream(self.device, what.core, self.stream)

    def _is_immutable(self, name: str, value: Any) -> bool:
        framework = None if value is None else self._framework_for(name, value)
        return any(f is not None and f.immutable for f in (self._framework, framework))

    def _check_own(self, name: str, value: Any) -> None:
        if not isinstance(value, (self.device.cupy.ndarray, _arrays.class_of("torch", "Tensor"))):
            kind = errors.type_of(value)
            raise TypeError(f"{name}: expected a CuPy array or a PyTorch tensor to write into, got {kind}")

    def give(self, array: Any) -> Any:
        """A result in the caller's framework: the array `out` if the caller passed `out`."""
        assert self._framework is not None
        if self._out is not None:
            return super().give(array)
        return self._framework.give(self._made.pop(id(array))[1], self.stream)

    def __del__(self) -> None:
        """Hold arrays in memory of other libraries until the call's queued work is done, also after an error."""
        if self._held:
            self.device.keep(self.stream, self._held)

    @contextmanager
    def queue(self) -> Iterator[None]:
        """A context manager in which CuPy queues its work on this call's stream."""
        self._begin(self._cupy)
        with self.device.on(self.stream):
            yield


def caller_of(first: Any) -> Caller:
    """A `Caller` or `DeviceCaller` for a call without a flow or transform, on the device of the array `first`."""
    if type(first) is np.ndarray or not _is_on_device(first) or _core.cuda_unavailable():
        return Caller()  # a `Caller` explains why it cannot open arrays on a device
    return DeviceCaller(device_at(_index_of(first)))


def _is_on_device(value: Any) -> bool:
    """Whether an object is an array in the memory of a CUDA device."""
    framework = _arrays.framework_or_none(value)
    if framework is None or isinstance(value, np.ndarray):
        return False
    if framework is _arrays.TORCH:
        return bool(value.device.type == "cuda")
    if framework is _arrays.JAX:
        if isinstance(value, sys.modules["jax"].core.Tracer) or value.is_deleted():
            return False  # a tracer is on no device, and opening it raises an error
        return any(device.platform in ("gpu", "cuda") for device in value.devices())
    if hasattr(type(value), "__dlpack_device__"):
        return int(value.__dlpack_device__()[0]) in (_CUDA, _MANAGED)
    return hasattr(type(value), "__cuda_array_interface__")


def check_on_host(name: str, value: Any) -> None:
    """Refuse an array on a CUDA device if an argument must be on the CPU, whatever the flow's device is."""
    if _is_on_device(value):
        copy = {_arrays.TORCH: f"{name}.cpu()", _arrays.JAX: f"jax.device_put({name}, jax.devices('cpu')[0])"}
        call = copy.get(_arrays.framework_of(name, value), f"cupy.asnumpy({name})")
        raise TypeError(
            f"{name}: expected an array in the CPU's memory, wherever the flow or transform is, got "
            f"{errors.type_of(value)} on a CUDA device; call {call}"
        )


def _index_of(value: Any) -> int:
    """The index of the CUDA device with an array's memory."""
    if isinstance(value, _arrays.class_of("torch", "Tensor")):
        return int(value.device.index)
    if hasattr(type(value), "__dlpack_device__"):
        return int(value.__dlpack_device__()[1])
    import cupy  # `caller_of` has checked that CuPy is installed

    address = value.__cuda_array_interface__["data"][0]
    return int(cupy.cuda.runtime.pointerGetAttributes(address).device if address else cupy.cuda.runtime.getDevice())


def _exchanged(name: str, value: Any, device: Device) -> Any:
    """A CuPy view through DLPack; the producer makes CuPy's current stream wait for the producer's queued work."""
    kind, index = value.__dlpack_device__()
    if int(kind) == _CUDA and int(index) != device.index:
        raise errors.on_another_device(name, int(index), device, f"copy {name} there")
    try:
        array = device.cupy.from_dlpack(value)
    except (BufferError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise errors.unreadable(name, "CuPy", value, error) from None
    if array.data.device_id != device.index:  # possible for managed memory
        raise errors.on_another_device(name, array.data.device_id, device, f"copy {name} there")
    return array
