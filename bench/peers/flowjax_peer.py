"""flowjax: flows on JAX, compiled ahead of the first call."""

from __future__ import annotations

from typing import Any

from bench.peers.adapter import Model, equal_width
from bench.workloads import Workload

DISTRIBUTIONS = ("flowjax", "jax", "jaxlib", "equinox")


def setup(threads: int) -> None:
    """Import the library; its threads come from the environment of the process."""
    import flowjax.flows  # noqa: F401
    import jax

    jax.config.update("jax_enable_x64", False)
    jax.config.update("jax_platforms", "cpu")


def build(workload: Workload) -> Model:
    """Masks are multiplied into the weights once; calls are compiled for their number of rows."""
    import equinox
    import jax
    import jax.numpy as jnp
    import numpy as np
    import paramax
    from flowjax.distributions import Normal
    from flowjax.flows import coupling_flow, masked_autoregressive_flow

    family = coupling_flow if workload.family == "realnvp" else masked_autoregressive_flow
    flow = family(
        jax.random.key(0),
        base_dist=Normal(jnp.zeros(workload.features)),
        flow_layers=workload.transforms,
        nn_width=equal_width(workload.hidden),
        nn_depth=len(workload.hidden),
        invert=workload.family != "iaf",
    )
    arrays, rest = equinox.partition(paramax.unwrap(flow), equinox.is_array)
    key = jax.random.key(1)
    compiled: dict[tuple[str, int], Any] = {}

    def log_prob_of(arrays: Any, x: jax.Array) -> jax.Array:
        return equinox.combine(arrays, rest).log_prob(x)

    def sample_of(arrays: Any, key: jax.Array, rows: int) -> jax.Array:
        return equinox.combine(arrays, rest).sample(key, (rows,))

    def prepare(verb: str, argument: Any) -> None:
        rows = argument if verb == "sample" else len(argument)
        if (verb, rows) in compiled:
            return
        if verb == "sample":
            lowered = jax.jit(sample_of, static_argnums=2).lower(arrays, key, rows)
        else:
            lowered = jax.jit(log_prob_of).lower(arrays, argument)
        compiled[verb, rows] = lowered.compile()

    def log_prob(x: jax.Array) -> jax.Array:
        return compiled["log_prob", len(x)](arrays, x).block_until_ready()

    def sample(rows: int) -> jax.Array:
        return compiled["sample", rows](arrays, key).block_until_ready()

    passes = 1 if workload.family == "realnvp" else workload.features
    return Model(log_prob, sample, jnp.asarray, np.asarray, passes, prepare)
