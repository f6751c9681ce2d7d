"""A program for test_jax_parallel, which compares gradients on two CPU devices with those on one. The caller sets
XLA_FLAGS."""

import sys
from functools import partial

import jax
import numpy as np
from jax import numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import headrace as hr
import headrace.jax as hj

jax.config.update("jax_enable_x64", True)
if hasattr(jax, "shard_map"):
    from jax import shard_map

    CHECKED = True
else:  # JAX 0.5 cannot infer the shared results of functions with custom derivatives
    from jax.experimental.shard_map import shard_map

    shard_map, CHECKED = partial(shard_map, check_rep=False), False

flow = hr.MAF(3, 2, 2, (8, 8), activation="tanh", dtype="float64")
rng = np.random.default_rng(0)
flow.parameters = 0.3 * rng.standard_normal(flow.parameters.size)
p, x, c = jnp.asarray(flow.parameters), jnp.asarray(rng.normal(size=(6, 3))), jnp.asarray(rng.normal(size=(6, 2)))
mesh = Mesh(np.array(jax.devices()[:2]), ("rows",))


def loss(p, x, c):
    z, log_det = hj.to_data(flow, p, x, c)
    return hj.log_prob(flow, p, x, c).sum() + (z**2).sum() + log_det.sum()


def shared_context(p, x, c):
    return loss(p, x, c[0])


def outside(function, specs, check):
    """The sum over devices, differentiated outside of shard_map."""
    sharded = shard_map(
        lambda *a: jax.lax.psum(function(*a), "rows"), mesh=mesh, in_specs=specs, out_specs=P(), **check
    )
    return jax.jit(jax.value_and_grad(sharded, argnums=(0, 1, 2)))(p, x, c)


def inside(function, specs):
    """Values and gradients that each device computes: gradients of shared parameters are already sums over devices."""

    def each(*a):
        value, gradients = jax.value_and_grad(function, argnums=(0, 1, 2))(*a)
        return jax.lax.psum(value, "rows"), gradients

    return jax.jit(shard_map(each, mesh=mesh, in_specs=specs, out_specs=(P(), specs)))(p, x, c)


def compare(got, want):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10)


assert jax.device_count() == 2
for function, specs in ((loss, (P(), P("rows"), P("rows"))), (shared_context, (P(), P("rows"), P()))):
    want = jax.value_and_grad(function, argnums=(0, 1, 2))(p, x, c)
    compare(outside(function, specs, {}), want)
    if CHECKED:
        compare(inside(function, specs), want)
        compare(outside(function, specs, {"check_vma": False}), want)

# The comparisons are of sharded rows under plain jit, vmap within shard_map, samples on each device, and pmap.
rows = NamedSharding(mesh, P("rows"))
compare(jax.jit(jax.grad(loss))(p, jax.device_put(x, rows), jax.device_put(c, rows)), jax.grad(loss)(p, x, c))
mapped = shard_map(
    lambda p, x, c: jax.vmap(lambda x, c: jax.grad(partial(hj.log_prob, flow, p))(x, c))(x, c),
    mesh=mesh, in_specs=(P(), P("rows"), P("rows")), out_specs=P("rows"),
)  # fmt: skip
compare(jax.jit(mapped)(p, x, c), flow.log_prob_and_score(np.asarray(x), np.asarray(c))[1])
frozen = hj.freeze(flow)
score = shard_map(jax.vmap(jax.grad(frozen.log_prob)), mesh=mesh, in_specs=(P("rows"), P("rows")), out_specs=P("rows"))
compare(jax.jit(score)(x, c), flow.log_prob_and_score(np.asarray(x), np.asarray(c))[1])


def drawn(p, c):
    key = jax.random.fold_in(jax.random.key(0), jax.lax.axis_index("rows"))
    return jax.lax.psum((hj.sample(flow, p, key, 3, c) ** 2).sum(), "rows")


def drawn_twice(p, c):
    keys = [jax.random.fold_in(jax.random.key(0), i) for i in range(2)]
    return sum((hj.sample(flow, p, k, 3, c[3 * i : 3 * i + 3]) ** 2).sum() for i, k in enumerate(keys))


each = shard_map(drawn, mesh=mesh, in_specs=(P(), P("rows")), out_specs=P())
compare(jax.jit(jax.value_and_grad(each, argnums=(0, 1)))(p, c), jax.value_and_grad(drawn_twice, argnums=(0, 1))(p, c))
halves = jax.pmap(loss, in_axes=(None, 0, 0))(p, x.reshape(2, 3, 3), c.reshape(2, 3, 2))
compare(halves.sum(), loss(p, x, c))

# For stacked flows, devices share the rows in one comparison, and the flows in another.
members = [hr.MAF(3, 2, 2, (8, 8), seed=i, dtype="float64") for i in range(2)]
for i, one in enumerate(members):
    one.parameters = 0.3 * np.random.default_rng(i).standard_normal(one.parameters.size)
stacked, points, given = hj.stack(members), jnp.stack([x, 0.5 * x]), jnp.stack([c, 2.0 * c])
step = jax.value_and_grad(lambda s, x, c: s.log_prob(x, c).sum(), (0, 1, 2))
want = [one.log_prob(np.asarray(a), np.asarray(b)) for one, a, b in zip(members, points, given, strict=True)]
compare(stacked.log_prob(points, given), np.stack(want))
of_flows, by_rows = (NamedSharding(mesh, spec) for spec in (P("rows"), P(None, "rows")))
for placed, parameters in ((by_rows, NamedSharding(mesh, P())), (of_flows, of_flows)):
    compiled = jax.jit(step, in_shardings=(parameters, placed, placed))
    compare(compiled(stacked, points, given), step(stacked, points, given))
specs = (P(), P(None, "rows"), P(None, "rows"))
parted = shard_map(lambda s, x, c: s.log_prob(x, c), mesh=mesh, in_specs=specs, out_specs=P(None, "rows"))
compare(jax.jit(parted)(stacked, points, given), np.stack(want))


# The map has parameters that devices share, and parameters of each row.
def mapped_by(shared, each, x):
    total = 0.0
    for params in (shared, each):
        value, log_det = hj.coupling(x, params)
        total += (value**2).sum() + log_det.sum()
    return total


shared, each = jnp.asarray(rng.normal(size=(3, 2))), jnp.asarray(rng.normal(size=(6, 3, 2)))
want = jax.grad(mapped_by, (0, 1, 2))(shared, each, x)
specs = (P(), P("rows"), P("rows"))
total = lambda *a: jax.lax.psum(mapped_by(*a), "rows")  # noqa: E731
for check in ({}, {"check_vma": False}) if CHECKED else ({},):
    over_devices = shard_map(total, mesh=mesh, in_specs=specs, out_specs=P(), **check)
    compare(jax.jit(jax.grad(over_devices, (0, 1, 2)))(shared, each, x), want)
if CHECKED:
    own = shard_map(jax.grad(mapped_by, (0, 1, 2)), mesh=mesh, in_specs=specs, out_specs=specs)
    compare(jax.jit(own)(shared, each, x), want)
print("equal", sys.argv[1:])
