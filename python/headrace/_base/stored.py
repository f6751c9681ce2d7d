"""The form of an object in a file: a header of JSON types, and arrays by name.

Files can store objects of a class that has the decorator `storable` and two methods:

- ``_header(self)``: all settings that the named parameters do not contain, in JSON types; floats keep their exact
values.
- ``_from_file(cls, stored)``: the object that a `Stored` describes, the inverse of ``_header``. **A size in a header is
a claim**: the size is compared with the arrays of the file before anything of that size is made.

A file also has arrays of masks and matrices that are no parameters (`Parametrised._fixed_arrays`).
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.public import public

KINDS: dict[str, Any] = {}  # the classes by their names in files
LATER = {
    "AdaptivePrediction": "headrace.sequences.prediction",
    "AscentFlow": "headrace.ascent.ascent",
    "CausalConvolution": "headrace.sequences.convolution",
    "Ensemble": "headrace._fit.ensemble",
    "LinearPrediction": "headrace.sequences.prediction",
    "MixedDensity": "headrace._tables.mixed",
    "SequenceFlow": "headrace.sequences.flow",
    "WaveNet": "headrace.sequences.wavenet",
}
"""The modules of the classes that `import headrace` does not import; each is imported when a file has such a class."""

MOST_FEATURES = 2**17  # the largest number of coordinates or context columns; work may grow with its square

Layers = tuple[list[NDArray[Any]], list[NDArray[Any]], list[NDArray[np.bool_]]]

Family = type | tuple[type, ...] | Callable[[type], bool]

_Class = TypeVar("_Class", bound=type)


def storable(cls: _Class) -> _Class:
    """Register a class for files, and make the class public."""
    KINDS[cls.__name__] = cls
    folder = next((name for name in ("transforms", "ascent") if f".{name}." in cls.__module__), None)
    return public(f"headrace.{folder}" if folder else "headrace")(cls)


def _all_kinds() -> dict[str, Any]:
    for module in LATER.values():
        importlib.import_module(module)
    return KINDS


def header_of_scale(scale: tuple[Any, Any] | None) -> dict[str, Any] | None:
    """The header of the means and standard deviations of columns, which `Stored.scale` reads."""
    return scale and {"mean": scale[0].tolist(), "std": scale[1].tolist()}


def header_of(thing: Any) -> dict[str, Any]:
    """The header of a transform, base or flow.

    Raises:
        TypeError: files do not support the object's class, such as a subclass from outside this package.
        ValueError: the object has too many features for a file.
    """
    kind = type(thing).__name__
    if KINDS.get(kind) is not type(thing):
        raise TypeError(f"{kind}: expected one of the classes that files know ({', '.join(sorted(_all_kinds()))})")
    if thing.features > MOST_FEATURES:
        raise ValueError(f"{kind}: expected at most {MOST_FEATURES} features in a file, got {thing.features}")
    return {"kind": kind, **thing._header()}


class Filed(Protocol):
    """Objects that can be saved as a file of their own, such as flows, transforms and ensembles."""

    @property
    def features(self) -> int:
        """The number of coordinates."""

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype of the parameters; None without parameters."""

    @property
    def matmul(self) -> str:
        """The setting that determines how networks compute products."""

    def named_parameters(self) -> dict[str, NDArray[Any]]:
        """Dense copies of the parameters by name."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the object to a file."""

    def _fixed_arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays by name that a file stores beside the parameters."""

    def _notes(self) -> dict[str, str]:
        """Texts by name that a file stores in its metadata."""


def is_filed(cls: type) -> bool:
    """Whether the class has a method `save`, which writes an object to a file of its own."""
    return hasattr(cls, "save")


class Stored:
    """The contents of a file for one object. Each item is read once; an item that is never read is an error.

    Args:
        header: The object's header, in JSON types.
        arrays: The arrays of the whole file by their full names.
        dtype: The dtype of all parameters; None without parameters.
        prefix: The start of the names of this object's arrays.
    """

    def __init__(
        self, header: Any, arrays: dict[str, NDArray[Any]], dtype: np.dtype[Any] | None, prefix: str = ""
    ) -> None:
        if not isinstance(header, dict):
            raise TypeError(f"expected a JSON object, got {type(header).__name__}")
        self._header = dict(header)
        self._arrays = arrays
        self._prefix = prefix
        self.dtype = dtype

    def build(self, family: Family) -> Any:
        """The object, whose class must belong to `family`; a key of the header that is not read is an error."""
        of = (lambda cls: issubclass(cls, family)) if isinstance(family, (type, tuple)) else family
        kind = self.take("kind")
        if isinstance(kind, str) and kind in LATER:
            importlib.import_module(LATER[kind])
        if not isinstance(kind, str) or kind not in KINDS or not of(KINDS[kind]):
            kind = check.choice("kind", kind, sorted(name for name, cls in _all_kinds().items() if of(cls)))
        thing = KINDS[kind]._from_file(self)
        self.close()
        return thing

    def close(self) -> None:
        """Refuse keys that were not read, because they may change the meaning of other keys."""
        if self._header:
            raise ValueError(f"expected no key {min(self._header)!r}")

    def has(self, key: str) -> bool:
        """Whether the header has an optional key."""
        return key in self._header

    def take(self, key: str) -> Any:
        """The value of a key, which then counts as read."""
        if key not in self._header:
            raise ValueError(f"expected the key {key!r}, got {', '.join(map(repr, self._header)) or 'none'}")
        return self._header.pop(key)

    def size(self, key: str, *, least: int = 0) -> int:
        """The value of a key as a number of features or of context columns."""
        return check.integer(key, self.take(key), least=least, most=MOST_FEATURES)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """The value of a key as True or False; `default`: the value of a missing key."""
        value = default if default is not None and not self.has(key) else self.take(key)
        if not isinstance(value, bool):
            raise TypeError(f"{key}: expected true or false, got {value!r}")
        return value

    def items(self, key: str) -> list[Any]:
        """The value of a key as a list."""
        value = self.take(key)
        if not isinstance(value, list):
            raise TypeError(f"{key}: expected a list, got {type(value).__name__}")
        return value

    def numbers(self, key: str) -> list[Any]:
        """The value of a key as a list of numbers, or of lists of numbers; bools are refused."""
        values = self.items(key)
        if any(isinstance(x, bool) for value in values for x in (value if isinstance(value, list) else [value])):
            raise TypeError(f"{key}: expected numbers, got a truth value")
        return values

    def part(self, key: str, value: Any) -> Stored:
        """The value of a key as an object with its own keys."""
        if not isinstance(value, dict):
            raise TypeError(f"{key}: expected a JSON object, got {type(value).__name__}")
        return Stored(value, self._arrays, self.dtype, self._prefix)

    def parts(self, key: str) -> Iterator[Stored]:
        """The objects of a key's list, each with its own keys."""
        for i, value in enumerate(self.items(key)):
            part = self.part(f"{key}[{i}]", value)
            yield part
            part.close()

    def number(self, key: str) -> float:
        """The value of a key as a finite number."""
        return check.number(key, self.take(key), above=-math.inf, below=math.inf)

    def scale(self, key: str) -> tuple[list[Any], list[Any]] | None:
        """The value of a key as means and standard deviations of columns, or None."""
        if (value := self.take(key)) is None:
            return None
        part = self.part(key, value)
        own = part.numbers("mean"), part.numbers("std")
        part.close()
        return own

    def child(self, key: str, family: Family, prefix: str = "") -> Any:
        """The object whose header is the value of a key; `prefix` extends the prefix of the object's arrays."""
        return self._child(key, self.take(key), family, prefix)

    def children(self, key: str, family: Family) -> list[Any]:
        """The objects of a key's list of headers; names of an object's arrays begin with the key and an index."""
        return [self._child(f"{key}[{i}]", header, family, f"{key}.{i}.") for i, header in enumerate(self.items(key))]

    def _child(self, place: str, header: Any, family: Family, prefix: str) -> Any:
        try:
            return Stored(header, self._arrays, self.dtype, self._prefix + prefix).build(family)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place}: {error}") from error

    def array(self, name: str, shape: tuple[int | None, ...], dtype: Any = None) -> NDArray[Any]:
        """An array of this shape (None: any length along that axis), by default of the file's dtype."""
        full, wanted = self._prefix + name, self.dtype if dtype is None else np.dtype(dtype)
        if wanted is None:
            raise ValueError("dtype: expected 'float32' or 'float64' where there are parameters, got None")
        if full not in self._arrays:
            raise ValueError(f"expected a tensor {full!r}, got none of that name")
        array = self._arrays.pop(full)
        if len(array.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
            text = ", ".join("any" if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "")
            raise errors.wrong_shape(full, f"({text})", array.shape)
        if array.dtype != wanted:
            raise ValueError(f"{full}: expected {wanted}, got {array.dtype}")
        return array

    def layers(self, columns: int, rows: int, *, masked: bool = True) -> Layers:
        """``(weights, biases, masks)`` of a network of `columns` inputs and `rows` outputs; masks are optional."""
        weights: list[NDArray[Any]] = []
        biases: list[NDArray[Any]] = []
        masks: list[NDArray[np.bool_]] = []
        while not weights or f"{self._prefix}layers.{len(weights)}.weight" in self._arrays:
            name = f"layers.{len(weights)}"
            weights.append(self.array(f"{name}.weight", (None, columns)))
            columns = len(weights[-1])
            biases.append(self.array(f"{name}.bias", (columns,)))
            if masked:
                masks.append(self.array(f"{name}.mask", weights[-1].shape, bool))
        if columns != rows:
            raise ValueError(f"{self._prefix}{name}.bias: expected shape ({rows},), got ({columns},)")
        return weights, biases, masks
