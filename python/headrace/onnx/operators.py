"""The operators of an ONNX graph for `headrace.convert.plain.transforms.run`.

Tensors of a file are NumPy arrays: expressions of tensors alone are computed in float64 when the graph is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.types import Floats
from headrace._flow.transforms.rotation import matrix_of
from headrace.convert.plain.networks import levels_of
from headrace.onnx.graph import Graph, Value, highest, where

Header = Mapping[str, Any]
Arrays = Mapping[str, NDArray[Any]]

_BEYOND = -1e30  # stands for -infinity where the factor of x is 0, because infinity times 0 is NaN


def _gelu_argument(x: Value) -> Value:
    """The argument √(2/π) (x + 0.044715 x³) of tanh in the approximate GELU."""
    root = math.sqrt(2.0 / math.pi)
    return x * (x * x * (0.044715 * root) + root)


_ACTIVATIONS: dict[str, Callable[[Value], Value]] = {
    "relu": lambda x: x.apply("Relu"),
    "tanh": lambda x: x.apply("Tanh"),
    "elu": lambda x: where(x < 0.0, where(x < 0.0, x, 0.0).exp() - 1.0, x),
    "silu": lambda x: highest(x, _BEYOND) * x.apply("Sigmoid"),
    "gelu": lambda x: highest(x, _BEYOND) * (0.5 * ((x * np.sqrt(0.5)).apply("Erf") + 1.0)),
    "gelu_tanh": lambda x: highest(x, _BEYOND) * (0.5 * (_gelu_argument(x).apply("Tanh") + 1.0)),
    "softplus": Value.softplus,
    "leaky_relu": lambda x: where(x < 0.0, x * 0.01, x),
    "sigmoid": lambda x: x.apply("Sigmoid"),
    "identity": lambda x: x,
}


def _unary(operator: str) -> Any:
    return staticmethod(lambda x: x.apply(operator))


def _now_or_later(function: Any) -> Any:
    """A function of a value in the graph, or of an array, which is computed when the graph is made."""
    return staticmethod(lambda x: getattr(x, function.__name__)() if isinstance(x, Value) else function(x))


class Operators:
    """Operators on the values of a graph, of shape (rows, ...)."""

    library: Any = np
    differentiates = False
    is_fixed = True
    softplus, where = staticmethod(Value.softplus), staticmethod(where)
    clip, sum, columns = staticmethod(Value.clip), staticmethod(Value.sum), staticmethod(Value.columns)
    split, reshaped, dense = staticmethod(Value.split), staticmethod(Value.reshape), staticmethod(Value.dense)
    tanh, sigmoid, round, floor = map(_unary, ("Tanh", "Sigmoid", "Round", "Floor"))
    exp, log, sqrt = map(_now_or_later, (np.exp, np.log, np.sqrt))

    def __init__(self, graph: Graph, verb: str, place: str = "") -> None:
        """`verb` and a transform's `place` are for error messages."""
        self.graph, self.verb, self.place = graph, verb, place

    # ---- functions of each element -------------------------------------------------------------------------------

    def log1p(self, x: Value) -> Value:
        """log(1 + x) as log(a) x / (a - 1), where a is 1 + x rounded, which keeps the digits of a small x."""
        above = x + 1.0
        kept = above - 1.0
        is_lost = abs(kept) <= 0.0
        return where(is_lost, x, above.log() * (x / where(is_lost, 1.0, kept)))

    def softsign(self, x: Value) -> Value:
        """x / (1 + |x|); runtimes have this operator only in float32."""
        return x.apply("Softsign") if x.dtype == np.float32 else x / (abs(x) + 1.0)

    def expm1(self, x: Value) -> Value:
        """e^x - 1 for |x| below 1, without the rounding error of the plain difference."""
        above = x.exp()
        log = above.log()
        is_lost = abs(log) <= 0.0
        return where(is_lost, x, (above - 1.0) * (x / where(is_lost, 1.0, log)))

    def hypot(self, x: Value, y: Value) -> Value:
        """sqrt(x² + y²) for positive x, without overflow."""
        size = abs(y)
        larger = highest(x, size)
        ratio = where(size > x, x, size) / larger
        return larger * (ratio * ratio + 1.0).sqrt()

    def activation(self, name: str, x: Value) -> Value:
        """The activation of hidden units that has this name."""
        return _ACTIVATIONS[name](x)

    # ---- dtypes and constants --------------------------------------------------------------------------------------

    def wide(self, x: Value) -> Value:
        """The value in float64."""
        return x.cast(np.float64)

    def narrow(self, x: Value, like: Value | None) -> Value:
        """The value in the dtype of `like`, or in float32."""
        return x.cast(np.float32 if like is None else like.dtype)

    def param(self, x: NDArray[Any], like: Value) -> Value:
        """An array of the file as a constant, the same for all rows."""
        return self.graph.constant(x[None], like.dtype)

    def wide_constant(self, numbers: Any, like: Value) -> Floats:
        """Numbers as a float64 array."""
        return np.asarray(numbers, np.float64)

    def rounded(self, numbers: Any, like: Value) -> NDArray[Any]:
        """Numbers rounded to the dtype of a value."""
        with np.errstate(over="ignore"):
            return np.asarray(numbers, np.float64).astype(like.dtype)

    def flags(self, which: Sequence[bool], like: Value) -> NDArray[np.bool_]:
        """Boolean values as an array."""
        return np.array(which, bool)

    def log_of_numbers(self, numbers: Sequence[float]) -> float:
        """The sum of the logarithms of numbers."""
        return float(np.log(numbers).sum())

    def fixed(self, x: Value) -> Value:
        """The value itself, because a graph has no derivatives."""
        return x

    def tiny(self, like: Value) -> float:
        """The least normal number of a value's dtype."""
        return float(np.finfo(like.dtype).tiny)

    def epsilon(self, like: Value) -> float:
        """The distance from 1 to the next larger number of a value's dtype."""
        return float(np.finfo(like.dtype).eps)

    def spoiled(self, log: Value, header: Header, params: Mapping[str, Value]) -> Value:
        """`log`, but NaN in a row where a parameter of a network is not finite, even if a spline ignores it.

        For the map "rq_spline", the soft clamp of an infinite parameter is NaN, and `pick` returns NaN.
        """
        if "knots" not in params or header["map"] == "rq_spline":
            return log
        return log + (params["knots"] - params["knots"]).sum(axes=2)

    # ---- choices and sums over the last axis ----------------------------------------------------------------------

    def within(self, x: Value, low: float, high: float) -> Value:
        """The value clipped to two bounds; runtimes differ for NaN, but no result for NaN is used."""
        return x.apply("Clip", low, high)

    kept_within = within

    def equal(self, x: Value, other: Value) -> Value:
        """Whether elements of two values are equal."""
        return x.apply("Equal", other)

    def zero_unless(self, condition: Value, x: Value) -> Value:
        """The value where a condition holds, otherwise zero; NaN stays NaN."""
        return x * condition.number()

    def highest(self, x: Any, other: Any) -> Any:
        """The larger of two values, elementwise."""
        return highest(x, other) if isinstance(x, Value) else np.maximum(x, other)

    def lowest(self, x: Any, other: Any) -> Any:
        """The smaller of two values, elementwise."""
        return where(x > other, other, x) if isinstance(x, Value) else np.minimum(x, other)

    def any(self, x: Value) -> Value:
        """Whether any element along the last axis is true."""
        return where(x, 1.0, 0.0).sum() > 0.0

    def largest(self, x: Value) -> Value:
        """The largest element along the last axis, which keeps the length 1."""
        return x.apply("ReduceMax", axes=[-1], keepdims=1)

    def norm(self, x: Value) -> Value:
        """The norm along the last axis, which keeps the length 1; at most 1e18, beyond which no map has an effect."""
        length = (x * x).sum(keep=True).sqrt()
        return where(length > 1e18, 1e18, length)

    def softmax(self, x: Value) -> Value:
        """The softmax over the last axis."""
        return x.apply("Softmax", axis=-1)

    def logsumexp(self, x: Value) -> Value:
        """The log of the sum of exponentials over the last axis."""
        top = self.largest(x)
        top = where(top < float(np.finfo(np.float32).min), 0.0, top)  # 0 if all terms are -infinity
        return ((x - top).exp().sum(keep=True).log() + top).sum()

    def sums_below(self, x: Value) -> Value:
        """For each element along the last axis the sum of all elements before it."""
        return self.graph.node("CumSum", x, self.graph.constant(-1, np.int64), exclusive=1)[0]

    def last_not_above(self, edges: Value, target: Value, bins: int) -> Value:
        """1 for the last bin that begins at or below a target, and 0 for all other bins: an argument of `pick`."""
        begins = (target >= edges).number()  # 1 for each bin that begins at or below the target, else 0
        return begins.apply("MatMul", np.eye(bins) - np.eye(bins, k=-1))

    def pick(self, table: Value, here: Value) -> list[Value]:
        """The values of a table's rows in the bin that `here` marks; NaN for a row with a NaN."""
        return (table * here).sum(keep=True).split([1] * 6, axis=-2)

    # ---- rows of a table: the axis before the last -------------------------------------------------------------------

    def lifted(self, x: Value) -> Value:
        """Values with two more axes of length 1, the shape of the results of `pick`."""
        return self.graph.node("Unsqueeze", x, self.graph.constant([-2, -1], np.int64))[0]

    def lowered(self, x: Value) -> Value:
        """Values without the two axes that `lifted` adds."""
        return self.graph.node("Squeeze", x, self.graph.constant([-2, -1], np.int64))[0]

    def stacked(self, rows: Sequence[Value]) -> Value:
        """A table whose rows are the given values."""
        return self.beside([self.graph.node("Unsqueeze", x, self.graph.constant([-2], np.int64))[0] for x in rows])

    def beside(self, tables: Sequence[Value]) -> Value:
        """A table with the rows of several tables."""
        return tables[0] if len(tables) == 1 else self.graph.node("Concat", *tables, axis=-2)[0]

    def halves(self, table: Value) -> list[Value]:
        """Two tables: the first two and the last two of four rows."""
        return table.split([2, 2], axis=-2)

    def row(self, table: Value, i: int) -> Value:
        """One row of a table, as a table."""
        return self.graph.node("Gather", table, self.graph.constant([i], np.int64), axis=-2)[0]

    def scaled_rows(self, x: NDArray[Any], indices: Sequence[int], factors: Sequence[float]) -> Floats:
        """Rows of a matrix or vector by index, where -1 is a row of zeros, multiplied by factors."""
        rows: Floats = np.concatenate([x, np.zeros((1, *x.shape[1:]))])[list(indices)]
        rows *= np.reshape(factors, (-1, *[1] * (x.ndim - 1)))
        return rows

    # ---- columns -----------------------------------------------------------------------------------------------------

    def part(self, x: Value, begin: int, end: int) -> Value:
        """The elements from `begin` to `end` along the last axis."""
        return x.columns(range(begin, end))

    def without_last(self, x: Value) -> Value:
        """The value without its last axis, which has one element."""
        return x.sum()

    def joined(self, parts: Sequence[Value]) -> Value:
        """Values joined along the last axis."""
        return parts[0] if len(parts) == 1 else self.graph.node("Concat", *parts, axis=-1)[0]

    def rows_of_components(self, x: Value) -> Value:
        """Rows with a new axis for components before the last axis."""
        return self.graph.node("Unsqueeze", x, self.graph.constant([1], np.int64))[0]

    def settled(self, levels: Sequence[int], level: int, new: Value, old: Value) -> Value:
        """The new coordinates, because a graph computes only one level; see `levels`."""
        return new

    # ---- products ----------------------------------------------------------------------------------------------------

    def affine(self, x: Value, shift: NDArray[Any], log_scale: NDArray[Any], to_data: bool) -> tuple[Value, float]:
        """The map x = shift + e^log_scale z or its inverse, and the log-determinant."""
        log_scale = np.asarray(log_scale, np.float64)
        scale, log_det = np.exp(log_scale if to_data else -log_scale), float(log_scale.sum())
        return (x * scale + shift, log_det) if to_data else ((x - shift) * scale, -log_det)

    def rotated(self, x: Value, blocks: NDArray[Any], sizes: Sequence[int], to_data: bool) -> Value:
        """The product with a block diagonal matrix, or with its transpose."""
        matrix = matrix_of(blocks, sizes)
        return x.dense(matrix if to_data else matrix.T, np.zeros(len(matrix)))

    def linear(self, x: Value, header: Header, arrays: Arrays, to_data: bool) -> tuple[Value, float]:
        """x = signs · y[order] + shift, y = lower · diagonal · upper · z, or the inverse, and the log-determinant."""
        factors_of = ("upper", "lower", "log_diagonal", "shift")
        upper, lower, log_diagonal, shift = (arrays[name].astype(np.float64) for name in factors_of)
        one, order, signs = np.eye(len(shift)), list(header["order"]), np.array(header["signs"])
        factors = np.tril(lower, -1) + one, np.exp(log_diagonal)[:, None] * (np.triu(upper, 1) + one)
        matrix, log_det = signs[:, None] * (factors[0] @ factors[1])[order], float(log_diagonal.sum())
        if to_data:
            return x.dense(matrix, shift), log_det
        # The shift is subtracted before the product, as in the core's triangular solutions.
        return (x - shift).dense(np.linalg.inv(matrix), np.zeros(len(shift))), -log_det

    def levels(self, header: Header, arrays: Arrays) -> list[int]:
        """The levels of a masked transform's coordinates, which must be 1: a graph cannot compute level after level."""
        levels = levels_of(np.eye, header, arrays)
        if max(levels) > 1:
            side = "to_data" if header["reads"] == "data" else "to_latent"
            others = "log_prob or to_latent" if side == "to_data" else "to_data"
            raise ValueError(
                f"verb: expected a parallel direction, got {self.verb!r}, for which {self.place} "
                f"(MaskedAutoregressive, reads={header['reads']!r}) builds one coordinate after another. Export "
                f"{others}, or a flow that is parallel that way (couplings are both ways; hr.distill makes one of "
                "another); headrace.hpp computes all"
            )
        return levels

    # ---- parameters of bases -----------------------------------------------------------------------------------------

    def location(self, header: Header, arrays: Arrays, like: Value) -> tuple[Floats, Floats]:
        """The location and the log scale of a normal base."""
        if header["trainable"]:
            return arrays["loc"].astype(np.float64), arrays["log_scale"].astype(np.float64)
        return np.array(header["loc"], np.float64), np.log(header["scale"])

    def student(self, header: Header, arrays: Arrays, like: Value) -> tuple[Floats, Floats]:
        """The degrees of freedom ν, and log Γ((ν + 1)/2) − log Γ(ν/2) − log(ν π)/2, in the core's form."""
        df = np.exp(arrays["log_df"].astype(np.float64)) if header["trainable"] else np.array(header["df"], np.float64)
        return df, _student_constant(df)

    def log_weights(self, header: Header, arrays: Arrays, like: Value) -> Floats:
        """The log weights of a mixture's components; -inf for a weight that is 0 in float32."""
        with np.errstate(divide="ignore"):
            logits = arrays["logits"].astype(np.float64) if header["trainable"] else np.log(header["weights"])
        logits = logits - logits.max()
        log_weights = logits - np.log(np.exp(logits).sum())
        return np.where(np.exp(log_weights).astype(np.float32) > 0, log_weights, -np.inf)


_SERIES = [-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432, 691 / 180224, -5461 / 425984]


def _student_constant(df: Floats) -> Floats:
    """The log of the normalising constant of Student's t density for every ν > 0 (cpp/math/density.hpp)."""
    x = 0.5 * df
    shift = np.ceil(np.maximum(16.0 - x, 0.0))
    product = np.ones_like(x)
    for k in range(16):  # by Γ(x + 1) = x Γ(x)
        product *= np.where(k < shift, (x + k) / (x + k + 0.5), 1.0)
    t = 1.0 / (x + shift)
    series = np.polynomial.polynomial.polyval(t * t, _SERIES) * t
    return series + np.log(product) + 0.5 * np.log((x + shift) / x) - 0.5 * np.log(2.0 * np.pi)
