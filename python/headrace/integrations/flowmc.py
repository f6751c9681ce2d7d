"""Flows of headrace for flowMC's global proposals, in place of flowMC's own flows.

    from flowMC.resource_strategy_bundle.RQSpline_MALA import RQSpline_MALA_Bundle
    from headrace.integrations.flowmc import use

    bundle = use(RQSpline_MALA_Bundle(...), headrace.NSF(features, coupling=True, activation="tanh"), shrink=0.1)

flowMC trains the flow in its own loop, with flowMC's optimiser.
"""

from __future__ import annotations

import math
from typing import Any

from headrace._base.install import install

try:
    from flowMC.resource.kernel.NF_proposal import NFProposal
    from flowMC.resource.model.nf_model.base import NFModel
    from flowMC.resource.optimizer import Optimizer
except ImportError as error:
    raise ImportError(f"headrace.integrations.flowmc needs flowMC: {install('flowmc')}") from error

import jax
from jax import numpy as jnp

from headrace._base import arguments as check
from headrace._flow.flow import Flow
from headrace.jax import FlowModule

__all__ = ["FlowModel", "use"]


class FlowModel(NFModel):
    """A flow as a model of flowMC: a pytree of the flow's parameters and of the data's means and covariances.

    The model standardises data by their means and covariances, as flowMC's flows do; `train` sets both.

    Args:
        flow: A flow without a context.

    Raises:
        TypeError, ValueError: `flow` is not a flow, or takes a context.
    """

    module: FlowModule

    def __init__(self, flow: Flow) -> None:
        if not isinstance(flow, Flow):
            raise TypeError(f"flow: expected a headrace.Flow, got {check.kind_of(flow)}")
        if flow.context:
            raise ValueError(f"flow: expected one without context, got {flow.context} columns")
        self.module = FlowModule(flow)
        self._n_features = flow.features
        self._data_mean = jnp.zeros(flow.features)
        self._data_cov = jnp.eye(flow.features)

    @property
    def _scale(self) -> jax.Array:
        return jnp.sqrt(jnp.diag(self.data_cov))

    def log_prob(self, x: jax.Array) -> jax.Array:
        """The log density of one row or of several rows."""
        return self.module.log_prob((x - self.data_mean) / self._scale) - jnp.log(self._scale).sum()

    def sample(self, rng_key: Any, n_samples: int) -> jax.Array:
        """`n_samples` draws, shape (n_samples, n_dim)."""
        return self.data_mean + self._scale * self.module.sample(rng_key, n_samples)

    def forward(self, x: jax.Array, key: Any = None) -> tuple[jax.Array, jax.Array]:
        """Transform standardised data to latent; return latent rows and log-determinants."""
        return self.module.to_latent(x)

    def inverse(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Transform latent to standardised data; return data and log-determinants."""
        return self.module.to_data(x)

    def print_parameters(self) -> None:
        """Print a description of the model."""
        print(self.to_flow())

    def to_flow(self) -> Flow:
        """A `headrace.Flow` of the same density, with the data's means and standard deviations at its end."""
        import numpy as np

        from headrace._flow.transforms.fixed import Standardize

        flow = self.module.to_flow()
        ends = Standardize(np.asarray(self.data_mean, float), np.asarray(self._scale, float))
        return Flow([*flow.transforms, ends], flow.base, dtype=flow.dtype)


def use(bundle: Any, flow: Flow, learning_rate: float = 1e-3, *, shrink: float = 1.0) -> Any:
    """Replace the flow of a flowMC bundle, and its optimiser.

    Args:
        bundle: A bundle of `flowMC.resource_strategy_bundle` with a flow, before its first run; it is changed in place.
        flow: The flow for a `FlowModel`.
        learning_rate: The learning rate of Adam.
        shrink: A factor of the flow's initial parameters. flowMC holds out no rows, and its rows are
            few and similar: from small weights, for example 0.1 times fresh weights, a flow learns less of their noise,
            and more proposals are accepted (docs/samplers.md). Use 1 for a flow that was fitted before.

    Returns:
        The bundle.

    Raises:
        TypeError: `bundle` is not a bundle with a flow.
        ValueError: the number of features differs, or `shrink` is not positive.
    """
    factor = check.number("shrink", shrink, above=0.0, below=math.inf)
    resources = getattr(bundle, "resources", {})
    if not isinstance(resources.get("global_sampler"), NFProposal):
        raise TypeError(f"bundle: expected a bundle of flowMC with a flow, got {check.kind_of(bundle)}")
    if factor != 1.0 and isinstance(flow, Flow):
        flow = flow.astype(flow.dtype)  # a copy, which keeps the caller's flow unchanged
        flow.parameters = flow.parameters * flow.dtype.type(factor)
    model = FlowModel(flow)
    if model.n_features != resources["model"].n_features:
        raise ValueError(f"flow: expected {resources['model'].n_features} features, got {model.n_features}")
    batch = resources["global_sampler"].n_batch_size
    resources["model"] = model
    resources["global_sampler"] = NFProposal(model, n_NFproposal_batch_size=batch)
    resources["optimizer"] = Optimizer(model=model, learning_rate=learning_rate)
    return bundle
