"""Shared parts of conversions from all libraries: arrays, activations, layers of networks, and paths of parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._flow.transforms.network import Layer, Network
from headrace.transforms import Coupling, Inverse, MaskedAutoregressive, Transform

Numbers = NDArray[np.float64]

# Texts of advice if a model cannot be converted.
OTHER_BASE = "train a flow of headrace on one of its bases (headrace._flow.bases, headrace._flow.tails)"
OTHER_FLOW = "train a flow of headrace in its place, such as hr.NSF"
CIRCULAR_FLOW = "train hr.NSF with periodic=[(low, high), ...], whose splines are continuous around each circle"


LIBRARIES = {"zuko", "nflows", "glasflow", "normflows", "flowjax", "sbi", "torch", "equinox", "paramax", "headrace"}
# Methods that a subclass may override without a change of formulas, in addition to special ones such as `__init__`.
_WITHOUT_A_FORMULA = frozenset(("extra_repr", "train", "eval", "to", "state_dict", "load_state_dict", "_abc_impl"))


def _overridden(kind: type, base: type) -> str:
    """The first method name of `base` that a subclass `kind` overrides, if this may change a formula; else ""."""
    classes = kind.__mro__[: kind.__mro__.index(base)]
    names = (name for base_class in classes for name in vars(base_class) if hasattr(base, name))
    return next((n for n in names if n == "__call__" or not (n in _WITHOUT_A_FORMULA or n.startswith("__"))), "")


def _library_class(kind: type) -> type:
    """The nearest base class of `kind` that a known library defines, or `kind` itself."""
    return next((base for base in kind.__mro__ if base.__module__.split(".")[0] in LIBRARIES), kind)


def _named(kind: type) -> tuple[str, str]:
    return kind.__module__.split(".")[0], kind.__qualname__


def class_of(thing: Any) -> tuple[str, str]:
    """The package and the name of an object's class, found without importing the package.

    For a subclass that changes no formula, the result is the nearest base class from a library.
    """
    kind, base = type(thing), _library_class(type(thing))
    return getattr(thing, "_stands_for", _named(kind if _overridden(kind, base) else base))


Reader = Callable[[Any, int], Sequence[Transform]]
READERS: dict[type, Reader] = {}  # functions that callers have registered by class


def register(kind: type, reader: Reader) -> None:
    """Register a function that reads the parts of a class, and of its subclasses, in conversions.

    Args:
        kind: A class of transforms, of the caller or of a library.
        reader: A function of ``(part, features)`` that returns transforms in latent → data order, for a part that is
            called as in its library: with data in zuko, nflows and glasflow, with latent values in normflows and
            flowjax.

    Raises:
        TypeError: `kind` is not a class, or `reader` is not a function.

    >>> import numpy as np, headrace as hr
    >>> class Doubled:  # its forward, as of nflows, halves the data
    ...     pass
    >>> hr.convert.register(Doubled, lambda part, n: [hr.transforms.Standardize(np.zeros(n), np.full(n, 2.0))])
    """
    if not isinstance(kind, type):
        raise TypeError(f"kind: expected a class, got {check.kind_of(kind)}")
    if not callable(reader):
        raise TypeError(f"reader: expected a function of a part and its features, got {check.kind_of(reader)}")
    READERS[kind] = reader


@dataclass(frozen=True)
class Place:
    """The path of a part in a model, and the direction in which a call of the part maps rows.

    `way` is "to_latent" for a part that maps data to latent rows, as in zuko and nflows, and "to_data" for a part that
    maps latent rows to data, as in normflows and flowjax. Inside an inverse, "to_latent" and "to_data" are exchanged.
    """

    path: str
    way: str
    is_turned: bool = False  # whether the part is inside an odd number of inverses

    def at(self, name: str | int) -> Place:
        """The `Place` of the attribute or the item `name` of this part, with the same direction."""
        return replace(self, path=f"{self.path}[{name}]" if isinstance(name, int) else f"{self.path}.{name}")

    def turned(self) -> Place:
        """The `Place` of this part if an inverse calls it in the opposite direction."""
        way = "to_data" if self.way == "to_latent" else "to_latent"
        return Place(self.path, way, not self.is_turned)

    def registered(self, thing: Any, features: int) -> list[Transform] | None:
        """The transforms, from latent to data, of a part with a registered reader; None for other parts."""
        reader = next((READERS[kind] for kind in type(thing).__mro__ if kind in READERS), None)
        if reader is None:
            return None
        parts = [*reader(thing, features)]
        return [Inverse(part) for part in parts[::-1]] if self.is_turned else parts

    def converted(
        self,
        part: Any,
        features: int,
        packages: Sequence[str],
        converters: Mapping[str, Converter],
        instead: Callable[[str], str] = lambda kind: OTHER_FLOW,
    ) -> list[Transform]:
        """The transforms of a part, from latent to data, by a registered reader, or by the converter of its class."""
        if (chain := self.registered(part, features)) is not None:
            return chain
        package, kind = class_of(part)
        if package not in packages or kind not in converters:
            raise self.unknown(part, f"one of {', '.join(sorted(converters))}", instead(kind))
        return converters[kind](part, self, features)

    def ordered(self, parts: list[list[Transform]]) -> list[Transform]:
        """The transforms of parts that are called one after another, from latent to data."""
        return [transform for part in (parts if self.way == "to_data" else parts[::-1]) for transform in part]

    @property
    def reads(self) -> str:
        """The side, "data" or "latent", that a network reads if it reads the input of its transform's call."""
        return "data" if self.way == "to_latent" else "latent"

    def unknown(self, thing: Any, expected: str, instead: str = "") -> NotImplementedError:
        """The error for a part that is not recognised; `instead`: advice for the caller."""
        base = _library_class(type(thing))
        package, name = getattr(thing, "_stands_for", _named(type(thing)))
        changed = _overridden(type(thing), base)
        if changed and base.__module__ != "torch.nn.modules.module":
            name += f", a {base.__qualname__} with a {changed} of its own"
            if instead == OTHER_FLOW:  # only for transforms, because bases and networks have no readers
                instead = f"headrace.convert.register takes a function that reads it; {instead}"
        hint = f"; {instead}" if instead else ""
        return NotImplementedError(f"{self.path}: expected {expected}, got {package}'s {name}{hint}")

    def refused(self, expected: str) -> NotImplementedError:
        """The error for a part that headrace does not support; `expected`: the end of the message."""
        return NotImplementedError(f"{self.path}: expected {expected}")

    def differs(self, name: str, expected: str, given: Any, instead: str = "") -> NotImplementedError:
        """The error for an option's value that headrace does not support; `instead`: advice for the caller."""
        hint = f"; {instead}" if instead else ""
        return NotImplementedError(f"{self.path}.{name}: expected {expected}, got {given!r}{hint}")


def numbers(tensor: Any) -> Numbers:
    """A tensor of PyTorch, or an array, as a NumPy array of float64, which represents shorter floats exactly."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu().double().numpy()
    return np.array(tensor, np.float64)


def dtype_of(place: Place, tensors: Sequence[Any]) -> str:
    """The common dtype of a model's floats."""
    names = {str(t.dtype).removeprefix("torch.") for t in tensors}
    floats = sorted(name for name in names if "float" in name)
    if not floats:
        raise TypeError(f"{place.path}: expected a model with parameters, got one without")
    if len(floats) != 1 or floats[0] not in ("float32", "float64"):
        raise TypeError(f"{place.path}: expected parameters of one dtype, float32 or float64, got {floats}")
    return floats[0]


Converter = Callable[[Any, Place, int], list[Transform]]
"""A function of a part, its place and the number of features, which returns transforms from latent to data."""


# ---- scalar functions, recognised by their values --------------------------------------------------------------------

GRID = np.concatenate([np.linspace(-6.0, 6.0, 49), [-30.0, -15.0, -1e-3, 1e-3, 15.0, 30.0]])

_ERF = np.vectorize(math.erf, otypes=[float])


def _sigmoid(x: Numbers) -> Numbers:
    return np.exp(-np.logaddexp(0.0, -x))


def _gelu_by_tanh(x: Numbers) -> Numbers:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS: dict[str, Callable[[Numbers], Numbers]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: 0.5 * x * (1.0 + _ERF(x / math.sqrt(2.0))),
    "gelu_tanh": _gelu_by_tanh,
    "softplus": lambda x: np.logaddexp(0.0, x),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "sigmoid": _sigmoid,
}


def values_of(place: Place, function: Any, call: Callable[[Any, Numbers], Any]) -> Numbers:
    try:
        values = numbers(call(function, GRID))
    except Exception as error:
        raise NotImplementedError(f"{place.path}: expected a function of one number, got {function!r}") from error
    if values.shape != GRID.shape:
        raise NotImplementedError(f"{place.path}: expected a function of one number, got {function!r}")
    return values


def call_in_torch(function: Any, x: Numbers) -> Any:
    """Call a function or a module of PyTorch in float64."""
    import torch

    with torch.no_grad():
        return function(torch.from_numpy(x.copy()))


class Leaky(str):
    """A leaky ReLU with another slope than headrace's, which two units of `Layers` compute: relu(x) - slope relu(-x).

    The text of this object is not the name of an activation, so that code that uses the text as a name fails.
    """

    slope: float

    @classmethod
    def of(cls, slope: float) -> Leaky:
        """A leaky ReLU with the slope `slope` for negative values."""
        leaky = cls(f"a leaky_relu of slope {slope:g}")
        leaky.slope = slope
        return leaky


def activation_of(place: Place, function: Any, call: Callable[[Any, Numbers], Any] = call_in_torch) -> str:
    """The name of an activation that is a module or a function, recognised by its values."""
    if isinstance(function, Leaky):
        return function
    if isinstance(function, str):
        if function not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {tuple(ACTIVATIONS)}, got {function!r}")
        return function
    values = values_of(place, function, call)
    for name, known in ACTIVATIONS.items():
        if np.allclose(values, known(GRID), rtol=1e-6, atol=1e-6):
            return name
    slope = float(values[0] / GRID[0])
    if np.allclose(values, np.where(GRID > 0, GRID, slope * GRID), rtol=1e-6, atol=1e-6):
        return Leaky.of(round(slope, 7))  # further digits are rounding errors of float32
    raise place.refused(f"one of {tuple(ACTIVATIONS)}, got {function!r}, which is none; train with one of these")


# ---- networks --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Join:
    """A linear layer of the context whose outputs join a hidden layer; see `headrace.Layer`."""

    how: str
    weight: Numbers
    bias: Numbers
    activation: str | None = None

    def scaled(self, factor: Numbers) -> Join:
        """A copy with outputs multiplied by `factor`, for a join that is added without an activation."""
        return Join(self.how, factor[:, None] * self.weight, factor * self.bias, self.activation)


class Layers:
    """The layers of a network, added from first to last; the first layer reads inputs, followed by the context."""

    def __init__(self, context: int = 0) -> None:
        self.context = context
        self.weights: list[Numbers] = []
        self.biases: list[Numbers] = []
        self.masks: list[NDArray[np.bool_]] = []
        self.layers: list[Layer] = []
        self.joins: list[Join] = []
        self._below: float | None = None  # the slope of the last layer's leaky ReLUs, which have two units each

    def _add(self, weight: Numbers, bias: Numbers | None, mask: Any) -> None:
        counts = np.ones(weight.shape, bool) if mask is None else numbers(mask) != 0
        if self._below is not None:
            weight, counts = np.hstack([weight, -self._below * weight]), np.hstack([counts, counts])
            self._below = None
        self.weights.append(np.where(counts, weight, 0.0))
        self.biases.append(np.zeros(len(weight)) if bias is None else bias)
        self.masks.append(counts)

    def hidden(
        self,
        weight: Numbers,
        bias: Numbers | None,
        mask: Any = None,
        *,
        activation: str = "identity",
        adds: int | None = None,
        join: Join | None = None,
        dropout: Any = None,
    ) -> int:
        """Add a hidden layer, and return its index; `dropout`: the module that follows the layer's activation."""
        self._add(weight, bias, mask)
        more = (None, None) if join is None else (join.how, join.activation)
        self.layers.append(Layer(len(weight), "identity", adds, *more))
        if join is not None:
            self.joins.append(join)
        index = len(self.layers) - 1
        self.activate(activation)
        self.drop(dropout)
        return index

    def drop(self, dropout: Any) -> None:
        """Set the dropout of the last layer if `keeping_dropout` marked the module and no `Leaky` doubled the units."""
        if self._below is None and hasattr(dropout, "_kept"):
            dropout._kept()
            self.layers[-1] = replace(self.layers[-1], dropout=float(dropout.p))

    def activate(self, activation: str) -> None:
        """Set the activation of the hidden layer that was added last."""
        last = self.layers[-1]
        if not isinstance(activation, Leaky):
            self.layers[-1] = Layer(last.units, activation, last.adds, last.context, last.context_activation)
            return
        if last.adds is not None or last.context is not None:  # a layer with added terms needs single units
            self._add(np.eye(last.units), None, np.eye(last.units))
            self.layers.append(last)
        self.weights[-1] = np.concatenate([self.weights[-1], -self.weights[-1]])
        self.biases[-1] = np.concatenate([self.biases[-1], -self.biases[-1]])
        self.masks[-1] = np.concatenate([self.masks[-1], self.masks[-1]])
        self.layers[-1] = Layer(2 * last.units, "relu")
        self._below = activation.slope

    def outputs(self, weight: Numbers, bias: Numbers | None, mask: Any = None) -> None:
        """Add the last layer."""
        self._add(weight, bias, mask)

    def scale_outputs(self, factors: Numbers) -> None:
        """Multiply the network's outputs by `factors`, (outputs,)."""
        self.weights[-1] = factors[:, None] * self.weights[-1]
        self.biases[-1] = factors * self.biases[-1]

    def spread_outputs(self, rows: Sequence[int], shift: Numbers, coordinates: int) -> None:
        """Replace each coordinate's outputs by the outputs `rows`, where -1 means zero, and add a shift."""
        n = len(self.biases[-1]) // coordinates
        chosen = np.concatenate([np.array(rows) + i * n for i in range(coordinates)])
        is_there = np.tile(np.array(rows) >= 0, coordinates)
        self.weights[-1] = np.where(is_there[:, None], self.weights[-1][chosen], 0.0)
        self.masks[-1] = self.masks[-1][chosen] & is_there[:, None]
        self.biases[-1] = np.where(is_there, self.biases[-1][chosen], 0.0) + np.tile(shift, coordinates)

    def widen(self) -> None:
        """Add zero columns to the first layer for a context that only joins read."""
        if self.context:
            more = np.zeros((len(self.weights[0]), self.context))
            self.weights[0] = np.hstack([self.weights[0], more])
            self.masks[0] = np.hstack([self.masks[0], more != 0])

    def _dense(self) -> dict[str, Any]:
        return {
            "weights": self.weights,
            "biases": self.biases,
            "masks": self.masks,
            "network": Network(self.layers),
            "context_weights": [join.weight for join in self.joins],
            "context_biases": [join.bias for join in self.joins],
            "context": self.context,
        }

    def autoregressive(self, place: Place, **settings: Any) -> Transform:
        """The masked autoregressive transform with these layers as its network, in the direction of `place`."""
        options = {"formula": place.way, **settings}  # a map of zuko may set the inverse formula
        return MaskedAutoregressive.from_dense(**self._dense(), reads=place.reads, **options)

    def coupling(self, place: Place, features: int, passive: Any, **settings: Any) -> Transform:
        """The coupling with these layers as its network, in the direction of `place`."""
        sides: dict[str, Any] = {"features": features, "passive": [int(i) for i in passive]}
        return Coupling.from_dense(**self._dense(), **sides, **{"formula": place.way, **settings})
