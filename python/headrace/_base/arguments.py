"""Checks of plain arguments; every error has the argument's name, the expected value and the given value."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace._base import array_errors as errors
from headrace._base.types import Floats

Check = Callable[[str, Any], Any]  # a function of an argument's name and value, which returns the value to use


def kind_of(value: Any) -> str:
    """The name of a value's type in error messages."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def whole(least: int = 0, most: int | None = None) -> Check:
    """A check for a table of arguments: the value must be an integer within limits.

    >>> whole(1)("steps", 3)
    3
    """
    return lambda name, value: integer(name, value, least=least, most=most)


def real(least: float = -np.inf, *, above: float | None = None, below: float = np.inf) -> Check:
    """A check for a table of arguments: the value must be a real number within limits."""
    return lambda name, value: number(name, value, least=least, above=above, below=below)


def one_of(*names: str) -> Check:
    """A check for a table of arguments: the value must be one of the strings `names`."""
    return lambda name, value: choice(name, value, names)


def seed(value: Any) -> int:
    """The key of random numbers: the int itself, or 64 bits from a NumPy generator or, for None, from the system."""
    if value is None:
        return int.from_bytes(os.urandom(8), "little")
    if isinstance(value, np.random.Generator):
        return int(value.integers(2**64, dtype=np.uint64))
    return integer("seed", value, most=2**64 - 1, expected="an integer, a numpy.random.Generator or None")


def seeds(value: Any) -> tuple[int, ...]:
    """The seeds of initial weights as a tuple, from one int or several ints."""
    return integers("seed", value if np.iterable(value) else (value,))


def first_row(value: Any, rows: int) -> int | None:
    """The checked index, in an endless sample, of the first of `rows` rows; None if the sample is not endless."""
    return None if value is None else integer("first_row", value, most=2**63 - 1 - rows)


def truth(name: str, value: Any) -> bool:
    """The value as a bool; any other value, also 0 or 1, raises TypeError."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def index(name: str, value: Any, length: int) -> int:
    """The checked index of a sequence; negative indices count from the end, and invalid indices raise IndexError."""
    position = integer(name, value, least=-(2**63))
    if not -length <= position < length:
        raise IndexError(f"{name}: expected -{length} to {length - 1}, got {position}")
    return position


def integer(name: str, value: Any, *, least: int = 0, most: int | None = None, expected: str = "an integer") -> int:
    """The value as an int from `least` to `most`; NumPy integers are accepted, bools and floats are not."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__} {value!r}") from None
    if number < least or (most is not None and number > most):
        limit = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: expected an integer {limit}, got {number}")
    return number


def integers(name: str, values: Any, *, least: int = 0, most: int | None = None) -> tuple[int, ...]:
    """The tuple of ints from a sequence of integers, each checked to be within the limits."""
    if isinstance(values, (str, bytes)) or not np.iterable(values):
        hint = f"; for one give ({values},)" if type(values) is int else ""
        raise TypeError(f"{name}: expected a sequence of integers, got {type(values).__name__} {values!r}{hint}")
    return tuple(integer(f"{name}[{i}]", v, least=least, most=most) for i, v in enumerate(values))


def texts(name: str, values: Any, size: int) -> tuple[str, ...]:
    """The checked tuple of `size` strings."""
    if isinstance(values, str) or not np.iterable(values) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{name}: expected a sequence of {size} texts, got {kind_of(values)}")
    as_tuple = tuple(values)
    length(name, as_tuple, size)
    return as_tuple


def length(name: str, values: Sequence[Any], size: int) -> None:
    """Check the length of a sequence."""
    if len(values) != size:
        raise ValueError(f"{name}: expected {size} values, got {len(values)}")


def permutation(name: str, values: Any, features: int | None = None) -> tuple[int, ...]:
    """A checked permutation of 0, ..., n - 1 as a tuple; n is `features`, or by default the number of values."""
    order = integers(name, values)
    n = len(order) if features is None else features
    if n == 0 or sorted(order) != list(range(n)):
        raise ValueError(f"{name}: expected each of 0 to {max(n - 1, 0)} exactly once ({n} in all), got {order}")
    return order


def coordinates(name: str, values: Any, features: int) -> tuple[int, ...]:
    """A tuple of different coordinate indices below `features`."""
    chosen = integers(name, values, most=features - 1)
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"{name}: expected different coordinates, got {chosen}")
    return chosen


def choice(name: str, value: Any, options: Collection[str]) -> str:
    """The value, which must be one of the strings in `options`."""
    if not isinstance(value, str) or value not in options:
        named = value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)
        near = [option for option in options if option.replace("_", "") == named.lower().replace("_", "")]
        advice = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, options))}, got {value!r}{advice}")
    return value


def number(name: str, value: Any, *, above: float | None = None, least: float = -np.inf, below: float) -> float:
    """The value as a float between two limits; the limits `above` and `below` are excluded, `least` is allowed."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        result = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__} {value!r}") from None
    if not (result >= least if above is None else result > above) or not result < below:
        low = f"from {least:g}" if above is None else f"above {above:g}"
        raise ValueError(f"{name}: expected a number {low} and below {below:g}, got {value!r}")
    return result


def float_dtype(name: str, value: DTypeLike) -> np.dtype[Any]:
    """The dtype float32 or float64, from any object that NumPy accepts as this dtype."""
    try:
        dtype = np.dtype(value)
    except TypeError:
        raise TypeError(f"{name}: expected 'float32' or 'float64', got {value!r}") from None
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"{name}: expected 'float32' or 'float64', got {value!r}")
    return dtype


def real_array(name: str, value: Any, expected: str = "an array of numbers", got: str = "") -> NDArray[Any]:
    """An array of real numbers, of any shape; other values raise TypeError. `got`: the value in the message."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise TypeError
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected {expected}, got {got or kind_of(value)}") from None
    return array


def vector(name: str, value: Any, size: int | None, *, positive: bool = False) -> Floats:
    """A finite, read-only float64 copy of a one-dimensional array; a scalar is repeated `size` times."""
    array = np.array(real_array(name, value, "a one-dimensional array of numbers"), dtype=np.float64)
    if array.ndim == 0 and size is not None:
        array = np.full(size, float(array))
    if array.ndim != 1 or array.size == 0 or (size is not None and array.size != size):
        raise errors.wrong_shape(name, f"({'features' if size is None else size},)", array.shape)
    least = np.finfo(np.float64).tiny if positive else -np.inf  # reciprocals of subnormal numbers may be infinite
    bad = np.flatnonzero(~np.isfinite(array) | (array < least))
    if bad.size:
        kind = f"finite numbers of at least {least:.3g}" if positive else "finite numbers"
        raise ValueError(f"{name}: expected {kind}, got {array[bad[0]]} at index {bad[0]}")
    array.flags.writeable = False
    return array


def mean_and_std(name: str, value: Any, columns: int) -> tuple[Floats, Floats]:
    """The checked means and standard deviations of columns, as vectors of length `columns`."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(f"{name}: expected a tuple (mean, std), got {kind_of(value)}")
    if columns == 0:
        raise ValueError(f"{name}: expected None, because no transform takes a context, got (mean, std)")
    return vector(f"{name}[0]", value[0], columns), vector(f"{name}[1]", value[1], columns, positive=True)


def framework(name: str, version: str, least: tuple[int, int]) -> None:
    """Refuse a framework that is too old for headrace, which would cause an obscure error later."""
    numbers = version.split("+")[0].split(".")
    if tuple(int("".join(filter(str.isdigit, part)) or 0) for part in numbers[:2]) < least:
        wanted = ".".join(map(str, least))
        raise ImportError(f'{name}: expected version {wanted} or newer, got {version}; pip install "{name}>={wanted}"')
