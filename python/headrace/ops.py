"""Functional kernels: the maps alone, with parameters from a network of your own.

They are strict: C-contiguous NumPy arrays of one dtype, float32 or float64, and nothing is copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import _arguments as check
from headrace import _arrays
from headrace._core import cpu
from headrace._maps import MAPS as _MAPS
from headrace._maps import SCALES, bins_of, slope_of

__all__ = ["MAPS", "coupling_backward", "coupling_forward", "coupling_inverse"]

Pair = tuple[NDArray[Any], NDArray[Any]]

MAPS: tuple[str, ...] = tuple(_MAPS)
"""Names of the maps."""


def coupling_forward(
    z: NDArray[Any],
    params: NDArray[Any],
    map: str = "affine",
    *,
    scale: str = "soft_clamp",
    slope: float = 1e-3,
    bound: float = 5.0,
    out: Pair | None = None,
) -> Pair:
    """Latent to data: one map for every element.

    Args:
        z: Shape (rows, active).
        params: Shape (rows, active, n_params), as networks emit them: affine has (shift, raw scale), additive (shift,),
            rq_spline K widths, K heights and K - 1 derivatives, all raw, for 2 to 64 bins K.
        map: A name in `MAPS`.
        scale, slope, bound: See `headrace.MaskedAutoregressive`.
        out: ``(x, log_det)`` to write into; x may be z itself.

    Returns:
        ``(x, log_det)``, shapes (rows, active) and (rows,): log_det = Σ log |dx/dz| of a row.

    Raises:
        TypeError: not NumPy arrays of one dtype, float32 or float64.
        ValueError: a wrong shape, not C-contiguous, or out that overlaps an input otherwise.

    >>> import numpy as np, headrace as hr
    >>> x, log_det = hr.ops.coupling_forward(np.ones((2, 3), "f4"), np.zeros((2, 3, 2), "f4"))
    >>> x[0].tolist(), log_det.tolist()
    ([1.0, 1.0, 1.0], [0.0, 0.0])
    """
    return _coupling("z", z, params, map, scale, slope, bound, out, inverse=False)


def coupling_inverse(
    x: NDArray[Any],
    params: NDArray[Any],
    map: str = "affine",
    *,
    scale: str = "soft_clamp",
    slope: float = 1e-3,
    bound: float = 5.0,
    out: Pair | None = None,
) -> Pair:
    """Data to latent: ``(z, log_det)``; see `coupling_forward`.

    >>> import numpy as np, headrace as hr
    >>> z, log_det = hr.ops.coupling_inverse(np.ones((1, 2)), np.ones((1, 2, 1)), map="additive")
    >>> z.tolist(), log_det.tolist()
    ([[0.0, 0.0]], [0.0])
    """
    return _coupling("x", x, params, map, scale, slope, bound, out, inverse=True)


def coupling_backward(
    value: NDArray[Any],
    params: NDArray[Any],
    grad_value: NDArray[Any],
    grad_log_det: NDArray[Any],
    map: str = "affine",
    *,
    direction: str = "forward",
    scale: str = "soft_clamp",
    slope: float = 1e-3,
    bound: float = 5.0,
    out: Pair | None = None,
) -> Pair:
    """Vector-Jacobian product of `coupling_forward` or `coupling_inverse`.

    Args:
        value: Shape (rows, active): what that direction is given.
        params: Shape (rows, active, n_params).
        grad_value: Shape (rows, active): gradient of some number by the value that the direction gives.
        grad_log_det: Shape (rows,): the same by its log-determinant.
        map, scale, slope, bound: See `coupling_forward`.
        direction: "forward" or "inverse".
        out: ``(grad_input, grad_params)`` to write into, memory of their own.

    Returns:
        ``(grad_input, grad_params)``, shaped as `value` and `params`.

    >>> import numpy as np, headrace as hr
    >>> ones, params = np.ones((1, 1)), np.zeros((1, 1, 2))
    >>> grad_input, grad_params = hr.ops.coupling_backward(ones, params, ones, np.ones(1))
    >>> grad_input.tolist(), grad_params.tolist()  # x = shift + e^a z, log_det = a at a = 0
    ([[1.0]], [[[1.0, 2.0]]])
    """
    check.choice("direction", direction, ("forward", "inverse"))
    array, params = _elements("value", value, params, map, scale)
    slope, bound = _factors(map, slope, bound)
    grad_value = _arrays.strict("grad_value", grad_value, array.shape, array.dtype)
    grad_log_det = _arrays.strict("grad_log_det", grad_log_det, array.shape[:1], array.dtype)
    by_input, by_params = _outputs(out, "(grad_input, grad_params)", array.dtype, array.shape, params.shape)
    inputs = (array, params, grad_value, grad_log_det)
    if (
        np.may_share_memory(by_input, by_params)
        or any(np.may_share_memory(by_input, a) for a in inputs)
        or any(np.may_share_memory(by_params, a) for a in inputs)
    ):
        raise ValueError("out: expected memory of its own, got an overlap")
    cpu.coupling_backward(
        map, scale, slope, bound, direction == "inverse", array, params, grad_value, grad_log_det, by_input, by_params
    )
    return by_input, by_params


def _coupling(
    name: str, value: Any, params: Any, map: Any, scale: Any, slope: Any, bound: Any, out: Any, *, inverse: bool
) -> Pair:
    array, params = _elements(name, value, params, map, scale)
    slope, bound = _factors(map, slope, bound)
    result, log_det = _outputs(out, "(value, log_det)", array.dtype, array.shape, array.shape[:1])
    in_place = result.ctypes.data == array.ctypes.data
    if (
        (np.may_share_memory(result, array) and not in_place)
        or np.may_share_memory(result, params)
        or any(np.may_share_memory(log_det, a) for a in (array, params, result))
    ):
        raise ValueError(f"out: expected memory of its own, or {name} itself for the value, got an overlap")
    cpu.coupling(map, scale, slope, bound, inverse, array, params, result, log_det)
    return result, log_det


def _factors(map: str, slope: Any, bound: Any) -> tuple[float, float]:
    return slope_of(map, slope), check.number("bound", bound, above=0.0, below=1e30)


def _elements(name: str, value: Any, params: Any, map: Any, scale: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values and the parameters that belong to them."""
    check.choice("map", map, MAPS)
    check.choice("scale", scale, SCALES)
    array = _arrays.strict_input(name, value, 2)
    given = np.shape(params)
    bins = bins_of(map, given[-1]) if len(given) == 3 else None
    count = _MAPS[map].n_params(8 if bins is None else bins)  # 8: where an error message needs a number
    return array, _arrays.strict("params", params, (*array.shape, count), array.dtype)


def _outputs(out: Any, names: str, dtype: np.dtype[Any], *shapes: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two arrays to write into: new ones, or those of `out`, checked."""
    if out is None:
        return np.empty(shapes[0], dtype), np.empty(shapes[1], dtype)
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError(f"out: expected a tuple {names}, got {type(out).__name__}")
    first, second = (_arrays.strict_output(f"out[{i}]", out[i], shapes[i], dtype) for i in (0, 1))
    return first, second
