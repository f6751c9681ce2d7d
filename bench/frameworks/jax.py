"""headrace.jax in compiled JAX code, beside flowjax where it is installed, by the fastest of many calls on one thread.

    python -m bench.frameworks.jax calls     # one call: log densities, scores, training steps, samples
    python -m bench.frameworks.jax neutra    # Hamiltonian Monte Carlo through a flow (NeuTra)
    python -m bench.frameworks.jax svi       # numpyro's variational inference, beside its own AutoIAFNormal
    python -m bench.frameworks.jax coupling  # a map alone: compiled calls beside calls back to Python, interleaved

The flows are untrained masked autoregressive ones, with 10 features, 5 transforms, two hidden layers of 64: the cost of
a call does not depend on the weights.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import numpy as np
from jax import numpy as jnp

import headrace as hr
import headrace.jax as hj

FEATURES, CONTEXT, CHAINS, LEAPS = 10, 4, 64, 8
Timed = Callable[..., Any]


def peer(context: int | None) -> Any:
    """A flow of flowjax with the same sizes, or None where flowjax is not installed."""
    try:
        from flowjax.distributions import Normal
        from flowjax.flows import masked_autoregressive_flow
    except ImportError:
        return None
    base = Normal(jnp.zeros(FEATURES))
    return masked_autoregressive_flow(
        jax.random.key(0), base_dist=base, cond_dim=context, flow_layers=5, nn_width=64, nn_depth=2
    )


def least(call: Timed, *arguments: Any, seconds: float = 1.0) -> float:
    """The microseconds of the fastest call within the given seconds."""
    jax.block_until_ready(call(*arguments))
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(call(*arguments))
        best = min(best, time.perf_counter() - start)
    return best * 1e6


def ours() -> dict[str, tuple[Timed, tuple[Any, ...]]]:
    """The calls of headrace by name, with the arguments before rows and context."""
    flow = hr.MAF(FEATURES, context=CONTEXT, last_activation="relu")
    module, frozen = hj.FlowModule(flow), hj.freeze(flow)
    step = jax.value_and_grad(lambda m, x, c: -m.log_prob(x, c).mean())
    return {
        "log_prob, parameters given": (lambda m, x, c: m.log_prob(x, c), (module,)),
        "log_prob": (lambda x, c: frozen.log_prob(x, c), ()),
        "score, vmap(value_and_grad)": (jax.vmap(jax.value_and_grad(lambda x, c: frozen.log_prob(x, c))), ()),
        "loss and gradient by parameters": (step, (module,)),
        "to_data": (lambda z, c: frozen.to_data(z, c), ()),
    }


def theirs() -> dict[str, tuple[Timed, tuple[Any, ...]]]:
    """The calls of flowjax, by the names of headrace's calls."""
    flow = peer(CONTEXT)
    if flow is None:
        return {}
    import equinox as eqx
    import paramax

    params, static = eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )
    frozen = paramax.unwrap(flow)

    def log_prob(params: Any, x: Any, c: Any) -> Any:
        return paramax.unwrap(eqx.combine(params, static)).log_prob(x, c)

    step = jax.value_and_grad(lambda p, x, c: -log_prob(p, x, c).mean())
    return {
        "log_prob, parameters given": (log_prob, (params,)),
        "log_prob": (lambda x, c: frozen.log_prob(x, c), ()),
        "score, vmap(value_and_grad)": (jax.vmap(jax.value_and_grad(lambda x, c: frozen.log_prob(x, c))), ()),
        "loss and gradient by parameters": (step, (params,)),
        "to_data": (jax.vmap(frozen.bijection.transform_and_log_det), ()),
    }


def plain(x: Any, c: Any) -> dict[str, Timed]:
    """The calls of headrace with NumPy arrays, to measure the additional cost of calls through JAX."""
    flow, x, c = hr.MAF(FEATURES, context=CONTEXT, last_activation="relu"), np.asarray(x), np.asarray(c)
    weight = np.full(len(x), -1.0 / len(x), np.float32)
    return {
        "log_prob, parameters given": lambda: flow.log_prob(x, c),
        "log_prob": lambda: flow.log_prob(x, c),
        "score, vmap(value_and_grad)": lambda: flow.log_prob_and_score(x, c),
        "loss and gradient by parameters": lambda: flow.log_prob_vjp(x, weight, c, wrt="parameters", values=True),
        "to_data": lambda: flow.to_data(x, c),
    }


def calls(rows: list[int], seconds: float = 1.0) -> None:
    """Print a table of times."""
    print("| call, µs | rows | NumPy | headrace.jax | flowjax | ratio |\n| --- | --- | --- | --- | --- | --- |")
    other = theirs()
    for name, (call, first) in ours().items():
        for n in rows:
            rng = np.random.default_rng(0)
            x = jnp.asarray(rng.standard_normal((n, FEATURES)), "float32")
            c = jnp.asarray(rng.standard_normal((n, CONTEXT)), "float32")
            base = plain(x, c)[name]
            if name.startswith("log_prob"):
                np.testing.assert_allclose(jax.jit(call)(*first, x, c), base(), rtol=1e-4, atol=1e-4)
            numpy = least(base, seconds=seconds)
            own = least(jax.jit(call), *first, x, c, seconds=seconds)
            peers = least(jax.jit(other[name][0]), *other[name][1], x, c, seconds=seconds) if other else np.nan
            print(f"| {name} | {n} | {numpy:.1f} | {own:.1f} | {peers:.1f} | {peers / own:.1f} |", flush=True)


def log_density(x: Any) -> Any:
    """A log density of banana shapes, one in each pair of coordinates."""
    a, b = x[0::2], x[1::2]
    bend = b - 0.25 * (a * a - 4)
    return -0.5 * (a @ a) / 4 - 0.5 * (bend @ bend) / 0.25


def sampler(transport: Timed, steps: int, size: float = 0.1) -> Timed:
    """A function that runs HMC of many chains in the latent space of a transport ``z -> (x, log_det)``."""

    def potential(z: Any) -> Any:
        x, log_det = transport(z)
        return log_density(x) + log_det

    gradient = jax.value_and_grad(potential)

    def step(state: Any, key: Any) -> Any:
        z, value, slope = state
        for_momentum, for_choice = jax.random.split(key)
        momentum = jax.random.normal(for_momentum, z.shape)
        start = value - 0.5 * momentum @ momentum

        def leap(moving: Any, _: None) -> Any:
            z, momentum, _, slope = moving
            momentum = momentum + 0.5 * size * slope
            z = z + size * momentum
            value, slope = gradient(z)
            return (z, momentum + 0.5 * size * slope, value, slope), None

        (moved, momentum, value_there, slope_there), _ = jax.lax.scan(leap, (z, momentum, value, slope), None, LEAPS)
        taken = jnp.log(jax.random.uniform(for_choice)) < value_there - 0.5 * momentum @ momentum - start
        new = (jnp.where(taken, moved, z), jnp.where(taken, value_there, value), jnp.where(taken, slope_there, slope))
        return new, new[0]

    def chain(key: Any, z: Any) -> Any:
        return jax.lax.scan(step, (z, *gradient(z)), jax.random.split(key, steps))[1]

    return jax.jit(lambda key, z: jax.vmap(chain)(jax.random.split(key, len(z)), z))


def neutra(rounds: int = 9) -> None:
    """Print the processor times of a step of all chains, interleaved, and the ratio of flowjax's time to headrace's."""
    transports = {"headrace": (hj.freeze(hr.MAF(FEATURES, last_activation="relu")).to_data, 20)}
    if (flow := peer(None)) is not None:
        import paramax

        transports["flowjax"] = (paramax.unwrap(flow).bijection.transform_and_log_det, 1)
    z = jax.random.normal(jax.random.key(2), (CHAINS, FEATURES))
    runs = {name: (sampler(transport, steps), steps) for name, (transport, steps) in transports.items()}
    for run, _ in runs.values():  # compiles the runs
        jax.block_until_ready(run(jax.random.key(3), z))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (run, steps) in runs.items():
            start = time.process_time()
            jax.block_until_ready(run(jax.random.key(4), z))
            times[name].append(1e6 * (time.process_time() - start) / steps)
    for name, each in times.items():
        print(f"{name}: {CHAINS} chains, {LEAPS} leapfrogs: {np.median(each):.0f} µs a step, median of {rounds}")
    if "flowjax" in times:
        ratios = sorted(theirs / ours for theirs, ours in zip(times["flowjax"], times["headrace"], strict=True))
        print(f"flowjax / headrace: {np.median(ratios):.1f}, from {ratios[0]:.1f} to {ratios[-1]:.1f}")


def svi(features: Sequence[int], particles: Sequence[int], rounds: int = 9) -> None:
    """Print times of an update of numpyro's SVI, whose guide for a Gaussian model is three inverse autoregressive
    flows."""
    import numpyro
    from numpyro import distributions as dist
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoIAFNormal

    from headrace.integrations.numpyro import FlowDistribution

    print("| features | particles | numpyro, µs | headrace, µs | ratio, median | least | most |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for d in features:
        flow = hr.IAF(d, transforms=3, hidden=(d, d))
        module = hj.FlowModule(flow)

        def model(d: int = d) -> None:
            numpyro.sample("x", dist.Normal(jnp.ones(d), 0.5).to_event(1))

        def guide(module: hj.FlowModule = module) -> None:
            params = numpyro.param("params", module.params)
            numpyro.sample("x", FlowDistribution(module.with_params(params)))

        own = AutoIAFNormal(model, num_flows=3, hidden_dims=[d, d])
        for n in particles:
            updates = []
            for one in (own, guide):
                inference = SVI(model, one, numpyro.optim.Adam(1e-3), Trace_ELBO(num_particles=n))
                updates.append((jax.jit(inference.update), inference.init(jax.random.key(0))))
            times = [[least(update, state, seconds=0.2) for update, state in updates] for _ in range(rounds)]
            ratios = sorted(theirs / ours for theirs, ours in times)
            middle = [float(np.median([pair[i] for pair in times])) for i in (0, 1)]
            print(
                f"| {d} | {n} | {middle[0]:.0f} | {middle[1]:.0f} | {np.median(ratios):.2f} | {ratios[0]:.2f} | "
                f"{ratios[-1]:.2f} |",
                flush=True,
            )


def coupling(rows: Sequence[int], rounds: int = 9, seconds: float = 0.2) -> None:
    """Print times of a spline's values and of its gradients, where compiled code calls the core or Python."""
    from headrace.jax import _couplings as _couplings_jax

    def loss(value: Any, params: Any) -> Any:
        made, log_det = hj.coupling(value, params, "rq_spline", direction="inverse")
        return 0.5 * (made**2).sum() - log_det.sum()

    def made(handlers: tuple[str, ...], function: Timed, *arguments: Any) -> Timed:
        _couplings_jax._WITH_HANDLERS = handlers
        jax.clear_caches()
        compiled: Timed = jax.jit(function).lower(*arguments).compile()
        return compiled

    print("| rows | gradient | callback, µs | handler, µs | ratio, median | least | most |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for n in rows:
        rng = np.random.default_rng(0)
        value, params = (jnp.asarray(rng.standard_normal((n, *last)), "float32") for last in ((5,), (5, 23)))
        for name, function in (("no", loss), ("yes", jax.grad(loss, (0, 1)))):
            both = [made(handlers, function, value, params) for handlers in ((), ("cpu",))]
            for one, other in zip(*(jax.tree.leaves(call(value, params)) for call in both), strict=True):
                np.testing.assert_array_equal(one, other)
            times = [[least(call, value, params, seconds=seconds) for call in both] for _ in range(rounds)]
            ratios = sorted(python / compiled for python, compiled in times)
            middle = [float(np.median([pair[i] for pair in times])) for i in (0, 1)]
            cells = (f"{middle[0]:.1f}", f"{middle[1]:.1f}", f"{np.median(ratios):.1f}")
            print(f"| {n} | {name} | {' | '.join(cells)} | {ratios[0]:.1f} | {ratios[-1]:.1f} |", flush=True)


def stack(sizes: Sequence[tuple[int, int]]) -> None:
    """Print times of sums of log densities of flows, each with different rows, and of gradients, beside flowjax's
    `lax.map`."""
    import equinox
    from flowjax import bijections, distributions, flows

    for n, rows in sizes:
        x = jax.random.normal(jax.random.key(0), (n, rows, 4))
        own = hj.stack([hr.NSF(4, transforms=1, hidden=(50,), seed=i) for i in range(n)])
        spline = bijections.RationalQuadraticSpline(knots=8, interval=4)
        settings: Any = {"base_dist": distributions.Normal(jnp.zeros(4)), "flow_layers": 1, "nn_width": 50}
        made = [
            flows.masked_autoregressive_flow(k, transformer=spline, **settings)
            for k in jax.random.split(jax.random.key(1), n)
        ]
        arrays, rest = equinox.partition(made[0], equinox.is_array)
        stacked = jax.tree.map(
            lambda *a: jnp.stack(a), arrays, *(equinox.filter(m, equinox.is_array) for m in made[1:])
        )

        def theirs(x: Any, stacked: Any = stacked, rest: Any = rest) -> Any:
            return jax.lax.map(lambda one: equinox.combine(one[0], rest).log_prob(one[1]).sum(), (stacked, x)).sum()

        found = []
        for density in (lambda x, own=own: own.log_prob(x).sum(), theirs):
            for function in (density, jax.grad(density)):
                compiled = jax.jit(function)
                start = time.process_time()
                jax.block_until_ready(compiled(x))
                found.append(time.process_time() - start)
                start = time.process_time()  # many calls, because the clock of a running thread lags
                for _ in range(30):
                    jax.block_until_ready(compiled(x))
                found.append((time.process_time() - start) / 30)
        for name, i in (("value", 0), ("gradient", 2)):
            ours, other = found[i + 1], found[i + 5]
            compiled_in = f"compiled in {found[i]:.2f} s, {found[i + 4]:.2f}"
            times_of = f"{1e3 * ours:.2f} ms, flowjax {1e3 * other:.2f}, {other / ours:.1f} x"
            print(f"{n} flows x {rows} rows, {name}: {times_of}; {compiled_in}")


def main() -> None:
    """Run the part that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("calls", "neutra", "svi", "coupling", "stack"))
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 100, 10_000])
    arguments = parser.parse_args()
    hr.set_num_threads(1)
    if arguments.what == "calls":
        calls(arguments.rows)
    elif arguments.what == "svi":
        svi((8, 64), (1, 10, 50))
    elif arguments.what == "coupling":
        coupling(arguments.rows)
    elif arguments.what == "stack":
        stack([(12, 1000), (40, 500)])
    else:
        neutra()


if __name__ == "__main__":
    main()
