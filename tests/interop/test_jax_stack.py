"""``headrace.jax.stack``: flows of one architecture, each with rows of its own, in one call."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose

import headrace as hr

jax = pytest.importorskip("jax", reason="jax is not installed")


@pytest.fixture
def events():
    """Fitted flows whose fixed parts differ, and rows and contexts of each."""
    rng = np.random.default_rng(0)
    tables = [(rng.standard_normal((400, 3)) * (i + 1) + i) @ rng.standard_normal((3, 3)) for i in range(4)]
    contexts = [5.0 * i + (i + 1) * rng.standard_normal((400, 2)) for i in range(4)]
    flows = [hr.NSF(3, context=2, transforms=2, hidden=(8,), seed=i) for i in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fits that are too short
        hr.fit_many(flows, list(zip(tables, contexts, strict=True)), epochs=1, progress=False)
    for flow in flows:
        flow.parameters = flow.parameters + 0.2 * rng.standard_normal(flow.parameters.size).astype("f4")
    x, c = (np.stack([t[:10] for t in of]).astype("f4") for of in (tables, contexts))
    return flows, x, c


def test_values_and_gradients_are_those_of_each_flow(events):
    flows, x, c = events
    kinds = {type(t).__name__ for flow in flows for t in flow.transforms}
    assert kinds > {"MaskedAutoregressive", "Standardize"}
    many = hr.jax.stack(flows)
    assert len(many) == 4
    loss = lambda s, x, c: (s.log_prob(x, c) * jax.numpy.arange(1.0, 5.0)[:, None]).sum()  # noqa: E731
    value, by = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(many, x, c)
    each = jax.jit(lambda s, x, c: s.log_prob(x, c))(many, x, c)
    total = 0.0
    for i, flow in enumerate(flows):
        wrt = ("parameters", "inputs", "context")
        want, gradients = flow.log_prob_vjp(x[i], np.full(10, i + 1.0, "f4"), c[i], wrt=wrt, values=True)
        assert_allclose(each[i], want, rtol=2e-4, atol=2e-4)
        for got, expected in zip((by[0].params, *by[1:]), gradients, strict=True):
            assert_allclose(got[i], expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
        total += (i + 1) * want.sum()
    assert_allclose(value, total, rtol=1e-4)


def test_under_vmap_and_scan(events):
    flows, x, c = events
    many = hr.jax.stack(flows)
    want = many.log_prob(x, c)
    by_rows = jax.vmap(lambda x, c: many.log_prob(x[:, None], c[:, None])[:, 0], in_axes=1, out_axes=1)(x, c)
    assert_allclose(by_rows, want, rtol=1e-5, atol=1e-5)
    rows = tuple(np.swapaxes(of, 0, 1)[:, :, None] for of in (x, c))
    _, scanned = jax.lax.scan(lambda carry, xs: (carry, many.log_prob(*xs)[:, 0]), 0, rows)
    assert_allclose(scanned.T, want, rtol=1e-5, atol=1e-5)
    assert_allclose(many.log_prob(x.reshape(4, 2, 5, 3), c.reshape(4, 2, 5, 2)).reshape(4, 10), want, rtol=1e-5)
    moved = many.with_params(0.9 * many.params)
    assert jax.tree.structure(moved) == jax.tree.structure(many)
    assert np.abs(moved.log_prob(x, c) - want).max() > 1e-3


def test_refusals(events):
    flows, x, c = events
    with pytest.raises(TypeError, match="flows: expected a sequence of flows, got"):
        hr.jax.stack(flows[0])
    with pytest.raises(TypeError, match="a sequence of flows"):
        hr.jax.stack([flows[0], 3])
    with pytest.raises(ValueError, match=r"flows: .* at index 1, <"):
        hr.jax.stack([flows[0], hr.NSF(3, context=2, transforms=2, hidden=(9,))])
    many = hr.jax.stack(flows)
    with pytest.raises(ValueError, match=r"x: expected shape \(4, \.\.\., 3\), got \(3, 10, 3\)"):
        many.log_prob(x[:3], c)
    with pytest.raises(ValueError, match=r"context: expected shape \(4, \.\.\., 2\)"):
        many.log_prob(x)
    with pytest.raises(ValueError, match=r"params: expected shape \(4, "):
        many.with_params(many.params[:2])
    with pytest.raises(ValueError, match="context: expected shape None"):
        hr.jax.stack([hr.MAF(2)]).log_prob(x[:1, :, :2], c[:1])
