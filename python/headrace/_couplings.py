"""Couplings of `headrace.ops`: arrays of any leading dimensions as matrices of the core, and its calls.

The core takes values (rows, active) with parameters (rows, active, n_params). Values are reshaped in their memory;
parameters that several rows share are repeated for it, and their gradients are summed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from headrace import _arguments as check
from headrace import _array_errors as errors
from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Array
from headrace._arrays.device_caller import caller_of
from headrace._arrays.shapes import flat, summed
from headrace._core.maps import LEAST_BINS, MAPS, SCALES, bins_of, bins_with, interval_of, min_bin_of, slope_of

__all__ = ["Settings", "arguments", "is_inverse", "pull", "run"]

Pair = tuple[Array, Array]
Shape = tuple[int, ...]

DIRECTIONS = ("forward", "inverse")


class Settings(NamedTuple):
    """The keywords of `headrace.ops.coupling_forward`, as they are given."""

    map: Any
    scale: Any
    slope: Any
    bound: Any
    bins: Any
    min_bin: Any


def is_inverse(direction: Any) -> bool:
    """Whether it is data to latent, by the name of the direction."""
    return check.choice("direction", direction, DIRECTIONS) == "inverse"


def arguments(settings: Settings, name: str, value: Shape, params: Shape) -> tuple[tuple[Any, ...], dict[str, float]]:
    """The core's arguments for the settings, and those by name; checked with the shapes of values and parameters."""
    bins = _bins(settings, name, value, params)
    low, high = interval_of(settings.map, settings.bound)
    named = {"low": low, "min_bin": min_bin_of(settings.map, settings.min_bin, bins)}
    return (settings.map, settings.scale, slope_of(settings.map, settings.slope), high, bins), named


def _bins(settings: Settings, name: str, value: Shape, params: Shape) -> int:
    """The number of bins of maps with bins, where parameters of this shape fit values of that one."""
    map = check.choice("map", settings.map, tuple(MAPS))
    check.choice("scale", settings.scale, SCALES)
    if not value:
        raise errors.wrong_shape(name, "(..., active)", value)
    if settings.bins is None:
        fitting = bins_with(map, params[-1]) if len(params) >= 2 else ()
        if len(fitting) > 1:
            raise ValueError(f"bins: expected one of {fitting}, which have as many params, got None")
        bins = fitting[0] if fitting else LEAST_BINS  # any, where an error message needs one
    else:
        bins = bins_of(map, settings.bins)
    count = MAPS[map].n_params(bins)
    if params != (*value, count) and not _is_shared(params, (*value, count)):
        expected = f"{(*value, count)}, or ({value[-1]}, {count}) for all rows"
        raise errors.wrong_shape("params", expected if len(value) > 1 else (*value, count), params)
    return bins


def _is_shared(shape: Shape, full: Shape) -> bool:
    """Whether leading dimensions of the parameters are broadcast to those of the values."""
    if len(shape) < 2 or shape[-2:] != full[-2:]:
        return False
    try:
        return np.broadcast_shapes(shape[:-2], full[:-2]) == full[:-2]
    except ValueError:
        return False


class _Elements:
    """The arrays of one call, and the arguments of the core before and behind them."""

    def __init__(self, name: str, value: Any, params: Any, settings: Settings) -> None:
        caller = self.caller = caller_of(value)
        opened = caller.open(name, value)
        array = self.value = _arrays.exact(name, opened, opened.shape, opened.dtype)
        given = caller.open("params", params)
        self.before, self.named = arguments(settings, name, array.shape, given.shape)
        self.params = _arrays.exact("params", given, given.shape, array.dtype)
        self.batch = array.shape[:-1]
        self.active = array.shape[-1]
        self.rows = math.prod(self.batch)
        self.full = (self.rows, self.active, given.shape[-1])
        self.shared = given.shape[:-2] != self.batch

    def matrix(self, array: Any) -> Any:
        """Values of this shape as the core takes them."""
        return flat(array, self.rows, self.active)

    def inputs(self) -> tuple[Any, Any]:
        """Values and parameters as the core takes them; those of several rows are repeated."""
        value = self.matrix(self.value)
        if not self.shared:
            return value, self.params if self.params.ndim == 3 else self.params.reshape(self.full)
        repeated = self.caller.scratch((*self.batch, *self.full[1:]), self.value.dtype)
        with self.caller.queue():
            repeated[...] = self.params
        return value, repeated.reshape(self.full)


def run(name: str, value: Any, params: Any, settings: Settings, out: Any = None, *, inverse: bool) -> Pair:
    """The values of the other side, and log-determinants; errors name the first argument so."""
    own = _Elements(name, value, params, settings)
    caller, array = own.caller, own.value
    given = array, own.params
    result, log_det = caller.output_pair(out, array.dtype, array.shape, own.batch, given, in_place=name)
    results = own.matrix(result), flat(log_det, own.rows)
    caller.core.coupling(*own.before, inverse, *own.inputs(), *results, **own.named)
    return caller.give_pair(result, log_det)


def pull(
    value: Any,
    params: Any,
    grad_value: Any,
    grad_log_det: Any,
    settings: Settings,
    out: Any = None,
    *,
    inverse: bool,
) -> Pair:
    """Gradients by the value and the parameters; those of shared parameters are sums over their rows."""
    own = _Elements("value", value, params, settings)
    caller, array = own.caller, own.value
    by_value = _arrays.strict("grad_value", grad_value, array.shape, array.dtype, caller)
    by_log_det = _arrays.strict("grad_log_det", grad_log_det, own.batch, array.dtype, caller)
    given = array, own.params, by_value, by_log_det
    by_input, by_params = caller.output_pair(out, array.dtype, array.shape, own.params.shape, given)
    each = caller.scratch(own.full, array.dtype) if own.shared else by_params.reshape(own.full)
    cotangents = own.matrix(by_value), flat(by_log_det, own.rows)
    caller.core.coupling_backward(
        *own.before, inverse, *own.inputs(), *cotangents, own.matrix(by_input), each, **own.named
    )
    if own.shared:
        with caller.queue():
            by_params[...] = summed(each, (*own.batch, own.active), own.params.shape)
    return caller.give_pair(by_input, by_params)
