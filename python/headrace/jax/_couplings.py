"""Couplings in JAX whose parameters come from the caller's network.

Compiled code calls the core without Python on the CPU (cpp/bindings/xla_couplings.hpp), and calls back to Python on
other platforms.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.types import Unpack
from headrace.jax._calls import Structure, differentiable_no_more, register
from headrace.jax._tangents import axes_of, varying
from headrace.ops import _couplings
from headrace.ops._couplings import Keywords, settings_of, takes_settings

_WITH_HANDLERS = ("cpu",)  # the platforms where compiled code calls the core without Python


@takes_settings
def coupling(
    value: Any, params: Any, map: str = "affine", *, direction: str = "forward", **settings: Unpack[Keywords]
) -> tuple[jax.Array, jax.Array]:
    """Apply one map to every element, in jit, grad and vmap (docs/ops.md).

    Compiled code calls the core without Python on the CPU. On a device compiled code calls back to Python, which
    computes on the CPU: arrays are copied to the CPU and back. Examples of a vmap are rows of one call. Only first
    derivatives in reverse mode are supported.

    Args:
        value: Shape (..., active): z of the direction "forward", x of "inverse".
        params: Shape (..., active, n_params), of the dtype of `value`, as a network returns them, or (active, n_params)
            for all rows: see `headrace.ops.coupling`.
        map: A name in `headrace.ops.MAPS`.
        direction: "forward", latent to data, or "inverse".
        **settings: See `headrace.ops.coupling`; static values, no tracers.

    Returns:
        ``(value, log_det)``: the transformed values and their log-determinants, shapes (..., active) and (...).

    Raises:
        TypeError, ValueError: an argument is not as expected; raised while tracing, with the argument's name.

    >>> import jax, headrace.jax
    >>> z, params = jax.numpy.ones((4, 2)), jax.numpy.zeros((4, 2, 23))
    >>> loss = lambda params: headrace.jax.coupling(z, params, "rq_spline")[1].sum()
    >>> jax.jit(jax.grad(loss))(params).shape
    (4, 2, 23)
    """
    inverse = _couplings.is_inverse(direction)
    own, given = _array("value", value), _array("params", params)
    if given.dtype != own.dtype:
        raise errors.wrong_dtype("params", given.dtype, expected=f"dtype {own.dtype}")
    how = settings_of(map, settings)
    if isinstance(how.bound, list):
        how = how._replace(bound=tuple(how.bound))
    _couplings.arguments(how, "value", own.shape, given.shape)
    # If a mapped axis comes first in both arrays, their dimensions must be aligned again.
    missing = own.ndim + 1 - given.ndim
    arrays = own, given.reshape(*(1,) * missing, *given.shape)
    axes = axes_of(*arrays)  # gradients of arrays that devices share are summed over these axes
    return _run((how, inverse), *(varying(array, axes) for array in arrays))


def _array(name: str, value: Any) -> Any:
    if not isinstance(value, (jax.Array, np.ndarray)):
        raise errors.wrong_kind(name, "an array of JAX or NumPy", check.kind_of(value))
    if value.dtype not in (np.float32, np.float64):
        raise errors.wrong_dtype(name, value.dtype, "{}.astype('float32')")
    if value.dtype == np.float64 and not jax.config.jax_enable_x64:
        raise ValueError(errors.too_wide_for_jax(name, "array"))
    return jnp.asarray(value)


How = tuple[Any, bool]  # the settings of the map, and whether the direction is the inverse


def _host(array: Any) -> Any:
    return np.asarray(array, order="C")


def _called(kind: str, function: Callable[..., Any], how: How, results: Any, *arrays: Any) -> Any:
    """The results of a call of the core; mapped axes are more leading dimensions of all arrays.

    Args:
        kind: The name under which compiled code calls the core.
        function: The function of NumPy arrays with the same results.
        how: The settings, and whether the direction is the inverse.
        results: The shapes and dtypes of the results.
        arrays: Values, parameters with the same leading dimensions, and cotangents.
    """
    register()
    settings, inverse = how
    value, params = arrays[:2]
    (map, scale, slope, bound, bins), named = _couplings.arguments(settings, "value", value.shape, params.shape)
    numbers = {name: np.float64(number) for name, number in {"slope": slope, "bound": bound, **named}.items()}
    attributes = {"map": map, "scale": scale, "bins": np.int64(bins), "inverse": inverse, **numbers}
    axes = axes_of(*arrays)

    def compiled(*given: Any) -> tuple[Any, ...]:
        call = jax.ffi.ffi_call(f"{Structure.target}_{kind}_{value.dtype}", results, vmap_method="broadcast_all")
        return tuple(varying(one, axes) for one in call(*given, **attributes))

    def python(*given: Any) -> tuple[Any, ...]:
        def call(*of_jax: Any) -> Any:
            return function(*(_host(array) for array in of_jax), settings=settings, inverse=inverse)

        made = jax.pure_callback(call, results, *given, vmap_method="broadcast_all")
        return tuple(varying(one, axes) for one in made)

    marked = (varying(array, axes) for array in arrays)
    return jax.lax.platform_dependent(*marked, default=python, **dict.fromkeys(_WITH_HANDLERS, compiled))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(how: How, value: Any, params: Any) -> Any:
    results = jax.ShapeDtypeStruct(value.shape, value.dtype), jax.ShapeDtypeStruct(value.shape[:-1], value.dtype)
    return _called("coupling", partial(_couplings.run, "value"), how, results, value, params)


def _forth(how: How, value: Any, params: Any) -> Any:
    return _differentiable(how, value, params), (value, params)


def _back(how: How, given: Any, grads: Any) -> Any:
    def pull(*arrays: Any) -> Any:
        results = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays[:2])
        return _called("coupling_backward", _couplings.pull, how, results, *arrays)

    return differentiable_no_more(pull, "a coupling")(*given, *grads)


_differentiable.defvjp(_forth, _back)
_run = jax.jit(_differentiable, static_argnums=0, inline=True)
