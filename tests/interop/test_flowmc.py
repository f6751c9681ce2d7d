"""Flows inside of flowMC: as its models, trained by its loop, and in its global proposals."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import headrace as hr
from convert_cases import library

pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("ignore")]

library("flowMC")
jax = library("jax")

import equinox  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from flowMC.resource.kernel.NF_proposal import NFProposal  # noqa: E402
from jax.experimental.compilation_cache import compilation_cache  # noqa: E402

from headrace.integrations.flowmc import FlowModel, use  # noqa: E402


@pytest.fixture(autouse=True)
def jax_keeps_nothing_on_disk():
    """Undo flowMC's setting of JAX, which stores all compiled code of the process in the working folder."""
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def made(features=3, **settings):
    return hr.NSF(features, transforms=2, hidden=(16,), coupling=True, bins=4, **settings)


def rows(n=512, features=3, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, features)) * np.arange(1, features + 1)
    x[:, 1] += 0.5 * x[:, 0] ** 2
    return (x + 20.0).astype("float32")


def test_a_flow_on_standardised_data_is_trained_by_flowmc_s_loop():
    model = FlowModel(made())
    x = jnp.asarray(rows())
    optimiser = optax.adam(5e-3)
    state = optimiser.init(equinox.filter(model, equinox.is_inexact_array))
    _, trained, state, losses = model.train(jax.random.key(0), x, optimiser, state, 8, 64, verbose=False)
    assert_allclose(trained.data_mean, x.mean(axis=0), rtol=1e-4)
    assert_allclose(trained.data_cov, jnp.cov(x.T), rtol=1e-4)
    standard = equinox.tree_at(lambda m: (m._data_mean, m._data_cov), model, (trained._data_mean, trained._data_cov))
    assert trained.log_prob(x).mean() > standard.log_prob(x).mean() + 0.1
    assert_allclose(losses[-1], -trained.log_prob(x).mean(), atol=0.5)
    flow = trained.to_flow()
    assert_allclose(flow.log_prob(np.asarray(x)), trained.log_prob(x), rtol=1e-4, atol=1e-4)
    one = trained.log_prob(x[0])
    assert one.shape == ()
    assert_allclose(jax.vmap(trained.log_prob)(x[:5]), trained.log_prob(x)[:5], rtol=1e-5, atol=1e-5)
    drawn = trained.sample(jax.random.key(1), 4000)
    assert_allclose(drawn.mean(axis=0), x.mean(axis=0), atol=0.5)
    assert_allclose(drawn.std(axis=0), x.std(axis=0), rtol=0.2)  # the true deviations are 1, 2.1 and 3
    own = model.module.sample(jax.random.key(2), 10)
    assert_allclose(standard.sample(jax.random.key(2), 10), x.mean(axis=0) + x.std(axis=0, ddof=1) * own, rtol=1e-4)
    z, log_det = trained.forward(x[:5])
    back, other = trained.inverse(z)
    assert_allclose(back, x[:5], rtol=1e-3, atol=1e-3)
    assert_allclose(log_det, -other, rtol=1e-3, atol=1e-3)
    # Functions that were compiled for an older model are not used for a newer one, because parameters are leaves.
    compiled = equinox.filter_jit(lambda m, x: m.log_prob(x))
    assert not np.allclose(compiled(standard, x[:5]), compiled(trained, x[:5]))


def test_proposals_have_the_densities_that_they_come_with():
    """The densities of proposals are those of the trained parameters, for one chain and for mapped chains with
    different draws."""
    x = jnp.asarray(rows())
    optimiser = optax.adam(5e-3)
    model = FlowModel(made())
    state = optimiser.init(equinox.filter(model, equinox.is_inexact_array))
    proposal = NFProposal(model, n_NFproposal_batch_size=10)
    _, trained, *_ = model.train(jax.random.key(0), x, optimiser, state, 3, 64, verbose=False)
    # FlowMC's bundles replace the model in the same way after each training.
    proposal = equinox.tree_at(lambda p: p.model, proposal, trained)
    flow = trained.to_flow()
    assert not np.array_equal(np.asarray(trained.module.params), np.asarray(model.module.params))
    for n in (8, 25):  # fewer and more samples than a batch of the proposal
        mapped = equinox.filter_jit(equinox.filter_vmap(lambda key, n=n: proposal.sample_flow(key, n)))
        drawn, log_prob = mapped(jax.random.split(jax.random.key(1), 4))
        assert drawn.shape == (4, n, 3)
        assert len(np.unique(np.asarray(drawn)[..., 0])) == 4 * n
        assert_allclose(flow.log_prob(np.asarray(drawn)), log_prob, rtol=1e-4, atol=1e-4)

    def own(x, data):
        return trained.log_prob(x)

    # A chain whose target is the flow's density accepts every proposal.
    kernel = equinox.filter_jit(lambda key, x: proposal.kernel(key, x, trained.log_prob(x), own, {"n_steps": 8}))
    assert kernel(jax.random.key(2), x[0])[2].all()


def bundle_of(features=4):
    from flowMC.resource_strategy_bundle.RQSpline_MALA import RQSpline_MALA_Bundle

    return RQSpline_MALA_Bundle(
        rng_key=jax.random.key(0), n_chains=2, n_dims=features, logpdf=lambda x, data: 0.0, n_local_steps=1,
        n_global_steps=1, n_training_loops=1, n_production_loops=1, n_epochs=1, rq_spline_hidden_units=[4],
        rq_spline_n_layers=1,
    )  # fmt: skip


def test_a_flow_may_begin_with_small_weights():
    flow = made(4)
    before = flow.parameters
    whole, small = use(bundle_of(), flow), use(bundle_of(), flow, shrink=0.1)
    assert_allclose(whole.resources["model"].module.params, before)
    for model in (small.resources["model"], small.resources["global_sampler"].model):
        assert_allclose(model.module.params, 0.1 * before, rtol=1e-6)
    assert_allclose(flow.parameters, before)  # the given flow does not change
    for shrink in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match=r"^shrink: expected a number above 0"):
            use(bundle_of(), flow, shrink=shrink)
    with pytest.raises(ValueError, match=r"^flow: expected 4 features, got 3"):
        use(bundle_of(), made(3))


def acceptance(bundle, folder):
    from flowMC.Sampler import Sampler

    sampler = Sampler(
        n_dim=4, n_chains=20, rng_key=jax.random.key(1), resource_strategy_bundles=bundle, outdir=str(folder)
    )
    start = 2.0 * jax.random.normal(jax.random.key(2), (20, 4))
    sampler.sample(start, {})
    accepted = sampler.resources["global_accs_production"].data
    positions = sampler.resources["positions_production"].data.reshape(-1, 4)
    accepted = accepted[jnp.isfinite(accepted)]
    return float(accepted.mean()), np.asarray(positions[jnp.isfinite(positions).all(axis=1)])


@pytest.mark.long
def test_global_proposals_are_accepted(tmp_path):
    from flowMC.resource_strategy_bundle.RQSpline_MALA import RQSpline_MALA_Bundle

    def target(x, data):  # two columns form a banana, and two columns are normal
        return -0.5 * (x[0] ** 2 + (2.0 * (x[1] - 0.5 * x[0] ** 2)) ** 2 + x[2] ** 2 + (x[3] - 3.0) ** 2)

    sizes = {"n_local_steps": 20, "n_global_steps": 20, "n_training_loops": 5, "n_production_loops": 2, "n_epochs": 10}
    sizes |= {"rq_spline_n_layers": 2, "rq_spline_hidden_units": [16, 16], "batch_size": 500, "n_max_examples": 2000}
    own = RQSpline_MALA_Bundle(
        rng_key=jax.random.key(0), n_chains=20, n_dims=4, logpdf=target, mala_step_size=0.3, **sizes
    )
    flow = hr.NSF(4, transforms=4, hidden=(16, 16), coupling=True, bins=8, bound=10.0)
    accepted, x = acceptance(use(own, flow, learning_rate=1e-2), tmp_path)
    assert accepted > 0.3  # a run had 0.59
    assert_allclose(x.mean(axis=0), [0.0, 0.5, 0.0, 3.0], atol=0.35)


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"^flow: expected a headrace\.Flow, got int"):
        FlowModel(3)
    with pytest.raises(ValueError, match=r"^flow: expected one without context, got 2 columns"):
        FlowModel(hr.MAF(2, context=2))
    with pytest.raises(TypeError, match=r"^bundle: expected a bundle of flowMC with a flow, got int"):
        use(3, made())
