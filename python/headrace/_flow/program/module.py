"""The base class of transforms and flows, of rows or of sequences: a compiled program and its parameters."""

from __future__ import annotations

import abc
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace import files
from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Array, Caller
from headrace._arrays.device_caller import DeviceCaller, check_on_host
from headrace._base import arguments as check
from headrace._base.types import Self
from headrace._core import device as _device
from headrace._core.device import Device

_changes = threading.RLock()
"""The lock for changes of parameters: threads that change different parameters at once undo no changes."""


def _unheld() -> None:
    """Make a new lock in a forked child, where the thread that held the old lock does not exist."""
    global _changes
    _changes = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unheld)

P = TypeVar("P", bound="Parametrised")
Program = Any
"""A program of `_cpu` or of `_device`, called through `Caller.queued`."""


class _OnFirstUse:
    """The attribute `Parametrised._program`: the first read compiles the program and stores it as a plain attribute."""

    def __get__(self, module: Any, owner: Any = None) -> Program:
        with _changes:  # only one of several threads that read the attribute compiles
            attributes = module.__dict__
            if "_program" not in attributes:
                attributes["_program"] = module._compile_waiting()
                module._waiting = None
            return attributes["_program"]


class Block(Protocol):
    """A slice of the parameter vector that can be converted to named dense arrays."""

    @property
    def size(self) -> int:
        """The number of values in the slice."""

    def named(self, packed: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """The dense arrays of a slice of the vector, by name."""

    def pack_named(self, named: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """The slice of the vector that consists of named arrays: the inverse of `named`."""


class Parametrised(abc.ABC):
    """The base class of transforms and flows, of rows or of sequences: objects with parameters, a program and a file.

    The program is compiled on first use, and then stores the vector of parameters, which `_waiting` has until then.
    Reading and assigning `parameters` copy the values; threads that evaluate meanwhile use either the old or the new
    values. Threads that set different parameters by name do not undo each other's assignments.
    """

    _program: Program = _OnFirstUse()
    _waiting: NDArray[Any] | None = None  # parameters on the host; None once the program has them
    _device: Device | None = None  # the device that computes; None for the CPU
    _products: str = "exact"  # how the CPU computes products of networks
    _caller: Callable[[], Caller] = Caller

    def __init__(self, features: int, context: int, dtype: np.dtype[Any] | None) -> None:
        """Store the sizes and the dtype; the subclass calls `_take_parameters` afterwards."""
        self._features = features
        self._context = context
        self._dtype = dtype

    @property
    def features(self) -> int:
        """The number of coordinates."""
        return self._features

    @property
    def context(self) -> int:
        """The number of context columns, 0 for none."""
        return self._context

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype of parameters and results; None without parameters: results have the arguments' dtype."""
        return self._dtype

    @abc.abstractmethod
    def _blocks(self) -> list[tuple[str, Block]]:
        """The name prefixes and blocks of the parameters, in the order of the vector."""

    def _fixed_arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays by name that a file stores beside the named parameters, such as masks of dense weights."""
        return {}

    def _notes(self) -> dict[str, str]:
        """Texts by name that a file stores in its metadata."""
        return {}

    def _with_notes(self, notes: Mapping[str, Any]) -> Self:
        """The object with the information of a file's `notes`, texts that may be missing or invalid."""
        return self

    def _take_parameters(self, parameters: NDArray[Any], *, program: Program = None, **structure: Any) -> None:
        """Store parameters from the host; without `program`, the next use compiles a program.

        Args:
            parameters: The vector of parameters, with zeros in padding and masked entries, as `Block.pack_named`
                returns it.
            program: A compiled program of this structure, which is used again.
            structure: Attributes that are set at the same time.
        """
        with _changes:
            self.__dict__.update(structure)
            self.__dict__.pop("_program", None)
            self._waiting = self._owned(parameters)
            if program is not None:
                self._fill(program, self._waiting)
                self._program, self._waiting = program, None

    def _owned(self, parameters: NDArray[Any]) -> NDArray[Any]:
        """A contiguous array in the dtype of the program, and no view, which would keep a whole array alive."""
        array = np.require(parameters, self._dtype or np.dtype(np.float32), ("C", "A"))
        return array if array.base is None else array.copy()

    def _put_parameters(self, parameters: NDArray[Any]) -> None:
        """Replace the parameters, also in a program that is in use; arguments as in `_take_parameters`."""
        with _changes:
            if "_program" in self.__dict__:
                self._fill(self._program, parameters)
            else:
                self._waiting = self._owned(parameters)

    def _compile_waiting(self) -> Program:
        """A compiled program with the parameters of `_waiting`."""
        assert self._dtype is not None
        assert self._waiting is not None, "a structure without parameters computes nothing"
        program = self._compile(self._dtype)
        self._fill(program, self._waiting)
        return program

    def _bare(self) -> Self:
        """A copy of the structure only, without parameters in memory; `_remade` adds parameters."""
        if self._dtype is None:
            return self
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.__dict__.pop("_program", None)
        other._waiting = None
        return other

    @abc.abstractmethod
    def _compile(self, dtype: np.dtype[Any]) -> Program:
        """A program without parameters for the object's device."""

    def _fill(self, program: Program, parameters: NDArray[Any]) -> None:
        """Copy parameters from the host into a program."""
        if self._device is None:
            program.set_weights(parameters)
        else:
            program.set_host_weights(parameters)

    def _vector(self) -> NDArray[Any]:
        """A copy of the parameters as one vector on the host."""
        if "_program" not in self.__dict__:
            with _changes:
                if (waiting := self._waiting) is not None:
                    return waiting.copy()
        return self._program.weights() if self._device is None else self._program.host_weights()

    def _place(self, device: Device | None, products: str = "exact") -> None:
        """Set the device, and the products of networks on the CPU."""
        matmul, name = (products, "'cpu'") if device is None else (device.matmul, repr(device))
        _device.refuse_wide(self._dtype, matmul, f".astype('float32'), or .to({name})")
        self._device = device
        self._products = products if device is None else "exact"
        self._caller = Caller if device is None else partial(DeviceCaller, device)

    def _remade(
        self, parameters: NDArray[Any], dtype: np.dtype[Any] | None, device: Device | None, products: str = "exact"
    ) -> Self:
        """An object of this structure with parameters from the host."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._dtype = dtype
        other._place(device, products)
        other._take_parameters(parameters)
        return other

    def _with_parameters(self, parameters: NDArray[Any], dtype: np.dtype[Any]) -> Self:
        return self._remade(parameters, dtype, self._device, self._products)

    def __copy__(self) -> Self:
        """A copy with its own parameters."""
        if self._dtype is None:
            return self  # without parameters, the object is immutable
        return self._with_parameters(self._vector(), self._dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The result of `__copy__`; a deep copy of attributes is unnecessary, because they cannot change."""
        return self.__copy__()

    def __reduce__(self) -> Any:
        """Pickle the bytes of a file (docs/files.md): without code of headrace, and with all bits of parameters."""
        return files.unpickled, (files.to_bytes(self), self.device, self.matmul)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the object to a safetensors file with all conventions in its header (docs/files.md); see
        `headrace.load`.

        An interrupted or failed save leaves an older file unchanged, and no part of a new file.

        Raises:
            TypeError: `path` is no path, or a part has a class that files cannot store, such as a subclass from outside
                of this package.
            OSError: the folder does not exist, the path is a folder, or the file cannot be written.
            ValueError: the object is too large for a file: above 2^17 features or 16 MiB of header, or masks whose
                structure takes far more memory to derive than the masks themselves take.
        """
        files.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, allow_non_finite: bool = False) -> Self:
        """Read an object of this class from a file that `save` wrote; see `headrace.load`.

        Raises:
            TypeError, OSError: as in `headrace.load`.
            FileFormatError: as in `headrace.load`, or the file has an object of another class.
        """
        return files.load_as(cls, path, allow_non_finite)

    @property
    def device(self) -> str:
        """The device of computations: "cpu" or a CUDA device, such as "cuda:0"."""
        return "cpu" if self._device is None else repr(self._device)

    @property
    def matmul(self) -> str:
        """How products of networks are computed: "exact", which is in `dtype`, "bf16", "tf32", ...; see `to`."""
        return self._products if self._device is None else self._device.matmul

    def _require_plain(self, name: str) -> None:
        """Refuse an object on a device, or with products that are not exact."""
        if (where := (self.device, self.matmul)) != ("cpu", "exact"):
            raise ValueError(f"{name}: expected one on the CPU with exact products, got {where}; call .to('cpu')")

    def to(self, device: str, matmul: str = "exact") -> Self:
        """A copy on another device.

        On a CUDA device, arguments and results are arrays on that device (docs/gpu.md).

        Args:
            device: "cpu", "cuda:0", or "cuda" for CuPy's current device.
            matmul: How products of networks are computed. "exact": in `dtype`. "bf16": on the CPU, with inputs,
                units and weights of networks rounded to 8 significant bits, and sums in float32 (docs/bf16.md).
                "bf16x3" and "bf16x6": like "bf16", but each value is a sum of two or three values of 8 bits, which
                takes 3 or 6 products and keeps 16 or 24 bits. "bf16_tiles", "bf16x3_tiles" and "bf16x6_tiles":
                with sums in the order of AMX, Intel's matrix tiles. The bf16 settings belong to the density and are
                stored in files. "tf32": on the tensor cores of a CUDA device, with inputs, units, their gradients and
                weights rounded to 11 significant bits. "3xtf32": on the tensor cores, by three products of values that
                are split in two, as accurate as float32. All settings but "exact" require float32 (docs/gpu.md).

        Raises:
            CudaUnavailable: the device does not exist, or CuPy is not installed; the message has the reason.
            ValueError: "tf32" or "3xtf32" on the CPU, "bf16" on a device, or any setting but "exact" for float64.
        """
        place = _device.device_named(device, matmul)
        other = self._on(place, matmul if place is None else "exact")
        if place is not None:
            _ = other._program  # compiles, so that a lack of device memory raises here
        return other

    def _on(self, device: Device | None, products: str = "exact") -> Self:
        return self._remade(self._vector(), self._dtype, device, products)

    def _placed_here(self, other: P) -> P:
        """The object `other`, which is on the CPU with exact products, moved to this object's device and products."""
        is_here = self._device is None and self._products == "exact"
        return other if is_here else other._on(self._device, self._products)

    @property
    def parameters(self) -> Array:
        """A copy of the trainable parameters as one vector, shape (n,); an assignment copies, too. On a device, a CuPy
        array.

        The vector also contains padding and a few masked entries, which stay zero for any assigned values.
        """
        return self._vector() if self._device is None else self._program.weights()

    @parameters.setter
    def parameters(self, value: Any) -> None:
        caller = self._caller()
        array = _arrays.shaped("parameters", value, (self._program.n_weights,), caller)
        vector = _arrays.ready(array, self._dtype or np.dtype(np.float32), caller)
        with _changes:
            caller.queued(self._program).set_weights(vector)

    @property
    def n_parameters(self) -> int:
        """The number of trained parameters: the entries of `named_parameters` without masked entries and padding.

        >>> import headrace as hr
        >>> hr.transforms.Planar(3).n_parameters
        7
        """
        vector, count, start = self._vector(), 0, 0
        for _, block in self._blocks():
            named = block.named(vector[start : start + block.size])
            count += int(np.count_nonzero(block.pack_named({name: np.ones_like(a) for name, a in named.items()})))
            start += block.size
        return count

    def named_parameters(self) -> dict[str, NDArray[Any]]:
        """Dense copies of the parameters by name, in the user's order of units; masked weights are zero.

        The arrays are NumPy arrays, even if the parameters are on a device.
        """
        vector, named, start = self._vector(), {}, 0
        for prefix, block in self._blocks():
            for name, array in block.named(vector[start : start + block.size]).items():
                named[prefix + name] = array
            start += block.size
        return named

    def set_parameter(self, name: str, value: Array) -> None:
        """Copy a dense CPU array into the parameter of this name in `named_parameters`; masked weights stay zero.

        Raises:
            KeyError: the object has no parameter of this name.
            TypeError: the value is no CPU array of float32 or float64.
            ValueError: the array's shape differs from the parameter's.
        """
        with _changes:
            vector, start = self._vector(), 0
            for prefix, block in self._blocks():
                part = vector[start : start + block.size]
                named = block.named(part)
                inner = str(name).removeprefix(prefix)
                if str(name).startswith(prefix) and inner in named:
                    check_on_host(name, value)
                    named[inner] = _arrays.shaped(name, value, named[inner].shape).astype(part.dtype)
                    vector[start : start + block.size] = block.pack_named(named)
                    self._put_parameters(vector)
                    return
                start += block.size
        raise KeyError(f"name: expected one of {', '.join(self.named_parameters()) or 'nothing'}, got {name!r}")

    def astype(self, dtype: DTypeLike) -> Self:
        """A copy whose parameters and results have another dtype, 'float32' or 'float64'."""
        wanted = check.float_dtype("dtype", dtype)
        if self._dtype is None:
            return self
        return self._with_parameters(self._vector(), wanted)


def is_of_sequences(thing: Any) -> bool:
    """Whether an object takes sequences instead of rows."""
    return isinstance(thing, Parametrised) and not hasattr(thing, "_steps")
