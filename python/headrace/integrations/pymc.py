"""Flows as distributions of PyMC, with gradients for NUTS.

from headrace.integrations.pymc import FlowDistribution

with pymc.Model():
    theta = FlowDistribution("theta", flow)  # a learned prior
    pymc.Potential("likelihood", log_prob(likelihood_flow, data, theta))  # a learned likelihood
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace._base.install import install

try:
    import pymc
    from pytensor import tensor as pt
    from pytensor.gradient import grad_undefined
    from pytensor.graph.basic import Apply
    from pytensor.graph.op import Op
except ImportError as error:
    raise ImportError(f"headrace.integrations.pymc needs PyMC: {install('pymc')}") from error

from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._flow.flow import Flow

__all__ = ["FlowDistribution", "log_prob"]

KIND = "float64"  # dtype of all arrays between PyMC and headrace, PyMC's default


class _Rows(Op):
    """An operator of PyTensor on symbolic rows, and on a context if the flow reads one."""

    __props__ = ("flow",)

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    def _inputs(self, arrays: Sequence[Any]) -> list[Any]:
        inputs = [pt.as_tensor_variable(one).astype(KIND) for one in arrays]
        names = ("value", "context")
        for name, columns, one in zip(names, (self.flow.features, self.flow.context), inputs, strict=False):
            if one.ndim < 1 or one.type.shape[-1] not in (columns, None):
                raise errors.wrong_shape(name, f"(..., {columns})", one.type.shape)
        return inputs

    def pullback(self, inputs: Any, outputs: Any, output_gradients: Any) -> list[Any]:
        return self.L_op(inputs, outputs, output_gradients)


class _LogProb(_Rows):
    """Log densities of rows, whose leading dimensions are broadcast against those of contexts."""

    def make_node(self, *arrays: Any) -> Apply:
        inputs = self._inputs(arrays)
        return Apply(self, inputs, [pt.tensor(dtype=KIND, shape=(None,) * (max(one.ndim for one in inputs) - 1))])

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: Any) -> None:
        outputs[0][0] = np.asarray(self.flow.log_prob(*inputs), KIND)

    def infer_shape(self, fgraph: Any, node: Apply, shapes: Sequence[Any]) -> list[Any]:
        return [pt.broadcast_shape(*(shape[:-1] for shape in shapes), arrays_are_shapes=True)]

    def L_op(self, inputs: Any, outputs: Any, output_gradients: Any) -> list[Any]:
        made = _Gradients(self.flow)(*inputs, output_gradients[0])
        return made if isinstance(made, list) else [made]


class _Gradients(_Rows):
    """Vector-Jacobian products of log densities with respect to rows and contexts."""

    def make_node(self, *arrays: Any) -> Apply:
        inputs = [*self._inputs(arrays[:-1]), pt.as_tensor_variable(arrays[-1]).astype(KIND)]
        return Apply(self, inputs, [one.type() for one in inputs[:-1]])

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: Any) -> None:
        *arrays, gradient = inputs
        wrt = ("inputs", "context")[: len(arrays)]
        context = arrays[1] if len(arrays) > 1 else None
        gradients = self.flow.log_prob_vjp(arrays[0], gradient, context, wrt=wrt)
        for output, one, like in zip(outputs, gradients, arrays, strict=True):
            output[0] = np.asarray(one, KIND).reshape(like.shape)

    def infer_shape(self, fgraph: Any, node: Apply, shapes: Sequence[Any]) -> list[Any]:
        return list(shapes[:-1])

    def L_op(self, inputs: Any, outputs: Any, output_gradients: Any) -> list[Any]:
        return [grad_undefined(self, i, one, "second derivatives of a flow") for i, one in enumerate(inputs)]


def log_prob(flow: Flow, value: Any, context: Any = None) -> Any:
    """The log density of symbolic rows, differentiable once with respect to rows and context.

    Args:
        flow: A flow on the CPU, whose parameters are copied by this call. Use float64 unless the flow's dtype is
            enough.
        value: Shape (..., features), broadcast against the context.
        context: Shape (..., context) if the flow reads a context.

    Returns:
        A PyTensor tensor of the leading dimensions, in float64.

    Raises:
        TypeError, ValueError: `flow` is not a flow, or shapes do not fit.
    """
    own = _checked(flow, context)
    return _LogProb(own)(*([value] if context is None else [value, context]))


def _checked(flow: Any, context: Any) -> Flow:
    if not isinstance(flow, Flow):
        raise TypeError(f"flow: expected a headrace.Flow, got {check.kind_of(flow)}")
    if (context is None) != (flow.context == 0):
        expected = f"{flow.context} context columns" if flow.context else "no context, as the flow takes none"
        raise ValueError(f"context: expected {expected}, got {check.kind_of(context)}")
    return flow.to("cpu").astype(flow.dtype)  # a copy, which later fits of `flow` do not change


def FlowDistribution(name: str, flow: Flow, context: Any = None, **more: Any) -> Any:  # a name like PyMC's
    """A random variable of a PyMC model with a flow's density, conditional on a context if the flow reads one.

    The initial value is the median of some draws, because zeros may lie outside of the support.

    Args:
        name: The variable's name.
        flow, context: As in `log_prob`; a context of shape (..., context) makes a batch of variables.
        **more: Keywords of `pymc.CustomDist`: ``observed``, ``dims``, ...

    Returns:
        The variable from `pymc.CustomDist`, shape (..., features).

    Raises:
        TypeError, ValueError: see `log_prob`.
    """
    own = _checked(flow, context)
    op = _LogProb(own)
    # The initial value is a parameter that determines the length of a row, and has no effect on the density.
    start = np.median(np.asarray(own.sample(500, _one_context(own), seed=0), KIND), axis=0)
    parameters = [start] if context is None else [start, pt.as_tensor_variable(context)]

    def logp(value: Any, start: Any, *given: Any) -> Any:
        return op(value, *given)

    def random(start: Any, *given: Any, rng: Any = None, size: Any = None) -> Any:
        rows = np.asarray(given[0], KIND) if given else None
        batch = np.shape(start)[:-1] if rows is None else rows.shape[:-1]
        batch = batch if size is None else tuple(size)
        if rows is not None:
            rows = np.broadcast_to(rows, (*batch, own.context)).reshape(-1, own.context)
        drawn = own.sample(int(np.prod(batch)), rows, seed=int(rng.integers(2**62)))
        return np.asarray(drawn, KIND).reshape(*batch, own.features)

    def support_point(rv: Any, size: Any, start: Any, *given: Any) -> Any:
        return pt.broadcast_to(start, rv.shape)

    own_words: dict[str, Any] = {"logp": logp, "random": random, "support_point": support_point}
    own_words["signature"] = "(d)->(d)" if context is None else "(d),(c)->(d)"
    return pymc.CustomDist(name, *parameters, **own_words, **more)


def _one_context(flow: Flow) -> Any:
    if not flow.context:
        return None
    return np.zeros(flow.context) if flow.standardize_context is None else np.asarray(flow.standardize_context[0])
