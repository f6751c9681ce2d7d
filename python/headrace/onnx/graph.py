"""An ONNX graph that grows by arithmetic on its values: ``a * b + 1`` adds two nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # the version of ONNX 1.12, which has all operators in use; runtimes since 2022 support it

Number = float | int | np.float32 | Sequence[int] | NDArray[Any]


class Graph:
    """The nodes, constants, inputs and outputs of a graph."""

    def __init__(self) -> None:
        """Make an empty graph."""
        self._nodes: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, columns: int) -> Value:
        """An input of float32 rows, any number of them."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", columns]))
        return Value(self, name)

    def output(self, name: str, value: Value, columns: int | None) -> None:
        """Make a value an output: float32 rows, or one value a row."""
        shape: list[Any] = ["rows"] if columns is None else ["rows", columns]
        self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def constant(self, number: Number, dtype: Any = np.float32) -> Value:
        """A constant; equal arrays are stored once. Finite values beyond the dtype's range become the nearest ones."""
        array = np.asarray(number)
        if np.dtype(dtype).kind == "f":
            limits = np.finfo(dtype)
            array = np.asarray(array, np.float64)
            array = np.where(np.isinf(array), array, np.clip(array, limits.min, limits.max))
        array = np.asarray(array, dtype, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"c{len(self._constants)}"
            self._constants[key] = name
            self._initializers.append(numpy_helper.from_array(array, name))
        return Value(self, self._constants[key], dtype)

    def node(self, operator: str, *inputs: Value, outputs: int = 1, **attributes: Any) -> list[Value]:
        """The results of an operator, in the dtype of the first input, or of the last one for "Where"."""
        dtype = inputs[-1 if operator == "Where" else 0].dtype
        names = [f"v{len(self._nodes)}_{i}" if outputs > 1 else f"v{len(self._nodes)}" for i in range(outputs)]
        self._nodes.append(helper.make_node(operator, [value.name for value in inputs], names, **attributes))
        return [Value(self, name, dtype) for name in names]

    def model(self, producer: str, version: str, notes: dict[str, str]) -> onnx.ModelProto:
        """The whole graph as a model, checked."""
        graph = helper.make_graph(self._nodes, "flow", self._inputs, self._outputs, self._initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        made_by = {"producer_name": producer, "producer_version": version}
        model = helper.make_model(graph, **made_by, opset_imports=opsets, ir_version=IR_VERSION)
        helper.set_model_props(model, notes)
        onnx.checker.check_model(model, full_check=True)
        return model


def _binary(operator: str) -> Callable[[Value, Value | Number], Value]:
    return lambda value, other: value.apply(operator, other)


def _reversed(operator: str) -> Callable[[Value, Number], Value]:
    return lambda value, other: value._like(other).apply(operator, value)


def _unary(operator: str) -> Callable[[Value], Value]:
    return lambda value: value.apply(operator)


class Value:
    """The output of a node; numbers and arrays in arithmetic with a value become constants of its dtype."""

    __array_ufunc__ = None  # NumPy then lets a `Value` on the right compute the result

    def __init__(self, graph: Graph, name: str, dtype: Any = np.float32) -> None:
        """`dtype`: float32 or float64; for a condition, the dtype of the compared values."""
        self.graph, self.name, self.dtype = graph, name, dtype

    def apply(self, operator: str, *others: Any, **attributes: Any) -> Value:
        """The only result of an operator on this value and others."""
        return self.graph.node(operator, self, *(self._like(other) for other in others), **attributes)[0]

    def _like(self, other: Value | Number) -> Value:
        return other if isinstance(other, Value) else self.graph.constant(other, self.dtype)

    __add__, __radd__ = _binary("Add"), _reversed("Add")
    __sub__, __rsub__ = _binary("Sub"), _reversed("Sub")
    __mul__, __rmul__ = _binary("Mul"), _reversed("Mul")
    __truediv__, __rtruediv__ = _binary("Div"), _reversed("Div")
    __lt__, __le__ = _binary("Less"), _binary("LessOrEqual")
    __gt__, __ge__ = _binary("Greater"), _binary("GreaterOrEqual")
    __and__, __or__ = _binary("And"), _binary("Or")
    __neg__, __abs__ = _unary("Neg"), _unary("Abs")
    exp, log, sqrt = _unary("Exp"), _unary("Log"), _unary("Sqrt")

    def softplus(self) -> Value:
        """log(1 + e^x) by two branches, which prevent overflow, unlike the operator Softplus of some runtimes."""
        return highest(self, 0.0) + (1.0 + (-abs(self)).exp()).log()

    def clip(self, low: Number, high: Number) -> Value:
        """The value clipped between two numbers; NaN stays NaN."""
        return where(self < low, self._like(low), where(self > high, self._like(high), self))

    def cast(self, dtype: Any) -> Value:
        """The value in float32 or float64."""
        if np.dtype(dtype) == np.dtype(self.dtype):
            return self
        kind = TensorProto.DOUBLE if dtype == np.float64 else TensorProto.FLOAT
        return Value(self.graph, self.apply("Cast", to=kind).name, dtype)

    def number(self) -> Value:
        """The condition as a number: 1 if it holds, otherwise 0."""
        return self.apply("Cast", to=TensorProto.DOUBLE if self.dtype == np.float64 else TensorProto.FLOAT)

    def sum(self, *, keep: bool = False, axes: int = 1) -> Value:
        """The sum over the last axis, or the last `axes` axes."""
        last = self.graph.constant([*range(-axes, 0)], np.int64)
        return self.graph.node("ReduceSum", self, last, keepdims=int(keep))[0]

    def columns(self, which: Sequence[int]) -> Value:
        """The columns at the indices `which`, in the order of the indices."""
        return self.graph.node("Gather", self, self.graph.constant(list(which), np.int64), axis=-1)[0]

    def split(self, sizes: Sequence[int], axis: int = -1) -> list[Value]:
        """The parts of the given sizes into which an axis is divided."""
        if len(sizes) == 1:
            return [self]
        parts = self.graph.constant(list(sizes), np.int64)
        return self.graph.node("Split", self, parts, outputs=len(sizes), axis=axis)

    def reshape(self, *shape: int) -> Value:
        """The value with another shape of each row; the number of rows stays."""
        return self.graph.node("Reshape", self, self.graph.constant([0, *shape], np.int64))[0]

    def new_axis(self) -> Value:
        """The value with one more axis at the end."""
        return self.graph.node("Unsqueeze", self, self.graph.constant([-1], np.int64))[0]

    def dense(self, weight: NDArray[Any], bias: NDArray[Any]) -> Value:
        """The product of the value with a matrix (out, in), plus a bias."""
        if weight.shape[1] == 0:
            return self.graph.constant(bias[None, :])
        return self.apply("Gemm", weight, bias, transB=1)


def where(condition: Value | NDArray[np.bool_], yes: Value | Number, no: Value | Number) -> Value:
    """`yes` where the condition holds, otherwise `no`; at least one argument is a `Value`."""
    like = next(value for value in (yes, no, condition) if isinstance(value, Value))
    if not isinstance(condition, Value):
        condition = like.graph.constant(condition, np.bool_)
    return condition.graph.node("Where", condition, like._like(yes), like._like(no))[0]


def highest(a: Value, b: Value | Number) -> Value:
    """The larger of two values; NaN where `a` is NaN."""
    return where(a < b, b, a)
