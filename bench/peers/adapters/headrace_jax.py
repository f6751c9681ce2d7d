"""headrace inside of JAX: flows of `headrace.jax`, which are compiled ahead of the first call, like those of
flowjax."""

from __future__ import annotations

import itertools
from typing import Any

from bench.peers.adapter import Model, UnsupportedError
from bench.peers.adapters import flowjax as flowjax_peer
from bench.peers.adapters import headrace as headrace_peer
from bench.workloads import KERNELS, VECTORS, Workload

DISTRIBUTIONS = ("headrace", "jax", "jaxlib", "optax")


def setup(threads: int, device: str) -> None:
    """Import both libraries; an ImportError has the reason where JAX or headrace cannot compute on the device."""
    import headrace

    headrace.set_num_threads(threads)
    flowjax_peer.setup_jax(device)
    import headrace.jax
    from headrace import _core

    if device == "cuda" and (reason := _core.cuda_unavailable()):
        raise ImportError(reason)


def build(workload: Workload, device: str) -> Model:
    """The flow of headrace's adapter; the compiled step of training has optax's Adam in it."""
    if workload.family in (*KERNELS, *VECTORS):
        raise UnsupportedError("of headrace inside of JAX, networks alone are measured")
    import jax
    import jax.numpy as jnp
    import numpy as np

    import headrace.jax

    flow = headrace_peer.network_flow(workload)
    frozen, keys = headrace.jax.freeze(flow), itertools.count()
    training = flowjax_peer.Training(headrace.jax.FlowModule(flow)) if workload.verb == "train" else None
    compiled: dict[tuple[str, int], Any] = {}

    def prepare(verb: str, argument: Any) -> None:
        if training is not None:
            training.compile(argument)
            return
        rows = argument if verb == "sample" else len(argument)
        if (verb, rows) in compiled:
            return
        if verb == "sample":
            lowered = jax.jit(frozen.sample, static_argnums=1).lower(jax.random.key(0), rows)
        else:
            lowered = jax.jit(frozen.log_prob).lower(argument)
        compiled[verb, rows] = lowered.compile()

    def log_prob(x: jax.Array) -> jax.Array:
        return compiled["log_prob", len(x)](x).block_until_ready()

    def sample(rows: int) -> jax.Array:
        return compiled["sample", rows](jax.random.key(next(keys))).block_until_ready()

    trained = {} if training is None else {"train": training.step}
    return Model(log_prob, sample, jnp.asarray, np.asarray, 1, prepare, **trained)
