"""Flows as numpyro's distributions: densities, draws, maps, and models that NUTS samples."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import headrace as hr
from convert_cases import library

pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("ignore")]

jax = library("jax")
numpyro = library("numpyro")

import jax.numpy as jnp  # noqa: E402
from numpyro import distributions as dist  # noqa: E402

import headrace.jax as hj  # noqa: E402
from headrace.integrations.numpyro import FlowDistribution, FlowTransform  # noqa: E402

KEY = jax.random.key(0)


def made(context=2, seed=0, **settings):
    flow = hr.MAF(3, context=context, transforms=2, hidden=(8,), seed=seed, **settings)
    flow.parameters = flow.parameters + 0.3 * np.random.default_rng(seed).standard_normal(flow.parameters.size).astype(
        flow.dtype
    )
    return flow


def rows(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


@pytest.mark.parametrize("frozen", [False, True])
def test_densities_are_those_of_the_flow(frozen):
    flow = made()
    context, x = rows(5, 2), rows(4, 5, 3)
    density = FlowDistribution(hj.freeze(flow) if frozen else flow, context)
    assert (density.batch_shape, density.event_shape, density.event_dim) == ((5,), (3,), 1)
    want = flow.log_prob(x, context)
    assert_allclose(density.log_prob(x), want, rtol=1e-5, atol=1e-5)
    assert_allclose(jax.jit(lambda x: density.log_prob(x))(x), want, rtol=1e-5, atol=1e-5)
    assert_allclose(density.log_prob(x[0, 0]), flow.log_prob(x[0, 0], context), rtol=1e-5, atol=1e-5)
    plain = FlowDistribution(made(0))
    assert plain.batch_shape == ()
    assert_allclose(plain.log_prob(x), made(0).log_prob(x), rtol=1e-5, atol=1e-5)
    assert plain.log_prob(jnp.zeros(3, int)).shape == ()


def test_draws_have_the_flows_distribution():
    flow = made()
    density = FlowDistribution(hj.freeze(flow), rows(2, 2))
    x = np.asarray(density.sample(KEY, (20_000,)))
    assert x.shape == (20_000, 2, 3)
    assert (density.sample(KEY).shape, density.sample_with_intermediates(KEY, (2, 3))[0].shape) == (
        (2, 3),
        (2, 3, 2, 3),
    )
    exact = flow.sample((20_000,), rows(2, 2), seed=1)
    error = np.sqrt(2 / 20_000) * exact.std(axis=0)
    assert (np.abs(x.mean(axis=0) - exact.mean(axis=0)) < 5 * error).all()
    # Tails of the flow are heavier than those of a normal density.
    assert_allclose(x.std(axis=0), exact.std(axis=0), rtol=0.1)
    assert (density.sample(KEY, (3,)) == density.sample(KEY, (3,))).all()
    assert (density.sample(KEY, (3,)) != density.sample(jax.random.key(1), (3,))).any()


def test_a_distribution_is_a_pytree():
    module = hj.FlowModule(made())
    density = FlowDistribution(module, rows(5, 2))
    leaves, tree = jax.tree.flatten(density)
    assert sorted(leaf.shape for leaf in leaves) == sorted([(5, 2), module.params.shape])
    again = jax.tree.unflatten(tree, leaves)
    x = rows(5, 3)
    assert isinstance(again, FlowDistribution)
    assert (again.batch_shape, again.event_shape) == ((5,), (3,))
    assert (again.log_prob(x) == density.log_prob(x)).all()
    assert (jax.jit(lambda d, x: d.log_prob(x))(density, x) == jax.jit(density.log_prob)(x)).all()
    assert len(jax.tree.leaves(FlowDistribution(hj.freeze(made()), rows(5, 2)))) == 1
    gradient = jax.grad(lambda d: d.log_prob(x).sum())(density)
    by_flow = made().log_prob_vjp(x, np.ones(5, "float32"), rows(5, 2), wrt=("context", "parameters"))
    assert_allclose(gradient.context, by_flow[0], rtol=1e-3, atol=1e-4)
    assert_allclose(gradient.module.params, by_flow[1], rtol=1e-3, atol=1e-4)


def test_maps_over_contexts_and_over_rows():
    module, context, x = hj.freeze(made()), rows(5, 2), rows(5, 3)
    want = made().log_prob(x, context)
    one = jax.vmap(lambda c, x: FlowDistribution(module, c).log_prob(x))
    assert_allclose(one(context, x), want, rtol=1e-5, atol=1e-5)
    over = jax.vmap(lambda d, x: d.log_prob(x))
    assert_allclose(over(FlowDistribution(module, context), x), want, rtol=1e-5, atol=1e-5)
    wide = FlowDistribution(module, context[0]).expand([4]).to_event(1)
    assert (wide.batch_shape, wide.event_shape) == ((), (4, 3))
    assert_allclose(wide.log_prob(x[:4]), made().log_prob(x[:4], context[0]).sum(), rtol=1e-5)
    masked = FlowDistribution(module, context).mask(jnp.array([True, False, True, True, True]))
    assert_allclose(masked.log_prob(x), want * [1, 0, 1, 1, 1], rtol=1e-5, atol=1e-5)


def test_nuts_samples_a_posterior_with_a_flow_as_prior():
    # The prior is a normal density, x = A z + m, so that the posterior is known for a datum y = x + N(0, 1).
    m, a, y = np.array([1.0, -2.0]), np.array([[0.5, 0.0], [1.5, 1.0]]), np.array([2.0, 1.0])
    flow = hr.Flow([hr.transforms.Linear.from_matrix(a, m)])
    prior = FlowDistribution(hj.freeze(flow))

    def model(y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)

    mcmc = numpyro.infer.MCMC(numpyro.infer.NUTS(model), num_warmup=150, num_samples=500, progress_bar=False)
    mcmc.run(KEY, jnp.asarray(y))
    draws = np.asarray(mcmc.get_samples()["x"])
    covariance = np.linalg.inv(np.linalg.inv(a @ a.T) + np.eye(2))
    mean = covariance @ (y + np.linalg.solve(a @ a.T, m))
    std = np.sqrt(np.diag(covariance))
    # The chain has some 170 independent draws at least, as in test_jax_modules.py; limits are five standard errors.
    assert (np.abs(draws.mean(axis=0) - mean) < 5 * std / np.sqrt(170)).all()
    assert_allclose(draws.std(axis=0), std, rtol=5 / np.sqrt(2 * 170))


def test_a_transform_maps_latent_to_data():
    flow, context, z = made(), rows(5, 2), rows(4, 5, 3)
    transform = FlowTransform(flow, context)
    assert (transform.domain.event_dim, transform.codomain.event_dim) == (1, 1)
    want, log_det = flow.to_data(z, context)
    x, kept = transform.call_with_intermediates(z)
    for got, expected in ((transform(z), want), (x, want), (kept, log_det), (transform.inv(x), z)):
        assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    for intermediates in (None, kept):
        assert_allclose(transform.log_abs_det_jacobian(z, x, intermediates), log_det, rtol=1e-5, atol=1e-5)
    assert_allclose(transform.inv.log_abs_det_jacobian(x, z), -log_det, rtol=1e-4, atol=1e-4)
    normal = dist.Normal(0.0, 1.0).expand([5, 3]).to_event(1)
    density = dist.TransformedDistribution(normal, transform)
    assert_allclose(density.log_prob(x), flow.log_prob(np.asarray(x), context), rtol=1e-4, atol=1e-4)
    drawn, intermediates = density.sample_with_intermediates(KEY, (2,))
    assert drawn.shape == (2, 5, 3)
    assert_allclose(density.log_prob(drawn, intermediates), density.log_prob(drawn), rtol=1e-4, atol=1e-4)
    leaves, tree = jax.tree.flatten(transform)
    again = jax.tree.unflatten(tree, leaves)
    assert (again(z) == transform(z)).all()
    assert again == transform != FlowTransform(flow, context)
    assert bool(FlowTransform(transform.module, context).eq(transform))
    assert not bool(FlowTransform(transform.module, 2 * context).eq(transform))
    gradient = jax.grad(lambda t: t(z).sum())(transform)
    by = flow.to_data_vjp(z.reshape(-1, 3), np.ones((20, 3), "f4"), None, np.tile(context, (4, 1)), wrt=("parameters",))
    by = by[0] if isinstance(by, tuple) else by
    assert_allclose(gradient.module.params, by, rtol=1e-3, atol=1e-3)
    for wrong, error in (((flow,), ValueError), ((3, context), TypeError), ((flow, context[:, :1]), ValueError)):
        with pytest.raises(error, match=r"context: expected|module: expected"):
            FlowTransform(*wrong)


def test_nuts_moves_in_the_latent_space_of_a_transport():
    # The flow maps a standard normal density exactly to the prior, which is long and narrow.
    m, a = np.array([1.0, -2.0]), np.array([[0.02, 0.0], [1.5, 1.0]])
    flow = hr.Flow([hr.transforms.Linear.from_matrix(a, m)])
    prior = dist.TransformedDistribution(dist.Normal(0, 1).expand([2]).to_event(1), FlowTransform(hj.freeze(flow)))

    def model():
        numpyro.sample("x", prior)

    moved = numpyro.handlers.reparam(model, config={"x": numpyro.infer.reparam.TransformReparam()})
    mcmc = numpyro.infer.MCMC(numpyro.infer.NUTS(moved), num_warmup=150, num_samples=500, progress_bar=False)
    mcmc.run(KEY)
    found = mcmc.get_samples()
    assert set(found) == {"x", "x_base"}
    assert_allclose(found["x"], flow.to_data(np.asarray(found["x_base"]))[0], rtol=1e-4, atol=1e-4)
    std = np.sqrt(np.diag(a @ a.T))
    assert (np.abs(np.asarray(found["x"]).mean(axis=0) - m) < 5 * std / np.sqrt(170)).all()
    assert_allclose(np.asarray(found["x"]).std(axis=0), std, rtol=5 / np.sqrt(2 * 170))


def test_a_model_that_was_traced_draws_in_a_plate():
    density = FlowDistribution(hj.freeze(made()), rows(5, 2))

    def model():
        with numpyro.plate("five", 5):
            return numpyro.sample("x", density)

    drawn = numpyro.infer.Predictive(model, num_samples=7)(KEY)["x"]
    assert drawn.shape == (7, 5, 3)
    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, KEY)).get_trace()
    assert trace["x"]["value"].shape == (5, 3)


def test_errors_name_wrong_arguments():
    with pytest.raises(TypeError, match=r"^module: expected a headrace.jax.FlowModule or a Flow, got int"):
        FlowDistribution(3)
    with pytest.raises(ValueError, match=r"^context: expected 2 context columns, got NoneType"):
        FlowDistribution(made())
    with pytest.raises(ValueError, match=r"^context: expected no context, as the flow takes none"):
        FlowDistribution(made(0), rows(2))
    with pytest.raises(ValueError, match=r"^context: expected shape \(\.\.\., 2\), got \(5, 3\)"):
        FlowDistribution(made(), rows(5, 3))
    with pytest.raises(ValueError, match=r"^x: expected shape \(\.\.\., 3\)"):
        FlowDistribution(made(0)).log_prob(rows(4, 2))
    for name in ("mean", "variance"):
        with pytest.raises(NotImplementedError, match=f"^{name}: a flow has no formula"):
            getattr(FlowDistribution(made(0)), name)


def test_the_support_is_between_the_bounds():
    flow = hr.MAF(4, bounds=[(0.0, 1.0), None, (2.0, None), (None, -1.0)], seed=0)
    density = FlowDistribution(flow)
    support = density.support
    inside = np.array([[0.5, 9.0, 2.5, -3.0], [1.0, -9.0, 2.0, -1.0]], "float32")
    outside = np.array([[1.5, 0, 3, -2], [0.5, 0, 1, -2], [0.5, 0, 3, 0], [0.5, np.nan, 3, -2]], "float32")
    assert np.asarray(support(inside)).all()
    assert not np.asarray(support(outside)).any()
    assert FlowDistribution(flow).support == support
    assert FlowDistribution(made(0)).support == dist.constraints.real_vector
    assert bool(support(support.feasible_like(jnp.zeros((2, 4)))).all())
    assert bool(support(density.sample(KEY, (100,))).all())

    onto = dist.biject_to(support)
    z = jnp.asarray(np.random.default_rng(0).normal(size=(50, 4)).astype("float32"))
    y = onto(z)
    assert bool(support(y).all())
    assert_allclose(onto.inv(y), z, rtol=1e-3, atol=1e-4)  # a sigmoid keeps five digits near its ends
    jacobian = jax.vmap(jax.jacfwd(onto))(z)
    assert_allclose(onto.log_abs_det_jacobian(z, y), jnp.linalg.slogdet(jacobian)[1], rtol=1e-4, atol=1e-4)
    assert np.isfinite(jax.grad(lambda z: onto(z)[0])(jnp.array([0.0, 500.0, 0.0, 0.0]))).all()
    assert np.isfinite(jax.grad(lambda y: onto._inverse(y).sum())(jnp.asarray(inside[0]))).all()


def test_nuts_stays_between_the_bounds():
    x = np.random.default_rng(0).beta(2.0, 5.0, (2000, 1)).astype("float32")
    flow = hr.NSF(1, bounds=[(0.0, 1.0)], transforms=1, seed=0)
    flow.fit(x, epochs=20, seed=0)
    prior = FlowDistribution(hj.freeze(flow))
    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(lambda: numpyro.sample("x", prior)), num_warmup=150, num_samples=500, progress_bar=False
    )
    mcmc.run(KEY)
    draws = np.asarray(mcmc.get_samples()["x"])
    assert ((draws > 0) & (draws < 1)).all()
    # The target is a beta density with mean 2/7 and standard deviation 0.16; the chain has some 170 independent draws
    # at least.
    assert abs(draws.mean() - 2 / 7) < 5 * 0.16 / np.sqrt(170)


def test_a_guide_has_its_log_densities_from_the_run_of_its_draws():
    density = FlowDistribution(hj.FlowModule(made()), rows(5, 2))
    x, intermediates = density.sample_with_intermediates(KEY, (4,))
    assert (x == density.sample(KEY, (4,))).all()
    assert_allclose(density.log_prob(x, intermediates), density.log_prob(x), rtol=1e-4, atol=1e-4)
    jaxpr = str(jax.make_jaxpr(lambda x: density.log_prob(x, intermediates))(x))
    assert "ffi_call" not in jaxpr


@pytest.mark.parametrize("particles", [10, 50])
def test_variational_inference_with_a_flow_as_guide(particles):
    # The target is a correlated normal density, which an affine autoregressive flow represents exactly.
    covariance = jnp.array([[1.0, 0.8, 0.0], [0.8, 1.0, 0.3], [0.0, 0.3, 0.5]])
    target = dist.MultivariateNormal(jnp.array([1.0, -1.0, 0.5]), covariance)
    module = hj.FlowModule(hr.IAF(3, transforms=1, hidden=(16,), seed=0))

    def model():
        numpyro.sample("x", target)

    def guide():
        numpyro.sample("x", FlowDistribution(module.with_params(numpyro.param("params", module.params))))

    elbo = numpyro.infer.Trace_ELBO(num_particles=particles)
    svi = numpyro.infer.SVI(model, guide, numpyro.optim.Adam(0.01), elbo)
    state = svi.init(KEY)
    text = str(jax.make_jaxpr(svi.update)(state))
    assert "scan" not in text  # all particles are rows of a single run
    assert text.count("ffi_call[") == 2  # one call for the forward pass, and one for the backward pass
    result = svi.run(KEY, 1000, progress_bar=False)
    found = module.with_params(result.params["params"])
    x, log_q = found.sample_and_log_prob(jax.random.key(1), (4000,))
    divergence = np.asarray(log_q - target.log_prob(x))
    assert divergence.mean() < 0.1  # 1.5 for a new flow; gradient noise at a constant rate leaves 0.03 to 0.05
    assert abs(svi.evaluate(result.state)) < 0.5
