"""Flows as distributions and as bijectors of numpyro.

from headrace.integrations.numpyro import FlowDistribution

prior = FlowDistribution(headrace.jax.freeze(flow))  # made once, outside of the model
x = numpyro.sample("x", prior)

The class `FlowTransform` is a bijector of numpyro.
"""

from __future__ import annotations

from typing import Any

from headrace._base.install import install

try:
    import jax
    from numpyro.distributions import Distribution, constraints
    from numpyro.distributions.transforms import Transform
except ImportError as error:
    raise ImportError(f"headrace.integrations.numpyro needs numpyro: {install('numpyro')}") from error

from jax import numpy as jnp

from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._flow.flow import Flow
from headrace._flow.support_ends import LINE, ends_of
from headrace.integrations._numpyro_support import rectangle
from headrace.jax import FlowModule

__all__ = ["FlowDistribution", "FlowTransform"]


def _module_and_context(module: FlowModule | Flow, context: Any) -> tuple[FlowModule, jax.Array | None]:
    """The module and the context, checked; the context as an array of the flow's dtype, or None."""
    if isinstance(module, Flow):
        module = FlowModule(module)
    elif not isinstance(module, FlowModule):
        raise TypeError(f"module: expected a headrace.jax.FlowModule or a Flow, got {check.kind_of(module)}")
    columns = module.structure.context
    if (context is None) != (columns == 0):
        expected = f"{columns} context columns" if columns else "no context, as the flow takes none"
        raise ValueError(f"context: expected {expected}, got {check.kind_of(context)}")
    if context is not None:
        context = jnp.asarray(context, module.structure.dtype)
        if not context.shape or context.shape[-1] != columns:
            raise errors.wrong_shape("context", f"(..., {columns})", context.shape)
    return module, context


class FlowDistribution(Distribution):
    """The density of a flow, conditional on one context or on many.

    The support consists of all vectors of real numbers, or of the vectors between the flow's bounds. If bounds depend
    on other columns, the support also has vectors out of bounds, whose log densities are -inf.

    The distribution is a pytree whose leaves are the context and, unless the module is frozen, the module's parameters.
    The distribution can therefore be made outside or inside of a model, be an argument of compiled functions, and be
    trained.

    Args:
        module: A `headrace.jax.FlowModule`, or the result of `headrace.jax.freeze` for a final flow, whose parameters
            then have no gradients. A `headrace.Flow` is converted to a `FlowModule`.
        context: Shape (..., context) if the flow reads a context; its leading dimensions are the `batch_shape`.
        validate_args: See numpyro.

    Raises:
        TypeError, ValueError: `module` is not a flow, or the context does not fit; the message has the argument's name.

    >>> import jax, headrace as hr
    >>> density = FlowDistribution(hr.MAF(3, context=2, seed=0), jax.numpy.zeros((5, 2)))
    >>> density.batch_shape, density.event_shape, density.sample(jax.random.key(0), (4,)).shape
    ((5,), (3,), (4, 5, 3))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  # as the base class has it
    reparametrized_params = ["context"]  # noqa: RUF012
    pytree_data_fields = ("module", "context")

    def __init__(self, module: FlowModule | Flow, context: Any = None, *, validate_args: bool | None = None) -> None:
        module, context = _module_and_context(module, context)
        self.module, self.context = module, context
        batch = () if context is None else context.shape[:-1]
        super().__init__(batch, (module.structure.features,), validate_args=validate_args)

    @property
    def support(self) -> Any:
        """The constraint on rows: all real vectors, or vectors between the flow's bounds."""
        structure = self.module.structure
        with jax.ensure_compile_time_eval():
            ends = ends_of(structure.flow)
        if all(pair is None or pair == LINE for pair in ends):
            return constraints.real_vector
        low, high = zip(*(LINE if pair is None else pair for pair in ends), strict=True)
        return rectangle(low, high)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws from a key, shape (*sample_shape, *batch_shape, features), differentiable by parameters and context."""
        return self.module.sample(key, tuple(sample_shape), self.context)

    def sample_with_intermediates(self, key: Any, sample_shape: tuple[int, ...] = ()) -> tuple[jax.Array, list[Any]]:
        """``(draws, [log densities])`` from one run: a guide needs no second run, which may be sequential."""
        x, log_prob = self.module.sample_and_log_prob(key, tuple(sample_shape), self.context)
        return x, [log_prob]

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        """The log density of each row, in nats.

        Args:
            value: Shape (..., features), broadcast against the context.
            intermediates: The second result of `sample_with_intermediates` for these draws: the log densities in it are
                returned.
        """
        if intermediates:
            return intermediates[0]
        value = jnp.asarray(value)
        if not jnp.issubdtype(value.dtype, jnp.floating):
            value = value.astype(self.module.structure.dtype)
        if self._validate_args:
            self._validate_sample(value)
        return self.module.log_prob(value, self.context)

    @property
    def mean(self) -> Any:
        """Raise NotImplementedError, because flows have no formula for the mean; the message names an estimator."""
        raise NotImplementedError("mean: a flow has no formula for its mean; average draws of sample(key, (n,))")

    @property
    def variance(self) -> Any:
        """Raise NotImplementedError, because flows have no formula for the variance; the message names an estimator."""
        raise NotImplementedError("variance: a flow has no formula for its variance; take that of sample(key, (n,))")


class FlowTransform(Transform):
    """A flow's transform from latent to data as a bijector of numpyro, without the flow's base.

    In a `TransformedDistribution` the transform defines a density. With `numpyro.infer.reparam.TransformReparam` a
    sampler moves in the latent space, in which the target is simpler if the flow was fitted to the target (neural
    transport).

    Args:
        module: As in `FlowDistribution`; freeze a final flow.
        context: Shape (..., context) if the flow reads a context, broadcast against the rows.

    Raises:
        TypeError, ValueError: an argument is not as expected, as in `FlowDistribution`.

    >>> import jax, headrace as hr
    >>> from numpyro import distributions as dist
    >>> normal = dist.Normal(0.0, 1.0).expand([3]).to_event(1)
    >>> density = dist.TransformedDistribution(normal, FlowTransform(hr.MAF(3, seed=0)))
    >>> density.log_prob(density.sample(jax.random.key(0), (4,))).shape
    (4,)
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, module: FlowModule | Flow, context: Any = None) -> None:
        self.module, self.context = _module_and_context(module, context)

    def __call__(self, x: Any) -> jax.Array:
        """Map latent rows, shape (..., features), to data."""
        return self.module.to_data(x, self.context)[0]

    def _inverse(self, y: Any) -> jax.Array:
        return self.module.to_latent(y, self.context)[0]

    def call_with_intermediates(self, x: Any) -> tuple[jax.Array, jax.Array]:
        """The data of latent rows, and the log-determinants of the same run."""
        return self.module.to_data(x, self.context)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> jax.Array:
        """Log-determinants of the transform to data at latent rows `x`; shape (...)."""
        return self.module.to_data(x, self.context)[1] if intermediates is None else intermediates

    def tree_flatten(self) -> Any:
        """The leaves, which are module and context, and an empty static part."""
        return (self.module, self.context), (("module", "context"), {})

    def eq(self, other: object, static: bool = False) -> Any:
        """Whether another transform is equal; `static`: leaves are compared by identity instead of by value."""
        if not isinstance(other, FlowTransform):
            return False
        leaves, tree = jax.tree.flatten(self)
        others, other_tree = jax.tree.flatten(other)
        if tree != other_tree:
            return False
        if static:
            return all(one is two for one, two in zip(leaves, others, strict=True))
        same = [jnp.array_equal(one, two) for one, two in zip(leaves, others, strict=True)]
        return jnp.all(jnp.array(same)) if same else True
