"""Flows of sequences in JAX: a pytree whose methods JAX can compile and differentiate."""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.types import Self
from headrace.sequences.flow import SequenceFlow

_KINDS = ("parameters", "inputs", "context", "covariates")


def _present(flow: SequenceFlow) -> tuple[str, ...]:
    """The arguments that have gradients, by name: context and covariates only if the flow reads them."""
    has = {"context": bool(flow.context), "covariates": bool(flow.covariates)}
    return tuple(kind for kind in _KINDS if has.get(kind, True))


def _host(array: Any) -> Any:
    return None if array is None else np.asarray(array)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _log_prob_steps(flow: SequenceFlow, params: Any, x: Any, context: Any, covariates: Any) -> Any:
    def call(params: Any, x: Any, context: Any, covariates: Any) -> Any:
        return flow.log_prob_steps(_host(x), _host(context), _host(covariates), parameters=_host(params))

    result = jax.ShapeDtypeStruct(x.shape[:-1], flow.dtype)
    return jax.pure_callback(call, result, params, x, context, covariates, vmap_method="sequential")


def _forth(flow: SequenceFlow, *given: Any) -> Any:
    return _log_prob_steps(flow, *given), given


def _back(flow: SequenceFlow, given: Any, grad: Any) -> Any:
    kinds = _present(flow)

    def call(*arrays: Any) -> Any:
        params, x, context, covariates, grad = map(_host, arrays)
        return flow.log_prob_vjp(x, grad, context, covariates, wrt=kinds, parameters=params)

    named = dict(zip(_KINDS, given, strict=True))
    shapes = tuple(jax.ShapeDtypeStruct(named[kind].shape, flow.dtype) for kind in kinds)
    found = jax.pure_callback(call, shapes, *given, grad, vmap_method="sequential")
    own = dict(zip(kinds, found, strict=True))
    return tuple(own[kind].astype(named[kind].dtype) if kind in own else None for kind in _KINDS)


_log_prob_steps.defvjp(_forth, _back)


@jax.tree_util.register_pytree_node_class
class SequenceModule:
    """A flow of sequences as a pytree, on the CPU: its parameters are the only leaf.

    jit, grad and optimisers support this pytree; vmap computes its examples one by one. Flows whose networks read data
    have gradients by sequences, context, covariates and parameters, but no second derivatives.

    Args:
        flow: The flow, whose parameters are copied. Later changes of the flow do not affect the module.

    >>> import jax, headrace as hr, headrace.jax
    >>> module = headrace.jax.SequenceModule(hr.WaveNet(layers=4, channels=8))
    >>> loss = lambda module, x: -module.log_prob(x).mean()
    >>> jax.jit(jax.grad(loss))(module, jax.numpy.zeros((2, 50, 1))).params.shape == module.params.shape
    True
    """

    params: Any

    def __init__(self, flow: SequenceFlow) -> None:
        if not isinstance(flow, SequenceFlow):
            raise TypeError(f"flow: expected a SequenceFlow, got {check.kind_of(flow)}")
        flow._refuse_device("flow")
        if flow.dtype == np.float64 and not jax.config.jax_enable_x64:
            raise ValueError(errors.too_wide_for_jax("flow", "flow"))
        self._flow, self.params = copy(flow), jnp.asarray(flow.parameters)

    def tree_flatten(self) -> tuple[Any, SequenceFlow]:
        """The leaf with the parameters, and the static flow."""
        return (self.params,), self._flow

    @classmethod
    def tree_unflatten(cls, flow: SequenceFlow, leaves: Any) -> Self:
        """The module of a flow and a leaf: the inverse of `tree_flatten`."""
        self = object.__new__(cls)
        self._flow, self.params = flow, leaves[0]
        return self

    def with_params(self, params: Any) -> SequenceModule:
        """A module of the same flow with other parameters, shape (n,)."""
        return SequenceModule.tree_unflatten(self._flow, (params,))

    def to_flow(self) -> SequenceFlow:
        """A new flow with the module's parameters, to sample and save."""
        flow = copy(self._flow)
        flow.parameters = np.asarray(self.params)
        return flow

    def log_prob(self, x: Any, context: Any = None, covariates: Any = None) -> jax.Array:
        """The log density of each sequence in nats, shape (rows,).

        Args:
            x: Shape (rows, steps, features), or (steps, features).
            context, covariates: As in `SequenceFlow.log_prob`.
        """
        return self.log_prob_steps(x, context, covariates).sum(axis=-1)

    def log_prob_steps(self, x: Any, context: Any = None, covariates: Any = None) -> jax.Array:
        """The log density of each step conditional on the steps before it, shape (rows, steps)."""
        flow = self._flow
        array = jnp.asarray(x, flow.dtype)
        if array.ndim < 2 or array.shape[-1] != flow.features:
            raise errors.wrong_shape("x", f"(rows, steps, {flow.features})", array.shape)
        for name, given, columns in (("context", context, flow.context), ("covariates", covariates, flow.covariates)):
            if (given is None) != (columns == 0):
                expected = f"{columns} columns" if columns else "None, because this flow has none"
                raise ValueError(f"{name}: expected {expected}, got {check.kind_of(given)}")
        own = [None if a is None else jnp.asarray(a, flow.dtype) for a in (context, covariates)]
        return _log_prob_steps(flow, self.params, array, *own)
