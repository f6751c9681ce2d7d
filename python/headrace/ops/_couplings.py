"""The couplings of `headrace.ops`: arrays with any leading dimensions become matrices for calls of the core.

The core takes values (rows, active) with parameters (rows, active, n_params). Values are reshaped without copies;
parameters that several rows share are repeated for the core, and gradients by them are summed.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable
from typing import Any, TypedDict, TypeVar, cast

import numpy as np

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Array
from headrace._arrays.device_caller import caller_of
from headrace._arrays.shapes import summed
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.keywords import closed, refuse_others
from headrace._core.maps import LEAST_BINS, MAPS, SCALES, bins_of, bins_with, interval_of, min_bin_of, slope_of
from headrace._core.settings import MapSettings

F = TypeVar("F", bound=Callable[..., Any])

Pair = tuple[Array, Array]
Shape = tuple[int, ...]

_DIRECTIONS = ("forward", "inverse")


class Keywords(TypedDict, total=False):
    """Keywords of couplings in every framework, besides the map's name; `MapSettings` has the defaults."""

    scale: str
    slope: float
    bound: float | tuple[float, float]
    bins: int | None
    min_bin: float


_DEFAULTS = {name: getattr(MapSettings, name) for name in Keywords.__annotations__} | {"bins": None}
Settings: Any = cast("Any", namedtuple)("Settings", ("map", *_DEFAULTS), defaults=_DEFAULTS.values())
"""The name of a map and the `Keywords`, unchecked."""


def takes_settings(function: F) -> F:
    """Give a function whose signature ends in ``**settings: Unpack[Keywords]`` a signature with the keywords."""
    return closed(function, Keywords, _DEFAULTS)


def settings_of(map: Any, given: Keywords) -> Any:
    """The settings of a call; an unknown keyword raises an error with its name."""
    if not given.keys() <= _DEFAULTS.keys():
        refuse_others("a coupling", given, Settings._fields)
    return Settings(map, **given)


def is_inverse(direction: Any) -> bool:
    """Whether a direction is "inverse", from data to latent."""
    return check.choice("direction", direction, _DIRECTIONS) == "inverse"


def arguments(settings: Any, name: str, value: Shape, params: Shape) -> tuple[tuple[Any, ...], dict[str, float]]:
    """The core's positional and named arguments for settings, after checks with the shapes of values and parameters."""
    map, scale, slope, bound, bins, min_bin = settings
    check.choice("map", map, MAPS)
    check.choice("scale", scale, SCALES)
    if not value:
        raise errors.wrong_shape(name, "(..., active)", value)
    bins = _bins(map, bins, params)
    full = (*value, MAPS[map].n_params(bins))
    if params != full and not _is_shared(params, full):
        own = f"{full}, or {full[-2:]} for all rows" if len(value) > 1 else full
        raise errors.wrong_shape("params", own, params)
    low, high = interval_of(map, bound)
    named = {"low": low, "min_bin": min_bin_of(map, min_bin, bins)}
    return (map, scale, slope_of(map, slope), high, bins), named


def _bins(map: str, bins: Any, params: Shape) -> int:
    """The number of bins, by default the number that `params` fits; an arbitrary number for a map without bins."""
    if bins is not None:
        return bins_of(map, bins)
    fitting = bins_with(map, params[-1]) if len(params) >= 2 else ()
    if len(fitting) > 1:
        raise ValueError(f"bins: expected one of {fitting}, which have as many params, got None")
    return fitting[0] if fitting else LEAST_BINS  # an arbitrary number, which leads to an error message


def _is_shared(shape: Shape, full: Shape) -> bool:
    """Whether leading dimensions of parameters broadcast to the leading dimensions of values."""
    if len(shape) < 2 or shape[-2:] != full[-2:]:
        return False
    try:
        return np.broadcast_shapes(shape[:-2], full[:-2]) == full[:-2]
    except ValueError:
        return False


class _Elements:
    """The arrays of one call, and the core's other arguments: `before` by position, `named` by name."""

    __slots__ = ("batch", "before", "caller", "full", "named", "params", "shared", "value")

    def __init__(self, name: str, value: Any, params: Any, settings: Any) -> None:
        caller = self.caller = caller_of(value)
        array, opened_params = caller.open(name, value), caller.open("params", params)
        shape, params_shape = array.shape, opened_params.shape
        self.before, self.named = arguments(settings, name, shape, params_shape)
        self.value = _arrays.exact(name, array, shape, array.dtype)
        self.params = _arrays.exact("params", opened_params, params_shape, array.dtype)
        self.batch = shape[:-1]
        self.shared = params_shape[:-2] != self.batch
        self.full = (
            params_shape if len(params_shape) == 3 and not self.shared else (math.prod(self.batch), *params_shape[-2:])
        )

    def flat(self, *arrays: Any) -> tuple[Any, ...]:
        """The arrays as matrices (rows, active), or as vectors (rows,) if they have one value for each row."""
        batch = self.batch
        if len(batch) == 1:
            return arrays
        rows, active, _ = self.full
        return tuple(a.reshape(rows, active) if a.ndim > len(batch) else a.reshape(rows) for a in arrays)

    def each(self) -> Any:
        """The parameters of each row, (rows, active, n_params), repeated if rows share parameters."""
        if not self.shared:
            return self.params.reshape(self.full) if self.params.ndim != 3 else self.params
        repeated = self.caller.scratch((*self.batch, *self.full[1:]), self.value.dtype)
        with self.caller.queue():
            repeated[...] = self.params
        return repeated.reshape(self.full)


def run(name: str, value: Any, params: Any, settings: Any, out: Any = None, *, inverse: bool) -> Pair:
    """The mapped values and the log-determinants; `name`: the first argument's name in error messages."""
    elements = _Elements(name, value, params, settings)
    caller, array = elements.caller, elements.value
    inputs = array, elements.params
    result, log_det = caller.output_pair(out, array.dtype, array.shape, elements.batch, inputs, in_place=name)
    flat, *results = elements.flat(array, result, log_det)
    caller.core.coupling(*elements.before, inverse, flat, elements.each(), *results, **elements.named)
    return caller.give_pair(result, log_det)


def pull(
    value: Any, params: Any, grad_value: Any, grad_log_det: Any, settings: Any, out: Any = None, *, inverse: bool
) -> Pair:
    """The gradients by values and by parameters; gradients by shared parameters are sums over rows."""
    elements = _Elements("value", value, params, settings)
    caller, array = elements.caller, elements.value
    by_value = _arrays.strict("grad_value", grad_value, array.shape, array.dtype, caller)
    by_log_det = _arrays.strict("grad_log_det", grad_log_det, elements.batch, array.dtype, caller)
    inputs = array, elements.params, by_value, by_log_det
    by_input, by_params = caller.output_pair(out, array.dtype, array.shape, elements.params.shape, inputs)
    each = by_params
    if elements.shared:
        each = caller.scratch(elements.full, array.dtype)
    elif each.ndim != 3:
        each = each.reshape(elements.full)
    flat, *cotangents, by_flat = elements.flat(array, by_value, by_log_det, by_input)
    caller.core.coupling_backward(
        *elements.before, inverse, flat, elements.each(), *cotangents, by_flat, each, **elements.named
    )
    if elements.shared:
        with caller.queue():
            by_params[...] = summed(each, (*elements.batch, elements.full[1]), elements.params.shape)
    return caller.give_pair(by_input, by_params)
