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
from headrace._network import MAPS as _MAP_PARAMETERS
from headrace._network import SCALES

__all__ = ["MAPS", "coupling_forward", "coupling_inverse"]

Pair = tuple[NDArray[Any], NDArray[Any]]

MAPS: tuple[str, ...] = tuple(_MAP_PARAMETERS)
"""Names of the maps."""


def coupling_forward(
    z: NDArray[Any],
    params: NDArray[Any],
    map: str = "affine",
    *,
    scale: str = "soft_clamp",
    slope: float = 1e-3,
    out: Pair | None = None,
) -> Pair:
    """Latent to data: one map for every element.

    Args:
        z: Shape (rows, active).
        params: Shape (rows, active, n_params), as networks emit them: affine has (shift, raw scale), additive (shift,).
        map: A name in `MAPS`.
        scale, slope: See `headrace.MaskedAutoregressive`.
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
    return _coupling("z", z, params, map, scale, slope, out, inverse=False)


def coupling_inverse(
    x: NDArray[Any],
    params: NDArray[Any],
    map: str = "affine",
    *,
    scale: str = "soft_clamp",
    slope: float = 1e-3,
    out: Pair | None = None,
) -> Pair:
    """Data to latent: ``(z, log_det)``; see `coupling_forward`.

    >>> import numpy as np, headrace as hr
    >>> z, log_det = hr.ops.coupling_inverse(np.ones((1, 2)), np.ones((1, 2, 1)), map="additive")
    >>> z.tolist(), log_det.tolist()
    ([[0.0, 0.0]], [0.0])
    """
    return _coupling("x", x, params, map, scale, slope, out, inverse=True)


def _coupling(name: str, value: Any, params: Any, map: Any, scale: Any, slope: Any, out: Any, *, inverse: bool) -> Pair:
    check.choice("map", map, MAPS)
    check.choice("scale", scale, SCALES)
    slope = check.number("slope", slope, above=0.0, below=1.0)
    array = _arrays.strict_input(name, value, 2)
    rows, active = array.shape
    shape = (rows, active, len(_MAP_PARAMETERS[map]))
    params = _arrays.strict("params", params, shape, array.dtype)
    if out is None:
        result, log_det = np.empty(array.shape, array.dtype), np.empty(rows, array.dtype)
    else:
        if not isinstance(out, tuple) or len(out) != 2:
            raise TypeError(f"out: expected a tuple (value, log_det), got {type(out).__name__}")
        result = _arrays.strict_output("out[0]", out[0], array.shape, array.dtype)
        log_det = _arrays.strict_output("out[1]", out[1], (rows,), array.dtype)
        in_place = result.ctypes.data == array.ctypes.data
        if (
            (np.may_share_memory(result, array) and not in_place)
            or np.may_share_memory(result, params)
            or any(np.may_share_memory(log_det, a) for a in (array, params, result))
        ):
            raise ValueError(f"out: expected memory of its own, or {name} itself for the value, got an overlap")
    cpu.coupling(map, scale, slope, inverse, array, params, result, log_det)
    return result, log_det
