"""Flows in models of PyMC: densities, gradients, draws, and samples by NUTS."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import headrace as hr
from convert_cases import library

pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("ignore")]

pm = library("pymc")

import pytensor  # noqa: E402
import pytensor.tensor as pt  # noqa: E402

from headrace.integrations.pymc import FlowDistribution, log_prob  # noqa: E402


def made(context=0, seed=0, **settings):
    flow = hr.MAF(3, context=context, transforms=2, hidden=(8,), seed=seed, dtype="float64", **settings)
    flow.parameters = flow.parameters + 0.3 * np.random.default_rng(seed).standard_normal(flow.parameters.size)
    return flow


def rows(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


FAST = "FAST_COMPILE"  # a mode for graphs that are too small to be worth a compiler


@pytest.mark.parametrize("shapes", [((3,), None), ((4, 3), None), ((3,), (2,)), ((5, 4, 3), (4, 2)), ((3,), (4, 2))])
def test_densities_and_gradients_are_those_of_the_flow(shapes):
    flow = made(0 if shapes[1] is None else 2)
    x, c = rows(*shapes[0]), None if shapes[1] is None else rows(*shapes[1], seed=2)
    inputs = [pt.tensor("x", dtype="float64", shape=(None,) * (x.ndim - 1) + (3,))]
    if c is not None:
        inputs.append(pt.tensor("c", dtype="float64", shape=(None,) * c.ndim))
    given = [x] if c is None else [x, c]
    out = log_prob(flow, *inputs)
    weight = rows(*np.shape(flow.log_prob(*given)), seed=3)
    gradients = pt.grad((out * weight).sum(), inputs)
    compiled = pytensor.function(inputs, [out, out.shape, *gradients], mode=FAST)
    values, shape, *found = compiled(*given)
    assert_allclose(values, flow.log_prob(*given), rtol=1e-12)
    assert tuple(np.atleast_1d(shape)) == values.shape
    for k, one in enumerate(given):  # the gradient is compared with finite differences
        step = rows(*one.shape, seed=4) * 1e-6
        ahead, behind = ([a + s * step if i == k else a for i, a in enumerate(given)] for s in (1, -1))
        difference = ((flow.log_prob(*ahead) - flow.log_prob(*behind)) * weight).sum() / 2
        assert_allclose((found[k] * step).sum(), difference, rtol=1e-6, atol=1e-13)


def test_a_model_keeps_the_parameters_of_its_construction():
    flow = made()
    x = rows(3)
    want = flow.log_prob(x)
    out = log_prob(flow, x)
    flow.parameters = 0 * flow.parameters
    assert_allclose(out.eval(mode=FAST), want)


def test_second_derivatives_are_refused():
    x = pt.vector("x", dtype="float64", shape=(3,))
    first = pt.grad(log_prob(made(), x), x)
    with pytest.raises(Exception, match="second derivatives of a flow"):
        pytensor.function([x], pt.grad(first.sum(), x), mode=FAST)


@pytest.mark.parametrize("context", [False, True])
def test_a_variable_of_a_model(context):
    flow = made(2 if context else 0, bounds=[(0.0, None), None, (0.0, 1.0)])
    given = rows(2, seed=5) if context else None
    with pm.Model() as model:
        FlowDistribution("x", flow, given)
        start = model.initial_point()["x"]
        assert np.isfinite(flow.log_prob(start, given))
        assert_allclose(model.compile_logp(mode=FAST)({"x": start}), flow.log_prob(start, given), rtol=1e-10)
        drawn = pm.draw(model["x"], 2000, random_seed=1)
    assert drawn.shape == (2000, 3)
    own = flow.sample(2000, given, seed=2)
    spread = own.std(axis=0)
    assert (np.abs(np.median(drawn, axis=0) - np.median(own, axis=0)) < 0.15 * spread).all()
    assert (drawn[:, 0] > 0).all()


def test_a_batch_of_contexts_is_a_batch_of_variables():
    flow = made(2)
    given = 2.0 * rows(4, 2, seed=6)
    with pm.Model() as model:
        FlowDistribution("x", flow, given)
        FlowDistribution("many", flow, given, shape=(5, 4, 3))
        start = model.initial_point()
        drawn, many = pm.draw([model["x"], model["many"]], 800, random_seed=1)
    assert start["x"].shape == (4, 3)
    assert start["many"].shape == (5, 4, 3)
    x = {"x": rows(4, 3, seed=7), "many": rows(5, 4, 3, seed=8)}
    want = flow.log_prob(x["x"], given).sum() + flow.log_prob(x["many"], given).sum()
    assert_allclose(model.compile_logp(mode=FAST)(x), want, rtol=1e-10)
    assert drawn.shape == (800, 4, 3)
    assert many.shape == (800, 5, 4, 3)
    own = np.stack([flow.sample(4000, row, seed=i) for i, row in enumerate(given)], axis=1)
    spread = own.std(axis=0)
    # The densities depend on the contexts.
    assert (np.abs(own.mean(axis=0)[:, None] - own.mean(axis=0)[None]) / spread).max() > 0.5
    for draws, n in ((drawn, 800), (many.reshape(-1, 4, 3), 4000)):
        assert (np.abs(draws.mean(axis=0) - own.mean(axis=0)) < 5 * spread * np.sqrt(1 / n + 1 / 4000)).all()
        assert_allclose(draws.std(axis=0), spread, rtol=0.25)
    assert not np.array_equal(drawn[:, 0], drawn[:, 1])


@pytest.mark.long
def test_nuts_samples_a_prior_and_a_likelihood_that_were_learned():
    rng = np.random.default_rng(0)
    theta = rng.normal(1.0, 0.5, (4000, 2))
    prior = hr.MAF(2, transforms=2, hidden=(16,), dtype="float64")
    prior.fit(theta, epochs=20, progress=False)
    likelihood = hr.MAF(2, context=2, transforms=1, hidden=(16,), dtype="float64")
    likelihood.fit(theta + 0.4 * rng.standard_normal((4000, 2)), theta, epochs=20, progress=False)
    data = np.array([[1.2, 0.8], [0.9, 1.1], [1.4, 0.5]])
    with pm.Model():
        x = FlowDistribution("x", prior)
        pm.Potential("likelihood", log_prob(likelihood, data, x).sum())
        trace = pm.sample(300, tune=300, chains=2, cores=1, random_seed=1, progressbar=False)
    found = trace.posterior["x"].values.reshape(-1, 2)
    precision = 1 / 0.5**2 + 3 / 0.4**2
    assert_allclose(found.mean(axis=0), (1.0 / 0.5**2 + data.sum(axis=0) / 0.4**2) / precision, atol=0.08)
    assert_allclose(found.std(axis=0), precision**-0.5, rtol=0.2)


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"^flow: expected a headrace\.Flow, got int"):
        log_prob(3, np.zeros(2))
    with pytest.raises(ValueError, match=r"^context: expected 2 context columns, got None"):
        log_prob(made(2), np.zeros(3))
    with pytest.raises(ValueError, match=r"^context: expected no context, as the flow takes none, got"):
        log_prob(made(), np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match=r"^value: expected shape \(\.\.\., 3\), got \(2,\)"):
        log_prob(made(), np.zeros(2))
