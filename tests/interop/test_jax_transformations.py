"""Functions of headrace.jax under JAX's transformations: vmap, scan and checkpoint."""

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

from jax import numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import headrace.jax as hj  # noqa: E402
from headrace.jax import _calls as _xla  # noqa: E402
from jax_cases import DIFFERENCES, SAME, arrays, made, numpy  # noqa: E402

pytestmark = pytest.mark.usefixtures("wide")


def test_vmap_over_rows_and_contexts_is_a_loop(flow):
    p, x, c = arrays(flow, rows=6)
    x, c = x.reshape(2, 3, 3), None if c is None else c.reshape(2, 3, 2)

    def each(x, c):
        z, log_det = hj.to_latent(flow, p, x, c)
        return hj.log_prob(flow, p, x, c), z, log_det, jax.grad(lambda x: hj.log_prob(flow, p, x, c).sum())(x)

    for ways in ((0, 0), (0, None), (None, 0), (1, 1)):
        if c is None and ways != (0, 0):
            continue

        def chosen(array, way, i):
            return array if way is None or array is None else jnp.take(array, i, axis=way)

        n = 3 if ways == (1, 1) else 2
        given = (x if ways[0] is not None else x[0], c if c is None or ways[1] is not None else c[0])
        got = jax.jit(jax.vmap(each, in_axes=(ways[0], None if c is None else ways[1])))(*given)
        want = [each(chosen(given[0], ways[0], i), chosen(given[1], ways[1], i)) for i in range(n)]
        for g, w in zip(got, zip(*want, strict=True), strict=True):
            np.testing.assert_allclose(g, np.stack(w), rtol=1e-10, atol=1e-10)


def test_vmap_over_one_row_each_and_one_context_for_all():
    flow = made()
    p, x, c = arrays(flow, rows=6)
    got = jax.vmap(lambda x: hj.log_prob(flow, p, x, c[0]))(x)
    np.testing.assert_allclose(got, hj.log_prob(flow, p, x, c[0]), **SAME)
    score = jax.vmap(jax.value_and_grad(lambda x, c: hj.log_prob(flow, p, x, c)))(x, c)
    want = flow.log_prob_and_score(*numpy(x, c))
    for g, w in zip(score, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10)
    twice = jax.vmap(jax.vmap(lambda x, c: hj.log_prob(flow, p, x, c), (0, None)), (None, 0))(x, c)
    np.testing.assert_allclose(twice, flow.log_prob(np.asarray(x), np.asarray(c)[:, None]), **SAME)


def test_vmap_over_parameters_and_of_their_gradients():
    flow = made()
    p, x, c = arrays(flow, rows=4)
    stack = jnp.stack([p, 0.5 * p, 0.1 * p])
    got = jax.jit(jax.vmap(lambda p: hj.log_prob(flow, p, x, c)))(stack)
    np.testing.assert_allclose(got, [hj.log_prob(flow, q, x, c) for q in stack], **SAME)

    def gradient(p, x, c):
        return jax.grad(lambda p: hj.log_prob(flow, p, x, c).sum())(p)

    got = jax.vmap(gradient, (0, None, None))(stack, x, c)
    np.testing.assert_allclose(got, [gradient(q, x, c) for q in stack], rtol=1e-10, atol=1e-10)
    each = jax.vmap(gradient, (None, 0, 0))(p, x, c)
    np.testing.assert_allclose(each, [gradient(p, *rows) for rows in zip(x, c, strict=True)], rtol=1e-10, atol=1e-10)
    inside = jax.grad(lambda p: jax.vmap(lambda x, c: hj.log_prob(flow, p, x, c))(x, c).sum())(p)
    np.testing.assert_allclose(inside, gradient(p, x, c), rtol=1e-10, atol=1e-10)


def test_scan_and_checkpoint():
    flow = made()
    p, x, c = arrays(flow)

    def moved(x, step):
        x = x + step * jax.grad(lambda x: hj.log_prob(flow, p, x, c).sum())(x)
        return x, hj.log_prob(flow, p, x, c)

    final, values = jax.jit(lambda x: jax.lax.scan(moved, x, jnp.full(4, 0.1)))(x)
    loop = x
    for i in range(4):
        loop, value = moved(loop, 0.1)
        np.testing.assert_allclose(values[i], value, rtol=1e-10)
    np.testing.assert_allclose(final, loop, rtol=1e-10)

    def chained(p, x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(hj.to_data(flow, p, x, c)[0]), None), x, None, length=3)[0].sum()

    for argument in (0, 1):
        plain = jax.grad(chained, argument)(p, x)
        saved = jax.jit(jax.grad(jax.checkpoint(chained), argument))(p, x)
        np.testing.assert_allclose(saved, plain, rtol=1e-10, atol=1e-12)
    check_grads(chained, (p, x), **DIFFERENCES)


@pytest.mark.parametrize("most_kept", [0, 10**9])
@pytest.mark.parametrize("given", ["rows", "rows and contexts", "contexts", "rows of one context"])
def test_gradients_of_mapped_rows_are_one_run(monkeypatch, given, most_kept):
    monkeypatch.setattr(_xla, "_MOST_KEPT", most_kept)
    flow = made()
    p, x, c = arrays(flow, rows=6)
    weights = jnp.arange(1.0, 7.0)
    axes = {"rows": (0, None), "rows and contexts": (0, 0), "contexts": (None, 0), "rows of one context": (0, None)}[
        given
    ]
    x, c = (x if axes[0] == 0 else x[0]), (c if axes[1] == 0 else c[0])
    if given == "rows of one context":
        x = jnp.stack([x, 2 * x, -x], 1)  # the shape is (6, 3 rows, features)

    def loss(p, x, c):
        def one(x, c):
            z, log_det = hj.to_latent(flow, p, x, c)
            return hj.log_prob(flow, p, x, c).sum() + (z**2).sum() + log_det.sum()

        return (weights * jax.vmap(one, axes)(x, c)).sum()

    def plain(p, x, c):
        rows = (
            jnp.broadcast_to(x, (6, *x.shape[-2:])) if given == "rows of one context" else jnp.broadcast_to(x, (6, 3))
        )
        contexts = jnp.broadcast_to(c, (6, 2))
        contexts = contexts[:, None] if given == "rows of one context" else contexts
        z, log_det = hj.to_latent(flow, p, rows, contexts)
        each = hj.log_prob(flow, p, rows, contexts) + (z**2).sum(-1) + log_det
        return (weights * each.reshape(6, -1).sum(1)).sum()

    every = jax.grad(loss, (0, 1, 2))
    for got, want in zip(jax.jit(every)(p, x, c), jax.grad(plain, (0, 1, 2))(p, x, c), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    assert "scan" not in str(jax.make_jaxpr(every)(p, x, c))  # JAX makes no loop over the mapped axis
    for argument in range(3):
        alone = jax.grad(loss, argument)
        np.testing.assert_allclose(alone(p, x, c), every(p, x, c)[argument], rtol=1e-9, atol=1e-9)
        assert "scan" not in str(jax.make_jaxpr(alone)(p, x, c))


def test_gradients_of_mapped_keys_are_one_run():
    flow = made()
    p, _, c = arrays(flow, rows=1)
    keys = jax.random.split(jax.random.key(0), 5)

    def one(p, c, key):
        x, log_q = hj.sample_and_log_prob(flow, p, key, (2,), c[0])
        return (log_q + (x**2).sum(-1)).mean() + hj.sample(flow, p, key, 3, c[0]).sum()

    def mapped(p, c):
        return jax.vmap(one, (None, None, 0))(p, c, keys).mean()

    got = jax.jit(jax.grad(mapped, (0, 1)))(p, c)
    want = jax.grad(lambda p, c: sum(one(p, c, key) for key in keys) / 5, (0, 1))(p, c)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-9)
    assert "scan" not in str(jax.make_jaxpr(jax.grad(mapped, (0, 1)))(p, c))


def test_gradients_through_mapped_parameters_of_several_axes():
    flow = made()
    p, x, c = arrays(flow, rows=3)
    stack = jnp.stack([p, 0.5 * p, 0.1 * p, 0.7 * p]).reshape(2, 2, -1)

    def loss(stack, x):
        every = jax.vmap(jax.vmap(lambda p, x: hj.log_prob(flow, p, x, c).sum(), (0, None)), (0, None))(stack, x)
        return (every * jnp.arange(4.0).reshape(2, 2)).sum()

    def plain(stack, x):
        return sum(i * hj.log_prob(flow, q, x, c).sum() for i, q in enumerate(stack.reshape(4, -1)))

    for got, want in zip(jax.grad(loss, (0, 1))(stack, x), jax.grad(plain, (0, 1))(stack, x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
