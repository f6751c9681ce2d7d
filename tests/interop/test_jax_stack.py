"""The function ``headrace.jax.stack``: several flows, each with different rows, in one call."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import headrace as hr

jax = pytest.importorskip("jax", reason="jax is not installed")


@pytest.fixture
def events():
    """Fitted flows that differ in their fixed transforms, with rows and contexts for each flow."""
    rng = np.random.default_rng(0)
    tables = [(rng.standard_normal((400, 3)) * (i + 1) + i) @ rng.standard_normal((3, 3)) for i in range(4)]
    contexts = [5.0 * i + (i + 1) * rng.standard_normal((400, 2)) for i in range(4)]
    flows = [hr.NSF(3, context=2, transforms=2, hidden=(8,), seed=i) for i in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of fits that are too short
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
        for got, expected in zip((*by[0].params, *by[1:]), gradients, strict=True):
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
    moved = many.with_params([0.9 * one for one in many.params])
    assert jax.tree.structure(moved) == jax.tree.structure(many)
    assert np.abs(moved.log_prob(x, c) - want).max() > 1e-3


MIXED = ("bounded", "Gaussianize", "none", "mixture", "Gaussianize", "none")


@pytest.fixture(scope="module")
def mixed():
    """Flows with and without curves, with bounds, and with a fixed mixture as base; rows and contexts for each flow."""
    rng = np.random.default_rng(1)
    tables = [np.exp(0.4 * rng.standard_normal((600, 2)) @ rng.standard_normal((2, 2)) + i) for i in range(6)]
    contexts = [3.0 * i + (i + 1) * rng.standard_normal((600, 1)) for i in range(6)]
    flows = []
    for i, kind in enumerate(MIXED):
        flow = hr.NSF(2, context=1, transforms=1, hidden=(8,), seed=i, bounds=[(0, None), None] if i == 0 else None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of fits that are too short
            curves = {"gaussianize": kind == "Gaussianize", "validation": 0.2}
            flow.fit(tables[i], contexts[i], epochs=1, progress=False, **curves)
        if kind == "mixture":
            base = hr.NormalMixture(2, 3, weights=[1.0, 2.0, 0.5], trainable=False)
            flow = hr.Flow(flow.transforms, base, standardize_context=flow.standardize_context)
        flow.parameters = flow.parameters + 0.2 * rng.standard_normal(flow.parameters.size).astype("f4")
        flows.append(flow)
    x, c = (np.stack([t[:10] for t in of]).astype("f4") for of in (tables, contexts))
    return flows, x, c


@pytest.mark.costly
def test_flows_of_different_structure_are_groups_of_one_stack(mixed):
    flows, x, c = mixed
    has_curves = [any(isinstance(t, hr.transforms.Gaussianize) for t in flow.transforms) for flow in flows]
    assert has_curves == [kind == "Gaussianize" for kind in MIXED]
    many = hr.jax.stack(flows)
    assert [own.tolist() for own in many.indices] == [[0], [1, 4], [2, 5], [3]]
    assert [len(one) for one in jax.tree.leaves(many)] == [len(one) for one in many.params] == [1, 2, 2, 1]
    factors = np.arange(1.0, 7.0, dtype="f4")
    compiled = []

    def loss(s, x, c):
        compiled.append(len(s))
        return (s.log_prob(x, c) * factors[:, None]).sum()

    step = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    value, by = step(many, x, c)
    step(many.with_params(jax.tree.map(lambda p: 0.9 * p, many.params)), x, c)
    assert compiled == [6]
    each, total = jax.jit(lambda s, x, c: s.log_prob(x, c))(many, x, c), 0.0
    places = {int(flow): (group, i) for group, own in enumerate(many.indices) for i, flow in enumerate(own)}
    for i, flow in enumerate(flows):
        wrt = ("parameters", "inputs", "context")
        want, gradients = flow.log_prob_vjp(x[i], np.full(10, factors[i]), c[i], wrt=wrt, values=True)
        assert_allclose(each[i], want, rtol=1e-3, atol=1e-3)
        group, at = places[i]
        for got, expected in zip((by[0].params[group][at], by[1][i], by[2][i]), gradients, strict=True):
            assert_allclose(got, expected, rtol=5e-3, atol=5e-3 * np.abs(expected).max())
        total += factors[i] * want.sum()
    assert_allclose(value, total, rtol=1e-4)


@pytest.mark.costly
def test_groups_under_vmap_and_scan(mixed):
    flows, x, c = mixed
    many = hr.jax.stack(flows)
    density = jax.jit(many.log_prob)
    score, want = jax.jit(jax.grad(lambda x, c: density(x, c).sum())), density(x, c)
    by_rows = jax.jit(jax.vmap(lambda x, c: score(x[:, None], c[:, None])[:, 0], in_axes=1, out_axes=1))(x, c)
    assert_allclose(by_rows, score(x, c), rtol=1e-4, atol=1e-4)
    rows = tuple(np.swapaxes(of, 0, 1)[:, :, None] for of in (x, c))
    _, scanned = jax.lax.scan(lambda carry, xs: (carry, density(*xs)[:, 0]), 0, rows)
    assert_allclose(scanned.T, want, rtol=1e-5, atol=1e-5)
    wide = density(x.reshape(6, 2, 5, 2), c[:, :5])  # the dimensions in the middle are broadcast
    assert_allclose(wide[:, 0], want[:, :5], rtol=1e-5, atol=1e-5)


def test_rows_on_a_bound_or_beyond_have_no_density(mixed):
    flows, x, c = mixed
    x = x.copy()
    x[:, :4] = [[0.0, 1.0], [-1.0, 1.0], [np.nan, 1.0], [-1.0, np.nan]]
    got = jax.jit(hr.jax.stack(flows).log_prob)(x, c)
    assert_array_equal(got[0, :4], [-np.inf, -np.inf, np.nan, np.nan])
    assert_array_equal(got[0, :4], flows[0].log_prob(x[0, :4], c[0, :4]))
    assert np.isfinite(got[1:, :2]).all()
    assert np.isfinite(got[:, 4:]).all()


def test_a_default_fit_of_many_chains_is_stacked():
    rng = np.random.default_rng(2)
    chains = [rng.gamma(2.0 + i, size=(1500, 2)) if i % 2 else rng.standard_normal((1500, 2)) for i in range(4)]
    flows = [hr.NSF(2, transforms=1, hidden=(8,), seed=i) for i in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hr.fit_many(flows, chains, epochs=20, progress=False)
    many, x = hr.jax.stack(flows), np.stack([chain[:20] for chain in chains]).astype("f4")
    assert_allclose(
        jax.jit(many.log_prob)(x), [f.log_prob(a) for f, a in zip(flows, x, strict=True)], rtol=2e-3, atol=2e-3
    )


def test_refusals(events):
    flows, x, c = events
    with pytest.raises(TypeError, match="flows: expected a sequence of flows, got"):
        hr.jax.stack(flows[0])
    with pytest.raises(TypeError, match="a sequence of flows"):
        hr.jax.stack([flows[0], 3])
    for other, expected in (
        (hr.NSF(2, context=2), r"flows\[1\]: expected features 3, as flows\[0\] has, got 2"),
        (hr.NSF(3), r"flows\[1\]: expected context 2, as flows\[0\] has, got 0"),
        (flows[1].astype("float64"), r"flows\[1\]: expected dtype float32, as flows\[0\] has, got float64"),
    ):
        with pytest.raises(ValueError, match=expected):
            hr.jax.stack([flows[0], other])
    many = hr.jax.stack(flows)
    with pytest.raises(ValueError, match=r"x: expected shape \(4, \.\.\., 3\), got \(3, 10, 3\)"):
        many.log_prob(x[:3], c)
    with pytest.raises(ValueError, match=r"context: expected shape \(4, \.\.\., 2\)"):
        many.log_prob(x)
    with pytest.raises(ValueError, match=r"params: expected shape a tuple of arrays \[\(4, "):
        many.with_params([one[:2] for one in many.params])
    with pytest.raises(ValueError, match="context: expected shape None"):
        hr.jax.stack([hr.MAF(2)]).log_prob(x[:1, :, :2], c[:1])
