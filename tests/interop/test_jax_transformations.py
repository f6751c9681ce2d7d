"""headrace.jax under JAX's transformations: vmap, scan and checkpoint."""

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

from jax import numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import headrace.jax as hj  # noqa: E402
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
