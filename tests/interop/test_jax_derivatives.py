"""headrace.jax: gradients against differences and against the flow's gradients, in reverse mode alone."""

from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

from jax import numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import headrace.jax as hj  # noqa: E402
from headrace.jax import _calls as _xla  # noqa: E402
from jax_cases import DIFFERENCES, arrays, made, numpy  # noqa: E402

pytestmark = pytest.mark.usefixtures("wide")


def test_gradients_agree_with_differences(flow):
    p, x, c = arrays(flow, rows=4)
    given = (p, x) if c is None else (p, x, c)
    check_grads(lambda *a: hj.log_prob(flow, *a), given, **DIFFERENCES)
    check_grads(lambda *a: hj.to_latent(flow, *a), given, **DIFFERENCES)
    check_grads(lambda *a: hj.to_data(flow, *a), given, **DIFFERENCES)
    key = jax.random.key(0)
    check_grads(lambda p: hj.sample(flow, p, key, 4, c), (p,), **DIFFERENCES)
    check_grads(lambda p: hj.sample_and_log_prob(flow, p, key, 4, c), (p,), **DIFFERENCES)


@pytest.mark.parametrize("chosen", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("one_context", [False, True])
def test_each_choice_of_arguments_has_its_gradients(chosen, one_context):
    flow = made()
    p, x, c = arrays(flow)
    c = c[0] if one_context else c
    weights = jnp.arange(1.0, 6.0)

    def loss(*a):
        z, log_det = hj.to_latent(flow, *a)
        return (weights * hj.log_prob(flow, *a)).sum() + (z**2).sum() + log_det.sum()

    everything = jax.grad(loss, argnums=(0, 1, 2))(p, x, c)
    for i, got in zip(chosen, jax.jit(jax.grad(loss, argnums=chosen))(p, x, c), strict=True):
        np.testing.assert_allclose(got, everything[i], rtol=1e-10, atol=1e-10)
    by = flow.log_prob_vjp(np.asarray(x), np.asarray(weights), np.asarray(c), wrt=("parameters", "inputs", "context"))
    got = jax.grad(lambda *a: (weights * hj.log_prob(flow, *a)).sum(), argnums=(0, 1, 2))(p, x, c)
    for g, w in zip(got, by, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("most_kept", [0, 10**9])
def test_log_densities_and_gradients_come_from_one_run_where_memory_allows(monkeypatch, most_kept):
    monkeypatch.setattr(_xla, "_MOST_KEPT", most_kept)
    flow = made()
    p, x, c = arrays(flow)
    every = jax.jit(jax.grad(lambda w, *a: (w * hj.log_prob(flow, *a)).sum(), argnums=(1, 2, 3)))
    uneven, even = jnp.arange(1.0, 6.0), jnp.full(5, 0.3)
    kept = jax.eval_shape(lambda p: jax.vjp(lambda p: hj.log_prob(flow, p, x, c), p), p)[1]
    assert (sum(leaf.size for leaf in jax.tree.leaves(kept)) >= 2 * p.size) == (most_kept > 0)

    first = every(even, p, x, c)
    for weights, got in ((even, first), (uneven, every(uneven, p, x, c)), (even, every(even, p, x, c))):
        want = flow.log_prob_vjp(*numpy(x, weights, c), wrt=("parameters", "inputs", "context"))
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10)
    # Another loss, with different factors of rows, does not change any bit of the first loss's gradients.
    for g, w in zip(every(even, p, x, c), first, strict=True):
        np.testing.assert_array_equal(g, w)
    other = made()  # a flow without a recorded loss
    for given in ((x, c), (x, c[:1]), (jnp.tile(x, (20, 1)), c[:1])):
        rows, contexts = given
        same = jnp.full(len(rows), 0.3)
        known, new = (
            jax.value_and_grad(lambda p, f=f, r=rows, c=contexts, w=same: (w * hj.log_prob(f, p, r, c)).sum())(p)
            for f in (flow, other)
        )
        for g, w in zip(known, new, strict=True):
            np.testing.assert_array_equal(g, w)
    for value in (0.0, np.nan, np.inf):
        weights = even.at[2].set(value)
        want = flow.log_prob_vjp(*numpy(x, weights, c), wrt=("parameters",))
        got = jax.grad(lambda p, w=weights: (w * hj.log_prob(flow, p, x, c)).sum())(p)
        np.testing.assert_allclose(got, want[0] if isinstance(want, tuple) else want, rtol=1e-10, atol=1e-10)
    none = jax.grad(lambda p: hj.log_prob(flow, p, x[:0], c[:0]).sum())(p)
    np.testing.assert_array_equal(none, np.zeros_like(p))
    each = jax.vmap(lambda w, x, c: jax.grad(lambda p: (w * hj.log_prob(flow, p, x, c)).sum())(p))
    stacks = jnp.stack([uneven, even]), jnp.stack([x, 2 * x]), jnp.stack([c, c])
    for g, *one in zip(each(*stacks), *stacks, strict=True):
        weights, rows, contexts = one
        np.testing.assert_allclose(g, every(weights, p, rows, contexts)[0], rtol=1e-10, atol=1e-10)


def test_one_compiled_function_is_differentiated_in_several_ways():
    flow = made()
    p, x, c = arrays(flow)
    call = jax.jit(lambda p, x: hj.to_data(flow, p, x, c))
    for i in (0, 1, 0):
        check_grads(lambda x, i=i: call(p, x)[i], (x,), **DIFFERENCES)
        check_grads(lambda p, i=i: call(p, x)[i], (p,), **DIFFERENCES)
    back = [jax.vjp(lambda x, i=i: call(p, x)[i], x)[1] for i in (0, 1)]
    by_both = jax.vjp(lambda p, x: call(p, x), p, x)[1]
    values = [b(jnp.ones(s))[0] for b, s in zip(back, ((5, 3), (5,)), strict=True)]
    np.testing.assert_allclose(sum(values), by_both((jnp.ones((5, 3)), jnp.ones(5)))[1], rtol=1e-10, atol=1e-12)


def test_second_derivatives_and_forward_mode_are_refused_with_the_reason():
    flow = made()
    p, x, c = arrays(flow)

    def f(x):
        return hj.log_prob(flow, p, x, c).sum()

    def g(x):
        return hj.to_data(flow, p, x, c)[0].sum()

    for function in (f, g):
        with pytest.raises(NotImplementedError, match="only first derivatives"):
            jax.grad(lambda x, function=function: jax.grad(function)(x).sum())(x)
        with pytest.raises(NotImplementedError, match="only first derivatives"):
            jax.hessian(function)(x)
        push = partial(jax.jvp, function)
        for forward in (jax.jacfwd(function), jax.jit(jax.jacfwd(function)), lambda x, push=push: push((x,), (x,))):
            with pytest.raises(NotImplementedError, match=r"reverse mode alone; call .*jax\.jacrev"):
                forward(x)
        for forward in (
            lambda x, f=function: jax.jvp(jax.jit(f), (x,), (x,)),
            lambda x, f=function: jax.jvp(
                lambda x: jax.lax.scan(lambda s, _: (s + f(x), None), 0.0, None, 2)[0], (x,), (x,)
            ),
        ):
            with pytest.raises(NotImplementedError, match=r"reverse mode alone; call .*jax\.jacrev"):
                forward(x)
        eps = 1e-4
        ahead = (function(x + eps * x) - function(x - eps * x)) / (2 * eps)
        # Reverse mode, which the message recommends, agrees with differences.
        np.testing.assert_allclose(jnp.vdot(jax.grad(function)(x), x), ahead, rtol=1e-6)
