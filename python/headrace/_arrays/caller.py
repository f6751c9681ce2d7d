"""Arrays of arguments and results on the CPU; the counterpart for CUDA devices is `device_caller`.

A call opens all its arguments through one `Caller`, as NumPy views of the same memory, and returns results in the
framework of the arguments. Frameworks are not imported: a program that has a tensor has already imported torch.

Flows and transforms take float32 or float64 arrays of any strides without a copy; integers, truth values and
lists are converted to float64. Functions of `headrace.ops` and arguments `out` do not convert arrays.
"""

from __future__ import annotations

import importlib
import math
import sys
import types
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import frames as _frames
from headrace._arrays.names import Names
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._core import cpu, cuda_unavailable

Array = Any
"""An array of NumPy, or of PyTorch or JAX on the CPU; an argument may also be a frame (docs/arrays.md). On a CUDA
device, an array of CuPy, PyTorch or JAX, or an object with DLPack or CUDA's array interface (docs/gpu.md)."""

Matrix = NDArray[np.float32] | NDArray[np.float64]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
LISTS = (list, tuple, int, float, np.number, np.bool_)  # types of values that become NumPy arrays
class_of = _frames.class_of
_VJPS = (
    "gradients come from headrace.torch.FlowModule, or from log_prob_vjp, to_data_vjp and the other methods in _vjp; "
    "those of headrace.ops from headrace.torch.coupling, or from its functions in _vjp"
)


class _NumPy:
    """NumPy arrays, and objects that NumPy reads: frames, and other libraries' CPU memory by DLPack or `__array__`."""

    kind = "a NumPy array"
    make, floats = "np.asarray({})", "{}.astype('float64')"
    immutable = False
    empty: Callable[..., NDArray[Any]] = staticmethod(np.empty)  # returns memory for a result of a shape and dtype

    def view(self, name: str, value: Any) -> NDArray[Any]:
        """A NumPy view of an array's memory; an error's message has a call that converts the array."""
        if isinstance(value, np.ma.MaskedArray):
            advice = f"call {name}.filled(...) or drop masked rows"
            raise errors.wrong_kind(name, self.kind, "a masked array", advice)
        if isinstance(value, np.ndarray):
            return np.asarray(value)
        if _frames.is_frame(value):
            return _frames.read(name, value)
        exchanged = hasattr(type(value), "__dlpack_device__") or hasattr(type(value), "__cuda_array_interface__")
        return _exchanged(name, value) if exchanged else _frames.read(name, value)

    def check_like(self, value: Any) -> None:
        """Refuse an array `like` that is not on the CPU; a NumPy array is always accepted."""

    def give(self, array: NDArray[Any], like: Any) -> Any:
        """A result as an array of this framework on the same memory, on the device of `like`."""
        return array

    def written(self, value: Any) -> None:
        """Notify the framework of a write to the caller's array; NumPy needs no notice."""


_WHOLE_OF_TORCH = ("torch.int", "torch.uint", "torch.bool")


class _Torch(_NumPy):
    """PyTorch tensors on the CPU."""

    kind = "a PyTorch tensor"
    make, floats = "torch.asarray({})", "{}.float()"

    def view(self, name: str, value: Any) -> NDArray[Any]:
        self.check(name, value)
        if value.device.type != "cpu":
            raise _not_on_cpu(name, "a tensor", value.device, f"{name}.cpu()")
        try:
            array: NDArray[Any] = (value.detach() if value.requires_grad else value).numpy()
        except (RuntimeError, TypeError) as error:  # raised under vmap, and for fake and nested tensors
            raise self.unreadable(name, value, error) from None
        return array

    def check(self, name: str, value: Any) -> None:
        """Refuse tensors, on any device, that require a gradient or are not dense arrays in memory."""
        torch = sys.modules["torch"]
        if value.requires_grad and torch.is_grad_enabled():
            raise TypeError(
                f"{name}: expected a tensor that requires no gradient, because it would be lost; call {name}.detach(), "
                f"or do this under torch.no_grad(); {_VJPS}"
            )
        if value.device.type == "meta":
            raise TypeError(f"{name}: expected a tensor with numbers, got one on the meta device; make one on the CPU")
        if value.layout is not torch.strided:
            raise errors.not_dense(name, value.layout)
        if value.dtype not in (torch.float32, torch.float64) and not str(value.dtype).startswith(_WHOLE_OF_TORCH):
            call = "{}.dequantize()" if value.is_quantized else "{}.real" if value.is_complex() else self.floats
            raise errors.wrong_dtype(name, value.dtype, call)
        if value.is_neg():
            raise TypeError(f"{name}: expected a tensor without lazy negation, got one; call {name}.resolve_neg()")
        if torch.autograd.forward_ad.unpack_dual(value).tangent is not None:
            raise TypeError(f"{name}: expected a tensor without a tangent, because it would be lost; {_VJPS}")

    def check_like(self, value: Any) -> None:
        if value.device.type != "cpu":
            raise _not_on_cpu("like", "a tensor", value.device, "like.cpu()")

    def unreadable(self, name: str, value: Any, error: Exception) -> TypeError:
        """The error for a tensor whose memory NumPy cannot access."""
        return TypeError(
            f"{name}: expected a tensor that NumPy can read, got {errors.type_of(value)} ({error}); call headrace "
            f"outside of torch.func; {_VJPS}"
        )

    def give(self, array: NDArray[Any], like: Any) -> Any:
        return sys.modules["torch"].from_numpy(array)

    def written(self, value: Any) -> None:
        if not value.is_inference():  # autograd detects by the version that saved values changed
            sys.modules["torch"].autograd.graph.increment_version(value)


class _Jax(_NumPy):
    """JAX arrays on one CPU device."""

    kind = "a JAX array"
    make, floats = "jax.numpy.asarray({})", "{}.astype('float32')"
    immutable = True

    def view(self, name: str, value: Any) -> NDArray[Any]:
        self.check(name, value)
        devices = value.devices()
        if len(devices) != 1 or next(iter(devices)).platform != "cpu":
            places = ", ".join(sorted(map(str, devices)))
            raise _not_on_cpu(name, "an array", places, f"jax.device_put({name}, jax.devices('cpu')[0])")
        try:
            return np.asarray(value)
        except TypeError as error:  # NumPy cannot read keys of random generators
            raise TypeError(f"{name}: expected a JAX array that NumPy can read ({error})") from None

    def check(self, name: str, value: Any) -> None:
        """Refuse tracers and deleted arrays, which have no values."""
        jax = sys.modules["jax"]
        if isinstance(value, jax.core.Tracer):
            raise TypeError(
                f"{name}: expected a JAX array with numbers, got a tracer, as inside of jit, grad and vmap; call "
                "the functions of headrace.jax there, such as headrace.jax.coupling for couplings of headrace.ops"
            )
        if value.is_deleted():
            raise TypeError(f"{name}: expected a JAX array with numbers, got one that was deleted or donated")

    def check_like(self, value: Any) -> None:
        self.check("like", value)
        if any(device.platform != "cpu" for device in value.devices()):
            raise _not_on_cpu("like", "an array", value.devices(), "jax.device_put(like, jax.devices('cpu')[0])")

    def check_width(self, dtype: np.dtype[Any]) -> None:
        """Refuse a dtype that JAX would narrow."""
        if dtype == np.float64 and not sys.modules["jax"].config.jax_enable_x64:
            raise TypeError(errors.too_wide_for_jax("results", "flow or transform"))

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Memory that JAX can take over without a copy, because its address is a multiple of 64."""
        self.check_width(dtype)
        size = math.prod(shape) * dtype.itemsize
        memory = np.empty(size + 63, np.uint8)
        return np.ndarray(shape, dtype, memory, -memory.ctypes.data % 64)

    def give(self, array: NDArray[Any], like: Any) -> Any:
        jax = sys.modules["jax"]
        device = jax.devices("cpu")[0] if like is None else next(iter(like.devices()))
        return jax.numpy.from_dlpack(array, device=device)


NUMPY, TORCH, JAX = _NumPy(), _Torch(), _Jax()
_NAMED = {"numpy": NUMPY, "torch": TORCH, "jax": JAX}


class Caller:
    """The arrays of one call, which all have one framework, including the results."""

    # Class attributes are the values before an array is opened, because setting attributes takes time in each call.
    _framework: Any = NUMPY
    _name = ""  # the name of the argument that determined the framework
    _first: Any = None
    _out: Any = None
    foreign = False  # whether an array opened with `raw` is not in the core's byte order and width
    device: Any = None  # the `_device.Device` that computes; None for the CPU
    core: Any = cpu  # the compiled module
    names: Names | None = None  # the column names that frames must have

    def answer_like(self, like: Any) -> None:
        """Set the framework of results and of all arrays to that of `like`, an array or a framework's name."""
        if (name := name_of(like)) is not None:
            self._framework = _NAMED[check.choice("like", name, tuple(_NAMED))]
            importlib.import_module(name)
        else:
            self._framework, self._first = framework_of("like", like), like
            self._framework.check_like(like)
        self._name = "like"

    def open(self, name: str, value: Any, raw: bool = False, whole: bool = False) -> NDArray[Any]:
        """`value` as a NumPy array on the same memory, checked to be float32 or float64.

        Floats of another byte order or width are converted. With `whole` (for data), integers and truth values are also
        allowed, and lists and numbers become NumPy arrays. With `raw`, arrays keep their byte order and width.
        """
        if type(value) is np.ndarray:
            framework, array = NUMPY, value
        elif whole and isinstance(value, LISTS):
            return _frames.read_list(name, value)
        else:
            if self.names is not None:
                self.names.check(name, value)
            framework = framework_of(name, value)
            array = framework.view(name, value)
        if not self._name:
            self._framework, self._name, self._first = framework, name, value
        elif framework is not self._framework:
            kind, source = framework.kind, name
            if framework is NUMPY and not isinstance(value, np.ndarray):
                kind = errors.type_of(value)
                source = f"{name}.to_numpy()" if _frames.is_frame(value) else f"np.from_dlpack({name})"
            expected = self._framework
            raise errors.wrong_framework(name, expected.kind, self._name, kind, expected.make.format(source))
        if array.dtype not in FLOATS:
            if not convertible(array.dtype, whole):
                call = "{}.real" if array.dtype.kind == "c" else framework.floats
                raise errors.wrong_dtype(name, getattr(value, "dtype", array.dtype), call)
            if not raw:
                return native(array)
            self.foreign = True
        return array

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Uninitialised memory for a result."""
        return self._framework.empty(shape, dtype)

    def output(
        self, out: Any, dtype: np.dtype[Any], shape: tuple[int, ...], inputs: tuple[NDArray[Any] | None, ...]
    ) -> NDArray[Any]:
        """The memory for a result: new memory, or `out`, which must not overlap with an input."""
        if out is None:
            return self.empty(shape, dtype)
        array = self._writable("out", out, shape, dtype)
        if any(_overlap(array, a) for a in inputs):
            raise ValueError("out: expected memory of its own, got an overlap")
        self._out = out
        return array

    def output_pair(
        self,
        out: Any,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        other_shape: tuple[int, ...],
        inputs: tuple[NDArray[Any] | None, ...],
        *,
        in_place: str = "",
        first_dtype: np.dtype[Any] | None = None,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Memory for two results; if `in_place` names the first input, the first result may overwrite that input."""
        if out is None:
            return self.empty(shape, first_dtype or dtype), self.empty(other_shape, dtype)
        if not isinstance(out, tuple) or len(out) != 2:
            raise TypeError(f"out: expected a tuple of two arrays, got {errors.type_of(out)}")
        first = self._writable("out[0]", out[0], shape, first_dtype or dtype)
        second = self._writable("out[1]", out[1], other_shape, dtype)
        read_after = inputs[1:] if in_place and _same(first, inputs[0]) else inputs
        if any(_overlap(first, a) for a in read_after) or any(_overlap(second, a) for a in (first, *inputs)):
            exception = f", or {in_place} itself for the value" if in_place else ""
            raise ValueError(f"out: expected memory of its own{exception}, got an overlap")
        self._out = out
        return first, second

    def _writable(self, name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        if self._is_immutable(name, value):
            raise TypeError(f"{name}: expected None, as JAX arrays cannot be written to, got {errors.type_of(value)}")
        foreign = self.foreign
        # The array is opened without a conversion, because results must be written to the argument and not to a copy.
        array = self.open(name, value, True)
        self.foreign = foreign
        self._check_own(name, value)
        exact(name, array, shape, dtype)
        if isinstance(array, np.ndarray) and not array.flags.writeable:
            raise ValueError(f"{name}: expected a writable array, got a read-only one")
        return array

    def _is_immutable(self, name: str, value: Any) -> bool:
        framework = self._framework if value is None else framework_of(name, value)
        return self._framework.immutable or framework.immutable

    def _check_own(self, name: str, value: Any) -> None:
        """Refuse an argument `out` that headrace can read but not write, such as a frame."""
        if framework_of(name, value) is NUMPY and not isinstance(value, np.ndarray):
            kind = errors.type_of(value)
            raise TypeError(f"{name}: expected a NumPy array or a PyTorch tensor to write into, got {kind}")

    def give(self, array: NDArray[Any]) -> Any:
        """A result in the caller's framework: the array `out` if the caller passed `out`."""
        if self._out is not None:
            self._framework.written(self._out)
            return self._out
        return array if self._framework is NUMPY else self._framework.give(array, self._first)

    def give_pair(self, first: NDArray[Any], second: NDArray[Any]) -> tuple[Any, Any]:
        """Two results in the caller's framework: the tuple `out` if the caller passed `out`."""
        out: tuple[Any, Any] | None = self._out
        if out is not None:
            for array in out:
                self._framework.written(array)
            return out
        if self._framework is NUMPY:
            return first, second
        return self.give(first), self.give(second)

    def scratch(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Memory for intermediate results."""
        return np.empty(shape, dtype)

    def weighted_sum(self, values: NDArray[Any], weights: NDArray[Any] | None) -> float:
        """The weighted sum of values, in float64; see the function `weighted_sum`."""
        return weighted_sum(values, weights)

    def queued(self, what: Any) -> Any:
        """An object of the core for calls of its methods; a `DeviceCaller` binds the object to the call's stream."""
        return what

    def queue(self) -> AbstractContextManager[None]:
        """A context manager in which functions on opened arrays run in order with the core's calls."""
        return nullcontext()


def named(names: Names) -> type[Caller]:
    """A class of callers for a flow with column names; as a class attribute, the names cost no time in a call."""
    return type("NamedCaller", (Caller,), {"names": names})


# ---- arguments -------------------------------------------------------------------------------------------------------


def name_of(framework: Any) -> str | None:
    """The name of a framework, from the name or the framework's module; None for other objects."""
    if isinstance(framework, types.ModuleType):
        return framework.__name__.partition(".")[0]
    return framework if isinstance(framework, str) else None


def framework_of(name: str, value: Any, own: str = "np") -> _NumPy:
    """The framework of an array on any device; arrays of unknown libraries count as NumPy's.

    Errors recommend the library `own`: NumPy, or "cupy" if arrays on a device are expected.
    """
    if isinstance(value, np.ndarray):
        return NUMPY
    if isinstance(value, class_of("torch", "Tensor")):
        return TORCH
    if isinstance(value, class_of("jax", "Array")):
        return JAX
    kind = type(value)
    if _frames.is_frame(value) or hasattr(kind, "__dlpack_device__") or hasattr(kind, "__cuda_array_interface__"):
        return NUMPY
    if own == "np" and _frames.is_readable(value):
        return NUMPY
    hint = ""
    if isinstance(value, (list, tuple, int, float)):
        hint = f"call {own}.asarray({name}, dtype='float64')"
    elif hasattr(kind, "__array__"):
        hint = f"call {own}.asarray({name})"
    got = "None" if value is None else errors.type_of(value)
    kinds = "NumPy, PyTorch or JAX, or a frame" if own == "np" else "CuPy, PyTorch or JAX"
    raise errors.wrong_kind(name, f"an array of float32 or float64 (of {kinds})", got, hint)


def framework_or_none(value: Any) -> _NumPy | None:
    """The framework of an array that can be opened; None for any other object."""
    try:
        return framework_of("", value)
    except TypeError:
        return None


def is_array(value: Any) -> bool:
    """Whether the type of an object can be opened as rows: an array, a frame or a list."""
    return isinstance(value, (list, tuple)) or framework_or_none(value) is not None


def is_whole(value: Any) -> bool:
    """Whether an array or a frame has integers or truth values in at least one column."""
    if isinstance(value, LISTS):
        value = np.asarray(value)
    if (dtype := getattr(value, "dtype", None)) is not None:
        return any(kind in str(dtype) for kind in ("int", "bool"))
    return any(kind != "float" for kind in _frames.kinds_of(value) or ())


def _exchanged(name: str, value: Any) -> NDArray[Any]:
    """A NumPy view of another library's object in the CPU's memory; objects on a device are refused."""
    call = f"copy it there, as by cupy.asnumpy({name})"
    if not hasattr(type(value), "__dlpack_device__"):
        raise _not_on_cpu(name, errors.type_of(value), "a CUDA device", call)
    kind, index = value.__dlpack_device__()
    if kind != 1:
        names = {2: "CUDA", 3: "pinned CUDA", 8: "Metal", 10: "ROCm", 11: "pinned ROCm", 13: "managed CUDA"}
        device = f"{names.get(int(kind), f'DLPack type {int(kind)}')} device {index}"
        raise _not_on_cpu(name, errors.type_of(value), device, call)
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise errors.unreadable(name, "NumPy", value, error, f"call np.asarray({name}, dtype='float64')") from None


def _not_on_cpu(name: str, what: str, device: Any, call: str) -> TypeError:
    return errors.not_on_cpu(name, what, device, call, cuda_unavailable())


def _same(a: NDArray[Any], b: NDArray[Any] | None) -> bool:
    """Whether two arrays share all elements: a kernel, which reads a tile before it writes, may overwrite its input."""
    return (
        b is not None
        and _bounds(a)[0] == _bounds(b)[0]
        and (a.dtype, a.size) == (b.dtype, b.size)  # leading dimensions may differ
        and a.flags.c_contiguous
        and b.flags.c_contiguous
    )


def _overlap(a: NDArray[Any], b: NDArray[Any] | None) -> bool:
    if b is None or not a.size or not b.size:
        return False
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.may_share_memory(a, b)  # NumPy compares the bounds
    (begin, end), (other_begin, other_end) = _bounds(a), _bounds(b)
    return begin < other_end and other_begin < end


def _bounds(array: NDArray[Any]) -> tuple[int, int]:
    """The range of addresses of an array's elements."""
    begin = end = address_of(array)
    for size, stride in zip(array.shape, array.strides, strict=True):
        begin += min(0, (size - 1) * stride)
        end += max(0, (size - 1) * stride)
    return begin, end + array.itemsize


def address_of(array: NDArray[Any]) -> int:
    """The address of the first element of an array of NumPy or CuPy."""
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def convertible(dtype: np.dtype[Any], whole: bool) -> bool:
    """Whether `native_dtype` can hold the values of a dtype: floats, and with `whole` integers and truth values."""
    return (dtype.kind == "f" and dtype.itemsize >= 4) or (whole and dtype.kind in "iub")


def native_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype, float32 or float64, to which arrays of a dtype are converted; float64 for integers."""
    return FLOATS[dtype.kind != "f" or dtype.itemsize > 4]


def native(array: NDArray[Any]) -> NDArray[Any]:
    """`array` itself, or a copy if the dtype is not that of `native_dtype`."""
    return array.astype(native_dtype(array.dtype), copy=False)


# ---- checked arrays ----------------------------------------------------


def matrix(name: str, value: Any, columns: int, caller: Caller | None = None, *, whole: bool = False) -> Matrix:
    """`value` as an array of shape (rows, columns), which must be float32 or float64; see `Caller.open`."""
    array = (caller or Caller()).open(name, value, whole=whole)
    if array.ndim != 2 or array.shape[1] != columns:
        raise errors.wrong_shape(name, f"(rows, {columns})", array.shape)
    return array


def shaped(
    name: str, value: Any, shape: tuple[int, ...], caller: Caller | None = None, *, whole: bool = False
) -> NDArray[Any]:
    """`value` as an array of this shape, which must be float32 or float64; see `Caller.open`."""
    array = (caller or Caller()).open(name, value, whole=whole)
    if array.shape != shape:
        raise errors.wrong_shape(name, shape, array.shape)
    return array


def context_rows(
    value: Any, rows: int, columns: int, name: str = "context", caller: Caller | None = None
) -> Matrix | None:
    """The context as an array (rows, columns), or (1, columns) for all rows; None if the flow takes no context."""
    if columns == 0:
        if value is not None:
            raise errors.takes_no_context(name)
        return None
    if value is None:
        raise errors.wrong_shape(name, errors.context_shape(columns, (rows,)), "None")
    caller = caller or Caller()
    array = opened = caller.open(name, value, whole=True)
    if array.size == columns and (array.ndim == 1 or array.shape == ()):
        array = array.reshape(1, columns)
    elif array.ndim == 1 and columns == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] != columns or array.shape[0] not in (rows, 1):
        raise errors.wrong_shape(name, errors.context_shape(columns, (rows,)), opened.shape)
    return array


def row_weights(
    name: str,
    value: Any,
    rows: int,
    caller: Caller | None = None,
    shape: tuple[int, ...] | None = None,
    any_sum: bool = False,
    whole: bool = True,
) -> tuple[NDArray[Any] | None, float]:
    """The checked weights of rows, finite, not negative and not all zero, and their sum; None stands for weights of 1.

    The weights must have the shape `shape`, by default (rows,). On a device the call waits for the sum. With `any_sum`
    the sum may be arbitrarily large or small, because the caller scales the weights.
    """
    if value is None:
        return None, float(rows)
    caller = caller or Caller()
    array = shaped(name, value, (rows,) if shape is None else shape, caller, whole=whole)
    with caller.queue():
        array = array.reshape(rows)
        bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
        if bad.size:
            raise ValueError(f"{name}: expected finite numbers of at least 0, got {array[bad[0]]} at index {bad[0]}")
        with np.errstate(over="ignore"):
            total = float(array.sum(dtype=np.float64))
    if rows and not total > 0:
        raise ValueError(f"{name}: expected at least one number above 0, got none")
    # A sum in this range keeps products with weights, and quotients by the sum of weights, finite.
    if rows and not any_sum and not 1e-300 < total < 1e300:
        raise ValueError(f"{name}: expected a sum between 1e-300 and 1e300, got {total:g}")
    return array, total


def weighted_sum(values: NDArray[Any], weights: NDArray[Any] | None) -> float:
    """The weighted sum in float64 without BLAS, whose order of terms depends on threads; on a device the call waits."""
    if weights is None:
        return float(values.sum(dtype=np.float64))
    return float((values.astype(np.float64, copy=False) * weights).sum())


def ready(array: NDArray[Any], dtype: np.dtype[Any], caller: Caller | None = None) -> NDArray[Any]:
    """The array in the form of the core's vectors, in C order, aligned and of this dtype; a copy only if needed."""
    if isinstance(array, np.ndarray):
        return np.require(array, dtype, ("C", "A"))
    with (caller or Caller()).queue():
        return library(array).ascontiguousarray(array, dtype)


def library(array: NDArray[Any]) -> Any:
    """The library whose functions make arrays of this type: NumPy or CuPy."""
    return np if isinstance(array, np.ndarray) else sys.modules["cupy"]


def on_host(array: NDArray[Any]) -> NDArray[Any]:
    """An array's values as a NumPy array; an array on a device is copied, and the call waits for the copy."""
    return array if isinstance(array, np.ndarray) else array.get()


def strict(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any], caller: Caller) -> NDArray[Any]:
    """`value` as an array, checked by `exact`."""
    return exact(name, caller.open(name, value), shape, dtype)


def strict_input(name: str, value: Any, ndim: int, caller: Caller) -> NDArray[Any]:
    """`value` as an array, which must be C-contiguous, float32 or float64, and have `ndim` dimensions."""
    array = caller.open(name, value)
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} dimensions, got shape {array.shape}")
    return exact(name, array, array.shape, array.dtype)


def exact(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array itself, which must have this shape and dtype and be C-contiguous."""
    if array.dtype != dtype:
        raise errors.wrong_dtype(name, array.dtype, expected=f"dtype {dtype}")
    if array.shape != shape:
        raise errors.wrong_shape(name, shape, array.shape)
    if not array.flags.c_contiguous:
        raise errors.not_contiguous(name, array.strides)
    if isinstance(array, np.ndarray) and not array.flags.aligned:
        raise errors.not_aligned(name)
    return array
