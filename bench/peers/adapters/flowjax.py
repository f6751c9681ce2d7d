"""flowjax: flows on JAX, compiled ahead of the first call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.peers.adapter import Model, UnsupportedError, equal_width
from bench.workloads import BINS, BOUND, COUPLINGS, LEARNING_RATE, SPLINES, VECTORS, Workload

DISTRIBUTIONS = ("flowjax", "jax", "jaxlib", "equinox", "optax")


def setup(threads: int, device: str) -> None:
    """Import the library; its threads come from the environment of the process. Products on a device have full
    precision."""
    import flowjax.flows  # noqa: F401

    setup_jax(device)


def setup_jax(device: str) -> None:
    """Let JAX use the device alone, or raise an error with the reason why it cannot."""
    import jax

    jax.config.update("jax_enable_x64", False)
    if device != "cuda":
        jax.config.update("jax_platforms", "cpu")
        return
    jax.config.update("jax_platforms", "cuda")
    jax.config.update("jax_default_matmul_precision", "highest")
    try:
        jax.devices()
    except RuntimeError as error:
        raise ImportError(f"jax {jax.__version__} sees no CUDA device: {error}") from None


def build(workload: Workload, device: str) -> Model:
    """Build the flow; calls are compiled for their number of rows, and masks are multiplied in once for density and
    samples.

    The library counts inner knots, one less than bins, and also learns the slopes at the ends of a spline.
    """
    import equinox
    import jax
    import jax.numpy as jnp
    import numpy as np
    import paramax
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import coupling_flow, masked_autoregressive_flow

    if workload.family in VECTORS:
        return _planar(workload)
    if workload.family == "maf_residual":
        raise UnsupportedError("no residual networks")
    family = coupling_flow if workload.family in COUPLINGS else masked_autoregressive_flow
    flow = family(
        jax.random.key(0),
        base_dist=Normal(jnp.zeros(workload.features)),
        transformer=RationalQuadraticSpline(knots=BINS - 1, interval=BOUND) if workload.family in SPLINES else None,
        flow_layers=workload.transforms,
        nn_width=equal_width(workload.hidden),
        nn_depth=len(workload.hidden),
        invert=workload.family != "iaf",
    )
    arrays, rest = equinox.partition(paramax.unwrap(flow), equinox.is_array)
    key = jax.random.key(1)
    training = Training(flow) if workload.verb == "train" else None
    compiled: dict[tuple[str, int], Any] = {}

    def log_prob_of(arrays: Any, x: jax.Array) -> jax.Array:
        return equinox.combine(arrays, rest).log_prob(x)

    def sample_of(arrays: Any, key: jax.Array, rows: int) -> jax.Array:
        return equinox.combine(arrays, rest).sample(key, (rows,))

    def prepare(verb: str, argument: Any) -> None:
        if verb == "train":
            training.compile(argument)
            return
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

    trained = {} if training is None else {"train": training.step}
    passes = 1 if workload.family in COUPLINGS else workload.features
    return Model(log_prob, sample, jnp.asarray, np.asarray, passes, prepare, **trained)


def _planar(workload: Workload) -> Model:
    """The library's planar transforms in a scan, as in its `planar_flow`, without the permutations."""
    import equinox
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flowjax.bijections import Planar, Scan

    if workload.family != "planar":
        raise UnsupportedError("no radial transforms")
    keys = jax.random.split(jax.random.key(0), workload.transforms)
    chain = Scan(equinox.filter_vmap(lambda key: Planar(key, dim=workload.features))(keys))
    arrays, rest = equinox.partition(chain, equinox.is_array)

    def forward_of(arrays: Any, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(equinox.combine(arrays, rest).transform_and_log_det)(z)

    def loss_of(chain: Any, z: jax.Array) -> jax.Array:
        x, log_det = jax.vmap(chain.transform_and_log_det)(z)
        return (0.5 * (x * x).sum(1) - log_det).mean()

    training = Training(chain, loss_of) if workload.verb == "fit_to_normal" else None
    compiled: dict[int, Any] = {}

    def prepare(verb: str, z: Any) -> None:
        if training is not None:
            training.compile(z)
        elif verb == "forward" and len(z) not in compiled:
            compiled[len(z)] = jax.jit(forward_of).lower(arrays, z).compile()

    def no_inverse(_argument: Any) -> Any:
        raise UnsupportedError("the library has no inverse of a planar transform with tanh")

    def forward(z: jax.Array) -> Any:
        return jax.block_until_ready(compiled[len(z)](arrays, z))

    trained = {} if training is None else {"fit_to_normal": training.step}
    return Model(
        no_inverse, no_inverse, jnp.asarray, np.asarray, compile=prepare, forward=forward, inverse=no_inverse, **trained
    )


def _negative_log_likelihood(flow: Any, x: Any) -> Any:
    return -flow.log_prob(x).mean()


class Training:
    """The weights of a flow during training, in the way of the library's loop: optax, one compiled step."""

    def __init__(self, flow: Any, loss: Callable[[Any, Any], Any] = _negative_log_likelihood) -> None:
        self.loss = loss
        import equinox
        import paramax

        self.weights, self.rest = equinox.partition(
            flow, equinox.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
        )
        start, self.update = adam()
        self.state = start(self.weights)
        self.compiled: dict[int, Any] = {}

    def compile(self, x: Any) -> None:
        """Compile a step for the number of rows, in which the new weights take the memory of the old ones."""
        import equinox
        import jax
        import paramax

        def loss_of(weights: Any, x: jax.Array) -> jax.Array:
            return self.loss(paramax.unwrap(equinox.combine(weights, self.rest)), x)

        def step(weights: Any, state: Any, x: jax.Array) -> tuple[Any, Any, jax.Array]:
            loss, gradient = jax.value_and_grad(loss_of)(weights, x)
            weights, state = self.update(weights, state, gradient)
            return weights, state, loss

        if len(x) not in self.compiled:
            lowered = jax.jit(step, donate_argnums=(0, 1)).lower(self.weights, self.state, x)
            self.compiled[len(x)] = lowered.compile()

    def step(self, x: Any) -> Any:
        """Take one step on the rows; return the loss before it."""
        import jax

        self.weights, self.state, loss = self.compiled[len(x)](self.weights, self.state, x)
        jax.block_until_ready((self.weights, self.state, loss))
        return loss


def adam() -> tuple[Callable[[Any], Any], Callable[[Any, Any, Any], tuple[Any, Any]]]:
    """Adam as two functions: weights -> state, and (weights, state, gradient) -> (weights, state).

    The functions are optax's, on which the library depends, or written out where optax is missing.
    """
    import jax
    import jax.numpy as jnp

    try:
        import equinox
        import optax
    except ImportError:

        def start(weights: Any) -> Any:
            zeros = [jax.tree.map(jnp.zeros_like, weights) for _ in range(2)]
            return jnp.zeros((), jnp.int32), *zeros

        def update(weights: Any, state: Any, gradient: Any) -> tuple[Any, Any]:
            count, mean, square = state
            count += 1
            mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
            square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, square, gradient)
            size = LEARNING_RATE * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
            weights = jax.tree.map(lambda w, m, v: w - size * m / (jnp.sqrt(v) + 1e-8), weights, mean, square)
            return weights, (count, mean, square)

        return start, update

    optimizer = optax.adam(LEARNING_RATE)

    def update_with_optax(weights: Any, state: Any, gradient: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(gradient, state, weights)
        return equinox.apply_updates(weights, updates), state

    return optimizer.init, update_with_optax
