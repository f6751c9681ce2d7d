"""headrace inside of sbi: flows trained by sbi's trainers, and flows in place of its trained estimators."""

import copy
import os
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

import headrace as hr
from convert_cases import library

pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("ignore")]

inference = library("sbi.inference")
torch = library("torch")

from sbi.diagnostics import run_sbc as inference_run_sbc  # noqa: E402
from sbi.inference.posteriors import DirectPosterior  # noqa: E402
from sbi.neural_nets import posterior_nn as sbi_posterior_nn  # noqa: E402
from sbi.utils import BoxUniform  # noqa: E402

from headrace.integrations import sbi as ours  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def elsewhere(tmp_path_factory):
    """Run tests in an empty folder, because trainers leave logs in the current folder."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("sbi"))
    yield
    os.chdir(before)


PRIOR = BoxUniform(-2 * torch.ones(2), 2 * torch.ones(2))


def simulated(n=500, seed=0):
    generator = torch.Generator().manual_seed(seed)
    theta = 4 * torch.rand(n, 2, generator=generator) - 2
    return theta, theta + 0.3 * torch.randn(n, 2, generator=generator)


def trained(trainer, epochs=2):
    theta, x = simulated()
    trainer.append_simulations(theta, x).train(max_num_epochs=epochs, training_batch_size=100)
    return trainer


@pytest.fixture(scope="module", params=["maf", "zuko_nsf"])
def posterior(request):
    torch.manual_seed(0)
    trainer = inference.NPE(PRIOR, density_estimator=request.param, show_progress_bars=False)
    made = trained(trainer, epochs=30).build_posterior()
    made.set_default_x(torch.tensor([[0.3, -0.4]]))
    return made


def test_a_posterior_keeps_its_methods(posterior):
    fast = hr.accelerate(posterior)
    assert type(fast) is type(posterior)
    assert fast.posterior_estimator is not posterior.posterior_estimator
    assert isinstance(fast.posterior_estimator, ours.FlowEstimator)
    theta = fast.sample((300,), show_progress_bars=False)
    assert theta.shape == (300, 2)
    assert (theta.abs() <= 2).all()
    args = {"norm_posterior": False}
    assert_allclose(fast.log_prob(theta, **args), posterior.log_prob(theta, **args), rtol=1e-4, atol=1e-4)
    torch.manual_seed(1)
    corrected = fast.log_prob(theta)
    torch.manual_seed(1)
    assert_allclose(corrected, posterior.log_prob(theta), atol=0.05)  # the correction is estimated by samples
    many = torch.tensor([[0.3, -0.4], [1.0, 0.0], [-1.0, 1.5]])
    drawn = fast.sample_batched((50,), x=many, show_progress_bars=False)
    assert drawn.shape == (50, 3, 2)
    assert_allclose(
        fast.log_prob_batched(drawn, x=many, **args), posterior.log_prob_batched(drawn, x=many, **args),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    torch.manual_seed(2)
    mode = fast.map(num_iter=60, num_to_optimize=10, num_init_samples=100, show_progress_bars=False)
    best = fast.log_prob(theta, **args).max()
    assert fast.log_prob(mode, **args) >= best - 0.05


def test_draws_have_the_distribution_of_the_originals(posterior):
    torch.manual_seed(3)
    fast = hr.accelerate(posterior)
    a = fast.sample((4000,), show_progress_bars=False).numpy()
    b = posterior.sample((4000,), show_progress_bars=False).numpy()
    error = np.sqrt(2 / 4000) * b.std(axis=0)
    assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < 5 * error).all()
    assert_allclose(np.cov(a.T), np.cov(b.T), atol=6 * error.max() * b.std())


def test_a_posterior_can_be_pickled_and_copied(posterior):
    fast = hr.accelerate(posterior)
    theta = torch.zeros(3, 2)
    want = fast.log_prob(theta, norm_posterior=False)
    for again in (pickle.loads(pickle.dumps(fast)), copy.deepcopy(fast)):
        assert torch.equal(again.log_prob(theta, norm_posterior=False), want)


def test_a_likelihood_inside_of_a_sampler():
    torch.manual_seed(4)
    trainer = trained(inference.NLE(PRIOR, density_estimator="maf", show_progress_bars=False))
    posterior = trainer.build_posterior(sample_with="mcmc", mcmc_method="slice_np_vectorized")
    posterior.set_default_x(torch.tensor([[0.3, -0.4], [0.2, -0.3]]))  # two observations with equal θ
    fast = hr.accelerate(posterior)
    theta = simulated(20, seed=5)[0]
    assert_allclose(fast.log_prob(theta), posterior.log_prob(theta), rtol=1e-4, atol=1e-4)
    drawn = fast.sample((20,), num_chains=5, warmup_steps=5, thin=1, show_progress_bars=False)
    assert drawn.shape == (20, 2)


def test_an_estimator_alone_with_its_embedding_net():
    torch.manual_seed(5)
    theta, x = simulated()
    net = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.ReLU())
    model = sbi_posterior_nn("nsf", embedding_net=net)(theta, x).eval()
    fast = hr.accelerate(model)
    inputs = torch.randn(7, 4, 2)
    for condition in (x[:4], x[:1], torch.randn(7, 4, 2)):
        got, want = fast.log_prob(inputs, condition), model.log_prob(inputs, condition)
        assert got.shape == want.shape == (7, 4)
        assert_allclose(got.detach(), want.detach(), rtol=1e-4, atol=1e-4)
    assert_allclose(fast.loss(theta[:9], x[:9]).detach(), model.loss(theta[:9], x[:9]).detach(), rtol=1e-4, atol=1e-4)
    assert fast.sample((3, 2), x[:4]).shape == model.sample((3, 2), x[:4]).shape
    drawn, log_prob = fast.sample_and_log_prob((3,), x[:4])
    assert_allclose(model.log_prob(drawn, x[:4]).detach(), log_prob.detach(), rtol=1e-3, atol=1e-3)
    noise = fast.inverse_transform(inputs, x[:4])
    assert noise.shape == inputs.shape


@pytest.mark.parametrize("kind", list(ours.KINDS))
def test_sbi_trains_a_flow_and_its_embedding_net(kind):
    torch.manual_seed(6)
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh())
    builder = ours.posterior_nn(kind, embedding_net=net, transforms=2, hidden=(16,))
    trainer = inference.NPE(PRIOR, density_estimator=builder, show_progress_bars=False)
    theta, x = simulated()
    fresh = builder(theta, x)
    estimator = trainer.append_simulations(theta, x).train(max_num_epochs=25, learning_rate=5e-3)
    before, after = (one.eval().loss(theta, x).mean() for one in (fresh, estimator))
    assert after < before - 0.5
    moved = [
        not torch.equal(a, b) for a, b in zip(net.parameters(), estimator.embedding_net[1].parameters(), strict=True)
    ]
    assert all(moved)
    posterior = trainer.build_posterior()
    assert posterior.sample((10,), x=x[:1], show_progress_bars=False).shape == (10, 2)


@pytest.mark.parametrize("kind", ["maf", "nsf", "zuko_nsf"])
def test_sbi_trains_its_own_architecture(kind):
    """With equal fresh weights and an equal order of rows losses are equal, up to rounding that steps amplify.

    nflows divides a network's outputs for a spline by the root of its width; headrace has this factor in the weights,
    so that steps of Adam go further and losses fall sooner.
    """
    theta, x = simulated()
    own = sbi_posterior_nn(kind)
    losses = []
    for builder in (own, hr.accelerate(own)):
        torch.manual_seed(8)
        trainer = inference.NPE(PRIOR, density_estimator=builder, show_progress_bars=False)
        estimator = trainer.append_simulations(theta, x).train(max_num_epochs=4, training_batch_size=100)
        assert isinstance(estimator, ours.FlowEstimator) == (builder is not own)
        losses.append(trainer.summary["training_loss"])
    assert losses[0][-1] < losses[0][0] - 0.1
    if kind == "nsf":
        assert losses[1][-1] < losses[0][-1]
    else:
        assert_allclose(*losses, atol=2e-3)


def test_a_builder_with_parts_that_training_changes_is_refused():
    theta, x = simulated()
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Dropout(0.2))
    assert hr.accelerate(sbi_posterior_nn("maf", embedding_net=net))(theta, x).embedding_net[-1][1].p == 0.2
    for more in ({"dropout_probability": 0.2}, {"use_batch_norm": True}):
        builder = hr.accelerate(sbi_posterior_nn("maf", **more))
        with pytest.raises(ValueError, match=r"^model\.net\._transform\S+: expected no (dropout|batch norm)"):
            builder(theta, x)
    with pytest.raises(TypeError, match=r"^model: expected a builder of a density estimator, .* got one of int"):
        ours.accelerate(lambda theta, x: 3)(theta, x)
    with pytest.raises(TypeError, match=r"^model: expected a density estimator, a posterior or a builder of sbi, got "):
        hr.accelerate(inference.NPE)
    with pytest.raises(TypeError, match=r"or a builder that sbi made, got function"):
        hr.accelerate(lambda theta, x: 3)


def test_a_flow_that_was_fitted_is_an_estimator():
    theta, x = (part.numpy() for part in simulated())
    flow = hr.MAF(2, context=2, transforms=2, hidden=(16,), seed=1)
    flow.fit(theta, context=x, epochs=3, progress=False)
    posterior = DirectPosterior(ours.FlowEstimator(flow), PRIOR)
    at = torch.from_numpy(x[:1])
    log_prob = posterior.log_prob(torch.from_numpy(theta[:5]), x=at, norm_posterior=False)
    assert_allclose(log_prob, flow.log_prob(theta[:5], context=x[0]), rtol=1e-5, atol=1e-5)
    drawn = posterior.sample((200,), x=at, show_progress_bars=False)
    assert drawn.shape == (200, 2)
    assert drawn.abs().max() <= 2
    with pytest.raises(TypeError, match=r"^flow: expected a Flow, got int"):
        ours.FlowEstimator(3)


def test_sbi_trains_a_likelihood():
    torch.manual_seed(7)
    trainer = inference.NLE(PRIOR, density_estimator=ours.likelihood_nn("maf", transforms=1), show_progress_bars=False)
    estimator = trained(trainer, epochs=3)._neural_net
    assert estimator.input_shape == estimator.condition_shape == (2,)
    posterior = trainer.build_posterior(sample_with="mcmc")
    posterior.set_default_x(torch.zeros(1, 2))
    assert posterior.log_prob(torch.zeros(3, 2)).shape == (3,)


def test_parameters_and_data_are_standardised():
    theta, x = simulated()
    theta, x = 100 * theta + 1000, 50 * x
    estimator = ours.posterior_nn("maf", transforms=1)(theta, x)
    z = estimator.inverse_transform(theta, x)
    assert_allclose(z.detach().mean(dim=0), np.zeros(2), atol=0.1)
    assert_allclose(z.detach().std(dim=0), np.ones(2), atol=0.1)
    plain = ours.posterior_nn("maf", transforms=1, z_score=False)(theta, x)
    assert plain.inverse_transform(theta, x).abs().max() > 100
    with pytest.raises(ValueError, match=r"^model: expected one of"):
        ours.posterior_nn("made")
    with pytest.raises(
        TypeError, match=r"^model: expected a density estimator, a posterior or a builder of sbi, got int"
    ):
        ours.accelerate(3)


def test_calibration_of_many_observations_in_batches(posterior):
    fast = hr.accelerate(posterior)
    theta, x = simulated(400, seed=8)
    x[3, 0] = np.nan
    torch.manual_seed(8)
    ranks, drawn = ours.run_sbc(theta, x, posterior, 100, rows=3000)  # a call has 30 observations
    assert (ranks.shape, drawn.shape) == ((399, 2), (399, 2))
    assert (drawn.abs() <= 2).all()
    assert ranks.max() <= 100
    theirs, _ = inference_run_sbc(theta, x, fast, num_posterior_samples=100, show_progress_bar=False)
    # Both runs rank the same theta, among different samples of one distribution: a rank has an error of at most 5.
    assert (ranks - theirs).abs().mean() < 8
    for reduced in ("marginals", "log_prob"):
        first = ours.run_sbc(theta, x, fast, 50, reduced)[0]
        assert first.shape == (399, 2 if reduced == "marginals" else 1)
    # Ranks of samples in wrong rows, or by the density of another row, would no longer be close.
    wrong = ours.run_sbc(theta.flip(0), x.flip(0).roll(1, 0), fast, 100)[0]
    assert (wrong - theirs.flip(0)).abs().mean() > 15


def test_each_draw_outside_of_the_prior_is_drawn_again_for_its_own_observation(posterior, monkeypatch):
    """Samples equal their observation, so that a sample in a wrong row, or outside of the prior, is detected."""
    fast = hr.accelerate(posterior)
    x = simulated(6, seed=9)[1].clamp(-1.9, 1.9)
    calls = []

    def sample(sample_shape, condition):
        calls.append((sample_shape[0], len(condition)))
        drawn = condition[None] + 1e-3 * torch.arange(sample_shape[0])[:, None, None] + torch.zeros(1, 1, 2)
        if len(calls) == 1:
            drawn[3, 1], drawn[7, 4], drawn[8, 4, 0] = 9.0, -9.0, 2.5
        elif len(calls) == 2:
            drawn[:2, 0] = 9.0  # two of the first row's new samples are outside of the prior
            drawn[:, 2] = 9.0  # all of the last row's new samples are outside of the prior
        return drawn

    monkeypatch.setattr(fast.posterior_estimator, "sample", sample)
    drawn = ours._inside(fast.posterior_estimator, PRIOR, 40, x, torch.arange(6))
    more = 40 * 6 // 3
    assert calls == [(40, 6), (more, 3), (40 * 6, 1)]
    offsets = 1e-3 * torch.arange(40).repeat(6, 1).T
    offsets[3, 1], offsets[7, 4], offsets[8, 4] = 2e-3, 0.0, 0.0
    assert_allclose(drawn, x[None] + offsets[..., None], rtol=0, atol=1e-6)


def test_each_rank_is_counted_by_hand(posterior, monkeypatch):
    fast = hr.accelerate(posterior)
    theta, x = simulated(7, seed=10)
    shifts = 0.6 * torch.randn(30, 1, 2, generator=torch.Generator().manual_seed(11))

    def sample(sample_shape, condition):
        return (condition[None] + shifts[: sample_shape[0]]).clamp(-2.0, 2.0)

    def log_prob(input, condition):  # some directions have more density, so that both sorts of ranks differ
        away = input - condition
        return -(away**2).sum(dim=-1) + 0.7 * away[..., 0]

    monkeypatch.setattr(fast.posterior_estimator, "sample", sample)
    monkeypatch.setattr(fast.posterior_estimator, "log_prob", log_prob)
    for rows in (60, 200_000):  # a call samples for two observations, or for all
        ranks, first = ours.run_sbc(theta, x, fast, 30, rows=rows)
        coverage, again = ours.run_sbc(theta, x, fast, 30, "log_prob", rows=rows)
        for i in range(7):
            drawn = sample((30,), x[i : i + 1])[:, 0]
            assert torch.equal(first[i], drawn[0])
            assert torch.equal(again[i], drawn[0])
            assert [int(n) for n in ranks[i]] == [sum(bool(d[k] < theta[i, k]) for d in drawn) for k in range(2)]
            own = log_prob(theta[i], x[i])
            assert int(coverage[i, 0]) == sum(bool(log_prob(d, x[i]) < own) for d in drawn)
    assert coverage.shape == (7, 1)
    assert len(set(coverage[:, 0].tolist())) > 2
    assert not torch.equal(coverage[:, 0], ranks[:, 0])
    monkeypatch.setattr(fast.posterior_estimator, "sample", lambda s, condition: 9 + torch.zeros(*s, len(condition), 2))
    with pytest.raises(
        RuntimeError, match=r"^posterior: expected draws inside of the prior, got none of \d+ for obs.* 0"
    ):
        ours.run_sbc(theta, x, fast, 40)


def test_calibration_refuses_other_densities(posterior):
    theta, x = simulated(5)
    with pytest.raises(ValueError, match=r"^xs: expected 4 observations, as thetas has, got 5"):
        ours.run_sbc(theta[:4], x, posterior)
    with pytest.raises(ValueError, match=r"^reduce_fns: expected one of"):
        ours.run_sbc(theta, x, posterior, reduce_fns="mean")
    with pytest.raises(TypeError, match=r"^posterior: expected a DirectPosterior of sbi, got int"):
        ours.run_sbc(theta, x, 3)
