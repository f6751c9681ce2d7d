"""Modules of headrace.jax as pytrees, in optimisers, samplers and modules of other libraries."""

import copy
import dataclasses
import gc
import pickle

import numpy as np
import pytest

import headrace as hr
from headrace import _cpu

jax = pytest.importorskip("jax", reason="jax is not installed")

from jax import numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import headrace.jax as hj  # noqa: E402
from jax_cases import DIFFERENCES, SAME, arrays, made, numpy  # noqa: E402

optional = pytest.importorskip

pytestmark = pytest.mark.usefixtures("wide")


def test_a_module_is_a_pytree_of_one_leaf():
    flow = made()
    module = hj.FlowModule(flow)
    p, x, c = arrays(flow)
    assert [leaf.shape for leaf in jax.tree.leaves(module)] == [p.shape]
    assert jax.tree.structure(module) == jax.tree.structure(hj.FlowModule(flow))
    gradient = jax.jit(jax.grad(lambda m: m.log_prob(x, c).sum()))(module)
    moved = jax.tree.map(lambda a, g: a + 0.1 * g, module, gradient)
    want = flow.log_prob_vjp(np.asarray(x), np.ones(5), np.asarray(c), wrt="parameters")[0]
    np.testing.assert_allclose(moved.params, p + 0.1 * want, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(moved.to_flow().log_prob(*numpy(x, c)), moved.log_prob(x, c), **SAME)
    ((path, _),) = jax.tree_util.tree_leaves_with_path(module)
    assert jax.tree_util.keystr(path) == ".params"
    with pytest.raises(AttributeError, match="with_params"):
        module.params = p
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        np.testing.assert_array_equal(other.log_prob(x, c), module.log_prob(x, c))


def test_a_module_is_a_dataclass_that_can_be_replaced():
    module, (p, x, c) = hj.FlowModule(made()), arrays(made())
    assert [field.name for field in dataclasses.fields(module)] == ["params", "structure"]
    halved = jax.jit(lambda m, p: dataclasses.replace(m, params=0.5 * p))(module, p)
    np.testing.assert_array_equal(halved.params, 0.5 * p)
    np.testing.assert_array_equal(halved.log_prob(x, c), hj.log_prob(module.structure, 0.5 * p, x, c))
    assert jax.tree.structure(halved) == jax.tree.structure(module)
    frozen = module.freeze()
    assert dataclasses.replace(frozen).structure is frozen.structure
    turned = dataclasses.replace(module, structure=hj.structure(made()))
    np.testing.assert_array_equal(turned.log_prob(x, c), module.log_prob(x, c))
    with pytest.raises(ValueError, match=r"params: expected shape \(\d+,\), got \(3,\)"):
        dataclasses.replace(module, params=p[:3])
    with pytest.raises(TypeError, match="params: expected an array"):
        dataclasses.replace(module, structure=made(), params=None)
    with pytest.raises(TypeError, match="flow: expected no flow beside params and structure"):
        hj.FlowModule(made(), params=p)


def test_a_module_is_independent_of_its_flow():
    flow = hr.MAF(2, transforms=2, hidden=(8,), dtype="float64")
    module, x = hj.FlowModule(flow), jnp.ones((3, 2))
    call = jax.jit(lambda x: module.log_prob(x))
    before = np.asarray(call(x))
    flow.parameters = 0.5 * flow.parameters
    np.testing.assert_array_equal(hj.FlowModule(flow).params, flow.parameters)
    assert hj.FlowModule(flow).structure is module.structure
    flow.fit(np.random.default_rng(0).normal(5.0, 2.0, (200, 2)), epochs=1, progress=False)
    gc.collect()
    np.testing.assert_array_equal(call(x), before)
    assert np.abs(np.asarray(hj.FlowModule(flow).log_prob(x)) - before).max() > 0.01


def test_a_frozen_module_has_no_leaf_and_equal_results():
    flow = made()
    p, x, c = arrays(flow)
    for frozen in (hj.freeze(flow), hj.FlowModule(flow).freeze(), pickle.loads(pickle.dumps(hj.freeze(flow)))):
        assert not jax.tree.leaves(frozen)
        np.testing.assert_array_equal(frozen.log_prob(x, c), hj.log_prob(flow, p, x, c))
        score = jax.jit(jax.vmap(jax.grad(frozen.log_prob)))(x, c)
        np.testing.assert_allclose(score, flow.log_prob_and_score(*numpy(x, c))[1], rtol=1e-10, atol=1e-12)
        check_grads(frozen.to_data, (x, c), **DIFFERENCES)
        np.testing.assert_array_equal(frozen.to_flow().parameters, flow.parameters)
        with pytest.raises(TypeError, match="params: expected None"):
            hj.log_prob(frozen.structure, p, x, c)
    assert repr(frozen).endswith(", frozen)")
    # `partition` of equinox returns a module in this form.
    without = jax.tree.map(lambda leaf: None, hj.FlowModule(flow))
    assert repr(without).endswith(", params None)")
    flow.parameters = np.zeros_like(flow.parameters)
    assert np.abs(np.asarray(frozen.log_prob(x, c)) - flow.log_prob(*numpy(x, c))).max() > 1e-3


def test_compiled_code_of_a_freed_flow_raises_an_error_with_the_reason():
    flow, x = made(context=0), jnp.ones((2, 3))
    structure = hj.structure(flow)
    call = jax.jit(lambda p, x: hj.log_prob(structure, p, x)).lower(jnp.asarray(flow.parameters), x).compile()
    p = jnp.asarray(flow.parameters)
    assert np.isfinite(call(p, x)).all()
    structure._closed()
    with pytest.raises(Exception, match="is gone"):
        call(p, x).block_until_ready()
    assert not _cpu.xla_close(True, structure.handle)


def test_unused_structures_are_closed():
    before = _cpu.xla_count()
    modules = [hj.freeze(made(context=0)) for _ in range(3)]
    assert _cpu.xla_count() >= before + 3
    del modules
    gc.collect()
    assert _cpu.xla_count() <= before


def test_optax_adam_is_ours():
    optax = optional("optax", reason="optax is not installed")
    flow = made(context=0)
    _, x, _ = arrays(flow, rows=64)
    module = hj.FlowModule(flow)
    optimiser = optax.adam(1e-2)
    state = optimiser.init(module)

    @jax.jit
    def step(module, state):
        loss, gradient = jax.value_and_grad(lambda m: -m.log_prob(x).mean())(module)
        change, state = optimiser.update(gradient, state)
        return optax.apply_updates(module, change), state, loss

    adam = hr.Adam(flow, 1e-2, clip=None, average=None, weight_decay=0.0)
    for _ in range(20):
        module, state, loss = step(module, state)
        nll, gradient = flow.nll_and_grad(np.asarray(x))
        np.testing.assert_allclose(loss, nll, rtol=1e-7)
        adam.step(gradient)
    np.testing.assert_allclose(module.params, flow.parameters, rtol=1e-6, atol=1e-7)


def test_nuts_samples_a_flow():
    numpyro = optional("numpyro", reason="numpyro is not installed")
    flow = hr.MAF(2, transforms=1, hidden=(4,), base=hr.Normal(2, [1.0, -2.0], [0.5, 2.0]), dtype="float64")
    prior = hj.freeze(flow)  # with the weights of a new flow, the flow is near its base
    exact = flow.sample(100_000, seed=0)

    def potential(z):
        return -prior.log_prob(z)

    kernel = numpyro.infer.NUTS(potential_fn=potential)
    mcmc = numpyro.infer.MCMC(kernel, num_warmup=300, num_samples=2000, progress_bar=False)
    mcmc.run(jax.random.key(0), init_params=jnp.zeros(2))
    draws = np.asarray(mcmc.get_samples())
    # The chain has some 700 independent draws at least; limits are five standard errors of the mean and of the
    # deviation.
    assert (np.abs(draws.mean(0) - exact.mean(0)) < 5 * exact.std(0) / np.sqrt(700)).all()
    np.testing.assert_allclose(draws.std(0), exact.std(0), rtol=5 / np.sqrt(2 * 700))


def test_equinox_trains_a_module_inside_of_its_own():
    eqx = optional("equinox", reason="equinox is not installed")
    flow = made()

    class Amortised(eqx.Module):
        embed: eqx.nn.Linear
        flow: hj.FlowModule

        def __call__(self, x, y):
            return self.flow.log_prob(x, self.embed(y))

    model = Amortised(eqx.nn.Linear(4, 2, key=jax.random.key(0)), hj.FlowModule(flow))
    _, x, _ = arrays(flow)
    y = jnp.ones((5, 4))
    loss = eqx.filter_jit(eqx.filter_value_and_grad(lambda m: -jax.vmap(m)(x, y).mean()))
    first, gradient = loss(model)
    assert np.abs(gradient.embed.weight).max() > 0
    assert np.abs(gradient.flow.params).max() > 0
    assert loss(eqx.apply_updates(model, jax.tree.map(lambda g: -1e-2 * g, gradient)))[0] < first
