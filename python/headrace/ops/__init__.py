"""The maps of couplings and of planar and radial transforms as functions, for parameters from the caller's network.

A coupling maps each element separately; a planar or radial map maps all coordinates of a row together (docs/ops.md).

Arguments must be C-contiguous arrays of one framework and one dtype, float32 or float64, and are not copied, except for
a coupling's parameters that rows share. The device of the first array, the CPU or a CUDA device, computes the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Array, Caller
from headrace._arrays.device_caller import caller_of
from headrace._arrays.kinds import A
from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.moved import warn_of
from headrace._base.types import Unpack
from headrace._core.maps import MAPS as _MAPS
from headrace._core.maps import VECTOR_MAPS
from headrace.ops import _couplings
from headrace.ops._couplings import Keywords, settings_of, takes_settings
from headrace.ops._points import Points

__all__ = ["MAPS", "coupling", "coupling_vjp", "dual_ascent_step", "vector_map", "vector_map_vjp"]


def __dir__() -> list[str]:
    return __all__


MAPS: tuple[str, ...] = tuple(_MAPS)
"""The names of the maps of couplings."""
_SLOPE = 0.2


@takes_settings
def coupling(
    value: A,
    params: A,
    map: str = "affine",
    *,
    direction: str = "forward",
    out: tuple[A, A] | None = None,
    **settings: Unpack[Keywords],
) -> tuple[A, A]:
    """Apply one map to every element, with parameters from the caller.

    Args:
        value: Shape (..., active): z of the direction "forward", x of "inverse".
        params: Shape (..., active, n_params), as a network returns them: the raw parameters of the map, in the order
            that the help of `headrace.transforms.MaskedAutoregressive` has under `map`. Rows share parameters along
            leading dimensions that are missing or 1, for example all rows with (active, n_params): such parameters are
            copied for each row.
        map: A name in `MAPS`.
        direction: "forward", latent to data, or "inverse".
        **settings: Settings as in `headrace.transforms.MaskedAutoregressive`; by default `bins` is the number for which
            the map has n_params parameters.
        out: A pair ``(value, log_det)`` of arrays that receive the result; the value may be the argument itself.

    Returns:
        ``(value, log_det)``: the mapped values, shape (..., active), and the log-determinants, shape (...): log_det = Σ
        log |dx/dz| of a row, or for "inverse" Σ log |dz/dx|.

    Raises:
        TypeError: the arrays are not of one framework and device, or not of one dtype, float32 or float64.
        ValueError: a shape is wrong, an array is not C-contiguous, or `out` overlaps an input other than as `value`.

    >>> import numpy as np, headrace as hr
    >>> x, log_det = hr.ops.coupling(np.ones((2, 3), "f4"), np.zeros((2, 3, 2), "f4"))
    >>> x[0].tolist(), log_det.tolist()
    ([1.0, 1.0, 1.0], [0.0, 0.0])
    >>> z, _ = hr.ops.coupling(np.ones((4, 5, 3)), np.ones((3, 1)), "additive", direction="inverse")
    >>> z[0, 0].tolist()  # the same parameters for all rows
    [0.0, 0.0, 0.0]
    """
    inverse = _couplings.is_inverse(direction)
    return _couplings.run("value", value, params, settings_of(map, settings), out, inverse=inverse)


@takes_settings
def coupling_vjp(
    value: A,
    params: A,
    grad_value: A,
    grad_log_det: A,
    map: str = "affine",
    *,
    direction: str = "forward",
    out: tuple[A, A] | None = None,
    **settings: Unpack[Keywords],
) -> tuple[A, A]:
    """The vector-Jacobian product of `coupling`.

    Args:
        value, params, map, direction: As in `coupling`.
        grad_value: Shape (..., active): the gradient of a scalar by the resulting value.
        grad_log_det: Shape (...): the gradient of the same scalar by the log-determinant.
        **settings: As in `coupling`.
        out: A pair ``(grad_input, grad_params)`` of arrays that receive the result, without overlap.

    Returns:
        ``(grad_input, grad_params)``, in the shapes of `value` and `params`. The gradient by parameters that several
        rows share is the sum over the rows, in float64 and in a fixed order.

    >>> import numpy as np, headrace as hr
    >>> ones, params = np.ones((1, 1)), np.zeros((1, 1, 2))
    >>> grad_input, grad_params = hr.ops.coupling_vjp(ones, params, ones, np.ones(1))
    >>> grad_input.tolist(), grad_params.tolist()  # x = shift + e^a z, log_det = a at a = 0
    ([[1.0]], [[[1.0, 2.0]]])
    """
    inverse = _couplings.is_inverse(direction)
    how = settings_of(map, settings)
    return _couplings.pull(value, params, grad_value, grad_log_det, how, out, inverse=inverse)


def vector_map(
    value: A,
    params: A,
    map: str,
    *,
    direction: str = "forward",
    nonlinearity: str | None = None,
    negative_slope: float = _SLOPE,
    out: tuple[A, A] | None = None,
) -> tuple[A, A]:
    """Apply one map to all coordinates of a row together, with parameters from the caller.

    Args:
        value: Shape (rows, features): z of the direction "forward", x of "inverse".
        params: Raw parameters, as a network returns them, one after another: w, u and b of "planar", 2 features + 1
            values; center, alpha and beta of "radial", features + 2 values; shape (n,) for all rows, or (rows, n).
            Parameters (rows, n) are prepared in the dtype of the rows, and parameters (n,) in float64.
        map: "planar", x = z + û h(wᵀz + b) with û as in `headrace.transforms.Planar`; or "radial", x = z +
            β (z - center) / (α + |z - center|) with α and β as in `headrace.transforms.Radial`.
        direction: "forward", latent to data, or "inverse".
        nonlinearity: The function h of "planar": "tanh", which is the default, or "leaky_relu".
        negative_slope: The slope of leaky_relu below zero, between 0 and 1.
        out: A pair ``(value, log_det)`` of arrays that receive the result; the value may be the argument itself.

    Returns:
        ``(value, log_det)``: the mapped rows, shape (rows, features), and the log-determinants, shape (rows,).

    Raises:
        TypeError: the arrays are not of one framework and device, or not of one dtype, float32 or float64.
        ValueError: a shape is wrong, there are no features, an array is not C-contiguous, or `out` overlaps an input
            other than as `value`.

    >>> import numpy as np, headrace as hr
    >>> x, log_det = hr.ops.vector_map(np.zeros((1, 2)), np.array([1.0, 0.0, 0.0, 3.0, 1e3]), "planar")
    >>> x.tolist(), log_det.tolist()  # where tanh is flat, all rows move by u
    ([[0.0, 3.0]], [0.0])
    >>> params = np.array([1.0, 0.0, 2.0, -3.0])
    >>> x, _ = hr.ops.vector_map(np.ones((1, 2)), params, "radial")
    >>> hr.ops.vector_map(x, params, "radial", direction="inverse")[0].round(12).tolist()
    [[1.0, 1.0]]
    """
    inverse = _couplings.is_inverse(direction)
    before = _vector_settings(map, nonlinearity, negative_slope)
    caller = caller_of(value)
    array, vectors = _rows(caller, map, value, params)
    inputs = (array, vectors)
    result, log_det = caller.output_pair(out, array.dtype, array.shape, array.shape[:1], inputs, in_place="value")
    caller.core.vector_map(*before, inverse, array, vectors, result, log_det)
    return caller.give_pair(result, log_det)


def vector_map_vjp(
    value: A,
    params: A,
    grad_value: A,
    grad_log_det: A,
    map: str,
    *,
    direction: str = "forward",
    nonlinearity: str | None = None,
    negative_slope: float = _SLOPE,
    out: tuple[A, A] | None = None,
) -> tuple[A, A]:
    """The vector-Jacobian product of `vector_map`.

    Args:
        value, params, map, direction, nonlinearity, negative_slope: As in `vector_map`.
        grad_value: Shape (rows, features): the gradient of a scalar by the resulting value.
        grad_log_det: Shape (rows,): the gradient of the same scalar by the log-determinant.
        out: A pair ``(grad_input, grad_params)`` of arrays that receive the result, without overlap.

    Returns:
        ``(grad_input, grad_params)``, in the shapes of `value` and `params`; for parameters that all rows share, the
        gradient is the sum over the rows.

    >>> import numpy as np, headrace as hr
    >>> z, params = np.zeros((2, 1)), np.array([0.0, 2.0, 0.0])  # where w = 0, x = z + u tanh(b)
    >>> grad_z, grad_params = hr.ops.vector_map_vjp(z, params, np.ones((2, 1)), np.zeros(2), "planar")
    >>> grad_z.tolist(), grad_params.tolist()
    ([[1.0], [1.0]], [0.0, 0.0, 4.0])
    """
    inverse = _couplings.is_inverse(direction)
    before = _vector_settings(map, nonlinearity, negative_slope)
    caller = caller_of(value)
    array, vectors = _rows(caller, map, value, params)
    by_value = _arrays.strict("grad_value", grad_value, array.shape, array.dtype, caller)
    by_log_det = _arrays.strict("grad_log_det", grad_log_det, array.shape[:1], array.dtype, caller)
    inputs = (array, vectors, by_value, by_log_det)
    results = caller.output_pair(out, array.dtype, array.shape, vectors.shape, inputs)
    caller.core.vector_map_backward(*before, inverse, *inputs, *results)
    return caller.give_pair(*results)


def dual_ascent_step(
    z: A,
    maps: A,
    matrix: A | Sequence[A],
    shift: A,
    next: A | None = None,
    *,
    order: Sequence[int] | None = None,
    log_scale: float = 0.0,
    weights: A | None = None,
) -> tuple[A, A, A | None]:
    """Take one step of dual ascent, and compute the sums that determine the next step, in one pass over the rows.

    The step applies the map of eq. 25 in the form whose log-likelihood is concave: each coordinate is mapped to z +
    bend sqrt(square + (z - center)²); the straight line of eq. 25 is a part of the affine map that follows
    (docs/dual_ascent.md).

    Args:
        z: Shape (rows, n), any strides.
        maps: Shape (n, 3): bend, center and square of each coordinate; \\|bend\\| at most 0.999, square positive.
        matrix: Shape (n, n): the result y of `maps` is then mapped to matrix @ y[order] + shift. A list of square
            arrays with n rows in all has the blocks on the diagonal of a matrix that is 0 elsewhere, and costs a row
            one multiply-add for each entry.
        shift: Shape (n,).
        next: Shape (n, 2): center and square of the next maps; None for no sums.
        order: A permutation of 0, ..., n - 1; by default ascending.
        log_scale: The value of log \\|det matrix\\|, which the function does not compute.
        weights: Shape (rows,): each row's weight in the sums, finite and not negative; 1 by default.

    Returns:
        ``(moved, log_det, sums)``: shapes (rows, n) and (rows,), and (n, 6) in float64, or None: for each coordinate of
        the moved rows, weighted sums of z, z², r, z r, q and 1 / r², with r = sqrt(square + (z - center)²)
        and q = (z - center) / r. All results have the same bits for any number of threads. On a device, `maps`,
        `matrix`, `shift`, `next` and the sums are copied through the host, and the call waits.

    Raises:
        TypeError: an argument is not an array of float32 or float64.
        ValueError: a shape is wrong, or values are out of range.

    >>> import numpy as np, headrace as hr
    >>> maps, same = np.array([[0.5, 0.0, 1.0]]), np.eye(1)
    >>> moved, log_det, sums = hr.ops.dual_ascent_step(np.zeros((2, 1)), maps, same, np.zeros(1), maps[:, 1:])
    >>> moved.tolist(), log_det.tolist(), sums[0, :2].tolist()
    ([[0.5], [0.5]], [0.0, 0.0], [1.0, 0.5])
    """
    caller = caller_of(z)
    array = caller.open("z", z)
    if array.ndim != 2 or array.shape[1] < 1:
        raise errors.wrong_shape("z", "(rows, n)", array.shape)
    rows, n = array.shape
    bends = _finite(caller, "maps", maps, (n, 3))
    if not (np.abs(bends[:, 0]) <= 0.999).all():
        raise ValueError(f"maps: expected bends from -0.999 to 0.999, got {bends[:, 0].tolist()}")
    blocks = _blocks(caller, matrix, n)
    bias = _finite(caller, "shift", shift, (n,))
    places = None if order is None else check.permutation("order", order, n)
    following = None if next is None else _finite(caller, "next", next, (n, 2))
    for name, squares in (("maps", bends), ("next", following)):
        if squares is not None and not (squares[:, -1] > 0).all():
            raise ValueError(f"{name}: expected squares above 0, got {squares[:, -1].tolist()}")
    counts, _ = _arrays.row_weights("weights", weights, rows, caller, any_sum=True, whole=False)
    scale = check.number("log_scale", log_scale, below=np.inf)
    with caller.queue():
        points = Points(array, counts, array.dtype)
        sums = points.step(bends, scale, blocks, bias, following, places)
        moved = _given(caller, points.values(), array.dtype), _given(caller, points.log_jacobian(), array.dtype)
        return *moved, None if sums is None else _given(caller, _arrays.library(array).asarray(sums), sums.dtype)


def _blocks(caller: Caller, matrix: Any, n: int) -> list[NDArray[np.float64]]:
    """The checked float64 blocks on the diagonal of a matrix of n rows."""
    if not isinstance(matrix, (list, tuple)):
        return [_finite(caller, "matrix", matrix, (n, n))]
    blocks = []
    for i, block in enumerate(matrix):
        name = f"matrix[{i}]"
        shape = caller.open(name, block).shape
        if len(shape) != 2 or not shape[0]:
            raise errors.wrong_shape(name, "(k, k)", shape)
        blocks.append(_finite(caller, name, block, (shape[0], shape[0])))
    if sum(map(len, blocks)) != n:
        raise ValueError(f"matrix: expected blocks of {n} rows in all, got {sum(map(len, blocks))}")
    return blocks


def _finite(caller: Caller, name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The values of a finite array of this shape, as a float64 array on the host."""
    opened = _arrays.shaped(name, value, shape, caller)
    with caller.queue():
        array = _arrays.on_host(opened)
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got {array[~np.isfinite(array)][0]}")
    return np.require(array, np.float64, ("C", "A"))


def _given(caller: Caller, array: NDArray[Any], dtype: np.dtype[Any]) -> Array:
    """A copy of a result in memory of the caller's framework."""
    copy = caller.empty(array.shape, dtype)
    copy[...] = array
    return caller.give(copy)


def _vector_settings(map: Any, variant: Any, slope: Any) -> tuple[str, str, float]:
    """The checked names of the map and of its variant, and the slope of leaky_relu below zero."""
    variants = VECTOR_MAPS[check.choice("map", map, VECTOR_MAPS)].variants
    if variant is None:
        variant = variants[0]
    elif len(variants) == 1:
        raise ValueError(f"nonlinearity: expected None for the map {map!r}, got {variant!r}")
    else:
        check.choice("nonlinearity", variant, variants)
    return map, variant, slope if slope is _SLOPE else check.number("negative_slope", slope, above=0.0, below=1.0)


def _rows(caller: Caller, map: str, value: Any, params: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """The checked rows and parameters, where parameters are one vector for all rows or one for each row."""
    array = _arrays.strict_input("value", value, 2, caller)
    rows, features = array.shape
    if features == 0:
        raise ValueError(f"value: expected at least one feature, got shape {array.shape}")
    opened = caller.open("params", params)
    count = VECTOR_MAPS[map].n_params(features)
    if opened.shape not in ((count,), (rows, count)):
        raise errors.wrong_shape("params", f"({count},) for all rows or ({rows}, {count})", opened.shape)
    return array, _arrays.exact("params", opened, opened.shape, array.dtype)


def __getattr__(name: str) -> Any:
    """A function for a former name of one map and direction, such as `planar_inverse` or `coupling_backward`."""
    map, _, verb = name.partition("_")
    if map not in ("coupling", *VECTOR_MAPS) or verb not in ("forward", "inverse", "backward"):
        raise AttributeError(f"module 'headrace.ops' has no attribute {name!r}")
    new = ("coupling" if map == "coupling" else "vector_map") + ("_vjp" if verb == "backward" else "")
    settings = {} if map == "coupling" else {"map": map}
    if verb == "inverse":
        settings["direction"] = verb
    warn_of(f"ops.{name}", f"ops.{new}", settings)

    def called(*given: Any, **keywords: Any) -> Any:
        for side in keywords.keys() & {"z", "x"}:
            keywords["value"] = keywords.pop(side)
        return globals()[new](*given, **settings, **keywords)

    return called
