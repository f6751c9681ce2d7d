"""Flows of headrace in pocoMC: whole runs, the methods that pocoMC's sampler calls, and pocoMC's arguments of `fit`."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

import headrace as hr
from convert_cases import library

pytestmark = [pytest.mark.programs, pytest.mark.filterwarnings("ignore")]

pocomc = library("pocomc")
torch = library("torch")
stats = library("scipy.stats")

from headrace.integrations.pocomc import Flow, Sampler  # noqa: E402

SPREAD, CENTRE = np.array([0.5, 0.2]), np.array([0.7, -0.4])
EVIDENCE = -2 * np.log(10)  # the evidence of a normalised likelihood inside a uniform prior on a square of side 10


def likelihood(x):
    return -0.5 * (((x - CENTRE) / SPREAD) ** 2).sum(axis=1) - np.log(2 * np.pi * SPREAD.prod())


def sampler(flow, **settings):
    prior = pocomc.Prior([stats.uniform(-5, 10)] * 2)
    sizes = {"n_effective": 256, "n_active": 128, "vectorize": True, "random_state": 0}
    return Sampler(prior, likelihood, flow=flow, **sizes, **settings)


def run(one, **settings):
    one.run(n_total=512, n_evidence=1024, progress=False, **settings)
    return one


def rows(n=600, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=generator) * torch.tensor([1.0, 2.0, 0.5]) + torch.tensor([0.0, 1.0, -3.0])


@pytest.mark.parametrize("flow", ["maf3", "nsf3", "own"])
def test_a_run_finds_the_evidence_and_the_posterior(flow):
    made = hr.RealNVP(2, transforms=4, hidden=(32,), seed=0) if flow == "own" else flow
    done = run(sampler(made))
    value, error = done.evidence()
    assert 0 < error < 0.1  # importance weights of a flow that is independent of the posterior have a larger error
    assert abs(value - EVIDENCE) < 5 * error
    x, w, *_ = done.posterior()
    mean = np.average(x, axis=0, weights=w)
    # The run has at least 512 effective draws; limits are five standard errors.
    assert (np.abs(mean - CENTRE) < 5 * SPREAD / np.sqrt(512)).all()
    assert_allclose(np.sqrt(np.average((x - mean) ** 2, axis=0, weights=w)), SPREAD, rtol=5 / np.sqrt(2 * 512))


def test_a_run_goes_on_from_a_state_file(tmp_path):
    first = run(sampler("maf3", output_dir=tmp_path), save_every=3)
    files = sorted(tmp_path.glob("*.state"))
    assert files
    again = sampler("maf3", output_dir=tmp_path)
    again.load_state(files[-1])
    assert torch.equal(again.flow.log_prob(torch.zeros(1, 2)), first.flow.log_prob(torch.zeros(1, 2)))
    run(again, resume_state_path=files[0])
    value, error = again.evidence()
    assert abs(value - EVIDENCE) < 5 * error


def test_the_same_random_state_gives_the_same_run():
    a, b = (run(sampler("maf3")).evidence()[0] for _ in range(2))
    assert a == b


@pytest.mark.parametrize("name", ["maf3", "nsf3"])
def test_directions_are_those_of_pocomc(name):
    flow, theirs = Flow(3, name, seed=1), pocomc.Flow(3, name)
    flow.flow.parameters = flow.flow.parameters + 0.03 * np.random.default_rng(0).standard_normal(
        flow.flow.parameters.size
    )
    x = rows(20)
    u, log_det = flow.forward(x)
    normal = torch.distributions.Normal(0, 1).log_prob(u).sum(dim=1)
    assert_allclose(flow.log_prob(x), normal + log_det, rtol=1e-5, atol=1e-4)  # a tolerance for roundings in float32
    back, undone = flow.inverse(u)
    assert_allclose(back, x, rtol=1e-4, atol=1e-4)
    assert_allclose(undone, -log_det, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        known, its = theirs.forward(x)
        assert_allclose(
            theirs.log_prob(x), torch.distributions.Normal(0, 1).log_prob(known).sum(dim=1) + its, atol=1e-3
        )
        both = (
            (flow.forward(x), theirs.forward(x)),
            (flow.inverse(x), theirs.inverse(x)),
            (flow.sample(7), theirs.sample(7)),
        )
    for ours, other in both:
        assert [(a.shape, a.dtype) for a in ours] == [(a.shape, a.dtype) for a in other]


def test_draws_follow_torchs_seed():
    flow = Flow(2, "maf3")
    torch.manual_seed(3)
    x, log_prob = flow.sample(50)
    assert_allclose(flow.log_prob(x), log_prob, rtol=1e-4, atol=1e-4)
    torch.manual_seed(3)
    assert torch.equal(flow.sample(50)[0], x)
    assert not torch.equal(flow.sample(50)[0], x)


def test_a_copy_by_pickle_is_the_same_flow():
    flow = Flow(3, "nsf3", fit={"learning_rate": 1e-2})
    flow.fit(rows(), epochs=2, validation_split=0.5)
    again = pickle.loads(pickle.dumps(flow))
    assert torch.equal(again.log_prob(rows(9)), flow.log_prob(rows(9)))
    assert (again.n_dim, again._fit) == (3, {"learning_rate": 1e-2})


def test_training_reaches_the_density():
    flow = Flow(3, "maf3")
    history = flow.fit(rows(), epochs=60, validation_split=0.5, batch_size=100)
    assert len(history["loss"]) == len(history["val_loss"]) <= 60
    test = rows(4000, seed=9)
    exact = -0.5 * np.log(2 * np.pi * np.e) * 3 - np.log(1.0 * 2.0 * 0.5)  # minus the entropy
    assert abs(flow.log_prob(test).mean() - exact) < 0.15


def test_weights_count():
    x = torch.cat([rows(400), rows(400) + 20])
    w = torch.cat([torch.ones(400), torch.zeros(400)])
    flow = Flow(3, "maf3")
    flow.fit(x, weights=w, epochs=30, validation_split=0.5, batch_size=100)
    assert flow.log_prob(rows(100, seed=2)).mean() > flow.log_prob(rows(100, seed=2) + 20).mean() + 100


class Recorded:
    """A flow that records the arguments of `fit`."""

    def fit(self, x, **arguments):
        self.x, self.arguments = x, arguments
        return SimpleNamespace(train_loss=[2.0], validation_loss=[], stopped="epochs")


def recorded(x, weights=None, fit=None, **arguments):
    flow = Flow(3, "maf3", fit=fit)
    flow.flow = Recorded()
    flow.fit(x, weights=weights, **arguments)
    return flow.flow


def test_fit_reads_the_arguments_as_pocomc_does():
    x = rows(100)
    w = x[:, 0].exp()
    got = recorded(
        x,
        w,
        validation_split=0.8,
        epochs=7,
        batch_size=30,
        patience=5,
        learning_rate=2e-3,
        weight_decay=0.1,
        clip_grad_norm=3.0,
        annealing=False,
    )
    held, none, w_held = got.arguments.pop("validation")
    assert (len(got.x), len(held), none) == (80, 20, None)  # pocoMC trains with the share `validation_split`
    assert_allclose(sorted(torch.cat([got.x, held])[:, 0]), sorted(x[:, 0]))
    assert_allclose(got.arguments.pop("weights"), got.x[:, 0].exp())
    assert_allclose(w_held, held[:, 0].exp())
    assert not torch.equal(got.x, x[:80])
    assert isinstance(got.arguments.pop("seed"), int)
    assert got.arguments == {
        "epochs": 7, "batch_size": 30, "patience": 7, "learning_rate": 2e-3, "weight_decay": 0.1, "clip": 3.0,
        "schedule": "constant", "progress": False,
    }  # fmt: skip
    plain = recorded(x, fit={"epochs": 3, "learning_rate": None}, verbose=1, batch_size=1000)
    assert plain.arguments["validation"] is None
    assert len(plain.x) == plain.arguments["batch_size"] == 100
    assert plain.arguments["schedule"] == "plateau"
    assert plain.arguments["progress"]
    assert (plain.arguments["epochs"], plain.arguments["learning_rate"]) == (3, None)


@pytest.mark.parametrize(
    ("name", "value"), [("laplace_scale", 1.0), ("gaussian_scale", 0.5), ("noise", 0.1), ("shuffle", False)]
)
def test_arguments_without_a_counterpart_in_headrace_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name}: expected "):
        Flow(3, "maf3").fit(rows(), **{name: value})


def test_names_and_flows_of_the_caller():
    assert len([t for t in Flow(2, "nsf6").flow.transforms if isinstance(t, hr.transforms.MaskedAutoregressive)]) == 6
    assert Flow(2, "maf", transforms=2, hidden=(8,)).flow.n_parameters < Flow(2, "maf3").flow.n_parameters
    own = hr.MAF(2, seed=0)
    assert Flow(2, own).flow is not own
    for bad in ("gf3", "", "nsf3x"):
        with pytest.raises(ValueError, match=r"^flow: expected maf, nsf, realnvp"):
            Flow(2, bad)
    with pytest.raises(TypeError, match=r"^flow: expected a name, as 'nsf6', or a headrace.Flow, got int"):
        Flow(2, 3)
    with pytest.raises(ValueError, match=r"^flow: expected 2 features and no context, got 3 and 0"):
        Flow(2, hr.MAF(3))
    with pytest.raises(ValueError, match=r"^flow: expected a standard normal base"):
        Flow(2, hr.MAF(2, base=hr.Logistic(2)))
    with pytest.raises(ValueError, match=r"^hidden: expected no settings beside a flow"):
        Flow(2, own, hidden=(3,))
    with pytest.raises(ValueError, match=r"^flow: expected 2 dimensions, as the prior has, got 3"):
        sampler(Flow(3, "maf3"))
